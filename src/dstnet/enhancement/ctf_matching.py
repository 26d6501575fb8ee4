"""The output matched to the contrast transfer function that the sum's own rings show.

A network's filters are short and see the transfer function's square c^2 blurred in frequency:
around its zeros they pass noise, and at its maxima less than is known. Where a Wiener filter h = P
/ (1 + P), P the local signal power, was made for the blurred <c^2>, the one for c^2 itself is q /
(1 + h (q - 1)) times that, with q = c^2 / <c^2>. It lies between 0.1 and 1.9.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.core.fourier import (
    NYQUIST,
    apply_transfer,
    cosine_frequency,
    cosine_transform,
    mirrored,
    radial_frequency,
    ring_index,
    ring_mean,
)
from dstnet.core.shapes import Image, Shape
from dstnet.optics.thon import FINEST_ANGSTROM, ThonFit, fit_thon_rings

RINGS = 120
SMOOTH_RINGS = 5.0  # rms of the Gaussian that h, which knows no zeros, is averaged by
# The three were chosen with dstnet-3 on 46 simulated images of phantoms under all conditions of
# training: all 42 without a phase plate are bettered, the mean residual energy from 0.584 to 0.573.
# How many cycles of c^2 the network tells apart, at whatever scale: its filters reach about as far
# as the detail they pass is wide.
CYCLES = 1.8
# The part of c^2 at its zeros, since defoci differ within the ice's depth.
LEAST = 0.05
# The part of the mean h, which strong particles rule, that holds where particles are faint.
FAINT = 0.5


# Rows and columns by which images are continued, so that no edge reaches the opposite one: what the
# filter spreads detail of 5 Å by at 4 um of underfocus.
MARGIN_ANGSTROM = 250.0


@dataclass(frozen=True)
class TransferMatch:
    """What a network's output is filtered by.

    Attributes
    ----------
    fit
        The rings of the network's input.
    passed
        The part of its signal that the output passes, [ring].
    pixel_size_angstrom
        Of both.
    """

    fit: ThonFit
    passed: Tensor
    pixel_size_angstrom: float

    def transfer(self, shape: Shape) -> Tensor:
        """On the ``rfft2`` grid of images of `shape`."""
        device = self.passed.device
        k = radial_frequency(shape, self.pixel_size_angstrom, device)
        # What is left of a cosine in a Gaussian mean.
        cycles = self.fit.mean_rad_angstrom2 * k * k / (math.pi * CYCLES)
        blur = torch.exp(-2 * cycles.square())
        phase = self.fit.phase(shape, self.pixel_size_angstrom, device)
        amplitude = (1 - 2 * LEAST) / 2
        wave = amplitude * torch.cos(2 * phase)
        transfer = 0.5 - wave
        blurred_transfer = 0.5 - wave * blur
        q = transfer / blurred_transfer
        ring = ring_index(shape, RINGS, device)
        h = FAINT * self.passed[ring.clamp(max=RINGS - 1)]
        return q / (1 + h * (q - 1))

    def __call__(self, image: Image) -> Image:
        """The image filtered; beyond its edges it goes on as its mirror image."""
        height, width = image.shape
        whole = mirrored(image, math.ceil(MARGIN_ANGSTROM / self.pixel_size_angstrom))
        transfer = self.transfer((whole.shape[0], whole.shape[1]))
        return apply_transfer(whole, transfer)[:height, :width]


def transfer_match(
    total: Image,
    enhanced: Image,
    pixel_size_angstrom: float,
    finest_angstrom: float = FINEST_ANGSTROM,
) -> TransferMatch | None:
    """What to filter `enhanced` by; None where `total` shows no rings (`dstnet.optics.thon`).

    Parameters
    ----------
    total
        The network's input, mean zero and unit noise.
    enhanced
        Its output, in the same units.
    pixel_size_angstrom
        Of both.
    finest_angstrom
        The finest detail of `total` that is not filled noise.
    """
    fit = fit_thon_rings(total, pixel_size_angstrom, finest_angstrom)
    if fit is None:
        return None
    return TransferMatch(fit, _mean_filter(total, enhanced), pixel_size_angstrom)


def _mean_filter(total: Image, enhanced: Image) -> Tensor:
    """What part of the input's signal the output passes, by ring, averaged over neighbouring
    rings.
    """
    k = cosine_frequency((total.shape[0], total.shape[1]), device=total.device)
    ring = (k / NYQUIST * RINGS).long()
    own = cosine_transform(enhanced)
    shared = own * cosine_transform(total)
    of_own = _smoothed(ring_mean(own.square(), ring, RINGS))
    of_shared = _smoothed(ring_mean(shared, ring, RINGS))
    passed = of_own / of_shared.clamp(min=1e-6)
    return passed.clamp(0, 1)


def _smoothed(rings: Tensor) -> Tensor:
    """Gaussian means over neighbouring rings, [ring]."""
    number = torch.arange(len(rings), device=rings.device)
    distance = number[:, None] - number
    deviations = distance / SMOOTH_RINGS
    weight = torch.exp(-0.5 * deviations.square())
    sums = weight @ rings
    return sums / weight.sum(1)
