"""A run whose references are used the wrong way is refused, or says so."""

import json

import numpy as np
import pytest
from tiny import dstnet

from dstnet.io import write_mrc, write_tiff

SIDE = 96
STAR = """
data_movies

loop_
_rlnMicrographMovieName #1
_rlnMicrographGainName #2
"""


@pytest.fixture
def camera(tmp_path, monkeypatch):
    """Four movies of one camera, its gain, and the same turned by 180 degrees."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    gain = np.exp(0.1 * rng.standard_normal((SIDE, SIDE))).astype(np.float32)
    for name in "abcd":
        write_tiff(f"{name}.tif", rng.poisson(8 / gain, (6, SIDE, SIDE)).astype(np.uint16), 1.5)
    write_mrc("gain.mrc", gain, 1.5, "gain")
    write_mrc("turned.mrc", np.ascontiguousarray(gain[::-1, ::-1]), 1.5, "gain")
    write_mrc("scaled.mrc", 40 * gain, 1.5, "gain")
    return tmp_path


def align(capsys, *words):
    return dstnet(capsys, "align", *words, "-o", "out", "--patches", "0")


def test_nothing_is_written_with_a_wrong_gain(camera, capsys):
    code, _, err = align(capsys, "a.tif", "b.tif", "--gain", "turned.mrc")
    assert code == 2 and "turned.mrc is used the wrong way" in err and "--gain-rotate 180" in err
    assert not (camera / "out").exists()
    code, _, _ = align(capsys, "a.tif", "--gain", "turned.mrc", "--gain-rotate", "180")
    assert code == 0
    # To insist changes no result's record.
    words = ("--gain", "turned.mrc", "--gain-rotate", "180", "--no-check-references")
    code, out, _ = align(capsys, "a.tif", *words)
    assert code == 0 and "already there" in out
    code, _, _ = align(capsys, "a.tif", *words[:2], "--no-check-references", "--overwrite")
    assert code == 0


def test_the_next_movie_tells_where_the_first_cannot_be_read(camera, capsys):
    (camera / "a.tif").write_bytes((camera / "a.tif").read_bytes()[:4000])
    code, _, err = align(capsys, "a.tif", "b.tif", "--gain", "turned.mrc")
    assert code == 2 and "used the wrong way" in err
    code, _, err = align(capsys, "a.tif", "b.tif", "--gain", "gain.mrc")
    assert code == 1 and "1 done" in err


def test_each_gain_of_a_star_file_is_tried(camera, capsys):
    rows = ("a.tif gain.mrc", "b.tif turned.mrc", "c.tif gain.mrc", "d.tif turned.mrc")
    (camera / "movies.star").write_text(STAR + "\n".join(rows) + "\n")
    code, out, err = align(capsys, "movies.star")
    assert code == 1 and "2 done" in err and "2 failed" in err
    assert "b.tif: the gain" in out and "d.tif: the gain" in out
    code, out, _ = dstnet(capsys, "gain", "check", "movies.star")
    verdicts = [line for line in out.splitlines() if line.startswith("gain ")]
    assert [line.split(": ")[1] for line in verdicts] == [
        "fits with no option, it lies as the frames do",
        "fits with --gain-rotate 180",
    ]
    assert code == 0


def test_a_watched_folder_fails_its_movies(camera, capsys):
    words = ("--watch", "1", "--watch-settle", "0", "--watch-idle", "0")
    code, out, err = align(capsys, "*.tif", "--gain", "turned.mrc", *words)
    assert code == 1 and "4 failed" in err and "used the wrong way" in out


def test_a_doubt_is_a_note_of_each_movie(camera, capsys):
    code, out, err = align(capsys, "a.tif", "b.tif", "--gain", "scaled.mrc", "-j", "2")
    said = "the gain scaled.mrc, which frames are multiplied"
    assert code == 0 and f"note: {said}" in out and f"note, of 2 movies: {said}" in err


def test_gain_check_takes_folders_and_reads_what_it_takes(camera, capsys):
    for name in "efgh":
        (camera / f"{name}.tif").write_bytes((camera / "a.tif").read_bytes())
    (camera / "gain.mrc").unlink()
    (camera / "scaled.mrc").unlink()
    words = ("--gain", "turned.mrc", "--json")
    code, out, err = dstnet(capsys, "gain", "check", ".", *words)
    record = json.loads(out)
    assert code == 0 and record["options"] == "--gain-rotate 180" and record["frames"] == 24
    assert "4 of 8 movies were read" in err
