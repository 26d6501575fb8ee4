"""Building blocks that more than one network uses."""

import torch
from torch import Tensor, nn

from dstnet.core.settings import Settings


class MovieNetwork(nn.Module):
    """What every network here is: see `dstnet.network.dstnet.DSTNet.forward` for the call that all share."""

    settings: Settings

    @property
    def stride(self) -> int:
        """Image sides must be a multiple of this."""
        raise NotImplementedError

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the images that are given before any frame's: "micrograph" first."""
        raise NotImplementedError


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the image's size (divided by `stride`)."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)


class ResidualDenseBlock(nn.Module):
    """Residual dense block (Zhang et al. 2018, Residual Dense Network): each layer sees all before it; a 1x1 convolution fuses them."""

    def __init__(self, width: int, growth: int, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(conv(width + i * growth, growth) for i in range(layers))
        self.fuse = conv(width + layers * growth, width, 1)
        self.act = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(self.act(layer(torch.cat(features, 1))))
        return x + self.fuse(torch.cat(features, 1))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a skip, no normalisation (amplitudes carry the evidence)."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)
        self.act = nn.LeakyReLU(0.1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)  # starts as the identity: deep stacks train from the first step

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.act(self.first(x)))
