"""Our alignment beside RELION's own motion correction, where that is installed, on the same
simulated movie, the truth known.
"""

import subprocess

import numpy as np
import pytest
import starfile
import torch
from oracles import relion
from rods import PIXEL, rods_shot
from test_local_alignment import errors

from dstnet.alignment import AlignmentSettings, align
from dstnet.core.fourier import resample
from dstnet.io import open_movie, write_tiff
from dstnet.motion import Motion
from dstnet.motion.relion import from_relion
from dstnet.motion.simulated_motion import MotionSettings
from dstnet.movie import Exposure

pytestmark = [pytest.mark.oracle, pytest.mark.slow]
EXPOSURE = 1 / PIXEL**2


@pytest.fixture(scope="module")
def shot():
    return rods_shot((1024, 1024), 20, 1.0, MotionSettings(burst_angstrom=2.0, local_angstrom=0.8))


@pytest.fixture(scope="module")
def folder(shot, tmp_path_factory):
    """The movie, and in ``o/`` what RELION makes of it with 3 x 3 patches."""
    program, folder = relion("relion_run_motioncorr"), tmp_path_factory.mktemp("relion")
    write_tiff(folder / "m.tif", np.asarray(shot.movie().frames).astype(np.uint8), PIXEL)
    command = (
        f"--use_own --i m.tif --o o/ --angpix {PIXEL} --voltage 300 --patch_x 3 --patch_y 3"
        " --bfactor 30 --j 2"
    )
    command += f" --dose_weighting --save_noDW --dose_per_frame {EXPOSURE}"
    done = subprocess.run(
        [program, *command.split()], cwd=folder, capture_output=True, text=True, timeout=250
    )
    assert (folder / "o" / "m.star").is_file(), done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    return Motion(*from_relion(starfile.read(folder / "o" / "m.star")))


def test_errors_are_no_larger_than_relions(shot, folder, theirs):
    ours = align(
        open_movie(folder / "m.tif", pixel_size_angstrom=PIXEL), AlignmentSettings()
    ).motion
    (shift, field), (their_shift, their_field) = errors(ours, shot), errors(theirs, shot)
    print(
        f"rms errors in px, ours and RELION's: global {shift:.3f} {their_shift:.3f}, local"
        f" {field:.3f} {their_field:.3f}"
    )
    assert shift < 0.06
    assert field < 0.15
    assert shift <= their_shift
    assert field <= their_field


def coarse_likeness(image, truth):
    a, b = (resample(i, (204, 204))[5:-5, 5:-5].flatten() for i in (image, truth))
    return float(torch.corrcoef(torch.stack((a, b)))[0, 1])


def test_their_motion_makes_a_sum_as_good_as_theirs(shot, folder, theirs):
    """With RELION's motion given, our sum shows the truth as well as RELION's own, whose reference
    is the first frame.
    """
    movie = open_movie(folder / "m.tif", pixel_size_angstrom=PIXEL)
    ours = align(movie, AlignmentSettings(), motion=theirs)
    # RELION moves by bilinear interpolation, which takes from the noise of fine detail: compared is
    # what lies below a tenth cycle.
    corrected = torch.from_numpy(
        np.asarray(
            open_movie(folder / "o" / "m_noDW.mrc", exposure_e_per_a2=20.0).frames[0], np.float32
        )
    )
    their_likeness = coarse_likeness(corrected, shot.clean_frame(0))
    our_likeness = coarse_likeness(ours.total, shot.truth.clean)
    assert our_likeness > 0.98 * their_likeness
    still = align(movie, AlignmentSettings(), motion=Motion.of_shifts(torch.zeros(20, 2)))
    assert our_likeness > coarse_likeness(still.total, shot.truth.clean)


def test_accumulated_motion_is_relions(folder, theirs):
    table = starfile.read(folder / "o" / "corrected_micrographs.star")["micrographs"]
    # Version 3.1 writes pixels. Its sums are over the global_shift table alone; `from_relion` adds
    # what the local model moves the whole field by.
    shifts = starfile.read(folder / "o" / "m.star")["global_shift"]
    shifts = -PIXEL * torch.tensor(
        shifts[["rlnMicrographShiftY", "rlnMicrographShiftX"]].to_numpy()
    )
    exposure = Exposure.uniform(len(shifts), EXPOSURE)
    found = Motion.of_shifts(shifts).path_lengths_angstrom(exposure)
    expected = [
        PIXEL * float(table[f"rlnAccumMotion{name}"].iloc[0]) for name in ("Total", "Early", "Late")
    ]
    assert found == pytest.approx(expected, rel=1e-3)
