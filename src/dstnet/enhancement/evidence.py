"""The trusted linear part: where the network leaves the signal unexplained, the output fades to what a linear filter shows.

A network trained on squared error shrinks what it doubts, and at one frame's exposure it doubts most particles and draws others. So its
residual, input minus output, is looked at: were all signal explained, it would be white noise of power one. Rings of frequencies where it
holds more are signal that the network left. Where that is nearly all there is, the output becomes the input through the Wiener filter
(P - 1) / P of its own rings; where it is less, next to nothing changes. On pure noise both are nothing.
"""

import torch

from dstnet.core.fourier import radial_frequency, radial_mean
from dstnet.core.shapes import Image

RINGS = 120
# The share is judged between these: beyond lie illumination and ice gradients, and what most images hold no signal of.
COARSEST_ANGSTROM, FINEST_ANGSTROM = 500.0, 10.0
SIGNIFICANCE = 3.0  # standard errors of a ring's mean power; 120 rings of noise alone pass it about once in five images
# At a power of 8 a share of 0.98 (a real single frame) still weighs 0.85, one of 0.8 (faint particles at 48 e-/Å2) 0.17.
SHARE_POWER = 8


def fading(total: Image, enhanced: Image, pixel_size_angstrom: float) -> Image:
    """What to add to `enhanced` so that it fades to the filtered `total` as the share of the signal that it leaves approaches one.

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
    k = radial_frequency(shape, device=total.device)
    index = (k / 0.5 * RINGS).long().clamp(max=RINGS - 1)
    # A complex term's power is exponentially distributed: its mean over n independent ones has a standard error of 1 / sqrt(n).
    limit = SIGNIFICANCE / torch.bincount(index.flatten(), minlength=RINGS).sqrt()

    def ring_power(spectrum: torch.Tensor) -> torch.Tensor:
        return radial_mean(spectrum.abs().square() / (shape[0] * shape[1]), shape, RINGS)

    def excess(power: torch.Tensor) -> torch.Tensor:
        return torch.where(power - 1 > limit, power - 1, 0.0)

    spectrum, given = torch.fft.rfft2(total), torch.fft.rfft2(enhanced)
    frequency = (torch.arange(RINGS, device=total.device) + 0.5) / RINGS * 0.5 / pixel_size_angstrom
    weight = frequency * ((frequency > 1 / COARSEST_ANGSTROM) & (frequency < 1 / FINEST_ANGSTROM))  # terms in a ring grow with its radius
    left = float((excess(ring_power(spectrum - given)) * weight).sum())
    if left == 0:
        return torch.zeros_like(enhanced)
    share = left / (left + float((ring_power(given) * weight).sum()))
    power = ring_power(spectrum)
    wiener = (excess(power) / power.clamp(min=1e-6))[index] * (k < 0.5)
    return share**SHARE_POWER * torch.fft.irfft2(wiener * spectrum - given, s=shape)
