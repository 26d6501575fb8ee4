"""The trusted linear part: what a linear filter shows and the network left out is given back; and
contrast where the CTF passes nothing.

A network trained on squared error shrinks what it doubts, and leaves out what its simulator knows
nothing of. So its residual, input minus output, is looked at: were all signal explained, it would
be white noise of power one. Rings of frequencies where it holds more are signal that the network
left.

- At one frame's exposure the network doubts most particles and draws others. Where nearly all
  signal is left, the output becomes the input through the Wiener filter (P - 1) / P of its own
  rings, unless the exposure is known to be that of a complete movie; where less is left, next to
  nothing changes.
- Of what is left then, coarse rings get back what its own Wiener filter passes: what no simulator
  knew of. Finer ones do not, since what is left there is the water's structure.
- Of what is left still, a fifth of what the Wiener filter of the input passes is given back: what
  is faint fades, but never wholly.

On pure noise all are nothing. Images go on as their mirror images beyond their edges (cosine
transforms), so that nothing that is dark at one edge is given back at the opposite one.
"""

import math

import torch
from torch import Tensor

from dstnet.core.fourier import (
    NYQUIST,
    cosine_frequency,
    cosine_transform,
    inverse_cosine_transform,
    ring_count,
    ring_mean,
)
from dstnet.core.shapes import Image

RINGS = 120
# The share is judged between these: beyond lie illumination and ice gradients, and what most images
# hold no signal of.
COARSEST_ANGSTROM = 500.0
FINEST_ANGSTROM = 10.0
# standard errors of a ring's mean power; 120 rings of noise alone pass it about once in five images
SIGNIFICANCE = 3.0
# At a power of 8 a share of 0.98 (a real single frame) still weighs 0.85, one of 0.8 (faint
# particles at 48 e-/Å2) 0.17.
SHARE_POWER = 8
# Of a movie known to have had so much, what is left is the ice's, and nothing fades. Of 14
# simulated crops that faded by more than 0.001 of residual energy, that was right for one at 21 and
# one at 23 e-/Å2, and wrong for the six above.
NOT_FADED_E_PER_A2 = 30.0
# What is left is given back between these: coarser rings hold what no particle is as wide as, finer
# ones water.
GIVEN_BACK_ANGSTROM = 150.0, 60.0
# The same of binned and low-passed sums, which no released weights learnt from: of ribosomes in
# them the network left a third. (All that stands out, water with it, would be too much: a
# simulated residual of 0.64 became 0.87.)
GIVEN_BACK_OF_FILLED_ANGSTROM = 400.0, 60.0
# The fifth, and between which sizes; finer detail is for the network alone to judge.
FAINT = 0.2
FAINT_ANGSTROM = 150.0, 25.0
# Detail coarser than this (a Gaussian exp(-(k x)^2 / 2)) of the contrast without CTF comes from
# where particles are.
FILLED_ANGSTROM = 40.0
COARSE_ANGSTROM = 60.0  # beyond it the two are brought to one scale
# Of the Gaussian mean of so many Angstrom rms, so much is taken out of what pickers are given.
# Between 8 and 25 Angstrom the figures of decision 13 stay as they are.
SHARPENED_ANGSTROM = 25.0
SHARPENED_SHARE = 0.95
# Sharpened domes are brighter than nothing around their edges, by less than this for the most part.
AROUND_DOMES = 0.1


