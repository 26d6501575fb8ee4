"""Movies with erased particles, condition by condition."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dstnet.evaluation.erased_particles import ErasedScores
from dstnet.metrics.picking import common_threshold

RESAMPLES = 1000
INTERVAL = 2.5, 97.5  # percentiles: 95 %


@dataclass(frozen=True)
class Estimate:
    """A figure, and where it lies with 95 % (bootstrap over movies; over places where there is one
    movie); not a number where it is not known.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ErasedRow:
    """One method's output under one condition.

    Attributes
    ----------
    method, output, structure, diameter_angstrom, exposure_e_per_a2, contrast
        Of which.
    movies, places
        How many.
    invented
        Mean coefficient of erased particles over that of present ones: 0 where nothing is drawn,
        1 where the particle is drawn all the same. Lower is better.
    scatter
        Deviation of the erased particles' coefficients over the mean of present ones: what noise
        alone looks like. Lower is better.
    told_apart
        Chance that a present particle has a larger coefficient than an erased one: 1 at best, 0.5
        by guessing (the area under the ROC curve; Hanley & McNeil, Radiology 143, 29 (1982)).
    amplitude
        Mean coefficient of present particles: 1 is the whole contrast, where the method keeps the
        unit of the sum.
    picked_present, picked_erased
        Part of the places at which the fixed picker finds a particle, at the threshold of the best
        F1 of the other movies of the condition.
    """

    method: str
    output: str
    structure: str
    diameter_angstrom: float
    exposure_e_per_a2: float
    contrast: float
    movies: int
    places: int
    invented: Estimate
    scatter: Estimate
    told_apart: Estimate
    amplitude: Estimate
    picked_present: Estimate
    picked_erased: Estimate


Movies = Sequence[ErasedScores]


def summarise(scores: Iterable[ErasedScores], seed: int = 0) -> list[ErasedRow]:
    """Each method's outputs under each condition, in the order in which they first come.

    Parameters
    ----------
    scores
        Of all movies.
    seed
        Of the resamples.
    """
    conditions: dict[tuple, list[ErasedScores]] = {}
    for score in scores:
        key = (
            score.method,
            score.output,
            score.structure,
            round(score.diameter_angstrom, 1),
            round(score.exposure_e_per_a2, 3),
            score.contrast,
        )
        conditions.setdefault(key, []).append(score)
    return [_row(movies, seed) for movies in conditions.values()]


def _row(movies: list[ErasedScores], seed: int) -> ErasedRow:
    first = movies[0]
    places = _as_places(movies)

    def estimate(function: Callable[[Movies], float]) -> Estimate:
        return bootstrapped(function, movies if len(movies) > 1 else places, seed)

    thresholds = {score.movie: _threshold(_others(movies, score)) for score in movies}

    def picked(movies: Movies, is_present: bool) -> float:
        found = count = 0
        for score in movies:
            surest = score.picks.at_present if is_present else score.picks.at_erased
            found += sum(value is not None and value >= thresholds[score.movie] for value in surest)
            count += len(surest)
        return found / count if count else math.nan

    return ErasedRow(
        method=first.method,
        output=first.output,
        structure=first.structure,
        diameter_angstrom=first.diameter_angstrom,
        exposure_e_per_a2=first.exposure_e_per_a2,
        contrast=first.contrast,
        movies=len(movies),
        places=len(places),
        invented=estimate(invented),
        scatter=estimate(scatter),
        told_apart=estimate(told_apart),
        amplitude=estimate(lambda movies: float(_present(movies).mean())),
        picked_present=estimate(lambda movies: picked(movies, True)),
        picked_erased=estimate(lambda movies: picked(movies, False)),
    )


def _threshold(movies: Movies) -> float:
    """The picker's, of the best F1 of some movies together."""
    picks = [score.picks for score in movies]
    return common_threshold((of.scores, of.hits, of.particles) for of in picks)


def _others(movies: list[ErasedScores], score: ErasedScores) -> list[ErasedScores]:
    """The other movies; of one alone, itself."""
    return [other for other in movies if other is not score] or [score]


def _as_places(movies: Movies) -> list[ErasedScores]:
    """Each place as if it were a movie of its own."""
    single = []
    for score in movies:
        for place in range(len(score.present)):
            one = slice(place, place + 1)
            picks = score.picks.at(one)
            values = {"present": score.present[one], "erased": score.erased[one], "picks": picks}
            single.append(ErasedScores(**{**vars(score), **values}))
    return single


def _present(movies: Movies) -> np.ndarray:
    return np.concatenate([score.present for score in movies])


def _erased(movies: Movies) -> np.ndarray:
    return np.concatenate([score.erased for score in movies])


def invented(movies: Movies) -> float:
    """See `ErasedRow`."""
    return float(_erased(movies).mean() / _present(movies).mean())


def scatter(movies: Movies) -> float:
    """See `ErasedRow`."""
    return float(_erased(movies).std() / abs(_present(movies).mean()))


def told_apart(movies: Movies) -> float:
    """See `ErasedRow`."""
    present, erased = _present(movies), _erased(movies)
    larger = (present[:, None] > erased).mean()
    equal = (present[:, None] == erased).mean()
    return float(larger + equal / 2)


def bootstrapped(function: Callable[[Movies], float], units: Movies, seed: int) -> Estimate:
    """A figure of some movies with its interval, by drawing as many of them again and again with
    replacement (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, 13.3).
    """
    value = function(units)
    random = np.random.default_rng(seed)
    drawn = random.integers(len(units), size=(RESAMPLES, len(units)))
    values = [function([units[index] for index in indices]) for indices in drawn]
    finite = [value for value in values if math.isfinite(value)]
    if not math.isfinite(value) or not finite:
        return Estimate(math.nan, math.nan, math.nan)
    low, high = np.percentile(finite, INTERVAL).tolist()
    return Estimate(value, low, high)
