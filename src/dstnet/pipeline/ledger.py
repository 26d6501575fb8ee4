"""What is put on record of the files of results before they appear: a file is ours if it is as one
of these lines, or a movie's record, says. Nothing else is.

Files of results are complete, under hidden names, when they are put on record, and only then get
their own names. Wherever a run is killed, what lies under such a name is what was there before or
what was put on record. Each worker appends to a file of its own, ``records/*.ledger``.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstnet.pipeline.file_state import FileState
from dstnet.pipeline.journal import append_line, read_on

FOLDER = "records"


@dataclass(frozen=True, slots=True)  # two a movie are held
class Claim:
    """One line's word on one file.

    Attributes
    ----------
    state
        As it was before it got its name.
    made_from
        Equal for results that were made from the same in the same way.
    run
        That made it.
    """

    state: FileState
    made_from: str
    run: str


class Ledger:
    """All ledgers of a folder, as they are by now, and one worker's part of them.

    Parameters
    ----------
    folder
        Of the run.
    run
        Its name, without a dash at its end.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder = folder / FOLDER
        self._name = f"{run}-{secrets.token_hex(8)}.ledger"
        self._read: dict[str, tuple[dict[str, list[Claim]], int]] = {}  # by name; to which byte

    def add(self, made_from: str, states: Mapping[str, FileState]) -> None:
        """Put on record which files, by path from the run's folder, are about to appear.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        append_line(self._folder / self._name, {"of": made_from, "files": dict(states)})

    def claims(self, file: str) -> list[Claim]:
        """What all ledgers say of a file by now; damaged and unfinished lines say nothing."""
        return [claim for claims in self._by_ledger() for claim in claims.get(file, ())]

    def all_claims(self) -> dict[str, list[Claim]]:
        """What all ledgers say, by file."""
        found: dict[str, list[Claim]] = {}
        for claims in self._by_ledger():
            for file, own in claims.items():
                found.setdefault(file, []).extend(own)
        return found

    def _by_ledger(self) -> Iterator[dict[str, list[Claim]]]:
        for path in sorted(self._folder.glob("*.ledger")):
            claims, read_bytes = self._read.get(path.name, ({}, 0))
            # Asked for each movie, and of many movies they are long: only what is new is read.
            with suppress(OSError, ValueError):
                if path.stat().st_size != read_bytes:
                    lines, read_bytes = read_on(path, read_bytes)
                    _add_claims(claims, lines, path)
                    self._read[path.name] = claims, read_bytes
            yield claims


def _add_claims(claims: dict[str, list[Claim]], lines: Iterable[Any], path: Path) -> None:
    run, _, _ = path.stem.rpartition("-")
    for line in lines:
        for file, claim in _line_claims(line, run):
            claims.setdefault(file, []).append(claim)


def _line_claims(line: Any, run: str) -> list[tuple[str, Claim]]:
    try:
        return [
            (file, Claim((int(size), int(modified_ns), str(digest)), str(line["of"]), run))
            for file, (size, modified_ns, digest) in line["files"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return []
