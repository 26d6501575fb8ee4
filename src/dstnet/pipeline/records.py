"""The record of a run that many processes, shards and reruns may share.

Every run appends what it finishes to a file of its own, ``records/*.jsonl``: one writer a file,
nothing locked and nothing deleted, which is safe on network file systems and under kill -9.
``provenance.json`` and ``micrographs.star`` are made of all of them.
"""

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from textwrap import indent
from typing import Any

from pydantic import ValidationError

from dstnet.core.regular_files import read_regular_text
from dstnet.errors import OutputError
from dstnet.io import atomic_path, create_file, ensure_writable_folder
from dstnet.pipeline.file_state import FileState, FileVersion, file_version, is_in_state
from dstnet.pipeline.journal import MOST_BYTES, append_line, read_values
from dstnet.pipeline.ledger import FOLDER, Claim, Ledger
from dstnet.pipeline.micrographs_star import Micrograph, write_micrographs_star
from dstnet.pipeline.naming import movie_identity
from dstnet.pipeline.ownership import PAGE, PROVENANCE, TABLE, refuse_foreign
from dstnet.pipeline.record import MadeWith, Record

_REFRESH_ROUNDS = 5
_NO_DIGEST = "?"  # of no file


@dataclass(frozen=True)
class StoredRun:
    """What a folder says of the results in it.

    Attributes
    ----------
    made_with
        What they share; None where the folder holds no record of a run.
    records
        By name, of all runs, the latest where there are several.
    """

    made_with: MadeWith | None = None
    records: dict[str, Record] = field(default_factory=dict)

    @property
    def movies(self) -> list[Record]:
        """One record a movie, by name: the newest of those with results, else the newest."""
        return self._best(lambda record: (record.results is not None, record.order))

    @property
    def failures(self) -> list[Record]:
        """Of movies that failed the last time, by name."""
        newest = self._best(lambda record: record.order)
        return [record for record in newest if record.status == "failed"]

    def _best(self, rank: Callable[[Record], Any]) -> list[Record]:
        of_movie: dict[str, Record] = {}
        for record in self.records.values():
            movie = record.name if record.path is None else movie_identity(record.path)
            known = of_movie.get(movie)
            if known is None or rank(record) >= rank(known):
                of_movie[movie] = record
        return sorted(of_movie.values(), key=lambda record: record.name)


