"""Whatever lies under a path that a user gives, and whatever number an option is given: one line
that names it, soon.
"""

import os
import socket
from pathlib import Path

import pytest
from tiny import dstnet, make_frames

from dstnet.errors import BadInputError
from dstnet.io import write_mrc
from dstnet.pipeline.inputs import read_inputs

LIMIT_SECONDS = 20
ALIGN = ("align", "m.mrc", "-o", "out", "-d", "cpu", "--patches", "0")
ENHANCE = ("enhance", "m.mrc", "-o", "out", "-d", "cpu", "--patches", "0")
SIMULATE = ("simulate", "-o", "out", "-d", "cpu", "--shape", "64", "64", "--frames", "2")
TRAIN = ("train", "-o", "out", "-d", "cpu", "--steps", "1")
ADAPT = ("adapt", "m.mrc", "-o", "out", "-d", "cpu", "--patches", "0")
# What is called with the path at its end, and what the file is called.
ARGUMENTS = [
    (("align", "-o", "out", "-d", "cpu"), "x.mrc"),
    (("align", "-o", "out", "-d", "cpu"), "x.tif"),
    (("align", "-o", "out", "-d", "cpu"), "x.eer"),
    (("align", "-o", "out", "-d", "cpu"), "x.mrc.gz"),
    (("align", "-o", "out", "-d", "cpu"), "x.mrc.zst"),
    (("align", "-o", "out", "-d", "cpu"), "x.star"),
    (("align", "-o", "out", "-d", "cpu"), "@x.txt"),
    ((*ALIGN, "--gain"), "x.mrc"),
    ((*ALIGN, "--gain"), "x.dm4"),
    ((*ALIGN, "--dark"), "x.tif"),
    ((*ALIGN, "--defects"), "x.txt"),
    ((*ALIGN, "--defects"), "x.mrc"),
    ((*ALIGN, "--motion-from"), "x.star"),
    ((*ALIGN, "--settings"), "x.yaml"),
    ((*ENHANCE, "--settings"), "x.yaml"),
    ((*ENHANCE, "--model"), "x.safetensors"),
    (("align", "m.mrc", "-d", "cpu", "-o"), "x"),
    (SIMULATE, "x.pdb"),
    (SIMULATE, "x.cif"),
    (SIMULATE, "x.map"),
    ((*SIMULATE, "--recipe"), "x.yaml"),
    ((*SIMULATE, "--settings"), "x.yaml"),
    (("simulate", "-d", "cpu", "-o"), "x"),
    (TRAIN, "x.pdb"),
    ((*TRAIN, "--settings"), "x.yaml"),
    (("train", "-d", "cpu", "--steps", "1", "-o"), "x"),
    (("adapt", "-o", "out", "-d", "cpu"), "x.mrc"),
    ((*ADAPT, "--model"), "x.safetensors"),
    ((*ADAPT, "--settings"), "x.yaml"),
    ((*ADAPT, "--gain"), "x.mrc"),
    (("adapt", "m.mrc", "-d", "cpu", "-o"), "x"),
    (("gain", "check", "--gain", "g.mrc"), "x.mrc"),
    (("gain", "check", "m.mrc", "--gain"), "x.mrc"),
    (("gain", "check", "m.mrc", "--dark"), "x.tif"),
    (("demo", "-d", "cpu", "-o"), "x"),
]


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


KINDS = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "null device": lambda path: path.symlink_to(os.devnull),
    "socket": _socket,
    "folder": Path.mkdir,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "empty": Path.touch,
    "junk": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "one line": lambda path: path.write_bytes(b"a" * 5_000_000),
}
# A folder to write into, or of motion; a camera may have no defects.
ALLOWED = {("-o", "folder"), ("-o", "dangling link"), ("--defects", "empty")}


pytestmark = pytest.mark.usefixtures("time_limit")


@pytest.fixture(autouse=True)
def _movie(in_tmp_path):
    frames = make_frames(2, (48, 40))
    write_mrc(Path("m.mrc"), frames, 2.0, "x", stack=True)
    write_mrc(Path("g.mrc"), frames[0], 2.0, "x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("command", "name"), ARGUMENTS)
def test_every_path_is_refused_in_words(capsys, command, name, kind):
    if (command[-1], kind) in ALLOWED:
        pytest.skip("this is allowed")
    KINDS[kind](Path(name.removeprefix("@")))
    code, out, err = dstnet(capsys, *command, name)
    said = err + out
    assert code in (1, 2)
    assert name.removeprefix("@") in said
    assert "unexpected" not in said and "please report" not in said
    assert code == 1 or err.count("\n") <= 2  # adapt names its movies first
    assert not list(Path().rglob(".*"))


@pytest.mark.parametrize(
    "options",
    [
        *(
            (option, value)
            for option in ("--threads", "--workers", "--watch", "--pixel-size", "--voltage")
            for value in ("-1", "0", "nan", "inf", "1e400", "", "abc")
        ),
        ("--threads", "1.5"),
        ("--threads", "99999999999999999999"),
        ("--workers", "100000"),
        ("--bin", "nan"),
        ("--bin", "1e400"),
        ("--dose-per-frame", "-1"),
        ("--cs", "nan"),
        ("--frame-range", "5"),
        ("--shard", "2/1"),
        ("--watch", "1", "--watch-idle", "nan"),
        ("--watch", "1", "--watch-settle", "inf"),
        ("--nonesuch\x1b[31m\n",),
        ("--gain-rotate", "\x1b[31m\n"),
        ("--gain", "n" * 300),
        ("--gain", ""),
        ("--settings", ""),
        ("--motion-from", ""),
    ],
)
def test_impossible_options_are_one_line(capsys, options):
    first, *rest = options
    code, out, err = dstnet(
        capsys, *ALIGN, *([f"{first}={rest[0]}"] if rest else [first]), *rest[1:]
    )
    assert code == 2 and not out
    assert err.startswith("dstnet: error: ") and err.count("\n") == 1 and err[:-1].isprintable()
    assert not Path("out/micrographs").exists()


def test_links_that_lead_back_are_followed_once():
    folder = Path("a")
    folder.mkdir()
    for number in range(4):
        (folder / f"l{number}").symlink_to(".")
    (folder / "m.mrc").touch()
    assert [str(movie.path) for movie in read_inputs(["a/**/*.mrc"])] == ["a/m.mrc"]
    assert len(read_inputs(["**/*.mrc"])) == 3
    with pytest.raises(BadInputError, match="no file matches"):
        read_inputs(["b/**/*.mrc"])
