"""How a gain or dark reference lies to the frames: which of the eight orientations fits the frames'
own pattern of pixels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.ndimage import uniform_filter

from dstnet.core.shapes import Shape
from dstnet.correction.bad_pixels import trimmed_mean_std
from dstnet.correction.references import grid_factor, on_grid, orient
from dstnet.correction.settings import CorrectionSettings
from dstnet.errors import BadInputError

CERTAIN = 6.0  # standard errors: chance reaches them once in 10^9
_CENTRE = 1024  # so many pixels a side tell what there is to tell in a few frames
_PARTS = 8  # of the field, a side


@dataclasses.dataclass(frozen=True)
class ReferenceFit:
    """How well a reference fits the frames in one orientation.

    Attributes
    ----------
    settings
        The turns (and, of a gain, the inversion).
    correlation
        Of the pixel-to-pixel pattern with what the reference predicts, 1 for frames without noise.
    standard_errors
        The correlation over its standard error where there is none.
    slope
        The frames' pattern over the one that the reference predicts: 1 where they hold all of it.
    parts
        What each part of the field adds to the correlation, [y, x], but for streaks along rows and
        columns, which have no error of their own: frames and references of any camera have them.
    """

    settings: CorrectionSettings
    correlation: float
    standard_errors: float
    slope: float
    parts: np.ndarray = dataclasses.field(repr=False, compare=False)

    @property
    def options(self) -> str:
        """The command's options for it, of frames that are multiplied with a gain unless told."""
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

    def opposite(self) -> "ReferenceFit":
        """Of a gain, the same turns in the other sense."""
        inverts = {"gain_invert": not self.settings.gain_invert}
        return ReferenceFit(
            self.settings.model_copy(update=inverts),
            -self.correlation,
            -self.standard_errors,
            -self.slope,
            -self.parts,
        )


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
    mean: np.ndarray,
    gain: np.ndarray,
    names: tuple[str, str] = ("the movie", "the gain"),
    shape: Shape | None = None,
) -> list[ReferenceFit]:
    """The orientations of `gain` in which its size fits, the best first.

    A pixel of sensitivity 1 / gain shows that much less: what is correlated is the pixel-to-pixel
    part of the mean raw image, relative to its surroundings, with minus that of the gain's
    logarithm; plus it, and the gain is to be inverted. Each orientation is given in the sense that
    fits better.

    Parameters
    ----------
    mean
        Mean of raw frames [y, x], of one movie or, better, of many; less the dark, where there is
        one.
    gain
        Gain reference [y, x]; 0 marks a defect.
    names
        Of movie and reference, for messages.
    shape
        (y, x) of the frames, where `mean` is their `central` part; None: it is all of them.

    Raises
    ------
    BadInputError
        If there is no pattern to compare, or no orientation has the frames' size.
    """
    part = gain if shape is None else central(gain, shape)
    inverts = {"gain_invert": True}
    fits = []
    for found in _correlations(
        _relative(mean), _logarithm(part), part > 0, names, shape or mean.shape, gain.shape
    ):
        settings = found.settings.model_copy(update=inverts)
        divided = dataclasses.replace(found, settings=settings)
        fits.append(divided if found.correlation > 0 else divided.opposite())
    return sorted(fits, key=lambda fit: -fit.correlation)


def fit_dark(
    mean: np.ndarray,
    dark: np.ndarray,
    names: tuple[str, str] = ("the movie", "the dark"),
    shape: Shape | None = None,
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
    shape
        As of `fit_gain`.

    Raises
    ------
    BadInputError
        As `fit_gain`.
    """
    part = dark if shape is None else central(dark, shape)
    fits = _correlations(mean, part, np.isfinite(part), names, shape or mean.shape, dark.shape)
    return sorted(fits, key=lambda fit: -fit.correlation)


def central(image: np.ndarray, shape: Shape) -> np.ndarray:
    """The middle of a frame of (y, x) `shape`, or of a reference of such frames, as a view: a
    square kilopixel or little more, which all turns leave in its place.
    """
    factor = max(max(shape) // max(image.shape), 1)
    kept = []
    for side in image.shape:
        margin = max(side * factor - _CENTRE, 0) // 2
        margin = margin // 4 * 4 // factor  # whole pixels of a reference that is repeated
        kept.append(slice(margin, side - margin))
    return image[tuple(kept)]


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
    shape: Shape,
    reference_shape: tuple[int, ...],
) -> list[ReferenceFit]:
    """Correlation, with its sign, in each orientation that fits: of frames of `shape` with a
    reference of `reference_shape`, or of the middles of both.
    """
    pattern = _high_passed(pattern)
    even = pattern - pattern.mean(0) - pattern.mean(1, keepdims=True)
    reference = _high_passed(reference)
    # A reference that is repeated has no more of them.
    independent = int(valid.sum())
    error_by_chance = independent**-0.5
    complete = np.broadcast_to(np.zeros(1, bool), reference_shape)
    fits = []
    refused: BadInputError | None = None
    for orientation in _ORIENTATIONS:
        settings = CorrectionSettings(**orientation)
        try:
            grid_factor(orient(complete, settings).shape, shape, *names)
            candidate = on_grid(orient(reference, settings), pattern.shape, *names)
            where = on_grid(orient(valid, settings), pattern.shape, *names)
        except BadInputError as error:
            refused = refused or error
            continue
        of_pattern = _deviations(pattern, where)
        of_candidate = _deviations(candidate, where)
        own = float(np.square(of_candidate).sum())
        size = (own * float(np.square(of_pattern).sum())) ** 0.5
        product = float((of_pattern * of_candidate).sum())
        correlation = product / size
        fits.append(
            ReferenceFit(
                settings,
                correlation,
                correlation / error_by_chance,
                product / own,
                _part_sums(np.where(where, even, 0) * of_candidate) / size,
            )
        )
    if not fits and refused is not None:
        raise refused
    return fits


def _deviations(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """What an image differs by from its mean; 0 but where it counts."""
    return np.where(where, image - image.mean(where=where), 0)


def _part_sums(image: np.ndarray) -> np.ndarray:
    """Sums over the parts of a field, [y, x]."""
    height, width = image.shape
    rows = np.linspace(0, height, _PARTS, endpoint=False).astype(int)
    columns = np.linspace(0, width, _PARTS, endpoint=False).astype(int)
    bands = np.add.reduceat(image, rows, axis=0)
    return np.add.reduceat(bands, columns, axis=1)


def is_same_turn(first: CorrectionSettings, second: CorrectionSettings) -> bool:
    """Whether both turn a reference to the same orientation."""
    pixels = np.arange(6).reshape(2, 3)
    return np.array_equal(orient(pixels, first), orient(pixels, second))


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
