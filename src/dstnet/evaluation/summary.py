"""Scores of many movies as means and paired differences, with intervals by bootstrap over movies.

A mean says nothing of how sure it is, and methods are compared on the same movies: a difference is
that of pairs, and one method is called better only where the interval of the difference leaves out
zero.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dstnet.evaluation.base import Measure, ScoredPicks
from dstnet.evaluation.records import MovieScores
from dstnet.metrics.picking import common_threshold, f1_score

INTERVAL = 2.5, 97.5  # percentiles: 95 %
# Of fewer, resamples are too alike to say anything.
LEAST_MOVIES = 5

Entry = tuple[str, str]  # method and output


@dataclass(frozen=True)
class Score:
    """One number."""

    dataset: str
    movie: str
    method: str
    output: str
    measure: str
    value: float

    @property
    def entry(self) -> Entry:
        """What it is a score of."""
        return self.method, self.output


@dataclass(frozen=True)
class Estimate:
    """A mean over movies and its 95 % interval; None where there are too few for one."""

    movies: int
    mean: float
    interval: tuple[float, float] | None

    @property
    def is_not_zero(self) -> bool:
        """Whether the interval leaves out zero."""
        if self.interval is None:
            return False
        low, high = self.interval
        return low > 0 or high < 0


@dataclass(frozen=True)
class Mean:
    """A method's output in a data set, by one measure."""

    dataset: str
    method: str
    output: str
    measure: str
    estimate: Estimate
    told: bool


@dataclass(frozen=True)
class Difference:
    """By how much a method's output differs from another on the same movies.

    Attributes
    ----------
    role
        Of the other: the reference, or the best of all others that were told nothing.
    verdict
        "better" or "worse" where the interval leaves out zero; else "".
    """

    dataset: str
    method: str
    output: str
    measure: str
    other: Entry
    role: Literal["reference", "best other"]
    estimate: Estimate
    verdict: Literal["better", "worse", ""]


@dataclass(frozen=True)
class Summary:
    """All of an evaluation in numbers.

    Attributes
    ----------
    scores, means, differences
        In the order of data sets, methods, outputs and measures.
    """

    scores: list[Score] = field(default_factory=list)
    means: list[Mean] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


def summarised(
    movies: Sequence[MovieScores],
    methods: Sequence[str],
    measures: Sequence[Measure],
    *,
    reference: str,
    resamples: int,
    seed: int,
) -> Summary:
    """Means, intervals and differences.

    Parameters
    ----------
    movies
        Their scores; of methods that are not in `methods` nothing is taken.
    methods, measures
        In the order of tables.
    reference
        The method that all are compared with.
    resamples, seed
        Of the bootstrap. The same resamples serve all, so that differences are those of means.
    """
    told = {n for movie in movies for n, scores in movie.methods.items() if scores.told}
    scores = _scores(movies, methods, measures)
    tables: dict[tuple[str, str], dict[Entry, dict[str, float]]] = defaultdict(dict)
    for score in scores:
        of_measure = tables[score.dataset, score.measure]
        of_measure.setdefault(score.entry, {})[score.movie] = score.value
    bootstrap = Bootstrap(resamples, seed)
    means = []
    differences = []
    by_name = {measure.name: measure for measure in measures}
    for (dataset, name), entries in tables.items():
        for (method, output), values in entries.items():
            estimate = bootstrap(list(values.values()))
            means.append(Mean(dataset, method, output, name, estimate, method in told))
        for entry, role, other in _pairs(entries, by_name[name], reference, told):
            estimate = bootstrap(_paired(entries[entry], entries[other]))
            verdict = _verdict(estimate, by_name[name])
            differences.append(Difference(dataset, *entry, name, other, role, estimate, verdict))
    return Summary(scores, means, differences)


