"""How particles stand out of their surroundings.

Smoothing raises such a ratio without a particle more to be seen, so it means something only beside
that of a Gaussian which lets as much through.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from dstnet.core.shapes import Image
from dstnet.metrics.rings import Rings

# In diameters from the centre: what is the particle, and what its surroundings.
PARTICLE = 0.4
AROUND_FROM, AROUND_TO = 0.6, 1.0
LIMIT_DB = 40.0  # of a pair of regions; a constant image has -40 dB
# Deviations of the Gaussians tried, in pixels: 0 and from a third to 33.
SIGMAS_PX = (0.0, *np.geomspace(1 / 3, 33, 121).tolist())


def particle_contrast_db(image: Image, centres_px: np.ndarray, diameter_px: float) -> float:
    """Signal-to-noise ratio of particles in decibels: mean over them of 10 log10((m_s - m_b)^2 /
    s_b^2), m and s mean and deviation within the particle and in its surroundings (Bepler et al.,
    Nat. Commun. 11, 5208 (2020)). There regions were drawn by hand; here they are a disc, and a
    ring around it without the pixels near other particles.

    White noise alone has 10 log10(1 / n_s + 1 / n_b) - 5.5 dB for regions of so many pixels.

    Parameters
    ----------
    image
        [y, x]; its scale, sign and mean are free.
    centres_px
        [particle, 2] (y, x). Those without half a disc's area of surroundings, or beyond an edge,
        are left out.
    diameter_px
        Of the particles.

    Returns
    -------
    float
        Not a number where no particle is left.
    """
    pixels = image.cpu().numpy().astype(np.float64)
    ratios = []
    for particle, around in _regions(pixels, centres_px, diameter_px):
        contrast = (particle.mean() - around.mean()) ** 2
        noise = around.var()
        # Of a constant image both are nothing but rounding.
        least = 1e-12 * (pixels.var() + 1e-12 * pixels.mean() ** 2) + 1e-300
        ratio = max(contrast - least, 0) / max(noise, least)
        in_db = 10 * math.log10(ratio) if ratio > 0 else -LIMIT_DB
        ratios.append(min(max(in_db, -LIMIT_DB), LIMIT_DB))
    return float(np.mean(ratios)) if ratios else math.nan


def _regions(
    pixels: np.ndarray, centres_px: np.ndarray, diameter_px: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pixels of each particle and of its surroundings."""
    is_free = np.ones(pixels.shape, bool)
    for centre in centres_px:
        window, away = _window(pixels.shape, centre, AROUND_FROM * diameter_px)
        is_free[window] &= away >= AROUND_FROM * diameter_px
    last = np.array(pixels.shape) - 1
    for centre in centres_px:
        to_edge = np.minimum(centre, last - centre).min()
        if to_edge < PARTICLE * diameter_px:
            continue
        window, away = _window(pixels.shape, centre, AROUND_TO * diameter_px)
        particle = pixels[window][away <= PARTICLE * diameter_px]
        around = pixels[window][is_free[window] & (away <= AROUND_TO * diameter_px)]
        if len(around) >= len(particle) / 2:
            yield particle, around


def _window(
    shape: tuple[int, ...], centre: np.ndarray, reach: float
) -> tuple[tuple[slice, ...], np.ndarray]:
    """The part of an image around a place, and how far from it its pixels are."""
    window = tuple(
        slice(max(0, math.floor(at - reach)), max(0, min(length, math.ceil(at + reach) + 1)))
        for at, length in zip(centre, shape, strict=True)
    )
    y, x = (np.arange(side.start, max(side.start, side.stop)) for side in window)
    return window, np.hypot(y[:, None] - centre[0], x - centre[1])


def nearest_gaussian(rings: Rings, pixel_size_angstrom: float) -> float:
    """Deviation in pixels of the Gaussian that makes of the sum what is nearest to an image: among
    `SIGMAS_PX` the one whose filtered sum correlates best with it, so that it lets about the same
    through. 0, no filter, for the sum itself.

    Parameters
    ----------
    rings
        Of the image and the sum.
    pixel_size_angstrom
        Of both.
    """
    k = rings.frequency * pixel_size_angstrom
    powers = rings.powers
    best = []
    for sigma in SIGMAS_PX:
        transfer = torch.exp(-2 * (math.pi * sigma * k) ** 2)
        cross = float((transfer * powers.cross).sum())
        power = float((transfer**2 * powers.other).sum())
        best.append((abs(cross) / math.sqrt(power) if power > 0 else 0.0, -sigma))
    return -max(best)[1]
