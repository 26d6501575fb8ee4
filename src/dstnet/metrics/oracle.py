"""What the best linear filters leave when they know the truth, as no user does: a mark to measure
methods by.
"""

import math
from collections.abc import Sequence

import torch

from dstnet.core.fourier import apply_transfer, radial_frequency
from dstnet.core.shapes import Image
from dstnet.metrics.image import moved_truth, residual_after_best_shift
from dstnet.metrics.spectral import ring_powers

SIGMAS_PX = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
# The corners of the Fourier plane lie at 0.707 cycles per pixel: all its terms are in some ring.
HIGHEST_FREQUENCY = 0.75


def gaussian_filtered(image: Image, sigma_px: float) -> Image:
    """An image less its mean, averaged by a Gaussian of deviation `sigma_px`."""
    k = radial_frequency((image.shape[0], image.shape[1]))
    transfer = torch.exp(-2 * (math.pi * sigma_px * k) ** 2)
    return apply_transfer(image - image.mean(), transfer)


def best_gaussian(
    image: Image,
    truth: Image,
    sigmas_px: Sequence[float] = SIGMAS_PX,
) -> tuple[float, float]:
    """Least residual energy, after the best shift, over Gaussians, and the deviation in pixels that
    leaves it.
    """
    swept = []
    for sigma in sigmas_px:
        smooth = gaussian_filtered(image, sigma)
        left = residual_after_best_shift(smooth, truth)
        swept.append((left, sigma))
    return min(swept)


def oracle_wiener(image: Image, truth: Image, rings: int = 200) -> float:
    """Residual energy, after the best shift, that `oracle_wiener_filtered` leaves."""
    return residual_after_best_shift(oracle_wiener_filtered(image, truth, rings), truth)


def oracle_wiener_filtered(image: Image, truth: Image, rings: int = 200) -> Image:
    """An image less its mean, through the best filter of rings: in each ring,
    <image* truth> / <|image|^2>, from the truth itself.
    """
    shape = (image.shape[0], image.shape[1])
    centred = image - image.mean()
    moved = moved_truth(centred, truth)
    spectrum = torch.fft.rfft2(centred)
    of_truth = torch.fft.rfft2(moved - moved.mean())
    k = radial_frequency(shape)
    ring = (k / HIGHEST_FREQUENCY * rings).long()
    powers = ring_powers(spectrum, of_truth, ring, rings)
    transfer = powers.transfer()[ring]
    return apply_transfer(centred, transfer)
