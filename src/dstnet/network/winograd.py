"""3 x 3 convolutions with a quarter of the multiplications: Winograd's minimal filtering F(4 x 4, 3 x 3), in float32 on CPUs.

Each 4 x 4 pixels of a result need 36 products a pair of channels instead of 144, between a transform of the input and one of the products,
which cost additions. It pays where arithmetic is what takes time: float32 on processors without half precision; and from some 32 channels
on. Rounding errors are about ten times those of the plain sum, some 1e-6 of the output's deviation.

References
----------
Winograd, Arithmetic Complexity of Computations (1980). Lavin & Gray, Fast algorithms for convolutional neural networks, CVPR (2016).
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dstnet.network.blocks import MovieNetwork, ResidualBlock

_FEWEST_CHANNELS = 32  # 32 to 16 channels take longer than plainly, 48 to 48 less
# Of filters, in Lavin & Gray's notation G; those of the input (B) and of the products (A) are written out in _winograd_kernel.py.
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_NOTHING = np.empty((0, 0, 8), np.float32)


def with_winograd(network: MovieNetwork) -> MovieNetwork:
    """A copy of a network on the CPU that computes what it can of it in this way."""
    made = copy.deepcopy(network)
    _replace_in(made)
    return made


def _replace_in(module: nn.Module) -> None:
    for name, part in module.named_children():
        if isinstance(part, ResidualBlock) and _fits(part.first) and _fits(part.second):
            setattr(module, name, _WinogradBlock(part))
        elif isinstance(part, nn.Conv2d) and _fits(part):
            setattr(module, name, WinogradConv(part))
        else:
            _replace_in(part)


def _fits(conv: nn.Conv2d) -> bool:
    plain = conv.kernel_size == (3, 3) and conv.stride == (1, 1) and conv.padding == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1
    channels = conv.in_channels, conv.out_channels
    return plain and min(channels) >= _FEWEST_CHANNELS and conv.out_channels % 8 == 0


class WinogradConv(nn.Module):
    """A 3 x 3 convolution that keeps the image's size."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        from dstnet.network import _winograd_kernel  # not above: numba takes half a second to load

        self._kernel = _winograd_kernel
        self._missing = -conv.in_channels % 8  # channels come in groups of eight
        weight = F.pad(conv.weight.detach().double(), (0, 0, 0, 0, 0, self._missing)).numpy()
        self._filters = torch.from_numpy(np.einsum("ai,bj,ocij->abco", _G, _G, weight).astype(np.float32)).flatten(0, 1)
        bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        self._bias = bias.numpy().reshape(-1, 8)

    def forward(self, images: Tensor, slope: float = 1.0, added: Tensor | None = None) -> Tensor:
        """The convolution of images [image, channel, y, x]; values below zero times `slope`; then plus what is `added`."""
        out = [self._one(image, slope, None if added is None else added[i]) for i, image in enumerate(images)]
        return out[0][None] if len(out) == 1 else torch.stack(out)

    def _one(self, image: Tensor, slope: float, added: Tensor | None) -> Tensor:
        height, width = image.shape[1:]
        given, more = _rows(image, self._missing), _NOTHING if added is None else _rows(added)
        _, inputs, outputs = self._filters.shape
        across = given.shape[1] // (inputs // 2)  # tiles in a row
        out = torch.empty(len(given), 4 * across, outputs)
        tiles, products = (torch.empty(36, across, channels) for channels in (inputs, outputs))
        to, before, after = (x.numpy().reshape(len(x), -1, 8) for x in (out, tiles, products))
        for row in range(0, len(given), 4):
            self._kernel.into(given, before, row, inputs // 8)
            torch.bmm(tiles, self._filters, out=products)
            self._kernel.out_of(after, self._bias, more, to, row, slope)
        return out[:height, :width].permute(2, 0, 1)


class _WinogradBlock(nn.Module):
    """A residual block, its activation and sum done with the convolutions."""

    def __init__(self, block: ResidualBlock):
        super().__init__()
        self.first, self.second, self._slope = WinogradConv(block.first), WinogradConv(block.second), block.act.negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x, self._slope), added=x)


def _rows(image: Tensor, channels: int = 0) -> np.ndarray:
    """An image [channel, y, x] with `channels` more of zeros as [y, x and channel group, 8]; zeros complete its sides to multiples of 4."""
    height, width = image.shape[1:]
    last, pad = image.permute(1, 2, 0), (0, channels, 0, -width % 4, 0, -height % 4)
    last = F.pad(last, pad) if any(pad) else last.contiguous()
    return last.numpy().reshape(len(last), -1, 8)
