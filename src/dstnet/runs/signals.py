"""What is done when the system, or the user, asks a run to stop."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM  # a shell's exit code of what SIGTERM ended


def _leave(*_: object) -> NoReturn:
    """End by an exception, so that half-written files are removed on the way out."""
    sys.exit(TERMINATED)


def _interrupt(*_: object) -> NoReturn:
    """What Ctrl-C does anyway; a second one does not wait."""
    signal.signal(signal.SIGINT, _end_at_once)
    raise KeyboardInterrupt


def _end_at_once(*_: object) -> NoReturn:
    for worker in multiprocessing.active_children():
        worker.kill()
    said = b"dstnet: ended at once; what it had half written, later runs remove\n"
    try:
        os.write(2, said)
    finally:
        os._exit(INTERRUPTED)


@contextmanager
def stop_signals() -> Iterator[None]:
    """Within the block SIGTERM ends the program in good order, as a batch system asks for at the
    end of a job's time: workers end, half-written files go, finished results are put on record.

    Ctrl-C does so anyway, and twice at once. In another thread than the main one nothing is
    changed, and Ctrl-C is not where it has another meaning.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _leave)
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes started within the block never hear Ctrl-C, from their first moment; here it comes
    once the block ends.
    """
    # Else it would begin within, and let Ctrl-C through.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def worker_signals() -> None:
    """For the life of a worker process: SIGTERM ends it in good order, Ctrl-C does not, since it
    reaches the complete group of processes and the parent decides.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
