"""Tasks worked on here: in this process, or in processes that may die, when a crash costs one task
one try and never the run.

torch is imported when it is needed, so that the command line answers ``--help`` at once.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from signal import Signals
from typing import Any, Generic

from dstnet.core.progress import Step, is_watched, pass_on, watching
from dstnet.errors import DstnetError
from dstnet.runs.memory import keep_freed_memory
from dstnet.runs.signals import deaf_to_interrupts, worker_signals
from dstnet.runs.tasks import PAUSE_SECONDS, Attempt, Attempts, Done, Job, Outcomes, R, T

STEP_SECONDS = 1.0  # between two steps that a worker tells of
LEAVE_SECONDS = 10.0  # that a worker is given to remove what it has half written


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch work with `count` threads within the block; sums differ in the last bit with their
    number.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_this_process(
    attempts: Attempts[T], work: Callable[[T], R], *, threads: int
) -> Outcomes[T, R]:
    """What `work` makes of each task, one after the other.

    Parameters
    ----------
    attempts
        The tasks.
    work
        What is done with each.
    threads
        That torch has.

    Raises
    ------
    DstnetError
        What `work` raised.
    """
    while not attempts.ended:
        attempt = attempts.next()
        if attempt is None:
            if not attempts.ended:
                time.sleep(PAUSE_SECONDS)
            continue
        with torch_threads(threads):
            value = work(attempt.task)
        yield Done(attempt.index, attempt.task, value)


def in_workers(
    attempts: Attempts[T],
    job: Job[T, R],
    *,
    workers: int,
    threads: int,
    devices: Sequence[str] = ("cpu",),
) -> Outcomes[T, R]:
    """What workers made of each task, as they finish.

    Workers are spawned when there is work for them, and ended with this generator, at once where it
    is closed early. Ctrl-C is this process's to handle.

    Parameters
    ----------
    attempts
        The tasks, picklable.
    job
        What they share.
    workers
        Most processes at a time.
    threads
        That torch has in each.
    devices
        Dealt to the workers in turn.

    Raises
    ------
    DstnetError
        What the job raised in a worker.
    """
    crew = _Crew(job, workers, threads, devices)
    try:
        while True:
            while crew.has_room and (attempt := attempts.next()):
                crew.give(attempt)
            if not crew.is_busy:
                if attempts.ended:
                    return
                time.sleep(PAUSE_SECONDS)
                continue
            more_may_come = crew.has_room and not attempts.ended
            for attempt, reply in crew.replies(PAUSE_SECONDS if more_may_come else None):
                if isinstance(reply, _Refusal):
                    raise reply.error
                if not isinstance(reply, _Death):
                    yield Done(attempt.index, attempt.task, reply)
                elif crash := attempts.lost(attempt, reply.why):
                    yield crash
    finally:
        crew.end()


@dataclass(frozen=True)
class _Refusal:
    """A worker cannot start, or can do nothing more; nor will the others."""

    error: DstnetError


@dataclass(frozen=True)
class _Death:
    """A worker ended under its task."""

    why: str


@dataclass
class _Worker(Generic[T]):
    process: BaseProcess
    connection: Connection
    number: int
    attempt: Attempt[T] | None = None
    subject: str = ""  # of its last step


class _Crew(Generic[T, R]):
    """The worker processes of a run."""

    def __init__(self, job: Job[T, R], workers: int, threads: int, devices: Sequence[str]) -> None:
        self._job = job
        self._workers = workers
        self._threads = threads
        self._devices = devices
        self._idle: list[_Worker[T]] = []
        self._busy: dict[Connection, _Worker[T]] = {}

    @property
    def has_room(self) -> bool:
        return len(self._busy) < self._workers

    @property
    def is_busy(self) -> bool:
        return bool(self._busy)

    def give(self, attempt: Attempt[T]) -> None:
        worker = self._idle.pop() if self._idle else self._started()
        worker.attempt = attempt
        # Before it can fail, so that it is ended with the others.
        self._busy[worker.connection] = worker
        try:
            worker.connection.send(attempt.task)
        except OSError:
            pass  # it has died; that shows in its reply

    def replies(self, timeout: float | None) -> Iterator[tuple[Attempt[T], Any]]:
        """What workers have to say by now; waits for `timeout` seconds at most. How far they are
        goes to who watches.
        """
        for connection in wait(list(self._busy), timeout):
            worker = self._busy[connection]  # pyright: ignore[reportArgumentType]
            assert worker.attempt is not None
            try:
                reply = worker.connection.recv()
            except (EOFError, OSError):
                worker.connection.close()
                worker.process.join()
                reply = _Death(_how_it_ended(worker.process.exitcode))
                pass_on(Step(worker.subject, None))
            else:
                if isinstance(reply, Step):
                    worker.subject = reply.subject
                    pass_on(reply)
                    continue
                self._idle.append(worker)
            del self._busy[worker.connection]
            yield worker.attempt, reply

    def end(self) -> None:
        """End all workers, those at work too."""
        for worker in self._busy.values():
            worker.process.terminate()
        for worker in (*self._idle, *self._busy.values()):
            worker.connection.close()
            worker.process.join(LEAVE_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()

    def _started(self) -> _Worker[T]:
        # A number is free where its worker died; none is idle here.
        taken = {worker.number for worker in self._busy.values()}
        number = min(set(range(len(taken) + 1)) - taken)
        device = self._devices[number % len(self._devices)]
        # Not forked: a fork of a process that has used threads, or a GPU, may hang.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        arguments = (there, self._job, device, self._threads, is_watched())
        process = context.Process(target=_serve, args=arguments, daemon=True)
        with _openmp_threads(self._threads), deaf_to_interrupts():
            process.start()
        there.close()  # else its end would not show here when the worker dies
        return _Worker(process, here, number)


@contextmanager
def _openmp_threads(count: int) -> Iterator[None]:
    """Processes started within the block begin with so many threads, also in libraries that torch
    does not speak for.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


class _StepSender:
    """Sends a worker's steps to the run, not too many of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._subject = None
        self._sent = 0.0

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        is_new = step.doing is None or step.subject != self._subject
        if is_new or now - self._sent >= STEP_SECONDS:
            self._subject = None if step.doing is None else step.subject
            self._sent = now
            self._connection.send(step)


def _serve(
    connection: Connection, job: Job[Any, Any], device: str, threads: int, is_watched: bool
) -> None:
    """A worker's life: do what comes through `connection` until it is closed."""
    worker_signals()
    import torch

    torch.set_num_threads(threads)
    keep_freed_memory()
    try:
        try:
            work = job.worker(device)
            with watching(_StepSender(connection) if is_watched else None):
                while True:
                    connection.send(work(connection.recv()))
        except DstnetError as error:
            connection.send(_Refusal(error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # closed, or the parent was killed


def _how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    name = Signals(-code).name
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name
