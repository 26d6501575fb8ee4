"""A simulated movie on disk: the movie, and its truths in a folder of their own that nothing which
enhances reads.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from dstnet.core.plain_yaml import read_yaml
from dstnet.core.regular_files import TABLE_BYTES, read_regular_text
from dstnet.core.shapes import Trajectory
from dstnet.correction.corrections import Corrections, CorrectionSettings
from dstnet.dataset.layout import RECORD_ENDING, MovieFiles
from dstnet.dataset.movie_facts import FACTS_ENDING, MovieFacts
from dstnet.dataset.movie_writer import MovieWriter
from dstnet.dataset.record import MovieFormat, MovieRecord
from dstnet.dataset.splits import structure_name
from dstnet.dataset.truth_files import (
    MOTION_ENDING,
    truth_endings,
)
from dstnet.dataset.truth_tables import (
    motion_of,
    motion_parts_of,
)
from dstnet.errors import BadInputError, SettingsError
from dstnet.io import (
    MrcFrames,
    open_movie,
)
from dstnet.io.reference import read_defects, read_gain
from dstnet.io.star import read_blocks
from dstnet.motion import Motion
from dstnet.movie import Movie
from dstnet.simulation import MovieSimulator


def one_line(error: Exception) -> str:
    """An error's text in one line, for a message of our own."""
    return " ".join(str(error).split())[:300]