class Bootstrap:
    """Means with intervals (Efron 1979, percentiles of the means of resamples).

    Parameters
    ----------
    resamples
        How many.
    seed
        Of the draws, which are the same for all lists of one length.
    """

    def __init__(self, resamples: int, seed: int) -> None:
        self._resamples = resamples
        self._seed = seed
        self._drawn: dict[int, np.ndarray] = {}

    def __call__(self, values: Sequence[float]) -> Estimate:
        """The mean of values, one a movie, and its interval."""
        count = len(values)
        if not count:
            return Estimate(0, math.nan, None)
        mean = float(np.mean(values))
        if count < LEAST_MOVIES:
            return Estimate(count, mean, None)
        if count not in self._drawn:
            random = np.random.default_rng([abs(self._seed), count])
            self._drawn[count] = random.integers(0, count, (self._resamples, count))
        resampled = np.asarray(values, float)[self._drawn[count]].mean(1)
        low, high = np.percentile(resampled, INTERVAL).tolist()
        return Estimate(count, mean, (low, high))


def _scores(
    movies: Sequence[MovieScores], methods: Sequence[str], measures: Sequence[Measure]
) -> list[Score]:
    """All numbers, those among them that a threshold from other fields decides."""
    found = []
    picks: dict[tuple[str, str, str, str], dict[str, ScoredPicks]] = defaultdict(dict)
    for movie in movies:
        for method in methods:
            scores = movie.methods.get(method)
            for output, of_output in () if scores is None else scores.outputs.items():
                for measure, value in of_output.values.items():
                    found.append(Score(movie.dataset, movie.name, method, output, measure, value))
                for measure, scored in of_output.picks.items():
                    picks[movie.dataset, method, output, measure][movie.name] = scored
    for (dataset, method, output, measure), fields in picks.items():
        for name, value in f1_by_others(fields).items():
            found.append(Score(dataset, name, method, output, measure, value))
    order = {measure.name: number for number, measure in enumerate(measures)}
    chosen = [score for score in found if score.measure in order]
    places = {method: number for number, method in enumerate(methods)}
    datasets = list(dict.fromkeys(movie.dataset for movie in movies))
    return sorted(
        chosen,
        key=lambda s: (datasets.index(s.dataset), order[s.measure], places[s.method]),
    )


def f1_by_others(fields: Mapping[str, ScoredPicks]) -> dict[str, float]:
    """F1 of each field's picks above the threshold that is best for all other fields together, by
    field; nothing where there is one field.
    """
    found = {}
    for name, picks in fields.items():
        others = [other for key, other in fields.items() if key != name]
        if not others:
            continue
        threshold = common_threshold((of.scores, of.hits, of.centres) for of in others)
        f1 = f1_score(np.array(picks.scores), np.array(picks.hits, bool), picks.centres, threshold)
        if math.isfinite(f1):
            found[name] = f1
    return found


def _pairs(
    entries: Mapping[Entry, Mapping[str, float]],
    measure: Measure,
    reference: str,
    told: Iterable[str],
) -> Iterable[tuple[Entry, Literal["reference", "best other"], Entry]]:
    """What is compared with what: each output with the reference, and with the best other."""
    if not measure.better:
        return
    sign = 1 if measure.better == "higher" else -1

    def rank(entry: Entry, other: Entry) -> tuple[int, float]:
        """First those scored on most of the entry's movies, by their mean there."""
        values = [v for movie, v in entries[other].items() if movie in entries[entry]]
        return -len(values), -sign * float(np.mean(values)) if values else math.inf

    for entry in entries:
        comparable = [other for other in entries if _is_comparable(other, entry, measure)]
        others = sorted(set(comparable) - {entry}, key=lambda other: (*rank(entry, other), other))
        of_reference = [o for o in others if o[0] == reference and o[0] != entry[0]]
        if of_reference:
            yield entry, "reference", of_reference[0]
        untold = [other for other in others if other[0] not in told]
        if untold:
            yield entry, "best other", untold[0]


def _is_comparable(one: Entry, other: Entry, measure: Measure) -> bool:
    """Whether a measure says the same of two outputs: each has a truth of its own."""
    return measure.needs == "annotation" or one[1] == other[1]


def _paired(values: Mapping[str, float], others: Mapping[str, float]) -> list[float]:
    return [value - others[movie] for movie, value in values.items() if movie in others]


def _verdict(estimate: Estimate, measure: Measure) -> Literal["better", "worse", ""]:
    if not estimate.is_not_zero:
        return ""
    return "better" if (estimate.mean > 0) == (measure.better == "higher") else "worse"
