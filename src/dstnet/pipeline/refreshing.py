"""Tables and page of a run, written as it goes."""

import threading
import time
from collections.abc import Callable

from dstnet.errors import DstnetError

LONGEST_SECONDS = 60.0  # that something finished waits for the tables while movies are worked on
SHARE = 0.05  # of a run's time at most goes into them


class Refresher:
    """Writes the tables anew while a run goes on, in a thread of its own: a movie may take many
    minutes, and those finished before it are to be seen.

    That is soon after something was finished, and at once when nothing is worked on; but not so
    often that writing would take more than `SHARE` of the time, or else `LONGEST_SECONDS` after the
    last time.

    Parameters
    ----------
    write
        Writes all tables.
    """

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write
        self._changed = threading.Condition()
        self._is_stale = False
        self._is_idle = False
        self._is_ended = False
        self._due = 0.0  # by the monotonic clock
        self._error: DstnetError | None = None
        self._thread = threading.Thread(target=self._run, name="tables", daemon=True)
        self._thread.start()

    def finished(self) -> None:
        """Something was finished, which the tables do not show yet.

        Raises
        ------
        DstnetError
            If the tables could not be written the last time.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            self._is_stale = True
            self._is_idle = False
            self._changed.notify()

    def idle(self) -> None:
        """Nothing is worked on now, so that writing keeps nobody waiting."""
        with self._changed:
            if self._is_stale and not self._is_idle:
                self._is_idle = True
                self._changed.notify()

    def end(self) -> None:
        """Write no more; what is being written is completed."""
        with self._changed:
            self._is_ended = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._is_wanted():
            begun = time.monotonic()
            try:
                self._write()
            except DstnetError as error:  # told to the run with what is finished next
                self._error = error
                return
            now = time.monotonic()
            self._due = now + min((now - begun) / SHARE, LONGEST_SECONDS)

    def _is_wanted(self) -> bool:
        """Wait until the tables are to be written; False where they no longer are."""
        with self._changed:
            while not self._is_ended:
                wait = self._due - time.monotonic()
                if self._is_stale and (self._is_idle or wait <= 0):
                    self._is_stale = False
                    return True
                self._changed.wait(wait if self._is_stale else None)
            return False
