"""What a step of training is given: inputs of the network, and what its answer is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Crop:
    """One example with its truths.

    Attributes
    ----------
    frames
        [frame, y, x], each with mean zero and unit noise.
    total
        [y, x]: their sum, brought to unit noise; of a window of raw frames, the one that is learnt.
    exposure
        [frame, 3]: from `dstnet.network.inputs.exposure_inputs`.
    targets
        [y, x] each, by the output's name: see `dstnet.training.targets`.
    frame_target
        [y, x], in units of `total`'s noise: the signal in one of the frames, see
        `Batch.frame_index`.
    """

    frames: Tensor
    total: Tensor
    exposure: Tensor
    targets: dict[str, Tensor]
    frame_target: Tensor


@dataclass(frozen=True)
class Batch:
    """Crops of one number of frames, stacked.

    Attributes
    ----------
    frames
        [crop, frame, y, x].
    total
        [crop, y, x].
    exposure
        [crop, frame, 3].
    targets
        [crop, y, x] each, by the output's name.
    frame_target
        [crop, y, x].
    frame_index
        Which frame `frame_target` is of; None where its own image is not asked for.
    """

    frames: Tensor
    total: Tensor
    exposure: Tensor
    targets: dict[str, Tensor]
    frame_target: Tensor
    frame_index: int | None

    @classmethod
    def stack(cls, crops: Sequence[Crop], frame_index: int) -> Self:
        """A batch of crops with one number of frames, whose frame targets are of `frame_index`."""
        names = crops[0].targets
        return cls(
            frames=torch.stack([crop.frames for crop in crops]),
            total=torch.stack([crop.total for crop in crops]),
            exposure=torch.stack([crop.exposure for crop in crops]),
            targets={name: torch.stack([crop.targets[name] for crop in crops]) for name in names},
            frame_target=torch.stack([crop.frame_target for crop in crops]),
            frame_index=frame_index,
        )

    def without_frame(self) -> Self:
        """The same batch, no frame's own image being asked for."""
        return replace(self, frame_index=None)

    def to(self, device: torch.device) -> Self:
        """The same batch on `device`."""
        return replace(
            self,
            frames=self.frames.to(device, non_blocking=True),
            total=self.total.to(device, non_blocking=True),
            exposure=self.exposure.to(device, non_blocking=True),
            targets={k: v.to(device, non_blocking=True) for k, v in self.targets.items()},
            frame_target=self.frame_target.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class NoisyPair:
    """What the network is given of a movie without a truth, and independent frames of it.

    Attributes
    ----------
    frames, total, exposure
        Inputs of the network, as in `Batch`, of one crop.
    target
        [y, x]: the sum of frames that the input does not hold, unit noise.
    signal_ratio
        The signal in `target` over that in `total`, each in units of its own noise.
    """

    frames: Tensor
    total: Tensor
    exposure: Tensor
    target: Tensor
    signal_ratio: float

    def to(self, device: torch.device) -> Self:
        """The same pair on `device`."""
        return replace(
            self,
            frames=self.frames.to(device),
            total=self.total.to(device),
            exposure=self.exposure.to(device),
            target=self.target.to(device),
        )


def orient(images: Tensor, symmetry: int) -> Tensor:
    """Images [..., y, x] in one of the square's eight symmetries, 0 to 7: quarter turns, then from
    4 on a mirror image.
    """
    images = torch.rot90(images, symmetry & 3, (-2, -1))
    return images.flip(-1) if symmetry & 4 else images
