"""Signal and noise of a movie's Fourier terms, ring by ring, from the frames alone."""

import torch
from torch import Tensor
from torch.nn import functional as F

_SIGNIFICANT_SIGNAL = 3.0  # standard deviations of a ring and its neighbours together
_NEIGHBOUR_RINGS = 8


def ring_numbers(radius: Tensor) -> Tensor:
    """Ring of each term by its |k|: 4 to 64 rings of equal width, of some 200 terms on average."""
    rings = max(4, min(64, len(radius) // 200))
    return (radius / radius.max() * rings).long().clamp(max=rings - 1)


def ring_mean(values: Tensor, ring: Tensor) -> Tensor:
    """Mean over each ring of a real value per term (first axis)."""
    rings = int(ring.max()) + 1
    counts = torch.bincount(ring, minlength=rings).clamp(min=1).to(values)
    total = torch.zeros(rings, *values.shape[1:], device=values.device).index_add_(0, ring, values)
    return total / counts.reshape(-1, *(1 for _ in values.shape[1:]))


def signal_and_noise(
    total_power: Tensor, n: int, power: Tensor, ring: Tensor, copies: int = 1
) -> tuple[Tensor, Tensor]:
    """Power of the common signal and of the noise in each ring, from the power of the sum of `n`
    spectra and their mean power.

    E|sum/n|^2 = S + N/n and E|X|^2 = S + N. Signal counts only where neighbouring rings together
    are significant: else a movie of nothing but noise would be aligned to its own noise. Rings are
    means over `copies` independent sets of terms.
    """
    counts = torch.bincount(ring, minlength=len(power)).clamp(min=1) * copies
    signal = (total_power / n - power) / (n - 1)
    error = (power / ((n - 1) * counts.sqrt())).clamp(min=1e-30)  # a ring may be empty
    window = torch.ones(1, 1, 2 * _NEIGHBOUR_RINGS + 1, device=error.device)
    summed = F.conv1d(
        torch.stack((signal / error, (power > 0).to(error)))[:, None],
        window,
        padding=_NEIGHBOUR_RINGS,
    )[:, 0]
    significant = summed[0] > _SIGNIFICANT_SIGNAL * summed[1].sqrt()
    signal = torch.where(significant, signal - 0.5 * error, 0.0).clamp(
        min=0
    )  # half: of weak rings, chance raises the visible ones
    signal = torch.minimum(signal, 0.99 * power)  # a noise-free movie must not divide by zero
    return signal, power - signal
