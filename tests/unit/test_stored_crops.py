"""Training crops from movies on disk: where they lie, what is taken out, and which movies are never
trained on.
"""

import math

import numpy as np
import pytest
import torch
from training_runs import settings as run_settings
from training_runs import species as blob

from dstnet.dataset import MovieRecord, SimulatedMovie, read_dataset, split_movies
from dstnet.detector.settings import DetectorSettings
from dstnet.errors import BadInputError, DstnetError, SettingsError
from dstnet.motion import Motion
from dstnet.motion.local_field import local_displacement
from dstnet.motion.simulated_motion import MotionSettings
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectionBank
from dstnet.training import train_run
from dstnet.training.crop_conditions import StreamSettings
from dstnet.training.data import Batches, Sources, load_batches
from dstnet.training.stored_crops import check_movies, motion_in_window, stored_batch

RANGES = StreamSettings(crop=64, groups=3, working_pixel_angstrom=2.0, exposure_known=1.0)
STILL = MotionSettings(
    burst_angstrom=0, drift_angstrom_per_e=0, jitter_angstrom=0, local_angstrom=0
)
# No burst and no drift: these also blur within a frame, which no alignment takes out.
MOVING = MotionSettings(
    burst_angstrom=0, drift_angstrom_per_e=0, jitter_angstrom=4, local_angstrom=3
)
QUIET = SpecimenSettings(coverage=0.3, ice_noise=0.0, thickness_gradient=0.0)


def narrow(name="narrow", width=4.0, pixel=1.25):
    x = (torch.arange(32.0) - 16) * pixel
    patch = 0.3 * torch.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * width**2))
    return ProjectionBank(name, 16.0, torch.eye(3)[None], patch[None].half())


def simulation(**changes):
    values = {
        "shape": (136, 152),
        "pixel_size_angstrom": 1.25,
        "frames": 4,
        "exposure_e_per_a2": 400.0,  # much noise would hide what is looked for
        "damage": None,
        "specimen": QUIET,
        "motion": MOVING,
        "detector": DetectorSettings(mtf_half_frequency=None),
    }
    return SimulationSettings(**{**values, **changes})


