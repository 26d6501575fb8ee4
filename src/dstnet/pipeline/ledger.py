"""What workers write on record of the files of results themselves: before they touch them, and once
they are complete.

A file is ours if it is as it was written, or if writing it was begun and never ended (a killed
run). Each worker appends to a file of its own, ``records/*.ledger``.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dstnet.pipeline.file_state import FileState, is_in_state
from dstnet.pipeline.journal import append_line, read_values
from dstnet.pipeline.record import Results


@dataclass
class Claims:
    """What the ledgers of a folder say, by path from it.

    Attributes
    ----------
    begun
        Attempts to write a file that did not end, and what each made it from.
    written
        The states of a file as it was written, and what it was made from.
    """

    begun: dict[str, dict[str, str]] = field(default_factory=dict)
    written: dict[str, list[tuple[FileState, str]]] = field(default_factory=dict)

    def holds(self, folder: Path, file: str, made_from: str) -> bool:
        """Whether a file is one of ours that was made from this, or is being made from it."""
        if made_from in self.begun.get(file, {}).values():
            return True
        states = (state for state, of in self.written.get(file, ()) if of == made_from)
        return any(is_in_state(folder / file, state) for state in states)


class Ledger:
    """One worker's part of the ledgers."""

    def __init__(self) -> None:
        self._name = f"{secrets.token_hex(8)}.ledger"

    def begin(self, folder: Path, files: Iterable[str], made_from: str) -> str:
        """Put on record that files are about to be written; gives the attempt's name.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        attempt = secrets.token_hex(4)
        self._append(folder, {"begun": attempt, "of": made_from, "files": list(files)})
        return attempt

    def end(
        self, folder: Path, attempts: Iterable[str], made_from: str, written: Mapping[str, Any]
    ) -> None:
        """Put on record that files are complete, in which state, and of which attempts that is the
        end.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        line = {"ended": list(attempts), "of": made_from, "files": dict(written)}
        self._append(folder, line)

    def _append(self, folder: Path, line: dict[str, Any]) -> None:
        append_line(folder / "records" / self._name, line)


def read_claims(folder: Path) -> Claims:
    """What all ledgers of a folder say; unfinished lines are passed over."""
    claims = Claims()
    ended: list[tuple[str, str]] = []
    for line in _lines(folder):
        try:
            made_from = str(line["of"])
            if "begun" in line:
                for file in line["files"]:
                    claims.begun.setdefault(file, {})[str(line["begun"])] = made_from
                continue
            for file, (size, modified, digest) in line["files"].items():
                claims.written.setdefault(file, []).append(((size, modified, digest), made_from))
                ended += ((file, attempt) for attempt in line["ended"])
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    for file, attempt in ended:
        if file in claims.begun:
            claims.begun[file].pop(attempt, None)
    claims.begun = {file: attempts for file, attempts in claims.begun.items() if attempts}
    return claims


def is_broken_off(folder: Path, results: Results, begun: Mapping[str, object]) -> bool:
    """Whether a run that was killed has written over one of the files of results."""
    states = results.states()
    return any(
        file in begun and (state is None or not is_in_state(folder / file, state))
        for file, state in states.items()
        if (folder / file).is_file()
    )


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "records").glob("*.ledger")):
        with suppress(OSError):
            yield from read_values(path)
