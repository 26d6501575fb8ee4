"""Where the contrast transfer function of an image has its zeros, from the image alone: a fit to the rings of its power spectrum.

The rings (Thon 1966) follow sin^2(chi), chi = a k^2 + b (kx^2 - ky^2) + c 2 kx ky + asin A: `a` is pi lambda times the mean underfocus,
`b` and `c` hold the astigmatism. So fitted, neither voltage nor defocus need be known. Spherical aberration, 0.08 rad at 8 Å and 2.7 mm, is
left out.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from dstnet.core.fourier import frequencies
from dstnet.core.shapes import Image

AMPLITUDE_CONTRAST = 0.08  # of protein in ice, 0.06 to 0.11 by thickness and energy filter
# The search: from 0.3 to 4.5 um at 300 kV, or 0.24 to 3.5 um at 200 kV.
LEAST_RAD_ANGSTROM2, MOST_RAD_ANGSTROM2 = 185.0, 2790.0
STEP_RAD_ANGSTROM2 = 6.0  # moves chi by a quarter of a radian at 5 Å
BAND_ANGSTROM = 20.0, 5.0  # coarser, the particles' own shape makes rings
RINGS, SECTORS = 256, 12
DEGREE = 2  # of the polynomials in k that background and rings' height follow
STARTS = 5  # phases from which the astigmatism is looked for
LEAST_TERMS = 2000  # an image of some 100 pixels of 2 Å a side; of fewer, single terms look like rings
# Gain in chi^2, by three terms chosen among 435 phases, that noise alone does not bring: about 20 from the largest of so many,
# and up to 60 in small images, where terms are few and their powers far from normal.
LEAST_GAIN = 75.0


@dataclass(frozen=True)
class ThonFit:
    """The even part of an image's phase chi, without the amplitude contrast's; see the module."""

    mean_rad_angstrom2: float
    straight_rad_angstrom2: float  # b
    oblique_rad_angstrom2: float  # c
    gain: float  # in chi^2 over a spectrum without rings

    def phase(self, shape: tuple[int, int], pixel_size_angstrom: float, device: torch.device | None = None) -> Tensor:
        """chi in rad, amplitude contrast included, on the ``rfft2`` grid of images of `shape`."""
        ky, kx = frequencies(shape, pixel_size_angstrom, device)
        phase = self.mean_rad_angstrom2 * (kx * kx + ky * ky)
        phase = phase + self.straight_rad_angstrom2 * (kx * kx - ky * ky) + self.oblique_rad_angstrom2 * 2 * kx * ky
        return phase + math.asin(AMPLITUDE_CONTRAST)


def fit_thon_rings(image: Image, pixel_size_angstrom: float, finest_per_angstrom: float | None = None) -> ThonFit | None:
    """Fit the rings of an image's power spectrum; None where there are none that stand out.

    Parameters
    ----------
    image
        A sum or single frame, [y, x]; its noise may have any smooth spectrum.
    pixel_size_angstrom
        Its pixel.
    finest_per_angstrom
        Where the image's band ends, if before its grid's.
    """
    k, turn, power, count = _polar_power(image, pixel_size_angstrom, finest_per_angstrom)
    if count.sum() < LEAST_TERMS:
        return None
    scaled = (k - k.min()) / (k.max() - k.min()) * 2 - 1
    smooth = np.polynomial.chebyshev.chebvander(scaled, DEGREE)
    # The mean of n exponentially distributed terms has a deviation of itself / sqrt(n); itself, from a fit that knows no rings.
    level = np.exp(smooth @ np.linalg.lstsq(smooth * np.sqrt(count)[:, None], np.log(power) * np.sqrt(count), rcond=None)[0])
    weight = np.sqrt(count) / level
    offset = math.asin(AMPLITUDE_CONTRAST)
    q, _ = np.linalg.qr(smooth * weight[:, None])
    target = power * weight
    target = target - q @ (q.T @ target)

    def gain(mean: float, straight: float = 0.0, oblique: float = 0.0) -> float:
        """By how much chi^2 falls when rings of these phases are added to the smooth background; 0 where they would be negative."""
        rings = np.sin(k * k * (mean + straight * np.cos(turn) + oblique * np.sin(turn)) + offset) ** 2 - 0.5
        columns = smooth * (rings * weight)[:, None]
        columns = columns - q @ (q.T @ columns)
        height = np.linalg.lstsq(columns, target, rcond=None)[0]
        if (smooth @ height * weight**2 * level).sum() <= 0:
            return 0.0
        return float(target @ columns @ height)

    phases = np.arange(LEAST_RAD_ANGSTROM2, MOST_RAD_ANGSTROM2, STEP_RAD_ANGSTROM2)
    gains = np.array([gain(phase) for phase in phases])
    peaks = np.flatnonzero((gains >= np.roll(gains, 1)) & (gains >= np.roll(gains, -1)))
    best: tuple[float, ...] = (0.0,)
    for start in phases[peaks[np.argsort(gains[peaks])[-STARTS:]]]:
        simplex = [[start + STEP_RAD_ANGSTROM2, 0.0, 0.0], [start, 10.0, 0.0], [start, 0.0, 10.0], [start, 0.0, 0.0]]
        found = minimize(
            lambda v: -gain(*v), simplex[3], method="Nelder-Mead", options={"initial_simplex": simplex, "fatol": 0.1, "xatol": 0.1}
        )
        best = max(best, (-float(found.fun), *map(float, found.x)))
    return ThonFit(*best[1:], gain=best[0]) if best[0] > LEAST_GAIN else None


def _polar_power(
    image: Image, pixel_size_angstrom: float, finest_per_angstrom: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean frequency in 1/Å, twice the angle, mean power and number of terms of the cells of rings and sectors within the band."""
    spectrum = torch.fft.rfft2(image - image.mean())
    ky, kx = frequencies((image.shape[0], image.shape[1]), pixel_size_angstrom, image.device)
    k = torch.hypot(ky, kx)
    low, high = 1 / BAND_ANGSTROM[0], min(1 / BAND_ANGSTROM[1], 0.45 / pixel_size_angstrom, finest_per_angstrom or math.inf)
    if high < 1.2 * low:
        return np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0)
    inside = (k > low) & (k < high) & (kx > 0)  # the first column holds conjugates
    angle = torch.atan2(ky.expand_as(k)[inside], kx.expand_as(k)[inside])  # -90 to 90 degrees
    sector = ((angle / math.pi + 0.5) * SECTORS).long().clamp(0, SECTORS - 1)
    ring = ((k[inside] - low) / (high - low) * RINGS).long().clamp(max=RINGS - 1)
    cell = ring * SECTORS + sector

    def total(values: Tensor) -> np.ndarray:
        sums = torch.zeros(RINGS * SECTORS, dtype=torch.float64, device=image.device)
        return sums.index_add_(0, cell, values.double()).cpu().numpy()

    count, power = total(torch.ones_like(angle)), total(spectrum[inside].abs().square())
    there = power > 0
    count = count[there]
    power = power[there] / count
    turn = (np.tile(np.arange(SECTORS), RINGS)[there] + 0.5) / SECTORS * 2 * math.pi - math.pi
    return total(k[inside])[there] / count, turn, power, count
