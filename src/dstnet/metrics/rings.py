"""Two images compared in rings one Fourier step wide: with a truth, or with an independent half.

The images are tapered: without it, what lies at an edge leaks into all rings, in both alike.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.core.fourier import ring_count
from dstnet.core.shapes import Image
from dstnet.metrics.spectral import RingPowers, ring_powers

COARSEST_ANGSTROM = 200.0  # what is coarser is illumination and ice
FINEST_ANGSTROM = 4.0
# Rings within this ratio are pooled where a threshold is looked for: the transfer function's zeros,
# where nobody has anything, would be taken for the resolution.
POOLED = 1.15
# Of the terms, about so many are independent after the taper: (3/8)^2 / (35/128) an axis.
INDEPENDENT = 0.264
_FINER_THAN_ALL = 1e-3  # in Angstrom


@dataclass(frozen=True)
class Rings:
    """Powers of two images in rings one Fourier step of the first axis wide, up to Nyquist.

    Attributes
    ----------
    powers
        The first image's are `own`.
    step
        Width of a ring, in 1/Angstrom.
    terms
        [ring]: independent Fourier terms, about; the correlation of images that share nothing is 0
        within 1 / sqrt(terms).
    """

    powers: RingPowers
    step: float
    terms: Tensor

    @property
    def frequency(self) -> Tensor:
        """[ring]: of the middles, in 1/Angstrom."""
        return (torch.arange(len(self.terms)) + 0.5) * self.step

    @property
    def correlation(self) -> Tensor:
        """Fourier ring correlation, [ring] (Saxton & Baumeister, J. Microsc. 127, 127 (1982))."""
        return self.powers.correlation()

    def band(
        self,
        coarsest_angstrom: float = COARSEST_ANGSTROM,
        finest_angstrom: float = FINEST_ANGSTROM,
    ) -> Tensor:
        """Which rings begin between two resolutions, [ring]."""
        begins = self.frequency - self.step / 2
        return (begins > 1 / coarsest_angstrom) & (begins < 1 / finest_angstrom)

    def pooled(self) -> RingPowers:
        """Powers summed over the rings around each, from its frequency over `POOLED` to its
        frequency times `POOLED`.
        """
        powers = self.powers
        sums = (self._around(values) for values in (powers.cross, powers.own, powers.other))
        return RingPowers(*sums)

    def pooled_terms(self) -> Tensor:
        """Independent terms of each ring and those around it that `pooled` takes, [ring]."""
        return self._around(self.terms)

    def _around(self, values: Tensor) -> Tensor:
        k = self.frequency
        first = torch.searchsorted(k, k / POOLED)
        last = torch.searchsorted(k, k * POOLED, right=True)
        up_to = torch.cat((values.new_zeros(1), values.cumsum(0)))
        return up_to[last] - up_to[first]


def tapered(image: Image) -> Image:
    """An image less its mean, falling to zero at its edges as a raised cosine (Hann)."""
    rows, columns = (
        torch.hann_window(n, periodic=False, dtype=image.dtype, device=image.device)
        for n in image.shape
    )
    return (image - image.mean()) * rows[:, None] * columns


def compared(image: Image, other: Image, pixel_size_angstrom: float) -> Rings:
    """Two images ring by ring.

    Parameters
    ----------
    image, other
        [y, x], of one shape; their scales and means are free.
    pixel_size_angstrom
        Of both.
    """
    shape = (image.shape[0], image.shape[1])
    rings = shape[0] // 2
    # In double precision: whether a term lies on a ring's edge must not hang on rounding.
    ky = torch.fft.fftfreq(shape[0], dtype=torch.float64)[:, None]
    kx = torch.fft.rfftfreq(shape[1], dtype=torch.float64)
    ring = (torch.hypot(ky, kx) * shape[0]).long()
    powers = ring_powers(
        torch.fft.rfft2(tapered(image)),
        torch.fft.rfft2(tapered(other)),
        ring,
        rings,
        dtype=torch.float64,
    )
    terms = ring_count(ring, rings) * INDEPENDENT
    return Rings(powers, 1 / (shape[0] * pixel_size_angstrom), terms)


def correlation_area(rings: Rings, finest_angstrom: float = FINEST_ANGSTROM) -> float:
    """Mean Fourier ring correlation from 200 Angstrom to a resolution, or to Nyquist where that is
    coarser: 1 for a perfect image, 0 for one that shares nothing. No filter of rings changes it.
    """
    return float(rings.correlation[rings.band(finest_angstrom=finest_angstrom)].mean())


def resolution_angstrom(rings: Rings, threshold: float) -> float:
    """Where the Fourier ring correlation, pooled over neighbouring rings, first falls below a
    threshold.

    A correlation c with a truth without noise says that c^2 of the image's power is signal: a
    quarter at 0.5, a fiftieth at 0.143. (0.143 between half-maps stands for 0.5 between the map of
    all data and the truth: Rosenthal & Henderson, J. Mol. Biol. 333, 721 (2003).)

    Returns
    -------
    float
        From 200 Angstrom, where it is below from the start, as for an image that shares nothing, to
        Nyquist, where it never is.
    """
    inside = rings.band(finest_angstrom=_FINER_THAN_ALL)
    k = rings.frequency[inside]
    values = rings.pooled().correlation()[inside]
    is_below = values < threshold
    if not bool(is_below.any()):
        return 1 / (rings.step * len(rings.terms))
    first = int(is_below.int().argmax())
    if first == 0:
        return COARSEST_ANGSTROM
    high, low = float(values[first - 1]), float(values[first])
    part = (high - threshold) / (high - low)
    return 1 / float(k[first - 1] + part * (k[first] - k[first - 1]))


def signal_to_noise(correlation: Tensor) -> Tensor:
    """Spectral signal-to-noise ratio of an image whose correlation c with a truth without noise is
    known: c^2 / (1 - c^2), negative where c is (Unser et al., Ultramicroscopy 23, 39 (1987)).
    """
    shared = correlation * correlation.abs()
    return shared / (1 - shared.abs()).clamp(min=1e-6)
