"""Running a network over an image of any size, tile by tile, without a seam and without memory that
grows with the image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Self

import torch
from torch import Tensor

from dstnet.core.progress import progress


def spans(length: int, tile: int, overlap: int, stride: int) -> tuple[int, list[int]]:
    """Side and starts of equal tiles that cover `length` pixels, neighbours sharing at least
    `overlap`, evenly spread.

    Both are multiples of `stride`: a network that works on a coarser grid inside gives another
    output for an image moved by part of its stride, so that only such tiles agree with each other
    and with the image in one piece; the last may reach beyond the image. There are as few as sides
    of up to `tile` allow, and no larger than so many need.
    """
    # All in units of the stride.
    length = _divide_up(length, stride)
    tile = tile // stride
    overlap = _divide_up(overlap, stride)
    if length <= tile:
        return length * stride, [0]
    overlap = min(overlap, tile - 1)
    count = _divide_up(length - overlap, tile - overlap)
    gaps = count - 1
    side = _divide_up(length + gaps * overlap, count)
    last = length - side
    starts = []
    for number in range(count):
        start = round(number * last / gaps)
        starts.append(start * stride)
    return side * stride, starts


def _divide_up(number: int, by: int) -> int:
    return math.ceil(number / by)


@dataclass(frozen=True)
class _Axis:
    """Tiles along one axis of an image.

    Attributes
    ----------
    length
        Of the image, in pixels.
    side, starts
        Of the tiles.
    overlap
        That neighbours share at least.
    """

    length: int
    side: int
    starts: list[int]
    overlap: int

    @classmethod
    def of(cls, length: int, tile: int, overlap: int, stride: int) -> Self:
        """Tiles as `spans` lays them."""
        side, starts = spans(length, tile, overlap, stride)
        return cls(length, side, starts, overlap)

    def inside(self, start: int) -> slice:
        """The image's pixels that a tile covers."""
        return slice(start, min(start + self.side, self.length))

    def pixels(self, start: int, device: torch.device) -> Tensor:
        """Numbers of a tile's pixels; beyond the image folded back into it, however small it is."""
        if self.length == 1:
            return torch.zeros(self.side, dtype=torch.long, device=device)
        period = 2 * self.length - 2
        number = torch.arange(start, start + self.side, device=device)
        phase = number % period
        is_inside = phase < self.length
        return torch.where(is_inside, phase, period - phase)

    def weight(self, start: int, device: torch.device) -> Tensor:
        """Blending weight of a tile's pixels inside the image: zero over the outermost quarter of
        the overlap, then a raised cosine; 1 at the image's own edges.
        """
        weight = torch.ones(self.side, device="cpu")
        rise = self._rise()
        if start > 0:
            weight[: len(rise)] = rise
        if start + self.side < self.length:
            # Times: with a large overlap both ramps reach the same pixels.
            fall_start = self.side - len(rise)
            weight[fall_start:] *= rise.flip(0)
        inside = self.inside(start)
        pixels = inside.stop - start
        return weight[:pixels].to(device)

    def _rise(self) -> Tensor:
        """Weights over an overlap, but for its last quarter, where they are one."""
        trim = self.overlap // 4
        width = self.overlap - 2 * trim
        middles = torch.arange(width, device="cpu") + 0.5
        phase = torch.pi * middles / width
        cosine = 0.5 - 0.5 * torch.cos(phase)
        zeros = torch.zeros(trim, device="cpu")
        return torch.cat((zeros, cosine))


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
    [outputs, y, x] on the device of `total`.

    Every tile handed to `run` has sides of at most `tile` that are a multiple of `stride`, and more
    than `overlap`; small images are completed by reflection. The outer quarter of each overlap,
    where a tile's network sees its own border, gets no weight.
    """
    height, width = total.shape
    device = total.device
    vertical = _Axis.of(height, tile, overlap, stride)
    horizontal = _Axis.of(width, tile, overlap, stride)
    out = torch.zeros(outputs, height, width, device=device)
    norm = torch.zeros(height, width, device=device)
    places = list(product(vertical.starts, horizontal.starts))
    for done, (top, left) in enumerate(places):
        progress("enhancing, tile", done, len(places))
        rows = vertical.pixels(top, device)[:, None]
        columns = horizontal.pixels(left, device)
        tile_frames = frames[:, rows, columns]
        tile_total = total[rows, columns]
        result = run(tile_frames, tile_total).to(device)
        weight_y = vertical.weight(top, device)
        weight_x = horizontal.weight(left, device)
        weight = weight_y[:, None] * weight_x
        seen = result[:, : len(weight_y), : len(weight_x)]
        inside_y = vertical.inside(top)
        inside_x = horizontal.inside(left)
        out[:, inside_y, inside_x] += seen * weight
        norm[inside_y, inside_x] += weight
    return out.div_(norm)
