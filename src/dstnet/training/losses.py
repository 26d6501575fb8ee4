"""What training minimises."""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from dstnet.core.fourier import ring_count, ring_index
from dstnet.errors import SettingsError
from dstnet.metrics.spectral import ring_powers

PixelLoss = Literal["squared_ratio", "l1", "l2", "charbonnier"]
# Of Lai et al., CVPR 2017 (LapSRN), there of images from 0 to 1, here in units of the target's
# deviation.
CHARBONNIER_EPSILON = 1e-3
TAIL = 5.0  # degrees of freedom of Student's t: a heavy tail whose variance is finite


def pixel_loss(
    output: Tensor, target: Tensor, floor: float, kind: PixelLoss = "squared_ratio"
) -> Tensor:
    """A loss of pixels of [batch, channel, y, x], in units of each target's own deviation.

    With e = (output - target) / sqrt(power of the target + `floor`): "l2" is the mean of e^2, "l1"
    of |e|, "charbonnier" of sqrt(e^2 + 1e-6), "squared_ratio" the mean over fields of log(1 + mean
    e^2). An output of nothing costs about one in the first, 0.8 in the next two and 0.7 in the
    last, so that one learning rate, and one weight of the other losses, does for all.

    The division makes faint fields weigh as much as strong ones. The logarithm keeps a field with a
    crystal of ice, or none of particles, whose mean e^2 is tens or hundreds until the network has
    learnt to leave it alone, from drowning all others.

    Raises
    ------
    SettingsError
        If there is no such `kind`.
    """
    scale = (_power(target) + floor).sqrt()
    error = (output - target) / scale
    match kind:
        case "squared_ratio":
            ratio = error.square().mean((-2, -1))
            return torch.log1p(ratio).mean()
        case "l2":
            return error.square().mean()
        case "l1":
            return error.abs().mean()
        case "charbonnier":
            rounded = error.square() + CHARBONNIER_EPSILON**2
            return rounded.sqrt().mean()
    names = ", ".join(get_args(PixelLoss))
    raise SettingsError(f"no pixel loss is called {kind!r}; there are {names}")


def _power(image: Tensor) -> Tensor:
    """Mean square of each of [..., y, x], its axes kept."""
    return image.square().mean((-2, -1), keepdim=True)


def focal_frequency_loss(output: Tensor, target: Tensor) -> Tensor:
    """The focal frequency loss (Jiang et al., ICCV 2021, alpha = 1) of [batch, channel, y, x].

    The mean over all frequencies of w |D|^2: D is the difference's orthonormal transform, w = |D|
    over its largest value in each image, not differentiated. What is worst weighs most.
    """
    difference = (output - target).float()
    spectrum = torch.fft.fft2(difference, norm="ortho")
    power = spectrum.real.square() + spectrum.imag.square()
    magnitude = power.detach().sqrt()
    largest = magnitude.amax((-2, -1), keepdim=True)
    weight = magnitude / largest.clamp(min=torch.finfo(magnitude.dtype).tiny)
    return (weight * power).mean()


def error_likelihood(expected: Tensor, output: Tensor, target: Tensor) -> Tensor:
    """Negative log likelihood of an output's error under Student's t of deviation `expected`, all
    [batch, channel, y, x].

    Normal errors would have the same minimum but for a factor, which calibration corrects (Nix &
    Weigend 1994 fit deviations so); with the heavier tail one pixel's pull is bounded, and a frost
    crystal does not drown the field. The output itself is not moved: an error that is easily
    foreseen would else be left to stand (Seitzer et al. 2022).
    """
    error = (output.detach() - target).square()
    # Student's t of TAIL degrees has the variance TAIL / (TAIL - 2).
    scaled = error / (expected.square() * (TAIL - 2))
    tail = 0.5 * (TAIL + 1) * torch.log1p(scaled)
    return (expected.log() + tail).mean()


def chance_loss(chance: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of a chance with a target, each from 0 to 1, of one shape; bounded where the
    chance is 0 or 1, and not a number where the chance is none.
    """
    bounded = chance.clamp(1e-6, 1 - 1e-6)
    # torch ends the program at what is no number, where training says what to do.
    known = bounded.nan_to_num()
    return binary_cross_entropy(known, target) + (bounded - known).detach().mean()


def ring_correlation_loss(
    output: Tensor, target: Tensor, rings: int, power_floor: float = 1e-4
) -> Tensor:
    """1 - Fourier ring correlation of [batch, channel, y, x] with the target, averaged over rings
    with weight 1 / k.

    Blind to amplitude: a squared error shrinks what it doubts, and this term keeps its pattern.
    Fields whose target is empty (power below `power_floor`) have no ring correlation and are left
    out.
    """
    present = target.square().mean((-2, -1)) > power_floor
    if not bool(present.any()):
        return output.new_zeros(())
    a = torch.fft.rfft2(output[present].float())
    b = torch.fft.rfft2(target[present].float())
    shape = (output.shape[-2], output.shape[-1])
    ring = ring_index(shape, rings, output.device)
    ring[0, 0] = rings  # the mean is no detail
    correlation = ring_powers(a, b, ring, rings).correlation(added=1e-12)
    frequency = torch.arange(rings, device=output.device) + 0.5
    # Small images have rings without any frequency.
    weight = 1 / frequency * (ring_count(ring, rings) > 0)
    missing = (1 - correlation) * weight
    return missing.sum(-1).mean() / weight.sum()


def image_loss(
    output: Tensor,
    target: Tensor,
    floor: float,
    *,
    kind: PixelLoss,
    ring_weight: float,
    rings: int,
    focal_weight: float,
) -> Tensor:
    """The loss of one image of [batch, channel, y, x]: of pixels, of ring correlations, and focal,
    the last in `pixel_loss`'s units.

    Raises
    ------
    SettingsError
        As `pixel_loss`.
    """
    loss = pixel_loss(output, target, floor, kind)
    if ring_weight:
        loss = loss + ring_weight * ring_correlation_loss(output, target, rings)
    if focal_weight:
        scale = (_power(target) + floor).rsqrt()
        loss = loss + focal_weight * focal_frequency_loss(output * scale, target * scale)
    return loss
