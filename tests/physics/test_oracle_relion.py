"""RELION's own motion correction, where it is installed, on movies of ours: it reads the files, and
finds the motion that was planted.

This pins what the package says of orientation and of RELION's motion tables: row y of an MRC file
is the y-th stored row, that of a TIFF file of height h is the (h - 1 - y)-th; RELION's shifts are
minus our motion, since the first frame, in pixels.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import starfile
import torch
from oracles import relion
from rods import PIXEL, rods_shot

from dstnet.io import open_movie, write_mrc, write_tiff
from dstnet.motion.local_field import local_displacement
from dstnet.motion.relion import from_relion
from dstnet.motion.simulated_motion import MotionSettings
from dstnet.simulation import MovieSimulator

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

SUFFIXES = (".tif", ".mrcs")


@pytest.fixture(scope="module")
def shot() -> MovieSimulator:
    """1024 x 1024 pixels, 30 frames of one electron per pixel; a field that reads otherwise when
    mirrored, motion of no symmetry either.
    """
    return rods_shot((1024, 1024), 30, 1.0, MotionSettings(burst_angstrom=2.0, local_angstrom=0.8))


@pytest.fixture(scope="module")
def folder(shot, tmp_path_factory) -> Path:
    """The movie as TIFF and as MRC, and beside each what RELION makes of it: ``o.tif/`` and
    ``o.mrcs/``.
    """
    program, folder = relion("relion_run_motioncorr"), tmp_path_factory.mktemp("relion")
    counts = shot.movie().frames
    write_tiff(folder / "m.tif", np.asarray(counts).astype(np.uint8), PIXEL)
    write_mrc(folder / "m.mrcs", np.asarray(counts).astype(np.uint16), PIXEL, "test", stack=True)
    for suffix in SUFFIXES:
        # A B-factor of 30 px^2 instead of 150: the lumps' signal reaches further than that of a
        # real movie's protein.
        command = (
            f"--use_own --i m{suffix} --o o{suffix}/ --angpix {PIXEL} --voltage 300 --patch_x 3"
            " --patch_y 3 --bfactor 30 --j 2"
        )
        done = subprocess.run(
            [program, *command.split()], cwd=folder, capture_output=True, text=True, timeout=250
        )
        assert (folder / f"o{suffix}" / "m.star").is_file(), (
            done.stdout[-2000:] + done.stderr[-2000:]
        )
    return folder


def found(folder: Path, suffix: str) -> tuple[torch.Tensor, torch.Tensor]:
    shift, local = from_relion(starfile.read(folder / f"o{suffix}" / "m.star"))
    assert not shift[0].any() and not local[0].any()
    return from_mean(shift), from_mean(local)


def from_mean(motion: torch.Tensor) -> torch.Tensor:
    """Against the mean over frames: no single frame's error is in all."""
    return motion - motion.mean(0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_relion_finds_the_global_motion(folder, shot, suffix):
    """To 0.1 pixels rms per axis. What its local model moves the field by as a whole counts as
    global, as in `from_relion`.
    """
    planted = from_mean(shot.truth.motion.global_shift_angstrom)
    error = (found(folder, suffix)[0] - planted).square().mean(0).sqrt() / PIXEL
    assert bool((error < 0.1).all()), error
    # Any other sign or order of axes is far off.
    spread = planted.square().mean(0).sqrt() / PIXEL
    assert bool((spread > 0.5).all())
    for wrong in (
        planted * torch.tensor([-1.0, 1.0]),
        planted * torch.tensor([1.0, -1.0]),
        planted.flip(1),
    ):
        assert float((wrong - planted).square().mean().sqrt() / PIXEL) > 0.5


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_relions_local_model_is_the_planted_one(folder, shot, suffix):
    """Its polynomial, brought to our coefficients, against the planted ones: both components at 9 x
    9 places of all frames.
    """
    got, planted = (
        torch.stack([local_displacement(c, (9, 9)) for c in coefficients])
        for coefficients in (
            found(folder, suffix)[1],
            from_mean(shot.truth.motion.local_coefficients_angstrom),
        )
    )
    for axis in (0, 1):
        correlation = float(
            torch.corrcoef(torch.stack((got[:, axis].flatten(), planted[:, axis].flatten())))[0, 1]
        )
        assert correlation > 0.8, (axis, correlation)
    # The nine patches of 340 pixels hold some 15 particles each; the polynomial runs on beyond
    # their centres.
    assert float((got - planted).square().mean().sqrt()) < 0.25
    # From the other end of the rows the planted field looks otherwise: this can tell.
    assert float((got.flip(-2) - planted).square().mean().sqrt()) > 0.6


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_relions_sum_shows_the_field_as_rows_are_counted(folder, shot, suffix):
    """The corrected sum, an MRC file, is the specimen as in the first frame, upright whichever the
    movie's format.
    """
    corrected = open_movie(folder / f"o{suffix}" / "m.mrc", exposure_e_per_a2=30.0).frames[0]
    corrected = torch.from_numpy(np.asarray(corrected, np.float32))
    inner = slice(30, -30)
    first = shot.clean_frame(0)[inner, inner].flatten()

    def likeness(image):
        return float(torch.corrcoef(torch.stack((image[inner, inner].flatten(), first)))[0, 1])

    upright, mirrored = likeness(corrected), likeness(corrected.flip(0))
    # Noise of a sum of 30 electrons a pixel, 0.18, against a contrast of 0.1: 0.1 / hypot(0.18,
    # 0.1) = 0.49 were all of it seen.
    assert upright > 0.3
    # Unlike images of 10^6 pixels, correlated over some tens: 0.01 is a standard error or more.
    assert abs(mirrored) < 0.05


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_our_own_reader_sees_the_same_frames_in_both_formats(folder, shot, suffix):
    """Both files hold the same frames for us, so that truths on the pixel grid fit either."""
    movie = open_movie(folder / f"m{suffix}", pixel_size_angstrom=PIXEL)
    assert np.array_equal(
        np.asarray(movie.frames[7]),
        np.asarray(open_movie(folder / "m.mrcs", pixel_size_angstrom=PIXEL).frames[7]),
    )
