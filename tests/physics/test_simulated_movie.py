"""What is written of a shot reads back: frames, truths in RELION's form, gain and defects; and is
made again where it is not whole.
"""

import json
import math

import mrcfile
import numpy as np
import pytest
import starfile
import torch
from physics_checks import EMPTY, PERFECT, Blob, lively, quiet

from dstnet.core.randomness import stream
from dstnet.dataset import MovieRecord, SimulatedMovie
from dstnet.dataset.truth_tables import euler_angles_deg
from dstnet.detector.settings import DetectorSettings
from dstnet.errors import BadInputError
from dstnet.io import open_movie
from dstnet.motion.relion import from_relion
from dstnet.potential import random_rotation
from dstnet.simulation import MovieSimulator, SimulationSettings


def record_of(shot, name="m1"):
    return MovieRecord(
        name=name,
        seed=shot.seed,
        species=("blob",),
        version="test",
        settings=shot.settings.model_dump(mode="json"),
    )


@pytest.mark.parametrize("mode", ["counting", "integrating"])
def test_what_is_written_reads_back(tmp_path, mode):
    shot = MovieSimulator(lively(detector=DetectorSettings(mode=mode)), [Blob()], 8)
    assert SimulatedMovie(tmp_path, record_of(shot)).write(shot)
    movie = open_movie(tmp_path / "movies" / "m1.tif")
    assert movie.pixel_size_angstrom == pytest.approx(1.5, rel=1e-5)
    np.testing.assert_array_equal(movie.stack().numpy(), shot.movie().frames)
    assert movie.frames[0].dtype == (np.uint8 if mode == "counting" else np.float32)
    for what in ("phase", "clean", "label"):
        with mrcfile.open(tmp_path / "truth" / f"m1_{what}.mrc") as file:
            np.testing.assert_array_equal(file.data, getattr(shot.truth, what).numpy())
            assert float(file.voxel_size.x) == pytest.approx(1.5)
    motion = json.loads((tmp_path / "truth" / "m1_motion.json").read_text())
    np.testing.assert_allclose(
        motion["global_shift_angstrom_yx"], shot.truth.motion.global_shift_angstrom.numpy()
    )
    np.testing.assert_allclose(
        motion["local_coefficients_angstrom"], shot.truth.motion.local_coefficients_angstrom.numpy()
    )
    again = MovieRecord.from_yaml(tmp_path / "truth" / "m1_settings.yaml")
    assert SimulationSettings.checked(again.settings, "here") == shot.settings
    assert {p.name for p in tmp_path.iterdir()} == {"movies", "truth"}
    assert {p.name for p in (tmp_path / "truth").iterdir()} == {
        f"m1_{end}"
        for end in (
            "phase.mrc",
            "clean.mrc",
            "ice.mrc",
            "thickness.mrc",
            "label.mrc",
            "motion.json",
            "motion.star",
            "ctf.star",
            "particles.star",
            "facts.json",
            "settings.yaml",
        )
    }


def test_motion_in_relions_form_reads_back(tmp_path):
    shot = MovieSimulator(lively(frames=6), [Blob()], 8)
    SimulatedMovie(tmp_path, record_of(shot)).write(shot)
    # Where content lies in the sum, the courses are nearly cubic.
    shift, local = from_relion(starfile.read(tmp_path / "truth" / "m1_motion.star"))
    np.testing.assert_allclose(
        shift.numpy(), shot.truth.motion.global_shift_angstrom.numpy(), atol=1e-2
    )
    np.testing.assert_allclose(
        local.numpy(), shot.truth.motion.local_coefficients_angstrom.numpy(), atol=0.03
    )
    parts = json.loads((tmp_path / "truth" / "m1_motion.json").read_text())["parts_angstrom_yx"]
    np.testing.assert_allclose(
        sum(np.array(p) for p in parts.values()),
        shot.truth.motion.global_shift_angstrom.numpy(),
        atol=1e-5,
    )


def test_the_noise_free_frames_are_written_where_asked_for(tmp_path):
    shot = MovieSimulator(lively(), [Blob()], 8)
    assert SimulatedMovie(tmp_path, record_of(shot)).write(shot)
    assert not (tmp_path / "truth" / "m1_expected.mrcs").exists()
    assert SimulatedMovie(tmp_path, record_of(shot)).write(
        shot, expected=True
    )  # was not whole without them
    with mrcfile.open(tmp_path / "truth" / "m1_expected.mrcs") as file:
        np.testing.assert_array_equal(file.data, torch.stack(list(shot.expected_frames())).numpy())
    assert not SimulatedMovie(tmp_path, record_of(shot)).write(shot, expected=True)


