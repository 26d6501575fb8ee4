"""Signal and noise of a movie's Fourier terms, ring by ring, from the frames alone."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dstnet.core.fourier import ring_count

_SIGNIFICANT_SIGNAL = 3.0  # standard deviations of a ring and its neighbours together
_NEIGHBOUR_RINGS = 8
_MOST_SIGNAL = 0.99  # of the power: a noise-free movie must not divide by zero


def ring_numbers(radius: Tensor) -> Tensor:
    """Ring of each term by its |k|: 4 to 64 rings of equal width, of some 200 terms on average."""
    rings = max(4, min(64, len(radius) // 200))
    number = (radius / radius.max() * rings).long()
    return number.clamp(max=rings - 1)


def signal_and_noise(
    total_power: Tensor, n: int, power: Tensor, ring: Tensor, copies: int = 1
) -> tuple[Tensor, Tensor]:
    """Power of the common signal and of the noise in each ring, from the power of the sum of `n`
    spectra and their mean power.

    E|sum/n|^2 = S + N/n and E|X|^2 = S + N. Signal counts only where neighbouring rings together
    are significant: else a movie of nothing but noise would be aligned to its own noise. Rings are
    means over `copies` independent sets of terms.

    Parameters
    ----------
    total_power
        Mean power of the sum in each ring, [ring].
    n
        Number of spectra.
    power
        Mean power of one spectrum in each ring, [ring].
    ring
        Ring of each term, [term].
    copies
        Sets of terms.

    Returns
    -------
    signal, noise
        [ring] each; their sum is `power`.
    """
    counts = ring_count(ring, len(power)).clamp(min=1) * copies
    signal = (total_power / n - power) / (n - 1)
    error = power / ((n - 1) * counts.sqrt())
    error = error.clamp(min=1e-30)  # a ring may be empty
    in_errors = signal / error
    is_filled = power > 0
    rings = torch.stack((in_errors, is_filled.to(error)))
    summed_signal, summed_rings = _sums_of_neighbours(rings)
    is_significant = summed_signal > _SIGNIFICANT_SIGNAL * summed_rings.sqrt()
    # Half an error less: of weak rings, chance raises the visible ones.
    cautious = signal - 0.5 * error
    signal = torch.where(is_significant, cautious, 0.0)
    signal = signal.clamp(min=0)
    most = _MOST_SIGNAL * power
    signal = torch.minimum(signal, most)
    noise = power - signal
    return signal, noise


def _sums_of_neighbours(values: Tensor) -> Tensor:
    """Sums of values [quantity, ring] over each ring and its neighbours on either side."""
    width = 2 * _NEIGHBOUR_RINGS + 1
    window = torch.ones(1, 1, width, device=values.device)
    sums = F.conv1d(values[:, None], window, padding=_NEIGHBOUR_RINGS)
    return sums[:, 0]
