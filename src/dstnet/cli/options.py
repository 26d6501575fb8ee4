"""What several verbs share: options spelled the same everywhere, and progress."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dstnet.core.progress import Step, watching
from dstnet.errors import SettingsError, printable

if TYPE_CHECKING:
    from dstnet.core.settings import Settings

    Whole = int
else:

    class Whole(int):
        """A whole number as an option: 1.5 is none, where cyclopts would round it."""

        def __new__(cls, text: str) -> int:
            if len(text) > _MOST_DIGITS:
                raise ValueError(text)
            return int(text)

    Whole.__name__ = "whole number"  # as errors call it


Movies = Annotated[
    list[str],
    Parameter(
        help=(
            "MRC, TIFF or EER files (MRC also .gz, .bz2, .xz, .zst), folders, wildcards, @LIST.txt"
            " with a path a line, RELION STAR files."
        )
    ),
]
_MOST_DIGITS = 15
LOG_SECONDS = 30.0  # between lines that say how far a long movie is
TERMINAL_SECONDS = 2.0

Output = Annotated[
    Path, Parameter(name=["--output", "-o"], help="Folder for the results; made if need be.")
]
SettingsFile = Annotated[
    Path | None,
    Parameter(name="--settings", help="YAML file of settings; options given here win over it."),
]
Json = Annotated[
    bool, Parameter(name="--json", negative=(), help="Print results as JSON lines, for machines.")
]
Device = Annotated[
    str | None,
    Parameter(
        name=["--device", "-d"],
        help=(
            "cpu, cuda, cuda:1, ...; several by commas are dealt to workers; without it, cuda where"
            " there is one."
        ),
    ),
]


@contextmanager
def advising(advice: Callable[[], str]) -> Iterator[None]:
    """Where the block is interrupted, `advice` says how to go on, and not what is true of most
    verbs.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        end.add_note(advice())
        raise


def settings_from(kind: "type[Settings]", file: Path | None, **options: Any) -> Any:
    """Settings of `kind` from a file and options; an option of None was not given."""
    values = {name: value for name, value in options.items() if value is not None}
    return kind.from_yaml(file, **values) if file else kind.checked(values, "options")


def frame_range(text: str | None) -> slice | None:
    """`A:B`, from 1 and inclusive, either side open, as a slice from 0.

    Raises
    ------
    SettingsError
        If the text is no such range.
    """
    if text is None:
        return None
    first, colon, last = text.partition(":")
    try:
        start = int(first or 1) - 1
        stop = int(last) if last else None
    except ValueError:
        start = -1
        stop = None
    if not colon or start < 0 or (stop is not None and stop <= start):
        raise SettingsError(
            f"frame range {text!r} is not A:B with 1 <= A <= B; 1:20 takes the first twenty frames,"
            " 3: leaves out two"
        )
    return slice(start, stop)


def chosen_device(device: str | None) -> str:
    """The device asked for, or cuda where there is one, else cpu."""
    from dstnet.core.devices import resolve_device

    return device or str(resolve_device())


class StepLine:
    """What is worked on, in a line now and then: nothing of what is done soon.

    Parameters
    ----------
    write
        Shows a line; it is given "" where there is nothing to show any more.
    patience
        Seconds that work must have taken to be shown, and between two lines.
    """

    def __init__(self, write: Callable[[str], None], patience: float) -> None:
        self._write = write
        self._patience = patience
        self._begun: dict[str, float] = {}  # oldest first
        self._last: dict[str, Step] = {}
        self._shown = -patience

    def __call__(self, step: Step) -> None:
        """Take a step; see `dstnet.core.progress.watching`."""
        now = time.monotonic()
        if step.doing is None:
            self._begun.pop(step.subject, None)
            self._last.pop(step.subject, None)
            if not self._begun:
                self._write("")
            return
        self._begun.setdefault(step.subject, now)
        self._last[step.subject] = step
        longest, begun = next(iter(self._begun.items()))
        if now - max(begun, self._shown) < self._patience:
            return
        self._shown = now
        oldest = self._last[longest]
        others = len(self._begun) - 1
        more = f"; {others} more at work" if others else ""
        where = f" {oldest.done} of {oldest.total}" if oldest.total else ""
        name = printable(Path(longest).name)
        self._write(f"{name}: {oldest.doing}{where}, {now - begun:.0f} s so far{more}")


class Reporter:
    """Lines for people or JSON for machines, with a progress bar above them on a terminal."""

    def __init__(
        self,
        as_json: bool,
        advance: Callable[[], None] = lambda: None,
        write: Callable[[str], None] | None = None,
    ) -> None:
        self.as_json = as_json
        self._advance = advance
        self._write = write or partial(print, flush=True)

    def __call__(self, line: str, record: dict[str, Any]) -> None:
        """Report a finished piece of work."""
        lines = "\n".join(printable(part) for part in line.split("\n"))
        self._write(json.dumps(record) if self.as_json else lines)
        self._advance()

    def say(self, line: str) -> None:
        """A remark on standard error, out of the way of results; nothing for an empty one."""
        if line:
            print(printable(line), file=sys.stderr, flush=True)


@contextmanager
def reporting(total: int | None, what: str, as_json: bool) -> Iterator[Reporter]:
    """A reporter for `total` pieces of work, None where nobody knows; its bar shows on a terminal
    only.
    """
    if as_json:
        yield Reporter(True)
        return
    if not sys.stdout.isatty():
        reporter = Reporter(False)
        with watching(StepLine(reporter.say, LOG_SECONDS)):
            yield reporter
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[step]}", markup=False),
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=total, step="")
        steps = StepLine(lambda line: bar.update(task, step=line), TERMINAL_SECONDS)
        with watching(steps):
            yield Reporter(
                False,
                lambda: bar.advance(task),
                lambda text: bar.console.print(
                    text, markup=False, highlight=False, emoji=False, soft_wrap=True
                ),
            )
