"""Bad inputs among good ones, bad options, and outputs that cannot be written: one line each, and
nothing half done.
"""

import errno
import io
import json
import re
import signal
import subprocess
import sys

import mrcfile
import numpy as np
import pytest
import starfile
import tifffile
from tiny import dstnet, make_frames, save_model

from dstnet.cli import main
from dstnet.enhancement import NetworkRestorer
from dstnet.io import write_mrc, write_tiff
from dstnet.pipeline import process


@pytest.fixture
def data(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def good(data):
    write_mrc(data / "good.mrc", make_frames(), 2.0, "x", stack=True)
    return data / "good.mrc"


@pytest.fixture
def enhance(capsys, tmp_path, model):
    def run(*arguments, out=tmp_path / "out"):
        return dstnet(capsys, "enhance", *arguments, "-o", out, "--model", model, "--device", "cpu")

    return run


def empty(folder):
    (folder / "empty.mrc").write_bytes(b"")
    return folder / "empty.mrc"


def truncated_mrc(folder):
    write_mrc(folder / "cut.mrc", make_frames(), 2.0, "x", stack=True)
    (folder / "cut.mrc").write_bytes((folder / "cut.mrc").read_bytes()[:-5000])
    return folder / "cut.mrc"


def truncated_tiff(folder):
    write_tiff(folder / "half.tif", make_frames(), 2.0)
    (folder / "half.tif").write_bytes((folder / "half.tif").read_bytes()[:9000])
    return folder / "half.tif"


def damaged_tiff(folder):
    """A page whose compressed bytes are spoilt: only reading the frame finds it."""
    tifffile.imwrite(
        folder / "spoilt.tif",
        make_frames(),
        photometric="minisblack",
        compression="zlib",
        resolution=(5, 5),
        description="unit=nm\n",
    )
    with tifffile.TiffFile(folder / "spoilt.tif") as file:
        start = file.pages[1].dataoffsets[0]
    raw = bytearray((folder / "spoilt.tif").read_bytes())
    raw[start + 50 : start + 300] = bytes(250)
    (folder / "spoilt.tif").write_bytes(raw)
    return folder / "spoilt.tif"


def text(folder):
    (folder / "notes.mrc").write_text("this is no movie\n" * 100)
    return folder / "notes.mrc"


def random_bytes(folder):
    (folder / "random.mrc").write_bytes(np.random.default_rng(0).bytes(30000))
    return folder / "random.mrc"


def one_row(folder):
    write_mrc(folder / "row.mrc", np.ones((1, 400), "f4"), 2.0, "x")
    return folder / "row.mrc"


def tiny_frames(folder):
    write_mrc(folder / "stamp.mrc", make_frames(3, (16, 16)), 2.0, "x", stack=True)
    return folder / "stamp.mrc"


def four_dimensions(folder):
    with mrcfile.new(folder / "volumes.mrc") as file:
        file.set_data(np.ones((2, 3, 40, 40), "f4"))
    return folder / "volumes.mrc"


def colour(folder):
    tifffile.imwrite(folder / "colour.tif", np.ones((64, 64, 3), "u1"), photometric="rgb")
    return folder / "colour.tif"


def all_zero(folder):
    write_mrc(folder / "zero.mrc", np.zeros((3, 64, 64), "f4"), 2.0, "x", stack=True)
    return folder / "zero.mrc"


def constant(folder):
    write_mrc(folder / "flat.mrc", np.full((64, 64), 7, "f4"), 2.0, "x")
    return folder / "flat.mrc"


def one_frame_constant(folder):
    frames = make_frames()
    frames[1] = 5
    write_tiff(folder / "dropped.tif", frames, 2.0)
    return folder / "dropped.tif"


def not_a_number(folder):
    frames = make_frames().astype(np.float32)
    frames[2, 10, 20] = np.nan
    write_mrc(folder / "nan.mrc", frames, 2.0, "x", stack=True)
    return folder / "nan.mrc"


def infinite(folder):
    write_mrc(folder / "inf.mrc", make_frames(1).astype(np.float32), 2.0, "x", stack=True)
    raw = (folder / "inf.mrc").read_bytes()
    (folder / "inf.mrc").write_bytes(raw[:5024] + np.float32(np.inf).tobytes() + raw[5028:])
    return folder / "inf.mrc"


def no_pixel_size(folder):
    tifffile.imwrite(folder / "bare.tif", make_frames(), photometric="minisblack")
    return folder / "bare.tif"


def filtered(folder):
    waves = np.add.outer(np.cos(np.arange(96) * np.pi / 16), np.sin(np.arange(80) * np.pi / 8))
    write_mrc(folder / "smooth.mrc", waves.astype("f4"), 2.0, "x")
    return folder / "smooth.mrc"


def missing(folder):
    return folder / "none.mrc"


BAD = [
    (empty, "is empty"),
    (truncated_mrc, "cut off.*copy it again"),
    (truncated_tiff, "cut off|damaged|cannot read"),
    (damaged_tiff, "frame 2 cannot be read"),
    (text, "text file"),
    (random_bytes, "MRC"),
    (one_row, "32 to"),
    (tiny_frames, "16 x 16 pixels"),
    (four_dimensions, "4 dimensions"),
    (colour, "colour"),
    (all_zero, "all 3 frames are bad .*all pixels 0"),
    (constant, "all 1 frames are bad .*all pixels 7"),
    (infinite, "NaN or infinite"),
    (no_pixel_size, "pixel size missing.*--pixel-size"),
    (filtered, "no noise"),
    (missing, "does not exist"),
]


def test_every_bad_file_is_named_and_the_good_ones_are_finished(enhance, data, good, tmp_path):
    bad = [(make(data), match) for make, match in BAD]
    paths = [p for p, _ in bad]
    write_tiff(data / "last.tif", make_frames(2, seed=5), 2.0)
    code, out, err = enhance(*paths[:9], good, *paths[9:], data / "last.tif")
    assert code == 1
    micrographs = tmp_path / "out" / "micrographs"
    whole = {
        f"{n}{w}" for n in ("good", "last") for w in ("_aligned.mrc", "_enhanced.mrc", ".star")
    }
    assert {p.name for p in micrographs.iterdir()} == whole
    assert f"2 done, 0 already there, {len(bad)} failed" in err
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == len(bad) == sum("FAILED" in line for line in out.splitlines())
    for (path, match), line in zip(bad, failed, strict=True):
        assert str(path) in line, line
        assert re.search(match, line), line
    records = {
        r["name"]: r
        for r in json.loads((tmp_path / "out" / "provenance.json").read_text())["movies"]
    }
    assert {n for n, r in records.items() if r["status"] == "done"} == {"good", "last"}
    assert all(r["error"] for n, r in records.items() if n not in ("good", "last"))
    table = json.loads((tmp_path / "out" / "provenance.json").read_text())["failures"]
    assert set(table) == {str(p) for p in paths} and all(
        path in error for path, error in table.items()
    )


def test_bad_frames_are_left_out_and_named(enhance, data):
    code, out, err = enhance(one_frame_constant(data), not_a_number(data))
    assert code == 0, err
    first, second = out.split("[2/2]")
    assert re.search(r"note: .*frame.* 2 .*all pixels 5", first), first
    assert re.search(r"note: .*frame.* 3 .*1 pixels NaN", second), second


def test_only_bad_files(enhance, data, tmp_path):
    code, out, _ = enhance(text(data), "--json")
    assert code == 1
    record = json.loads(out)
    assert (
        record["status"] == "failed"
        and "text file" in record["error"]
        and "\n" not in record["error"]
    )
    assert not list((tmp_path / "out").rglob("*.mrc"))


def test_a_bad_file_is_tried_again_once_it_is_mended(enhance, data, tmp_path):
    path = truncated_mrc(data)
    assert enhance(path)[0] == 1
    write_mrc(path, make_frames(), 2.0, "x", stack=True)
    assert enhance(path)[0] == 0
    (record,) = json.loads((tmp_path / "out" / "provenance.json").read_text())["movies"]
    assert record["status"] == "done" and "error" not in record


def refused(result, *words):
    """Exit code 2 and one line on standard error that says what is wrong."""
    code, _, err = result
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2, err
    assert len(lines) == 1, err
    for word in words:
        assert word in lines[0], err


def test_output_that_is_a_file(enhance, good, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, err = enhance(good, out=tmp_path / "file")
    assert (
        code == 2
        and err.splitlines()[-1].startswith("dstnet: error:")
        and "is a file, not a folder" in err.splitlines()[-1]
    )
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "micrographs").write_text("mine")
    code, _, err = enhance(good)
    assert code == 2 and "is a file, not a folder" in err.splitlines()[-1]


@pytest.mark.parametrize("text", ["3", "0:2", "5:3", "a:b", "1:2:3", "-1:2", "1.5:2"])
def test_bad_frame_range(enhance, good, text):
    refused(enhance(good, f"--frame-range={text}"), repr(text), "A:B")


def test_frame_range_beyond_the_movie(enhance, good):
    code, _, err = enhance(good, "--frame-range", "2:9")
    assert code == 1 and "has frames 1 to 3" in err and "2 to 9" in err


def test_a_folder_without_movies(enhance, good, data):
    (data / "sub").mkdir()
    refused(enhance(good, data / "sub"), "no movie lies in the folder", str(data / "sub"))


def test_unknown_model(capsys, good, tmp_path):
    refused(
        dstnet(capsys, "enhance", good, "-o", tmp_path / "out", "-m", "nonesuch"),
        "no model 'nonesuch'",
        "released",
    )
    assert not (tmp_path / "out").exists()


def test_damaged_model(enhance, good, model):
    model.write_bytes(model.read_bytes()[:-1])
    refused(enhance(good), "tiny.safetensors", "truncated or changed")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("tile: [", ["cannot read settings"]),
        ("- 1\n- 2\n", ["holds no settings"]),
        ("tiles: 256\n", ["tiles", "allowed names here", "tile"]),
        ("tile: 5\n", ["tile", "128", "5"]),
        ("tile: big\n", ["tile", "big"]),
        ("alignment: {speed: 3}\n", ["alignment.speed"]),
        ("tile: 130\noverlap: 129\n", ["overlap 129", "tile 128"]),
        ("\udcff\udcfe", ["cannot read settings"]),
    ],
)
def test_bad_settings_file(enhance, good, tmp_path, content, words):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    refused(enhance(good, "--settings", path), *words)


