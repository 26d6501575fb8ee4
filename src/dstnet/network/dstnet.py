"""DST-Net: the deep spatio-temporal network, in four parts.

The paper (Chong et al., IEEE/ACM TCBB 21(5), 2024) names the parts: spatial and temporal features
are extracted from each frame, fused spatio-temporally, and a high-resolution re-constructor gives
the enhanced output. Its abstract leaves widths, cells and losses open; those here are our choices.
Frames come with unit noise (`dstnet.movie.normalise`) and pass one at a time, so that memory does
not grow with their number.
"""

from collections.abc import Container, Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from dstnet.core.settings import Settings
from dstnet.network.blocks import Conv, MovieNetwork, ResidualBlock, ResidualDenseBlock
from dstnet.network.outputs import OUTPUTS

# Far beyond what is of use: a card that asks for more is damaged.
_MOST_CHANNELS = 1024
_MOST_LAYERS = 64
_MOST_SCALES = 8


class DSTNetSettings(Settings):
    """Size of the network."""

    features: int = Field(
        default=32,
        ge=8,
        le=_MOST_CHANNELS,
        description=(
            "channels of a frame's spatial and temporal features, at half the working resolution"
        ),
    )
    growth: int = Field(
        default=16, ge=4, le=_MOST_CHANNELS, description="growth of the residual dense block"
    )
    dense_layers: int = Field(default=2, ge=1, le=_MOST_LAYERS)
    widths: tuple[Annotated[int, Field(ge=1, le=_MOST_CHANNELS)], ...] = Field(
        default=(48, 80, 112, 128),
        min_length=1,
        max_length=_MOST_SCALES,
        description="re-constructor channels, one scale after another",
    )
    blocks: tuple[Annotated[int, Field(ge=0, le=_MOST_LAYERS)], ...] = Field(
        default=(4, 3, 4, 4),
        min_length=1,
        max_length=_MOST_SCALES,
        description="residual blocks of each scale in each direction",
    )
    heads: tuple[str, ...] = Field(
        default=("contrast", "uncertainty", "particles"),
        description=(
            "what is given beside the enhanced micrograph: contrast without the CTF, the"
            " micrograph's expected error, and where particles are, 1 in the middle of each and 0"
            " at its edge (dstnet.network.outputs)"
        ),
    )

    without: tuple[Literal["spatial", "temporal", "fusion", "reconstructor"], ...] = Field(
        default=(),
        description=(
            "parts replaced by the simplest thing that stands in for them, to measure what they are"
            " worth"
        ),
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(self.blocks) != len(self.widths):
            raise ValueError(
                f"blocks names {len(self.blocks)} scales, widths {len(self.widths)}; give one"
                " number a scale in each"
            )
        heads = set(self.heads)
        if len(heads) < len(self.heads):
            raise ValueError("heads names one twice")
        known = [name for name in OUTPUTS if name != "micrograph"]
        unknown = ", ".join(sorted(heads - set(known)))
        if unknown:
            raise ValueError(f"heads names {unknown}; there are {', '.join(known)}")
        return self


class SpatialExtractor(nn.Module):
    """Features of one frame: sub-pixel unshuffle by two, a convolution, exposure added as a bias, a
    residual dense block.
    """

    def __init__(self, settings: DSTNetSettings) -> None:
        super().__init__()
        features = settings.features
        self.first = Conv(4, features)
        self.exposure = nn.Linear(3, features)
        if "spatial" in settings.without:
            self.dense = nn.Identity()
        else:
            self.dense = ResidualDenseBlock(features, settings.growth, settings.dense_layers)

    def forward(self, frame: Tensor, exposure: Tensor) -> Tensor:
        x = self.first(F.pixel_unshuffle(frame, 2))
        x += self.exposure(exposure)[:, :, None, None]
        return self.dense(x)


class TemporalExtractor(nn.Module):
    """A minimal gated convolutional recurrence over frames (after Zhou et al. 2016): what this
    frame adds to those before.
    """

    def __init__(self, settings: DSTNetSettings) -> None:
        super().__init__()
        self.features = settings.features
        self.mix = Conv(2 * self.features, 2 * self.features)

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        mixed = self.mix(features, state)
        update, candidate = mixed.split(self.features, 1)
        candidate = F.leaky_relu(candidate, 0.1)
        return torch.lerp(state, candidate, update.sigmoid())


class Fusion(nn.Module):
    """Attention over frames, each pixel and channel with its own weights, as running sums so that
    any number of frames fits.
    """

    def __init__(self, settings: DSTNetSettings) -> None:
        super().__init__()
        features = settings.features
        self.value = Conv(2 * features, features, 1)
        self.logit = Conv(2 * features, features, 1)

    def forward(
        self, features: Tensor, state: Tensor, value: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The sums over frames of weighted values and of weights, in float32, with one more
        frame.
        """
        # Bounded, so that no running maximum is needed.
        logit = self.logit(features, state)
        bounded = 4 * torch.tanh(logit / 4)
        own_weight = torch.exp(bounded).float()
        own_value = self.value(features, state).float()
        value = torch.addcmul(value, own_weight, own_value)
        weight = weight + own_weight
        return value, weight


class Reconstructor(nn.Module):
    """A residual U-Net at half the working resolution that ends in a sub-pixel shuffle (Shi et al.
    2016) to the full one.
    """

    def __init__(self, settings: DSTNetSettings) -> None:
        super().__init__()
        widths = settings.widths
        blocks = settings.blocks
        steps = list(pairwise(widths))
        self.heads = settings.heads
        self.enter = Conv(3 * settings.features + 4, widths[0])
        self.down = _stages(widths, blocks)
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, 2) for fine, coarse in steps)
        self.grow = nn.ModuleList(Conv(coarse, fine, 1) for fine, coarse in steps)
        self.up = _stages(widths[:-1], blocks[:-1])
        self.leave = Conv(widths[0], 4 * (1 + len(self.heads)))

    def forward(self, fused: Tensor, own: Tensor, state: Tensor, total: Tensor) -> Tensor:
        half_size_total = F.pixel_unshuffle(total, 2)
        x = self.enter(fused, own, state, half_size_total)
        skips = []
        for i, stage in enumerate(self.down):
            x = stage(x)
            if i < len(self.shrink):
                skips.append(x)
                x = self.shrink[i](x)
        for i in reversed(range(len(self.up))):
            grown = self.grow[i](x)
            coarse = F.interpolate(grown, scale_factor=2, mode="nearest")
            x = self.up[i](coarse + skips[i])
        full_size = F.pixel_shuffle(self.leave(x), 2)
        channels = full_size.float().split(1, 1)
        names = ("micrograph", *self.heads)
        images = []
        for name, channel in zip(names, channels, strict=True):
            activation = OUTPUTS[name].activation
            images.append(activation(channel))
        return torch.cat(images, 1)


def _stages(widths: Sequence[int], blocks: Sequence[int]) -> nn.ModuleList:
    """Residual blocks of each scale."""
    stages = nn.ModuleList()
    for width, count in zip(widths, blocks, strict=True):
        of_scale = [ResidualBlock(width) for _ in range(count)]
        stages.append(nn.Sequential(*of_scale))
    return stages


class DSTNet(MovieNetwork):
    """Frames with unit noise in, the enhanced micrograph (and frames) out, in units of the sum's
    noise.
    """

    settings: DSTNetSettings
    settings_type = DSTNetSettings
    gives_frames = True
    # A sub-pixel shuffle's own layer, whose phases would else drift apart, is where most of a
    # checkerboard comes from.
    keeps_in_finetuning = ("reconstructor.leave",)

    def __init__(self, settings: DSTNetSettings) -> None:
        super().__init__(settings)
        without = settings.without
        self.spatial = SpatialExtractor(settings)
        self.temporal: TemporalExtractor | None = None
        if "temporal" not in without:
            self.temporal = TemporalExtractor(settings)
        self.fusion: Fusion | None = None
        if "fusion" not in without:
            self.fusion = Fusion(settings)
        if "reconstructor" in without:
            one_scale = {"widths": settings.widths[:1], "blocks": settings.blocks[:1]}
            settings = settings.model_copy(update=one_scale)
        self.reconstructor = Reconstructor(settings)

    @property
    def stride(self) -> int:
        return 2 ** len(self.settings.widths)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("micrograph", *self.settings.heads)

    def forward(
        self,
        frames: Tensor,
        total: Tensor,
        exposure: Tensor,
        which: int | None = None,
        every: bool = False,
    ) -> Tensor:
        """Enhance; see `MovieNetwork.forward`.

        Parameters
        ----------
        frames, total, exposure
            As there.
        which
            A frame whose own enhanced image to give in addition to the micrograph.
        every
            Give every frame's enhanced image in addition to the micrograph.
        """
        requested = range(frames.shape[1]) if every else [which]
        fused, mean, state, own = self._over_frames(frames, exposure, requested)
        total = total[:, None]
        images = [self.reconstructor(fused, mean, state, total)]
        for features in own:
            of_frame = self.reconstructor(fused, features, state, total)
            # Its first output is the micrograph.
            images.append(of_frame[:, :1])
        return torch.cat(images, 1)

    def _over_frames(
        self, frames: Tensor, exposure: Tensor, requested: Container[int | None]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Over all frames: features fused, their mean, the recurrence's last state; and the
        features of the frames requested.
        """
        batch, count, height, width = frames.shape
        # Sums over frames stay in float32 whatever the precision inside: hundreds of small terms
        # must not round away. They lie in memory as what is added does, whose layout is that of
        # `build`'s weights: between two layouts it takes four times as long.
        zeros = frames.new_zeros(batch, self.settings.features, height // 2, width // 2)
        value = zeros.to(memory_format=torch.channels_last)
        weight = torch.zeros_like(value)
        mean = torch.zeros_like(value)
        state = torch.zeros_like(value)
        own = []
        for t in range(count):
            frame = frames[:, t : t + 1]
            features = self.spatial(frame, exposure[:, t])
            if self.temporal is None:
                state = features
            else:
                state = self.temporal(features, state.to(features.dtype))
            if self.fusion is None:
                value = value + features
                weight = weight + 1
            else:
                value, weight = self.fusion(features, state, value, weight)
            mean.add_(features, alpha=1 / count)
            if t in requested:
                own.append(features)
        return value / weight, mean, state, own
