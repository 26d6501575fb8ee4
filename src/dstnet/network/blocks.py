"""Building blocks that more than one network uses."""

import torch
from torch import Tensor, nn

from dstnet.core.settings import Settings


class MovieNetwork(nn.Module):
    """What every network here is: see `dstnet.network.dstnet.DSTNet.forward` for the call that all
    share.
    """

    settings: Settings

    @property
    def stride(self) -> int:
        """Image sides must be a multiple of this."""
        raise NotImplementedError

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the images that are given before any frame's: "micrograph" first."""
        raise NotImplementedError


class Conv(nn.Conv2d):
    """A convolution that keeps the image's size (divided by `stride`)."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1):
        super().__init__(inputs, outputs, size, stride, padding=size // 2)

    def forward(self, *parts: Tensor) -> Tensor:
        """Of images whose channels are given in one or more parts."""
        return super().forward(parts[0] if len(parts) == 1 else torch.cat(parts, 1))


class ResidualDenseBlock(nn.Module):
    """Residual dense block (Zhang et al. 2018, Residual Dense Network): each layer sees all before
    it; a 1x1 convolution fuses them.
    """

    def __init__(self, width: int, growth: int, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(Conv(width + i * growth, growth) for i in range(layers))
        self.fuse = Conv(width + layers * growth, width, 1)
        self.act = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(self.act(layer(*features)))
        return x + self.fuse(*features)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a skip, no normalisation (amplitudes carry the evidence)."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = Conv(width, width), Conv(width, width)
        self.act = nn.LeakyReLU(0.1)
        for parameter in self.second.parameters():
            nn.init.zeros_(
                parameter
            )  # starts as the identity: deep stacks train from the first step

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.act(self.first(x)))
