"""The movies or micrographs that a STAR file names, and what it says of each: tables of RELION 1 to
5, tilt series too, and those that pyem (for cryoSPARC) and Warp write in RELION's form.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

from dstnet.errors import BadInputError
from dstnet.io.star_table import StarTable, read_star
from dstnet.pipeline.star_row import (
    DEFECTS,
    GAIN,
    GROUP,
    GROUP_NAME,
    KNOWN_COLUMNS,
    METADATA,
    MOVIE_COLUMNS,
    OPTICS_COLUMNS,
    SUM_COLUMN,
    StarRow,
    is_empty,
)

# The first that a file has counts.
_COLUMNS = (*MOVIE_COLUMNS, SUM_COLUMN)
_SERIES = "rlnTomoTiltSeriesStarFile"
_CORRECTED = frozenset((METADATA, "rlnAccumMotionTotal"))  # of sums, which need no gain
# RELION knows its columns by their exact names; other writers do not always.
_TAKEN = frozenset((*_COLUMNS, _SERIES, *KNOWN_COLUMNS))
_CANONICAL = {name.lower(): name for name in _TAKEN}
# What might be thought to be taken, and the option that says it.
_NOT_TAKEN = {
    "wrpDose": "--pre-exposure and --dose-per-frame",
    "rlnTomoImportFractionalDose": "--dose-per-frame",
    "rlnPixelSize": "--pixel-size",
}
_UNIQUE_ID = re.compile(r"\d{15,}_")  # that cryoSPARC puts before the names of files


@dataclass(frozen=True)
class FoundMovie:
    """A movie that an argument names, and what a STAR file says of it.

    Attributes
    ----------
    row, gain, defects
        As of `InputMovie`.
    written
        How a STAR or list file names the movie; None where none does.
    """

    path: Path
    row: StarRow | None = None
    gain: Path | None = None
    defects: Path | None = None
    written: str | None = None


def star_movies(path: Path, report: Callable[[str], None]) -> Iterator[FoundMovie]:
    """The movies, or micrographs, that a STAR file names, in its order.

    Parameters
    ----------
    path
        The file.
    report
        Gets a line on what was taken otherwise than it stands there.

    Raises
    ------
    BadInputError
        If it cannot be read or names none; if it leaves open which optics group is a movie's.
    """
    tables = [_canonical(table) for table in read_star(path)]
    for name, option in _NOT_TAKEN.items():
        if any(name in table.columns for table in tables):
            report(f"{path}: nothing is taken of {name}; pass {option}")
    column, named = _naming(tables)
    if column is None:
        yield from _tilt_series(path, tables, report)
        return
    yield from _movies(path, tables, named, column, {}, report)


def _canonical(table: StarTable) -> StarTable:
    columns = [_CANONICAL.get(name.lower(), name) for name in table.columns]
    return StarTable(table.name, columns, table.rows)


def _naming(tables: list[StarTable]) -> tuple[str | None, list[StarTable]]:
    """The column that names movies, or sums, and the tables that have it."""
    for column in _COLUMNS:
        named = [table for table in tables if column in table.columns and table.rows]
        if named:
            return column, named
    return None, []


def _tilt_series(
    path: Path, tables: list[StarTable], report: Callable[[str], None]
) -> Iterator[FoundMovie]:
    """The movies of the tilt series that a table of RELION's tomography names."""
    series = [table for table in tables if _SERIES in table.columns and table.rows]
    lacks = f"{path} has no table with {' or '.join(_COLUMNS)}"
    if not series:
        raise BadInputError(f"{lacks}; give RELION's movies.star or a micrographs table")
    optics_of = _OpticsTable(path, tables, series, report)
    finder = FileFinder(path, report)
    for table in series:
        for record in table.records():
            own = {name: record[name] for name in OPTICS_COLUMNS if name in record}
            shared = {**own, **optics_of(record)}
            file = finder(record[_SERIES])
            if not os.path.exists(file):
                raise BadInputError(
                    f"{lacks}, and the tilt series {file} that it names is not there; keep it with"
                    " its project's folder"
                )
            inner = [_canonical(inner) for inner in read_star(file)]
            column, named = _naming(inner)
            if column is None:
                raise BadInputError(
                    f"{path}: its tilt series {file} names no movies or images of the tilts; give"
                    " the tables of RELION's import or motion correction"
                )
            yield from _movies(file, inner, named, column, shared, report)


