"""What a run consists of: tasks, what is done with each, and what came of it."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from dstnet.errors import SettingsError

T = TypeVar("T")
R = TypeVar("R")
T_in = TypeVar("T_in", contravariant=True)
R_out = TypeVar("R_out", covariant=True)

# Between questions to a source that has nothing now: short beside any movie.
PAUSE_SECONDS = 0.2


class Job(Protocol[T_in, R_out]):
    """What all tasks of a run share; it travels to the workers, so it must be picklable."""

    def worker(self, device: str) -> Callable[[T_in], R_out]:
        """What one worker does with a task; asked for once in its process, so that what is loaded
        is loaded once.

        A `DstnetError` that it raises, or that its result raises for a task, ends the run: nothing
        more can be done. What costs one task only is a result like others.

        Parameters
        ----------
        device
            Where torch works in this worker.
        """
        ...


@dataclass(frozen=True)
class Done(Generic[T, R]):
    """What came of a task.

    Attributes
    ----------
    index
        The task's number among all of the run, from 0; other shards' count too.
    task
        The task.
    value
        What the worker made of it.
    """

    index: int
    task: T
    value: R


@dataclass(frozen=True)
class WorkerCrash(Generic[T]):
    """A task whose worker ended under it each time.

    Attributes
    ----------
    index, task
        As of `Done`.
    tries
        How often.
    why
        How the worker ended the last time: a signal's name or an exit code.
    """

    index: int
    task: T
    tries: int
    why: str


Outcome = Done[T, R] | WorkerCrash[T]
Outcomes = Generator[Outcome[T, R], None, None]


@dataclass(frozen=True)
class Shard:
    """The i-th of every n tasks, counted from 1: several runs share the work without speaking.

    Raises
    ------
    SettingsError
        If i does not lie between 1 and n.
    """

    i: int
    n: int

    def __post_init__(self) -> None:
        if not 1 <= self.i <= self.n:
            raise SettingsError(f"shard {self.i}/{self.n} is not i/n with 1 <= i <= n")

    def takes(self, index: int) -> bool:
        """Whether the task of this number, from 0, is this shard's."""
        return index % self.n == self.i - 1


@dataclass(frozen=True)
class Attempt(Generic[T]):
    """A task given to a worker for the `number`-th time."""

    index: int
    task: T
    number: int = 1


class Attempts(Generic[T]):
    """The tasks to be given out: those whose worker died, and then those that come new.

    Parameters
    ----------
    tasks
        None says "nothing now, ask again", so that a source may wait for files to arrive.
    tries
        How often a task may lose its worker.
    shard
        Whose tasks alone are given out; None: all.
    """

    def __init__(
        self, tasks: Iterable[T | None], *, tries: int = 1, shard: Shard | None = None
    ) -> None:
        self._source = iter(tasks)
        self._count = 0
        self._exhausted = False
        self._again: deque[Attempt[T]] = deque()
        self._tries = tries
        self._shard = shard

    @property
    def ended(self) -> bool:
        """Whether nothing more can come, unless a task is tried again."""
        return self._exhausted and not self._again

    def next(self) -> Attempt[T] | None:
        """What to do next; None where there is nothing now, or nothing any more (`ended`)."""
        if self._again:
            return self._again.popleft()
        while not self._exhausted:
            try:
                task = next(self._source)
            except StopIteration:
                self._exhausted = True
                break
            if task is None:
                return None
            index = self._count
            self._count += 1
            if self._shard is None or self._shard.takes(index):
                return Attempt(index, task)
        return None

    def lost(self, attempt: Attempt[T], why: str) -> WorkerCrash[T] | None:
        """Have a task whose worker ended tried again; its outcome where it was the last time."""
        if attempt.number >= self._tries:
            return WorkerCrash(attempt.index, attempt.task, self._tries, why)
        again = Attempt(attempt.index, attempt.task, attempt.number + 1)
        self._again.appendleft(again)
        return None


def check_devices(devices: Iterable[str]) -> None:
    """Refuse devices that torch cannot use on this machine.

    Raises
    ------
    SettingsError
        If there is one.
    """
    # Not imported above: torch takes seconds to load, which the command's help must not wait for.
    from dstnet.core.devices import resolve_device

    for device in devices:
        resolve_device(device)
