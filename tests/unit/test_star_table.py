"""STAR files are read by lines, as RELION reads them, and their cells stay text."""

import os

import pytest

from dstnet.errors import BadInputError
from dstnet.io.star import read_blocks
from dstnet.io.star_table import read_star


def tables(tmp_path, text):
    path = tmp_path / "a.star"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(table.name, table.columns, table.rows) for table in read_star(path)]


def test_loops_and_single_values(tmp_path):
    text = """
# version 30001

data_general

_rlnImageSizeX    3710
_rlnMicrographMovieName "my movie.tif" # a comment

data_

loop_
_rlnA #1
_rlnB #2
007 1.5   # of Bond

x 'it is' """
    assert tables(tmp_path, text) == [
        ("general", ["rlnImageSizeX", "rlnMicrographMovieName"], [["3710", "my movie.tif"]]),
        ("", ["rlnA", "rlnB"], [["007", "1.5"], ["x", "it is"]]),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ends_of_lines(tmp_path, end):
    text = end.join(["\ufeffdata_a", "loop_", "_rlnA", "_rlnB #2", "\t1\t2", "3 4"])
    assert tables(tmp_path, text) == [("a", ["rlnA", "rlnB"], [["1", "2"], ["3", "4"]])]


@pytest.mark.parametrize(
    "name", ["data_june/a.tif", "a#1.tif", "it's.tif", "_x.tif", "loop_x.tif", "wei\u00a0ss.tif"]
)
def test_names_that_look_like_something_else(tmp_path, name):
    text = f"data_movies\nloop_\n_rlnMovie #1\n_rlnGroup #2\n_rlnB #3\n{name} 1 2\nb.tif 1 2\n"
    ((_, _, rows),) = tables(tmp_path, text)
    assert rows == [[name, "1", "2"], ["b.tif", "1", "2"]]


def test_names_that_are_no_text(tmp_path):
    ((_, _, rows),) = tables(tmp_path, b"data_\nloop_\n_rlnA\n_rlnB\ncaf\xe9.tif 1\n")
    assert os.fsencode(rows[0][0]) == b"caf\xe9.tif"


def test_several_tables_and_empty_ones(tmp_path):
    text = "data_a\nloop_\n_rlnA #1\n\ndata_a\nloop_\n_rlnA #1\nx\nloop_\n_rlnB #1\ny\n"
    assert tables(tmp_path, text) == [
        ("a", ["rlnA"], []),
        ("a", ["rlnA"], [["x"]]),
        ("a", ["rlnB"], [["y"]]),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no table"),
        ("hello", "line 1 stands before"),
        ("data_\n1 2", "line 2 belongs to no table"),
        ("data_\nloop_\n_rlnA\n_rlnB\n1 2\n1\n", "line 6 has 1 cells for 2 columns"),
        ("data_\nloop_\n_rlnA\n_rlnA\n1 2\n", "line 4 names _rlnA a second time"),
        ("data_\n_rlnA 1 2 3\n", "line 2 has 3 values"),
        ("data_\nloop_\n" + "".join(f"_c{i}\n" for i in range(1001)), "more than 1000 columns"),
        (b"data_\0", "no text"),
    ],
)
def test_what_is_no_star_file(tmp_path, text, says):
    with pytest.raises(BadInputError, match=says) as caught:
        tables(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert "a.star" in str(caught.value)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.star")
    for name, says in (("pipe.star", "no regular file"), ("none.star", "No such file")):
        with pytest.raises(BadInputError, match=says):
            read_star(tmp_path / name)


def test_a_table_that_is_mended_is_read_anew(tmp_path):
    path = tmp_path / "m.star"
    whole = "data_a\n\nloop_\n_b\n_c\n1 2\n3 4\n"
    for broken in ("data_a\n\n", "data_a\n\nloop_\n_b\n_c\n1 2\n3 4 5\n"):
        path.write_text(broken)
        with pytest.raises(ValueError):
            read_blocks(path)
        path.write_text(whole)
        assert read_blocks(path)["a"]["b"].tolist() == [1, 3]
