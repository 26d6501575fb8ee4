"""The references that RELION's STAR file of a movie names: the user's gain where RELION applies it
as it is, else one that is written; defects and bad pixels; the EER keys; dose and voltage.
"""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import starfile
import tifffile
from eer_writer import encode, random_events, write_eer
from tiny import dstnet, make_frames

from dstnet.correction import Corrections, CorrectionSettings
from dstnet.errors import BadInputError
from dstnet.io import write_mrc, write_tiff
from dstnet.io.reference import read_defects, read_gain
from dstnet.movie import Movie
from dstnet.pipeline.relion_references import ReferenceWriter

SHAPE = (96, 80)


def make_gain(shape=SHAPE, seed=0) -> np.ndarray:
    gain = np.exp(0.2 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)
    gain[10, 20] = 0
    return gain


def make_movie(name="m.tif", shape=SHAPE, eer_up_sampling=None) -> Movie:
    frames = make_frames(4, shape)
    return Movie(frames, 1.0, name, eer_up_sampling=eer_up_sampling)


def references(folder, gain: Path, movie: Movie, defects=None, **settings):
    """What RELION is told of the references, and the gain that the frames were corrected with."""
    names = (str(gain), "dark", "defects")
    correction = CorrectionSettings(**settings)
    corrections = Corrections(read_gain(gain), None, defects, correction, names)
    corrected = corrections.applied(movie)
    written = ReferenceWriter().references(folder, gain, corrections, movie, corrected)
    return written, corrections.fitted(movie).gain


def relions_gain(path: Path, up_sampling: int | None) -> np.ndarray:
    """What RELION multiplies frames with, given a file (its own description, renderEER.h)."""
    gain = read_gain(path)
    if up_sampling is None:
        return gain
    if path.suffix != ".gain":
        gain = np.divide(gain.mean(), gain, out=np.zeros_like(gain), where=gain > 0)
    return gain.repeat(2, 0).repeat(2, 1) if up_sampling == 2 else gain


def same_but_for_a_factor(one: np.ndarray, other: np.ndarray) -> bool:
    alive = other > 0
    ratio = one[alive] / other[alive]
    return np.array_equal(one > 0, alive) and float(np.ptp(ratio)) < 1e-4 * float(ratio.mean())


def as_mrc(path: Path, gain: np.ndarray) -> Path:
    write_mrc(path, np.ascontiguousarray(gain), 1.0, "gain")
    return path


def as_tiff(path: Path, gain: np.ndarray) -> Path:
    """Rows as movies of that format have them, the last first; a .gain file as EER movies do."""
    rows = gain if path.suffix == ".gain" else gain[::-1]
    tifffile.imwrite(path, rows)
    return path


@pytest.mark.parametrize("name", ["gain.mrc", "gain.tif", "gain.TIFF"])
def test_a_gain_that_relion_can_apply_is_named_itself(tmp_path, name):
    write = as_mrc if name.endswith("mrc") else as_tiff
    path = write(tmp_path / name, make_gain())
    written, _ = references(tmp_path, path, make_movie())
    assert written.gain == path


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        (np.rot90(make_gain(), 1), {"gain_rotate": 90}),
        (make_gain()[:, ::-1], {"gain_flip": "left-right"}),
        (make_gain().T, {"gain_transpose": True}),
        (make_gain(), {"gain_invert": True}),
        (make_gain((48, 40)), {}),
        (make_gain().astype(np.float16), {}),
        ((1000 * make_gain()).astype(np.uint16), {}),
    ],
)
def test_any_other_is_written_as_it_was_applied(tmp_path, given, settings):
    path = as_mrc(tmp_path / "gain.mrc", given)
    written, applied = references(tmp_path, path, make_movie(), **settings)
    assert written.gain is not None and written.gain.parent == tmp_path / "references"
    assert np.array_equal(relions_gain(written.gain, None), applied)


def test_what_relion_cannot_read_is_written(tmp_path):
    """Tiles, double precision, a suffix or a name that it does not know, or a false suffix."""
    gain = make_gain((96, 96))
    movie = make_movie(shape=(96, 96))
    tifffile.imwrite(tmp_path / "tiled.tif", gain, tile=(16, 16))
    tifffile.imwrite(tmp_path / "double.tif", gain.astype(np.float64))
    as_mrc(tmp_path / "gain.map", gain)
    as_mrc(tmp_path / "my gain.mrc", gain)
    as_mrc(tmp_path / "it's#1.mrc", gain)
    as_tiff(tmp_path / "k3.gain", gain)
    as_tiff(tmp_path / "a.tif", gain).rename(tmp_path / "tiff.mrc")
    names = ("tiled.tif", "double.tif", "gain.map", "my gain.mrc", "it's#1.mrc", "k3.gain")
    for name in (*names, "tiff.mrc"):
        written, applied = references(tmp_path, tmp_path / name, movie)
        assert written.gain is not None and written.gain.suffix == ".mrc"
        assert written.gain.parent == tmp_path / "references", name
        assert np.array_equal(relions_gain(written.gain, None), applied)


