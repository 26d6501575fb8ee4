"""The record of a run that many processes, shards and reruns may share.

Every run appends what it finishes to a file of its own, ``records/*.jsonl``: one writer a file,
nothing locked and nothing deleted, which is safe on network file systems and under kill -9.
``provenance.json`` and ``micrographs.star`` are made of all of them.
"""

import json
import math
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from dstnet.errors import OutputError
from dstnet.io import atomic_path, ensure_writable_folder
from dstnet.pipeline.micrographs_star import Micrograph, write_micrographs_star

REFRESH_SECONDS = 60.0  # between writings of the tables while a run goes on
REFRESH_SHARE = 0.05  # of a run's time at most goes into them
_REFRESH_ROUNDS = 5

Status = Literal["done", "skipped", "failed"]


class _Stored(BaseModel):
    """What lies in JSON; a name that this version does not know is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class MadeWith(_Stored):
    """What all results of a folder share.

    Attributes
    ----------
    version
        Of this package.
    weights, weights_sha256
        Name and digest of the network's weights; None without a network.
    settings
        Of the method.
    eer
        How raw EER frames were made into frames.
    correction
        How the camera's faults were taken out, and the digests of its references; None: not at all.
    half_precision_files
        Whether images are 16-bit floats.
    """

    # What a method says of itself beyond weights is kept too; results that name what this version
    # does not know were made with something else.
    model_config = ConfigDict(frozen=True, extra="allow")

    version: str
    weights: str | None = None
    weights_sha256: str | None = None
    settings: dict[str, Any]
    eer: dict[str, Any] | None = None
    correction: dict[str, Any] | None = None
    half_precision_files: bool = False

    def differences(self, other: "MadeWith") -> list[str]:
        """Names of what differs."""
        ours = self.model_dump()
        theirs = other.model_dump()
        return [name for name, value in ours.items() if value != theirs.get(name)]


class Source(_Stored):
    """What results were made from; other values make other results.

    Attributes
    ----------
    frames
        How many were taken.
    exposure_per_frame_e_per_a2
        Mean over the frames; None where it is not known.
    gain, motion_from
        Files of the gain reference and of imported motion.
    """

    frames: int
    pixel_size_angstrom: float
    exposure_per_frame_e_per_a2: float | None
    pre_exposure_e_per_a2: float
    voltage_kv: float
    gain: str | None = None
    motion_from: str | None = None

    @property
    def total_exposure_e_per_a2(self) -> float | None:
        """Of all frames together; None where it is not known."""
        own = self.exposure_per_frame_e_per_a2
        return None if own is None else own * self.frames


class Results(_Stored):
    """What was made of an input.

    Attributes
    ----------
    shifts_angstrom
        (y, x) of each frame.
    accumulated_motion_angstrom
        Length of the frames' way: in all, early and late; the latter None without an exposure.
    notes
        What the user should know, a line each.
    files
        Paths by kind of product, from the run's folder.
    optics
        The input's optics group by RELION's names.
    """

    output_pixel_size_angstrom: float
    shifts_angstrom: list[list[float]]
    accumulated_motion_angstrom: tuple[float, float | None, float | None]
    notes: list[str]
    files: dict[str, str]
    optics: dict[str, Any]

    @property
    def farthest_from_the_ends_angstrom(self) -> float:
        """How far the frames lie at most from where the first or the last one does."""
        shifts = self.shifts_angstrom
        ends = shifts[0], shifts[-1]
        return max(math.dist(shift, end) for shift in shifts for end in ends)


class Cost(_Stored):
    """What making the results took; differs from run to run."""

    seconds: float
    cpu_seconds: float
    threads: int
    device: str
    peak_memory_bytes: int


class Record(_Stored):
    """What came of one input. In JSON the fields of `source`, `results` and `cost` stand beside the
    others.

    Attributes
    ----------
    input
        Path of the movie.
    name
        What the record is kept by.
    status
        Whether it was made now, was there already, or failed.
    time
        When, in ISO form.
    error
        Why it failed.
    source, results, cost
        Of the results that lie there, which may be older than a failure; None without any.
    """

    PARTS: ClassVar[dict[str, type[_Stored]]] = {
        "source": Source,
        "results": Results,
        "cost": Cost,
    }

    input: str
    name: str
    status: Status
    time: str
    error: str | None = None
    source: Source | None = None
    results: Results | None = None
    cost: Cost | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what lies in JSON.

        Raises
        ------
        ValueError
            If it is no record.
        """
        parts = {}
        for part, model in cls.PARTS.items():
            fields = model.model_fields
            required = {name for name, field in fields.items() if field.is_required()}
            if required <= values.keys():
                parts[part] = {name: values[name] for name in fields if name in values}
        own = {name: value for name, value in values.items() if name not in cls.PARTS}
        return cls.model_validate({**own, **parts})

    def to_json(self) -> dict[str, Any]:
        """As it lies in JSON."""
        values: dict[str, Any] = {"input": self.input, "name": self.name}
        values["status"] = self.status
        for part in (self.source, self.results, self.cost):
            if part is not None:
                values |= part.model_dump()
        if self.error is not None:
            values["error"] = self.error
        values["time"] = self.time
        return values


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
        What it says, by name.

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
        self.earlier = {} if different else stored.records
        # Written before any image: images without a record are then a broken-off run's of these
        # settings, and may be made again.
        _write_provenance(folder, made_with, self.earlier.values())
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        name = f"{started}-{secrets.token_hex(4)}.jsonl"
        self._path = ensure_writable_folder(folder / "records") / name
        self._append(made_with.model_dump())
        self._refreshed = time.monotonic()
        self._took = 0.0

    def add(self, record: Record) -> None:
        """Put on record what came of one input.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self._append(record.to_json())
        since = time.monotonic() - self._refreshed
        if since > max(REFRESH_SECONDS, self._took / REFRESH_SHARE):
            self.refresh()

    def refresh(self) -> None:
        """Write ``provenance.json`` and ``micrographs.star`` from what all runs have put on
        record.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        begun = time.monotonic()
        for _ in range(_REFRESH_ROUNDS):
            before = _journals(self.folder)
            records = read_records(self.folder).records.values()
            _write_provenance(self.folder, self.made_with, records)
            write_micrographs_star(self.folder, _micrographs(self.folder, records))
            # Another run may have finished, and written newer tables, meanwhile; ours would then be
            # the older.
            if _journals(self.folder) == before:
                break
        self._refreshed = time.monotonic()
        self._took = self._refreshed - begun

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
        stored = json.loads((folder / "provenance.json").read_text())
        made_with = MadeWith.model_validate(
            {k: v for k, v in stored.items() if k not in ("written", "movies", "failures")}
        )
        listed = list(_records_of(stored["movies"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
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
        first, *lines = path.read_text(errors="replace").splitlines()
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


def _write_provenance(folder: Path, made_with: MadeWith, records: Iterable[Record]) -> None:
    records = list(records)
    failures = {record.input: record.error for record in records if record.status == "failed"}
    written = {
        **made_with.model_dump(),
        "written": now(),
        "failures": failures,
        "movies": [record.to_json() for record in records],
    }
    with atomic_path(folder / "provenance.json") as path:
        path.write_text(json.dumps(written, indent=2) + "\n")


def _micrographs(folder: Path, records: Iterable[Record]) -> list[Micrograph]:
    """The complete results of a folder, by name."""
    found = []
    for record in sorted(records, key=lambda record: record.name):
        source = record.source
        results = record.results
        if source is None or results is None:
            continue
        files = {kind: folder / name for kind, name in results.files.items()}
        if not all(path.is_file() for path in files.values()):
            continue
        found.append(
            Micrograph(
                movie=record.input,
                files=files,
                optics=results.optics,
                movie_pixel_size_angstrom=source.pixel_size_angstrom,
                pixel_size_angstrom=results.output_pixel_size_angstrom,
                voltage_kv=source.voltage_kv,
                accumulated_motion_angstrom=results.accumulated_motion_angstrom,
            )
        )
    return found
