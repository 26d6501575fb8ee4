"""Traces of how an image was computed: borders of tiles, and the grid of a network's strides."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dstnet.core.fourier import NYQUIST, ring_index, ring_mean
from dstnet.core.shapes import Image
from dstnet.metrics.rings import tapered

# Lines that one is compared with, to either side: those next to it may have some of a seam.
NEARBY_LINES = (2, 3)
FAINT = 0.1  # of the mean gradient: less is as good as none
# Patterns of 16 to 2 pixels are looked for: a network's grid need not be that of the image.
LOWEST_FREQUENCY, FREQUENCY_STEP = 1 / 16, 1 / 80
# Around each of a pattern's frequencies, in cycles per pixel: on it, and beside it.
ON_PATTERN, BESIDE_PATTERN = 0.02, 0.04
_LEAST_POWER = 1e-5  # of the image's mean: weaker patterns are not seen


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
    """Power at the frequencies of a square pattern over that beside them, for the period from 2 to
    16 pixels where it is largest; each term over the mean of its ring, so that rings of the
    transfer function and of round particles go by. About 1 without a pattern.

    Of a pattern's frequencies, along both axes and the diagonals, the mean ratio counts. "Beside"
    is the stronger of what lies towards the middle of the Fourier plane and away from it: an image
    that ends at some resolution ends there without a pattern.

    Parameters
    ----------
    image
        [y, x], of at least 100 pixels a side.

    Returns
    -------
    float
        1 for a constant image.
    """
    power = _over_ring_means(image)
    if power is None:
        return 1.0
    steps = round((NYQUIST - LOWEST_FREQUENCY) / FREQUENCY_STEP)
    ratios = []
    for number in range(steps + 1):
        k = LOWEST_FREQUENCY + number * FREQUENCY_STEP
        harmonics = (((k, 0.0), (-k, 0.0)), ((0.0, k),), ((k, k), (-k, k)))
        ratios.append(sum(_over_beside(power, places) for places in harmonics) / len(harmonics))
    return max(ratios)


def _over_ring_means(image: Image) -> Tensor | None:
    """Power of each Fourier term over the mean of its ring, [y, x] on the ``rfft2`` grid; None
    where there is none.
    """
    shape = (image.shape[0], image.shape[1])
    power = torch.fft.rfft2(tapered(image.double())).abs().square()
    if not bool(power.any()):
        return None
    # Beyond Nyquist a ring is hardly more than the corners themselves.
    ring = ring_index(shape, shape[0] // 2).clamp(max=shape[0] // 2)
    least = _LEAST_POWER * float(power.mean())
    return (power + least) / (ring_mean(power, ring) + least)[ring]


def _over_beside(power: Tensor, places: Sequence[tuple[float, float]]) -> float:
    """Mean power at some places (ky, kx) of the ``rfft2`` grid [y, x], which are alike, over that
    beside them.
    """
    rows = power.shape[0]
    columns = 2 * (power.shape[1] - 1)
    parts: tuple[list[Tensor], ...] = ([], [], [])
    for ky, kx in places:
        y = torch.arange(round((ky - BESIDE_PATTERN) * rows), round((ky + BESIDE_PATTERN) * rows))
        first = max(0, round((kx - BESIDE_PATTERN) * columns))
        x = torch.arange(first, min(power.shape[1], round((kx + BESIDE_PATTERN) * columns)))
        terms = power[(y % rows)[:, None], x]
        of_rows, of_columns = (y / rows)[:, None], x / columns
        away = torch.hypot(of_rows - ky, of_columns - kx)
        is_finer = torch.hypot(of_rows, of_columns) > math.hypot(ky, kx)
        is_beside = (away >= ON_PATTERN) & (away < BESIDE_PATTERN)
        parts[0].append(terms[away < ON_PATTERN])
        parts[1].append(terms[is_beside & is_finer])
        parts[2].append(terms[is_beside & ~is_finer])
    on_pattern, finer, coarser = (torch.cat(terms) for terms in parts)
    beside = [float(terms.mean()) for terms in (finer, coarser) if len(terms)]
    return float(on_pattern.mean()) / max(beside)