class _Rings:
    """Rings of frequencies of images of one shape, and what in them is more than white noise."""

    def __init__(
        self, total: Image, pixel_size_angstrom: float = 1.0, free_share: float = 1.0
    ) -> None:
        shape = (total.shape[0], total.shape[1])
        self._pixel_size_angstrom = pixel_size_angstrom
        self._free_share = free_share
        self._k = cosine_frequency(shape, device=total.device)  # cycles per pixel
        self._index = (self._k / NYQUIST * RINGS).long()
        # A term's power has a deviation of sqrt(2) times its mean: of n, sqrt(2 / n).
        terms = ring_count(self._index, RINGS)
        self._limit = SIGNIFICANCE * (2 / terms).sqrt()

    def power(self, spectrum: Tensor) -> Tensor:
        """Mean power of each ring, of white noise of deviation one 1."""
        return ring_mean(spectrum.square(), self._index, RINGS)

    def excess(self, power: Tensor) -> Tensor:
        """What of each ring's power is surely no noise, where the specimen is."""
        beyond = power - 1
        return torch.where(beyond > self._limit, beyond, 0.0) / self._free_share

    def wiener(self, power: Tensor) -> Tensor:
        """The Wiener filter of each ring's power, on the spectrum's grid."""
        excess = self.excess(power)
        rings = excess / (1 + excess)
        is_below_nyquist = self._k < NYQUIST
        return rings[self._index.clamp(max=RINGS - 1)] * is_below_nyquist

    def band(self, coarsest_angstrom: float, finest_angstrom: float) -> Tensor:
        """1 on the spectrum's grid for detail between two sizes, else 0."""
        k = self._k / self._pixel_size_angstrom
        return _is_between(k, coarsest_angstrom, finest_angstrom)

    def share_left(self, residual: Tensor, enhanced: Tensor) -> float:
        """The part of the signal that an output leaves in the residual, from 0 to 1; both as
        spectra.
        """
        number = torch.arange(RINGS, device=residual.device) + 0.5
        frequency = number / RINGS * NYQUIST / self._pixel_size_angstrom
        is_judged = _is_between(frequency, COARSEST_ANGSTROM, FINEST_ANGSTROM)
        terms = frequency * is_judged  # terms in a ring grow with its radius
        excess = self.excess(self.power(residual))
        left = float((excess * terms).sum())
        if left == 0:
            return 0.0
        power = self.power(enhanced) / self._free_share
        passed = float((power * terms).sum())
        return left / (left + passed)


def _is_between(k: Tensor, coarsest_angstrom: float, finest_angstrom: float) -> Tensor:
    """Which frequencies in 1/Angstrom are those of detail between two sizes."""
    is_finer = k > 1 / coarsest_angstrom
    is_coarser = k < 1 / finest_angstrom
    return is_finer & is_coarser


def wiener_filtered(total: Image) -> Image:
    """An image through the Wiener filter of its own rings.

    Parameters
    ----------
    total
        [y, x], mean zero and unit noise.
    """
    rings = _Rings(total)
    spectrum = cosine_transform(total)
    return inverse_cosine_transform(rings.wiener(rings.power(spectrum)) * spectrum)


def linear_part(
    total: Image,
    enhanced: Image,
    pixel_size_angstrom: float,
    exposure_e_per_a2: float | None = None,
    *,
    free_share: float = 1.0,
    band_filled: bool = False,
) -> Image:
    """What to add to `enhanced` so that it keeps what a linear filter shows of `total`.

    Parameters
    ----------
    total, enhanced
        The network's input and its output, in units of the input's noise; the input's mean is zero.
    pixel_size_angstrom
        Of both.
    exposure_e_per_a2
        Of the total; None where it is not known.
    free_share
        The part of the field that shows any specimen; the rest is noise.
    band_filled
        Whether the input was a binned or low-passed sum.
    """
    rings = _Rings(total, pixel_size_angstrom, free_share)
    spectrum = cosine_transform(total)
    own = cosine_transform(enhanced)
    share = rings.share_left(spectrum - own, own)
    if share == 0:
        return torch.zeros_like(enhanced)
    fade = share**SHARE_POWER
    if exposure_e_per_a2 is not None and exposure_e_per_a2 >= NOT_FADED_E_PER_A2:
        fade = 0.0
    wiener = rings.wiener(rings.power(spectrum))
    filtered = wiener * spectrum
    added = fade * (filtered - own)
    left = spectrum - own - added
    coarse = rings.band(*(GIVEN_BACK_OF_FILLED_ANGSTROM if band_filled else GIVEN_BACK_ANGSTROM))
    wiener_of_left = rings.wiener(rings.power(left))
    added += coarse * wiener_of_left * left
    left = spectrum - own - added
    faint = rings.band(*FAINT_ANGSTROM)
    added += faint * FAINT * wiener * left
    return inverse_cosine_transform(added)


