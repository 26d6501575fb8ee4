"""3 x 3 convolutions of a fifth of the products, for networks on a CPU.

Winograd's minimal filtering F(6 x 6, 3 x 3), in float32 on CPUs: each 6 x 6 pixels of a result need
64 products per pair of channels instead of 324, between a transform of the input and one of the
products, which cost additions. It pays where arithmetic is what takes time: float32 on processors
without half precision; and from some 32 channels on. Rounding errors are some 4e-6 of a
convolution's deviation.

References
----------
Winograd, Arithmetic Complexity of Computations (1980). Lavin & Gray, Fast algorithms for
convolutional neural networks, CVPR (2016).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dstnet.network.cpu.images import SIDE, FlatImage, empty_images, share_rows

_FEWEST_CHANNELS = 32  # 32 to 16 channels take longer than plainly, 48 to 48 less
_FEWEST_TILES = 64  # in a product of matrices: fewer leave the processor waiting
_PLANES = (SIDE + 2) ** 2  # numbers of a transformed tile
# Of filters, in Lavin & Gray's notation G; those of the input (B) and of the products (A) are
# written out in _winograd_kernel.py.
_G = np.array(
    [
        [90, 0, 0],
        [-20, -20, -20],
        [-20, 20, -20],
        [1, 2, 4],
        [1, -2, 4],
        [64, 32, 16],
        [64, -32, 16],
        [0, 0, 90],
    ],
    dtype=np.float64,
)
_G /= 90
NOTHING = np.empty(0, np.float32)


def fits(conv: nn.Conv2d) -> bool:
    """Whether a convolution can be computed in this way, and faster."""
    is_plain = (
        conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.padding == (1, 1)
        and conv.dilation == (1, 1)
        and conv.groups == 1
    )
    fewest = min(conv.in_channels, conv.out_channels)
    return is_plain and fewest >= _FEWEST_CHANNELS and conv.out_channels % 8 == 0


def bias_of(conv: nn.Conv2d) -> Tensor:
    """A convolution's bias; zeros where it has none."""
    return torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()


@dataclass(frozen=True)
class TileProducts:
    """Of one row of tiles, as `_winograd_kernel.out_of` takes them.

    Attributes
    ----------
    row
        The row of pixels at which the tiles' inner 6 x 6 begin.
    numbers
        [8 x 8, tile, channel], flat, of this and other rows of tiles.
    first
        Where in each of the 64 planes this row of tiles begins.
    plane
        Numbers of each plane.
    """

    row: int
    numbers: np.ndarray
    first: int
    plane: int


class WinogradConv(nn.Module):
    """A 3 x 3 convolution that keeps the image's size."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        # Not above: numba takes half a second to load.
        from dstnet.network.cpu import _winograd_kernel

        self.kernel = _winograd_kernel
        self._missing = -conv.in_channels % 8  # channels come in groups of eight
        weight = self._padded(conv.weight.detach().double()).numpy()
        filters = np.einsum("ai,bj,ocij->abco", _G, _G, weight).astype(np.float32)
        self._filters = torch.from_numpy(filters).flatten(0, 1)
        self.bias = bias_of(conv).numpy()

    def forward(self, *sources: Tensor, slope: float = 1.0, added: Tensor | None = None) -> Tensor:
        """The convolution of images.

        Parameters
        ----------
        sources
            [image, channel, y, x], whose channels may be given in parts.
        slope
            What values below zero are multiplied by, 0 to 1.
        added
            What is added then, as the result; None: nothing.
        """
        if any(source.shape[1] % 8 for source in sources[:-1]):
            sources = (torch.cat(sources, 1),)
        if self._missing:
            sources = (*sources[:-1], self._padded(sources[-1]))
        out = empty_images(sources[0], len(self.bias))
        for i in range(len(out)):
            parts = [FlatImage.of(source[i]) for source in sources]
            result = FlatImage.of(out[i])
            more = NOTHING if added is None else FlatImage.of(added[i]).numbers
            share_rows(partial(self._rows, parts, result, slope, more), result.height)
        return out

    def _padded(self, images: Tensor) -> Tensor:
        """With channels of zeros, to groups of eight."""
        return F.pad(images, (0, 0, 0, 0, 0, self._missing))

    def _rows(
        self,
        parts: list[FlatImage],
        result: FlatImage,
        slope: float,
        more: np.ndarray,
        first: int,
        last: int,
    ) -> None:
        for products in self.products(parts, first, last):
            self.write(products, result, products.row, slope, more)

    def write(
        self,
        products: TileProducts,
        result: FlatImage,
        row: int,
        slope: float = 1.0,
        more: np.ndarray = NOTHING,
    ) -> None:
        """The convolution from its products, into `result` from `row` on."""
        self.kernel.out_of(
            products.numbers,
            products.first,
            products.plane,
            self.bias,
            slope,
            more,
            result.numbers,
            result.height,
            result.width,
            len(self.bias),
            row,
        )

    def products(self, parts: list[FlatImage], first: int, last: int) -> Iterator[TileProducts]:
        """For each row of tiles from `first` up to `last`: products of transformed tiles and
        filters, to be used before the next.

        Parameters
        ----------
        parts
            Images whose channels together, in this order, are the convolution's input.
        first, last
            Rows of tiles.
        """
        _, inputs, outputs = self._filters.shape
        across = math.ceil(parts[0].width / SIDE)
        rows_together = min(last - first, math.ceil(_FEWEST_TILES / across))
        count = rows_together * across
        tiles = torch.empty(_PLANES, count, inputs)
        products = torch.empty(_PLANES, count, outputs)
        numbers = products.numpy().reshape(-1)
        for start in range(first, last, rows_together):
            rows = range(min(rows_together, last - start))
            for r in rows:
                self._transform(parts, tiles, SIDE * (start + r), r * across)
            torch.bmm(tiles, self._filters, out=products)
            for r in rows:
                row = SIDE * (start + r)
                yield TileProducts(row, numbers, r * across * outputs, count * outputs)

    def _transform(self, parts: list[FlatImage], tiles: Tensor, row: int, tile: int) -> None:
        """The row of tiles that begins at a row of pixels, into `tiles` from number `tile` on."""
        _, count, inputs = tiles.shape
        first = tile * inputs
        for part in parts:
            self.kernel.into(
                part.numbers,
                part.height,
                part.width,
                part.channels,
                row,
                tiles.numpy().reshape(-1),
                first,
                count * inputs,
                inputs,
            )
            first += part.channels
