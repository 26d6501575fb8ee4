"""The movies or micrographs that a RELION STAR file names, and what it says of each."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd
import starfile

from dstnet.errors import BadInputError

# The first that a table has counts.
_MOVIE_COLUMNS = ("rlnMicrographMovieName", "rlnMicrographName")
_GROUP_COLUMN = "rlnOpticsGroup"
_GAIN_COLUMN = "rlnMicrographGainName"
_EMPTY_CELLS = ("None", "nan", "")
_LONGEST_REASON = 200  # of an error in a line
# What a table without optics groups (before RELION 3.1), or of one movie, says of its optics
# itself.
_OPTICS_COLUMNS = (
    "rlnOpticsGroup",
    "rlnOpticsGroupName",
    "rlnMicrographOriginalPixelSize",
    "rlnMicrographPixelSize",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnMagnification",
    "rlnDetectorPixelSize",
)


@dataclass(frozen=True)
class FoundMovie:
    """A movie that an argument names, and what a STAR file says of it.

    Attributes
    ----------
    optics, gain
        As of `InputMovie`.
    written
        How a STAR or list file names the movie; None where none does.
    """

    path: Path
    optics: dict[str, Any] = field(default_factory=dict)
    gain: Path | None = None
    written: str | None = None


def star_movies(path: Path) -> Iterator[FoundMovie]:
    """The movies, or micrographs, that a STAR file names, in its order.

    Raises
    ------
    BadInputError
        If it cannot be read or names none.
    """
    tables = _read_tables(path)
    table, column = _movie_table(path, tables)
    groups = _optics_groups(path, tables, table)
    finder = FileFinder(path)
    gain_finder = FileFinder(path)
    for row in _rows(table):
        own = {name: row[name] for name in _OPTICS_COLUMNS if name in row}
        group = str(row.get(_GROUP_COLUMN))
        optics = {**own, **groups.get(group, {})}
        written = str(row[column])
        movie = finder(written)
        gain_name = str(row.get(_GAIN_COLUMN, "None"))
        gain = None
        if gain_name not in _EMPTY_CELLS:
            gain = gain_finder(gain_name)
        yield FoundMovie(movie, optics, gain, written)


def _read_tables(path: Path) -> dict[str, pd.DataFrame]:
    try:
        blocks = starfile.read(path, always_dict=True)
        return {str(name): _as_table(block) for name, block in blocks.items()}
    except Exception as error:  # a damaged file surfaces as nearly every kind of error
        raise BadInputError(
            f"cannot read the STAR file {path}: {reason(error)}; give a table of movies that"
            " RELION can read"
        ) from error


def _as_table(block: object) -> pd.DataFrame:
    if isinstance(block, pd.DataFrame):
        return block
    return pd.DataFrame([block])


def _movie_table(path: Path, tables: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, str]:
    """The table that names movies, and its column that does."""
    for column in _MOVIE_COLUMNS:
        for table in tables.values():
            if column in table.columns and len(table):
                return table, column
    raise BadInputError(
        f"{path} has no table with {' or '.join(_MOVIE_COLUMNS)}; give RELION's movies.star or"
        " a micrographs table"
    )


def _optics_groups(
    path: Path, tables: dict[str, pd.DataFrame], movies: pd.DataFrame
) -> dict[str, dict[str, Any]]:
    """Rows of the optics table by group."""
    optics = tables.get("optics")
    if optics is None or _GROUP_COLUMN not in optics.columns:
        return {}
    groups = {str(row[_GROUP_COLUMN]): row for row in _rows(optics)}
    used = {str(row.get(_GROUP_COLUMN, "")) for row in _rows(movies)}
    unknown = used - {*groups, ""}
    if unknown:
        raise BadInputError(
            f"{path} has movies of optics group {min(unknown)}, which its optics table lacks;"
            " repair the STAR file"
        )
    return groups


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table.to_dict("records")
    return cast("list[dict[str, Any]]", rows)


class FileFinder:
    """Finds files named relative to a project: from the current folder, else from where the naming
    file lies or above it, as RELION's jobs lie two folders below their project. A file that is
    nowhere is looked for in the current folder, and so reported.
    """

    def __init__(self, listing: Path) -> None:
        folder = listing.absolute().parent
        self._bases = [Path(), folder, *folder.parents]

    def __call__(self, name: str) -> Path:
        for base in self._bases:
            candidate = base / name
            if os.path.exists(candidate):
                # The next one lies there too, most likely.
                self._bases.remove(base)
                self._bases.insert(0, base)
                return candidate
        return Path(name)


def reason(error: Exception) -> str:
    """What an error says, as one line."""
    text = str(getattr(error, "strerror", None) or error)
    line = " ".join(text.split())
    return line[:_LONGEST_REASON] or type(error).__name__
