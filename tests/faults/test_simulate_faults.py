"""What cannot be simulated is refused in one line before any long work, and nothing half-written is
left looking whole.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import starfile
import yaml
from tiny import dstnet

from dstnet.dataset import SimulatedMovie, generate, plan
from dstnet.io import open_movie

SMALL = {
    "--shape": ["128", "128"],
    "--pixel-size": ["4"],
    "--frames": ["2"],
    "--dose-per-frame": ["1"],
}
ATOM = "ATOM  {0:5d}  CA  {1:3s} A{2:4d}    {3:8.3f}{4:8.3f}{5:8.3f}  1.00 20.00          {6:>2s}\n"


@pytest.fixture
def simulate(capsys, tmp_path):
    def run(*arguments, out="out", small=True):
        """For a movie made in no time, where `arguments` do not say otherwise."""
        short = [
            word
            for name, values in SMALL.items()
            if small and name not in arguments
            for word in (name, *values)
        ]
        return dstnet(
            capsys, "simulate", "-o", tmp_path / out, "--device", "cpu", *short, *arguments
        )

    return run


@pytest.fixture
def refused(simulate, tmp_path, monkeypatch):
    """Exit code 2, one line with `words`, before any work and with nothing written; a dry run
    refuses it in the same words.
    """

    def run(*arguments, words=(), **options):
        with monkeypatch.context() as patch:
            patch.setattr(generate, "MovieSimulator", None)  # not even begun
            lines = []
            for more in ([], ["--dry-run"]):
                code, text, err = simulate(*arguments, *more, **options)
                assert code == 2, err
                said = (err or text).strip().splitlines()
                assert len(said) == 1 and said[0].startswith("dstnet: error: "), said
                for word in words:
                    assert word in said[0], said
                lines.append(said[0])
            assert lines[0] == lines[1]
        assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
        return lines[0]

    return run


def chain(path, atoms, element="C", spacing=3.8, remarks=""):
    """A PDB file of a coil of `atoms` atoms."""
    places = ((i % 10 * spacing, i // 10 % 10 * spacing, i // 100 * spacing) for i in range(atoms))
    rows = [ATOM.format(i + 1, "ALA", i + 1, *place, element) for i, place in enumerate(places)]
    path.write_text(remarks + "".join(rows) + "END\n")
    return path


def test_unknown_element(refused, tmp_path):
    refused(chain(tmp_path / "odd.pdb", 20, "Xx"), words=("odd.pdb", "unknown element"))


def test_empty_structures(refused, tmp_path):
    (tmp_path / "nothing.pdb").write_text("")
    refused(tmp_path / "nothing.pdb", words=("nothing.pdb", "empty"))
    (tmp_path / "title.pdb").write_text("HEADER    NO ATOMS\nEND\n")
    refused(tmp_path / "title.pdb", words=("title.pdb", "no atoms"))


def test_a_bad_structure_among_good_ones(refused, tmp_path):
    refused("phantom:1", tmp_path / "none.cif", words=("none.cif", "no such structure"))


@pytest.mark.parametrize(
    "name", ["phantom:-1", "phantom:x", "phantom:", "pdb:", "pdb:12", "nonesuch"]
)
def test_names_that_are_no_structure(refused, name):
    refused(name, words=(name.removeprefix("pdb:"),))


def test_structure_larger_than_the_field(refused, tmp_path):
    refused(
        chain(tmp_path / "giant.pdb", 500, spacing=60.0),
        words=("giant is 8", "Å wide", "field 512 Å", "shape x pixel size"),
    )


def test_structure_that_needs_too_large_a_box(refused):
    refused(
        "--pixel-size",
        "0.1",
        "--shape",
        "4096",
        "4096",
        words=("phantom0", "box", "larger pixel size"),
    )


def test_assembly_of_1680_copies(refused, tmp_path):
    """A few thousand atoms, and millions by their assembly: refused by number, before they fill the
    memory.
    """
    rows = ["REMARK 350 BIOMOLECULE: 1\n", "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A\n"]
    for i in range(1680):
        for axis in range(3):
            matrix = [f"{float(axis == j):10.6f}" for j in range(3)]
            rows.append(
                f"REMARK 350   BIOMT{axis + 1} {i + 1:3d} {''.join(matrix)}    "
                f" {float(i if axis == 0 else 0):10.5f}\n"
            )
    path = chain(tmp_path / "capsid.pdb", 3000, remarks="".join(rows))
    started = time.monotonic()
    refused(path, words=("capsid.pdb", "5040000 atoms", "5000000"))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "crowding", [{"coverage": 0.9}, {"coverage": 50, "gap_angstrom": -40}, {"coverage": -0.1}]
)
def test_impossible_crowding(refused, tmp_path, crowding):
    (tmp_path / "crowd.yaml").write_text(yaml.safe_dump({"specimen": crowding}))
    refused("--settings", tmp_path / "crowd.yaml", words=("crowd.yaml", "coverage"))


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--dose-per-frame", "0", "exposure_e_per_a2"),
        ("--dose-per-frame", "-1", "exposure_e_per_a2"),
        ("--pixel-size", "0", "pixel_size_angstrom"),
        ("--pixel-size", "-1.5", "pixel_size_angstrom"),
        ("--frames", "0", "frames"),
    ],
)
def test_impossible_numbers(refused, option, value, word):
    refused(option, value, words=(word, "greater than"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--movies", "0"],
        ["--workers", "0"],
        ["--seed", "-1"],
        ["--format", "eer"],
        ["--shape", "128"],
    ],
)
def test_impossible_options(simulate, tmp_path, arguments):
    code, out, err = simulate(*arguments)
    assert code == 2 and arguments[0] in out + err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            {"vary": {"optics.defocus": [1, 2]}},
            ["'defocus'", "allowed names here", "defocus_angstrom"],
        ),
        ({"vary": {"optic.defocus_angstrom": [1, 2]}}, ["'optic'", "optics"]),
        ({"vary": {"frames.first": [1, 2]}}, ["frames", "'first'"]),
        ({"vary": {"frames": [3, 2]}}, ["frames", "[low, high]"]),
        ({"vary": {"frames": [1.5, 2]}}, ["frames", "whole"]),
        ({"vary": {"frames": [0, 2]}}, ["frames", "greater than or equal to 1"]),
        ({"vary": {"specimen.coverage": [0.2, 0.99]}}, ["specimen", "coverage"]),
        ({"vary": {"detector": [0, 1]}}, ["detector", "choices"]),
        ({"vary": {"detector": {"choices": ["k3", "k9"]}}}, ["k9", "k3"]),
        (
            {"vary": {"detector": {"choices": ["k3"]}, "detector.binning": [1, 2]}},
            ["detector.binning", "leave one out"],
        ),
        ({"vary": {"frames": {"choices": []}}}, ["frames", "choices"]),
        ({"vary": {"frames": 3}}, ["frames"]),
        ({"settings": {"frame": 3}}, ["settings.frame"]),
        ({"colour": "red"}, ["colour", "allowed names here", "structures"]),
        ({"movies": 0}, ["movies"]),
        ({"structures": ["gone.pdb"]}, ["gone.pdb"]),
    ],
)
def test_bad_recipes(refused, tmp_path, recipe, words):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(recipe))
    refused("--recipe", tmp_path / "bad.yaml", words=words, small=False)


def test_recipes_that_are_none(refused, tmp_path):
    refused("--recipe", "nonesuch", words=("nonesuch", "diverse", "flat-field", "YAML"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    refused("--recipe", tmp_path / "list.yaml", words=("list.yaml",))
    refused(
        "--recipe",
        "diverse",
        "--settings",
        tmp_path / "list.yaml",
        words=("--recipe", "--settings"),
    )


def test_folder_that_cannot_be_written(refused, simulate, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    refused(out="file", words=("is a file, not a folder",))
    refused(out="file/below", words=("is a file, not a folder",))
    assert (tmp_path / "file").read_text() == "mine"
    with monkeypatch.context() as patch:
        patch.setattr(
            plan.os, "access", lambda path, mode: False
        )  # permission bits mean nothing where the tests are root's
        refused(words=("no permission", "that you may write to"))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "truth").write_text("mine")
    code, _, err = simulate(out="half")
    assert (
        code == 2
        and "is a file, not a folder" in err
        and not list((tmp_path / "half" / "movies").iterdir())
    )


def test_too_little_space_shows_in_the_plan(refused, simulate, monkeypatch):
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as patch:
        patch.setattr(plan.shutil, "disk_usage", lambda path: usage._replace(free=50 << 20))
        refused(words=("0.05 GB free", "are needed", "free some space"))
    assert simulate()[0] == 0
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda path: usage._replace(free=0))
    assert simulate()[0] == 0, "what is there already needs no space"


@pytest.mark.parametrize("number", range(8))
def test_a_disk_that_fills_up_leaves_nothing_half_done(simulate, tmp_path, monkeypatch, number):
    """The `number`-th file of the second movie meets a full disk: the first one is whole, the
    second not there, the next run makes it.
    """
    real, count = os.replace, iter(range(1000))
    assert simulate()[0] == 0

    def replace(source, target):
        if next(count) >= number:
            raise OSError(28, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("dstnet.io.atomic.os.replace", replace)
        code, _, err = simulate("--movies", "2")
    records = sorted(p.name for p in (tmp_path / "out" / "truth").glob("*_settings.yaml"))
    if code == 0:
        pytest.skip("a movie has fewer files than that")
    assert (
        code == 2
        and "No space left" in err.splitlines()[-1]
        and "free some space" in err.splitlines()[-1]
    )
    listed = starfile.read(tmp_path / "out" / "movies.star", always_dict=True)["movies"][
        "rlnMicrographMovieName"
    ]
    assert len(listed) == 1 and len(records) <= 2
    assert not list((tmp_path / "out").rglob(".*")), "no hidden file"
    code, _, err = simulate("--movies", "2")
    assert code == 0 and f"{2 - len(records)} made, {len(records)} already there" in err
    assert len(open_movie(tmp_path / "out" / "movies" / "phantom0_D7_00001.tif")) == 2


def test_a_movie_that_cannot_be_made_is_named_and_the_others_finished(
    simulate, tmp_path, monkeypatch
):
    real = SimulatedMovie.write

    def write(movie, *rest, **more):
        if movie.record.seed == 1:
            raise MemoryError("9 GB")
        return real(movie, *rest, **more)

    monkeypatch.setattr(SimulatedMovie, "write", write)
    code, out, err = simulate("--movies", "3")
    assert code == 1 and "2 made, 0 already there, 1 failed" in err
    assert (
        "FAILED phantom0_D7_00001: out of memory (9 GB); use fewer workers" in out.splitlines()[1]
    )


@pytest.mark.slow
def test_kill_9_in_the_middle(simulate, tmp_path):
    """The whole program is killed while it writes; run again, it finishes, and all is as if made at
    once.
    """
    larger = ["--movies", "3", "--shape", "384", "384", "--pixel-size", "4", "--frames", "24"]
    program = [sys.executable, "-c", "from dstnet.cli import main; main()", "simulate"]
    process = subprocess.Popen(
        [*program, "--device", "cpu", *larger, "-o", tmp_path / "out"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    truth, movies = tmp_path / "out" / "truth", tmp_path / "out" / "movies"
    until = time.monotonic() + 150
    while process.poll() is None and time.monotonic() < until:
        if list(truth.glob("*_settings.yaml")) and list(movies.glob(".*.tif")):
            break  # one is whole, another in the making
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    whole = [p.name.removesuffix("_settings.yaml") for p in truth.glob("*_settings.yaml")]
    assert 1 <= len(whole) < 3
    assert all(len(open_movie(movies / f"{name}.tif")) == 24 for name in whole)
    for folder in ("out", "at-once"):
        code, _, err = simulate(*larger, small=False, out=folder)
        assert code == 0, err
    names = {p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert names == {
        p.relative_to(tmp_path / "at-once")
        for p in (tmp_path / "at-once").rglob("*")
        if p.is_file()
    }
    assert all(
        (tmp_path / "out" / name).read_bytes() == (tmp_path / "at-once" / name).read_bytes()
        for name in names
    )
