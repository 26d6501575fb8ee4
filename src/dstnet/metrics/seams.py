"""Traces of how an image was computed: borders of tiles, and the grid of a network's strides."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dstnet.core.fourier import frequencies, ring_mean
from dstnet.core.shapes import Image
from dstnet.metrics.rings import tapered

# Lines that one is compared with, to either side: those next to it may have some of a seam.
NEARBY_LINES = (2, 3)
FAINT = 0.1  # of the mean gradient: less is as good as none
STRIDES_PX = (2, 4, 8)
# Around each of the grid's frequencies, in cycles per pixel: on it, and beside it.
ON_GRID, BESIDE_GRID = 0.025, 0.05
_LEAST_POWER = 1e-6  # of the image's mean: weaker patterns are not seen


def seam_ratio(image: Image, borders: tuple[Sequence[int], Sequence[int]] | None = None) -> float:
    """Mean gradient across the borders of tiles over the median of those across all lines.

    Where the borders are not known, the gradient across the line which stands out most, over that
    across the lines nearby: a seam is one line, and what is in an image is not. It is compared
    pixel by pixel, so that a few strong edges do not make a line. Then white noise of n lines of n
    pixels has about 1 + 0.76 sqrt(2 ln(2 n) / n); smooth images, which have fewer independent
    pixels, have more.

    Parameters
    ----------
    image
        [y, x].
    borders
        First rows, and first columns, of tiles; without them all lines are looked at.

    Returns
    -------
    float
        1 for a constant image.
    """
    ratios = [1.0]
    for axis in (0, 1):
        steps = image.movedim(axis, 0).diff(dim=0).abs()
        if borders is None:
            ratios.append(float(_over_nearby(steps).max()))
        elif len(borders[axis]):
            of_lines = steps.double().mean(1)
            at_borders = of_lines[[first - 1 for first in borders[axis]]].mean()
            usual = float(of_lines.median())
            ratios.append(float(at_borders) / usual if usual > 0 else 1.0)
    return max(ratios)


def _over_nearby(steps: Tensor) -> Tensor:
    """Gradients [line, pixel] over those nearby, [line]; lines near the edges are left out.

    Of n + 1 gradients that are alike but for chance, each has 1 / (n + 1) of their sum, in the mean
    over pixels; one that is t times as large has t / (t + n).
    """
    if not bool(steps.any()):
        return torch.ones(1)
    steps = steps + FAINT * steps.mean()
    margin = max(NEARBY_LINES)
    inner = steps[margin:-margin]
    total = inner.clone()
    for away in NEARBY_LINES:
        total += steps[margin - away : -margin - away]
        total += steps[margin + away : len(steps) - margin + away]
    share = (inner / total).double().mean(1)
    return 2 * len(NEARBY_LINES) * share / (1 - share)


def checkerboard_ratio(image: Image) -> float:
    """Power at the frequencies of a grid over that beside them, for the grid of the stride where it
    is largest: 1 without a pattern, within about 1 / sqrt(independent terms); 1 for a constant
    image.

    Parameters
    ----------
    image
        [y, x].
    """
    shape = (image.shape[0], image.shape[1])
    power = torch.fft.rfft2(tapered(image.double())).abs().square()
    if not bool(power.any()):
        return 1.0
    ky, kx = frequencies(shape)
    # Over the mean of its ring: rings of the transfer function, and of round particles, go by.
    ring = (torch.hypot(ky, kx) * shape[0]).long()
    # Beyond Nyquist a ring is hardly more than the corners themselves.
    ring = ring.clamp(max=shape[0] // 2)
    least = _LEAST_POWER * float(power.mean())
    power = (power + least) / (ring_mean(power, ring) + least)[ring]
    ratios = []
    for stride in STRIDES_PX:
        row, column = (ky * stride).round(), (kx * stride).round()
        away = torch.hypot(ky - row / stride, kx - column / stride)
        # Its first harmonics: what is finer is the grid of a smaller stride.
        is_first = (row.abs() <= 1) & (column.abs() <= 1) & ((row != 0) | (column != 0))
        # Each counts alike, however much power an image has there.
        cell = ((row + 1) * 2 + column).long()
        on_grid, beside_grid = (
            ring_mean(power[inside], cell[inside], 6)
            for inside in (
                is_first & (away < ON_GRID),
                is_first & (away >= ON_GRID) & (away < BESIDE_GRID),
            )
        )
        of_harmonics = on_grid / beside_grid
        is_there = (on_grid > 0) & (beside_grid > 0)
        if bool(is_there.any()):
            ratios.append(float(of_harmonics[is_there].mean()))
    return max(ratios, default=1.0)
