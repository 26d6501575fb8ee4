"""Which band of frequencies an image has noise in, how that noise falls, and the image brought to white noise over the whole band.

People have sums that were binned, low-passed or saved as pictures. Where such an image holds nothing, `dstnet.movie.normalise` would measure
rounding as its noise: a picture low-passed to 40 Å shows particles of seventy times that. So the edge of the band that holds noise is looked
for. The image is put on the network's grid and what lies beyond the edge filled with white noise of the level just inside it. A low-passed
image is divided by its filter first, a Gaussian.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dstnet.core.fourier import crop_spectrum, inverse, radial_frequency
from dstnet.core.shapes import Image, Stack

RINGS = 200
FINEST_PER_ANGSTROM = 0.25  # finer is not looked at
FLOOR_BAND = 0.8, 0.97  # of the finest: where a low-passed image holds rounding alone
CEILING_BAND = 1 / 150, 1 / 20  # where images hold most, in 1/Å
# Sums as cameras give them have at most some hundred times the white noise's power in that band; low-passed ones a million times.
LOW_PASSED, STANDS_OUT = 300.0, 100.0
# What a low-passed image has at so coarse a detail is taken for so many times its noise.
COARSE_ANGSTROM, COARSE_OVER_NOISE = 120.0, 10.0


@dataclass(frozen=True)
class NoiseBand:
    """Where an image has noise: up to `edge` (1/Å), of power falling as exp(-b k^2); `plain` where nothing needs to be done about it."""

    fall_angstrom2: float
    edge_per_angstrom: float
    plain: bool

    def transfer(self, k: Tensor) -> Tensor:
        """What the image was filtered by, 1 at coarse detail: real, on frequencies `k` in 1/Å, and nothing beyond the edge."""
        low = torch.exp(-0.5 * self.fall_angstrom2 * k.clamp(max=self.edge_per_angstrom).square())
        return low * (0.5 + (self.edge_per_angstrom - k) / (0.1 * self.edge_per_angstrom)).clamp(0, 1)


def noise_band(image: Image, pixel_size_angstrom: float) -> NoiseBand:
    """The band of one image."""
    k, power, count = _rings(image, pixel_size_angstrom)
    finest = min(0.5 / pixel_size_angstrom, FINEST_PER_ANGSTROM)
    floor = np.median(power[(k > FLOOR_BAND[0] * finest) & (k < FLOOR_BAND[1] * finest)])
    middle = (k > CEILING_BAND[0]) & (k < CEILING_BAND[1])
    edge = FLOOR_BAND[1] * finest
    low_passed = bool(middle.any()) and power[middle].max() > LOW_PASSED * floor
    if low_passed:
        smooth = np.convolve(np.log(power), np.ones(3) / 3, mode="same")
        down = np.flatnonzero((smooth < math.log(STANDS_OUT * floor)) & (k > CEILING_BAND[0]))
        edge = k[max(1, down[0]) - 1]
    fall = 0.0
    if low_passed:
        # What the filter took is known but for what particles have in its band, so that much of the difference is left to them.
        at = [float(np.interp(q, k, np.log(power))) for q in (1 / COARSE_ANGSTROM, edge)]
        fall = max(0.0, (at[0] - math.log(COARSE_OVER_NOISE) - at[1]) / (edge**2 - COARSE_ANGSTROM**-2))
    return NoiseBand(fall, float(edge), plain=not low_passed and finest >= 0.9 * FINEST_PER_ANGSTROM)


def whitened(fractions: Stack, pixel_size_angstrom: float, band: NoiseBand, working_pixel_angstrom: float, seed: int = 0) -> Stack:
    """Fractions divided by the band's transfer, on the working grid, with white noise of their own beyond its edge."""
    shape = (fractions.shape[1], fractions.shape[2])
    small = tuple(2 * round(n * pixel_size_angstrom / working_pixel_angstrom / 2) for n in shape)
    whole = (2 * small[0], 2 * small[1])  # reflected, so that nothing comes over from the opposite edge
    k = radial_frequency(whole, working_pixel_angstrom, fractions.device)
    edge = band.edge_per_angstrom
    kept = torch.sin(0.5 * math.pi * (0.5 + (edge - k) / (0.1 * edge)).clamp(0, 1))
    filled = (1 - kept.square()).clamp(min=0).sqrt()
    flat = kept * torch.exp(0.5 * band.fall_angstrom2 * k.clamp(max=edge).square())
    ring = (k > 0.8 * edge) & (k < 0.94 * edge)
    random = torch.Generator().manual_seed(seed)
    out = torch.empty(len(fractions), *small)
    for i, fraction in enumerate(fractions):
        spectrum = crop_spectrum(torch.fft.rfft2(reflected(fraction)), (2 * shape[0], 2 * shape[1]), whole) * flat
        level = float(spectrum[ring].abs().square().mean() / (whole[0] * whole[1])) ** 0.5
        noise = torch.randn(small, generator=random).to(fractions.device) * level
        image = inverse(spectrum, whole)[: small[0], : small[1]]
        out[i] = image + _filtered(noise, filled, whole)
    return out


def _filtered(image: Image, transfer: Tensor, whole: tuple[int, int]) -> Image:
    return inverse(torch.fft.rfft2(reflected(image)) * transfer, whole)[: image.shape[0], : image.shape[1]]


def refiltered(image: Image, pixel_size_angstrom: float, band: NoiseBand) -> Image:
    """An image filtered as what `band` was found in was."""
    whole = (2 * image.shape[0], 2 * image.shape[1])
    return _filtered(image, band.transfer(radial_frequency(whole, pixel_size_angstrom, image.device)), whole)


def reflected(image: Image) -> Image:
    """An image continued by its mirror images to twice its sides: periodic without a step."""
    wide = torch.cat((image, image.flip(-1)), -1)
    return torch.cat((wide, wide.flip(-2)), -2)


def _rings(image: Image, pixel: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequency, mean power and number of terms of rings up to Nyquist, under a Hann window (a step at the border has power everywhere)."""
    height, width = image.shape
    window = torch.hann_window(height, device=image.device)[:, None] * torch.hann_window(width, device=image.device)
    window = window / window.square().mean().sqrt()
    power = torch.fft.rfft2((image - image.mean()) * window).abs().square() / (height * width)
    index = (radial_frequency((height, width), device=image.device) / 0.5 * RINGS).long().clamp(max=RINGS).flatten()
    count = torch.bincount(index, minlength=RINGS + 1)[:RINGS].double()
    sums = torch.zeros(RINGS + 1, dtype=torch.float64, device=image.device).index_add_(0, index, power.flatten().double())[:RINGS]
    there = (count > 0).cpu().numpy()
    mean = (sums / count.clamp(min=1)).cpu().numpy()
    k = (np.arange(RINGS) + 0.5) / RINGS * 0.5 / pixel
    return k[there], np.maximum(mean[there], 1e-30), count.cpu().numpy()[there]