def notes_on(added: Image, enhanced: Image) -> list[str]:
    """What a user should know of an `enhanced` micrograph to which `linear_part` has `added`
    something: nothing in the usual case.
    """
    of_network = enhanced - added
    added_power = float(added.square().mean())
    network_power = float(of_network.square().mean())
    if not added_power > network_power:
        return []
    return [
        "the network recognises little of the signal in this sum: most of the enhanced micrograph"
        " is the filtered sum, so noise is suppressed no better than by a linear filter"
    ]


def filled(
    contrast: Image, particles: Image, pixel_size_angstrom: float, hidden: Tensor | None = None
) -> Image:
    """Contrast without the CTF whose coarse detail is that of balls where particles are, scaled to
    fit it.

    An underfocused image passes next to nothing there, so that the network's estimate of it is a
    guess, ring-like where a particle is hollow; `particles`, a dome d over each, says where the
    guess found one. A ball whose outline has the dome 1 - r / R is sqrt(d (2 - d)) times its
    diameter thick. What finer detail shows stays as it is.

    Parameters
    ----------
    contrast, particles
        The network's outputs: particles negative in the first, from 0 to 1 in the second.
    pixel_size_angstrom
        Of both.
    hidden
        Where no specimen is to be seen, bool, [y, x]: that says nothing of the scale.
    """
    shape = (contrast.shape[0], contrast.shape[1])
    k = cosine_frequency(shape, pixel_size_angstrom, contrast.device)
    dome = particles.clamp(0, 1)
    thickness = (dome * (2 - dome)).sqrt()
    own = cosine_transform(contrast)
    balls = cosine_transform(thickness)
    is_coarse = (k > 0) & (k < 1 / COARSE_ANGSTROM)
    seen = own[is_coarse]
    seen_balls = balls[is_coarse]
    if hidden is not None:
        seen, seen_balls = (
            cosine_transform(torch.where(hidden, image[~hidden].mean(), image))[is_coarse]
            for image in (contrast, thickness)
        )
    scale = float((seen * seen_balls).sum() / seen_balls.square().sum().clamp(min=1e-12))
    scale = min(scale, 0.0)  # protein is dark: balls that fit badly do not turn it over
    passed = torch.exp(-0.5 * (k * FILLED_ANGSTROM) ** 2)
    change = scale * balls - own
    return inverse_cosine_transform(own + passed * change)


def sharpened(image: Image, pixel_size_angstrom: float) -> Image:
    """An image with most of its coarse detail taken out, as pickers without templates want it.

    What such a picker is blurred by, a disc of the particle's size, hides faint particles beside
    strong ones and makes one of two that touch. The network's images hold next to no noise, so
    that the finer detail can be relied on.

    Parameters
    ----------
    image
        [y, x].
    pixel_size_angstrom
        Of it.
    """
    k = cosine_frequency((image.shape[0], image.shape[1]), pixel_size_angstrom, image.device)
    mean = torch.exp(-2 * (math.pi * SHARPENED_ANGSTROM * k).square())
    return inverse_cosine_transform((1 - SHARPENED_SHARE * mean) * cosine_transform(image))


def sharpened_domes(domes: Image, pixel_size_angstrom: float) -> Image:
    """The same of where particles are, a dome from 0 to 1 over each: there, `AROUND_DOMES` is
    nothing, and what is less lies beside a particle.
    """
    return (sharpened(domes, pixel_size_angstrom) + AROUND_DOMES).clamp(0, 1)