@dataclass(frozen=True)
class SimulatedMovie(MovieFiles):
    """A simulated movie in a folder: the one reader and the one writer of this layout.

    Where its files are, `dstnet.dataset.layout` says.

    Parameters
    ----------
    folder
        Of the data set.
    record
        How the movie was or is made.
    """

    @classmethod
    def read(cls, folder: Path, name: str) -> "SimulatedMovie":
        """The movie `name` of a folder, by its record.

        Raises
        ------
        BadInputError
            If there is no record of that name, or it cannot be read.
        """
        path = folder / "truth" / f"{name}_{RECORD_ENDING}"
        try:
            record = MovieRecord.checked(read_yaml(path), str(path))
            movie = cls(folder, record)
            _ = movie.settings  # checked here, with the record's path in the message
        except (OSError, ValueError, yaml.YAMLError, SettingsError) as error:
            raise BadInputError(
                f"cannot read the record {path}: {one_line(error)}; simulate this movie again"
            ) from None
        return movie

    # What it is

    @property
    def structures(self) -> frozenset[str]:
        """What is in it, by every name that it goes by: of the species, and of the files that they
        were read from.
        """
        files = (source.split(" sha256:")[0].removeprefix("pdb:") for source in self.record.sources)
        return frozenset(structure_name(Path(name)) for name in (*self.record.species, *files))

    @property
    def digest(self) -> str:
        """Of the record, which decides the movie."""
        return hashlib.sha256(self.record.to_yaml().encode()).hexdigest()[:16]

    def is_complete(self, movie_format: MovieFormat = "tif", expected: bool = False) -> bool:
        """Whether the movie of just this record is there with all its truths.

        Parameters
        ----------
        movie_format
            In which it must be there.
        expected
            Whether the noise-free frames must be there too.
        """
        paths = [self.movie_path(movie_format), self.record_path]
        paths += [self.truth_path(ending) for ending in truth_endings(expected)]
        if not all(path.is_file() for path in paths):
            return False
        return self.is_recorded()

    def is_recorded(self) -> bool:
        """Whether the record on disk is this movie's; it must be there."""
        return self.record_path.read_bytes() == self.record.to_yaml().encode()

    # Reading

    def raw_movie(self) -> Movie:
        """The movie as the camera wrote it.

        Raises
        ------
        BadInputError
            If it is missing, cannot be read, or is not as its record says.
        """
        settings = self.settings
        if not self.formats:
            raise BadInputError(
                f"{self.folder / 'movies'} has no {self.name}; simulate it again, or take its"
                " truths away"
            )
        path = self.movie_path(self.formats[0])
        movie = open_movie(
            path,
            pixel_size_angstrom=settings.pixel_size_angstrom,
            exposure_e_per_a2=settings.exposure_e_per_a2,
            pre_exposure_e_per_a2=settings.pre_exposure_e_per_a2,
            voltage_kv=settings.optics.voltage_kv,
        )
        if (len(movie), *movie.shape) != (settings.frames, *settings.shape):
            raise BadInputError(
                f"{path} has {len(movie)} frames of {movie.shape[0]} x {movie.shape[1]}, its record"
                f" says {settings.frames} of {settings.shape[0]} x {settings.shape[1]}; simulate it"
                " again"
            )
        return movie

    def movie(self) -> Movie:
        """The movie, its gain and defects corrected.

        Raises
        ------
        BadInputError
            If it is missing, cannot be read, or is not as its record says.
        """
        return self.corrected(self.raw_movie())

    def corrected(self, raw: Movie) -> Movie:
        """A movie of this one's camera, its gain and defects corrected.

        Raises
        ------
        BadInputError
            If gain or defects cannot be read, or do not fit.
        """
        gain = self.gain_path
        defects = self.defects_path
        corrections = Corrections(
            gain=read_gain(gain) if gain.is_file() else None,
            defects=read_defects(defects) if defects.is_file() else None,
            settings=CorrectionSettings(find_defects=False, drop_bad_frames=False),
            names=(str(gain), "dark", str(defects)),
        )
        return corrections.applied(raw)

    def truth(self, what: str) -> MrcFrames:
        """One of the true images, read when its only frame is asked for.

        Parameters
        ----------
        what
            Its name in `dstnet.dataset.truth_files.TRUTH_IMAGES`.

        Raises
        ------
        BadInputError
            If its file is missing or no MRC file.
        """
        return MrcFrames(self.truth_path(f"{what}.mrc"))

    def motion(self) -> Motion:
        """The true motion.

        Raises
        ------
        BadInputError
            If its file cannot be read, or is of another number of frames.
        """
        path = self.truth_path(MOTION_ENDING)
        frames = self.settings.frames
        try:
            motion = motion_of(self._motion_values())
        except (ValueError, KeyError, TypeError) as error:
            raise _bad_motion(path, error) from None
        global_fits = motion.global_shift_angstrom.shape == (frames, 2)
        local_fits = motion.local_coefficients_angstrom.shape == (frames, 2, 5)
        if not (global_fits and local_fits):
            raise BadInputError(
                f"{path} is not the motion of {frames} frames; simulate this movie again"
            )
        return motion

    def motion_parts_angstrom(self) -> dict[str, Trajectory]:
        """What the true motion's global shift is the sum of, by name, [frame, 2] (y, x).

        Raises
        ------
        BadInputError
            If its file cannot be read.
        """
        try:
            return motion_parts_of(self._motion_values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _bad_motion(self.truth_path(MOTION_ENDING), error) from None

    def _motion_values(self) -> dict[str, Any]:
        path = self.truth_path(MOTION_ENDING)
        try:
            return json.loads(read_regular_text(path, TABLE_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise _bad_motion(path, error) from None

    def particles(self) -> pd.DataFrame:
        """RELION's table of the particles, a row each.

        Raises
        ------
        BadInputError
            If its file cannot be read.
        """
        path = self.truth_path("particles.star")
        try:
            return pd.DataFrame(read_blocks(path)["particles"])
        except (OSError, ValueError, KeyError) as error:
            raise BadInputError(
                f"cannot read the particles in {path}: {one_line(error)}; simulate this movie again"
            ) from None

    def facts(self) -> MovieFacts:
        """Its statistics, and the digests of its files as they were written.

        Raises
        ------
        BadInputError
            If their file cannot be read.
        """
        path = self.truth_path(FACTS_ENDING)
        try:
            return MovieFacts.checked(json.loads(read_regular_text(path, TABLE_BYTES)), str(path))
        except (OSError, ValueError, RecursionError, SettingsError) as error:
            raise BadInputError(
                f"cannot read {path}: {one_line(error)}; simulate this movie again"
            ) from None

    # Writing

    def write(
        self,
        simulator: MovieSimulator,
        movie_format: MovieFormat = "tif",
        expected: bool = False,
    ) -> bool:
        """Simulate the movie and write it with its truths; False where it was already complete.

        The record comes last: its presence says that all the rest is complete.

        Parameters
        ----------
        simulator
            Of this record.
        movie_format
            Of the movie.
        expected
            Write the noise-free frames too (``_expected.mrcs``, as large as the movie in float32).

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        if self.is_complete(movie_format, expected):
            return False
        MovieWriter(self, simulator, movie_format, expected).write()
        return True


def _bad_motion(path: Path, error: Exception) -> BadInputError:
    return BadInputError(
        f"cannot read the motion in {path}: {one_line(error)}; simulate this movie again"
    )
