"""The references of a run, tried on the first movies that each is for."""

import contextlib
from pathlib import Path

from dstnet.correction.reference_check import Doubt, ReferenceCheck
from dstnet.errors import BadInputError
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.settings import RunSettings


class CheckedReferences:
    """Tries gain and dark on the first movies of a run: once a gain, however many movies follow.

    Parameters
    ----------
    settings
        Of the run.
    """

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._checks: dict[tuple[Path | None, Path | None], ReferenceCheck | None] = {}

    def doubts(self, movie: InputMovie) -> list[Doubt]:
        """What speaks against the references of a movie, by it and those before it."""
        files = self._files(movie)
        if files not in self._checks:
            self._checks[files] = self._check(*files)
        check = self._checks[files]
        if check is None:
            return []
        if not check.is_settled:
            # What is wrong with a movie it will say itself; the next one tells.
            with contextlib.suppress(BadInputError):
                check.look(self._settings.movies.open(movie))
        return check.doubts

    def are_tried(self, movie: InputMovie) -> bool:
        """Whether the references of a movie were tried, or cannot be."""
        check = self._checks[self._files(movie)]
        return check is None or check.is_settled or check.frames > 0

    def _files(self, movie: InputMovie) -> tuple[Path | None, Path | None]:
        references = self._settings.references
        return references.gain_of(movie), references.defects_of(movie)

    def _check(self, gain: Path | None, defects: Path | None) -> ReferenceCheck | None:
        try:
            corrections = self._settings.references.corrections(gain, defects)
        except BadInputError:  # a gain that a movie names: it will say so
            return None
        return None if corrections is None else ReferenceCheck(corrections)
