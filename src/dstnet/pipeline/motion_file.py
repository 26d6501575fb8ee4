"""The motion of a movie for RELION to go on from: ``NAME.star``."""

from dataclasses import dataclass
from pathlib import Path

from dstnet.io.star import write_star
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
        The frames that are summed, by their numbers in the file.
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
            movie_name=as_relion_finds(self.movie_path),
            exposure_e_per_a2=own,
            pre_exposure_e_per_a2=before - movie.frame_numbers[0] * own,
            voltage_kv=movie.voltage_kv,
            used_frames=self.frame_numbers,
            frames_in_file=movie.frames_in_file,
        )
        tables = self.motion.to_relion(described)
        general = tables["general"]
        binning = self.pixel_size_angstrom / movie.pixel_size_angstrom
        general["rlnMicrographBinning"] = round(binning, 6)
        if self.gain is not None:
            general["rlnMicrographGainName"] = as_relion_finds(self.gain)
        write_star(path, tables, float_format="%.9g")
