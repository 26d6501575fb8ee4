"""The record of a run that many processes, shards and reruns may share, and the tables that are
made of it.

Every run appends what it finishes to a file of its own, ``records/*.jsonl``: one writer a file,
nothing locked and nothing deleted, which is safe on network file systems and under kill -9.
``provenance.json`` and ``micrographs.star`` are made of all of them.
"""

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from dstnet.errors import OutputError
from dstnet.io import atomic_path, ensure_writable_folder
from dstnet.io.star import write_star

# What differs between two runs that make the same images.
VOLATILE = ("time", "seconds", "cpu_seconds", "peak_memory_bytes", "threads", "device", "status")
REFRESH_SECONDS = 60.0  # between writings of the tables while a run goes on
REFRESH_SHARE = 0.05  # of a run's time at most goes into them


class Records:
    """The records of one folder, and this run's part of them.

    Parameters
    ----------
    folder
        The run's output folder.
    made_with
        What all results of the folder share: version, settings, weights.
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

    def __init__(self, folder: Path, made_with: dict, overwrite: bool) -> None:
        self.folder, self.made_with = ensure_writable_folder(folder), made_with
        stored = _stored(folder)
        different = [k for k in made_with if stored and stored.get(k) != made_with[k]]
        if different and not overwrite:
            raise OutputError(
                f"{folder} holds results made with other {' and '.join(different)}; pass"
                " --overwrite, or choose another folder"
            )
        self.recorded = stored is not None
        self.earlier = {} if different else read_records(folder)[1]
        # Written before any image: images without a record are then a broken-off run's of these
        # settings, and may be made again.
        _write_provenance(folder, made_with, self.earlier)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.jsonl"
        self._path = ensure_writable_folder(folder / "records") / name
        self._append(made_with)
        self._refreshed, self._took = time.monotonic(), 0.0

    def add(self, record: dict) -> None:
        """Put on record what came of one input."""
        self._append(record)
        since = time.monotonic() - self._refreshed
        if since > max(REFRESH_SECONDS, self._took / REFRESH_SHARE):
            self.refresh()

    def refresh(self) -> None:
        """Write ``provenance.json`` and ``micrographs.star`` from what all runs have put on
        record.
        """
        begun = time.monotonic()
        for _ in range(5):
            before = _journals(self.folder)
            _, records = read_records(self.folder)
            _write_provenance(self.folder, self.made_with, records)
            write_micrographs_star(self.folder, list(records.values()))
            # Another run may have finished, and written newer tables, meanwhile; ours would then be
            # the older.
            if _journals(self.folder) == before:
                break
        self._refreshed = time.monotonic()
        self._took = self._refreshed - begun

    def _append(self, line: dict) -> None:
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


def _journals(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_size for p in (folder / "records").glob("*.jsonl")}


def _stored(folder: Path) -> dict | None:
    try:
        stored = json.loads((folder / "provenance.json").read_text())
        return stored if isinstance(stored["movies"], list) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_records(folder: Path) -> tuple[dict, dict[str, dict]]:
    """What the results of a folder were made with, and its records by name, of all runs, the latest
    where there are several.

    Lines that a killed run left unfinished, and files of runs made with something else since
    overwritten, are passed over.
    """
    stored = _stored(folder) or {}
    made_with = {k: v for k, v in stored.items() if k not in ("written", "movies", "failures")}
    found: dict[str, dict] = {
        r["name"]: r for r in stored.get("movies", ()) if isinstance(r, dict) and "name" in r
    }
    for path in sorted((folder / "records").glob("*.jsonl")):
        try:
            lines = path.read_text(errors="replace").splitlines()
            if json.loads(lines[0]) != made_with:
                continue
        except (OSError, ValueError, IndexError):
            continue
        for line in lines[1:]:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record["time"] >= found.get(record["name"], {}).get("time", ""):
                found[record["name"]] = record
    return made_with, dict(sorted(found.items()))


def _write_provenance(folder: Path, made_with: dict, records: Mapping[str, dict]) -> None:
    failures = {r["input"]: r["error"] for r in records.values() if r["status"] == "failed"}
    written = {
        **made_with,
        "written": now(),
        "failures": failures,
        "movies": list(records.values()),
    }
    with atomic_path(folder / "provenance.json") as path:
        path.write_text(json.dumps(written, indent=2) + "\n")


def as_relion_finds(path: Path | str) -> str:
    """A path from the current folder, where RELION is run, if it lies below it; else a whole
    one.
    """
    whole = os.path.abspath(path)
    below = os.path.relpath(whole)
    return whole if below.startswith("..") else below


def write_micrographs_star(folder: Path, records: Sequence[dict]) -> None:
    """Write ``micrographs.star``: the whole results of a folder as RELION's motion correction lists
    its own; nothing where there are none.

    Optics groups are those of the inputs, renumbered only where two differ under one number; movies
    without one get a group for each pixel size and voltage.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    groups: dict[str, dict[str, Any]] = {}
    rows = []
    for record in sorted((r for r in records if r.get("files")), key=lambda r: r["name"]):
        files = {kind: folder / name for kind, name in record["files"].items()}
        if not all(f.is_file() for f in files.values()):
            continue
        own = {k: v for k, v in record["optics"].items() if k != "rlnOpticsGroup"}
        own |= {
            "rlnMicrographOriginalPixelSize": record["pixel_size_angstrom"],
            "rlnVoltage": record["voltage_kv"],
        }
        own["rlnMicrographPixelSize"] = record["output_pixel_size_angstrom"]
        key = json.dumps(own, sort_keys=True)
        if key not in groups:
            taken = {g["rlnOpticsGroup"] for g in groups.values()}
            wanted = int(record["optics"].get("rlnOpticsGroup", 1))
            number = (
                wanted
                if wanted not in taken
                else next(n for n in range(1, len(taken) + 2) if n not in taken)
            )
            groups[key] = {
                "rlnOpticsGroupName": f"opticsGroup{number}",
                **own,
                "rlnOpticsGroup": number,
            }
        found = {kind: as_relion_finds(path) for kind, path in files.items()}
        total, early, late = record["accumulated_motion_angstrom"]
        rows.append(
            {
                "rlnMicrographName": found.get("dose_weighted", found["aligned"]),
                "rlnMicrographNameNoDW": found["aligned"],
                "rlnMicrographNameEven": found.get("even"),
                "rlnMicrographNameOdd": found.get("odd"),
                "rlnMicrographMetadata": found["motion"],
                "rlnMicrographMovieName": as_relion_finds(record["input"]),
                "rlnOpticsGroup": groups[key]["rlnOpticsGroup"],
                "rlnAccumMotionTotal": total,
                "rlnAccumMotionEarly": early,
                "rlnAccumMotionLate": late,
            }
        )
    if not rows:
        return
    optics = pd.DataFrame(sorted(groups.values(), key=lambda g: g["rlnOpticsGroup"]))
    optics.insert(1, "rlnOpticsGroup", optics.pop("rlnOpticsGroup"))
    # A column that not every micrograph can fill is left out: RELION knows no empty name.
    write_star(
        folder / "micrographs.star",
        {"optics": optics, "micrographs": pd.DataFrame(rows).dropna(axis=1)},
    )
