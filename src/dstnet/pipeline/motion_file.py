"""The motion of a movie for RELION to go on from: ``NAME.star``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dstnet.io.star import star_name, write_star
from dstnet.motion import Motion, RelionMovie
from dstnet.movie import Movie
from dstnet.pipeline.micrographs_star import as_relion_finds


@dataclass(frozen=True)
class MotionFile:
    """What RELION's STAR file of a movie says.

    Attributes
    ----------
    movie_path
        The movie's file.
    movie
        The movie as it was opened: frames that were left out later count.
    frame_numbers
        The frames whose motion is known, by their numbers in the file.
    motion
        Of these frames.
    pixel_size_angstrom
        Of the sums.
    gain
        The gain reference that the frames were corrected with.
    """

    movie_path: Path
    movie: Movie
    frame_numbers: tuple[int, ...]
    motion: Motion
    pixel_size_angstrom: float
    gain: Path | None

    def write(self, path: Path) -> None:
        """Write the file.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        movie = self.movie
        exposure = self.movie.exposure
        own = exposure.frame_e_per_a2[0] if exposure else 0.0
        before = exposure.pre_exposure_e_per_a2 if exposure else 0.0
        described = RelionMovie(
            shape=movie.shape,
            pixel_size_angstrom=movie.pixel_size_angstrom,
            movie_name=star_name(as_relion_finds(self.movie_path)),
            exposure_e_per_a2=own,
            pre_exposure_e_per_a2=before - movie.frame_numbers[0] * own,
            voltage_kv=movie.voltage_kv,
        )
        tables = self._motion_of_the_file().to_relion(described)
        general = tables["general"]
        binning = self.pixel_size_angstrom / movie.pixel_size_angstrom
        general["rlnMicrographBinning"] = round(binning, 6)
        if self.gain is not None:
            general["rlnMicrographGainName"] = star_name(as_relion_finds(self.gain))
        write_star(path, tables, float_format="%.9g")

    def _motion_of_the_file(self) -> Motion:
        """RELION counts the frames of the file: one that was left out moved as its neighbours
        did.
        """
        numbers = self.frame_numbers
        motion = self.motion
        if numbers == tuple(range(len(numbers))):
            return motion
        frames = self.movie.frame_numbers[-1] + 1
        return Motion(
            _at_all_frames(motion.global_shift_angstrom.cpu(), numbers, frames),
            _at_all_frames(motion.local_coefficients_angstrom.cpu(), numbers, frames),
        )


def _at_all_frames(motion: Tensor, known: Sequence[int], frames: int) -> Tensor:
    """`motion` [known frame, ...] at all frames, in between by straight lines, beyond the ends as
    at the ends.
    """
    flat = motion.flatten(1).double().numpy()
    numbers = np.arange(frames)
    columns = [np.interp(numbers, known, column) for column in flat.T]
    complete = torch.from_numpy(np.stack(columns, 1)).to(motion.dtype)
    return complete.reshape(frames, *motion.shape[1:])
