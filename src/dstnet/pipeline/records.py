"""The record of a run that many processes, shards and reruns may share.

Every run appends what it finishes to a file of its own, ``records/*.jsonl``: one writer a file,
nothing locked and nothing deleted, which is safe on network file systems and under kill -9.
``provenance.json`` and ``micrographs.star`` are made of all of them.
"""

import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dstnet.core.regular_files import read_regular, read_regular_text
from dstnet.errors import OutputError
from dstnet.io import atomic_path, ensure_writable_folder
from dstnet.pipeline.micrographs_star import Micrograph, write_micrographs_star
from dstnet.pipeline.naming import movie_identity
from dstnet.pipeline.record import MadeWith, Record

_REFRESH_ROUNDS = 5
_MOST_BYTES = 1 << 30  # 5 kB a movie, more or less


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
        return self._best(lambda record: (record.results is not None, record.time))

    @property
    def failures(self) -> list[Record]:
        """Of movies that failed the last time, by name."""
        newest = self._best(lambda record: record.time)
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
    recorded
        Whether the folder held a record of results made with the same before.
    earlier
        What it says, and what was added since, by name.
    unlisted
        Movies left out of ``micrographs.star`` when it was last written, since their results have
        names that it cannot hold.

    Raises
    ------
    OutputError
        If the folder cannot be written, or holds results made with something else that may not be
        replaced.
    """

    def __init__(self, folder: Path, made_with: MadeWith, overwrite: bool) -> None:
        self.folder = ensure_writable_folder(folder)
        self.made_with = made_with
        stored = read_records(folder)
        different = [] if stored.made_with is None else made_with.differences(stored.made_with)
        if different and not overwrite:
            raise OutputError(
                f"{folder} holds results made with other {' and '.join(different)}; pass"
                " --overwrite, or choose another folder"
            )
        self.recorded = stored.made_with is not None
        stored = StoredRun() if different else stored
        self.earlier = dict(stored.records)
        self.unlisted: list[str] = []
        # Written before any image: images without a record are then a broken-off run's of these
        # settings, and may be made again.
        _write_provenance(folder, made_with, stored)
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        name = f"{started}-{secrets.token_hex(4)}.jsonl"
        self._path = ensure_writable_folder(folder / "records") / name
        self._append(made_with.model_dump())

    def add(self, record: Record) -> None:
        """Put on record what came of one input.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self._append(record.to_json())
        self.earlier[record.name] = record

    def refresh(self) -> None:
        """Write ``provenance.json`` and ``micrographs.star`` from what all runs have put on
        record.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        for _ in range(_REFRESH_ROUNDS):
            before = _journals(self.folder)
            stored = read_records(self.folder)
            _write_provenance(self.folder, self.made_with, stored)
            micrographs = _micrographs(self.folder, stored.movies)
            self.unlisted = write_micrographs_star(self.folder, micrographs)
            # Another run may have finished, and written newer tables, meanwhile; ours would then be
            # the older.
            if _journals(self.folder) == before:
                break

    def _append(self, line: dict[str, Any]) -> None:
        try:
            with open(self._path, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror or error}; free some space or choose"
                " another folder"
            ) from error


def now() -> str:
    """The time as records keep it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_records(folder: Path) -> StoredRun:
    """What the results of a folder were made with, and its records of all runs.

    Lines that a killed run left unfinished, and files of runs made with something else since
    overwritten, are passed over.
    """
    try:
        stored = json.loads(read_regular_text(folder / "provenance.json", _MOST_BYTES))
        made_with = MadeWith.model_validate(
            {k: v for k, v in stored.items() if k not in ("written", "movies", "failures")}
        )
        listed = list(_records_of(stored["movies"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return StoredRun()
    found = {record.name: record for record in listed}
    for path in _journal_paths(folder):
        for record in _journal(path, made_with):
            known = found.get(record.name)
            if known is None or record.time >= known.time:
                found[record.name] = record
    return StoredRun(made_with, dict(sorted(found.items())))


def _journal(path: Path, made_with: MadeWith) -> Iterator[Record]:
    """The records of one run's file; none where the run was made with something else."""
    try:
        first, *lines = read_regular(path, _MOST_BYTES).decode(errors="replace").splitlines()
        if MadeWith.model_validate(json.loads(first)) != made_with:
            return
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            yield from _records_of([json.loads(line)])
        except ValueError:
            continue


def _records_of(values: Iterable[Any]) -> Iterator[Record]:
    for value in values:
        try:
            yield Record.from_json(value)
        except (AttributeError, ValidationError):
            continue


def _journal_paths(folder: Path) -> list[Path]:
    return sorted((folder / "records").glob("*.jsonl"))


def _journals(folder: Path) -> dict[Path, int]:
    """The size of each run's file."""
    return {path: path.stat().st_size for path in _journal_paths(folder)}


def _write_provenance(folder: Path, made_with: MadeWith, stored: StoredRun) -> None:
    written = {
        **made_with.model_dump(),
        "written": now(),
        "failures": {record.input: record.error for record in stored.failures},
        "movies": [record.to_json() for record in stored.movies],
    }
    with atomic_path(folder / "provenance.json") as path:
        path.write_text(json.dumps(written, indent=2) + "\n")


def _micrographs(folder: Path, records: Iterable[Record]) -> list[Micrograph]:
    """The complete results of a folder."""
    found = []
    for record in records:
        source = record.source
        results = record.results
        if source is None or results is None:
            continue
        files = {kind: folder / name for kind, name in results.files.items()}
        if not all(path.is_file() for path in files.values()):
            continue
        found.append(
            Micrograph(
                movie=str(record.movie),
                files=files,
                optics=results.optics,
                movie_pixel_size_angstrom=source.pixel_size_angstrom,
                pixel_size_angstrom=results.output_pixel_size_angstrom,
                voltage_kv=source.voltage_kv,
                accumulated_motion_angstrom=results.accumulated_motion_angstrom,
            )
        )
    return found
