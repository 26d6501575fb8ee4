"""The references of a run, tried on the first movies that each is for."""

import contextlib
from pathlib import Path

from dstnet.correction.reference_check import Doubt, ReferenceCheck
from dstnet.errors import BadInputError
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.settings import RunSettings

_Files = tuple[Path | None, Path | None]


class CheckedReferences:
    """Tries gain and dark on the first movies of a run: once a gain, however many movies follow.

    Parameters
    ----------
    settings
        Of the run.
    """

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        # By gain and defects; one that is settled is kept no longer, for its images are large.
        self._checks: dict[_Files, ReferenceCheck] = {}
        self._settled: dict[_Files, list[Doubt]] = {}

    def doubts(self, movie: InputMovie) -> list[Doubt]:
        """What speaks against the references of a movie, by it and those before it."""
        files = self._files(movie)
        if files in self._settled:
            return self._settled[files]
        check = self._checks.get(files) or self._new_check(files)
        if check is None:
            self._settled[files] = []
            return []
        self._checks[files] = check
        # What is wrong with a movie it will say itself; the next one tells.
        with contextlib.suppress(BadInputError):
            check.look(self._settings.movies.open(movie))
        if check.is_settled:
            self._settled[files] = self._checks.pop(files).doubts
        return check.doubts

    def are_tried(self, movie: InputMovie) -> bool:
        """Whether the references of a movie were tried, or cannot be."""
        files = self._files(movie)
        return files in self._settled or self._checks[files].frames > 0

    def _files(self, movie: InputMovie) -> _Files:
        references = self._settings.references
        return references.gain_of(movie), references.defects_of(movie)

    def _new_check(self, files: _Files) -> ReferenceCheck | None:
        try:
            corrections = self._settings.references.corrections(*files)
        except BadInputError:  # of a reference, which will be said where it is used
            return None
        return None if corrections is None else ReferenceCheck(corrections)