def test_settings_file_that_is_not_there(enhance, good, tmp_path):
    refused(
        enhance(good, "--settings", tmp_path / "none.yaml"), "none.yaml", "cannot read settings"
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--colour", "red"], "--colour"),
        (["--tile", "many"], "many"),
        (["--pixel-size", "wide"], "wide"),
        (["--tile", "5"], "tile"),
        (["--groups", "0"], "groups"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_bad_option(capsys, good, model, tmp_path, arguments, word):
    device = [] if "--device" in arguments else ["--device", "cpu"]
    code, out, err = dstnet(
        capsys, "enhance", good, "-o", tmp_path / "out", "-m", model, *device, *arguments
    )
    assert code == 2 and word in out + err
    assert not (tmp_path / "out" / "micrographs").exists()


def test_nothing_given(capsys, tmp_path):
    for arguments in (
        ["enhance"],
        ["enhance", "a.mrc"],
        ["enhance", "-o", tmp_path / "out"],
        ["paint"],
        ["simulate"],
        ["train"],
    ):
        code, out, err = dstnet(capsys, *arguments)
        assert code == 2 and (out + err).strip(), arguments


@pytest.mark.parametrize("option", [("--pixel-size", "0"), ("--pixel-size", "-1")])
def test_impossible_pixel_size(enhance, good, option):
    code, _, err = enhance(good, *option)
    assert code == 2 and "--pixel-size is" in err


def test_other_settings_into_the_same_folder(enhance, good, tmp_path):
    assert enhance(good)[0] == 0
    before = (tmp_path / "out" / "provenance.json").read_bytes()
    code, _, err = enhance(good, "--groups", "2")
    assert (
        code == 2
        and "other settings" in err.splitlines()[-1]
        and "--overwrite" in err.splitlines()[-1]
    )
    assert (tmp_path / "out" / "provenance.json").read_bytes() == before
    assert enhance(good, "--groups", "2", "--overwrite")[0] == 0


@pytest.mark.parametrize(
    "option", [("--pixel-size", "3"), ("--dose-per-frame", "5"), ("--frame-range", "1:2")]
)
def test_results_of_other_movie_options_are_not_passed_off(enhance, good, option):
    """Refused, or made again, but never "already there": the files there are not what was asked
    for.
    """
    assert enhance(good, "--dose-per-frame", "1")[0] == 0
    code, out, _ = (
        enhance(good, "--dose-per-frame", "1", *option)
        if "dose" not in option[0]
        else enhance(good, *option)
    )
    assert code == 2 or "already there" not in out


@pytest.mark.parametrize(
    "option",
    [
        "--dose-per-frame=-1",
        "--dose-per-frame=0",
        "--pre-exposure=-5",
        "--voltage=-300",
        "--voltage=nan",
    ],
)
def test_impossible_exposure_and_voltage(enhance, good, tmp_path, option):
    dose = [] if "dose" in option else ["--dose-per-frame", "2"]
    code, _, err = enhance(good, *dose, option)
    said = err.replace(str(tmp_path), "")  # the folder has this test's name
    assert code in (1, 2) and any(word in said for word in ("exposure", "dose", "voltage"))


def test_other_weights_into_the_same_folder(enhance, good, tmp_path, model):
    assert enhance(good)[0] == 0
    save_model(model.parent, seed=1)
    code, _, err = enhance(good)
    assert code == 2 and "weights_sha256" in err


class Full:
    """An image stack at whose second frame the disk is full."""

    def __init__(self, image):
        self.image, self.shape = image, (2, *image.shape)

    def __getitem__(self, index):
        if index:
            raise OSError(28, "No space left on device")
        return self.image


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_write_that_fails_leaves_nothing_half_done(enhance, good, tmp_path, monkeypatch, number):
    """The disk fills up within output `number`: of this movie there is nothing, and the next run
    makes it.
    """
    real, written = process.write_mrc, []

    def write(path, array, *arguments, **options):
        if len(written) == number:
            array, options = Full(array), {"stack": True}
        real(path, array, *arguments, **options)
        written.append(path)

    monkeypatch.setattr(process, "write_mrc", write)
    code, _, err = enhance(good, "--dose-per-frame", "2")
    assert (
        code == 2
        and "No space left" in err.splitlines()[-1]
        and "free some space" in err.splitlines()[-1]
    )
    left = [p for p in (tmp_path / "out" / "micrographs").rglob("*") if p.is_file()]
    assert not left and len(written) == number
    monkeypatch.undo()
    code, _, err = enhance(good, "--dose-per-frame", "2")
    assert code == 0 and "1 done" in err


def test_an_overwrite_that_fails_keeps_the_old_result(enhance, good, tmp_path, monkeypatch):
    assert enhance(good)[0] == 0
    path = tmp_path / "out" / "micrographs" / "good_aligned.mrc"
    before = path.read_bytes()
    monkeypatch.setattr("dstnet.io.atomic.os.replace", _no_space)
    code, _, err = enhance(good, "--overwrite")
    assert code == 2 and "No space left" in err
    assert path.read_bytes() == before


def _no_space(*_arguments):
    raise OSError(28, "No space left on device")


def test_out_of_memory_is_one_inputs_failure(enhance, good, data, monkeypatch):
    real = NetworkRestorer.__call__

    def call(self, aligned, **options):
        if "good" in aligned.movie.name:
            raise MemoryError("9 GB")
        return real(self, aligned, **options)

    monkeypatch.setattr(NetworkRestorer, "__call__", call)
    write_mrc(data / "other.mrc", make_frames(1), 2.0, "x", stack=True)
    code, _, err = enhance(good, data / "other.mrc")
    assert (
        code == 1
        and "good.mrc: out of memory (9 GB); pass a smaller --tile" in err
        and "1 done" in err
    )


def test_a_refusal_does_not_forget_how_the_results_were_made(enhance, good, tmp_path):
    """Asked twice for other values, the finished result is refused twice, and the first command
    still finds it whole.
    """
    assert enhance(good, "--dose-per-frame", "1")[0] == 0
    result = tmp_path / "out" / "micrographs" / "good_enhanced.mrc"
    before = result.read_bytes()
    for _ in range(2):
        assert enhance(good, "--dose-per-frame", "5")[0] == 1
    assert result.read_bytes() == before
    code, out, _ = enhance(good, "--dose-per-frame", "1")
    assert code == 0 and "already there" in out


@pytest.mark.slow
def test_sigterm_leaves_results_on_record_and_nothing_half_done(capsys, tmp_path):
    """As a batch system ends a job: workers end, the tables are written, a rerun goes on."""
    for number in range(6):
        frames = make_frames(24, (256, 256), seed=number)
        write_mrc(tmp_path / f"m{number}.mrc", frames, 2.0, "x", stack=True)
    out = tmp_path / "out"
    arguments = ["align", *sorted(tmp_path.glob("*.mrc")), "-o", out, "--device", "cpu"]
    program = [sys.executable, "-c", "from dstnet.cli import main; main()"]
    command = [*program, *arguments, "-j", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().startswith("[1/6]")
    process.terminate()
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGTERM
    stored = json.loads((out / "provenance.json").read_text())
    assert 1 <= len(stored["movies"]) < 6
    assert len(starfile.read(out / "micrographs.star")["micrographs"]) == len(stored["movies"])
    assert not list(out.rglob(".*")), "no hidden file"
    code, _, err = dstnet(capsys, *arguments)
    assert code == 0 and "0 failed" in err, err


def test_closed_output_stops_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as left:
        main(["models"])
    sys.stdout.close()
    sys.stderr.close()
    assert left.value.code == 0


def test_output_on_a_full_disk_is_said_in_one_line(monkeypatch, capsys):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SystemExit) as left:
        main(["models"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("dstnet: error: cannot write what is printed: No space left")
    assert said.count("\n") == 1
