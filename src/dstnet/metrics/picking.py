"""How well picks agree with known particle centres."""

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
    if not len(centres_px):
        return float("nan")
    right = match_picks(picks_px, centres_px, tolerance_px)
    picked = np.arange(1, len(right) + 1)
    precision = right.cumsum() / picked
    of_found = precision * right
    return float(of_found.sum() / len(centres_px))