class Records:
    """The records of one folder, and this run's part of them.

    Parameters
    ----------
    folder
        The run's output folder.
    made_with
        What all results of the folder share.
    overwrite
        Whether results made with something else may be replaced.

    Attributes
    ----------
    run
        This run's name.
    earlier
        What the folder's records say, and what was added since, by name.
    unlisted
        Movies left out of ``micrographs.star`` when it was last written, since their results have
        names that it cannot hold.

    Raises
    ------
    OutputError
        If the folder cannot be written, holds results made with something else that may not be
        replaced, or tables or a page that are not ours.
    """

    def __init__(self, folder: Path, made_with: MadeWith, overwrite: bool) -> None:
        self.folder = ensure_writable_folder(folder)
        for name in (PROVENANCE, TABLE, PAGE):
            refuse_foreign(folder / name)
        self.made_with = made_with
        stored = self._opened(overwrite)
        self.earlier = dict(stored.records)
        self.unlisted: list[str] = []
        runs = [record.run for record in stored.records.values()]
        runs += map(_run_number, _journal_paths(folder))
        self._run = 1 + max(runs, default=0)
        self._latest = ""
        self.run = f"{self._run:06d}-{secrets.token_hex(4)}"
        self._path = ensure_writable_folder(folder / FOLDER) / f"{self.run}.jsonl"
        self._ledger = Ledger(folder, self.run)
        self._left = _left_by_others(self._ledger, self.earlier.values())
        append_line(self._path, made_with.model_dump())
        self._own: dict[str, Record] = {}
        # What was read last of all runs, and of which files; what this run has made of it.
        self._stored = StoredRun()
        self._read: dict[Path, int] | None = None
        self._written: FileVersion | None = None

    def _opened(self, overwrite: bool) -> StoredRun:
        """What the folder holds of this run's settings, once it is put on record that it is
        theirs.
        """
        path = self.folder / PROVENANCE
        stored = read_records(self.folder)
        if stored.made_with is None:
            # Of runs that begin at once, one is the first.
            if create_file(path, "".join(_provenance(self.made_with, stored))):
                return stored
            stored = read_records(self.folder)
        if stored.made_with is None:
            raise OutputError(
                f"{path} cannot be read as what dstnet writes; move it away, or choose another"
                " folder"
            )
        different = self.made_with.differences(stored.made_with)
        if not different:
            return stored
        if not overwrite:
            raise OutputError(
                f"{self.folder} holds results made with other {' and '.join(different)}; pass"
                " --overwrite, or choose another folder"
            )
        # Their files stay ours, should this run be broken off before it has replaced all.
        Ledger(self.folder, "replaced").add("", _states(self.folder, stored.records.values()))
        write_micrographs_star(self.folder, [])
        _write_provenance(self.folder, self.made_with, StoredRun())
        return StoredRun()

    def left(self, files: Iterable[str]) -> dict[str, Sequence[FileState]]:
        """States in which runs before this one left files, beside those that their records say."""
        return {file: self._left[file] for file in files if file in self._left}

    def add(self, record: Record) -> Record:
        """Put on record what came of one input; it is given back as it stands there.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        # Within a run the order is that of its file; workers' clocks may differ.
        self._latest = max(self._latest, record.time)
        record = record.model_copy(update={"run": self._run, "time": self._latest})
        append_line(self._path, record.to_json())
        self.earlier[record.name] = self._own[record.name] = record
        return record

    def refresh(self) -> StoredRun:
        """Write ``provenance.json`` and ``micrographs.star`` from what all runs have put on
        record, and give that back.

        Raises
        ------
        OutputError
            If they cannot be written, or the folder is another run's by now.
        """
        stored = StoredRun()
        for _ in range(_REFRESH_ROUNDS):
            before = _journals(self.folder)
            stored = self._all()
            if stored.made_with != self.made_with:
                raise OutputError(
                    f"{self.folder} was given to results made with other settings meanwhile, by a"
                    " run with --overwrite; choose another folder for one of them"
                )
            self._written = _write_provenance(self.folder, self.made_with, stored)
            micrographs = _micrographs(self.folder, stored.movies, self._ledger)
            self.unlisted = write_micrographs_star(self.folder, micrographs)
            # Another run may have finished, and written newer tables, meanwhile; ours would then be
            # the older.
            if _journals(self.folder) == before:
                break
        return stored

    def _all(self) -> StoredRun:
        """What all runs have put on record, read anew only where others have written since."""
        others = {path: n for path, n in _journals(self.folder).items() if path != self._path}
        if others != self._read or file_version(self.folder / PROVENANCE) != self._written:
            self._stored = read_records(self.folder)
            self._read = others
        found = dict(self._stored.records)
        _take_newer(found, tuple(self._own.values()))
        made_with = self._stored.made_with or self.made_with
        return StoredRun(made_with, dict(sorted(found.items())))


def now() -> str:
    """The time as records keep it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_records(folder: Path) -> StoredRun:
    """What the results of a folder were made with, and its records of all runs.

    Lines that a killed run left unfinished, and files of runs made with something else since
    overwritten, are passed over.
    """
    try:
        stored = json.loads(read_regular_text(folder / PROVENANCE, MOST_BYTES))
        made_with = _made_with(stored)
        listed = list(_records_of(stored["movies"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        made_with = _made_with_of_journals(folder)
        listed = []
    if made_with is None:
        return StoredRun()
    found = {record.name: record for record in listed}
    for path in _journal_paths(folder):
        _take_newer(found, _journal(path, made_with))
    return StoredRun(made_with, dict(sorted(found.items())))


def _take_newer(found: dict[str, Record], records: Iterable[Record]) -> None:
    """Add records, by name, that are not older than those that are there."""
    for record in records:
        known = found.get(record.name)
        if known is None or record.order >= known.order:
            found[record.name] = record


def _made_with(stored: dict[str, Any]) -> MadeWith:
    own = {k: v for k, v in stored.items() if k not in ("written", "movies", "failures")}
    return MadeWith.model_validate(own)


def _made_with_of_journals(folder: Path) -> MadeWith | None:
    """What the newest run was made with, where ``provenance.json`` was lost or cut off."""
    for path in sorted(_journal_paths(folder), key=_run_number, reverse=True):
        try:
            return MadeWith.model_validate(next(read_values(path), None))
        except (OSError, ValueError):
            continue
    return None


def _journal(path: Path, made_with: MadeWith) -> Iterator[Record]:
    """The records of one run's file; none where the run was made with something else."""
    try:
        values = read_values(path)
        if MadeWith.model_validate(next(values, None)) != made_with:
            return
    except (OSError, ValueError):
        return
    yield from _records_of(values)


def _records_of(values: Iterable[Any]) -> Iterator[Record]:
    for value in values:
        try:
            yield Record.from_json(value)
        except (AttributeError, ValidationError):
            continue


def _journal_paths(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*.jsonl"))


def _journals(folder: Path) -> dict[Path, int]:
    """The size of each run's file."""
    return {path: path.stat().st_size for path in _journal_paths(folder)}


def _run_number(path: Path) -> int:
    """Of a run's file; 0 of before 0.9, when they were named by the time."""
    number, dash, _ = path.stem.partition("-")
    return int(number) if dash and number.isdecimal() else 0


def _write_provenance(folder: Path, made_with: MadeWith, stored: StoredRun) -> FileVersion | None:
    """Write ``provenance.json``; its version."""
    target = folder / PROVENANCE
    refuse_foreign(target)
    with atomic_path(target) as path:
        with open(path, "w") as file:
            file.writelines(_provenance(made_with, stored))
        return file_version(path)


def _provenance(made_with: MadeWith, stored: StoredRun) -> Iterator[str]:
    """The text of ``provenance.json`` in pieces: of many movies it is long."""
    head = {
        **made_with.model_dump(),
        "written": now(),
        "failures": {record.input: record.error for record in stored.failures},
    }
    yield json.dumps(head, indent=2).removesuffix("\n}")
    yield ',\n  "movies": ['
    separator = "\n"
    for record in stored.movies:
        yield separator + indent(json.dumps(record.to_json(), indent=2), "    ")
        separator = ",\n"
    yield "\n  ]\n}\n"


def _states(folder: Path, records: Iterable[Record]) -> dict[str, FileState]:
    """The states of the files of results, as records say; of before 0.9, as they are now."""
    states = {}
    for record in records:
        for file, state in record.results.states().items() if record.results else ():
            version = file_version(folder / file)
            if state is None and version is not None:
                state = (*version, _NO_DIGEST)
            if state is not None:
                states[file] = state
    return states


def _left_by_others(ledger: Ledger, records: Iterable[Record]) -> dict[str, tuple[FileState, ...]]:
    """By file, the states on record in ledgers that no record of a movie says."""
    recorded: dict[str, FileState | None] = {}
    for record in records:
        if record.results is not None:
            recorded |= record.results.states()
    left = {}
    for file, claims in ledger.all_claims().items():
        states = tuple({claim.state for claim in claims} - {recorded.get(file)})
        if states:
            left[file] = states
    return left


def _micrographs(folder: Path, records: Iterable[Record], ledger: Ledger) -> list[Micrograph]:
    """The results of a folder that are as their records say."""
    found = []
    for record in records:
        source = record.source
        results = record.results
        if source is None or results is None or not _lies_there(folder, record, ledger):
            continue
        found.append(
            Micrograph(
                movie=str(record.movie),
                files={kind: folder / name for kind, name in results.files.items()},
                optics=results.optics,
                movie_pixel_size_angstrom=source.pixel_size_angstrom,
                pixel_size_angstrom=results.output_pixel_size_angstrom,
                voltage_kv=source.voltage_kv,
                accumulated_motion_angstrom=results.accumulated_motion_angstrom,
            )
        )
    return found


def _lies_there(folder: Path, record: Record, ledger: Ledger) -> bool:
    """Whether a movie's results are as its record says."""
    assert record.results is not None
    for file, state in record.results.states().items():
        path = folder / file
        version = file_version(path)
        if not path.is_file() or version is None:
            return False
        if state is not None and state[:2] == version:
            continue
        if state is not None and state[0] != version[0]:
            return False
        if any(_is_another(claim, version, state) for claim in ledger.claims(file)):
            return False
        # Of a copied folder not every file is read for a table: those of movies that were refused
        # alone.
        if record.status == "failed" and state is not None and not is_in_state(path, state):
            return False
    return True


def _is_another(claim: Claim, version: FileVersion, recorded: FileState | None) -> bool:
    """Whether a file of this version is what a ledger says, and not what is recorded."""
    *claimed, digest = claim.state
    return tuple(claimed) == version and (recorded is None or recorded[2] != digest)
