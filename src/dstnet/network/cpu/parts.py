"""A trained network made faster on a CPU: its 3 x 3 convolutions by Winograd's filtering, its
recurrence and attention in one pass each.
"""

import copy
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from dstnet.network.blocks import MovieNetwork, ResidualBlock, ResidualDenseBlock
from dstnet.network.cpu.images import SIDE, FlatImage, empty_images, share_rows
from dstnet.network.cpu.winograd import WinogradConv, bias_of, fits
from dstnet.network.dstnet import Fusion, TemporalExtractor


def with_winograd(network: MovieNetwork) -> MovieNetwork:
    """A copy of a network on the CPU that computes what it can of it in this way; it cannot be
    trained.
    """
    made = copy.deepcopy(network)
    _replace_in(made)
    return made


def _replace_in(module: nn.Module) -> None:
    for name, part in module.named_children():
        faster = _faster(part)
        if faster is None:
            _replace_in(part)
        else:
            setattr(module, name, faster)


def _faster(part: nn.Module) -> nn.Module | None:
    """What takes the place of a part; None where nothing does."""
    match part:
        case ResidualBlock() if fits(part.first) and fits(part.second):
            return _WinogradBlock(part)
        case ResidualDenseBlock() if _in_eights(part):
            return _WinogradDense(part)
        case TemporalExtractor() if fits(part.mix) and part.features % 8 == 0:
            return _WinogradTemporal(part)
        case Fusion() if part.value.out_channels % 8 == 0:
            return _OnePassFusion(part)
        case nn.Conv2d() if fits(part):
            return WinogradConv(part)
    return None


def _layers(block: ResidualDenseBlock) -> list[nn.Conv2d]:
    return [layer for layer in block.layers if isinstance(layer, nn.Conv2d)]


def _in_eights(block: ResidualDenseBlock) -> bool:
    layers = _layers(block)
    return all(layer.out_channels % 8 == 0 and layer.in_channels % 8 == 0 for layer in layers)


class _WinogradBlock(nn.Module):
    """A residual block, its activation and sum done with the convolutions."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.first = WinogradConv(block.first)
        self.second = WinogradConv(block.second)
        self._slope = block.act.negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x, slope=self._slope), added=x)


class _WinogradDense(nn.Module):
    """A residual dense block; its 1 x 1 convolution is a product of matrices, the skip in it a one
    on the diagonal.
    """

    def __init__(self, block: ResidualDenseBlock) -> None:
        super().__init__()
        layers = _layers(block)
        self.layers = nn.ModuleList(WinogradConv(layer) for layer in layers)
        self._slope = block.act.negative_slope
        self._bias = bias_of(block.fuse)
        width = len(self._bias)
        weight = block.fuse.weight.detach()[:, :, 0, 0].T.contiguous()
        weight[:width] += torch.eye(width)
        self._parts = weight.split([width, *(layer.out_channels for layer in layers)])

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(*features, slope=self._slope))
        out = empty_images(x, len(self._bias))
        _, _, height, width = x.shape
        for i in range(len(x)):
            inputs = [FlatImage.of(images[i]).pixels() for images in features]
            result = FlatImage.of(out[i]).pixels()
            share_rows(partial(self._fuse, inputs, result, SIDE * width), height)
        return out

    def _fuse(self, inputs: list[Tensor], out: Tensor, step: int, first: int, last: int) -> None:
        for start in range(first * step, min(last * step, len(out)), step):
            chosen = slice(start, start + step)
            pixels = [source[chosen] for source in inputs]
            _product(pixels, self._parts, self._bias, out[chosen])


class _WinogradTemporal(nn.Module):
    """The recurrence over frames, its gate done a row of tiles at a time, while what goes in is
    still in the processor's cache.
    """

    def __init__(self, temporal: TemporalExtractor) -> None:
        super().__init__()
        self.mix = WinogradConv(temporal.mix)
        self._channels = temporal.features

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        out = empty_images(features, self._channels)
        for i in range(len(out)):
            now = FlatImage.of(features[i])
            before = FlatImage.of(state[i])
            after = FlatImage.of(out[i])
            share_rows(partial(self._rows, now, before, after), now.height)
        return out

    def _rows(
        self, now: FlatImage, before: FlatImage, after: FlatImage, first: int, last: int
    ) -> None:
        width = now.width
        outputs = 2 * self._channels
        mixed = np.empty(SIDE * width * outputs, np.float32)
        for products in self.mix.products([now, before], first, last):
            row = products.row
            rows = min(SIDE, now.height - row)
            self.mix.write(products, FlatImage(mixed, rows, width), 0)
            self.mix.kernel.gate(
                mixed[: rows * width * outputs],
                before.numbers,
                after.numbers,
                row * width,
                self._channels,
            )


class _OnePassFusion(nn.Module):
    """Attention over frames: values and logits by one product of matrices, weights and sums in one
    pass over them, some rows at a time.
    """

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        from dstnet.network.cpu import _winograd_kernel

        self._kernel = _winograd_kernel
        weight = torch.cat((fusion.value.weight, fusion.logit.weight)).detach()
        self._parts = weight[:, :, 0, 0].T.contiguous().chunk(2)
        self._bias = torch.cat((bias_of(fusion.value), bias_of(fusion.logit)))

    def forward(
        self, features: Tensor, state: Tensor, value: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `Fusion`'s, the sums changed in place where their channels come last in memory."""
        value = value.contiguous(memory_format=torch.channels_last)
        weight = weight.contiguous(memory_format=torch.channels_last)
        for i in range(len(features)):
            now = FlatImage.of(features[i])
            inputs = [now.pixels(), FlatImage.of(state[i]).pixels()]
            values = FlatImage.of(value[i]).numbers
            weights = FlatImage.of(weight[i]).numbers
            work = partial(self._rows, inputs, values, weights, SIDE * now.width)
            share_rows(work, now.height)
        return value, weight

    def _rows(
        self,
        inputs: list[Tensor],
        value: np.ndarray,
        weight: np.ndarray,
        step: int,
        first: int,
        last: int,
    ) -> None:
        count, channels = inputs[0].shape
        mixed = torch.empty(step, len(self._bias))
        for start in range(first * step, min(last * step, count), step):
            pixels = [source[start : start + step] for source in inputs]
            out = mixed[: len(pixels[0])]
            _product(pixels, self._parts, self._bias, out)
            self._kernel.attend(out.numpy().reshape(-1), value, weight, start, channels)


def _product(
    inputs: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor, out: Tensor
) -> None:
    """A 1 x 1 convolution of pixels [pixel, channel], channels in parts, into `out`."""
    torch.addmm(bias, inputs[0], weights[0], out=out)
    for pixels, weight in zip(inputs[1:], weights[1:], strict=True):
        out.addmm_(pixels, weight)
