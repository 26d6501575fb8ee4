"""What training minimises."""

from typing import Literal, get_args

import torch
from torch import Tensor

from dstnet.core.fourier import radial_frequency, ring_index
from dstnet.errors import SettingsError

PixelLoss = Literal["squared_ratio", "l1", "l2", "charbonnier"]
# of Lai et al., CVPR 2017 (LapSRN), there of images from 0 to 1, here in units of the target's
# deviation
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
    frost crystal, or none of particles, whose mean e^2 is tens or hundreds until the network has
    learnt to leave it alone, from drowning all others.
    """
    error = (output - target) / (target.square().mean((-2, -1), keepdim=True) + floor).sqrt()
    match kind:
        case "squared_ratio":
            return torch.log1p(error.square().mean((-2, -1))).mean()
        case "l2":
            return error.square().mean()
        case "l1":
            return error.abs().mean()
        case "charbonnier":
            return (error.square() + CHARBONNIER_EPSILON**2).sqrt().mean()
    raise SettingsError(
        f"no pixel loss is called {kind!r}; there are {', '.join(get_args(PixelLoss))}"
    )


def focal_frequency_loss(output: Tensor, target: Tensor) -> Tensor:
    """The focal frequency loss (Jiang et al., ICCV 2021, alpha = 1) of [batch, channel, y, x].

    The mean over all frequencies of w |D|^2: D is the difference's orthonormal transform, w = |D|
    over its largest value in each image, not differentiated. What is worst weighs most.
    """
    difference = torch.fft.fft2((output - target).float(), norm="ortho")
    power = difference.real.square() + difference.imag.square()
    weight = power.detach().sqrt()
    weight = weight / weight.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight * power).mean()


def error_likelihood(expected: Tensor, output: Tensor, target: Tensor) -> Tensor:
    """Negative log likelihood of an output's error under Student's t of deviation `expected`, all
    [batch, channel, y, x].

    Normal errors would have the same minimum but for a factor, which calibration mends (Nix &
    Weigend 1994 fit deviations so); with the heavier tail one pixel's pull is bounded, and a frost
    crystal does not drown the field. The output itself is not moved: an error that is easily
    foreseen would else be left to stand (Seitzer et al. 2022).
    """
    error = (output.detach() - target).square()
    scaled = error / (
        expected.square() * (TAIL - 2)
    )  # Student's t of TAIL degrees has the variance TAIL / (TAIL - 2)
    return (expected.log() + 0.5 * (TAIL + 1) * torch.log1p(scaled)).mean()


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
    a, b = torch.fft.rfft2(output[present].float()), torch.fft.rfft2(target[present].float())
    k = radial_frequency((output.shape[-2], output.shape[-1]), device=output.device)
    index = ring_index((output.shape[-2], output.shape[-1]), rings, output.device).flatten()
    inside = (index < rings) & (k.flatten() > 0)

    def ring_sum(values: Tensor) -> Tensor:
        flat = values.flatten(1)[:, inside]
        return flat.new_zeros(flat.shape[0], rings).index_add_(1, index[inside], flat)

    cross = ring_sum((a * b.conj()).real)
    correlation = cross / (ring_sum(a.abs().square()) * ring_sum(b.abs().square()) + 1e-12).sqrt()
    weight = 1 / (torch.arange(rings, device=output.device) + 0.5)
    weight = weight * (
        torch.bincount(index[inside], minlength=rings) > 0
    )  # small images have rings without any frequency
    return ((1 - correlation) * weight).sum(-1).mean() / weight.sum()


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
    """
    loss = pixel_loss(output, target, floor, kind)
    if ring_weight:
        loss = loss + ring_weight * ring_correlation_loss(output, target, rings)
    if focal_weight:
        scale = (target.square().mean((-2, -1), keepdim=True) + floor).rsqrt()
        loss = loss + focal_weight * focal_frequency_loss(output * scale, target * scale)
    return loss
