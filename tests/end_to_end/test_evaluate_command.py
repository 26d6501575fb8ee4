"""dstnet evaluate: what it writes, what it makes again, and what it leaves out."""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from tiny import dstnet, make_frames

from dstnet.evaluation import (
    EvaluationSettings,
    SubjectOptions,
    evaluate,
    find_subjects,
    make_candidates,
)
from dstnet.evaluation.base import Made, Scene
from dstnet.io import write_mrc
from dstnet.runs import Workplace

FEW = ("--methods", "sum,gaussian:20,true-motion-sum", "--border", "8")
MEASURES = ("--measures", "residual,frc,ap,half-frc")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small simulated movies."""
    from dstnet.dataset.generate import make_movies
    from dstnet.dataset.plan import plan_movies
    from dstnet.dataset.species_store import SpeciesStore
    from dstnet.simulation.recipe import Recipe

    folder = tmp_path_factory.mktemp("data") / "simulated"
    settings = {
        "shape": (160, 192),
        "frames": 4,
        "exposure_e_per_a2": 10.0,
        "pixel_size_angstrom": 4.0,
        "specimen": {"coverage": 0.3, "contrast": 3.0},
    }
    recipe = Recipe.checked({"structures": ["phantom:1"], "settings": settings}, "test")
    store = SpeciesStore()
    plan = plan_movies(recipe, folder, movies=2, seed=0, store=store)
    outcomes = make_movies(plan, Workplace(), store=store)
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    return folder


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    """The movies, to be spoilt."""
    return Path(shutil.copytree(dataset, tmp_path / "copy"))


def evaluated(capsys, *arguments) -> tuple[int, str]:
    code, _, err = dstnet(capsys, "evaluate", *arguments, *FEW, *MEASURES, "--device", "cpu")
    return code, err


def rows(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_scores_tables_figures_and_the_record(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    code, err = evaluated(capsys, dataset, "-o", out)
    assert code == 0, err
    scores = rows(out / "scores.csv")
    residual = {
        (row["movie"], row["method"]): float(row["value"])
        for row in scores
        if row["measure"] == "residual"
    }
    assert len(residual) == 6
    for name in {movie for movie, _ in residual}:
        assert residual[name, "gaussian:20"] < residual[name, "sum"]
    made = json.loads((out / "provenance.json").read_text())
    assert made["methods"]["gaussian:20"] == {"method": "gaussian:20"}
    assert made["settings"]["seed"] == 0 and made["left_out"] == []
    for name in ("panel", "frc", "bars"):
        assert (out / f"{name}-simulated.png").stat().st_size > 5000
    assert "true-motion-sum (told)" in (out / "table.md").read_text()
    assert "gaussian:20" in (out / "evaluation.html").read_text()


def test_what_is_on_record_is_not_made_again(dataset, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    evaluated(capsys, dataset, "-o", out)
    before = (out / "scores.csv").read_bytes()
    scored = []
    from dstnet.evaluation.scoring import Scorer

    call = Scorer.__call__
    monkeypatch.setattr(
        Scorer, "__call__", lambda self, c, d: scored.append(c.name) or call(self, c, d)
    )
    assert evaluated(capsys, dataset, "-o", out)[0] == 0
    assert scored == [] and (out / "scores.csv").read_bytes() == before
    (broken_off,) = (out / "movies" / "simulated").glob("*_00001.json")
    broken_off.write_text(broken_off.read_text()[:200])
    more = ("--methods", "sum,gaussian:20,true-motion-sum,wiener", *FEW[2:], *MEASURES)
    dstnet(capsys, "evaluate", dataset, "-o", out, *more)
    assert scored == ["wiener", "sum", "gaussian:20", "true-motion-sum", "wiener"]


def test_other_settings_and_other_folders_are_refused(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    evaluated(capsys, dataset, "-o", out)
    code, err = evaluated(capsys, dataset, "-o", out, "--seed", "1")
    assert code == 2 and "another seed; pass --overwrite" in err
    assert evaluated(capsys, dataset, "-o", out, "--seed", "1", "--overwrite")[0] == 0
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "table.md").write_text("my own")
    code, err = evaluated(capsys, dataset, "-o", foreign)
    assert code == 2 and "holds something else than an evaluation (table.md)" in err
    assert [path.name for path in foreign.iterdir()] == ["table.md"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--measures", "residual,beauty", "no measure 'beauty'"),
        ("--methods", "sum,dstnet-4", "no model 'dstnet-4'"),
        ("--external", "mine", "is not NAME=FOLDER:SUFFIX"),
        ("--truth", "nowhere", "no folder of truths"),
        ("--picks", "nowhere", "is not there"),
    ],
)
def test_bad_usage_is_one_line_and_writes_nothing(tmp_path, capsys, option, value, said):
    write_mrc(tmp_path / "a.mrc", make_frames(1)[0].astype(np.float32), 2.0, "")
    out = tmp_path / "out"
    code, _, err = dstnet(capsys, "evaluate", tmp_path / "a.mrc", "-o", out, option, value)
    assert code == 2 and said in err and err.count("\n") == 1
    assert not out.exists()


def spoil_record(folder: Path) -> None:
    path = next((folder / "truth").glob("*_00000_settings.yaml"))
    path.write_text("no: record")


def take_movie(folder: Path) -> None:
    next((folder / "movies").glob("*_00000.tif")).unlink()


def cut_movie(folder: Path) -> None:
    path = next((folder / "movies").glob("*_00000.tif"))
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("spoil", [spoil_record, take_movie, cut_movie])
def test_a_bad_movie_costs_itself(copy, tmp_path, capsys, spoil):
    spoil(copy)
    code, err = evaluated(capsys, copy, "-o", tmp_path / "out")
    assert code == 1 and err.count("left out: ") == 1 and "_00000" in err
    movies = {row["movie"][-5:] for row in rows(tmp_path / "out" / "scores.csv")}
    assert movies == {"00001"}


def swap_truths(folder: Path) -> None:
    first, second = sorted((folder / "truth").glob("*_clean.mrc"))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def shrink_truth(folder: Path) -> None:
    for path in (folder / "truth").glob("*_clean.mrc"):
        with mrcfile.open(path, "r+") as file:
            file.set_data(file.data[:-16].copy())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (swap_truths, "does not show in the plain sum"),
        (shrink_truth, "its truth is 144 x 192 pixels, the movie 160 x 192"),
    ],
)
def test_the_truth_of_another_movie_is_left_out(copy, tmp_path, capsys, spoil, said):
    spoil(copy)
    code, err = evaluated(capsys, copy, "-o", tmp_path / "out")
    assert code == 1 and err.count(said) == 2
    scores = rows(tmp_path / "out" / "scores.csv")
    assert scores == [] or {row["measure"] for row in scores} <= {"ap"}
    assert (tmp_path / "out" / "frc-copy.png").is_file()  # of halves, which need no truth


def test_movies_that_lie_elsewhere_get_truths_of_three_kinds(dataset, tmp_path, capsys):
    movie = sorted((dataset / "movies").glob("*.tif"))[0]
    clean = mrcfile.read(dataset / "truth" / f"{movie.stem}_clean.mrc")
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(dataset / "truth" / f"{movie.stem}_clean.mrc", images)
    archive = tmp_path / "archive"
    archive.mkdir()
    # With its rows the other way, as some programs write them.
    np.savez(archive / f"{movie.stem}.npz", clean=clean[::-1], meta=json.dumps({"apix": 2.0}))
    found = []
    for place in (dataset, images, archive):
        out = tmp_path / f"out-{place.name}"
        options = ("--truth", place, "--dose-per-frame", 10, "-o", out, "--pixel-size", 4)
        code, err = evaluated(capsys, movie, *options)
        assert code == 0, err
        found.append(
            next(
                float(row["value"])
                for row in rows(out / "scores.csv")
                if (row["method"], row["measure"]) == ("sum", "residual")
            )
        )
    assert found == pytest.approx([found[0]] * 3, abs=1e-6)


def test_picks_without_a_size_or_of_another_field_are_left_out(dataset, tmp_path, capsys):
    movie = sorted((dataset / "movies").glob("*.tif"))[0]
    picks = tmp_path / "picks"
    picks.mkdir()
    table = picks / f"{movie.stem}_picks.csv"
    table.write_text("x,y\n50,60\n100,80\n")
    places = ("--picks", picks, "--pixel-size", 4)
    code, err = evaluated(capsys, movie, *places, "-o", tmp_path / "a")
    assert code == 1 and "diameter" in err
    assert evaluated(capsys, movie, *places, "--diameter", 100, "-o", tmp_path / "b")[0] == 0
    assert {row["measure"] for row in rows(tmp_path / "b" / "scores.csv")} == {"ap"}
    table.write_text("x,y\n500,60\n100,800\n")
    code, err = evaluated(capsys, movie, *places, "--diameter", 100, "-o", tmp_path / "c")
    assert code == 1 and "outside the field" in err


def test_results_of_other_programs_that_are_missing_or_lie_otherwise(dataset, tmp_path, capsys):
    folder = tmp_path / "theirs"
    folder.mkdir()
    first, _ = sorted((dataset / "truth").glob("*_clean.mrc"))
    clean = mrcfile.read(first)
    name = first.name.removesuffix("_clean.mrc")
    write_mrc(folder / f"{name}_x.mrc", clean[:, ::-1].copy(), 4.0, "")
    out = tmp_path / "out"
    external = ("--external", f"theirs={folder}:_x")
    code, err = evaluated(capsys, dataset, "-o", out, *external)
    assert code == 1 and "_00001" in err  # that of the other movie is not there
    values = {
        (row["movie"], row["method"]): float(row["value"])
        for row in rows(out / "scores.csv")
        if row["measure"] == "residual"
    }
    assert values[name, "theirs"] < 0.01  # found mirrored, taken as it belongs
    assert "sum" in {method for movie, method in values if movie != name}


@dataclass(frozen=True)
class Fatal:
    """A method that takes its process down."""

    name: str = "fatal"
    needs_truth: bool = False

    def groupings(self, movie) -> tuple:
        return ()

    def describe(self) -> dict[str, Any]:
        return {"method": self.name}

    def __call__(self, scene: Scene) -> Made:
        if scene.subject.name.endswith("_00000"):
            import os

            os._exit(3)
        return Made({"micrograph": scene.aligned.total})


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_movie_what_was_not_on_record(dataset, tmp_path):
    settings = EvaluationSettings(methods=("sum",), measures=("residual",), border_px=8)
    subjects, _ = find_subjects([str(dataset)], SubjectOptions())
    candidates = [*make_candidates(settings), Fatal()]
    evaluation = evaluate(
        subjects, candidates, tmp_path / "out", settings, workplace=Workplace(workers=1, tries=1)
    )
    (line,) = evaluation.left_out
    assert "its worker ended 1 times (exit code 3)" in line and "_00000" in line
    first, second = evaluation.movies
    assert list(first.methods) == ["sum"] and list(second.methods) == ["sum", "fatal"]


def test_a_border_that_leaves_nothing_is_said(tmp_path, capsys):
    write_mrc(tmp_path / "a.mrc", make_frames(1)[0].astype(np.float32), 2.0, "")
    code, _, err = dstnet(capsys, "evaluate", tmp_path / "a.mrc", "-o", tmp_path / "out")
    assert code == 1 and "of 96 x 80 pixels, 0 are left without the border" in err
