"""The trusted linear part: what the best linear filter would still show of the input is never removed from the output.

A network trained on squared error shrinks what it doubts, and at one frame's exposure it doubts most particles. So its residual, input
minus output, is looked at: were all signal explained, the residual would be white noise of power one. Rings of frequencies where the
residual holds more than that hold unexplained signal, and are added back through a Wiener filter, (P - 1) / P, times the square of the
share of the signal that the network left. At a single frame that share is near one, and what is seen is the filtered frame; at a whole
exposure it is small, and what the ice adds to the residual stays out. On pure noise nothing is added.
"""

import torch

from dstnet.core.fourier import radial_frequency, radial_mean
from dstnet.core.shapes import Image

RINGS = 120
COARSEST_ANGSTROM = 500.0  # beyond lie illumination and ice gradients, which no one wants back
FINEST_ANGSTROM = 10.0  # to which the share is judged; beyond it most images hold no signal to speak of
SIGNIFICANCE = 3.0  # standard errors of a ring's mean power; 120 rings of noise alone pass it about once in five images


def unexplained(total: Image, enhanced: Image, pixel_size_angstrom: float) -> Image:
    """What to add to `enhanced` so that no linear evidence in `total` is lost.

    Parameters
    ----------
    total
        The network's input, mean zero and unit noise.
    enhanced
        Its output, in the same units.
    pixel_size_angstrom
        Of both.
    """
    shape = (total.shape[0], total.shape[1])
    residual = torch.fft.rfft2(total - enhanced)
    power = radial_mean(residual.abs().square() / (shape[0] * shape[1]), shape, RINGS)
    k = radial_frequency(shape, device=total.device)
    index = (k / 0.5 * RINGS).long().clamp(max=RINGS - 1)
    # A complex term's power is exponentially distributed: its mean over n independent ones has a standard error of 1 / sqrt(n).
    terms = torch.bincount(index.flatten(), minlength=RINGS)
    excess = torch.where(power - 1 > SIGNIFICANCE / terms.sqrt(), power - 1, 0.0)
    explained = radial_mean(torch.fft.rfft2(enhanced).abs().square() / (shape[0] * shape[1]), shape, RINGS)
    frequency = (torch.arange(RINGS, device=total.device) + 0.5) / RINGS * 0.5 / pixel_size_angstrom
    weight = frequency * ((frequency > 1 / COARSEST_ANGSTROM) & (frequency < 1 / FINEST_ANGSTROM))  # terms in a ring grow with its radius
    left, found = float((excess * weight).sum()), float((explained * weight).sum())
    share = left / (left + found) if left else 0.0
    transfer = share**2 * (excess / power.clamp(min=1e-6))[index] * (k > pixel_size_angstrom / COARSEST_ANGSTROM) * (k < 0.5)
    return torch.fft.irfft2(residual * transfer, s=shape)
