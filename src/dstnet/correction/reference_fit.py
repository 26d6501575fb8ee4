"""How a gain or dark reference lies to the frames: which of the eight orientations fits the frames'
own pattern of pixels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.ndimage import uniform_filter

from dstnet.correction.corrections import CorrectionSettings, on_grid, orient, trimmed_mean_std
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
        s = self.settings
        given = ["--gain-transpose"] * s.gain_transpose + [f"--gain-rotate {s.gain_rotate}"] * bool(
            s.gain_rotate
        )
        given += [f"--gain-flip {s.gain_flip}"] * bool(s.gain_flip) + ["--gain-invert"] * bool(
            s.gain_invert
        )
        return " ".join(given)


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
    for correlation, error, settings in _correlations(
        _relative(mean), _logarithm(gain), gain > 0, names
    ):
        fits.append(
            ReferenceFit(
                settings.model_copy(update={"gain_invert": correlation > 0}),
                abs(correlation),
                abs(correlation) / error,
            )
        )
    return sorted(fits, key=lambda fit: -fit.correlation)


def fit_dark(
    mean: np.ndarray, dark: np.ndarray, names: tuple[str, str] = ("the movie", "the dark")
) -> list[ReferenceFit]:
    """The orientations of `dark` in which its size fits, the best first: mean raw image and dark
    share a pattern. As `fit_gain`.
    """
    fits = [
        ReferenceFit(s, r, r / error)
        for r, error, s in _correlations(mean, dark, np.isfinite(dark), names)
    ]
    return sorted(fits, key=lambda fit: -fit.correlation)


def why_no_gain_fits(
    odd: np.ndarray, even: np.ndarray, gain: np.ndarray
) -> Literal["corrected", "other", "few"]:
    """Why `fit_gain` found nothing certain in frames whose means, of odd and even ones apart, are
    given.

    "other": both halves show one pixel pattern, so the gain is another camera's (or the specimen
    lay still, full of detail). "corrected": they do not, though a pattern as strong as the gain's
    would show. "few": it would not, for lack of electrons.
    """
    halves = [_high_passed(_relative(half)) for half in (odd, even)]
    pixels = odd.size**0.5
    if np.corrcoef(halves[0].reshape(-1), halves[1].reshape(-1))[0, 1] * pixels > CERTAIN:
        return "other"
    noise = float((0.5 * (halves[0] + halves[1])).std())
    return (
        "corrected"
        if float(_high_passed(_logarithm(gain)).std()) / noise * pixels > 2 * CERTAIN
        else "few"
    )


def _relative(mean: np.ndarray) -> np.ndarray:
    """Pixels over their surroundings."""
    local = uniform_filter(mean, 5, mode="nearest", output=np.float64)
    # Dead areas have no surroundings to be relative to.
    return mean / np.maximum(local, max(0.1 * float(np.median(local)), 1e-12))


def _logarithm(gain: np.ndarray) -> np.ndarray:
    return np.log(gain, out=np.zeros(gain.shape), where=gain > 0)


def _high_passed(image: np.ndarray) -> np.ndarray:
    """What differs from pixel to pixel; hot ones, which would outweigh all others, cut."""
    detail = image - uniform_filter(image, 5, mode="nearest", output=np.float64)
    limit = 3 * trimmed_mean_std(detail)[1]
    if not limit > 0:
        raise BadInputError(
            "the frames or the reference are smooth: there is no pattern of pixels that could be"
            " compared"
        )
    return detail.clip(-limit, limit)


def _correlations(
    pattern: np.ndarray, reference: np.ndarray, valid: np.ndarray, names: tuple[str, str]
):
    """Correlation, its standard error, and the settings of each orientation that fits."""
    pattern, reference = _high_passed(pattern), _high_passed(reference)
    independent = int(valid.sum())  # a reference that is repeated has no more of them
    results, refused = [], None
    for orientation in _ORIENTATIONS:
        settings = CorrectionSettings(**orientation)
        try:
            candidate, where = (
                on_grid(orient(a, settings), (pattern.shape[0], pattern.shape[1]), *names)
                for a in (reference, valid)
            )
        except BadInputError as error:
            refused = refused or error
            continue
        correlation = float(np.corrcoef(pattern[where], candidate[where])[0, 1])
        results.append((correlation, independent**-0.5, settings))
    if not results and refused is not None:
        raise refused
    return results


def best_fit(fits: Sequence[ReferenceFit]) -> ReferenceFit | None:
    """The first of `fits` where it fits beyond chance and better than the second beyond chance;
    else None.
    """
    first, second = fits[0], fits[1] if len(fits) > 1 else None
    margin = first.standard_errors - (second.standard_errors if second else 0.0)
    return first if min(first.standard_errors, margin) > CERTAIN else None
