"""How far a long piece of work has come, told to whoever watches; nobody need.

Loops over frames and tiles say where they are with `progress`, wherever they run; the command, at
the other end, shows it. Without a watcher that costs a look at a variable.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Where a piece of work is.

    Attributes
    ----------
    subject
        What is worked on: a movie.
    doing
        What is done and counted, such as "summing, frame"; None: the work has ended.
    done, total
        How many of them.
    """

    subject: str
    doing: str | None
    done: int = 0
    total: int = 0


Watcher = Callable[[Step], None]

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
_subject: ContextVar[str] = ContextVar("subject", default="")


@contextmanager
def watching(watcher: Watcher | None) -> Iterator[None]:
    """Have `watcher` told of each step within the block, in this thread; None: nobody."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def working_on(subject: str) -> Iterator[None]:
    """What is done within the block is done for `subject`."""
    token = _subject.set(subject)
    pass_on(Step(subject, "beginning"))
    try:
        yield
    finally:
        _subject.reset(token)
        pass_on(Step(subject, None))


def progress(doing: str, done: int, total: int) -> None:
    """Say that `done` of `total` are done."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(Step(_subject.get(), doing, done, total))


def pass_on(step: Step) -> None:
    """Tell the watcher of a step that was made elsewhere, as in a worker."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(step)


def is_watched() -> bool:
    """Whether anybody is told."""
    return _watcher.get() is not None
