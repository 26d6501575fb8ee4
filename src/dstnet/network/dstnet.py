"""DST-Net: the deep spatio-temporal network, in four parts.

The paper (Chong et al., IEEE/ACM TCBB 21(5), 2024) names the parts: spatial and temporal features are extracted from each frame, fused
spatio-temporally, and a high-resolution re-constructor gives the enhanced output. Its abstract leaves widths, cells and losses open; those
here are our choices. Frames come with unit noise (`dstnet.movie.normalise`) and pass one at a time, so that memory does not grow with
their number.
"""

from collections.abc import Container
from itertools import pairwise
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from dstnet.core.settings import Settings
from dstnet.network.blocks import Conv, MovieNetwork, ResidualBlock, ResidualDenseBlock

# Particles are some hundredths to tenths of the sum's noise in amplitude; so scaled, the last layer works with numbers near one.
OUTPUT_SCALE = 0.1
# Predicted errors lie within exp(-7) and exp(3) of OUTPUT_SCALE: 1e-4 to 2 of the sum's noise.
LOG_ERROR_RANGE = -7.0, 3.0


class DSTNetSettings(Settings):
    """Size of the network."""

    features: int = Field(
        default=32, ge=8, description="channels of a frame's spatial and temporal features, at half the working resolution"
    )
    growth: int = Field(default=16, ge=4, description="growth of the residual dense block")
    dense_layers: int = Field(default=2, ge=1)
    widths: tuple[int, ...] = Field(
        default=(48, 80, 112, 128), min_length=1, description="re-constructor channels, one scale after another"
    )
    blocks: tuple[int, ...] = Field(default=(4, 3, 4, 4), min_length=1, description="residual blocks of each scale in each direction")
    heads: tuple[Literal["contrast", "uncertainty", "particles"], ...] = Field(
        default=("contrast", "uncertainty", "particles"),
        description="what is given beside the enhanced micrograph: contrast without the CTF, the micrograph's expected error, and where "
        "particles are, 1 in the middle of each and 0 at its edge",
    )

    transfer_input: bool = Field(
        default=False,
        description="whether the last of the frames given is no frame but the total multiplied by the contrast transfer function that its "
        "rings show, nothing where they show none",
    )
    smooth_heads: bool = Field(default=False, description="average the heads over 2 x 2 sub-pixels, so that they cannot hold a checkerboard")

    without: tuple[Literal["spatial", "temporal", "fusion", "reconstructor"], ...] = Field(
        default=(), description="parts replaced by the simplest thing that stands in for them, to measure what they are worth"
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(self.blocks) != len(self.widths):
            raise ValueError(f"blocks names {len(self.blocks)} scales, widths {len(self.widths)}; give one number a scale in each")
        if len(set(self.heads)) < len(self.heads):
            raise ValueError("heads names one twice")
        return self


class SpatialExtractor(nn.Module):
    """Features of one frame: sub-pixel unshuffle by two, a convolution, exposure added as a bias, a residual dense block."""

    def __init__(self, s: DSTNetSettings):
        super().__init__()
        self.first = Conv(4, s.features)
        self.exposure = nn.Linear(3, s.features)
        plain = "spatial" in s.without
        self.dense = nn.Identity() if plain else ResidualDenseBlock(s.features, s.growth, s.dense_layers)

    def forward(self, frame: Tensor, exposure: Tensor) -> Tensor:
        x = self.first(F.pixel_unshuffle(frame, 2))
        x += self.exposure(exposure)[:, :, None, None]
        return self.dense(x)


class TemporalExtractor(nn.Module):
    """A minimal gated convolutional recurrence over frames (after Zhou et al. 2016): what this frame adds to those before."""

    def __init__(self, s: DSTNetSettings):
        super().__init__()
        self.features = s.features
        self.mix = Conv(2 * s.features, 2 * s.features)

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        update, candidate = self.mix(features, state).split(self.features, 1)
        return torch.lerp(state, F.leaky_relu(candidate, 0.1), update.sigmoid())


class Fusion(nn.Module):
    """Attention over frames, each pixel and channel with its own weights, as running sums so that any number of frames fits."""

    def __init__(self, s: DSTNetSettings):
        super().__init__()
        self.value = Conv(2 * s.features, s.features, 1)
        self.logit = Conv(2 * s.features, s.features, 1)

    def forward(self, features: Tensor, state: Tensor, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The sums over frames of weighted values and of weights, in float32, with one more frame."""
        w = torch.exp(4 * torch.tanh(self.logit(features, state) / 4)).float()  # bounded: no running maximum is needed
        return torch.addcmul(value, w, self.value(features, state).float()), weight + w


class Reconstructor(nn.Module):
    """A residual U-Net at half the working resolution that ends in a sub-pixel shuffle (Shi et al. 2016) to the full one."""

    def __init__(self, s: DSTNetSettings):
        super().__init__()
        w = s.widths
        self.enter = Conv(3 * s.features + (8 if s.transfer_input else 4), w[0])
        if s.transfer_input:
            with torch.no_grad():
                self.enter.weight[:, -4:] = 0  # what weights without it know stays as it is
        self.smooth_heads = s.smooth_heads
        self.down = nn.ModuleList(nn.Sequential(*(ResidualBlock(c) for _ in range(n))) for c, n in zip(w, s.blocks, strict=True))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in pairwise(w))
        self.grow = nn.ModuleList(Conv(b, a, 1) for a, b in pairwise(w))
        self.up = nn.ModuleList(nn.Sequential(*(ResidualBlock(c) for _ in range(n))) for c, n in zip(w[:-1], s.blocks[:-1], strict=True))
        self.heads = s.heads
        self.leave = Conv(w[0], 4 * (1 + len(s.heads)))

    def forward(self, fused: Tensor, own: Tensor, state: Tensor, total: Tensor) -> Tensor:
        x = self.enter(fused, own, state, *(F.pixel_unshuffle(image, 2) for image in total.split(1, 1)))
        skips = []
        for i, stage in enumerate(self.down):
            x = stage(x)
            if i < len(self.shrink):
                skips.append(x)
                x = self.shrink[i](x)
        for i in reversed(range(len(self.up))):
            x = F.interpolate(self.grow[i](x), scale_factor=2, mode="nearest") + skips[i]
            x = self.up[i](x)
        first, *others = F.pixel_shuffle(self.leave(x), 2).float().split(1, 1)
        if self.smooth_heads:
            others = [_smoothed(image) for image in others]
        given = [OUTPUT_SCALE * first]
        for name, image in zip(self.heads, others, strict=True):
            match name:
                case "contrast":
                    given.append(image)  # without the CTF, which passes little of what makes a particle dark as a whole, near one as it is
                case "uncertainty":
                    given.append(OUTPUT_SCALE * image.clamp(*LOG_ERROR_RANGE).exp())
                case "particles":
                    given.append(image.sigmoid())
        return torch.cat(given, 1)


def _smoothed(image: Tensor) -> Tensor:
    """[batch, 1, y, x] filtered by (1 2 1) / 4 along both axes, which passes nothing of a pattern of period two."""
    kernel = image.new_tensor([0.25, 0.5, 0.25])
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 3, 1)), kernel.view(1, 1, 1, 3))


class DSTNet(MovieNetwork):
    """Frames with unit noise in, the enhanced micrograph (and frames) out, in units of the sum's noise."""

    settings: DSTNetSettings

    def __init__(self, settings: DSTNetSettings):
        super().__init__()
        self.settings = settings
        without = settings.without
        self.spatial = SpatialExtractor(settings)
        self.temporal = None if "temporal" in without else TemporalExtractor(settings)
        self.fusion = None if "fusion" in without else Fusion(settings)
        one_scale = {"widths": settings.widths[:1], "blocks": settings.blocks[:1]}
        self.reconstructor = Reconstructor(settings.model_copy(update=one_scale) if "reconstructor" in without else settings)

    @property
    def stride(self) -> int:
        return 2 ** len(self.settings.widths)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("micrograph", *self.settings.heads)

    def forward(self, frames: Tensor, total: Tensor, exposure: Tensor, which: int | None = None, every: bool = False) -> Tensor:
        """Enhance.

        Parameters
        ----------
        frames
            [batch, frame, y, x], aligned, each with mean zero and unit noise; sides a multiple of `stride`.
        total
            [batch, y, x]: their sum in input units, brought to unit noise.
        exposure
            [batch, frame, 3]: from `exposure_features`.
        which
            A frame whose own enhanced image to give in addition to the micrograph.
        every
            Give every frame's enhanced image in addition to the micrograph.

        Returns
        -------
        Tensor
            [batch, outputs + frames asked for, y, x]: `outputs`, then the frames; in units of `total`'s noise.
        """
        total = total[:, None]
        if self.settings.transfer_input:
            frames, aside = frames[:, :-1], frames[:, -1:]
            total = torch.cat((total, aside), 1)
        fused, mean, state, wanted = self._over(frames, exposure, range(frames.shape[1]) if every else [which])
        micrograph = self.reconstructor(fused, mean, state, total)
        return torch.cat([micrograph, *(self.reconstructor(fused, own, state, total)[:, :1] for own in wanted)], 1)

    def _over(self, frames: Tensor, exposure: Tensor, wanted: Container[int | None]) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Over all frames: features fused, their mean, the recurrence's last state; and the features of frames wanted."""
        batch, count, height, width = frames.shape
        # Sums over frames stay in float32 whatever the precision inside: hundreds of small terms must not round away. They lie in memory as
        # what is added does, whose layout is that of `build`'s weights: between two layouts it takes four times as long.
        value = frames.new_zeros(batch, self.settings.features, height // 2, width // 2).to(memory_format=torch.channels_last)
        weight, mean, state = torch.zeros_like(value), torch.zeros_like(value), torch.zeros_like(value)
        kept = []
        for t in range(count):
            features = self.spatial(frames[:, t : t + 1], exposure[:, t])
            state = features if self.temporal is None else self.temporal(features, state.to(features.dtype))
            value, weight = (value + features, weight + 1) if self.fusion is None else self.fusion(features, state, value, weight)
            mean.add_(features, alpha=1 / count)
            if t in wanted:
                kept.append(features)
        return value / weight, mean, state, kept


def exposure_features(mid_e_per_a2: Tensor | None, own_e_per_a2: Tensor | None, count: int) -> Tensor:
    """What the network is told about exposure, [frame, 3]: known or not, log of the frame's own exposure, exposure before its middle."""
    if mid_e_per_a2 is None or own_e_per_a2 is None:
        return torch.zeros(count, 3)
    return torch.stack((torch.ones(count), own_e_per_a2.clamp(min=1e-3).log() / 3, mid_e_per_a2 / 50), 1)
