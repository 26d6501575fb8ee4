"""The stream of crops in its modes: whole aligned movies as ever, whole movies as they are, windows of raw frames."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from dstnet.errors import SettingsError
from dstnet.metrics.image import best_shift
from dstnet.motion.field import MotionSettings, draw_motion
from dstnet.movie.normalise import normalised
from dstnet.network.weights import build
from dstnet.simulation import Shot, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import BankedSpecies
from dstnet.training import TrainingSettings, stream
from dstnet.training.stream import CropStream, StreamSettings, domes, draw_batch, draw_settings, make_crop, make_window

WHOLE = StreamSettings(crop=64, fractions=3, defocus_angstrom=(4000.0, 12000.0))
WINDOW = StreamSettings(crop=64, window=5, aligned=False, defocus_angstrom=(4000.0, 12000.0))
STILL = MotionSettings(burst_angstrom=0, drift_angstrom_per_e=0, jitter_angstrom=0, local_angstrom=0)


def species():
    """A Gaussian blob, at 2 Å: a structure that costs nothing."""
    x = (torch.arange(32.0) - 16) * 2
    patch = 0.3 * torch.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * 8.0**2))
    return BankedSpecies("blob", 24.0, torch.eye(3)[None], patch[None].half())


def drawn(ranges, count, frames=5):
    return [draw_settings(ranges, frames, torch.Generator().manual_seed(i)) for i in range(count)]


# The default: what the released weights were trained on


def test_the_default_streams_draws_are_those_of_ever(monkeypatch):
    """Runs on record must repeat, so a change here needs a reason. Nine digits: the last ones are the machine's library's."""
    digest = hashlib.sha256()
    for i in range(6):
        values = draw_settings(StreamSettings(), 1 + i, torch.Generator().manual_seed(i)).model_dump_json(exclude_defaults=True)
        digest.update(json.dumps(json.loads(values, parse_float=lambda text: f"{float(text):.9e}")).encode())
    assert digest.hexdigest() == "d7b98b22660194fc1763c4f02f013de71398baf474c7c2a40b11abc6740a147b"
    monkeypatch.setattr(stream, "make_crop", lambda settings, chosen, seed, which, known, device, ranges: settings.frames)
    batches = [draw_batch(StreamSettings(), [species()], 1, 5, i) for i in range(8)]
    assert [(frames, which) for (frames,), which in batches] == [(8, 0), (4, 3), (8, 5), (2, 1), (8, 3), (8, 1), (8, 5), (1, 0)]


def test_a_default_crop_is_the_shot_normalised():
    settings = draw_settings(WHOLE, 3, torch.Generator().manual_seed(1))
    crop = make_crop(settings, [species()], 4, 1, True)
    shot = Shot(settings, [species()], 4)
    frames, total, mean, noise = normalised(torch.stack(list(shot.frames())))
    for given, expected in (
        (crop.frames, frames),
        (crop.total, total),
        (crop.target, shot.truth.clean * (mean / noise)),
        (crop.contrast, shot.truth.phase * (-2 * mean / noise)),
        (crop.frame_target, shot.clean_frame(1) * (mean / noise)),
    ):
        assert torch.equal(given, expected)


def large(name="large"):
    """A disc of 40 Å radius."""
    x = (torch.arange(64.0) - 32) * 2
    return BankedSpecies(name, 40.0, torch.eye(3)[None], 0.3 * (torch.hypot(x[:, None], x[None, :]) < 40)[None].half())


def test_debris_is_strewn_among_particles_and_never_alone(monkeypatch):
    monkeypatch.setattr(stream, "make_crop", lambda settings, chosen, seed, which, known, device, ranges: [one.name for one in chosen])
    of = [species(), large(), large("other")]
    found = [draw_batch(WHOLE, of, 1, 3, i)[0][0] for i in range(400)]
    assert all(set(names) & {"large", "other"} for names in found)
    part = sum("blob" in names for names in found) / len(found)
    assert part == pytest.approx(WHOLE.debris, abs=5 * (0.25 * 0.75 / 400) ** 0.5)
    assert {names.count("blob") for names in found} == {0, 1, 2, 3}
    none = WHOLE.model_copy(update={"debris": 0.0})
    assert not any("blob" in draw_batch(none, of, 1, 3, i)[0][0] for i in range(100))


def test_debris_is_learnt_but_not_looked_for():
    settings = draw_settings(WHOLE, 1, torch.Generator().manual_seed(1))
    specimen = SpecimenSettings(coverage=0.3, gap_angstrom=10.0)
    settings = settings.model_copy(update={"specimen": specimen, "shape": (128, 128)})
    both = [species(), large()]
    crop, shot = make_crop(settings, both, 4, 0, True), Shot(settings, both, 4)
    of_blobs = torch.isin(shot.truth.label, torch.tensor([i for i, p in enumerate(shot.truth.particles, 1) if p.species == "blob"]))
    assert of_blobs.any() and (shot.truth.label[~of_blobs] > 0).any(), "a field with both"
    assert not crop.particles[of_blobs].any() and crop.particles.max() == 1
    assert float(crop.target[of_blobs].std()) > 0.2 * float(crop.target.std())
    assert make_crop(settings, [species()], 4, 0, True).particles.max() == 1, "where all are small, they are what is looked for"


def test_frost_is_learnt_as_part_of_the_specimen_but_not_of_the_contrast():
    settings = draw_settings(WHOLE, 2, torch.Generator().manual_seed(1)).model_copy(update={"exposure_e_per_a2": 100.0, "damage": None})
    clear = settings.specimen.model_copy(update={"contaminants_per_um2": 0.0})
    frosty = settings.specimen.model_copy(update={"contaminants_per_um2": 8000.0})
    without, with_frost = (make_crop(settings.model_copy(update={"specimen": s}), [large()], 4, 1, True) for s in (clear, frosty))
    assert torch.allclose(with_frost.contrast / with_frost.contrast.std(), without.contrast / without.contrast.std(), atol=1e-3)
    frost = with_frost.target / with_frost.contrast.std() - without.target / without.contrast.std()
    assert float(frost.std()) > 0.1 * float(with_frost.target.std() / with_frost.contrast.std())
    target = with_frost.target - with_frost.target.mean()
    slope = float((target * with_frost.total).sum() / target.square().sum())
    assert slope == pytest.approx(1, abs=5 / float(target.norm()) + 0.1), "it is what the frames show, but for MTF and blur"
    assert float((with_frost.frame_target - with_frost.target).norm()) < 0.5 * float(with_frost.target.norm())


# Whole movies as they are


def test_unaligned_movies_differ_in_their_motion_alone():
    ranges = StreamSettings()
    pairs = list(zip(drawn(ranges, 40), drawn(ranges.model_copy(update={"aligned": False}), 40), strict=True))
    for aligned, raw in pairs:
        assert raw != aligned
        assert raw.model_copy(update={"motion": aligned.motion}) == aligned
        assert SimulationSettings.checked(raw.model_dump(), "again") == raw
    for name in ("burst_angstrom", "drift_angstrom_per_e", "local_angstrom"):
        least, most = (sum(getattr(p[i].motion, name) for p in pairs) for i in (0, 1))
        assert most > least, name


# Windows


@pytest.mark.parametrize(("changes", "match"), [({"window": 4}, "odd, not 4"), ({"window": 5, "aligned": True}, "set aligned to false")])
def test_windows_that_make_no_sense_are_refused(changes, match):
    with pytest.raises(SettingsError, match=match):
        StreamSettings.checked({"aligned": False, **changes}, "settings")


def test_a_windows_conditions_are_those_of_raw_frames():
    windows = drawn(WINDOW, 200)
    for s in windows:
        assert SimulationSettings.checked(s.model_dump(), "again") == s
        assert 0.5 * 0.999 <= s.exposure_e_per_a2 <= 5 * 1.001
        assert 0 <= s.pre_exposure_e_per_a2 <= 110
    before = sorted(s.pre_exposure_e_per_a2 for s in windows)
    assert before[0] < 2 and before[-1] > 90, "anywhere in the exposure"
    # Local motion over a window is a part of a movie's: early windows have more.
    early = [s.motion.local_angstrom for s in windows if s.pre_exposure_e_per_a2 < 1]
    late = [s.motion.local_angstrom for s in windows if s.pre_exposure_e_per_a2 > 30]
    assert sum(early) / len(early) > 2 * sum(late) / len(late)


def test_hardly_any_frame_lies_further_off_than_the_border():
    far = 0
    for i, s in enumerate(drawn(WINDOW, 400)):
        e, before = s.exposure_e_per_a2, s.pre_exposure_e_per_a2
        motion = draw_motion(s.motion, 5, e, before, (512.0, 512.0), torch.Generator().manual_seed(i))
        far += int(motion.global_shift_angstrom.abs().max() > stream._BORDER_ANGSTROM / 2)  # half of it is for what the shift rings
    assert far <= 2


def test_a_window_is_around_its_frame_or_cut_short_as_at_ends(monkeypatch):
    monkeypatch.setattr(stream, "make_window", lambda settings, chosen, seed, which, known, device: settings.frames)
    whole = WINDOW.model_copy(update={"cut": 0.0})
    assert {(n, which) for i in range(20) for (n,), which in [draw_batch(whole, [species()], 1, 0, i)]} == {(5, 2)}
    short = WINDOW.model_copy(update={"cut": 1.0})
    found = {(which, n - 1 - which) for i in range(150) for (n,), which in [draw_batch(short, [species()], 1, 0, i)]}
    assert found == {(past, future) for past in range(3) for future in range(3)}, "past and future frames"
    part = sum(draw_batch(WINDOW, [species()], 1, 0, i)[0] != [5] for i in range(200)) / 200
    assert part == pytest.approx(0.2 * 8 / 9, abs=5 * (0.18 * 0.82 / 200) ** 0.5)


def test_a_window_is_what_the_network_takes():
    frames, total, exposure, target, contrast, particles, frame_target, which = next(iter(CropStream(WINDOW, [species()], 2, 0, 0, 1)))
    count = frames.shape[1]
    assert frames.shape == (2, count, 64, 64) and exposure.shape == (2, count, 3)
    assert total.shape == target.shape == contrast.shape == particles.shape == frame_target.shape == (2, 64, 64)
    assert all(torch.isfinite(x).all() for x in (frames, total, exposure, target, contrast, particles, frame_target))
    # What is enhanced is one frame; to the rounding of the mean, which is taken of other pixels in another order
    torch.testing.assert_close(total, frames[:, int(which)], rtol=1e-4, atol=1e-4)


def window(which, **changes):
    settings = SimulationSettings(
        shape=(96, 96),
        pixel_size_angstrom=2.0,
        frames=3,
        exposure_e_per_a2=100.0,
        pre_exposure_e_per_a2=2.0,
        damage=None,
        specimen=SpecimenSettings(coverage=0.3, ice_noise=0.0, thickness_gradient=0.0),
        motion=MotionSettings(burst_angstrom=0, drift_angstrom_per_e=0.1, jitter_angstrom=0, local_angstrom=3.0),
    )
    return make_window(settings.model_copy(update=changes), [species()], 3, which, True)


def test_the_target_lies_where_the_frame_does():
    crop = window(2)
    # `frame_target` is the simulator's own, moved before it is cropped; nothing is damaged here, so both are one, at the borders too.
    size = float(crop.frame_target.abs().max())
    assert size > 0.5, "a field too faint to tell"
    torch.testing.assert_close(crop.target, crop.frame_target, rtol=0, atol=0.02 * size)
    still = window(2, motion=STILL)
    away = torch.tensor(best_shift(crop.target, still.target))
    assert float(away.norm()) > 3, "frames 10 Å apart"
    # The counts agree: the frame lies where its target does, to a tenth of the way that it is off its mean position.
    assert torch.tensor(best_shift(crop.total, crop.target)).norm() < 0.1 * away.norm()
    # Contrast is moved alike; broader than the target, it weighs what comes in at the borders in another way.
    off = torch.tensor(best_shift(crop.contrast, still.contrast)) - away
    assert off.norm() < 0.1 * away.norm()


def test_the_target_is_undamaged_and_the_frames_own_is_not():
    crop = window(1, damage="grant_grigorieff", exposure_e_per_a2=5.0, pre_exposure_e_per_a2=60.0, motion=STILL)
    assert crop.frame_target.norm() < 0.8 * crop.target.norm()


def test_the_target_is_in_units_of_the_frames_noise():
    crop = window(0, motion=STILL)
    target = crop.target - crop.target.mean()
    slope = float((target * crop.total).sum() / target.square().sum())
    # Standard error of the slope on unit noise; 3 % are the MTF's, which the frame has and the clean contrast has not.
    assert slope == pytest.approx(1, abs=5 / float(target.norm()) + 0.03)


def test_the_example_settings_train_windows():
    path = Path(__file__).parents[2] / "docs" / "examples" / "train-window.yaml"
    settings = TrainingSettings.from_yaml(path)
    assert settings.stream.window == 5 and settings.frame_weight == 0


@pytest.mark.parametrize(("size", "millions"), [("tiny", 0.17), ("large", 23.8)])
def test_the_example_sizes_are_what_they_say(size, millions):
    values = TrainingSettings.from_yaml(Path(__file__).parents[2] / "docs" / "examples" / f"train-{size}.yaml")
    assert sum(p.numel() for p in build(values.architecture, values.network).parameters()) == pytest.approx(millions * 1e6, rel=0.01)


def test_domes_rise_from_edges_and_between_particles_that_touch():
    label = torch.zeros(40, 40, dtype=torch.int32)
    label[5:16, 5:16] = 1
    label[5:16, 16:27] = 2  # touches the first
    label[30:40, 30:40] = 7  # cut by the field's corner
    found = domes(label)
    assert found.dtype == torch.float32 and not found[label == 0].any()
    assert found[10, 10] == found[10, 21] == 1, "the middles"
    assert not found[5:16, 15:17].any(), "the common edge"
    along = found[10, 5:16]
    torch.testing.assert_close(along, along.flip(0), msg="as far from the shared edge as from a free one", atol=0.17, rtol=0)
    assert found[39, 39] == 1, "what the field cuts off goes on beyond it"
    assert not domes(torch.zeros(8, 8, dtype=torch.int32)).any()
    assert (domes(torch.ones(8, 8, dtype=torch.int32)) == 1).all()


def test_a_ring_is_one_particle_with_a_middle():
    y, x = torch.meshgrid(torch.arange(41), torch.arange(41), indexing="ij")
    r = torch.hypot(y - 20.0, x - 20.0)
    label = ((r < 15) & (r > 8)).int() * 3
    copy = label.clone()
    found = domes(label)
    assert found[20, 20] == 1 and not found[r >= 15].any()
    assert torch.equal(label, copy)
