"""RELION's motion correction and Polish go on from our files as from its own: they find the gain,
the bad pixels and the EER keys in the STAR file of each movie, and apply them as we did.
"""

from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
import tifffile
from eer_writer import encode, write_eer
from relion_jobs import (
    BLOB_SIGMA_PX,
    BOX,
    blob,
    likeness,
    motion_correction,
    moved,
    places,
    polish,
    specimen,
    write_movies_star,
)
from scipy.ndimage import gaussian_filter
from tiny import dstnet

from dstnet.io import write_mrc, write_tiff

pytestmark = pytest.mark.oracle

SHAPE, FRAMES, PIXEL = (384, 320), 8, 1.0
STEP = (1, -2)  # pixels that the field moves by from frame to frame
DEAD_COLUMN, HOT = 200, (100, 250)
SUFFIXES = (".tif", ".mrc")


@dataclass(frozen=True)
class Job:
    """What RELION's own programs made of a movie with its camera's gain, given as they want it."""

    folder: Path
    total: np.ndarray
    particles: np.ndarray


def coarse_gain() -> np.ndarray:
    """A gain that varies by a third from pixel to pixel, of a detector, its left quarter weak."""
    shape = (SHAPE[0] // 2, SHAPE[1] // 2)
    gain = np.exp(0.3 * np.random.default_rng(1).standard_normal(shape)).astype(np.float32)
    gain[:, : shape[1] // 4] *= 1.5
    return gain / gain.mean()


GAIN = coarse_gain().repeat(2, 0).repeat(2, 1)
CENTRES = places(SHAPE)
BLOB = blob((BOX, BOX), BOX // 2, BOX // 2)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A movie as TIFF and as MRC: a dead column is on the list of defects, a hot pixel is not."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "Movies").mkdir()
    electrons = 4 * moved(SHAPE, FRAMES, STEP)
    counts = np.random.default_rng(2).poisson(electrons / GAIN)
    counts[:, :, DEAD_COLUMN] = 0
    counts[:, HOT[0], HOT[1]] = 200
    write_tiff(folder / "Movies" / "m.tif", counts.astype(np.uint8), PIXEL)
    write_mrc(folder / "Movies" / "m.mrc", counts.astype(np.int16), PIXEL, "movie", stack=True)
    write_mrc(folder / "gain.mrc", GAIN, PIXEL, "gain")
    (folder / "defects.txt").write_text(f"{DEAD_COLUMN} 0 1 {SHAPE[0]}\n")
    return folder


@pytest.fixture(scope="module")
def own(project) -> dict[str, Job]:
    """By the movie's suffix."""
    jobs = {}
    for suffix in SUFFIXES:
        write_movies_star(project, [f"Movies/m{suffix}"], PIXEL)
        name = f"own{suffix[1:]}"
        table = motion_correction(project, name, "--gainref gain.mrc --defect_file defects.txt")
        total = mrcfile.read(project / name / "Movies" / "m.mrc")
        particles, _ = polish(project, table, CENTRES, PIXEL, FRAMES)
        jobs[suffix] = Job(project / name, total, particles)
    return jobs


def plain(folder: Path) -> str:
    """As RELION wants it itself."""
    return "gain.mrc"


def turned(folder: Path) -> str:
    """As a detector that lies on its side is read out."""
    turned_back = np.rot90(GAIN[::-1], 1)
    write_mrc(folder / "turned.mrc", np.ascontiguousarray(turned_back), PIXEL, "gain")
    return "turned.mrc --gain-rotate 90 --gain-flip up-down"


def inverted(folder: Path) -> str:
    """What frames are to be divided by, as TIFF."""
    tifffile.imwrite(folder / "inverted.tif", 1 / GAIN[::-1])
    return "inverted.tif --gain-invert"


def of_physical_pixels(folder: Path) -> str:
    """Of a super-resolution movie, a gain of the physical pixels."""
    write_mrc(folder / "coarse.mrc", coarse_gain(), PIXEL, "gain")
    return "coarse.mrc"


def of_another_type(folder: Path) -> str:
    """In half precision, which RELION 3.1 cannot read."""
    write_mrc(folder / "half.mrc", GAIN.astype(np.float16), PIXEL, "gain")
    return "half.mrc"


def align(capsys, name: str, movie: str, *options: str) -> dict:
    """Our alignment of a movie into folder `name`; the tables of its STAR file."""
    arguments = ("align", movie, "-o", name, *options, "--patches", "0")
    optics = ("--cs", "2.7", "--amplitude-contrast", "0.1")
    code, _, err = dstnet(capsys, *arguments, *optics)
    assert code == 0, err
    return starfile.read((Path(name) / "micrographs" / movie).with_suffix(".star"))


def smooth(particles: np.ndarray) -> np.ndarray:
    """Their mean [y, x] without its finest noise."""
    return gaussian_filter(particles.mean(0), BLOB_SIGMA_PX / 2)


CASES = [(form, ".tif") for form in (plain, turned, inverted, of_physical_pixels, of_another_type)]


@pytest.mark.parametrize(("form", "suffix"), [*CASES, (turned, ".mrc")])
def test_relion_corrects_and_polishes_as_we_did(project, own, form, suffix, capsys, monkeypatch):
    monkeypatch.chdir(project)
    name, movie = f"{form.__name__}{suffix[1:]}", f"Movies/m{suffix}"
    references = ("--gain", *form(project).split(), "--defects", "defects.txt")
    tables = align(capsys, name, movie, *references, "--dose-per-frame", "1")
    hot = tables["hot_pixels"][["rlnCoordinateY", "rlnCoordinateX"]].to_numpy()
    assert hot.tolist() == [list(HOT)]

    # What RELION makes of the movie with the references that we name is what it makes with the
    # camera's own: all but the last digits, and what it draws for bad pixels.
    gain = tables["general"]["rlnMicrographGainName"]
    defects = tables["general"]["rlnMicrographDefectFile"]
    assert (gain == "gain.mrc") == (form is plain)
    write_movies_star(project, [movie], PIXEL)
    motion_correction(project, f"again_{name}", f"--gainref {gain} --defect_file {defects}")
    again = mrcfile.read(project / f"again_{name}" / "Movies" / "m.mrc")
    assert likeness(again, own[suffix].total) > 0.99

    particles, printed = polish(
        project, project / name / "micrographs.star", CENTRES, PIXEL, FRAMES
    )
    assert f"-> gain: {gain}" in printed
    assert f"-> mask: {defects}" in printed
    assert "-> nhot: 1" in printed
    # Without the gain it is 0.65.
    assert likeness(particles, own[suffix].particles) > 0.999
    assert likeness(smooth(particles), BLOB) > 0.9


def test_polish_goes_on_from_binned_sums(project, own, capsys, monkeypatch):
    """As from RELION's own: the particles' places are those of the sums."""
    monkeypatch.chdir(project)
    write_movies_star(project, ["Movies/m.tif"], PIXEL)
    theirs = motion_correction(
        project, "own_binned", "--gainref gain.mrc --defect_file defects.txt --bin_factor 2"
    )
    options = ("--gain", "gain.mrc", "--defects", "defects.txt", "--dose-per-frame", "1")
    general = align(capsys, "binned", "Movies/m.tif", *options, "--bin", "2")["general"]
    assert general["rlnMicrographBinning"] == 2
    assert general["rlnMicrographOriginalPixelSize"] == PIXEL
    halved = [(y / 2, x / 2) for y, x in CENTRES]
    ours = project / "binned" / "micrographs.star"
    particles, other = (
        polish(project, table, halved, 2 * PIXEL, FRAMES)[0] for table in (ours, theirs)
    )
    assert likeness(particles, other) > 0.999


def test_sums_with_relions_own_motion_are_relions(project, own, capsys, monkeypatch):
    """Polished particles too, from the STAR file written with motion taken over."""
    monkeypatch.chdir(project)
    theirs = own[".tif"]
    motion = str(theirs.folder / "corrected_micrographs.star")
    options = ("--gain", "gain.mrc", "--defects", "defects.txt", "--dose-per-frame", "1")
    align(capsys, "taken", "Movies/m.tif", *options, "--motion-from", motion)
    total = mrcfile.read(project / "taken" / "micrographs" / "Movies" / "m_aligned.mrc")
    # Borders, which not all frames saw, are filled in differently; and both draw values for bad
    # pixels.
    inner = slice(20, -20)
    assert likeness(total[inner, inner], theirs.total[inner, inner]) > 0.99
    particles, _ = polish(project, project / "taken" / "micrographs.star", CENTRES, PIXEL, FRAMES)
    assert likeness(particles, theirs.particles) > 0.999


def test_frames_left_out_are_not_observed_for_relion(project, own, capsys, monkeypatch):
    """Polish, told which frames were used, makes of them what it makes after its own motion
    correction of these.
    """
    monkeypatch.chdir(project)
    write_movies_star(project, ["Movies/m.tif"], PIXEL)
    references = "--gainref gain.mrc --defect_file defects.txt"
    theirs = motion_correction(
        project, "own_range", f"{references} --first_frame_sum 3 --last_frame_sum 7"
    )
    options = ("--gain", "gain.mrc", "--defects", "defects.txt", "--dose-per-frame", "1")
    align(capsys, "range", "Movies/m.tif", *options, "--frame-range", "3:7")
    # Where the third frame has them.
    there = [(y + 2 * STEP[0], x + 2 * STEP[1]) for y, x in CENTRES]
    used = "--first_frame 3 --last_frame 7"
    ours = project / "range" / "micrographs.star"
    particles, other = (
        polish(project, table, there, PIXEL, 5, used)[0] for table in (ours, theirs)
    )
    assert likeness(particles, other) > 0.999
    assert likeness(smooth(particles), BLOB) > 0.9


SIDE = 4096  # RELION 3.1 reads no other EER files
EER_PIXEL = 1.0


def write_eer_movie(path: Path, sensitivity: np.ndarray) -> None:
    """Seven raw frames, whose field moves after each second one; three columns are dead."""
    rng = np.random.default_rng(3)
    field = np.tile(specimen((512, 512)), (SIDE // 512, SIDE // 512))
    streams = []
    for frame in range(7):
        moved_by = (2 * (frame // 2), -3 * (frame // 2))
        rate = 0.06 * np.roll(field, moved_by, (0, 1)) * sensitivity
        rate[:, 1000:1003] = 0
        pixels = np.argwhere(rng.random((SIDE, SIDE), np.float32) < rate)
        streams.append(encode(4 * pixels + rng.integers(0, 4, pixels.shape), (SIDE, SIDE)))
    write_eer(path, streams, (SIDE, SIDE), pixel_size_m=EER_PIXEL * 1e-10)


@pytest.mark.slow
def test_relion_goes_on_from_eer(tmp_path, capsys, monkeypatch):
    """Two raw frames make one and the last is left over; the gain's file lies turned."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Movies").mkdir()
    detail = np.random.default_rng(4).standard_normal((SIDE, SIDE), np.float32)
    sensitivity = np.exp(0.05 * detail) * np.linspace(0.6, 1.5, SIDE, dtype=np.float32)
    sensitivity /= sensitivity.mean()
    write_eer_movie(tmp_path / "Movies" / "m.eer", sensitivity)
    write_mrc(tmp_path / "divide.mrc", sensitivity, EER_PIXEL, "gain")
    write_mrc(tmp_path / "turned.mrc", np.rot90(sensitivity, 1).copy(), EER_PIXEL, "gain")
    (tmp_path / "defects.txt").write_text(f"1000 0 3 {SIDE}\n")

    options = ("--defects", "defects.txt", "--dose-per-frame", "1", "--eer-frames", "2")
    write_movies_star(tmp_path, ["Movies/m.eer"], EER_PIXEL)
    theirs = motion_correction(
        tmp_path,
        "own",
        "--gainref divide.mrc --defect_file defects.txt --skip_defect --eer_grouping 2",
    )
    # With its motion, and the listed defects alone: of so few electrons that of ours is another by
    # a pixel, and RELION takes thousands of pixels for hot ones.
    options += ("--motion-from", str(theirs), "--no-mend")
    turn = ("--gain", "turned.mrc", "--gain-rotate", "90")
    general = align(capsys, "ours", "Movies/m.eer", *turn, *options)["general"]
    assert general["rlnMicrographGainName"].endswith(".gain")
    assert (general["rlnEERUpsampling"], general["rlnEERGrouping"]) == (1, 2)
    assert general["rlnImageSizeZ"] == 3

    rows, columns = (range(64, SIDE, 1024), (192, 1024 - 64 + 32, 2112, 3648))
    centres = [(y, x) for y in rows for x in columns]
    ours = tmp_path / "ours" / "micrographs.star"
    particles, other = (
        polish(tmp_path, table, centres, EER_PIXEL, 3)[0] for table in (ours, theirs)
    )
    assert likeness(particles, other) > 0.999
    assert likeness(smooth(particles), BLOB) > 0.8
