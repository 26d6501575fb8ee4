"""Power spectra of micrographs and the zeros of the CTF, for pictures of them."""

import math

import numpy as np
import torch

from dstnet.core.constants import electron_wavelength_angstrom
from dstnet.core.fourier import apply_transfer, radial_frequency, radial_mean
from dstnet.optics.ctf import OpticsSettings

FINEST_ANGSTROM = 5.0  # edge of the spectra: rings of a movie at usual exposures are lost before
TILE = 512  # side of the tiles that spectra are the mean of, in pixels
ZEROS = 8  # zeros of the CTF that are drawn


def low_passed(
    image: np.ndarray, pixel_size_angstrom: float, resolution_angstrom: float
) -> np.ndarray:
    """`image` with a Gaussian fall to 1/e of the amplitude at `resolution_angstrom`."""
    height, width = image.shape
    k = radial_frequency((height, width), pixel_size_angstrom)
    relative = k * resolution_angstrom
    fall = torch.exp(-(relative**2))
    return apply_transfer(torch.from_numpy(image), fall).numpy()


def power_spectrum(
    image: np.ndarray, pixel_size_angstrom: float, tile: int = TILE
) -> tuple[np.ndarray, float]:
    """Mean power spectrum of half-overlapping, tapered tiles over its own radial mean, out to
    `FINEST_ANGSTROM` or Nyquist.

    Returns
    -------
    spectrum : ndarray
        ``[y, x]``, zero frequency in the middle; 1 on average along any ring.
    edge : float
        Frequency in 1/Å at its border.
    """
    n = tile_side(image, tile)
    tile_angstrom = n * pixel_size_angstrom
    power = mean_power(image, n)
    full = np.fft.fftshift(_full_plane(power, n))
    middle = n // 2
    y, x = np.indices(full.shape) - middle
    radius, profile = _smooth_profile(power, n)
    background = np.interp(np.hypot(y, x), radius, profile)
    relative = full / background
    finest = round(tile_angstrom / FINEST_ANGSTROM)
    reach = min(middle - 1, finest)
    part = slice(middle - reach, middle + reach + 1)
    return relative[part, part], reach / tile_angstrom


def tile_side(image: np.ndarray, tile: int = TILE) -> int:
    """Side in pixels of the tiles of an image: even, and no more than there are."""
    even_side = min(image.shape) // 2 * 2
    return min(tile, even_side)


def radial_profile(image: np.ndarray, pixel_size_angstrom: float) -> tuple[np.ndarray, np.ndarray]:
    """Radial mean of an image's `mean_power`: the rings' frequencies in 1/Å, and the power."""
    n = tile_side(image)
    power = mean_power(image, n)
    profile = radial_mean(power, (n, n), n // 2)
    radius = np.arange(n // 2) + 0.5
    return radius / (n * pixel_size_angstrom), profile.numpy()


def mean_power(image: np.ndarray, n: int) -> torch.Tensor:
    """Mean ``rfft2`` power of half-overlapping tiles of `n` pixels, each without its mean and
    tapered by a Hann window.
    """
    values = np.ascontiguousarray(image, dtype=np.float32)
    hann = torch.hann_window(n)
    window = hann[:, None] * hann[None, :]
    half = n // 2
    rows_of_tiles = torch.from_numpy(values).unfold(0, n, half).unfold(1, n, half)
    tiles = rows_of_tiles.flatten(0, 1)
    power = torch.zeros(n, half + 1)
    for tile in tiles:
        tapered = (tile - tile.mean()) * window
        power += torch.fft.rfft2(tapered).abs().square()
    return power / len(tiles)


def _full_plane(half: torch.Tensor, n: int) -> np.ndarray:
    """All of a real image's power spectrum from its ``rfft2`` half."""
    values = half.numpy()
    at_minus_ky = np.roll(values[::-1], 1, axis=0)
    at_minus_k = at_minus_ky[:, 1 : (n + 1) // 2][:, ::-1]
    return np.concatenate([values, at_minus_k], axis=1)


def _smooth_profile(power: torch.Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Radius in samples and a radial mean of `power` too smooth to hold the CTF's rings."""
    profile = radial_mean(power, (n, n), n // 2).numpy()
    logarithm = np.log(np.maximum(profile, 1e-12))
    half = max(2, n // 24)
    padded = np.pad(logarithm, half, mode="edge")
    width = 2 * half + 1
    smooth = np.convolve(padded, np.ones(width) / width, mode="valid")
    radius = np.arange(n // 2) + 0.5
    return radius, np.exp(smooth)


def ctf_zeros(
    optics: OpticsSettings, angle_deg: float, finest: float, count: int = ZEROS
) -> list[float]:
    """Frequencies in 1/Å, up to `finest`, of the first `count` zeros of the CTF along a direction
    (from x towards y).
    """
    wavelength = electron_wavelength_angstrom(optics.voltage_kv)
    from_major_axis = math.radians(angle_deg - optics.astigmatism_angle_deg)
    elongation = math.cos(2 * from_major_axis)
    defocus = optics.defocus_angstrom + optics.astigmatism_angstrom / 2 * elongation
    k = np.linspace(0, finest, 4000)
    k2 = k**2
    spherical = 0.5 * optics.cs_mm * 1e7 * wavelength**2 * k2
    chi = math.pi * wavelength * k2 * (defocus - spherical)
    of_amplitude = math.asin(optics.amplitude_contrast)
    of_plate = math.radians(optics.phase_plate_deg)
    half_turns = (chi + of_amplitude + of_plate) / math.pi
    number = np.floor(half_turns)
    crossed = np.flatnonzero(np.diff(number))
    zeros = k[crossed[:count]]
    return zeros.tolist()
