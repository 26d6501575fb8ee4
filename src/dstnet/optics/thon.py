"""Where the contrast transfer function of an image has its zeros, from the image alone: a fit to
the rings of its power spectrum.

The rings (Thon 1966) follow sin^2(chi), chi = a k^2 + b (kx^2 - ky^2) + c 2 kx ky + asin A: `a` is
pi lambda times the mean underfocus, `b` and `c` hold the astigmatism. So fitted, neither voltage
nor defocus need be known. Spherical aberration, 0.08 rad at 8 Å and 2.7 mm, is left out.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from dstnet.core.fourier import frequencies, ring_sum
from dstnet.core.shapes import Image, Shape

AMPLITUDE_CONTRAST = 0.08  # of protein in ice, 0.06 to 0.11 by thickness and energy filter
# The search: from 0.3 to 4.5 um at 300 kV, or 0.24 to 3.5 um at 200 kV.
LEAST_RAD_ANGSTROM2 = 185.0
MOST_RAD_ANGSTROM2 = 2790.0
STEP_RAD_ANGSTROM2 = 6.0  # moves chi by a quarter of a radian at 5 Å
# The band of the fit; coarser, the particles' own shape makes rings.
COARSEST_ANGSTROM = 20.0
FINEST_ANGSTROM = 5.0
RINGS = 256
SECTORS = 12
DEGREE = 2  # of the polynomials in k that background and rings' height follow
STARTS = 5  # phases from which the astigmatism is looked for
# An image of some 100 pixels of 2 Å a side; of fewer, single terms look like rings.
LEAST_TERMS = 2000
# Gain in chi^2, by three terms chosen among 435 phases, that noise alone does not bring: about 20
# from the largest of so many, and up to 60 in small images, where terms are few and their powers
# far from normal.
LEAST_GAIN = 75.0


@dataclass(frozen=True)
class ThonFit:
    """The even part of an image's phase chi, without the amplitude contrast's; see the module."""

    mean_rad_angstrom2: float
    straight_rad_angstrom2: float  # b
    oblique_rad_angstrom2: float  # c
    gain: float  # in chi^2 over a spectrum without rings

    def phase(
        self, shape: Shape, pixel_size_angstrom: float, device: torch.device | None = None
    ) -> Tensor:
        """chi in rad, amplitude contrast included, on the ``rfft2`` grid of images of `shape`."""
        ky, kx = frequencies(shape, pixel_size_angstrom, device)
        mean = self.mean_rad_angstrom2 * (kx * kx + ky * ky)
        straight = self.straight_rad_angstrom2 * (kx * kx - ky * ky)
        oblique = self.oblique_rad_angstrom2 * 2 * kx * ky
        return mean + straight + oblique + math.asin(AMPLITUDE_CONTRAST)


def fit_thon_rings(
    image: Image, pixel_size_angstrom: float, finest_angstrom: float = FINEST_ANGSTROM
) -> ThonFit | None:
    """Fit the rings of an image's power spectrum; None where there are none that stand out.

    Parameters
    ----------
    image
        A sum or single frame, [y, x]; its noise may have any smooth spectrum.
    pixel_size_angstrom
        Its pixel.
    finest_angstrom
        Where the band of the fit ends, if before its grid's.
    """
    cells = _polar_power(image, pixel_size_angstrom, finest_angstrom)
    if cells.count.sum() < LEAST_TERMS:
        return None
    rings = _Rings(cells)
    phases = np.arange(LEAST_RAD_ANGSTROM2, MOST_RAD_ANGSTROM2, STEP_RAD_ANGSTROM2)
    gains = np.array([rings.gain(phase) for phase in phases])
    is_peak = (gains >= np.roll(gains, 1)) & (gains >= np.roll(gains, -1))
    peaks = np.flatnonzero(is_peak)
    highest = peaks[np.argsort(gains[peaks])[-STARTS:]]
    best: ThonFit | None = None
    for start in phases[highest]:
        fit = rings.refined(start)
        if best is None or fit.gain > best.gain:
            best = fit
    if best is None or best.gain <= LEAST_GAIN:
        return None
    return best


@dataclass(frozen=True)
class _Cells:
    """Cells of rings and sectors of a power spectrum, each value ``[cell]``.

    Attributes
    ----------
    k
        Mean frequency in 1/Å.
    double_angle
        Twice the angle, in rad.
    power
        Mean power.
    count
        Number of terms.
    """

    k: np.ndarray
    double_angle: np.ndarray
    power: np.ndarray
    count: np.ndarray


class _Rings:
    """Rings on a smooth background, fitted to a power spectrum."""

    def __init__(self, cells: _Cells) -> None:
        self._cells = cells
        k = cells.k
        self._offset = math.asin(AMPLITUDE_CONTRAST)
        from_zero_to_one = (k - k.min()) / (k.max() - k.min())
        scaled = from_zero_to_one * 2 - 1
        self._smooth = np.polynomial.chebyshev.chebvander(scaled, DEGREE)
        # The mean of n exponentially distributed terms has a deviation of itself / sqrt(n); itself,
        # from a fit that knows no rings.
        root = np.sqrt(cells.count)
        log_power = np.log(cells.power) * root
        log_level = _least_squares(self._smooth * root[:, None], log_power)
        self._level = np.exp(self._smooth @ log_level)
        self._weight = root / self._level
        # An orthonormal basis of the smooth backgrounds, weighted.
        self._background, _ = np.linalg.qr(self._smooth * self._weight[:, None])
        self._target = self._without_background(cells.power * self._weight)

    def _without_background(self, values: np.ndarray) -> np.ndarray:
        smooth = self._background @ (self._background.T @ values)
        return values - smooth

    def gain(self, mean: float, straight: float = 0.0, oblique: float = 0.0) -> float:
        """By how much chi^2 falls when rings of these phases are added to the smooth background; 0
        where they would be negative.
        """
        k = self._cells.k
        double_angle = self._cells.double_angle
        along = mean + straight * np.cos(double_angle) + oblique * np.sin(double_angle)
        chi = k * k * along + self._offset
        rings = np.sin(chi) ** 2 - 0.5
        weighted = self._smooth * (rings * self._weight)[:, None]
        columns = self._without_background(weighted)
        height = _least_squares(columns, self._target)
        heights = self._smooth @ height * self._weight**2 * self._level
        if heights.sum() <= 0:
            return 0.0
        return float(self._target @ columns @ height)

    def refined(self, start: float) -> ThonFit:
        """The largest gain near a mean phase, and the phases that bring it."""
        simplex = [
            [start + STEP_RAD_ANGSTROM2, 0.0, 0.0],
            [start, 10.0, 0.0],
            [start, 0.0, 10.0],
            [start, 0.0, 0.0],
        ]
        options = {"initial_simplex": simplex, "fatol": 0.1, "xatol": 0.1}
        found = minimize(
            lambda phases: -self.gain(*phases), simplex[3], method="Nelder-Mead", options=options
        )
        mean, straight, oblique = map(float, found.x)
        return ThonFit(mean, straight, oblique, gain=-float(found.fun))


def _least_squares(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coefficients with which `columns` ``[cell, term]`` come nearest to `target` ``[cell]``."""
    coefficients, *_ = np.linalg.lstsq(columns, target, rcond=None)
    return coefficients


