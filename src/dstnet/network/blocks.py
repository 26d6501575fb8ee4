"""Building blocks that more than one network uses."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dstnet.core.settings import Settings


class MovieNetwork(nn.Module):
    """What every network here is: frames of a movie and their sum in, images out.

    Attributes
    ----------
    settings, settings_type
        That it was made with, and their class; the constructor takes them.
    gives_frames
        Whether it gives frames' own enhanced images: `forward` then takes `which` and `every`.
    keeps_in_finetuning
        Layers, by the beginning of their parameters' names, that fine-tuning leaves as they are
        unless its settings name others.
    """

    settings: Settings
    settings_type: ClassVar[type[Settings]]
    gives_frames: ClassVar[bool] = False
    keeps_in_finetuning: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Any = None) -> None:
        super().__init__()
        self.settings = settings

    @property
    def stride(self) -> int:
        """Image sides must be a multiple of this."""
        raise NotImplementedError

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the images that are given before any frame's, "micrograph" first; each has its
        row in `dstnet.network.outputs`.
        """
        raise NotImplementedError

    def forward(self, frames: Tensor, total: Tensor, exposure: Tensor, **frames_own: Any) -> Tensor:
        """Enhance.

        Parameters
        ----------
        frames
            [batch, frame, y, x], aligned, each with mean zero and unit noise; sides a multiple of
            `stride`.
        total
            [batch, y, x]: their sum in input units, brought to unit noise.
        exposure
            [batch, frame, 3]: from `dstnet.network.inputs.exposure_inputs`.
        frames_own
            Of networks with `gives_frames`: ``which=i`` gives the enhanced image of frame i in
            addition, ``every=True`` those of all.

        Returns
        -------
        Tensor
            [batch, outputs + frames asked for, y, x]: `outputs`, then the frames; in units of
            `total`'s noise.
        """
        raise NotImplementedError


class Conv(nn.Conv2d):
    """A convolution that keeps the image's size (divided by `stride`)."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1) -> None:
        super().__init__(inputs, outputs, size, stride, padding=size // 2)

    def forward(self, *parts: Tensor) -> Tensor:
        """Of images whose channels are given in one or more parts."""
        if len(parts) == 1:
            return super().forward(parts[0])
        return super().forward(torch.cat(parts, 1))


class ResidualDenseBlock(nn.Module):
    """Residual dense block (Zhang et al. 2018, Residual Dense Network): each layer sees all before
    it; a 1x1 convolution fuses them.
    """

    def __init__(self, width: int, growth: int, layers: int) -> None:
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

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv(width, width)
        self.second = Conv(width, width)
        self.act = nn.LeakyReLU(0.1)
        # It starts as the identity, so that deep stacks train from the first step.
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.first(x))
        return x + self.second(hidden)