def _movies(
    path: Path,
    tables: list[StarTable],
    named: list[StarTable],
    column: str,
    shared: dict[str, str],
    report: Callable[[str], None],
) -> Iterator[FoundMovie]:
    """The movies of tables `named`; `shared` is what the file that names this one says of them."""
    # A tilt series says which group it is of where its series are listed.
    optics_of = None if shared else _OpticsTable(path, tables, named, report)
    finder = FileFinder(path, report)
    references = FileFinder(path, report)
    contradicted: set[str] = set()
    for table in named:
        is_corrected = column == SUM_COLUMN and not _CORRECTED.isdisjoint(table.columns)
        own = [name for name in OPTICS_COLUMNS if name in table.columns]
        for record in table.records(_TAKEN):
            if is_empty(record[column]):
                raise BadInputError(
                    f"{path} has a row without {column} (it is {record[column]!r}); take that row"
                    " out"
                )
            group = shared if optics_of is None else optics_of(record)
            if is_corrected and not own and not group:
                group = _of_metadata(references(record.get(METADATA, "")))
            row = StarRow(path, column, {**record, **group}, tuple(dict.fromkeys((*own, *group))))
            contradicted |= row.contradicted(record)
            gain = None if is_corrected else row.text(GAIN)
            defects = None if is_corrected else row.text(DEFECTS)
            yield FoundMovie(
                finder(record[column]),
                row,
                None if gain is None else references(gain),
                None if defects is None else references(defects),
                record[column].lstrip(">"),
            )
    if contradicted:
        names = ", ".join(sorted(contradicted))
        report(f"{path}: {names} of the movies' rows differ from their optics group's, which count")


def _of_metadata(path: Path) -> dict[str, str]:
    """What RELION 3.0, which had no optics groups, says of a sum in the STAR file of its motion."""
    try:
        tables = read_star(path)
    except BadInputError:
        return {}
    for table in tables:
        for record in _canonical(table).records():
            cells = {name: record[name] for name in ("rlnVoltage",) if name in record}
            try:
                pixel = float(record["rlnMicrographOriginalPixelSize"])
                binning = float(record["rlnMicrographBinning"])
            except (KeyError, ValueError):
                continue
            return {**cells, "rlnMicrographPixelSize": f"{pixel * binning:.6g}"}
    return {}


class _OpticsTable:
    """The rows of the optics table of a STAR file, by group; nothing where it has none.

    Parameters
    ----------
    path
        The file.
    tables
        All that it has.
    named
        Those of movies.
    report
        Gets a line where the group of all is not said but plain.

    Raises
    ------
    BadInputError
        If there are two such tables, two rows of one group that differ, or several groups and
        nothing that says which is a movie's.
    """

    def __init__(
        self,
        path: Path,
        tables: list[StarTable],
        named: list[StarTable],
        report: Callable[[str], None],
    ) -> None:
        self._path = path
        self._only: dict[str, str] | None = None
        self._key = GROUP
        optics = [table for table in tables if table.name.lower() == "optics" and table.columns]
        optics = [table for table in optics if table not in named]
        if len(optics) > 1:
            raise BadInputError(
                f"{path} has {len(optics)} tables of optics groups, so whose are the movies? Split"
                " it into one file each"
            )
        rows = [row for table in optics for row in table.records()]
        self._is_there = bool(optics)
        if GROUP not in (optics[0].columns if optics else ()):
            self._key = GROUP_NAME
        self._groups: dict[str, dict[str, str]] = {}
        for row in rows:
            number = _group(row.get(self._key, ""))
            if self._groups.setdefault(number, row) != row:
                raise BadInputError(
                    f"{path} has optics group {number or '?'} twice, with other values; repair the"
                    " STAR file"
                )
        if not all(self._key in table.columns for table in named) and optics:
            if len(self._groups) != 1:
                raise BadInputError(
                    f"{path} has {len(self._groups)} optics groups, and no column {self._key} says"
                    " which is a movie's; add it"
                )
            self._only = rows[0]
            report(f"{path}: no {self._key} with the movies; its one optics group is taken")

    def __call__(self, record: dict[str, str]) -> dict[str, str]:
        """The optics group of a movie's row.

        Raises
        ------
        BadInputError
            If the table lacks it.
        """
        if not self._is_there:
            return {}
        if self._only is not None:
            return self._only
        number = _group(record[self._key])
        if number not in self._groups:
            raise BadInputError(
                f"{self._path} has movies of optics group {number}, which its optics table lacks;"
                " repair the STAR file"
            )
        return self._groups[number]


