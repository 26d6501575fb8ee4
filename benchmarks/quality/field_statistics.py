"""What one field of apoferritin shows, real or simulated, in numbers that do not hang on how its
counts were scaled.

Everything is in units of the shot noise, measured at high frequency: power spectra of the unaligned
average and of one frame, coherence of the frame with the rest of the movie (the average without the
frame), local standard deviation, mean profile of the particles, their density, and the electrons
per pixel that the skewness of the noise tells.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from dstnet.core.constants import electron_wavelength_angstrom
from dstnet.core.fourier import ring_count, ring_sum

# The files say 1.5; the ring of 6z6u and the valleys of its spectrum fit between 1.52 and 1.54.
PIXEL_ANGSTROM = 1.52
NOISE_BAND = (0.36, 0.48)  # cycles per pixel: shot noise outweighs all else
# Holds triads k1 + k2 = k3, and twice its end is below Nyquist: blind to how the pixels were
# binned.
SKEW_BAND = (0.10, 0.24)
INDEPENDENT_BAND = (0.3, 0.48)  # cycles per pixel: no signal, so that noise alone correlates
SHIFT_BAND = (1 / 150, 1 / 10)  # 1/Angstrom
RINGS = np.geomspace(1 / 500, 1 / 3.1, 56)  # edges in 1/Angstrom
RING_MIDDLES = np.sqrt(RINGS[1:] * RINGS[:-1])
LOW_PASS_PX, WINDOW_PX = 4.0, 100
PERCENTILES = np.arange(5, 100, 5)
RADII_PX = np.arange(56)
HIGH_PASS_PX = 60.0
REACH_PX = 6  # by which annotated centres are refined
DEFOCI_ANGSTROM = range(6000, 32000, 100)


@dataclass(frozen=True)
class Field:
    """One field of view: arrays [y, x]; centres [n, 2] as (y, x) in pixels, or None where nobody
    picked.
    """

    name: str
    average: np.ndarray
    frame: np.ndarray
    centres: np.ndarray | None
    defocus_angstrom: float | None = None


def frequency(shape: tuple[int, ...]) -> np.ndarray:
    """Cycles per pixel on the ``rfft2`` grid."""
    return np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])


def transform(image: np.ndarray) -> np.ndarray:
    """``rfft2`` of an image less its mean, under a window that fades the outer twentieth, so that
    its borders do not ring.
    """
    rows, columns = (edge_window(side) for side in image.shape)
    window = rows[:, None] * columns[None]
    window /= math.sqrt(np.mean(window**2))
    return np.fft.rfft2((image - image.mean()) * window)


def edge_window(side: int) -> np.ndarray:
    """Rises from 0 to 1 within a twentieth of the side at both ends."""
    place = np.arange(side)
    from_edge = np.minimum(place, place[::-1])
    risen = np.clip(from_edge / (0.05 * side), 0, 1)
    return np.sin(np.pi / 2 * risen) ** 2


def ring_means(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Mean of `values` (on the ``rfft2`` grid) in each of `RINGS`; a ring without a term (small
    fields) gets its neighbours' mean.
    """
    rings = len(RINGS) - 1
    number = np.digitize(frequency(shape) / PIXEL_ANGSTROM, RINGS) - 1
    number[number < 0] = rings  # coarser than the first: in none
    ring = torch.from_numpy(number)
    total = ring_sum(torch.from_numpy(values), ring, rings).numpy()
    count = ring_count(ring, rings).numpy()
    known = count > 0
    return np.interp(np.arange(rings), np.flatnonzero(known), total[known] / count[known])


