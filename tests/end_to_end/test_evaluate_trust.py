"""dstnet evaluate --hallucination --reconstruction: from simulated movies to tables and figures."""

import csv
import shutil

import pytest
import tiny
import yaml
from PIL import Image

RECIPE = {
    "structures": ["phantom:25"],
    "settings": {
        "shape": [224, 224],
        "pixel_size_angstrom": 5.0,
        "frames": 2,
        "exposure_e_per_a2": 20.0,
        "specimen": {"coverage": 0.3, "contrast": 2.0},
        "optics": {"defocus_angstrom": 9000.0},
    },
}
OPTIONS = ("--methods", "sum,gaussian:30", "--measures", "residual", "--border", "16")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(SystemExit):
        tiny.main(["simulate", "-o", str(folder / "set"), "-r", str(recipe), "--movies", "2"])
    return folder / "set"


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_erased_particles_and_maps_are_written_and_not_made_again(capsys, dataset, tmp_path):
    out = tmp_path / "out"
    asked = ("evaluate", dataset, *OPTIONS, "--hallucination", "--reconstruction", "-o", out)
    code, said, err = tiny.dstnet(capsys, *asked)
    assert code == 0, said + err
    rows = {row["method"]: row for row in rows_of(out / "erased.csv")}
    assert set(rows) == {"sum", "gaussian:30"}
    for row in rows.values():
        assert int(row["movies"]) == 2
        assert abs(float(row["invented"])) < 0.3
        assert float(row["told_apart"]) > 0.9
        assert float(row["scatter"]) < 0.5
    # Of a mean over two frames, damage and camera take a part of the contrast.
    assert 0.4 < float(rows["sum"]["amplitude"]) < 1.05
    curves = rows_of(out / "maps.csv")
    methods = {row["method"] for row in curves}
    assert {"sum", "gaussian:30", "clean images"} <= methods
    assert "sum (its own transfer known)" in methods
    # Shells from 50 to 25 Å, of a box of 170 Å.
    coarse = [
        float(row["confirmed"])
        for row in curves
        if row["method"] == "clean images" and 0.02 < float(row["frequency_per_angstrom"]) < 0.04
    ]
    assert min(coarse) > 0.8
    for name in ("erased.png", "maps-set.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 300
        assert name in (out / "evaluation.html").read_text()
    assert "| sum |" in (out / "erased.md").read_text()
    records = [*(out / "erased" / "set").glob("*.json"), out / "maps" / "set.json"]
    assert len(records) == 3
    before = [record.stat().st_mtime_ns for record in records]
    code, _, _ = tiny.dstnet(capsys, *asked)
    assert code == 0
    assert [record.stat().st_mtime_ns for record in records] == before


def test_what_cannot_be_judged_is_said_and_the_table_is_there(capsys, dataset, tmp_path):
    alone = tmp_path / "movies"
    alone.mkdir()
    movie = next((dataset / "movies").glob("*.tif"))
    shutil.copy(movie, alone / "alone.tif")
    out = tmp_path / "out"
    code, said, err = tiny.dstnet(
        capsys, "evaluate", alone, "--pixel-size", 5, *OPTIONS[:2], "--hallucination", "-o", out
    )
    assert code == 1
    assert "alone.tif is no movie of dstnet simulate" in said + err
    assert (out / "table.md").is_file()
