"""How simulated movies lie in a folder.

::

    movies/NAME.tif                 (or .mrcs) the movie, as the camera writes it
    truth/NAME_phase.mrc ...        what is known of it; the guide lists them
    truth/NAME_settings.yaml        its record, written last: with it all the rest is complete
    camera/gain_*.mrc defects_*.txt of the camera, shared by all movies taken with it
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dstnet.dataset.record import MOVIE_FORMATS, MovieFormat, MovieRecord
from dstnet.simulation import SimulationSettings

RECORD_ENDING = "settings.yaml"


@dataclass(frozen=True)
class MovieFiles:
    """Where the files of a movie are.

    Parameters
    ----------
    folder
        Of the data set.
    record
        How the movie was or is made.
    """

    folder: Path
    record: MovieRecord

    @property
    def name(self) -> str:
        """Of the movie and, with an ending, of its files."""
        return self.record.name

    @cached_property
    def settings(self) -> SimulationSettings:
        """What it was simulated with.

        Raises
        ------
        SettingsError
            If the record holds no such settings.
        """
        return SimulationSettings.checked(self.record.settings, str(self.record_path))

    def movie_path(self, movie_format: MovieFormat = "tif") -> Path:
        """Where the movie is in that format."""
        suffix = "tif" if movie_format == "tif" else "mrcs"
        return self.folder / "movies" / f"{self.name}.{suffix}"

    @property
    def formats(self) -> tuple[MovieFormat, ...]:
        """The formats in which the movie is there; none if it is missing."""
        return tuple(f for f in MOVIE_FORMATS if self.movie_path(f).is_file())

    def truth_path(self, ending: str) -> Path:
        """Where a truth is, such as that of ending ``clean.mrc`` or ``particles.star``."""
        return self.folder / "truth" / f"{self.name}_{ending}"

    @property
    def record_path(self) -> Path:
        """Where the record is."""
        return self.truth_path(RECORD_ENDING)

    @property
    def gain_path(self) -> Path:
        """Where the gain reference of the camera is, if that has one."""
        return self.folder / "camera" / f"gain_{self._camera_digest}.mrc"

    @property
    def defects_path(self) -> Path:
        """Where the list of the camera's defects is, if it has any."""
        return self.folder / "camera" / f"defects_{self._camera_digest}.txt"

    @property
    def _camera_digest(self) -> str:
        """Of what decides gain and defects."""
        text = f"{self.settings.detector.to_yaml()}{self.settings.shape}"
        return hashlib.sha256(text.encode()).hexdigest()[:8]
