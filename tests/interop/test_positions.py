"""Sums lie where RELION's own sums of the same movie lie, and where the motion file beside them
says: particles picked on the one are right on the other.

The movies show dark discs, drawn at their true places in each frame, under drift and a stretching
field. Places are compared over the field and in patches, by the peak of the correlation.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from eer_writer import encode, write_eer
from oracles import relion
from tiny import dstnet

from dstnet.io import write_mrc, write_tiff

pytestmark = pytest.mark.oracle

SIDE, FRAMES, PIXEL = 640, 10, 1.0
DRIFT = np.array([9.0, -12.0])  # pixels (y, x) from the first frame to the last
STRETCH = 3.0  # pixels at the field's edges
BORDER = 32
# Pixels, over the field and anywhere. Two estimates of one motion, each with errors of its own of
# some hundredths in where the first frame lies; and one motion, taken out by two programs.
OF_TWO_ESTIMATES = (0.15, 0.3)
OF_ONE_MOTION = (0.03, 0.1)

MOVIES_STAR = """data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
opticsGroup1 1 {pixel} 300.0 2.7 0.1

data_movies

loop_
_rlnMicrographMovieName #1
_rlnOpticsGroup #2
{movie} 1
"""


def scene(displace: Callable[[np.ndarray], np.ndarray], mean: float = 20.0) -> np.ndarray:
    """Expected counts of discs whose centres [disc, 2] a frame has displaced."""
    rng = np.random.default_rng(3)
    centres = rng.uniform(-40, SIDE + 40, (700, 2))
    sigmas = rng.uniform(1.5, 3.0, 700)
    image = np.full((SIDE, SIDE), mean)
    for (y, x), sigma in zip(centres + displace(centres), sigmas, strict=True):
        rows, columns = (np.arange(max(0, int(c) - 12), min(SIDE, int(c) + 13)) for c in (y, x))
        if len(rows) and len(columns):
            d2 = (rows[:, None] - y) ** 2 + (columns - x) ** 2
            image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] *= 1 - 0.8 * np.exp(
                -d2 / (2 * sigma**2)
            )
    return image


def moved_to(frame: float, stretch: float) -> Callable[[np.ndarray], np.ndarray]:
    """Drift that slows down, and a field that stretches about a point off its middle."""
    part = frame / (FRAMES - 1)
    drift = DRIFT * (1.5 * part - 0.5 * part**2)
    centre = np.array([0.45, 0.55]) * SIDE
    return lambda places: drift + part * stretch * (places - centre) / (SIDE / 2)


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    rng = np.random.default_rng(1)
    frames = [rng.poisson(scene(moved_to(t, STRETCH))) for t in range(FRAMES)]
    return np.stack(frames).astype(np.uint8)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """An empty project, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("Movies")
    return tmp_path