def _group(cell: str) -> str:
    """A group's number in one form, however it is written."""
    try:
        number = float(cell)
    except ValueError:
        return cell
    return str(int(number)) if number.is_integer() else cell


class FileFinder:
    """Finds files named relative to a project: from the current folder, else from where the naming
    file lies or above it, as RELION's jobs lie two folders below their project. Where these are two
    files, BadInputError is raised. A file that is nowhere is looked for in the current folder, and
    so reported.

    Parameters
    ----------
    listing
        The file that names them.
    report
        Gets a line on files that were found under a somewhat other name.
    """

    def __init__(self, listing: Path, report: Callable[[str], None] = lambda line: None) -> None:
        self._own_bases = listing.absolute().parents
        self._bases = [Path(), *self._own_bases]
        self._listing = listing
        self._report = report
        self._said: set[str] = set()
        self._known: dict[str, Path] = {}

    def __call__(self, name: str) -> Path:
        """Where a file lies."""
        if name not in self._known:
            self._known[name] = self._searched(name)
        return self._known[name]

    def _searched(self, name: str) -> Path:
        for how, variant in _variants(name):
            found = self._found(variant)
            if found is None:
                continue
            if how and how not in self._said:
                self._said.add(how)
                self._report(f"{self._listing}: {how} ({name} is {found})")
            return found
        return Path(name)

    def _found(self, name: str) -> Path | None:
        for base in self._bases:
            candidate = base / name
            if os.path.exists(candidate):
                self._refuse_two(name)
                # The next one lies there too, most likely.
                self._bases.remove(base)
                self._bases.insert(0, base)
                return candidate
        return None

    def _refuse_two(self, name: str) -> None:
        """Refuse a name that is one file from the current folder and another one from the naming
        file's.
        """
        from_here = Path(name)
        own = next((base / name for base in self._own_bases if isfile(base / name)), from_here)
        if isfile(from_here) and not os.path.samefile(own, from_here):
            raise BadInputError(
                f"{self._listing} names {name}, which may be {from_here.absolute()} or {own}; run"
                " the command in the project's folder, or write whole paths"
            )


def _variants(name: str) -> Iterator[tuple[str, str]]:
    """A file's name as it stands, then as other programs than RELION may have meant it, each with
    what was done to it.
    """
    yield "", name
    plain = name.lstrip(">")
    if plain != name:
        yield "", plain  # cryoSPARC's sign for its project's folder
    if "\\" in plain:
        plain = plain.replace("\\", "/")
        yield "", plain  # as Windows writes it
    written = os.fsdecode(unquote_to_bytes(os.fsencode(plain)))
    if written != plain and "\0" not in written:
        yield "", written  # as our own tables write what a name may not hold there
    folder, _, last = plain.rpartition("/")
    without = _UNIQUE_ID.sub("", last, count=1) if _UNIQUE_ID.match(last) else last
    if without != last:
        where = f"{folder}/{without}" if folder else without
        yield "files are found without cryoSPARC's numbers before their names", where


def reason(error: Exception) -> str:
    """What an error says, as one line."""
    text = str(getattr(error, "strerror", None) or error)
    line = " ".join(text.split())
    return line[:200] or type(error).__name__
