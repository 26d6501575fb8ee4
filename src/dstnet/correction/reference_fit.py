"""How a gain or dark reference lies to the frames: which of the eight orientations fits the frames'
own pattern of pixels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.ndimage import uniform_filter

from dstnet.correction.bad_pixels import trimmed_mean_std
from dstnet.correction.references import on_grid, orient
from dstnet.correction.settings import CorrectionSettings
from dstnet.errors import BadInputError

CERTAIN = 6.0  # standard errors: chance reaches them once in 10^9


@dataclasses.dataclass(frozen=True)
class ReferenceFit:
    """How well a reference fits the frames in one orientation.

    Attributes
    ----------
    settings
        The turns (and, of a gain, the inversion).
    correlation
        Of the pixel-to-pixel pattern with what the reference predicts, 1 for frames without noise;
        not below 0 for a gain.
    standard_errors
        The correlation over its standard error where there is none.
    """

    settings: CorrectionSettings
    correlation: float
    standard_errors: float

    @property
    def options(self) -> str:
        """The command's options for it."""
        settings = self.settings
        options = []
        if settings.gain_transpose:
            options.append("--gain-transpose")
        if settings.gain_rotate:
            options.append(f"--gain-rotate {settings.gain_rotate}")
        if settings.gain_flip:
            options.append(f"--gain-flip {settings.gain_flip}")
        if settings.gain_invert:
            options.append("--gain-invert")
        return " ".join(options)


# Each of the eight in the way that takes the fewest options.
_ORIENTATIONS: tuple[dict, ...] = (
    {},
    {"gain_rotate": 90},
    {"gain_rotate": 180},
    {"gain_rotate": 270},
    {"gain_flip": "up-down"},
    {"gain_flip": "left-right"},
    {"gain_transpose": True},
    {"gain_transpose": True, "gain_rotate": 180},
)


def fit_gain(
    mean: np.ndarray, gain: np.ndarray, names: tuple[str, str] = ("the movie", "the gain")
) -> list[ReferenceFit]:
    """The orientations of `gain` in which its size fits, the best first.

    A pixel of sensitivity 1 / gain shows that much less: what is correlated is the pixel-to-pixel
    part of the mean raw image, relative to its surroundings, with minus that of the gain's
    logarithm; plus it, and the gain is to be inverted.

    Parameters
    ----------
    mean
        Mean of raw frames [y, x], of one movie or, better, of many; less the dark, where there is
        one.
    gain
        Gain reference [y, x]; 0 marks a defect.
    names
        Of movie and reference, for messages.

    Raises
    ------
    BadInputError
        If there is no pattern to compare, or no orientation has the frames' size.
    """
    fits = []
    alive = gain > 0
    for found in _correlations(_relative(mean), _logarithm(gain), alive, names):
        inverts = {"gain_invert": found.correlation > 0}
        settings = found.settings.model_copy(update=inverts)
        size = abs(found.correlation)
        fits.append(ReferenceFit(settings, size, abs(found.standard_errors)))
    return sorted(fits, key=lambda fit: -fit.correlation)


def fit_dark(
    mean: np.ndarray, dark: np.ndarray, names: tuple[str, str] = ("the movie", "the dark")
) -> list[ReferenceFit]:
    """The orientations of `dark` in which its size fits, the best first: mean raw image and dark
    share a pattern.

    Parameters
    ----------
    mean
        Mean of raw frames [y, x], as of `fit_gain`.
    dark
        Dark reference [y, x].
    names
        Of movie and reference, for messages.

    Raises
    ------
    BadInputError
        As `fit_gain`.
    """
    fits = _correlations(mean, dark, np.isfinite(dark), names)
    return sorted(fits, key=lambda fit: -fit.correlation)


def why_no_gain_fits(
    odd: np.ndarray, even: np.ndarray, gain: np.ndarray
) -> Literal["corrected", "other", "few"]:
    """Why `fit_gain` found nothing certain in frames whose means, of odd and even ones apart, are
    given.

    "other": both halves show one pixel pattern, so the gain is another camera's (or the specimen
    lay still, full of detail). "corrected": they do not, though a pattern as strong as the gain's
    would show. "few": it would not, for lack of electrons.

    Raises
    ------
    BadInputError
        As `fit_gain`.
    """
    first = _high_passed(_relative(odd))
    second = _high_passed(_relative(even))
    one_error = odd.size**-0.5
    common = _correlation(first.reshape(-1), second.reshape(-1))
    if common > CERTAIN * one_error:
        return "other"
    mean = 0.5 * (first + second)
    noise = float(mean.std())
    pattern = _high_passed(_logarithm(gain))
    of_noise = float(pattern.std()) / noise
    would_show = of_noise > 2 * CERTAIN * one_error
    return "corrected" if would_show else "few"


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, of values [n]."""
    matrix = np.corrcoef(a, b)
    return float(matrix[0, 1])


def _relative(mean: np.ndarray) -> np.ndarray:
    """Pixels over their surroundings."""
    local = uniform_filter(mean, 5, mode="nearest", output=np.float64)
    # Dead areas have no surroundings to be relative to.
    least = max(0.1 * float(np.median(local)), 1e-12)
    return mean / np.maximum(local, least)


def _logarithm(gain: np.ndarray) -> np.ndarray:
    return np.log(gain, out=np.zeros(gain.shape), where=gain > 0)


def _high_passed(image: np.ndarray) -> np.ndarray:
    """What differs from pixel to pixel; hot ones, which would outweigh all others, cut."""
    local = uniform_filter(image, 5, mode="nearest", output=np.float64)
    detail = image - local
    _, deviation = trimmed_mean_std(detail)
    limit = 3 * deviation
    if not limit > 0:
        raise BadInputError(
            "the frames or the reference are smooth: there is no pattern of pixels that could be"
            " compared"
        )
    return detail.clip(-limit, limit)


def _correlations(
    pattern: np.ndarray,
    reference: np.ndarray,
    valid: np.ndarray,
    names: tuple[str, str],
) -> list[ReferenceFit]:
    """Correlation, with its sign, in each orientation that fits."""
    pattern = _high_passed(pattern)
    reference = _high_passed(reference)
    shape = (pattern.shape[0], pattern.shape[1])
    # A reference that is repeated has no more of them.
    independent = int(valid.sum())
    error_by_chance = independent**-0.5
    fits = []
    refused: BadInputError | None = None
    for orientation in _ORIENTATIONS:
        settings = CorrectionSettings(**orientation)
        try:
            candidate = on_grid(orient(reference, settings), shape, *names)
            where = on_grid(orient(valid, settings), shape, *names)
        except BadInputError as error:
            refused = refused or error
            continue
        correlation = _correlation(pattern[where], candidate[where])
        standard_errors = correlation / error_by_chance
        fits.append(ReferenceFit(settings, correlation, standard_errors))
    if not fits and refused is not None:
        raise refused
    return fits


def best_fit(fits: Sequence[ReferenceFit]) -> ReferenceFit | None:
    """The first of `fits` where it fits beyond chance and better than the second beyond chance;
    else None.
    """
    first = fits[0]
    margin = first.standard_errors
    if len(fits) > 1:
        margin = first.standard_errors - fits[1].standard_errors
    is_certain = min(first.standard_errors, margin) > CERTAIN
    return first if is_certain else None
