"""A result belongs to its input: names, records and tables never give one movie's sum to another,
whatever the movies are called.
"""

import html.parser
import json
import os
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from tiny import dstnet, make_frames

from dstnet.io import write_mrc

pytestmark = pytest.mark.usefixtures("in_tmp_path")
SHAPE = (48, 40)


def movie(path, seed=0, mean=20.0):
    """Write a movie of two frames; its sum's mean is twice `mean` times the seed."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    frames = make_frames(2, SHAPE, seed=seed, mean=mean)
    write_mrc(Path(path), frames, 2.0, "x", stack=True)
    return float(frames.sum(0, dtype=np.float64).mean())


def total(name):
    with mrcfile.open(f"out/micrographs/{name}_aligned.mrc") as file:
        return float(file.data.mean(dtype=np.float64))


def provenance():
    return json.loads(Path("out/provenance.json").read_text())


def table():
    """Sum and movie of each row."""
    found = starfile.read("out/micrographs.star")["micrographs"]
    return dict(zip(found["rlnMicrographName"], found["rlnMicrographMovieName"], strict=True))


@pytest.fixture
def align(capsys):
    def run(*arguments):
        return dstnet(
            capsys,
            "align",
            *arguments,
            "-o",
            "out",
            "-d",
            "cpu",
            "--patches",
            "0",
            "--threads",
            "1",
        )

    return run


def test_two_places_one_after_the_other(align):
    """Also a folder that comes later, and one outside the working folder."""
    expected = {}
    for seed, place in enumerate(("sq1", "sq2", "../disk/sq1")):
        expected[place] = movie(f"work/{place}/hole_0001.mrc", seed, 10.0 * (1 + seed))
    os.chdir("work")
    for place in expected:
        code, out, err = align(place)
        assert code == 0 and "1 done" in err, out + err
    code, out, err = align("sq1", "sq2", "../disk/sq1", "sq1/hole_0001.mrc")
    assert code == 0 and "3 already there" in err
    of_movie = {os.path.relpath(m): sum_ for sum_, m in table().items()}
    assert set(of_movie) == {f"{place}/hole_0001.mrc" for place in expected}
    for place, mean in expected.items():
        with mrcfile.open(of_movie[f"{place}/hole_0001.mrc"]) as file:
            assert file.data.mean(dtype=np.float64) == pytest.approx(mean, rel=1e-5)


def test_a_replaced_movie_is_made_again(align):
    movie("m/x.mrc", 1)
    assert align("m")[0] == 0
    mean = movie("m/x.mrc", 2, 30.0)
    code, out, err = align("m", "--workers", "1")
    assert code == 0 and "1 done" in err and "made again: its file is not the one" in out
    assert total("m/x") == pytest.approx(mean, rel=1e-5)
    assert "0 done, 1 already there" in align("m")[2]
    # One that cannot be read does not leave the sum of what was there before in the table.
    Path("m/x.mrc").write_bytes(Path("m/x.mrc").read_bytes()[:-100])
    movie("m/y.mrc", 3)
    code, _, _ = align("m")
    assert code == 1 and list(table().values()) == ["m/y.mrc"]
    (record,) = [r for r in provenance()["movies"] if r["input"] == "m/x.mrc"]
    assert record["status"] == "failed" and "files" not in record


def test_two_movies_of_one_name(align):
    """The one that has results keeps them, whatever comes first."""
    mean = movie("m/a.mrcs", 1)
    assert align("m")[0] == 0
    movie("m/a.mrc", 2, 30.0)
    for _ in range(2):
        code, out, err = align("m")
        assert code == 1 and "0 done, 1 already there, 1 failed" in err, out
        assert "failed: m/a.mrc: files of its results would have the names of those of" in err
        assert "m/a.mrcs; pass --overwrite" in err
        assert total("m/a") == pytest.approx(mean, rel=1e-5)
        assert table() == {"out/micrographs/m/a_aligned.mrc": "m/a.mrcs"}
        stored = provenance()
        assert list(stored["failures"]) == ["m/a.mrc"] and len(stored["movies"]) == 2
    code, _, err = align("m", "--overwrite")
    assert (
        code == 1
        and "m/a.mrcs: files of its results would have the names of those of m/a.mrc; rename" in err
    )
    assert table() == {"out/micrographs/m/a_aligned.mrc": "m/a.mrc"}
    code, _, err = align("m/a.mrc")
    assert code == 0 and "1 already there" in err


def test_a_movie_that_failed_holds_no_name(align):
    Path("a.mrc").write_bytes(b"no movie")
    assert align("a.mrc")[0] == 1
    movie("a.mrcs", 1)
    assert align("a.mrcs")[0] == 0 and list(table().values()) == ["a.mrcs"]


def test_a_movie_called_as_an_output_of_another(capsys):
    movie("a.mrc", 1)
    movie("a_enhanced.mrc", 2)
    run = ("enhance", ".", "-o", "out", "-d", "cpu", "--model", "wiener", "--patches", "0")
    assert dstnet(capsys, *run)[0] == 0
    code, _, err = dstnet(capsys, *run, "--halves", "--overwrite")
    assert code == 1 and "1 done" in err
    assert "a_enhanced.mrc: files of its results would have the names of those of a.mrc" in err
    # So it is where the other has come before.
    code, _, err = dstnet(capsys, *run, "--halves", "--overwrite")
    assert code == 1 and "1 done" in err and "those of" in err


def test_a_moved_project_goes_on(align, tmp_path, monkeypatch):
    movie("here/Movies/a.mrc", 1)
    monkeypatch.chdir("here")
    assert align("Movies")[0] == 0
    monkeypatch.chdir(tmp_path)
    os.rename("here", "there")
    monkeypatch.chdir("there")
    code, _, err = align("Movies", "--cs", "2.7")
    assert code == 0 and "1 already there" in err
    assert table() == {"out/micrographs/Movies/a_aligned.mrc": "Movies/a.mrc"}
    assert provenance()["movies"][0]["path"] == f"{tmp_path}/there/Movies/a.mrc"
    # A copy beside the first project is another movie.
    monkeypatch.chdir(tmp_path)
    shutil.copytree("there", "copy")
    monkeypatch.chdir("copy")
    code, _, err = align("Movies")
    assert code == 1 and f"those of {tmp_path}/there/Movies/a.mrc" in err


def test_a_movie_by_two_names_is_listed_once(align):
    movie("work/Movies/a.mrc", 1)
    os.symlink("Movies", "work/link")
    os.chdir("work")
    assert align("Movies")[0] == 0
    assert align("link")[0] == 0
    assert table() == {"out/micrographs/link/a_aligned.mrc": "link/a.mrc"}
    assert len(provenance()["movies"]) == 1
    assert "0 done, 1 already there" in align("Movies")[2]
    assert table() == {"out/micrographs/Movies/a_aligned.mrc": "Movies/a.mrc"}


def test_what_only_concerns_the_table_is_written_anew(align):
    movie("a.mrc", 1)
    assert align("a.mrc")[0] == 0

    def optics():
        return starfile.read("out/micrographs.star")["optics"].to_dict("records")[0]

    assert "rlnSphericalAberration" not in optics()
    code, _, err = align("a.mrc", "--cs", "2.7", "--amplitude-contrast", "0.1")
    assert code == 0 and "1 already there" in err and "--cs" not in err
    assert (optics()["rlnSphericalAberration"], optics()["rlnAmplitudeContrast"]) == (2.7, 0.1)
    assert align("a.mrc", "--cs", "1.4")[0] == 0
    assert (optics()["rlnSphericalAberration"], optics()["rlnAmplitudeContrast"]) == (1.4, 0.1)
    star = (
        "data_\nloop_\n_rlnMicrographMovieName #1\n_rlnVoltage #2\n_rlnSphericalAberration #3\n"
        "a.mrc 300 {}\n"
    )
    for aberration in (0.01, 2.0):
        Path("m.star").write_text(star.format(aberration))
        assert "0 done, 1 already there" in align("m.star")[2]
        assert optics()["rlnSphericalAberration"] == aberration
    code, _, err = align("a.mrc", "--voltage", "200")
    assert code == 1 and "made with other voltage; pass --overwrite" in err
    assert align("a.mrc", "--frame-range", "1:1", "--overwrite")[0] == 0
    code, _, err = align("a.mrc", "--frame-range", "2:2")
    assert code == 1 and "made with other frames; pass --overwrite" in err


def test_a_reference_of_the_same_name_is_looked_at(align):
    """A gain that a STAR file names, and motion that is taken over."""
    movie("a.mrc", 1)
    write_mrc(Path("gain.mrc"), np.ones(SHAPE, "f4"), 2.0, "x")
    Path("m.star").write_text(
        "data_\nloop_\n_rlnMicrographMovieName #1\n_rlnMicrographGainName #2\na.mrc gain.mrc\n"
    )
    assert align("m.star")[0] == 0
    os.utime("gain.mrc")
    assert "0 done, 1 already there" in align("m.star")[2]
    write_mrc(Path("gain.mrc"), np.full(SHAPE, 2, "f4"), 2.0, "x")
    code, _, err = align("m.star")
    assert code == 1 and "made with other gain; pass --overwrite" in err
    assert align("m.star", "--overwrite")[0] == 0 and align("m.star")[0] == 0
    shutil.copytree("out/micrographs", "motion")
    assert align("m.star", "--motion-from", "motion", "--overwrite")[0] == 0
    shutil.copytree("motion", "copy")
    assert "0 done, 1 already there" in align("m.star", "--motion-from", "copy")[2]
    os.mkdir("other")
    tables = starfile.read("motion/a.star", always_dict=True)
    tables["global_shift"].loc[1, "rlnMicrographShiftX"] += 3
    starfile.write(tables, "other/a.star")
    code, _, err = align("m.star", "--motion-from", "other")
    assert code == 1 and "made with other motion; pass --overwrite" in err


class Page(html.parser.HTMLParser):
    tags: set[str]

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)


NAMES = (
    b"plain",
    b"b_1\xb5m",
    b"new\nline\ttab\x1b[31m",
    b"<script>alert(1)<",
    b"-dash",
    b"@at",
    b"[odd]*?",
    b"dots..",
    b"data_x",
    b"loop_",
    b"_rln",
    b"x" * 251,
)
NAMES_THAT_TABLES_CANNOT_HOLD = (b"two words", b"it's", b'say "x"', b"#3", b"back\\slash")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_any_name_works(align, capsys, encoding):
    names = [*NAMES, *NAMES_THAT_TABLES_CANNOT_HOLD]
    movie("one.mrc", 1)
    Path("Movies").mkdir()
    for name in names:
        shutil.copy("one.mrc", os.path.join(b"Movies", name + b".mrc"))
    capsys._capture.out.tmpfile.reconfigure(encoding=encoding)
    code, out, err = align("Movies")
    assert code == 0, err
    assert len(list(Path("out/micrographs/Movies").glob("*_aligned.mrc"))) == len(names)
    lines = [line for line in out.splitlines() if not line.startswith("    note: ")]
    assert len(lines) == len(names)
    assert all(line.isprintable() for line in (out + err).splitlines())
    assert f"leaves out {len(NAMES_THAT_TABLES_CANNOT_HOLD)} of them" in err
    assert set(table()) == {
        f"out/micrographs/Movies/{name}_aligned.mrc"
        for name in (
            "plain", "b_1%B5m", "new%0Aline%09tab%1B[31m", "<script>alert(1)<", "-dash", "@at",
            "[odd]*?", "dots..", "data_x", "loop_", "_rln",
            next(p.name[:220] for p in Path("out/micrographs/Movies").glob("xxx*_aligned.mrc")),
        )
    }  # fmt: skip
    assert {r["path"] for r in provenance()["movies"]} == {
        os.path.abspath(os.fsdecode(b"Movies/" + name + b".mrc")) for name in names
    }
    page = Page()
    page.tags = set()
    page.feed(Path("out/report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags and "td" in page.tags
    assert f"0 done, {len(names)} already there" in align("Movies")[2]
    # Their motion is found again, and a bad file of such a name is an error of its own.
    Path(os.fsdecode(b"Movies/b_1\xb5m.mrc")).write_bytes(b"")
    code, out, err = align("Movies", "--motion-from", "out", "--overwrite", "--json")
    assert code == 1 and r"failed: Movies/b_1\xb5m.mrc is empty" in err
    assert len([json.loads(line) for line in out.splitlines()]) == len(names)


@pytest.mark.parametrize(
    "folder", ["data_x", "loop_", "_rln", "#1", b"\xb5\n".decode("utf-8", "surrogateescape")]
)
def test_folders_of_any_name(capsys, folder):
    """Tables in the folder of a run stay readable; where they cannot hold its name, they are told
    to be left out.
    """
    movie(Path(folder) / "a.mrc", 1)
    run = ("align", folder, "-o", folder, "-d", "cpu", "--patches", "0", "--threads", "1")
    code, _, err = dstnet(capsys, *run)
    assert code == 0, err
    assert "0 done, 1 already there" in dstnet(capsys, *run)[2]
    star = Path(folder) / "micrographs.star"
    if folder in ("data_x", "loop_", "_rln"):
        found = starfile.read(star)["micrographs"]
        assert Path(found["rlnMicrographName"][0]).is_file()
        assert found["rlnMicrographMovieName"][0] == f"./{folder}/a.mrc"
    else:
        assert not star.exists() and "leaves out 1 of them" in err
