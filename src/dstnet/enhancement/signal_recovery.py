"""The trusted linear part: what a linear filter shows and the network left out is given back; and
contrast where the CTF passes nothing.

A network trained on squared error shrinks what it doubts, and leaves out what its simulator knows
nothing of. So its residual, input minus output, is looked at: were all signal explained, it would
be white noise of power one. Rings of frequencies where it holds more are signal that the network
left.

- At one frame's exposure the network doubts most particles and draws others. Where nearly all
  signal is left, the output becomes the input through the Wiener filter (P - 1) / P of its own
  rings, unless the exposure is known to be a whole movie's; where less is, next to nothing changes.
- Of what is left then, coarse rings get back what its own Wiener filter passes: what no simulator
  knew of. Finer ones do not, since what is left there is the water's structure.
- Of what is left still, a fifth of what the Wiener filter of the input passes is given back: what
  is faint fades, but never wholly.

On pure noise all are nothing.
"""

import torch
from torch import Tensor

from dstnet.core.fourier import irfft2, radial_frequency, radial_mean, ring_index
from dstnet.core.shapes import Image

RINGS = 120
# The share is judged between these: beyond lie illumination and ice gradients, and what most images
# hold no signal of.
COARSEST_ANGSTROM, FINEST_ANGSTROM = 500.0, 10.0
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
FAINT, FAINT_ANGSTROM = (
    0.2,
    (
        150.0,
        25.0,
    ),
)  # the fifth, and where; finer detail is for the network alone to judge
# Detail coarser than this (a Gaussian exp(-(k x)^2 / 2)) of the contrast without CTF comes from
# where particles are.
FILLED_ANGSTROM = 40.0
COARSE_ANGSTROM = 60.0  # beyond it the two are brought to one scale


def linear_part(
    total: Image,
    enhanced: Image,
    pixel_size_angstrom: float,
    exposure_e_per_a2: float | None = None,
) -> Image:
    """What to add to `enhanced` so that it keeps what a linear filter shows of `total`.

    Parameters
    ----------
    total
        The network's input, mean zero and unit noise.
    enhanced
        Its output, in the same units.
    pixel_size_angstrom
        Of both.
    exposure_e_per_a2
        Of the total; None where it is not known.
    """
    shape = (total.shape[0], total.shape[1])
    k = radial_frequency(shape, device=total.device)
    index = ring_index(shape, RINGS, total.device).clamp(max=RINGS - 1)
    # A complex term's power is exponentially distributed: its mean over n independent ones has a
    # standard error of 1 / sqrt(n).
    limit = SIGNIFICANCE / torch.bincount(index.flatten(), minlength=RINGS).sqrt()
    frequency = (torch.arange(RINGS, device=total.device) + 0.5) / RINGS * 0.5 / pixel_size_angstrom

    def ring_power(spectrum: Tensor) -> Tensor:
        return radial_mean(spectrum.abs().square() / (shape[0] * shape[1]), shape, RINGS)

    def excess(power: Tensor) -> Tensor:
        return torch.where(power - 1 > limit, power - 1, 0.0)

    def wiener(power: Tensor) -> Tensor:
        return (excess(power) / power.clamp(min=1e-6))[index] * (k < 0.5)

    spectrum, given = torch.fft.rfft2(total), torch.fft.rfft2(enhanced)
    linear = wiener(ring_power(spectrum))
    weight = frequency * (
        (frequency > 1 / COARSEST_ANGSTROM) & (frequency < 1 / FINEST_ANGSTROM)
    )  # terms in a ring grow with its radius
    left = float((excess(ring_power(spectrum - given)) * weight).sum())
    if left == 0:
        return torch.zeros_like(enhanced)
    share = left / (left + float((ring_power(given) * weight).sum()))
    fade = 0.0 if (exposure_e_per_a2 or 0.0) >= NOT_FADED_E_PER_A2 else share**SHARE_POWER
    added = fade * (linear * spectrum - given)

    def between(coarsest: float, finest: float) -> Tensor:
        return (k / pixel_size_angstrom > 1 / coarsest) & (k / pixel_size_angstrom < 1 / finest)

    rest = spectrum - given - added
    added += between(*GIVEN_BACK_ANGSTROM) * wiener(ring_power(rest)) * rest
    added += between(*FAINT_ANGSTROM) * FAINT * linear * (spectrum - given - added)
    return irfft2(added, shape)


def notes_on(added: Image, enhanced: Image) -> list[str]:
    """What to tell a user of an `enhanced` micrograph to which `linear_part` has `added` something:
    nothing in the usual case.
    """
    if not float(added.square().mean()) > float((enhanced - added).square().mean()):
        return []
    return [
        "the network explains little of what stands out of white noise here: most of the enhanced"
        " micrograph is the filtered sum"
    ]


def filled(contrast: Image, particles: Image, pixel_size_angstrom: float) -> Image:
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
    """
    shape = (contrast.shape[0], contrast.shape[1])
    k = radial_frequency(shape, pixel_size_angstrom, contrast.device)
    dome = particles.clamp(0, 1)
    own, balls = torch.fft.rfft2(contrast), torch.fft.rfft2((dome * (2 - dome)).sqrt())
    coarse = (k > 0) & (k < 1 / COARSE_ANGSTROM)
    scale = float(
        (own * balls.conj()).real[coarse].sum()
        / balls.abs().square()[coarse].sum().clamp(min=1e-12)
    )
    passed = torch.exp(-0.5 * (k * FILLED_ANGSTROM) ** 2)
    return irfft2(own + passed * (min(scale, 0.0) * balls - own), shape)
