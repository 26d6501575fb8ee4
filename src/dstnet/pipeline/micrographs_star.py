"""``micrographs.star``: the results of a folder as RELION's motion correction lists its own."""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from dstnet.io.star import star_holds, star_name, write_star
from dstnet.pipeline.ownership import TABLE, TABLE_MARK, refuse_foreign

_GROUP = "rlnOpticsGroup"
# Of a path that no reader takes for a label, a keyword, a comment, a number or an empty cell.
_PLAIN = re.compile(r"(?!data_|loop_|save_|stop_|global_)[a-z0-9]([^/]*/|.*\.[a-z]+$)", re.I)
_NAME = "rlnOpticsGroupName"
# RELION's own, which half of all sessions have, and none.
_NOBODYS_NAME = re.compile(r"(opticsGroup\d*)?")
_DIGITS = 8  # of a digest: enough to tell apart the optics of one project


@dataclass(frozen=True)
class Micrograph:
    """The results of one movie.

    Attributes
    ----------
    movie
        Its path.
    files
        Results by kind of product; all are there.
    optics
        Its optics group by RELION's names, as far as it is known.
    movie_pixel_size_angstrom, pixel_size_angstrom
        Of the movie, and of its sums.
    voltage_kv
        Acceleration voltage.
    accumulated_motion_angstrom
        In all, early and late.
    """

    movie: str
    files: Mapping[str, Path]
    optics: Mapping[str, Any]
    movie_pixel_size_angstrom: float
    pixel_size_angstrom: float
    voltage_kv: float
    accumulated_motion_angstrom: tuple[float, float | None, float | None]


def as_relion_finds(path: Path | str) -> str:
    """A path from the current folder, where RELION is run, if it lies below it; else an absolute
    one. It begins with nothing that would end a table.
    """
    absolute = os.path.abspath(path)
    below = os.path.relpath(absolute)
    if below == ".." or below.startswith("../"):
        return absolute
    return below if _PLAIN.match(below) else f"./{below}"


def write_micrographs_star(folder: Path, micrographs: Sequence[Micrograph]) -> list[str]:
    """Write ``micrographs.star``; where there are no micrographs, there is none.

    Left out, and returned, are the movies whose results have names that a STAR file cannot hold.

    Optics groups are those of the inputs, renumbered only where two differ under one number. Names
    that a user gave stay, unless two groups differ under one; RELION's ``opticsGroup1`` gets digits
    of a digest of the group's values, so that tables of separate runs can be joined. Movies without
    a group get one for each pixel size and voltage.

    Raises
    ------
    OutputError
        If it cannot be written, or one that is not ours lies there.
    """
    groups = _OpticsGroups()
    rows = []
    left_out = []
    for micrograph in micrographs:
        if all(map(star_holds, map(as_relion_finds, micrograph.files.values()))):
            number = groups.number(micrograph)
            rows.append(_row(micrograph, number))
        else:
            left_out.append(micrograph.movie)
    path = folder / TABLE
    refuse_foreign(path)
    if not rows:
        path.unlink(missing_ok=True)  # it would list what is no longer there
        return left_out
    # A column that not every micrograph can fill is left out: RELION knows no empty name.
    table = pd.DataFrame(rows).dropna(axis=1)
    write_star(path, {"optics": groups.table(), "micrographs": table}, comment=TABLE_MARK)
    return left_out


def _row(micrograph: Micrograph, group: int) -> dict[str, Any]:
    names = {kind: as_relion_finds(path) for kind, path in micrograph.files.items()}
    total, early, late = micrograph.accumulated_motion_angstrom
    return {
        "rlnMicrographName": names.get("dose_weighted", names["aligned"]),
        "rlnMicrographNameNoDW": names["aligned"],
        "rlnMicrographNameEven": names.get("even"),
        "rlnMicrographNameOdd": names.get("odd"),
        "rlnMicrographMetadata": names["motion"],
        "rlnMicrographMovieName": star_name(as_relion_finds(micrograph.movie)),
        _GROUP: group,
        "rlnAccumMotionTotal": total,
        "rlnAccumMotionEarly": early,
        "rlnAccumMotionLate": late,
    }


class _OpticsGroups:
    """The optics groups of a table, numbered as they come. RELION joins tables by the names of
    groups, so each has one of its own.
    """

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, Any]] = {}
        self._taken: set[int] = set()

    def number(self, micrograph: Micrograph) -> int:
        """The number of a micrograph's group."""
        own = {
            name: star_name(value) if isinstance(value, str) else value
            for name, value in micrograph.optics.items()
            if name != _GROUP
        }
        own["rlnMicrographOriginalPixelSize"] = micrograph.movie_pixel_size_angstrom
        own["rlnVoltage"] = micrograph.voltage_kv
        own["rlnMicrographPixelSize"] = micrograph.pixel_size_angstrom
        key = json.dumps({name: _as_written(value) for name, value in sorted(own.items())})
        if key not in self._groups:
            number = self._free(micrograph.optics.get(_GROUP, 1))
            self._taken.add(number)
            self._groups[key] = {_NAME: "", **own, _GROUP: number}
        return self._groups[key][_GROUP]

    def _free(self, requested: Any) -> int:
        """The number asked for, or the lowest one where another group has it."""
        is_number = isinstance(requested, int) and requested > 0
        if is_number and requested not in self._taken:
            return requested
        candidates = range(1, len(self._taken) + 2)
        return min(set(candidates) - self._taken)

    def table(self) -> pd.DataFrame:
        """The groups by their numbers."""
        times_named = Counter(group[_NAME] for group in self._groups.values())
        groups = []
        for key, group in self._groups.items():
            name = group[_NAME]
            if _NOBODYS_NAME.fullmatch(name) or times_named[name] > 1:
                # By what is in the group: equal ones of other runs join, others do not.
                digest = sha256(key.encode(errors="surrogateescape")).hexdigest()[:_DIGITS]
                name = f"{name or 'opticsGroup'}_{digest}"
            groups.append({**group, _NAME: name})
        table = pd.DataFrame(sorted(groups, key=lambda group: group[_GROUP]))
        # What not every group can fill is left out: RELION reads 0 where there is no number.
        table = table.dropna(axis=1)
        table.insert(1, _GROUP, table.pop(_GROUP))
        return table


def _as_written(value: Any) -> Any:
    """A value as it stands in the table."""
    return f"{value:.6f}" if isinstance(value, int | float) else value
