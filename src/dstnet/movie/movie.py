"""A movie: frames that may still lie in a file, and what is known about how they were taken."""

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from dstnet.core.shapes import Image, Shape, Stack
from dstnet.errors import BadInputError
from dstnet.movie.exposure import Exposure

_PIXEL_SIZES_ANGSTROM = (1e-3, 1e5)  # beyond, a header holds something else


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
    exposure
        Exposure of each frame; None where it is not known.
    voltage_kv
        Acceleration voltage.
    frame_numbers
        Number of each frame, from 0, in the file that the movie comes from; by default all in
        order.
    frames_in_file
        How many frames the file has; by default up to the last one here.
    raw_frames_per_frame
        Of an EER movie, how many of its raw frames a frame is the sum of.
    eer_up_sampling
        Of an EER movie, how much finer its grid is than the camera's; None: it is none.
    notes
        What was done to the frames, a line each, for reports.

    Raises
    ------
    BadInputError
        If a value is not that of a movie.
    """

    frames: FrameStack
    pixel_size_angstrom: float
    name: str = "movie"
    exposure: Exposure | None = None
    voltage_kv: float = 300.0
    frame_numbers: tuple[int, ...] = ()
    frames_in_file: int = 0
    raw_frames_per_frame: int = 1
    eer_up_sampling: int | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.frames.shape) != 3 or min(self.frames.shape) < 1:
            raise BadInputError(
                f"{self.name}: frames have shape {tuple(self.frames.shape)}; a movie is [frame, y,"
                " x]"
            )
        least, most = _PIXEL_SIZES_ANGSTROM
        if not least <= self.pixel_size_angstrom <= most:
            raise BadInputError(
                f"{self.name}: pixel size is {self.pixel_size_angstrom} Å; pass --pixel-size,"
                f" {least:g} to {most:g}"
            )
        if not 10 <= self.voltage_kv <= 3000:
            raise BadInputError(
                f"{self.name}: voltage is {self.voltage_kv} kV; pass a --voltage such as 200 or 300"
            )
        if self.exposure is not None:
            self._check_exposure(self.exposure)
        if not self.frame_numbers:
            object.__setattr__(self, "frame_numbers", tuple(range(len(self))))
        if len(self.frame_numbers) != len(self):
            raise BadInputError(
                f"{self.name}: {len(self.frame_numbers)} frame numbers for {len(self)} frames; give"
                " one a frame"
            )
        if not self.frames_in_file:
            object.__setattr__(self, "frames_in_file", self.frame_numbers[-1] + 1)

    def _check_exposure(self, exposure: Exposure) -> None:
        if len(exposure) != len(self):
            raise BadInputError(
                f"{self.name}: exposures of {len(exposure)} frames for {len(self)}; give one a"
                " frame"
            )
        for own in exposure.frame_e_per_a2:
            if not 0 < own < math.inf:
                raise BadInputError(
                    f"{self.name}: exposure of a frame is {own} e-/Å2; pass a positive"
                    " --dose-per-frame, or none"
                )
        before = exposure.pre_exposure_e_per_a2
        if not 0 <= before < math.inf:
            raise BadInputError(
                f"{self.name}: exposure before the first frame is {before} e-/Å2; pass a"
                " --pre-exposure of 0 or more"
            )

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def shape(self) -> Shape:
        """(y, x) of a frame."""
        return (self.frames.shape[1], self.frames.shape[2])

    @property
    def total_exposure_e_per_a2(self) -> float | None:
        """Exposure of all frames together; None where it is not known."""
        return None if self.exposure is None else self.exposure.total_e_per_a2

    def subset(self, frames: Iterable[int]) -> "Movie":
        """The movie of some of the frames, by their index here, each read when asked for."""
        chosen = tuple(frames)
        exposure = self.exposure
        return replace(
            self,
            frames=_Subset(self.frames, chosen),
            exposure=None if exposure is None else exposure.subset(chosen),
            frame_numbers=tuple(self.frame_numbers[index] for index in chosen),
        )

    def frame(self, index: int) -> Image:
        """Frame `index` (from 0) as a new float32 tensor.

        Raises
        ------
        BadInputError
            If the frame holds NaN or infinity, or cannot be read.
        """
        values = np.array(self.frames[index], dtype=np.float32, order="C")
        frame = torch.from_numpy(values)
        if not torch.isfinite(frame.sum()):  # one pass; only then look for which pixels
            bad = int((~torch.isfinite(frame)).sum())
            if bad:
                raise BadInputError(
                    f"{self.name}: frame {index + 1} holds {bad} NaN or infinite pixels; repair"
                    " or leave out that frame"
                )
        return frame

    def forget(self) -> None:
        """Free what the frames hold of what was read of them, if they hold anything; they are read
        anew when asked for again.
        """
        forget_frames(self.frames)

    def stack(self) -> Stack:
        """All frames in memory, [frame, y, x]. For short movies only.

        Raises
        ------
        BadInputError
            As `frame`.
        """
        return torch.stack([self.frame(i) for i in range(len(self))])


class _Subset:
    """Some frames of a stack."""

    def __init__(self, frames: FrameStack, chosen: Sequence[int]) -> None:
        self._frames = frames
        self._chosen = tuple(chosen)
        self.shape = (len(self._chosen), *frames.shape[1:])

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self._frames[self._chosen[operator.index(index)]]

    def forget(self) -> None:
        """See `Movie.forget`."""
        forget_frames(self._frames)


def forget_frames(frames: FrameStack) -> None:
    """Free what a stack holds of its frames, if it holds anything."""
    forget = getattr(frames, "forget", None)
    if forget is not None:
        forget()
