"""A synthetic movie can be made again from the record that lies beside it."""

import pytest

from dstnet.cli import main


def simulate(*arguments: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(["simulate", *arguments])
    assert left.value.code == 0


def test_the_record_makes_the_same_movie(tmp_path):
    simulate(
        "-o",
        f"{tmp_path}/a",
        "--shape",
        "128",
        "128",
        "--pixel-size",
        "3",
        "--frames",
        "2",
        "--dose-per-frame",
        "3",
        "--seed",
        "7",
    )
    (record,) = (tmp_path / "a" / "truth").glob("*_settings.yaml")
    simulate("-o", f"{tmp_path}/b", "--settings", str(record), "--seed", "7")
    (first,), (again,) = ((tmp_path / run / "movies").glob("*.tif") for run in "ab")
    assert first.read_bytes() == again.read_bytes()
    assert (tmp_path / "b" / "truth" / record.name).read_text() == record.read_text()