def run_relion(movie: str, *options: object, pixel: float = PIXEL) -> np.ndarray:
    """RELION's own sum, of ``MotionCorr/job002``."""
    program = relion("relion_run_motioncorr")
    Path("movies.star").write_text(MOVIES_STAR.format(movie=movie, pixel=pixel))
    fixed = "--use_own --i movies.star --o MotionCorr/job002/ --dose_per_frame 1 --j 1 --bfactor 40"
    done = subprocess.run(
        [program, *fixed.split(), *map(str, options)], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return mrcfile.read(Path("MotionCorr/job002", movie).with_suffix(".mrc"))


TABLE = "MotionCorr/job002/corrected_micrographs.star"
PATCHES = ("--patch_x", 4, "--patch_y", 4)


@pytest.fixture
def align(capsys) -> Callable[..., np.ndarray]:
    """Our plain sum of movies.star."""

    def run(out: str, *options: object) -> np.ndarray:
        code, said, err = dstnet(
            capsys, "align", "movies.star", "-o", out, "--device", "cpu", "--threads", 1, *options
        )
        assert code == 0, said + err
        (path,) = Path(out, "micrographs").rglob("*_aligned.mrc")
        return mrcfile.read(path)

    return run


def offset(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """How far our content lies from theirs, (y, x) in pixels: the peak of the correlation of what
    is seen at 4 pixels and coarser, to 0.01 pixels.
    """
    window = np.outer(*(np.hanning(n) for n in ours.shape))
    a, b = (np.fft.fft2(window * (image - image.mean())) for image in (ours, theirs))
    k = [np.fft.fftfreq(n) for n in ours.shape]
    cross = a * b.conj() * (np.hypot(k[0][:, None], k[1]) < 0.25)
    place = np.zeros(2)
    for step, reach in ((1.0, 16), (0.1, 15), (0.01, 15)):
        tried = [place[axis] + step * np.arange(-reach, reach + 1) for axis in (0, 1)]
        waves = [np.exp(2j * np.pi * np.outer(t, f)) for t, f in zip(tried, k, strict=True)]
        score = (waves[0] @ cross @ waves[1].T).real
        best = np.unravel_index(score.argmax(), score.shape)
        place = np.array([tried[0][best[0]], tried[1][best[1]]])
    return place


def assert_same_place(
    ours: np.ndarray, theirs: np.ndarray, tolerance: tuple[float, float], binning: float = 1.0
) -> None:
    """In pixels of the movie."""
    assert ours.shape == theirs.shape
    border = round(BORDER / binning)
    ours, theirs = (a[border:-border, border:-border].astype(float) for a in (ours, theirs))
    whole = binning * offset(ours, theirs)
    assert np.abs(whole).max() < tolerance[0], whole
    side = ours.shape[0] // 3
    for top in range(0, 3 * side, side):
        for left in range(0, 3 * side, side):
            here = (slice(top, top + side), slice(left, left + side))
            patch = binning * offset(ours[here], theirs[here])
            assert np.abs(patch).max() < tolerance[1], (top, left, patch)


WRITERS = {
    "Movies/a.tif": lambda path, counts: write_tiff(path, counts, PIXEL),
    "Movies/a.mrcs": lambda path, counts: write_mrc(
        path, counts.astype(np.uint16), PIXEL, "test", stack=True
    ),
}


@pytest.mark.parametrize("movie", WRITERS)
def test_sums_lie_where_relions_do(project, counts, align, movie):
    """By our own motion, by RELION's and by ours from the file beside our sum; rows counted as
    RELION counts them in either format.
    """
    WRITERS[movie](project / movie, counts)
    theirs = run_relion(movie, *PATCHES)
    ours = align("own")
    assert_same_place(ours, theirs, OF_TWO_ESTIMATES)
    assert_same_place(ours, scene(moved_to(0, STRETCH)), OF_TWO_ESTIMATES)
    assert_same_place(align("by_relion", "--motion-from", TABLE), theirs, OF_ONE_MOTION)
    again = align("again", "--motion-from", "own/micrographs.star")
    assert_same_place(again, ours, (0.01, 0.02))
    np.testing.assert_allclose(again, ours, atol=0.1 * ours.std())


@pytest.mark.parametrize("early", ["--early_binning", "--no_early_binning"])
def test_binned_sums_lie_where_relions_do(project, counts, align, early):
    """RELION writes its local motion in binned pixels or in the movie's, as it binned first or
    last; and the files say the same of both.
    """
    movie = "Movies/a.tif"
    WRITERS[movie](project / movie, counts)
    theirs = run_relion(movie, *PATCHES, "--bin_factor", 2, early)
    ours = align("by_relion", "--bin", 2, "--motion-from", TABLE)
    assert_same_place(ours, theirs, OF_ONE_MOTION, 2.0)
    own = align("own", "--bin", 2)
    assert_same_place(own, theirs, OF_TWO_ESTIMATES, 2.0)
    again = align("again", "--bin", 2, "--motion-from", "own")
    assert_same_place(again, own, (0.01, 0.02), 2.0)


def test_sums_without_the_first_frames_lie_at_the_first_one_used(project, counts, align):
    movie = "Movies/a.tif"
    WRITERS[movie](project / movie, counts)
    theirs = run_relion(movie, *PATCHES, "--first_frame_sum", 4, "--last_frame_sum", 9)
    by_relion = align("by_relion", "--motion-from", TABLE)
    assert_same_place(by_relion, theirs, OF_ONE_MOTION)
    own = align("own", "--frame-range", "4:9")
    assert_same_place(own, theirs, OF_TWO_ESTIMATES)
    # Frames that were left out are left out again, and the file says so as RELION's does.
    assert_same_place(align("again", "--motion-from", "own"), own, (0.01, 0.02))
    (said, relions) = (
        starfile.read(path, always_dict=True)
        for path in ("own/micrographs/Movies/a.star", "MotionCorr/job002/Movies/a.star")
    )
    for tables in (said, relions):
        assert tables["general"]["rlnMicrographStartFrame"] == 4
        assert tables["general"]["rlnImageSizeZ"] == FRAMES
        shifts = tables["global_shift"]["rlnMicrographShiftX"].to_numpy()
        assert list(np.flatnonzero(shifts == -9999)) == [0, 1, 2, 9]
        assert shifts[3] == 0


@pytest.mark.slow
def test_sums_of_eer_lie_where_relions_do(project, align):
    """Whose rows are not turned over, other than those of TIFF; two raw frames a frame. The discs
    lie off the middle of the camera's 4096 pixels, which RELION insists on.
    """
    side, top, left = 4096, 600, 2200
    rng = np.random.default_rng(2)
    still = np.full((side, side), 0.005)
    field = (slice(top, top + SIDE), slice(left, left + SIDE))
    still[field] = scene(moved_to(0, 0.0), 0.5)
    streams = []
    for shift in ((0, 0), (4, -5), (7, -9)):
        chance = np.roll(still, shift, (0, 1))
        for _ in range(2):
            pixels = np.argwhere(rng.random((side, side)) < chance)
            events = 4 * pixels + rng.integers(0, 4, pixels.shape)
            streams.append(encode(events, (side, side)))
    write_eer("Movies/a.eer", streams, (side, side), pixel_size_m=1e-10)
    # A field of counts in an empty frame would pass for hot pixels.
    theirs = run_relion("Movies/a.eer", "--eer_grouping", 2, "--skip_defect")
    options = ("--eer-frames", 2, "--patches", 0, "--no-mend")
    own = align("own", *options)[field]
    assert_same_place(own, scene(moved_to(0, 0.0)), OF_TWO_ESTIMATES)
    by_relion = align("by_relion", *options, "--motion-from", TABLE)
    assert_same_place(by_relion[field], theirs[field], OF_ONE_MOTION)
