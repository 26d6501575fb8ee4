"""Other programs, run as a user would: with a limit of time, and what they took on record."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from dstnet.errors import BadInputError, SettingsError
from dstnet.evaluation.base import DoesNotFitError
from dstnet.movie import Movie

_VERSION_SECONDS = 60.0
_TAIL_BYTES = 1 << 16
_LONGEST_LINE = 300
# They say where our own Python finds its packages, which another program's must not see.
_NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Ran:
    """What a program took.

    Attributes
    ----------
    cpu_seconds
        Of it and of the processes that it started.
    peak_bytes
        Most memory of any one of these.
    """

    cpu_seconds: float
    peak_bytes: int


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
    """The last line that ``PROGRAM --version`` prints; "unknown" where it prints none."""
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
    return _last_line(done.stdout) or _last_line(done.stderr) or "unknown"


def run_program(
    name: str, command: Sequence[str], folder: Path, subject: str, seconds_allowed: float
) -> Ran:
    """Run a program to its end.

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
        ended = _wait(process, seconds_allowed)
    if ended.in_time and ended.code == 0:
        return ended.ran
    said = _last_line(_tail(err)) or _last_line(_tail(out))
    how = _how_it_ended(ended.code) if ended.in_time else f"took over {seconds_allowed:g} s"
    raise BadInputError(f"{subject}: {name} {how}{': ' if said else ''}{said}")


@dataclass(frozen=True)
class _Ended:
    code: int
    in_time: bool
    ran: Ran


def _wait(process: subprocess.Popen, seconds_allowed: float) -> _Ended:
    """Wait for a process, whatever happens here meanwhile."""
    too_late = threading.Event()

    def end() -> None:
        too_late.set()
        _end_group(process.pid)

    timer = threading.Timer(seconds_allowed, end)
    timer.daemon = True
    timer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # this run is stopped: so is the program
        _end_group(process.pid)
        process.wait()
        raise
    finally:
        timer.cancel()
    _end_group(process.pid)  # what it started and left behind
    process.returncode = os.waitstatus_to_exitcode(status)
    ran = Ran(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
    return _Ended(process.returncode, not too_late.is_set(), ran)


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
    lines = [line.strip() for line in printed.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    return lines[-1][:_LONGEST_LINE] if lines else ""


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
