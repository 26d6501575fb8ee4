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
        # By gain; one that is settled is kept no longer, for its images are large.
        self._checks: dict[Path | None, ReferenceCheck] = {}
        self._settled: dict[Path | None, list[Doubt]] = {}

    def doubts(self, movie: InputMovie) -> list[Doubt]:
        """What speaks against the references of a movie, by it and those before it."""
        gain = self._settings.references.gain_of(movie)
        if gain in self._settled:
            return self._settled[gain]
        check = self._checks.get(gain) or self._new_check(gain)
        if check is None:
            self._settled[gain] = []
            return []
        self._checks[gain] = check
        # What is wrong with a movie it will say itself; the next one tells.
        with contextlib.suppress(BadInputError):
            check.look(self._settings.movies.open(movie))
        if check.is_settled:
            self._settled[gain] = self._checks.pop(gain).doubts
        return check.doubts

    def are_tried(self, movie: InputMovie) -> bool:
        """Whether the references of a movie were tried, or cannot be."""
        gain = self._settings.references.gain_of(movie)
        return gain in self._settled or self._checks[gain].frames > 0

    def _new_check(self, gain: Path | None) -> ReferenceCheck | None:
        try:
            corrections = self._settings.references.corrections(gain)
        except BadInputError:  # of a reference, which will be said where it is used
            return None
        return None if corrections is None else ReferenceCheck(corrections)
