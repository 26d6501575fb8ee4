"""Other programs, run as a user would: with a limit of time, and what they took on record."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from dstnet.errors import BadInputError, SettingsError
from dstnet.evaluation.base import DoesNotFitError
from dstnet.movie import Movie

_VERSION_SECONDS = 60.0
_TAIL_BYTES = 1 << 16
_LONGEST_LINE = 300
_LOOK_SECONDS = 0.2
_PEAK = re.compile(rb"^VmHWM:\s+(\d+) kB", re.MULTILINE)
# They say where our own Python finds its packages, which another program's must not see.
_NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def find_program(given: str | None, usual_name: str, option: str) -> str:
    """Path of a program.

    Parameters
    ----------
    given
        What the user said: a path, or a name on PATH; None: nothing.
    usual_name
        What it is called on PATH.
    option
        That names it on the command line.

    Raises
    ------
    SettingsError
        If there is none that may be run.
    """
    found = shutil.which(given or usual_name)
    if found is None:
        what = "is not on PATH" if given is None else "is no program that may be run"
        raise SettingsError(
            f"{given or usual_name} {what}; install it, or give its path with {option}"
        )
    return os.path.abspath(found)


@cache
def version_of(program: str) -> str:
    """The first line that ``PROGRAM --version`` prints; "unknown" where it prints none."""
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            timeout=_VERSION_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env=_environment(1),
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    if done.returncode != 0:
        return "unknown"
    return next(iter(_lines(done.stdout) or _lines(done.stderr)), "unknown")


def run_program(
    name: str, command: Sequence[str], folder: Path, subject: str, seconds_allowed: float
) -> int | None:
    """Run a program to its end, and say how many bytes of memory it held at most; None where that
    is not known.

    Parameters
    ----------
    name
        Of the method, for messages.
    command
        The program and its arguments.
    folder
        Where it is run; gets ``NAME.out`` and ``NAME.err`` with what it prints.
    subject
        What it works on, for messages.
    seconds_allowed
        After so long it is ended, with all that it started.

    Raises
    ------
    BadInputError
        If it cannot be started, fails, or takes too long; with the last line that it printed.
    """
    out = folder / f"{name}.out"
    err = folder / f"{name}.err"
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        try:
            process = subprocess.Popen(
                list(command),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                env=_environment(torch.get_num_threads()),
            )
        except OSError as error:
            raise BadInputError(
                f"{subject}: {name} cannot be started ({command[0]}: {error.strerror or error})"
            ) from None
        watch = _Watch(process, seconds_allowed)
        watch.start()
        try:
            code = process.wait()
        finally:  # where this run is stopped, so is the program
            watch.stop()
            _end_group(process.pid)
            process.wait()
    if code == 0 and not watch.was_late:
        return watch.peak_bytes or None
    said = _last_line(_tail(err)) or _last_line(_tail(out))
    how = f"took over {seconds_allowed:g} s" if watch.was_late else _how_it_ended(code)
    raise BadInputError(f"{subject}: {name} {how}{': ' if said else ''}{said}")


class _Watch(threading.Thread):
    """Looks at a process now and then: how much memory it holds, and whether it takes too long.

    What the system says of a process that has ended counts the memory of the one that started it.
    """

    def __init__(self, process: subprocess.Popen, seconds_allowed: float) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._latest = time.monotonic() + seconds_allowed
        self._has_ended = threading.Event()
        self.peak_bytes = 0
        self.was_late = False

    def run(self) -> None:
        """Until `stop` is called."""
        while not self._has_ended.wait(_LOOK_SECONDS):
            self.peak_bytes = max(self.peak_bytes, _most_memory(self._process.pid))
            if time.monotonic() > self._latest:
                self.was_late = True
                _end_group(self._process.pid)
                return

    def stop(self) -> None:
        """The process has ended."""
        self._has_ended.set()
        self.join()


def _most_memory(number: int) -> int:
    """Most bytes that a process, or one that it started, has held; 0 where that is not told."""
    proc = Path("/proc") / str(number)
    most = 0
    try:
        found = _PEAK.search((proc / "status").read_bytes())
        most = int(found[1]) * 1024 if found else 0
        children = (proc / "task" / str(number) / "children").read_text().split()
    except (OSError, ValueError):  # it has ended, or this is no Linux
        return most
    return max([most, *(_most_memory(int(child)) for child in children)])


def _end_group(number: int) -> None:
    try:
        os.killpg(number, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # nothing of it is left
        pass


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"failed with exit code {code}"
    return f"was ended by signal {-code}"


def _environment(threads: int) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    return {**passed, "OMP_NUM_THREADS": str(threads)}


def _tail(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        return file.read()


def _last_line(printed: bytes) -> str:
    return next(reversed(_lines(printed)), "")


def _lines(printed: bytes) -> list[str]:
    lines = (line.strip() for line in printed.decode("utf-8", "replace").splitlines())
    return [line[:_LONGEST_LINE] for line in lines if line]


def check_has_frames(name: str, movie: Movie) -> None:
    """Refuse a single image where frames are needed.

    Raises
    ------
    DoesNotFitError
        If the movie has one frame.
    """
    if len(movie) < 2:
        raise DoesNotFitError(
            f"{movie.name}: {name} needs a movie's frames, and this is a single image"
        )
