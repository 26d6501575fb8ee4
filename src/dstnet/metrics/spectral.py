"""What two images share, ring by ring of their Fourier transforms."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.core.fourier import conjugate_counts, radial_frequency, ring_index, ring_sum
from dstnet.core.shapes import Image, Images

_LEAST_POWER = 1e-30  # a ring without power has no correlation: 0


@dataclass(frozen=True)
class RingPowers:
    """Sums over the Fourier terms of each ring of two spectra a and b.

    Attributes
    ----------
    cross
        [..., ring]: of Re(a b*).
    own, other
        [..., ring]: of |a|^2 and of |b|^2.
    """

    cross: Tensor
    own: Tensor
    other: Tensor

    def correlation(self, added: float = 0.0) -> Tensor:
        """Fourier ring correlation, [..., ring]: cross / sqrt(own other), from -1 to 1 (Saxton &
        Baumeister 1982); 0 where either spectrum has nothing. `added` joins the product of powers,
        so that a gradient stays finite.
        """
        product = self.own * self.other + added
        return self.cross / product.clamp(min=_LEAST_POWER).sqrt()

    def transfer(self) -> Tensor:
        """What to multiply a by so that it comes as near b as a filter of rings can, [..., ring]:
        cross / own, the Wiener filter where b is the truth.
        """
        return self.cross / self.own.clamp(min=_LEAST_POWER)


def ring_powers(
    a: Tensor,
    b: Tensor,
    ring: Tensor,
    rings: int | None = None,
    *,
    weight: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> RingPowers:
    """Powers and cross power of two spectra in each ring.

    Parameters
    ----------
    a, b
        [..., *terms], complex.
    ring, rings, dtype
        As of `dstnet.core.fourier.ring_sum`.
    weight
        What each term counts, in a shape that goes with [*terms]; by default all alike.
    """

    def sums(values: Tensor) -> Tensor:
        weighted = values if weight is None else values * weight
        return ring_sum(weighted, ring, rings, dtype=dtype)

    product = a * b.conj()
    return RingPowers(
        cross=sums(product.real),
        own=sums(a.abs().square()),
        other=sums(b.abs().square()),
    )


def ring_correlation(a: Images, b: Images, rings: int) -> Tensor:
    """Fourier ring correlation of two images in `rings` equally wide rings from 0 to Nyquist.

    Parameters
    ----------
    a, b
        [..., y, x], of one shape; their means are left out.
    rings
        How many rings.

    Returns
    -------
    Tensor
        [..., ring], float32. For images that share nothing it is 0 within about 1 / sqrt(n), with n
        the independent terms of a ring.
    """
    shape = (a.shape[-2], a.shape[-1])
    powers = ring_powers(
        _spectrum(a),
        _spectrum(b),
        ring_index(shape, rings, a.device),
        rings,
        weight=conjugate_counts(shape[1], a.device),
        dtype=torch.float64,
    )
    return powers.correlation().float()


def band_correlation(
    a: Image,
    b: Image,
    pixel_size_angstrom: float,
    coarsest_angstrom: float,
    finest_angstrom: float,
) -> float:
    """Mean Fourier ring correlation of two images over rings one Fourier step of the first axis
    wide, between two resolutions.

    Parameters
    ----------
    a, b
        [y, x], of one shape.
    pixel_size_angstrom
        Of both.
    coarsest_angstrom, finest_angstrom
        The band; terms on its edges are left out.

    Returns
    -------
    float
        From -1 to 1; each ring in which both images have power counts alike. Not a number where
        there is none.
    """
    shape = (a.shape[0], a.shape[1])
    k = radial_frequency(shape, pixel_size_angstrom, a.device)
    is_finer = k > 1 / coarsest_angstrom
    is_coarser = k < 1 / finest_angstrom
    inside = is_finer & is_coarser
    field_angstrom = shape[0] * pixel_size_angstrom
    ring = (k * field_angstrom).long()
    own = torch.fft.rfft2(a)
    other = torch.fft.rfft2(b)
    powers = ring_powers(own[inside], other[inside], ring[inside])
    is_filled = powers.own * powers.other > 0
    correlations = powers.correlation()[is_filled]
    return float(correlations.mean())


def ring_signal_to_noise(a: Image, b: Image, rings: int) -> Tensor:
    """Spectral signal-to-noise ratio of the sum of two images that share their signal and not their
    noise, such as half-movies, [ring]: 2 c / (1 - c) with c their ring correlation (Unser et al.
    1987; Penczek 2010).

    Parameters are those of `ring_correlation`; negative correlations, which chance makes, give 0.
    """
    correlation = ring_correlation(a, b, rings)
    shared = correlation.clamp(0, 1 - 1e-6)
    return 2 * shared / (1 - shared)


def _spectrum(image: Images) -> Tensor:
    return torch.fft.rfft2(image - image.mean((-2, -1), keepdim=True))
