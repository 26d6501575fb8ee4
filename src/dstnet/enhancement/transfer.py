"""The output matched to the contrast transfer function that the sum's own rings show.

A network's filters are short and see the transfer function's square c^2 blurred in frequency: around its zeros they pass noise, and at its
maxima less than is known. Where a Wiener filter h = P / (1 + P), P the local signal power, was made for the blurred <c^2>, the one for c^2
itself is q / (1 + h (q - 1)) times that, with q = c^2 / <c^2>. It lies between 0.1 and 1.9.
"""

import math

import torch
from torch import Tensor

from dstnet.core.fourier import radial_frequency, radial_mean, ring_index
from dstnet.core.shapes import Image
from dstnet.optics.thon import fit_thon_rings

RINGS = 120
SMOOTH_RINGS = 5.0  # rms of the Gaussian that h, which knows no zeros, is averaged by
# How many cycles of c^2 the network tells apart, at whatever scale (its filters reach about as far as the detail they pass is wide); the
# part of c^2 at its zeros, since defoci differ within the ice's depth; and the part of the mean h, which strong particles rule, that holds
# where particles are faint. Chosen with dstnet-3 on 46 simulated images of phantoms under all conditions of training: all 42 without a
# phase plate are bettered, the mean residual energy from 0.584 to 0.573.
CYCLES, LEAST, FAINT = 1.8, 0.05, 0.5


def transfer_match(
    total: Image, enhanced: Image, pixel_size_angstrom: float, finest_per_angstrom: float | None = None
) -> Tensor | None:
    """What to multiply the ``rfft2`` of `enhanced` by; None where `total` shows no rings (`dstnet.optics.thon`).

    Parameters
    ----------
    total
        The network's input, mean zero and unit noise.
    enhanced
        Its output, in the same units.
    pixel_size_angstrom
        Of both.
    finest_per_angstrom
        Where the band of `total` ends, if before its grid's.
    """
    fit = fit_thon_rings(total, pixel_size_angstrom, finest_per_angstrom)
    if fit is None:
        return None
    shape = (total.shape[0], total.shape[1])
    k = radial_frequency(shape, pixel_size_angstrom, total.device)
    blur = torch.exp(-2 * (fit.mean_rad_angstrom2 * k * k / (math.pi * CYCLES)).square())  # what is left of a cosine in a Gaussian mean
    wave = (1 - 2 * LEAST) / 2 * torch.cos(2 * fit.phase(shape, pixel_size_angstrom, total.device))
    q = (0.5 - wave) / (0.5 - wave * blur)
    given = torch.fft.rfft2(enhanced)
    own, shared = (
        _smoothed(radial_mean(power, shape, RINGS)) for power in (given.abs().square(), (given.conj() * torch.fft.rfft2(total)).real)
    )
    h = FAINT * (own / shared.clamp(min=1e-6)).clamp(0, 1)
    return q / (1 + h[ring_index(shape, RINGS, total.device).clamp(max=RINGS - 1)] * (q - 1))


def _smoothed(rings: Tensor) -> Tensor:
    number = torch.arange(len(rings), device=rings.device)
    weight = torch.exp(-0.5 * ((number[:, None] - number) / SMOOTH_RINGS).square())
    return weight @ rings / weight.sum(1)
