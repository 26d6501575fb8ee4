"""Two images compared in rings one Fourier step wide: with a truth, or with an independent half.

The images are tapered: without it, what lies at an edge leaks into all rings, in both alike.
"""

from dataclasses import dataclass

import torch
from scipy.signal.windows import tukey
from torch import Tensor

from dstnet.core.fourier import ring_count, ring_mean
from dstnet.core.shapes import Image
from dstnet.metrics.spectral import RingPowers, ring_powers

COARSEST_ANGSTROM = 200.0  # what is coarser is illumination and ice
FINEST_ANGSTROM = 4.0
# Rings within this ratio are pooled where a threshold is looked for: the transfer function's zeros,
# where nobody has anything, would be taken for the resolution.
POOLED = 1.15
LEAST_ERRORS = 3.0  # from zero, of what is more than chance
# Part of an image's sides over which it falls to zero at its edges. The complete fall is what
# Fourier ring correlations are usually computed with; it leaves a quarter of the terms independent.
COMPLETE_TAPER, SHORT_TAPER = 1.0, 0.25


@dataclass(frozen=True)
class Rings:
    """Powers of two images in rings one Fourier step of the first axis wide, up to Nyquist.

    Attributes
    ----------
    powers
        The first image's are `own`.
    frequency
        [ring]: mean of the terms', in 1/Angstrom.
    step
        Width of a ring, in 1/Angstrom.
    terms
        [ring]: independent numbers; the correlation of images that share nothing is 0 within 1 /
        sqrt(terms), of wide bands just that, of single tapered rings somewhat less.
    """

    powers: RingPowers
    frequency: Tensor
    step: float
    terms: Tensor

    @property
    def correlation(self) -> Tensor:
        """Fourier ring correlation, [ring] (Saxton & Baumeister, J. Microsc. 127, 127 (1982))."""
        return self.powers.correlation()

    def band(
        self,
        coarsest_angstrom: float = COARSEST_ANGSTROM,
        finest_angstrom: float = 0.0,
    ) -> Tensor:
        """Which rings begin between two resolutions, [ring]; by default up to Nyquist."""
        begins = torch.arange(len(self.terms)) * self.step
        return (begins > 1 / coarsest_angstrom) & (begins * finest_angstrom < 1)

    def pooled(self) -> RingPowers:
        """Powers summed over the rings around each, from its frequency over `POOLED` to its
        frequency times `POOLED`.
        """
        powers = self.powers
        sums = (self.summed_around(values) for values in (powers.cross, powers.own, powers.other))
        return RingPowers(*sums)

    def is_beyond_chance(self) -> Tensor:
        """Whether the pooled correlation is more than `LEAST_ERRORS` standard errors of unrelated
        images above zero, [ring].
        """
        error = self.summed_around(self.terms).rsqrt()
        return self.pooled().correlation() > LEAST_ERRORS * error

    def summed_around(self, values: Tensor) -> Tensor:
        """Sums over each ring and those around it that `pooled` takes, [ring]."""
        k = self.frequency
        first = torch.searchsorted(k, k / POOLED)
        last = torch.searchsorted(k, k * POOLED, right=True)
        up_to = torch.cat((values.new_zeros(1), values.cumsum(0)))
        return up_to[last] - up_to[first]


def tapered(image: Image, part: float = COMPLETE_TAPER) -> Image:
    """An image less its mean, falling to zero at its edges as a raised cosine.

    Parameters
    ----------
    image
        [y, x].
    part
        Of each side over which it falls: 1 from the middle on (Hann), 0 nowhere.
    """
    rows, columns = (torch.from_numpy(tukey(n, part)).to(image) for n in image.shape)
    return (image - image.mean()) * rows[:, None] * columns


def compared(
    image: Image, other: Image, pixel_size_angstrom: float, *, taper: float = COMPLETE_TAPER
) -> Rings:
    """Two images ring by ring.

    Parameters
    ----------
    image, other
        [y, x], of one shape; their scales and means are free.
    pixel_size_angstrom
        Of both.
    taper
        As of `tapered`; 0 where an image is a filtered other one, edges and all.
    """
    shape = (image.shape[0], image.shape[1])
    rings = shape[0] // 2
    # In double precision: whether a term lies on a ring's edge must not hang on rounding.
    ky = torch.fft.fftfreq(shape[0], dtype=torch.float64)[:, None]
    kx = torch.fft.rfftfreq(shape[1], dtype=torch.float64)
    k = torch.hypot(ky, kx)
    ring = (k * shape[0]).long()
    powers = ring_powers(
        torch.fft.rfft2(tapered(image, taper)),
        torch.fft.rfft2(tapered(other, taper)),
        ring,
        rings,
        dtype=torch.float64,
    )
    return Rings(
        powers,
        frequency=ring_mean(k, ring, rings) / pixel_size_angstrom,
        step=1 / (shape[0] * pixel_size_angstrom),
        terms=ring_count(ring, rings) * _independent(taper),
    )


def _independent(taper: float) -> float:
    """Independent real numbers a complex term: two without a taper; with one fewer, per axis by the
    square of the window's mean square over the mean of its fourth power.
    """
    of_axis = (1 - 5 / 8 * taper) ** 2 / (1 - 93 / 128 * taper)
    return 2 * of_axis**2


def correlation_area(rings: Rings, finest_angstrom: float = FINEST_ANGSTROM) -> float:
    """Mean Fourier ring correlation from 200 Angstrom to a resolution, or to Nyquist where that is
    coarser: 1 for a perfect image, 0 for one that shares nothing. No filter of rings changes it.
    """
    return float(rings.correlation[rings.band(finest_angstrom=finest_angstrom)].mean())


def resolution_angstrom(rings: Rings, threshold: float) -> float:
    """The finest resolution at which the Fourier ring correlation, pooled over neighbouring rings,
    reaches a threshold, and is beyond chance.

    The last crossing counts, not the first: with little defocus nobody has much at the coarsest
    frequencies, nor at the zeros of the transfer function. A correlation c with a truth without
    noise says that c^2 of the image's power is signal: a quarter at 0.5, a fiftieth at 0.143.
    (0.143 between half-maps stands for 0.5 between the map of all data and the truth: Rosenthal &
    Henderson, J. Mol. Biol. 333, 721 (2003).)

    Returns
    -------
    float
        From 200 Angstrom, also where the threshold is never reached, as by an image that shares
        nothing, to Nyquist, where it is reached until there.
    """
    inside = rings.band()
    k = rings.frequency[inside]
    values = rings.pooled().correlation()[inside]
    is_reached = (values >= threshold) & rings.is_beyond_chance()[inside]
    if not bool(is_reached.any()):
        return COARSEST_ANGSTROM
    last = int(is_reached.nonzero().max())
    if last == len(k) - 1:
        return 1 / (rings.step * len(rings.terms))
    high, low = float(values[last]), min(float(values[last + 1]), threshold)
    part = (high - threshold) / (high - low) if high > low else 0.0
    return 1 / float(k[last] + part * (k[last + 1] - k[last]))


def signal_to_noise(correlation: Tensor) -> Tensor:
    """Spectral signal-to-noise ratio of an image whose correlation c with a truth without noise is
    known: c^2 / (1 - c^2), negative where c is (Unser et al., Ultramicroscopy 23, 39 (1987)).
    """
    shared = correlation * correlation.abs()
    return shared / (1 - shared.abs()).clamp(min=1e-6)
