"""A picker that knows the particle's diameter alone.

Methods are compared by what it finds in their images: it has no template, nothing is learnt, and
its numbers are fixed, so that none of them can favour a method. Particles are dark, as everywhere
here.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dstnet.core.shapes import Image
from dstnet.errors import SettingsError

# All lengths are in radii of the particle.
# Deviation of the Gaussian whose mean is taken out: illumination, thicker ice.
BACKGROUND = 1.5
# Deviations of a difference of Gaussians, as of Voss et al., J. Struct. Biol. 166, 205 (2009): dark
# inside, bright around.
INNER, OUTER = 0.55, 1.1
PEAK_WINDOW = 1.4  # side of the square in which a peak is the largest
BORDER = 1.0  # no particle is looked for so near the image's edge

# The image is binned to so many pixels a diameter, or up to twice as many: a disc of 30 is found as
# well as one of 80.
PIXELS_A_DIAMETER = 30
LEAST_DIAMETER_PX = 4.0
# Deviations at which pixels are cut off: ice contamination, and what gains leave.
LARGEST_DEVIATION = 6.0


@dataclass(frozen=True)
class Picks:
    """Particle centres, the surest first.

    Attributes
    ----------
    centres_px
        [pick, 2]: (y, x) in pixels of the image; the first pixel's centre is (0, 0).
    scores
        [pick]: falling.
    low_px, high_px
        [2], (y, x): no particle was looked for below the first or above the second.
    """

    centres_px: np.ndarray
    scores: np.ndarray
    low_px: np.ndarray
    high_px: np.ndarray

    def __len__(self) -> int:
        return len(self.centres_px)

    def searched(self, centres_px: np.ndarray) -> np.ndarray:
        """Which of some centres [centre, 2] lie where particles were looked for."""
        is_above = centres_px > self.low_px
        is_below = centres_px < self.high_px
        inside = is_above & is_below
        return np.logical_and(inside[:, 0], inside[:, 1])


def pick_blobs(image: Image, diameter_px: float) -> Picks:
    """Dark, round particles of an image.

    Parameters
    ----------
    image
        [y, x], in any unit.
    diameter_px
        Of the particle, in pixels.

    Raises
    ------
    SettingsError
        If the diameter is not one that the image can hold.
    """
    shortest = min(image.shape)
    if not LEAST_DIAMETER_PX <= diameter_px <= shortest / 2:
        raise SettingsError(
            f"particles of {diameter_px:.4g} pixels cannot be picked in an image of"
            f" {image.shape[0]} x {image.shape[1]}; give a diameter from {LEAST_DIAMETER_PX:g} to"
            f" {shortest // 2} pixels"
        )
    step = max(1, int(diameter_px // PIXELS_A_DIAMETER))
    pixels = image.cpu().numpy().astype(np.float64)
    binned = _binned(pixels, step)
    radius = diameter_px / step / 2
    response = blob_response(binned, radius)
    peaks = _peaks(response, radius)
    scores = response[peaks[:, 0], peaks[:, 1]]
    order = np.argsort(-scores)
    low, high = _searched(response, radius)
    return Picks(
        centres_px=_unbinned(peaks[order], step),
        scores=scores[order],
        low_px=_unbinned(low, step),
        high_px=_unbinned(high, step),
    )


def blob_response(image: np.ndarray, radius_px: float) -> np.ndarray:
    """How much each place [y, x] of an image looks like the centre of a dark disc, in deviations of
    the image; 0 everywhere in a constant one.
    """
    background = ndimage.gaussian_filter(image, radius_px * BACKGROUND)
    flat = image - background
    deviation = flat.std()
    if not deviation > 0:
        return np.zeros_like(flat)
    in_deviations = flat / deviation
    unit = np.clip(in_deviations, -LARGEST_DEVIATION, LARGEST_DEVIATION)
    inner = ndimage.gaussian_filter(unit, radius_px * INNER)
    outer = ndimage.gaussian_filter(unit, radius_px * OUTER)
    return outer - inner


def _searched(response: np.ndarray, radius_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Where particles are looked for: the least and the largest place, each (y, x)."""
    border = radius_px * BORDER
    low = np.array([border, border])
    high = np.array(response.shape) - border
    return low, high


def _peaks(response: np.ndarray, radius_px: float) -> np.ndarray:
    """Places [peak, 2] where a response is positive and the largest of its surroundings."""
    window = int(radius_px * PEAK_WINDOW)
    largest = ndimage.maximum_filter(response, window)
    is_peak = (response == largest) & (response > 0)
    peaks = np.argwhere(is_peak)
    low, high = _searched(response, radius_px)
    inside = (peaks > low) & (peaks < high)
    is_searched = inside.all(axis=1)
    return peaks[is_searched]


def _binned(image: np.ndarray, step: int) -> np.ndarray:
    """Means of squares of `step` pixels a side; rows and columns that fill none are left out."""
    if step == 1:
        return image
    height, width = image.shape
    rows = height // step
    columns = width // step
    used = image[: rows * step, : columns * step]
    squares = used.reshape(rows, step, columns, step)
    return squares.mean((1, 3))


def _unbinned(places: np.ndarray, step: int) -> np.ndarray:
    """From pixels of the binned image to those of the image; centres of pixels are whole numbers in
    both.
    """
    return (places + 0.5) * step - 0.5
