"""A movie: frames that may still lie in a file, and what is known about how they were taken."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from dstnet.core.shapes import Image, Stack
from dstnet.errors import BadInputError


@runtime_checkable
class FrameStack(Protocol):
    """Frames by number: a NumPy array ``[frame, y, x]`` is one; so is a file that reads a frame
    when asked.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Movie:
    """A cryo-EM movie (or a single image, which is a movie of one frame).

    Parameters
    ----------
    frames
        Frames as ``[frame, y, x]``, any real number type, in whatever unit the file holds.
    pixel_size_angstrom
        Sampling of the frames in the specimen.
    name
        What messages and outputs call this movie; of a file, its path.
    exposure_e_per_a2
        Exposure of one frame; None where it is not known.
    pre_exposure_e_per_a2
        Exposure of the specimen before the first frame.
    voltage_kv
        Acceleration voltage.
    """

    frames: FrameStack
    pixel_size_angstrom: float
    name: str = "movie"
    exposure_e_per_a2: float | None = None
    pre_exposure_e_per_a2: float = 0.0
    voltage_kv: float = 300.0

    def __post_init__(self) -> None:
        if len(self.frames.shape) != 3 or min(self.frames.shape) < 1:
            raise BadInputError(
                f"{self.name}: frames have shape {tuple(self.frames.shape)}; a movie is [frame,"
                " y, x]"
            )
        if not 0 < self.pixel_size_angstrom < math.inf:
            raise BadInputError(
                f"{self.name}: pixel size is {self.pixel_size_angstrom} Å; pass a positive"
                " --pixel-size"
            )
        exposure, before = self.exposure_e_per_a2, self.pre_exposure_e_per_a2
        if exposure is not None and not 0 < exposure < math.inf:
            raise BadInputError(
                f"{self.name}: exposure of a frame is {exposure} e-/Å2; pass a positive"
                " --dose-per-frame, or none"
            )
        if not 0 <= before < math.inf:
            raise BadInputError(
                f"{self.name}: exposure before the first frame is {before} e-/Å2; pass a"
                " --pre-exposure of 0 or more"
            )
        if not 10 <= self.voltage_kv <= 3000:
            raise BadInputError(
                f"{self.name}: voltage is {self.voltage_kv} kV; pass a --voltage such as 200 or 300"
            )

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of a frame."""
        return (self.frames.shape[1], self.frames.shape[2])

    @property
    def whole_exposure_e_per_a2(self) -> float | None:
        """Exposure of all frames; None where that of one is not known."""
        return None if self.exposure_e_per_a2 is None else self.exposure_e_per_a2 * len(self)

    def frame(self, index: int) -> Image:
        """Frame `index` (from 0) as a new float32 tensor.

        Raises
        ------
        BadInputError
            If the frame holds NaN or infinity, or cannot be read.
        """
        frame = torch.from_numpy(np.array(self.frames[index], dtype=np.float32, order="C"))
        if not torch.isfinite(frame.sum()):  # one pass; only then look for which pixels
            bad = int((~torch.isfinite(frame)).sum())
            if bad:
                raise BadInputError(
                    f"{self.name}: frame {index + 1} holds {bad} NaN or infinite pixels; mend or"
                    " leave out that frame"
                )
        return frame

    def forget(self) -> None:
        """Free what the frames hold of what was read of them, if they hold anything; they are read
        anew when asked for again.
        """
        getattr(self.frames, "forget", lambda: None)()

    def stack(self) -> Stack:
        """All frames in memory. For short movies only."""
        return torch.stack([self.frame(i) for i in range(len(self))])
