"""What the readers of all file formats have in common."""

from pathlib import Path

import numpy as np


class StoredFrames:
    """The frames of a file, each read when asked for: ``frames[i]`` is a new array ``[y, x]``.

    No file is kept open, so a reader can be sent to worker processes.

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    path
        The file.
    shape
        (frame, y, x).
    pixel_size_yx_angstrom
        Pixel size (y, x); None where the file does not say it beyond doubt.
    notes
        What a user should know of how the frames were made.
    frames_per_fraction
        Raw frames that a frame is the sum of: 1, but for EER movies.
    eer_up_sampling
        Of an EER movie, how much finer the grid is than the camera's; None: it is none.
    exposure_multiple
        Exposure of a frame over the one that the user gave: 1, but for EER movies whose raw frames
        are grouped by exposure.
    """

    path: Path
    shape: tuple[int, int, int]
    pixel_size_yx_angstrom: tuple[float, float] | None
    notes: tuple[str, ...] = ()
    frames_per_fraction: int = 1
    eer_up_sampling: int | None = None
    exposure_multiple: int = 1

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int, /) -> np.ndarray:
        """A frame.

        Raises
        ------
        BadInputError
            If it cannot be read.
        """
        raise NotImplementedError
