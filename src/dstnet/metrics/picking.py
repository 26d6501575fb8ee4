"""How well picks agree with known particle centres."""

from collections.abc import Iterable, Sequence

import numpy as np

TOLERANCE = 0.35  # of the diameter: within it a pick is on the particle


def match_picks(
    picks_px: np.ndarray,
    centres_px: np.ndarray,
    tolerance_px: float,
) -> np.ndarray:
    """Which picks are right: each takes the nearest centre that no pick before it has taken.

    Parameters
    ----------
    picks_px
        [pick, 2], the surest first.
    centres_px
        [centre, 2], in the same unit.
    tolerance_px
        A pick is right if its centre is nearer than this.

    Returns
    -------
    ndarray
        [pick], boolean.
    """
    right = np.zeros(len(picks_px), bool)
    free = np.ones(len(centres_px), bool)
    if not len(centres_px):
        return right
    for number, pick in enumerate(picks_px):
        away_y, away_x = (centres_px - pick).T
        away = np.hypot(away_y, away_x)
        away[~free] = np.inf
        nearest = int(away.argmin())
        if away[nearest] < tolerance_px:
            right[number] = True
            free[nearest] = False
    return right


def average_precision(picks_px: np.ndarray, centres_px: np.ndarray, tolerance_px: float) -> float:
    """Mean, over all centres, of the precision among the picks down to the one that finds it; a
    centre that is not found counts 0 (Manning et al., Introduction to Information Retrieval, 2008,
    8.4).

    Parameters are those of `match_picks`. From 0 to 1; not a number where there is no centre.
    """
    right = match_picks(picks_px, centres_px, tolerance_px)
    return precision_of_hits(right, len(centres_px))


def precision_of_hits(hits: np.ndarray, centres: int) -> float:
    """`average_precision` of picks that are matched already, [pick], the surest first."""
    if not centres:
        return float("nan")
    picked = np.arange(1, len(hits) + 1)
    precision = hits.cumsum() / picked
    of_found = precision * hits
    return float(of_found.sum() / centres)


def f1_score(scores: np.ndarray, hits: np.ndarray, centres: int, threshold: float) -> float:
    """Harmonic mean of precision and recall of the picks whose score is at least a threshold (van
    Rijsbergen, Information Retrieval, 1979).

    Parameters
    ----------
    scores, hits
        [pick]: of each pick, and whether it is on a particle, see `match_picks`.
    centres
        How many particles there are.
    threshold
        In the unit of scores.

    Returns
    -------
    float
        From 0 to 1; not a number where there is neither a pick nor a particle.
    """
    is_taken = np.asarray(scores, float) >= threshold
    taken = int(is_taken.sum())
    right = int(np.asarray(hits, bool)[is_taken].sum())
    return 2 * right / (taken + centres) if taken + centres else float("nan")


def common_threshold(fields: Iterable[tuple[Sequence[float], Sequence[bool], int]]) -> float:
    """`best_threshold` of several fields together: scores, hits and centres of each."""
    scores, hits, centres = zip(*fields, strict=True)
    return best_threshold(np.concatenate(scores), np.concatenate(hits), sum(centres))


def best_threshold(scores: np.ndarray, hits: np.ndarray, centres: int) -> float:
    """The score from which on picks give the largest F1, halfway to the next lower score; infinite
    where no pick is right.

    Parameters are those of `f1_score`; picks of several fields may be put together.
    """
    scores, hits = np.asarray(scores, float), np.asarray(hits, bool)
    if not hits.any():
        return float("inf")
    order = np.argsort(-scores, kind="stable")
    falling, right = scores[order], hits[order].cumsum()
    f1 = 2 * right / (np.arange(1, len(right) + 1) + centres)
    f1[:-1][falling[:-1] == falling[1:]] = -1  # equal scores are taken together
    last = int(f1.argmax())
    lower = falling[last + 1] if last + 1 < len(falling) else falling[last]
    return float((falling[last] + lower) / 2)