def test_an_mrc_movie_holds_what_a_tiff_holds(tmp_path):
    shot = MovieSimulator(lively(), [Blob()], 8)
    assert SimulatedMovie(tmp_path, record_of(shot)).write(shot)
    assert SimulatedMovie(tmp_path, record_of(shot)).write(shot, "mrc")
    a, b = (open_movie(tmp_path / "movies" / name).stack() for name in ("m1.tif", "m1.mrcs"))
    assert torch.equal(a, b)
    table = starfile.read(tmp_path / "truth" / "m1_particles.star")["particles"]
    assert set(table["rlnMicrographName"]) == {"movies/m1.mrcs"}


def test_a_camera_leaves_its_gain_and_defects(tmp_path):
    """Multiplying the frames by the gain flattens the field; cameras of other settings leave other
    files.
    """
    camera = DetectorSettings(
        gain_variation=0.1, dead_columns=1, hot_pixels_ppm=500, dead_pixels_ppm=500
    )
    settings = quiet(specimen=EMPTY, exposure_e_per_a2=50.0, frames=40, detector=camera)
    shot = MovieSimulator(settings, [], 2)
    SimulatedMovie(tmp_path, record_of(shot)).write(shot)
    (path,) = (tmp_path / "camera").glob("gain_*.mrc")
    with mrcfile.open(path) as file:
        gain = torch.from_numpy(file.data.copy())
    assert torch.equal(gain, shot.camera.gain)
    (defects,) = (tmp_path / "camera").glob("defects_*.txt")
    bad = np.zeros((96, 128), bool)
    for x, y, w, h in np.loadtxt(defects, dtype=int, ndmin=2):
        bad[y : y + h, x : x + w] = True
    np.testing.assert_array_equal(bad, shot.camera.defects.numpy())
    mean = open_movie(tmp_path / "movies" / "m1.tif", pixel_size_angstrom=1.0).stack().mean(0)
    good = ~torch.from_numpy(bad)
    assert float(mean[good].std() / mean[good].mean()) > 0.08
    corrected = (mean * gain)[good]
    # 2000 electrons a pixel in all: 2.2 % of noise are left
    assert float(corrected.std() / corrected.mean()) < 0.03
    general = starfile.read(tmp_path / "truth" / "m1_motion.star")["general"]
    assert general["rlnMicrographGainName"] == path.relative_to(tmp_path).as_posix()
    other = MovieSimulator(
        settings.model_copy(update={"detector": camera.model_copy(update={"camera_seed": 1})}),
        [],
        2,
    )
    SimulatedMovie(tmp_path, record_of(other, "m2")).write(other)
    assert len(list((tmp_path / "camera").glob("gain_*.mrc"))) == 2


def relion_matrix(rot, tilt, psi):
    """RELION's A = Rz(psi) Ry(tilt) Rz(rot), each turning the axes: its Euler_angles2matrix."""

    def about_z(degrees):
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])

    c, s = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    return about_z(psi) @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ about_z(rot)


def test_star_angles_rebuild_the_rotations_and_coordinates_find_the_particles(tmp_path):
    shot = MovieSimulator(lively(pixel_size_angstrom=1.25, shape=(128, 128)), [Blob()], 8)
    SimulatedMovie(tmp_path, record_of(shot)).write(shot)
    blocks = starfile.read(tmp_path / "truth" / "m1_particles.star")
    table = blocks["particles"]
    assert len(table) == len(shot.truth.particles) > 5
    optics = blocks["optics"].iloc[0] if hasattr(blocks["optics"], "iloc") else blocks["optics"]
    assert (
        float(optics["rlnMicrographPixelSize"]),
        float(optics["rlnVoltage"]),
        float(optics["rlnSphericalAberration"]),
    ) == (1.25, 300, 2.7)
    assert float(optics["rlnAmplitudeContrast"]) == 0.07
    for (_, row), p in zip(table.iterrows(), shot.truth.particles, strict=True):
        matrix = relion_matrix(row["rlnAngleRot"], row["rlnAngleTilt"], row["rlnAnglePsi"])
        # acos of a float32 cosine is good to sqrt(2 * 6e-8) rad at worst, six decimals of degrees
        # are written
        np.testing.assert_allclose(matrix, p.rotation.numpy(), atol=4e-4)
        y, x = round(row["rlnCoordinateY"]), round(row["rlnCoordinateX"])
        assert float(shot.truth.phase[y, x]) == pytest.approx(0.3, rel=1e-5)
        assert (row["rlnDefocusU"] + row["rlnDefocusV"]) / 2 == pytest.approx(
            4000 - p.height_angstrom, abs=0.01
        )
        assert row["rlnDefocusU"] - row["rlnDefocusV"] == pytest.approx(200, abs=0.01)
        assert row["rlnDefocusAngle"] == 30
        assert row["rlnMicrographName"] == "movies/m1.tif"


