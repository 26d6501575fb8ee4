"""Means, intervals and differences of an evaluation, and its tables."""

import math

import numpy as np
import pytest

from dstnet.evaluation.base import Measure, ScoredPicks
from dstnet.evaluation.records import MethodScores, MovieScores, OutputScores
from dstnet.evaluation.summary import Bootstrap, Summary, f1_by_others, summarised
from dstnet.evaluation.tables import latex, markdown, tables_for_people

RESIDUAL = Measure("residual", "residual energy", "", "lower", "", "truth", lambda e: 0.0)
AP = Measure("ap", "precision", "", "higher", "", "annotation", lambda e: 0.0)
RANDOM = np.random.default_rng(3)
HARDNESS = RANDOM.normal(0.5, 0.1, 12)


def movies_of(**values: np.ndarray) -> list[MovieScores]:
    """Movies with a residual of each method."""
    return [
        MovieScores(
            dataset="set_1",
            name=f"movie{i}",
            path="",
            digest="",
            methods={
                name: MethodScores(
                    digest="",
                    told=name == "oracle",
                    measures=(),
                    outputs={"micrograph": OutputScores(values={"residual": float(of[i])})},
                )
                for name, of in values.items()
            },
        )
        for i in range(len(next(iter(values.values()))))
    ]


def summary_of(movies: list[MovieScores], reference: str = "sum") -> Summary:
    methods = list(movies[0].methods)
    return summarised(movies, methods, [RESIDUAL, AP], reference=reference, resamples=2000, seed=0)


def verdicts(summary: Summary) -> dict[tuple[str, str], str]:
    return {(d.method, d.role): d.verdict for d in summary.differences}


def test_the_interval_is_that_of_a_mean():
    values = RANDOM.normal(3.0, 1.0, 400)
    estimate = Bootstrap(4000, 1)(values.tolist())
    assert estimate.mean == pytest.approx(values.mean())
    error = values.std() / 20
    assert estimate.interval == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error
    )


def test_equal_values_have_an_interval_of_no_width_and_few_values_none():
    assert Bootstrap(100, 0)([2.0] * 5).interval == (2.0, 2.0)
    assert Bootstrap(100, 0)([2.0] * 4).interval is None
    assert math.isnan(Bootstrap(100, 0)([]).mean)


def test_pairs_show_what_means_do_not():
    """Movies differ by far more than the methods: only their differences on each tell."""
    better = HARDNESS - 0.02 + RANDOM.normal(0, 0.005, 12)
    summary = summary_of(movies_of(sum=HARDNESS, net=better))
    means = {mean.method: mean.estimate.interval for mean in summary.means}
    assert means["net"] and means["sum"] and means["net"][1] > means["sum"][0]
    assert verdicts(summary)["net", "reference"] == "better"
    assert verdicts(summary)["sum", "best other"] == "worse"


def test_chance_is_no_rank():
    same = HARDNESS + np.tile([0.01, -0.01], 6)
    assert set(verdicts(summary_of(movies_of(sum=HARDNESS, net=same))).values()) == {""}


def test_who_was_told_the_truth_is_nobodys_rival():
    movies = movies_of(sum=HARDNESS, net=HARDNESS - 0.1, oracle=HARDNESS - 0.4)
    summary = summary_of(movies)
    others = {d.method: d.other for d in summary.differences if d.role == "best other"}
    assert others["net"] == ("sum", "micrograph")
    (table,) = tables_for_people(summary, movies, list(movies[0].methods), [RESIDUAL])
    table = markdown(table)
    assert "oracle (told)" in table
    (best,) = (line for line in table.splitlines() if "**0." in line)
    assert best.startswith("| net |")


def test_names_are_escaped_in_latex():
    movies = movies_of(**{"my_net 5%": HARDNESS, "sum": HARDNESS})
    (table,) = tables_for_people(summary_of(movies), movies, ["my_net 5%"], [RESIDUAL])
    assert r"my\_net 5\% & " in latex(table)


def test_a_threshold_is_never_the_fields_own():
    """A field whose picks are right above 5, among fields that are right above 1."""
    usual = ScoredPicks((4.0, 3.0, 2.0, 0.5, 0.4), (True, True, True, False, False), 3)
    odd = ScoredPicks((9.0, 8.0, 4.0, 3.0), (True, True, False, False), 2)
    scores = f1_by_others({"a": usual, "b": usual, "odd": odd})
    assert scores["odd"] == pytest.approx(2 * 2 / (4 + 2))  # its own would give 1
    assert f1_by_others({"alone": odd}) == {}


def test_a_mean_of_some_movies_says_so():
    movies = movies_of(sum=HARDNESS, net=HARDNESS)
    few = [movie.model_copy(update={"methods": {"sum": movie.methods["sum"]}}) for movie in movies]
    (table,) = tables_for_people(
        summary_of([*movies[:7], *few[7:]]), [*movies[:7], *few[7:]], ["sum", "net"], [RESIDUAL]
    )
    lines = markdown(table).splitlines()
    assert lines[-1].endswith("[7] | 0.0 |") and "[" not in lines[-2]
