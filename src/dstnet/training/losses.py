"""What training minimises."""

import torch
from torch import Tensor

from dstnet.core.fourier import radial_frequency


def squared_error(output: Tensor, target: Tensor, floor: float) -> Tensor:
    """log(1 + r) of [batch, channel, y, x], r the squared error over each target's own power (plus `floor`).

    The ratio makes faint fields weigh as much as strong ones; the logarithm keeps a field with a frost crystal, or none of particles, whose
    ratio is tens or hundreds until the network has learnt to leave it alone, from drowning all others.
    """
    power = target.square().mean((-2, -1))
    return torch.log1p((output - target).square().mean((-2, -1)) / (power + floor)).mean()


def ring_correlation_loss(output: Tensor, target: Tensor, rings: int, power_floor: float = 1e-4) -> Tensor:
    """1 - Fourier ring correlation of [batch, channel, y, x] with the target, averaged over rings with weight 1 / k.

    Blind to amplitude: a squared error shrinks what it doubts, and this term keeps its pattern. Fields whose target is empty
    (power below `power_floor`) have no ring correlation and are left out.
    """
    present = target.square().mean((-2, -1)) > power_floor
    if not bool(present.any()):
        return output.new_zeros(())
    a, b = torch.fft.rfft2(output[present].float()), torch.fft.rfft2(target[present].float())
    k = radial_frequency((output.shape[-2], output.shape[-1]), device=output.device)
    index = (k / 0.5 * rings).long().flatten()
    inside = (index < rings) & (k.flatten() > 0)

    def ring_sum(values: Tensor) -> Tensor:
        flat = values.flatten(1)[:, inside]
        return flat.new_zeros(flat.shape[0], rings).index_add_(1, index[inside], flat)

    cross = ring_sum((a * b.conj()).real)
    correlation = cross / (ring_sum(a.abs().square()) * ring_sum(b.abs().square()) + 1e-12).sqrt()
    weight = 1 / (torch.arange(rings, device=output.device) + 0.5)
    weight = weight * (torch.bincount(index[inside], minlength=rings) > 0)  # small images have rings without any frequency
    return ((1 - correlation) * weight).sum(-1).mean() / weight.sum()
