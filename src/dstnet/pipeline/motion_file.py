"""The motion of a movie for RELION to go on from: ``NAME.star``."""

from dataclasses import dataclass
from pathlib import Path

from dstnet.io.atomic import Put
from dstnet.io.star import star_name, write_star
from dstnet.motion import Motion, RelionMovie
from dstnet.movie import Movie
from dstnet.pipeline.micrographs_star import as_relion_finds
from dstnet.pipeline.relion_references import RelionReferences

# By these alone RELION knows what a file is; in large letters too, but for EER.
_RELION_SUFFIXES = (".mrc", ".mrcs", ".tif", ".tiff", ".eer")


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
    voltage_kv
        As it was given; None: nobody said it.
    references
        That RELION is to apply.
    """

    movie_path: Path
    movie: Movie
    frame_numbers: tuple[int, ...]
    motion: Motion
    pixel_size_angstrom: float
    voltage_kv: float | None
    references: RelionReferences

    def write(self, path: Path, put: Put) -> None:
        """Write the file, see `dstnet.io.atomic_path`.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        tables = self.motion.to_relion(self._described())
        write_star(path, tables, float_format="%.9g", put=put)

    def _described(self) -> RelionMovie:
        movie = self.movie
        exposure = movie.exposure
        own = exposure.frame_e_per_a2[0] if exposure else None
        before = 0.0
        if exposure and own:
            # RELION's is before the first frame of the file.
            before = exposure.pre_exposure_e_per_a2 - movie.frame_numbers[0] * own
        return RelionMovie(
            shape=movie.shape,
            pixel_size_angstrom=movie.pixel_size_angstrom,
            movie_name=star_name(as_relion_finds(self.movie_path)),
            exposure_e_per_a2=own,
            pre_exposure_e_per_a2=before,
            voltage_kv=self.voltage_kv,
            used_frames=self.frame_numbers,
            frames_in_file=movie.frames_in_file,
            binning=round(self.pixel_size_angstrom / movie.pixel_size_angstrom, 6),
            gain_name=_name(self.references.gain),
            defects_name=_name(self.references.defects),
            hot_pixels=tuple((y, x) for y, x in self.references.hot_pixels.tolist()),
            eer_up_sampling=movie.eer_up_sampling,
            raw_frames_per_frame=movie.raw_frames_per_frame,
        )

    def notes(self, *, has_dark: bool) -> list[str]:
        """What RELION's Polish, which works on the raw frames, would do otherwise than was done."""
        suffix = self.movie_path.suffix
        notes = []
        known_as = suffix if suffix.lower() == ".eer" else suffix.lower()
        if known_as not in _RELION_SUFFIXES:
            notes.append(
                f"RELION's Polish cannot open movies called *{suffix}; have them as"
                f" {', '.join(_RELION_SUFFIXES)}"
            )
        if has_dark:
            notes.append(
                "RELION knows no dark: its Polish would take the raw frames with the gain alone, so"
                " polish frames that were written with the dark subtracted"
            )
        if self.movie.eer_up_sampling == 4 and self.references.gain is not None:
            notes.append(
                "RELION's Polish takes no gain on a grid four times as fine as the camera's; pass"
                " --eer-upsampling 1 or 2 to polish"
            )
        return [*notes, *self._left_out_notes()]

    def _left_out_notes(self) -> list[str]:
        numbers = self.frame_numbers
        first, last = numbers[0], numbers[-1]
        notes = []
        if last - first + 1 < self.movie.frames_in_file:
            notes.append(
                "RELION's Polish takes frames that were left out too, unless it is run with"
                f" --first_frame {first + 1} --last_frame {last + 1}"
            )
        between = sorted(set(range(first, last)) - set(numbers))
        if between:
            names = ", ".join(str(number + 1) for number in between)
            notes.append(
                f"RELION's Polish takes the frames left out between others too ({names}): it has no"
                " option to leave them out"
            )
        return notes


def _name(path: Path | None) -> str | None:
    return None if path is None else star_name(as_relion_finds(path))
