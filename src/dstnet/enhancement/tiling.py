"""Running a network over an image of any size, tile by tile, without a seam and without memory that
grows with the image.
"""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor


def spans(length: int, tile: int, overlap: int, stride: int) -> tuple[int, list[int]]:
    """Side and starts of equal tiles that cover `length` pixels, neighbours sharing at least
    `overlap`, evenly spread.

    Both are multiples of `stride`: a network that works on a coarser grid inside gives another
    output for an image moved by part of its stride, so that only such tiles agree with each other
    and with the image in one piece; the last may reach beyond the image. There are as few as sides
    of up to `tile` allow, and no larger than so many need.
    """
    length, tile, overlap = -(-length // stride), tile // stride, -(-overlap // stride)
    if length <= tile:
        return length * stride, [0]
    overlap = min(overlap, tile - 1)
    count = -(-(length - overlap) // (tile - overlap))
    side = -(-(length + (count - 1) * overlap) // count)
    return side * stride, [round(i * (length - side) / (count - 1)) * stride for i in range(count)]


def _ramp(start: int, size: int, length: int, overlap: int, trim: int) -> Tensor:
    """Blending weight along one axis: zero over the outermost `trim` pixels, then a raised cosine;
    1 at the image's own edges.
    """
    weight = torch.ones(size)
    width = overlap - 2 * trim
    rise = torch.cat(
        (torch.zeros(trim), 0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(width) + 0.5) / width))
    )
    if start > 0:
        weight[: len(rise)] = rise
    if start + size < length:
        weight[size - len(rise) :] *= rise.flip(
            0
        )  # times: with a large overlap both ramps reach the same pixels
    return weight


def _reflected(start: int, size: int, length: int) -> Tensor:
    """Pixel numbers start .. start + size - 1 folded back into 0 .. length - 1 at the edges,
    however small the image.
    """
    if length == 1:
        return torch.zeros(size, dtype=torch.long)
    phase = torch.arange(start, start + size) % (2 * length - 2)
    return torch.where(phase < length, phase, 2 * length - 2 - phase)


def blend_tiles(
    run: Callable[[Tensor, Tensor], Tensor],
    frames: Tensor,
    total: Tensor,
    *,
    outputs: int,
    tile: int,
    overlap: int,
    stride: int,
) -> Tensor:
    """Apply `run` to overlapping tiles of `frames` [frame, y, x] and `total` [y, x], blended to
    [outputs, y, x].

    Every tile handed to `run` has sides of at most `tile` that are a multiple of `stride`, and more
    than `overlap`; small images are completed by reflection. The outer quarter of each overlap,
    where a tile's network sees its own border, gets no weight.
    """
    height, width = total.shape
    (size_y, starts_y), (size_x, starts_x) = (
        spans(length, tile, overlap, stride) for length in (height, width)
    )
    out = torch.zeros(outputs, height, width)
    norm = torch.zeros(height, width)
    for y, x in product(starts_y, starts_x):
        rows, columns = _reflected(y, size_y, height), _reflected(x, size_x, width)
        result = run(frames[:, rows[:, None], columns], total[rows[:, None], columns])
        h, w = min(size_y, height - y), min(size_x, width - x)
        weight = (
            _ramp(y, size_y, height, overlap, overlap // 4)[:h, None]
            * _ramp(x, size_x, width, overlap, overlap // 4)[None, :w]
        )
        out[:, y : y + h, x : x + w] += result[:, :h, :w] * weight
        norm[y : y + h, x : x + w] += weight
    return out / norm
