"""Traces of how an image was computed: borders of tiles, and the grid of a network's strides."""

from collections.abc import Sequence

import torch
from scipy import ndimage

from dstnet.core.fourier import frequencies, ring_mean
from dstnet.core.shapes import Image
from dstnet.metrics.rings import tapered

NEARBY_LINES = 17  # that a line is compared with, itself among them
STRIDES_PX = (2, 4, 8)
# Around each of the grid's frequencies, in cycles per pixel: on it, and beside it.
ON_GRID, BESIDE_GRID = 0.015, 0.03
_LEAST_POWER = 1e-6  # of the image's mean: weaker patterns are not seen


def seam_ratio(image: Image, borders: tuple[Sequence[int], Sequence[int]] | None = None) -> float:
    """Mean gradient across the borders of tiles over the median of those across all lines.

    Where the borders are not known, that of the line which stands out most, over the median of the
    `NEARBY_LINES` around it: a seam is one line, and what is in an image is not. Then white noise
    of n lines of n pixels has about 1 + 0.76 sqrt(2 ln(2 n) / n).

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
        steps = image.double().diff(dim=axis).abs().mean(1 - axis).cpu().numpy()
        if borders is None:
            usual = ndimage.median_filter(steps, NEARBY_LINES, mode="nearest")
            ratios += (steps[usual > 0] / usual[usual > 0]).tolist()
        elif len(borders[axis]):
            at_borders = steps[[first - 1 for first in borders[axis]]].mean()
            usual = float(ndimage.median(steps))
            ratios.append(at_borders / usual if usual > 0 else 1.0)
    return max(ratios)


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
    least = _LEAST_POWER * float(power.mean())
    ky, kx = frequencies(shape)
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
        of_harmonics = (on_grid + least) / (beside_grid + least)
        is_there = (on_grid > 0) & (beside_grid > 0)
        if bool(is_there.any()):
            ratios.append(float(of_harmonics[is_there].mean()))
    return max(ratios, default=1.0)