def make(folder, name="a_00001", species=("narrow",), sources=(), seed=1, **changes):
    chosen = simulation(**changes)
    record = MovieRecord(
        name=name,
        seed=seed,
        species=species,
        sources=sources,
        version="0",
        settings=chosen.model_dump(mode="json"),
    )
    SimulatedMovie(folder, record).write(MovieSimulator(chosen, [narrow()], seed))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One strong movie that moves; not to be written to."""
    return make(tmp_path_factory.mktemp("set"))


def stored(movies, batch, seed, index, ranges=RANGES):
    return stored_batch(ranges, movies, batch=batch, seed=seed, index=index)


def tensors(batch):
    inputs = (batch.frames, batch.total, batch.exposure, batch.frame_target)
    return [*inputs, *batch.targets.values()]


def same(batch, other):
    pairs = zip(tensors(batch), tensors(other), strict=True)
    return batch.frame_index == other.frame_index and all(torch.equal(a, b) for a, b in pairs)


def test_a_batch_is_what_the_network_takes_and_depends_on_its_number_only(folder):
    movies = read_dataset(folder)
    check_movies(movies, RANGES)
    counts = set()
    for index in range(6):
        batch = stored(movies, 2, 3, index)
        torch.rand(3)
        assert same(batch, stored(movies, 2, 3, index))
        count = batch.frames.shape[1]
        counts.add(count)
        assert batch.frames.shape == (2, count, 64, 64) and batch.exposure.shape == (2, count, 3)
        assert 0 <= batch.frame_index < count <= 3
        images = (batch.total, batch.frame_target, *batch.targets.values())
        assert all(image.shape == (2, 64, 64) for image in images)
        assert all(torch.isfinite(x).all() for x in tensors(batch))
        assert not torch.equal(batch.total[0], batch.total[1]), "each crop has a place of its own"
        # Domes stand where the contrast is: particles are dark.
        contrast, particles = batch.targets["contrast"], batch.targets["particles"]
        assert particles.min() >= 0 and particles.max() <= 1
        assert (
            not (particles > 0).any()
            or contrast[particles > 0].mean() < contrast[particles == 0].mean()
        )
    assert len(counts) > 1
    assert not torch.equal(stored(movies, 2, 4, 0).total, stored(movies, 2, 3, 0).total)


def slopes(movies, batches=8):
    """Of total on target (1 where the target is what the total holds, in its units), with its
    standard error; and their correlation.
    """
    xy, xx, yy = 0.0, 0.0, 0.0
    for index in range(batches):
        batch = stored(movies, 2, 0, index)
        total, target = batch.total, batch.targets["micrograph"]
        centred = target - target.mean((-2, -1), keepdim=True)
        xy, xx, yy = (
            xy + float((centred * total).sum()),
            xx + float(centred.square().sum()),
            yy + float(total.square().sum()),
        )
    return xy / xx, 1 / math.sqrt(xx), xy / math.sqrt(xx * yy)


def test_the_target_lies_where_the_aligned_frames_show_it_in_units_of_their_noise(
    folder, monkeypatch
):
    slope, error, correlation = slopes(read_dataset(folder))
    assert error < 0.01
    # The crop's own mean is some per cent from the empty field's, see test_training.py.
    assert slope == pytest.approx(1, abs=5 * error + 0.03)
    monkeypatch.setattr(
        SimulatedMovie,
        "motion",
        lambda self: Motion(torch.zeros(4, 2), torch.zeros(4, 2, 5)),
    )
    assert slopes(read_dataset(folder))[2] < correlation - 0.05, (
        "without the motion taken out it lies elsewhere"
    )


def test_contrast_has_the_particles_where_the_target_has_them(folder):
    movies = read_dataset(folder)
    for index in range(3):
        targets = stored(movies, 1, 0, index).targets
        target, contrast = targets["micrograph"], targets["contrast"]
        there = contrast[0] < 0.5 * contrast[0].min()
        assert contrast[0].max() < -0.05 * contrast[0].min(), "dark on nothing, up to ringing"
        assert target[0][there].mean() < target[0].mean()


def test_a_frames_own_target_is_damaged_and_the_micrographs_is_not(tmp_path):
    still = {"motion": STILL, "exposure_e_per_a2": 15.0, "damage": "grant_grigorieff"}
    movies = read_dataset(make(tmp_path, **still))
    whole = read_dataset(make(tmp_path / "undamaged", **{**still, "damage": None}))
    for index in range(3):
        batch = stored(movies, 2, 0, index)
        assert batch.frame_target.norm() < 0.95 * batch.targets["micrograph"].norm()
        batch = stored(whole, 2, 0, index)
        target = batch.targets["micrograph"]
        torch.testing.assert_close(
            batch.frame_target, target, atol=1e-4 * float(target.abs().max()), rtol=1e-3
        )


def test_exposure_given_is_that_of_the_frames_taken(folder):
    movies = read_dataset(folder)
    wholes = 0
    for index in range(12):
        exposure = stored(movies, 1, 0, index).exposure[0]
        own = (3 * exposure[:, 1]).exp()
        assert (exposure[:, 0] == 1).all() and all(
            round(float(e) / 400, 3) in (1, 2, 3, 4) for e in own
        )
        middle = exposure[:, 2] * 50
        assert torch.allclose(middle[1:] - own[1:] / 2, middle[:-1] + own[:-1] / 2, rtol=1e-4), (
            "groups follow each other"
        )
        first = float(middle[0] - own[0] / 2)
        assert first > -1 and first + float(own.sum()) < 1601
        wholes += float(own.sum()) > 1599
    assert 3 <= wholes < 12, "about half are whole movies"


def test_the_motion_in_a_window_is_the_fields_there():
    motion = Motion(
        torch.tensor([[0.3, -1.0]]),
        torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(0)),
    )
    shape, corner, side = (60, 84), (11, 30), 40
    field = motion.global_shift_angstrom[0][:, None, None] + local_displacement(
        motion.local_coefficients_angstrom[0], shape
    )
    inside = motion_in_window(motion, shape, corner, side)
    window = inside.global_shift_angstrom[0][:, None, None] + local_displacement(
        inside.local_coefficients_angstrom[0], (side, side)
    )
    torch.testing.assert_close(window, field[:, 11:51, 30:70], atol=1e-5, rtol=1e-5)


def test_a_camera_with_gain_and_defects_is_corrected(tmp_path):
    worn = DetectorSettings(mtf_half_frequency=None, gain_variation=0.1, dead_pixels_ppm=2000)
    movies = read_dataset(make(tmp_path, motion=STILL, detector=worn))
    assert list((tmp_path / "camera").iterdir())
    slope, error, correlation = slopes(movies, 3)
    assert slope == pytest.approx(1, abs=5 * error + 0.03)
    perfect = slopes(read_dataset(make(tmp_path / "perfect", motion=STILL)), 3)[2]
    assert correlation > perfect - 0.05


# Which movies


def test_movies_that_hold_a_held_out_structure_are_never_trained_on(tmp_path):
    for name, species, sources in (
        ("a", ("1abc",), ("1abc.pdb sha256:0",)),
        ("b", ("1abc", "2xyz"), ("1abc.pdb sha256:0", "2XYZ.cif.gz sha256:1")),
        ("c", ("renamed",), ("6Z6U.pdb sha256:2",)),
        ("d", ("x",), ("pdb:6z6u",)),
        ("e", (), ()),
    ):
        make(
            tmp_path,
            name,
            species,
            sources,
            frames=1,
            shape=(32, 32),
            specimen=SpecimenSettings(coverage=0),
        )
    movies = read_dataset(tmp_path)

    def names(held_out):
        return [[m.name for m in side] for side in split_movies(movies, held_out)]

    assert names([]) == [["a", "b", "e"], ["c", "d"]]
    assert names(["2xyz"]) == [["a", "e"], ["b", "c", "d"]]
    assert names(["1ABC"]) == [["e"], ["a", "b", "c", "d"]]


def test_batches_come_from_both_where_there_are_both(folder):
    movies = read_dataset(folder)
    both = Batches(RANGES, Sources([blob()], movies), batch=1, seed=0, recorded=0.5)
    alone = (
        Batches(RANGES, Sources([], movies), batch=1, seed=0, recorded=0.1),
        Batches(RANGES, Sources([blob()], []), batch=1, seed=0, recorded=0.9),
    )
    origins = []
    for index in range(8):
        batch = both[index]
        origins.append(
            next(i for i, one in enumerate(alone) if torch.equal(one[index].total, batch.total))
        )
    assert {0, 1} == set(origins)
    with pytest.raises(SettingsError, match=r"leave stream\.window"):
        Batches(RANGES.model_copy(update={"window": 5}), Sources([], movies), batch=1, seed=0)


@pytest.mark.filterwarnings(
    "ignore:This DataLoader will create"
)  # torch advises against it on a machine of one core
def test_batches_by_worker_processes_are_the_same(folder):
    batches = Batches(RANGES, Sources([blob()], read_dataset(folder)), batch=1, seed=0)
    numbers = [1, 3, 4, 6, 7]
    for index, batch in zip(numbers, load_batches(batches, numbers, 2), strict=True):
        assert same(batch, batches[index])


# Bad data


def test_folders_that_are_no_data_set(tmp_path):
    with pytest.raises(BadInputError, match=r"holds no movies with truths.*dstnet simulate wrote"):
        train_run(tmp_path / "run", [tmp_path], run_settings())
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "a_settings.yaml").write_text("name: 3\n")
    with pytest.raises(
        BadInputError, match=r"cannot read the record .*a_settings.yaml.*simulate this movie again"
    ):
        read_dataset(tmp_path)


def test_movies_that_do_not_fit_are_refused_by_name(folder):
    movies = read_dataset(folder)
    with pytest.raises(
        BadInputError, match=r"a_00001 has pixels of 1\.25 Å, more than the working 1 Å"
    ):
        check_movies(movies, RANGES.model_copy(update={"working_pixel_angstrom": 1.0}))
    with pytest.raises(
        BadInputError, match=r"a_00001 is 170 Å wide, less than a crop's 200 Å; lower stream\.crop"
    ):
        check_movies(movies, RANGES.model_copy(update={"crop": 100}))


def test_spoilt_movies_are_refused_by_name(tmp_path):
    make(tmp_path, frames=2)
    motion, movie = tmp_path / "truth" / "a_00001_motion.json", tmp_path / "movies" / "a_00001.tif"
    text, data = motion.read_text(), movie.read_bytes()
    for spoilt in ("", "{}", text.replace("[[", "[[[", 1)):
        motion.write_text(spoilt)
        with pytest.raises(BadInputError, match=r"a_00001_motion\.json"):
            check_movies(read_dataset(tmp_path), RANGES)
    motion.write_text(text)
    movie.unlink()
    with pytest.raises(BadInputError, match="has no a_00001; simulate it again"):
        check_movies(read_dataset(tmp_path), RANGES)
    movie.write_bytes(data[: len(data) // 2])
    with pytest.raises(DstnetError, match=r"a_00001\.tif"):
        movies = read_dataset(tmp_path)
        check_movies(movies, RANGES)
        list(load_batches(Batches(RANGES, Sources([], movies), batch=1, seed=0), range(4), 1))


def test_a_run_on_movies_alone(tmp_path):
    """Nothing is simulated; what is held out is only validated on."""
    data = tmp_path / "data"
    make(data, "a_00001", ("narrow",))
    make(data, "b_00002", ("other",), seed=2)
    said, records = [], []
    chosen = run_settings(held_out=("other",), steps=2, stream=RANGES)
    path = train_run(tmp_path / "run", [data], chosen, say=said.append, report=records.append)
    of_movies = [line for line in said if not line.startswith("threads: ")]
    assert of_movies == [f"{data}: 1 movies to train on, 1 held out"]
    assert path.is_file() and records[-1].step == 2 and "residual" in records[-1].measures
    from dstnet.network.weights import read_card

    training = read_card(path).training
    assert list(training["trained_on"]) == ["data/a_00001"] and list(training["held_out"]) == [
        "data/b_00002"
    ]
    with pytest.raises(
        SettingsError, match=r"cannot hold out third: no such structure among narrow, other"
    ):
        train_run(tmp_path / "run2", [data], chosen.model_copy(update={"held_out": ("third",)}))
    with pytest.raises(SettingsError, match="every movie holds a held-out structure"):
        train_run(
            tmp_path / "run3", [data], chosen.model_copy(update={"held_out": ("narrow", "other")})
        )
    assert np.isfinite(records[-1].loss)
