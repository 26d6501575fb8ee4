"""Patches, square images of particles, on the field."""

import torch
from torch import Tensor

FOOTPRINT_PART = 0.15  # of the smoothed phase's maximum


def overlap(
    shape: tuple[int, ...], size: int, centre: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a patch of `size` pixels, its centre at [n // 2, n // 2], lies on a canvas of `shape`
    around the pixel `centre`: that part of the canvas, and of the patch. Both empty where they do
    not meet.
    """
    height, width = shape
    rows, patch_rows = _overlap_along(height, size, centre[0])
    columns, patch_columns = _overlap_along(width, size, centre[1])
    return (rows, columns), (patch_rows, patch_columns)


def _overlap_along(extent: int, size: int, middle: int) -> tuple[slice, slice]:
    """`overlap` along one axis."""
    start = middle - size // 2
    end = min(start + size, extent)
    first = max(start, 0)
    last = max(first, end)
    on_canvas = slice(first, last)
    on_patch = slice(first - start, last - start)
    return on_canvas, on_patch


def add_patch(canvas: Tensor, patch: Tensor, centre: tuple[int, int]) -> None:
    """Add a patch to `canvas` around the pixel `centre` (see `overlap`), cut at the canvas'
    edges.
    """
    there, part = overlap(canvas.shape, patch.shape[0], centre)
    canvas[there] += patch[part]


def footprint(patch: Tensor) -> Tensor:
    """Pixels that a particle covers, bool ``[n, n]``: where its phase, smoothed over 5 x 5 pixels,
    is above 0.15 of its maximum.

    The smoothing closes the gaps between atoms; the level lies well above the ringing around them.
    """
    batch = patch[None, None]
    smooth = torch.nn.functional.avg_pool2d(batch, 5, stride=1, padding=2)
    covered = smooth > FOOTPRINT_PART * smooth.max()
    return covered[0, 0]
