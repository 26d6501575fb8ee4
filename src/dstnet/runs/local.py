"""Work dealt to processes that may die: a crash costs one item one try, never the run.

Items come from any iterable; one that yields None says "nothing now, ask again", so that a source
may wait for files to arrive.
"""

import multiprocessing
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeVar

import torch

from dstnet.errors import DstnetError
from dstnet.runs.memory import keep_freed_memory

T = TypeVar("T")

# between questions to a source that has nothing now: short beside any movie, long beside a question
PAUSE_SECONDS = 0.2
LEAVE_SECONDS = 10.0  # that a worker is given to remove what it has half written


class Job(Protocol):
    """What all items share; it travels to the workers, so it must be picklable."""

    def worker(self, number: int) -> Callable[[Any], Any]:
        """What worker `number` (from 0) does with an item; asked for once in its process, so that
        what is loaded is loaded once.
        """
        ...


@dataclass(frozen=True)
class WorkerCrash:
    """What comes of an item whose worker ended under it each time.

    Attributes
    ----------
    tries
        How often.
    why
        How it ended the last time: a signal's name or an exit code.
    """

    tries: int
    why: str


@dataclass(frozen=True)
class _Refusal:
    """A worker cannot start; nor will the others."""

    error: DstnetError


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch work with `count` threads within the block; sums differ in the last bit with their
    number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_this_process(
    items: Iterable[T | None], work: Callable[[T], Any], *, threads: int = 1
) -> Generator[tuple[int, Any], None, None]:
    """Each item's number and what `work` makes of it, one after the other."""
    index = 0
    for item in items:
        if item is None:
            time.sleep(PAUSE_SECONDS)
            continue
        with torch_threads(threads):
            outcome = work(item)
        yield index, outcome
        index += 1


def in_workers(
    items: Iterable[T | None], job: Job, *, workers: int, threads: int = 1, tries: int = 2
) -> Generator[tuple[int, Any], None, None]:
    """Each item's number and what a worker made of it, as they come; a `WorkerCrash` where its
    worker ended `tries` times.

    Workers are spawned when there is work for them, and ended with this generator, at once where it
    is closed early. Ctrl-C is this process's to handle.

    Parameters
    ----------
    items
        Picklable; None for "nothing now".
    job
        What they share.
    workers
        Most processes at a time.
    threads
        That torch has in each.
    tries
        How often an item may lose its worker.

    Raises
    ------
    DstnetError
        What `job.worker` raised in a worker.
    """
    source, ended, count = iter(items), False, 0
    waiting: deque[tuple[int, T, int]] = deque()
    idle: list[_Worker] = []
    busy: dict[Connection, _Worker] = {}
    try:
        while True:
            nothing_now = False
            while len(busy) < workers and not nothing_now:
                if not waiting and not ended:
                    try:
                        item = next(source)
                    except StopIteration:
                        ended = True
                        continue
                    if item is None:
                        nothing_now = True
                    else:
                        waiting.append((count, item, 1))
                        count += 1
                elif waiting:
                    worker = (
                        idle.pop() if idle else _Worker.started(job, _free_number(busy), threads)
                    )
                    worker.index, worker.item, worker.tries = waiting.popleft()
                    busy[worker.connection] = (
                        worker  # before it can fail, so that it is ended with the others
                    )
                    try:
                        worker.connection.send(worker.item)
                    except OSError:
                        pass  # it has died; that shows below
                else:
                    break
            if not busy:
                if ended and not waiting:
                    return
                time.sleep(PAUSE_SECONDS)
                continue
            for connection in wait(list(busy), PAUSE_SECONDS if nothing_now else None):
                worker = busy.pop(connection)  # pyright: ignore[reportArgumentType]
                try:
                    outcome = worker.connection.recv()
                except (EOFError, OSError):
                    worker.connection.close()
                    worker.process.join()
                    if worker.tries < tries:
                        waiting.appendleft((worker.index, worker.item, worker.tries + 1))
                        continue
                    outcome = WorkerCrash(tries, _death(worker.process.exitcode))
                else:
                    idle.append(worker)
                if isinstance(outcome, _Refusal):
                    raise outcome.error
                yield worker.index, outcome
    finally:
        for worker in busy.values():
            worker.process.terminate()
        for worker in (*idle, *busy.values()):
            worker.connection.close()
            worker.process.join(LEAVE_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()


@dataclass
class _Worker:
    process: Any
    connection: Connection
    number: int
    index: int = -1
    item: Any = None
    tries: int = 0

    @classmethod
    def started(cls, job: Job, number: int, threads: int) -> "_Worker":
        # Not forked: a fork of a process that has used threads, or a GPU, may hang.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, job, number, threads), daemon=True)
        process.start()
        there.close()  # else its end would not show here when the worker dies
        return cls(process, here, number)


def _free_number(busy: dict[Connection, _Worker]) -> int:
    """The lowest number that no worker has; only asked for when none is idle, so a dead one's is
    given again.
    """
    taken = {w.number for w in busy.values()}
    return next(n for n in range(len(taken) + 1) if n not in taken)


def _serve(connection: Connection, job: Job, number: int, threads: int) -> None:
    """A worker's whole life: do what comes through `connection` until it is closed."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(1)
    )  # so that half-written files are removed on the way out
    torch.set_num_threads(threads)
    keep_freed_memory()
    try:
        try:
            work = job.worker(number)
        except DstnetError as error:
            connection.send(_Refusal(error))
            return
        while True:
            connection.send(work(connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # closed, or the parent was killed


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}, as when memory runs out" if name == "SIGKILL" else name
    return f"exit code {code}"
