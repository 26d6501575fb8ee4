"""A trained network made faster on a CPU: 3 x 3 convolutions of a fifth of the products, recurrence
and attention in one pass each.

Winograd's minimal filtering F(6 x 6, 3 x 3), in float32 on CPUs: each 6 x 6 pixels of a result need
64 products a pair of channels instead of 324, between a transform of the input and one of the
products, which cost additions. It pays where arithmetic is what takes time: float32 on processors
without half precision; and from some 32 channels on. Rounding errors are some 4e-6 of a
convolution's deviation.

References
----------
Winograd, Arithmetic Complexity of Computations (1980). Lavin & Gray, Fast algorithms for
convolutional neural networks, CVPR (2016).
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dstnet.network.blocks import MovieNetwork, ResidualBlock, ResidualDenseBlock
from dstnet.network.dstnet import Fusion, TemporalExtractor

_FEWEST_CHANNELS = 32  # 32 to 16 channels take longer than plainly, 48 to 48 less
_FEWEST_TILES = 64  # in a product of matrices: fewer leave the processor waiting
_SIDE = 6  # of what one tile gives
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
_NOTHING = np.empty(0, np.float32)


def with_winograd(network: MovieNetwork) -> MovieNetwork:
    """A copy of a network on the CPU that computes what it can of it in this way; it cannot be
    trained.
    """
    made = copy.deepcopy(network)
    _replace_in(made)
    return made


def _replace_in(module: nn.Module) -> None:
    for name, part in module.named_children():
        match part:
            case ResidualBlock() if _fits(part.first) and _fits(part.second):
                setattr(module, name, _WinogradBlock(part))
            case ResidualDenseBlock() if all(
                layer.out_channels % 8 == layer.in_channels % 8 == 0 for layer in _layers(part)
            ):
                setattr(module, name, _WinogradDense(part))
            case TemporalExtractor() if _fits(part.mix) and part.features % 8 == 0:
                setattr(module, name, _WinogradTemporal(part))
            case Fusion() if part.value.out_channels % 8 == 0:
                setattr(module, name, _OnePassFusion(part))
            case nn.Conv2d() if _fits(part):
                setattr(module, name, WinogradConv(part))
            case _:
                _replace_in(part)


def _fits(conv: nn.Conv2d) -> bool:
    plain = (
        conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.padding == (1, 1)
        and conv.dilation == (1, 1)
        and conv.groups == 1
    )
    channels = conv.in_channels, conv.out_channels
    return plain and min(channels) >= _FEWEST_CHANNELS and conv.out_channels % 8 == 0


def _layers(block: ResidualDenseBlock) -> list[nn.Conv2d]:
    return [layer for layer in block.layers if isinstance(layer, nn.Conv2d)]


def _bias(conv: nn.Conv2d) -> Tensor:
    return torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()


class WinogradConv(nn.Module):
    """A 3 x 3 convolution that keeps the image's size."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        from dstnet.network.cpu import (
            _winograd_kernel,  # not above: numba takes half a second to load
        )

        self.kernel = _winograd_kernel
        self._missing = -conv.in_channels % 8  # channels come in groups of eight
        weight = F.pad(conv.weight.detach().double(), (0, 0, 0, 0, 0, self._missing)).numpy()
        self._filters = torch.from_numpy(
            np.einsum("ai,bj,ocij->abco", _G, _G, weight).astype(np.float32)
        ).flatten(0, 1)
        self.bias = _bias(conv).numpy()

    def forward(self, *sources: Tensor, slope: float = 1.0, added: Tensor | None = None) -> Tensor:
        """The convolution of images [image, channel, y, x], whose channels may be given in parts;
        values below zero times `slope` (0 to 1); then plus what is `added`.
        """
        if any(source.shape[1] % 8 for source in sources[:-1]):
            sources = (torch.cat(sources, 1),)
        if self._missing:
            sources = (*sources[:-1], F.pad(sources[-1], (0, 0, 0, 0, 0, self._missing)))
        out = _empty(sources[0], len(self.bias))
        height, width = out.shape[2:]
        for i in range(len(out)):
            more = _NOTHING if added is None else _flat(added[i])
            _share(
                partial(
                    self._rows,
                    [_flat(source[i]) for source in sources],
                    slope,
                    more,
                    _flat(out[i]),
                    height,
                    width,
                ),
                height,
            )
        return out

    def _rows(
        self,
        sources: list[np.ndarray],
        slope: float,
        more: np.ndarray,
        out: np.ndarray,
        height: int,
        width: int,
        first: int,
        last: int,
    ) -> None:
        for row, *products in self.products(sources, height, width, first, last):
            self.kernel.out_of(
                *products, self.bias, slope, more, out, height, width, len(self.bias), row
            )

    def products(
        self, sources: list[np.ndarray], height: int, width: int, first: int, last: int
    ) -> Iterator[tuple[int, np.ndarray, int, int]]:
        """For each row of tiles from one to another: its row of pixels, and the first three
        arguments of `_winograd_kernel.out_of`.

        sources
            Images whose channels together, in this order, are the convolution's input; flat, [y, x,
            channel].
        """
        _, inputs, outputs = self._filters.shape
        across = -(-width // _SIDE)
        together = min(last - first, -(-_FEWEST_TILES // across))  # rows of tiles in a product
        channels = [len(source) // (height * width) for source in sources]
        places = [sum(channels[:i]) for i in range(len(channels))]
        tiles, products = (
            torch.empty((_SIDE + 2) ** 2, together * across, n) for n in (inputs, outputs)
        )
        before, after = tiles.numpy().reshape(-1), products.numpy().reshape(-1)
        for start in range(first, last, together):
            rows = range(min(together, last - start))
            for r in rows:
                for source, count, place in zip(sources, channels, places, strict=True):
                    at = r * across * inputs + place
                    row = _SIDE * (start + r)
                    self.kernel.into(
                        source,
                        height,
                        width,
                        count,
                        row,
                        before,
                        at,
                        together * across * inputs,
                        inputs,
                    )
            torch.bmm(tiles, self._filters, out=products)
            for r in rows:
                yield _SIDE * (start + r), after, r * across * outputs, together * across * outputs


class _WinogradBlock(nn.Module):
    """A residual block, its activation and sum done with the convolutions."""

    def __init__(self, block: ResidualBlock):
        super().__init__()
        self.first, self.second, self._slope = (
            WinogradConv(block.first),
            WinogradConv(block.second),
            block.act.negative_slope,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x, slope=self._slope), added=x)


class _WinogradDense(nn.Module):
    """A residual dense block; its 1 x 1 convolution is a product of matrices, the skip in it a one
    on the diagonal.
    """

    def __init__(self, block: ResidualDenseBlock):
        super().__init__()
        layers = _layers(block)
        self.layers, self._slope = (
            nn.ModuleList(WinogradConv(layer) for layer in layers),
            block.act.negative_slope,
        )
        self._bias, weight = (
            _bias(block.fuse),
            block.fuse.weight.detach()[:, :, 0, 0].T.contiguous(),
        )
        weight[: len(self._bias)] += torch.eye(len(self._bias))
        self._parts = weight.split([len(self._bias), *(layer.out_channels for layer in layers)])

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(*features, slope=self._slope))
        out = _empty(x, len(self._bias))
        for images in zip(*features, out, strict=True):
            *given, to = (torch.from_numpy(_flat(image)).view(-1, len(image)) for image in images)
            step = _SIDE * x.shape[3]
            _share(partial(self._fuse, given, to, step), x.shape[2])
        return out

    def _fuse(self, given: list[Tensor], out: Tensor, step: int, first: int, last: int) -> None:
        for start in range(first * step, min(last * step, len(out)), step):
            some = slice(start, start + step)
            _product([pixels[some] for pixels in given], self._parts, self._bias, out[some])


class _WinogradTemporal(nn.Module):
    """The recurrence over frames, its gate done a row of tiles at a time, while what goes in is
    still in the processor's cache.
    """

    def __init__(self, temporal: TemporalExtractor):
        super().__init__()
        self.mix, self._channels = WinogradConv(temporal.mix), temporal.features

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        out = _empty(features, self._channels)
        height, width = features.shape[2:]
        for images in zip(features, state, out, strict=True):
            _share(partial(self._rows, *(_flat(image) for image in images), height, width), height)
        return out

    def _rows(
        self,
        given: np.ndarray,
        before: np.ndarray,
        after: np.ndarray,
        height: int,
        width: int,
        first: int,
        last: int,
    ) -> None:
        kernel, outputs = self.mix.kernel, 2 * self._channels
        mixed = np.empty(_SIDE * width * outputs, np.float32)
        for row, *products in self.mix.products([given, before], height, width, first, last):
            rows = min(_SIDE, height - row)
            kernel.out_of(*products, self.mix.bias, 1.0, _NOTHING, mixed, rows, width, outputs, 0)
            kernel.gate(mixed[: rows * width * outputs], before, after, row * width, self._channels)


class _OnePassFusion(nn.Module):
    """Attention over frames: values and logits by one product of matrices, weights and sums in one
    pass over them, some rows at a time.
    """

    def __init__(self, fusion: Fusion):
        super().__init__()
        from dstnet.network.cpu import _winograd_kernel

        self._kernel = _winograd_kernel
        self._parts = (
            torch.cat((fusion.value.weight, fusion.logit.weight))
            .detach()[:, :, 0, 0]
            .T.contiguous()
            .chunk(2)
        )
        self._bias = torch.cat((_bias(fusion.value), _bias(fusion.logit)))

    def forward(
        self, features: Tensor, state: Tensor, value: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `Fusion`'s, the sums changed in place where their channels come last in memory."""
        value, weight = (x.contiguous(memory_format=torch.channels_last) for x in (value, weight))
        height, width = features.shape[2:]
        for images in zip(features, state, value, weight, strict=True):
            given, before, values, weights = (_flat(image) for image in images)
            pixels = [torch.from_numpy(x).view(height * width, -1) for x in (given, before)]
            _share(partial(self._rows, pixels, values, weights, _SIDE * width), height)
        return value, weight

    def _rows(
        self,
        pixels: list[Tensor],
        value: np.ndarray,
        weight: np.ndarray,
        step: int,
        first: int,
        last: int,
    ) -> None:
        mixed, channels = torch.empty(step, len(self._bias)), pixels[0].shape[1]
        for start in range(first * step, min(last * step, len(pixels[0])), step):
            given = [x[start : start + step] for x in pixels]
            some = _product(given, self._parts, self._bias, mixed[: len(given[0])])
            self._kernel.attend(some.numpy().reshape(-1), value, weight, start, channels)


def _product(
    given: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor, out: Tensor
) -> Tensor:
    """A 1 x 1 convolution of pixels [pixel, channel], channels in parts; `out`, filled."""
    torch.addmm(bias, given[0], weights[0], out=out)
    for pixels, weight in zip(given[1:], weights[1:], strict=True):
        out.addmm_(pixels, weight)
    return out


def _share(work: Callable[[int, int], None], height: int) -> None:
    """Call `work` for all rows of tiles of an image of `height`, divided evenly among as many
    threads as torch has.
    """
    rows, several = -(-height // _SIDE), torch.get_num_threads()
    threads = min(several, rows)
    if threads == 1:
        work(0, rows)
        return
    edges = [rows * i // threads for i in range(threads + 1)]

    def alone(first: int, last: int) -> None:
        with (
            torch.inference_mode()
        ):  # which holds for a thread, and may hold for the caller's: what it made is changed
            work(first, last)

    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(alone, edges[:-1], edges[1:]))
    finally:
        torch.set_num_threads(several)  # what a thread sets is what later ones begin with


def _empty(like: Tensor, channels: int) -> Tensor:
    """Room for images of the size of those of `like`, channels last in memory, on a boundary of 64
    bytes.

    Not `torch.empty`: for a block on such a boundary the C library looks for one a little larger,
    and so does not find that of the same size which was just freed; a tile of 1120 pixels left
    holes of 0.2 GB.
    """
    shape = len(like), *like.shape[2:], channels
    raw = np.empty(math.prod(shape) + 16, np.float32)
    start = -raw.ctypes.data // 4 % 16
    return torch.from_numpy(raw[start : start + math.prod(shape)].reshape(shape)).permute(
        0, 3, 1, 2
    )


def _flat(image: Tensor) -> np.ndarray:
    """The numbers of an image [channel, y, x] as [y, x, channel]: no copy where they already lie so
    in memory.
    """
    return image.permute(1, 2, 0).contiguous().numpy().reshape(-1)