def _polar_power(image: Image, pixel_size_angstrom: float, finest_angstrom: float) -> _Cells:
    """The cells of rings and sectors within the band that hold any power."""
    spectrum = torch.fft.rfft2(image - image.mean())
    height, width = image.shape
    ky, kx = frequencies((height, width), pixel_size_angstrom, image.device)
    k = torch.hypot(ky, kx)
    low = 1 / COARSEST_ANGSTROM
    high = min(1 / finest_angstrom, 0.45 / pixel_size_angstrom)
    inside = (k > low) & (k < high) & (kx > 0)  # the first column holds conjugates
    k_inside = k[inside]
    ring = _numbered((k_inside - low) / (high - low), RINGS)
    angle = torch.atan2(ky.expand_as(k)[inside], kx.expand_as(k)[inside])
    sector = _numbered(angle / math.pi + 0.5, SECTORS)  # from -90 to 90 degrees
    cell = ring * SECTORS + sector

    def total(values: Tensor) -> np.ndarray:
        sums = ring_sum(values, cell, RINGS * SECTORS, dtype=torch.float64)
        return sums.cpu().numpy()

    power = total(spectrum[inside].abs().square())
    holds_power = power > 0
    count = total(torch.ones_like(angle))[holds_power]
    mean_k = total(k_inside)[holds_power] / count
    mean_power = power[holds_power] / count
    all_sectors = np.tile(np.arange(SECTORS), RINGS)
    middle = (all_sectors[holds_power] + 0.5) / SECTORS
    double_angle = middle * 2 * math.pi - math.pi
    return _Cells(mean_k, double_angle, mean_power, count)


def _numbered(part: Tensor, count: int) -> Tensor:
    """Which of `count` equal intervals from 0 to 1 holds each value."""
    number = (part * count).long()
    return number.clamp(0, count - 1)