@pytest.mark.parametrize("up_sampling", [1, 2])
@pytest.mark.parametrize(
    ("name", "settings", "is_named"),
    [
        ("gain.mrc", {}, True),  # which EER movies are divided by
        ("gain.tif", {}, True),
        ("camera.gain", {}, True),
        ("gain.mrc", {"gain_invert": False}, False),
        ("camera.gain", {"gain_invert": True}, False),
        ("gain.mrc", {"gain_rotate": 180}, False),
        ("camera.gain", {"gain_flip": "up-down"}, False),
    ],
)
def test_relion_divides_eer_movies_by_all_but_gain_files(
    tmp_path, name, settings, is_named, up_sampling
):
    write = as_mrc if name.endswith("mrc") else as_tiff
    path = write(tmp_path / name, make_gain())
    shape = (SHAPE[0] * up_sampling, SHAPE[1] * up_sampling)
    movie = make_movie("m.eer", shape, up_sampling)
    written, applied = references(tmp_path, path, movie, **settings)
    assert written.gain is not None
    assert (written.gain == path) == is_named
    assert written.gain.suffix == ".gain" or is_named
    assert same_but_for_a_factor(relions_gain(written.gain, up_sampling), applied)
    again, _ = references(tmp_path, path, movie, **settings)
    assert again.gain == written.gain, "known again by what it holds"


def test_a_written_gain_hangs_on_the_reference_alone(tmp_path):
    """The same name and bytes from another run, another movie and another pixel size; written
    once.
    """
    gain = as_mrc(tmp_path / "gain.mrc", make_gain()[::-1])
    files = []
    for run in ("a", "b"):
        movie = make_movie(f"{run}.tif")
        written, _ = references(tmp_path / run, gain, movie, gain_flip="up-down")
        again, _ = references(tmp_path / run, gain, movie, gain_flip="up-down")
        assert again.gain == written.gain and again.defects == written.defects
        files.append(written)
    for kind in ("gain", "defects"):
        one, other = (getattr(written, kind) for written in files)
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()
    assert len(list((tmp_path / "a" / "references").iterdir())) == 2


@pytest.mark.parametrize("kind", ["gain", "defects"])
def test_another_file_under_the_name_of_a_written_reference_is_refused(tmp_path, kind):
    gain = as_mrc(tmp_path / "gain.mrc", make_gain()[::-1])
    written, _ = references(tmp_path, gain, make_movie(), gain_flip="up-down")
    path = getattr(written, kind)
    path.write_bytes(b"somebody's")
    for _ in range(2):
        with pytest.raises(BadInputError, match="named after; delete it"):
            references(tmp_path, gain, make_movie(), gain_flip="up-down")
    assert path.read_bytes() == b"somebody's"


@pytest.mark.parametrize("as_map", [True, False])
def test_defects_go_to_relion_as_rectangles(tmp_path, as_map):
    """With the pixels that have no gain; what is found in the frames is not among them."""
    expected = np.zeros(SHAPE, bool)
    expected[:, 7] = True
    expected[30:33, 40:44] = True
    expected[95, 79] = True
    rectangles = np.array([(7, 0, 1, 96), (40, 30, 4, 3), (79, 95, 1, 1), (41, 31, 2, 1)])
    gain = as_mrc(tmp_path / "gain.mrc", make_gain())
    defects = expected.copy() if as_map else rectangles
    frames = make_frames(4, SHAPE, mean=40.0)
    frames[:, 50, 60] = 400
    movie = Movie(frames, 1.0, "m.tif")
    written, _ = references(tmp_path, gain, movie, defects)
    expected[10, 20] = True  # no gain
    assert written.defects is not None
    mask = np.zeros(SHAPE, bool)
    for x, y, width, height in read_defects(written.defects).tolist():
        mask[y : y + height, x : x + width] = True
    assert np.array_equal(mask, expected)
    assert written.hot_pixels.tolist() == [[50, 60]]


def test_without_references_there_are_none(tmp_path):
    corrections = Corrections(None, None, None, CorrectionSettings())
    movie = make_movie()
    corrected = corrections.applied(movie)
    for chosen in (corrections, None):
        written = ReferenceWriter().references(tmp_path, None, chosen, movie, corrected)
        assert written.gain is None and written.defects is None
        assert len(written.hot_pixels) == 0
    assert not (tmp_path / "references").exists()


# --- the STAR file of a movie ---------------------------------------------------------------------


def align(capsys, monkeypatch, folder: Path, *arguments: str) -> tuple[dict, str]:
    """Tables of the motion file of m.*, and what was printed."""
    monkeypatch.chdir(folder)
    code, out, err = dstnet(capsys, "align", *arguments, "-o", "out", "--patches", "0")
    assert code == 0, err
    return starfile.read("out/micrographs/m.star"), out + err


@pytest.fixture
def project(tmp_path) -> Path:
    write_tiff(tmp_path / "m.tif", make_frames(4, SHAPE), 1.1)
    as_mrc(tmp_path / "gain.mrc", make_gain()[::-1])
    return tmp_path