@pytest.mark.parametrize("tilt", [0.0, 1e-5, 1e-3, 40.0, 90.0, 179.99, 180.0, -30.0])
@pytest.mark.parametrize(("rot", "psi"), [(0.0, 0.0), (35.0, -70.0), (-160.0, 120.0), (90.0, 90.0)])
def test_angles_rebuild_the_matrix_at_every_tilt(tilt, rot, psi):
    matrix = relion_matrix(rot, tilt, psi)
    got = euler_angles_deg(torch.from_numpy(matrix).float())
    np.testing.assert_allclose(
        relion_matrix(*got), matrix, atol=4e-4
    )  # acos of a float32 cosine, as above


def test_angles_of_random_rotations():
    generator = stream(1, "angles")
    for _ in range(50):
        rotation = random_rotation(generator)
        np.testing.assert_allclose(
            relion_matrix(*euler_angles_deg(rotation)), rotation.numpy(), atol=4e-4
        )


def test_a_movie_without_particles_is_written_too(tmp_path):
    shot = MovieSimulator(quiet(specimen=EMPTY, detector=PERFECT), [], 0)
    assert SimulatedMovie(tmp_path, record_of(shot)).write(shot)
    blocks = starfile.read(tmp_path / "truth" / "m1_particles.star", always_dict=True)
    assert len(blocks["particles"]) == 0


def test_a_whole_movie_is_kept_and_a_changed_or_broken_one_made_again(tmp_path):
    shot = MovieSimulator(lively(), [Blob()], 8)
    movie, last = tmp_path / "movies" / "m1.tif", tmp_path / "truth" / "m1_settings.yaml"
    assert SimulatedMovie(tmp_path, record_of(shot)).write(shot)
    written = movie.read_bytes()
    stamp = movie.stat().st_mtime_ns
    assert not SimulatedMovie(tmp_path, record_of(shot)).write(shot)
    assert movie.stat().st_mtime_ns == stamp
    # Another seed, other settings: made again.
    other = MovieSimulator(lively(damage=None), [Blob()], 9)
    assert SimulatedMovie(tmp_path, record_of(other)).write(other)
    assert movie.read_bytes() != written
    assert SimulatedMovie(tmp_path, record_of(shot)).write(shot)
    assert movie.read_bytes() == written
    # A truth was lost: made again.
    for path in (tmp_path / "truth").iterdir():
        path.unlink()
        assert not SimulatedMovie(tmp_path, record_of(shot)).is_complete(), path.name
        assert SimulatedMovie(tmp_path, record_of(shot)).write(shot)
        assert path.is_file()
    # Broken off before the end: no settings yet, so nothing is trusted.
    last.unlink()
    movie.write_bytes(b"half a movie")
    assert SimulatedMovie(tmp_path, record_of(shot)).write(shot)
    assert movie.read_bytes() == written


def test_a_movie_that_breaks_off_is_not_taken_for_whole(tmp_path, monkeypatch):
    shot = MovieSimulator(lively(), [Blob()], 8)
    SimulatedMovie(tmp_path, record_of(shot)).write(shot)

    def broken():
        yield torch.zeros(64, 80)
        raise BadInputError("the machine went down")

    monkeypatch.setattr(shot, "frames", broken)
    changed = MovieRecord(**{**record_of(shot).model_dump(), "version": "newer"})
    with pytest.raises(BadInputError, match="went down"):
        SimulatedMovie(tmp_path, changed).write(shot)
    assert not (tmp_path / "truth" / "m1_settings.yaml").exists()
    monkeypatch.undo()
    assert SimulatedMovie(tmp_path, changed).write(shot)
