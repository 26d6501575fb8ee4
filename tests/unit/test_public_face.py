"""What `import dstnet` offers: arrays in, arrays out, the same as the command gives."""

import subprocess
import sys

import numpy as np
import pytest

import dstnet

SMALL = dstnet.SimulationSettings(
    shape=(128, 128), pixel_size_angstrom=2.0, frames=4, exposure_e_per_a2=2.0
)


@pytest.fixture(scope="module")
def made() -> dstnet.SimulatedArrays:
    return dstnet.simulate(settings=SMALL, seed=3)


def test_it_exports_about_a_dozen_names_and_all_are_there():
    assert len(dstnet.__all__) <= 16
    assert all(getattr(dstnet, name) is not None for name in dstnet.__all__)
    assert set(dstnet.__all__) <= set(dir(dstnet))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = dstnet.nonsense


def test_importing_it_loads_no_torch():
    code = "import sys, dstnet; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_simulated_movie_is_repeatable_and_has_its_truths(made):
    again = dstnet.simulate(settings=SMALL, seed=3)
    np.testing.assert_array_equal(made.frames, again.frames)
    assert made.frames.shape == (4, 128, 128) and made.frames.dtype == np.float32
    assert made.clean.shape == made.phase.shape == made.label.shape == (128, 128)
    assert len(made.positions_px) == len(made.rotations) == len(made.species) == made.label.max()
    assert made.shifts_angstrom.shape == (4, 2)


def test_enhancing_an_array_gives_an_array_and_names_give_a_dict(made):
    pixel = SMALL.pixel_size_angstrom
    alone = dstnet.enhance(made.frames, pixel_size_angstrom=pixel, frame_exposure_e_per_a2=2.0)
    both = dstnet.enhance(
        made.frames,
        pixel,
        frame_exposure_e_per_a2=[2.0] * 4,
        outputs=("micrograph", "particles"),
    )
    assert alone.shape == (128, 128) and alone.dtype == np.float32
    np.testing.assert_array_equal(alone, both["micrograph"])
    assert both["particles"].min() >= -1 and both["particles"].max() <= 0


def test_a_file_is_enhanced_as_the_command_does(made, tmp_path, monkeypatch):
    import mrcfile

    from dstnet.cli import main

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "movie.mrcs"
    with mrcfile.new(path, made.frames) as file:
        file.voxel_size = SMALL.pixel_size_angstrom
    with pytest.raises(SystemExit) as end:
        main(["enhance", str(path), "-o", str(tmp_path / "out"), "--device", "cpu", "--json"])
    assert end.value.code == 0
    written = mrcfile.read(tmp_path / "out" / "micrographs" / "movie_enhanced.mrc")
    np.testing.assert_array_equal(dstnet.enhance(path, device="cpu"), written)


def test_aligning_gives_the_sum_and_the_motion(made):
    found = dstnet.align(made.frames, SMALL.pixel_size_angstrom, frame_exposure_e_per_a2=2.0)
    assert found.total.shape == (128, 128) and found.dose_weighted is not None
    assert found.shifts_angstrom.shape == (4, 2) and found.frame_numbers == (0, 1, 2, 3)
    assert abs(found.total.sum() / made.frames.sum() - 1) < 1e-3


def test_a_gain_as_an_array_is_applied(made):
    gain = np.full((128, 128), 2.0, np.float32)
    plain = dstnet.align(made.frames, 1.0).total
    np.testing.assert_allclose(
        dstnet.align(made.frames, 1.0, gain=gain).total, 2 * plain, rtol=1e-3
    )


def test_methods_without_weights_are_called_by_name(made):
    assert {"dstnet-3", "gaussian", "wiener", "sum"} <= set(dstnet.methods())
    total = dstnet.align(made.frames, 1.0).total
    np.testing.assert_array_equal(dstnet.enhance(made.frames, 1.0, model="sum"), total)


def test_what_cannot_be_is_refused_in_one_line(made):
    with pytest.raises(dstnet.SettingsError, match="pass pixel_size_angstrom"):
        dstnet.enhance(made.frames)
    with pytest.raises(dstnet.SettingsError, match="gives no particles"):
        dstnet.enhance(made.frames, 1.0, model="sum", outputs="particles")
    with pytest.raises(dstnet.BadInputError, match="exposures of 3 frames for 4"):
        dstnet.enhance(made.frames, 1.0, frame_exposure_e_per_a2=[1.0] * 3)
    with pytest.raises(dstnet.WeightsError, match="no model"):
        dstnet.enhance(made.frames, 1.0, model="nonsense")