def test_dose_and_voltage_are_told_only_where_somebody_said_them(project, capsys, monkeypatch):
    """RELION's Polish goes on without a dose, and makes noise: the run says so."""
    tables, printed = align(capsys, monkeypatch, project, "m.tif")
    unknown = {"rlnMicrographDoseRate", "rlnMicrographPreExposure", "rlnVoltage"}
    assert not unknown & tables["general"].keys()
    assert "pass --dose-per-frame too, or give it --fdose" in printed
    given = ("--dose-per-frame", "1.5", "--pre-exposure", "2", "--voltage", "200")
    arguments = ("m.tif", *given, "--overwrite", "--frame-range", "2:")
    tables, printed = align(capsys, monkeypatch, project, *arguments)
    general = tables["general"]
    assert [general[name] for name in sorted(unknown)] == [1.5, 2, 200]
    assert "--fdose" not in printed
    assert "unless it is run with --first_frame 2 --last_frame 4" in printed


def test_frames_left_out_between_others_have_no_option_in_relion(tmp_path, capsys, monkeypatch):
    frames = make_frames(5, SHAPE)
    frames[2] = 0
    write_tiff(tmp_path / "m.tif", frames, 1.1)
    _, printed = align(capsys, monkeypatch, tmp_path, "m.tif")
    assert "left out between others too (3)" in printed
    assert "--first_frame" not in printed


def test_binning_is_that_of_the_sums(project, capsys, monkeypatch):
    tables, _ = align(capsys, monkeypatch, project, "m.tif", "--bin", "2")
    general = tables["general"]
    assert (general["rlnImageSizeX"], general["rlnImageSizeY"]) == SHAPE[::-1]
    assert general["rlnMicrographBinning"] == 2
    assert general["rlnMicrographOriginalPixelSize"] == 1.1


def test_a_reference_that_was_deleted_is_written_again(project, capsys, monkeypatch):
    arguments = ("m.tif", "--gain", "gain.mrc", "--gain-flip", "up-down")
    tables, _ = align(capsys, monkeypatch, project, *arguments)
    path = Path(tables["general"]["rlnMicrographGainName"])
    assert path.parent == Path("out/references")
    os.remove(path)
    _, printed = align(capsys, monkeypatch, project, *arguments)
    assert "0 already there" in printed
    assert np.array_equal(read_gain(path), make_gain())
    _, printed = align(capsys, monkeypatch, project, *arguments)
    assert "1 already there" in printed


def test_a_dark_is_said_to_be_lost_on_relion(project, capsys, monkeypatch):
    as_mrc(project / "dark.mrc", np.full(SHAPE, 0.1, np.float32))
    _, printed = align(capsys, monkeypatch, project, "m.tif", "--dark", "dark.mrc")
    assert "RELION knows no dark" in printed


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (("--eer-frames", "3"), (1, 3, 3)),
        (("--eer-frames", "2", "--eer-upsampling", "2"), (2, 2, 5)),
        (("--eer-exposure", "2", "--dose-per-frame", "0.5", "--eer-upsampling", "4"), (3, 4, 2)),
        (("--eer-frames", "2", "--frame-range", "2:4"), (1, 2, 5)),
        (("--eer-frames", "1"), (1, 1, 11)),
    ],
)
def test_eer_keys(tmp_path, capsys, monkeypatch, options, keys):
    """RELION's grid, its raw frames a frame, and all frames that these make: it counts them in the
    file.
    """
    rng = np.random.default_rng(0)
    streams = [encode(random_events(rng, (64, 64), 0.2), (64, 64)) for _ in range(11)]
    write_eer(tmp_path / "m.eer", streams, (64, 64), pixel_size_m=1e-10)
    tables, _ = align(capsys, monkeypatch, tmp_path, "m.eer", *options)
    general = tables["general"]
    names = ("rlnEERUpsampling", "rlnEERGrouping", "rlnImageSizeZ")
    assert tuple(general[name] for name in names) == keys
    assert general["rlnImageSizeX"] == 64 * {1: 1, 2: 2, 3: 4}[keys[0]]
    assert len(tables["global_shift"]) == keys[2]


def test_movies_that_are_no_eer_have_no_eer_keys(project, capsys, monkeypatch):
    tables, _ = align(capsys, monkeypatch, project, "m.tif")
    assert not {"rlnEERUpsampling", "rlnEERGrouping"} & tables["general"].keys()


@pytest.mark.parametrize(
    ("name", "is_known"),
    [("m.tif", True), ("m.TIF", True), ("m.MRCS", True), ("m.st", False), ("m.mrc.gz", False)],
)
def test_movies_that_relion_cannot_open_are_told(tmp_path, capsys, monkeypatch, name, is_known):
    write = write_tiff if ".t" in name.lower() else as_stack
    write(tmp_path / "written", make_frames(4, SHAPE), 1.1)
    data = (tmp_path / "written").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    _, printed = align(capsys, monkeypatch, tmp_path, name)
    assert ("RELION's Polish cannot open" not in printed) == is_known


def as_stack(path: Path, frames: np.ndarray, pixel: float) -> None:
    write_mrc(path, frames, pixel, "movie", stack=True)
