"""About how large the files of a simulated movie come out."""

import math

import numpy as np

from dstnet.dataset.record import MovieFormat
from dstnet.dataset.truth_files import TRUTH_IMAGES
from dstnet.simulation import SimulationSettings

# LZW codes of Poisson counts are 1.4 times their entropy as 16-bit numbers (measured, 0.05 to 16 a
# pixel), less as 8-bit ones.
LZW_OVER_ENTROPY = 1.45
NOISE_GROWS_BY_LZW = 1.1
# Up to this mean, the entropy of a Poisson variable is summed term by term.
MOST_SUMMED_MEAN = 20
SUMMED_TERMS = 80


def movie_bytes(settings: SimulationSettings, movie_format: MovieFormat) -> int:
    """About what a movie's file takes."""
    pixels = settings.frames * settings.shape[0] * settings.shape[1]
    counting = settings.detector.mode == "counting"
    stored = 2 if counting or settings.detector.bits else 4
    if movie_format == "mrc":
        return pixels * stored
    if not counting:
        return int(pixels * stored * NOISE_GROWS_BY_LZW)
    arriving = settings.exposure_e_per_a2 * settings.pixel_size_angstrom**2
    entropy = _poisson_entropy_bits(arriving * settings.detector.quantum_efficiency)
    bits = min(entropy * LZW_OVER_ENTROPY, 16 * NOISE_GROWS_BY_LZW)
    return int(pixels * bits / 8)


def _poisson_entropy_bits(mean: float) -> float:
    """Entropy of a Poisson variable: by its terms where there are few, else as of a normal one."""
    if mean >= MOST_SUMMED_MEAN:
        return 0.5 * math.log2(2 * math.pi * math.e * mean)
    log_terms = (k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(SUMMED_TERMS))
    terms = (math.exp(term) for term in log_terms)
    return -sum(p * math.log2(p) for p in terms if p > 0)


def truth_bytes(settings: SimulationSettings, expected: bool) -> int:
    """About what a movie's truths take, with or without the noise-free frames."""
    bytes_per_pixel = sum(np.dtype(image.dtype).itemsize for image in TRUTH_IMAGES)
    if expected:
        bytes_per_pixel += settings.frames * np.dtype(np.float32).itemsize
    return bytes_per_pixel * math.prod(settings.shape)
