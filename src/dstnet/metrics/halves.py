"""What is known without a truth: an enhanced half of a movie against the raw other half, whose
noise is independent of all that the method saw.
"""

import math

import torch
from torch import Tensor

from dstnet.core.fourier import radial_frequency
from dstnet.core.shapes import Image
from dstnet.metrics.image import best_shift
from dstnet.metrics.rings import LEAST_ERRORS, Rings
from dstnet.metrics.spectral import band_correlation

COARSEST_ANGSTROM, FINEST_ANGSTROM = 150.0, 25.0  # where particles show
SPAN_PX = 10


def shell_correlation(image: Image, other: Image, pixel_size_angstrom: float) -> float:
    """Mean Fourier ring correlation from 150 to 25 Angstrom, the other image moved to where this
    one has it, by at most `SPAN_PX` whole pixels.

    Returns
    -------
    float
        From -1 to 1; of images that share nothing near 0, a little above it since the best shift is
        taken; 0 where either is constant.
    """
    shape = (image.shape[0], image.shape[1])
    k = radial_frequency(shape, pixel_size_angstrom)
    inside = (k > 1 / COARSEST_ANGSTROM) & (k < 1 / FINEST_ANGSTROM)
    shown, there = (
        torch.fft.irfft2(torch.fft.rfft2(whole) * inside, s=shape) for whole in (image, other)
    )
    shift = [round(along) for along in best_shift(shown, there, SPAN_PX)]
    found = band_correlation(
        image,
        other.roll(shift, (0, 1)),
        pixel_size_angstrom,
        COARSEST_ANGSTROM,
        FINEST_ANGSTROM,
    )
    return found if found == found else 0.0


def gain_over_raw(enhanced: float, raw: float, rings: Rings) -> float:
    """A half's shell correlation over that of the raw half; not a number where the raw one is
    within `LEAST_ERRORS` standard errors of nothing.

    Parameters
    ----------
    enhanced, raw
        `shell_correlation` of the enhanced and of the raw half with the raw other one.
    rings
        Of the two raw halves: how many terms were compared.
    """
    terms = rings.terms[_shown(rings)]
    error = float(terms.reciprocal().sum().sqrt() / len(terms)) if len(terms) else math.inf
    return enhanced / raw if raw > LEAST_ERRORS * error else math.nan


def amplitude_transfer(rings: Rings) -> Tensor:
    """Amplitude of an image over that of the sum that it was made of, [ring], its mean from 150 to
    25 Angstrom 1: what is left of signal and noise together; 0 everywhere for a constant image.

    Parameters
    ----------
    rings
        Of the image and the sum.
    """
    powers = rings.powers
    return _relative((powers.own / powers.other.clamp(min=1e-30)).sqrt(), rings)


def signal_transfer(enhanced: Rings, raw: Rings) -> Tensor:
    """What is left of the signal alone, [ring], its mean from 150 to 25 Angstrom 1: the cross power
    of the enhanced half with the raw other one over that of the raw half, in which no noise counts;
    rings are pooled with their neighbours. Not a number where the raw halves share nothing.

    Parameters
    ----------
    enhanced, raw
        Of either half with the raw other one.
    """
    ratio = enhanced.pooled().cross / raw.pooled().cross
    transfer = torch.where(raw.is_beyond_chance(), ratio, math.nan)
    return _relative(transfer, enhanced)


def _relative(transfer: Tensor, rings: Rings) -> Tensor:
    """A transfer over its mean size where particles show; as it is where that is nothing."""
    shown = transfer[_shown(rings)]
    mean = float(shown[shown.isfinite()].mean().abs())
    return transfer / mean if mean > 0 else transfer


def _shown(rings: Rings) -> Tensor:
    return rings.band(COARSEST_ANGSTROM, FINEST_ANGSTROM)
