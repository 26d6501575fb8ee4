"""Whether images show the period of a network's own strides."""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor

# What counts as at a point of the spectrum, and beside it, in lines of a crop's spectrum; what lies
# between is neither.
_LINES_AT, _LINES_BESIDE = 2, 7
_LEAST_ENERGY = 1e-30


def checkerboard(images: Tensor, stride: int) -> Tensor:
    """How much of images' energy lies at multiples of 1/2, 1/4, ... 1/`stride` cycles per pixel,
    against that beside them.

    A sub-pixel shuffle or an up-sampling whose phases differ leaves a pattern of its period, and
    copies of the image's own low frequencies about the pattern's.

    Parameters
    ----------
    images
        [image, y, x], square, of 32 pixels a side or more; each counts alike.
    stride
        The longest period, a power of two.

    Returns
    -------
    Tensor
        [2, period], for 2, 4, ... `stride`, or up to a sixteenth of the side: the points of longer
        ones are too close for anything to lie beside. First the mean energy at the points over that
        beside, about 1 for a smooth spectrum; then what is more at the points, as a share of all
        energy.
    """
    power = _mean_power(images)
    longest = min(stride, images.shape[-1] // 16)
    found = []
    seen = {(0.0, 0.0)}
    period = 2
    while period <= longest:
        points = _points(period) - seen
        seen |= points
        at, beside = _energies(power, sorted(points))
        ratio = at / max(beside, _LEAST_ENERGY)
        found.append((ratio, at - beside))
        period *= 2
    return torch.tensor(found).T


def _points(period: int) -> set[tuple[float, float]]:
    """Where a pattern of this period has its energy, (y, x), cycles per pixel."""
    steps = [i / period for i in range(period)]
    return set(itertools.product(steps, steps))


def _mean_power(images: Tensor) -> Tensor:
    """Mean over images of each one's power spectrum, [y, x], whose sum is 1."""
    # Without a window the borders' jumps would lie on the axes, where some of the points are.
    along = torch.hann_window(images.shape[-1])
    window = along[:, None] * along[None, :]
    centred = images - images.mean((-2, -1), keepdim=True)
    power = torch.fft.fft2(centred * window).abs().square()
    energy = power.sum((-2, -1), keepdim=True)
    share = power / energy.clamp(min=_LEAST_ENERGY)
    return share.mean(0)


def _energies(power: Tensor, points: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Energy at points of the spectrum, and what would be there by the energy beside them."""
    total = 0.0
    expected = 0.0
    for y, x in points:
        away_y = _distance(power.shape[0], y)
        away_x = _distance(power.shape[1], x)
        away = torch.maximum(away_y[:, None], away_x[None, :])
        at = away <= _LINES_AT
        not_at = away > 2 * _LINES_AT
        beside = not_at & (away <= _LINES_BESIDE)
        mean_beside = float(power[beside].mean())
        total += float(power[at].sum())
        expected += mean_beside * int(at.sum())
    return total, expected


def _distance(lines: int, frequency: float) -> Tensor:
    """Of a spectrum's lines from a frequency, in lines, the short way round."""
    half = lines / 2
    ahead = torch.arange(lines) - frequency * lines
    return ((ahead + half) % lines - half).abs()
