"""Where inputs come from while they arrive."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dstnet.errors import BadInputError
from dstnet.pipeline.file_state import FileVersion, file_version
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.star_row import StarRow

SETTLE_SECONDS = 10.0  # a camera's writer, or rsync, pauses for less
# Times the settling time that a file which cannot be read yet, as it is cut off, is waited for.
PATIENCE = 12


def watch(
    find: Callable[[Callable[[BadInputError], None]], Sequence[InputMovie]],
    readable: Callable[[InputMovie], object],
    *,
    every: float,
    settle: float = SETTLE_SECONDS,
    idle: float | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[InputMovie | None]:
    """Inputs as they arrive and are complete; None while there is nothing new.

    A file waits while its size or time of change still changes, and longer while it cannot be read;
    what can still not be read when it has not changed for `PATIENCE` settling times is passed on,
    to fail by name. One that changes after it was passed on is so again.

    Parameters
    ----------
    find
        All inputs there are by now; it is given what to tell of those that cannot be read.
    readable
        Raises BadInputError where a movie cannot be opened, as `MovieSettings.open` does.
    every
        Seconds between looks.
    settle
        Seconds for which a file must not have changed.
    idle
        Seconds after which, with nothing new and nothing waited for, this ends; None never ends.
    report
        Gets what `find` tells and raises, once for each reason.
    """
    arrivals = _Arrivals(readable, settle)
    reasons: set[str] = set()

    def tell(error: BadInputError) -> None:
        if str(error) not in reasons:
            reasons.add(str(error))
            report(f"waiting: {error}")

    looked = -float("inf")
    while True:
        now = time.monotonic()
        if now - looked >= every:
            looked = now
            try:
                found = find(tell)
            except BadInputError as error:
                found = []
                tell(error)
            yield from arrivals.complete(found, now)
        if idle is not None and now - arrivals.last_change > idle:
            return
        yield None


@dataclass
class _State:
    """A file as it was last seen.

    Attributes
    ----------
    version
        Its size and its time of change.
    row
        What a table says of it, which may be half-written.
    since
        When it began to be so, by the monotonic clock.
    """

    version: FileVersion
    row: StarRow | None
    since: float


class _Arrivals:
    """Files that have been seen, and which of them were passed on as they are.

    Attributes
    ----------
    last_change
        When something new was last there or waited for, by the monotonic clock.
    """

    def __init__(self, readable: Callable[[InputMovie], object], settle: float) -> None:
        self._readable = readable
        self._settle = settle
        self._passed_on: dict[Path, FileVersion] = {}  # as they were then
        self._states: dict[Path, _State] = {}
        self.last_change = time.monotonic()

    def complete(self, found: Sequence[InputMovie], now: float) -> Iterator[InputMovie]:
        """Those that are complete, each once as long as it stays as it is."""
        patience = PATIENCE * self._settle
        for movie in found:
            unchanged = self._unchanged_seconds(movie, now)
            if unchanged is None:
                continue
            if unchanged < patience:
                self.last_change = now
                if unchanged < self._settle or not self._opens(movie):
                    continue
            self._passed_on[movie.path] = self._states.pop(movie.path).version
            self.last_change = time.monotonic()
            yield movie

    def _unchanged_seconds(self, movie: InputMovie, now: float) -> float | None:
        """For how long a file, and what its table says of it, has not changed; None where it is not
        there, or was passed on so.
        """
        path = movie.path
        version = file_version(path)
        if version is None or version == self._passed_on.get(path):
            return None
        known = self._states.get(path)
        if known is None:
            # What was there long ago need not be waited for; another machine's clock may be ahead,
            # then it is.
            changed_ns = version[1]
            table = None if movie.row is None else file_version(movie.row.star)
            if table is not None:
                changed_ns = max(changed_ns, table[1])
            age = max(time.time() - changed_ns / 1e9, 0.0)
            known = self._states[path] = _State(version, movie.row, now - age)
        elif (known.version, known.row) != (version, movie.row):
            known = self._states[path] = _State(version, movie.row, now)
        return now - known.since

    def _opens(self, movie: InputMovie) -> bool:
        try:
            self._readable(movie)
        except BadInputError:
            return False
        return True