def between(k: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    """Where `k` lies in `band`."""
    return (k > band[0]) & (k < band[1])


def best_shift(
    a: np.ndarray, b: np.ndarray, shape: tuple[int, ...], reach: int = 15
) -> tuple[int, int]:
    """By how many pixels (y, x) the image of spectrum `b` is moved against that of `a`, up to
    `reach`; from 10 to 150 Angstrom.
    """
    band = between(frequency(shape) / PIXEL_ANGSTROM, SHIFT_BAND)
    cross = np.fft.irfft2(np.where(band, b * a.conj(), 0), s=shape)
    width = 2 * reach + 1
    near = np.roll(cross, (reach, reach), (0, 1))[:width, :width]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    return int(y) - reach, int(x) - reach


def coherence(average: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Correlation of the frame with the rest of its movie in each ring, at the best shift, and that
    shift.

    The rest is the average less as much of the frame as makes their noise independent: no cross
    term at high frequency.
    """
    shape = average.shape
    a, f = transform(average), transform(frame)
    high = between(frequency(shape), INDEPENDENT_BAND)
    cross = np.real(a * f.conj())
    own = np.abs(f) ** 2
    rest = a - f * (cross[high].sum() / own[high].sum())
    y, x = best_shift(rest, f, shape)
    ky = np.fft.fftfreq(shape[0])[:, None]
    kx = np.fft.rfftfreq(shape[1])[None]
    cross = f * rest.conj() * np.exp(2j * np.pi * (ky * y + kx * x))
    others = np.abs(rest) ** 2
    power = ring_means(own, shape) * ring_means(others, shape)
    return ring_means(cross.real, shape) / np.sqrt(power), (y, x)


def noise_sd(image: np.ndarray) -> float:
    """Standard deviation per pixel that white noise of the power in `NOISE_BAND` would have."""
    power = np.abs(transform(image)) ** 2
    inside = between(frequency(image.shape), NOISE_BAND)
    density = float(power[inside].mean()) / image.size
    return math.sqrt(density)


def spectrum(image: np.ndarray) -> np.ndarray:
    """Power in each ring over that of the noise."""
    power = ring_means(np.abs(transform(image)) ** 2, image.shape)
    return power / noise_sd(image) ** 2 / image.size


def skewness(image: np.ndarray) -> float:
    """Skewness of the image between the limits of `SKEW_BAND`."""
    inside = between(frequency(image.shape), SKEW_BAND)
    terms = np.where(inside, np.fft.rfft2(image - image.mean()), 0)
    x = np.fft.irfft2(terms, s=image.shape)
    return float((x**3).mean() / (x**2).mean() ** 1.5)


@cache
def skewness_of_one_electron() -> float:
    """Skewness times the root of the mean count, of Poisson counts."""
    few = 0.02  # strong skewness, hence precisely known
    counts = np.random.default_rng(1).poisson(few, (2048, 2048)).astype(float)
    return skewness(counts) * math.sqrt(few)


def electrons_per_pixel(frame: np.ndarray) -> float:
    """Detected electrons per pixel of a frame: the skewness of Poisson counts is one over the root
    of their mean.

    Good to about 10 % for one frame, so that only the mean over fields says much.
    """
    return (skewness_of_one_electron() / skewness(frame)) ** 2


def local_sd(average: np.ndarray) -> np.ndarray:
    """`PERCENTILES` of the standard deviation in windows of the low-passed average, in units of the
    noise's.
    """
    smooth = ndimage.gaussian_filter(average - average.mean(), LOW_PASS_PX)
    mean, square = (ndimage.uniform_filter(v, WINDOW_PX) for v in (smooth, smooth**2))
    edge, step = WINDOW_PX // 2, WINDOW_PX // 4
    sd = np.sqrt(np.maximum(square - mean**2, 0))[edge:-edge:step, edge:-edge:step]
    return np.percentile(sd, PERCENTILES) / noise_sd(average)


def particle_profile(average: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Mean rotational profile of the particles, in units of the noise's standard deviation, over
    `RADII_PX`.

    Centres are refined twice, by up to 6 pixels, against the mean profile itself: annotated ones
    are a few pixels off.
    """
    image = (average - ndimage.gaussian_filter(average, HIGH_PASS_PX)) / noise_sd(average)
    half = len(RADII_PX)
    inner = half + REACH_PX + 1
    inside = ((centres > inner) & (centres < np.array(average.shape) - inner)).all(1)
    start = np.rint(centres[inside]).astype(int)
    places = start
    for _ in range(2):
        places = refined(image, start, template_of(profile_at(image, places)))
    return profile_at(image, places)


def radii() -> np.ndarray:
    """Distance of each pixel from the middle of a square that holds all of `RADII_PX`."""
    half = len(RADII_PX)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return np.rint(np.hypot(y, x)).astype(int)


def profile_at(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Mean rotational profile about places [n, 2]."""
    half, radius = len(RADII_PX), radii()
    inside = radius < half
    patches = (image[y - half : y + half + 1, x - half : x + half + 1] for y, x in places)
    total = np.asarray(sum(patches))
    return np.bincount(radius[inside], total[inside]) / np.bincount(radius[inside]) / len(places)


def template_of(profile: np.ndarray) -> np.ndarray:
    """The image of a profile, mean zero."""
    half, radius = len(profile), radii()
    inside = radius < half
    template = np.where(inside, profile[np.minimum(radius, half - 1)], 0)
    template[inside] -= template[inside].mean()
    return template


def refined(image: np.ndarray, places: np.ndarray, template: np.ndarray) -> np.ndarray:
    """The place near each of `places` [n, 2] where the template fits best."""
    reach = len(RADII_PX) + REACH_PX
    found = []
    for y, x in places:
        patch = image[y - reach : y + reach + 1, x - reach : x + reach + 1]
        windows = np.lib.stride_tricks.sliding_window_view(patch, template.shape)
        score = np.einsum("ijyx,yx->ij", windows, template)
        dy, dx = np.unravel_index(int(score.argmax()), score.shape)
        found.append((y + dy - REACH_PX, x + dx - REACH_PX))
    return np.array(found)


def fitted_defocus(average: np.ndarray, voltage_kv: float = 300.0) -> tuple[float, float]:
    """Mean underfocus in Angstrom, from the Thon rings between 22 and 7 Angstrom, and how much of
    the spectrum's shape they explain.

    The spherical aberration is left out: at these frequencies it changes the defocus by less than 1
    %.
    """
    edges = np.linspace(1 / 22, 1 / 7, 221)
    ring = torch.from_numpy(np.digitize(frequency(average.shape) / PIXEL_ANGSTROM, edges))
    total = ring_sum(torch.from_numpy(np.abs(transform(average)) ** 2), ring)
    power = (total / ring_count(ring)).numpy()
    k, y = 0.5 * (edges[1:] + edges[:-1]), np.log(power[1 : len(edges)])
    wavelength = electron_wavelength_angstrom(voltage_kv)
    smooth = np.stack([np.ones_like(k), k, k**2, k**-2], 1)

    def unexplained(columns: np.ndarray) -> tuple[float, float]:
        weights = np.linalg.lstsq(columns, y, rcond=None)[0]
        return float(((y - columns @ weights) ** 2).sum()), float(weights[-1])

    plain = unexplained(smooth)[0]
    best = (0.0, 0.0)
    for defocus in DEFOCI_ANGSTROM:
        phase = np.pi * wavelength * defocus * k**2 + math.asin(0.07)
        rings = np.sin(phase) ** 2 * np.exp(-60 * k**2)
        left, weight = unexplained(np.column_stack([smooth, rings]))
        if weight > 0:
            best = max(best, (1 - left / plain, float(defocus)))
    return best[1], best[0]


def measured(field: Field) -> dict[str, Any]:
    """All statistics of one field; arrays over rings, percentiles or radii, and numbers."""
    correlation, shift = coherence(field.average, field.frame)
    defocus, explained = fitted_defocus(field.average)
    found: dict[str, Any] = {
        "average spectrum": spectrum(field.average),
        "frame spectrum": spectrum(field.frame),
        "coherence": correlation,
        "local sd": local_sd(field.average),
        "electrons per pixel": electrons_per_pixel(field.frame),
        "frame shift px": math.hypot(*shift),
        "fitted defocus": defocus,
        "fit explains": explained,
    }
    if field.centres is not None:
        area_um2 = field.average.size * PIXEL_ANGSTROM**2 * 1e-8
        found["profile"] = particle_profile(field.average, field.centres)
        found["particles per um2"] = len(field.centres) / area_um2
    if field.defocus_angstrom is not None:
        found["true defocus"] = field.defocus_angstrom
    return found


def middle(rows: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """Median of a statistic over the fields that have it."""
    return np.median([row[name] for row in rows if name in row], axis=0)
