"""Whether expected errors are those that are made."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ErrorClass:
    """Pixels of about the same expected error: root mean squares of what was expected there, and of
    the error that was made.
    """

    expected: float
    actual: float


def error_classes(
    expected: np.ndarray,
    actual: np.ndarray,
    classes: int,
) -> list[ErrorClass]:
    """Pixels sorted by their expected error, in `classes` of equally many.

    Parameters
    ----------
    expected
        [pixel]: the error expected, a standard deviation.
    actual
        [pixel]: image less truth.
    classes
        How many.
    """
    order = np.argsort(expected)
    results = []
    for pixels in np.array_split(order, classes):
        of_expected = _root_mean_square(expected[pixels])
        of_actual = _root_mean_square(actual[pixels])
        results.append(ErrorClass(expected=of_expected, actual=of_actual))
    return results


def fit_calibration(classes: list[ErrorClass]) -> tuple[float, float]:
    """(a, b) of the line actual = a expected^b through the classes, by least squares of logarithms:
    what brings expected errors to those that are made.
    """
    expected = np.log([c.expected for c in classes])
    actual = np.log([c.actual for c in classes])
    slope, offset = np.polyfit(expected, actual, 1)
    return float(np.exp(offset)), float(slope)


def error_ratio(expected: np.ndarray, actual: np.ndarray) -> float:
    """Root mean square of actual errors over that of expected ones: 1 where they are right as a
    whole.
    """
    ratio = (actual**2).mean() / (expected**2).mean()
    return float(np.sqrt(ratio))


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))
