"""What a user names as inputs, as a list of movies: paths, folders, wildcards, ``@list.txt`` and
RELION STAR files.
"""

import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pandas as pd
import starfile

from dstnet.errors import BadInputError
from dstnet.io.movie_file import is_movie_name, movie_stem
from dstnet.pipeline.companions import sums_of_movies, without_other_files

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
class InputMovie:
    """A movie file to work on; whether it is there, and is a movie, shows when it is opened.

    Parameters
    ----------
    path
        The file.
    name
        What its outputs are called: the file's name without suffix, below the folder that all
        inputs have in common. A wildcard's files lie below the part before its first sign, so that
        they keep their names when more come. No two names are equal.
    optics
        Of a STAR file, the row of this movie's optics group, by RELION's names (``rlnVoltage`` in
        kV, ``rlnMicrographOriginalPixelSize`` in Å, ...); else nothing.
    gain
        Gain reference that a STAR file names for this movie.
    """

    path: Path
    name: str
    optics: Mapping[str, Any] = field(default_factory=dict)
    gain: Path | None = None


def read_inputs(
    arguments: Sequence[str | Path],
    *,
    report: Callable[[str], None] = lambda line: None,
    references: Iterable[Path | None] = (),
) -> list[InputMovie]:
    """The movies that `arguments` name, in their order, each once.

    Parameters
    ----------
    arguments
        Each is the path of a movie; a folder (its movies, by name, without those of its
        sub-folders); a wildcard that the shell left as it was (``*``, ``?``, ``[...]``, ``**`` for
        any depth; pictures and notes beside movies do not count); ``@FILE``, a list of one path a
        line, in which empty lines and those that start with ``#`` do not count; or a RELION STAR
        file with a table of movies or micrographs. Paths inside a list or a STAR file start at the
        current folder, else at the file's own or the nearest one above it where the movie is found.
    report
        Gets a line on whatever was left out or named differently than expected.
    references
        Files of the camera's references that are given beside: no movies where they lie among them.

    Returns
    -------
    list of InputMovie
        A single movie that is missing is among them, and fails when it is opened. A sum whose movie
        is there too (``a.mrc`` beside ``a_Fractions.tiff`` or ``a_EER.eer``, as EPU names them) is
        not.

    Raises
    ------
    BadInputError
        If nothing is given, a wildcard or a folder has no movie, or a list or STAR file cannot be
        read or names none.
    """
    found: dict[str, _Found] = {}
    repeated: list[Path] = []
    roots: set[str] = set()
    for argument in arguments:
        root = _pattern_root(str(argument))
        for movie in _expand(str(argument)):
            key = os.path.abspath(movie.path)
            if key in found:
                repeated.append(movie.path)
                continue
            found[key] = movie
            # A STAR file that a wildcard found may name movies elsewhere.
            parent = os.path.dirname(key)
            is_below = root is not None and os.path.commonpath([root, parent]) == root
            roots.add(root if root is not None and is_below else parent)
    if not found:
        raise BadInputError("no input is given; name movies, folders, @lists or STAR files")
    sums = sums_of_movies(movie.path for movie in found.values())
    given = [*references, *(movie.gain for movie in found.values())]
    own = {os.path.abspath(path) for path in given if path is not None}
    for what, others in (
        ("sums of movies that are there too", [k for k, m in found.items() if m.path in sums]),
        ("references of the camera", [key for key in found if key in own]),
    ):
        if others and len(others) < len(found):
            listed = ", ".join(os.path.basename(key) for key in others[:2])
            more = ", ..." if len(others) > 2 else ""
            report(f"left out, as {what}: {len(others)} ({listed}{more})")
            found = {key: movie for key, movie in found.items() if key not in others}
    if repeated:
        others = ", ..." if len(repeated) > 1 else ""
        report(
            f"{len(repeated)} inputs are named more than once and taken once"
            f" ({repeated[0]}{others})"
        )
    movies = list(found.values())
    names = _names([movie.path for movie in movies], os.path.commonpath(roots), report)
    return [
        InputMovie(movie.path, name, movie.optics, movie.gain)
        for name, movie in zip(names, movies, strict=True)
    ]


@dataclass(frozen=True)
class _Found:
    """A movie that an argument names, and what a STAR file says of it."""

    path: Path
    optics: dict[str, Any] = field(default_factory=dict)
    gain: Path | None = None


def _expand(argument: str) -> Iterator[_Found]:
    if argument.startswith("@") and not os.path.exists(argument):
        yield from _listed(Path(argument[1:]))
    elif _is_pattern(argument):
        yield from _matching(argument)
    elif os.path.isdir(argument):
        yield from _in_folder(Path(argument))
    else:
        yield from _from_file(Path(argument))


def _is_pattern(argument: str) -> bool:
    """Whether this is a wildcard, and not the name of a file that has such signs."""
    return glob.has_magic(argument) and not os.path.lexists(argument)


def _pattern_root(argument: str) -> str | None:
    """The folder below which all files of a wildcard lie, whichever of them are there yet; None
    where `argument` is no wildcard.
    """
    if argument.startswith("@") or not _is_pattern(argument):
        return None
    parts = Path(argument).parts
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), parts)
    return os.path.abspath(Path(*fixed))


def _matching(pattern: str) -> Iterator[_Found]:
    matches = map(Path, glob.glob(pattern, recursive=True))
    paths = sorted(path for path in matches if not path.is_dir())
    if not paths:
        raise BadInputError(f"no file matches {pattern}; check the pattern")
    for path in without_other_files(paths):
        yield from _from_file(path)


def _in_folder(folder: Path) -> Iterator[_Found]:
    paths = sorted(path for path in folder.iterdir() if _is_visible_movie(path))
    if not paths:
        raise BadInputError(
            f"no movie lies in the folder {folder}; name the movies, or a pattern such as"
            f" '{folder}/**/*.tif'"
        )
    for path in paths:
        yield _Found(path)


def _is_visible_movie(path: Path) -> bool:
    is_hidden = path.name.startswith(".")
    return is_movie_name(path) and not is_hidden and not path.is_dir()


def _from_file(path: Path) -> Iterator[_Found]:
    if path.suffix.lower() == ".star":
        yield from _starred(path)
    else:
        yield _Found(path)


def _listed(path: Path) -> Iterator[_Found]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no text, or a null byte in the path
        raise BadInputError(
            f"cannot read the list {path}: {_reason(error)}; give a text file of one path a line"
        ) from error
    names = []
    for line in text.splitlines():
        name = line.strip()
        is_comment = name.startswith("#")
        if name and not is_comment:
            names.append(name)
    if not names:
        raise BadInputError(f"the list {path} names no movie; write one path a line")
    finder = _Finder(path)
    for name in names:
        yield _Found(finder(name))


def _starred(path: Path) -> Iterator[_Found]:
    tables = _read_tables(path)
    table, column = _movie_table(path, tables)
    groups = _optics_groups(path, tables, table)
    finder = _Finder(path)
    gain_finder = _Finder(path)
    for row in _rows(table):
        own = {name: row[name] for name in _OPTICS_COLUMNS if name in row}
        group = str(row.get(_GROUP_COLUMN))
        optics = {**own, **groups.get(group, {})}
        movie = finder(str(row[column]))
        gain_name = str(row.get(_GAIN_COLUMN, "None"))
        gain = None
        if gain_name not in _EMPTY_CELLS:
            gain = gain_finder(gain_name)
        yield _Found(movie, optics, gain)


def _read_tables(path: Path) -> dict[str, pd.DataFrame]:
    try:
        blocks = starfile.read(path, always_dict=True)
        return {str(name): _as_table(block) for name, block in blocks.items()}
    except Exception as error:  # a damaged file surfaces as nearly every kind of error
        raise BadInputError(
            f"cannot read the STAR file {path}: {_reason(error)}; give a table of movies that"
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


class _Finder:
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


def _names(paths: Sequence[Path], common: str, report: Callable[[str], None]) -> list[str]:
    """Names below `common` that tell all of `paths` apart; where two files differ in their suffix
    alone, the later one's holds its own.
    """
    taken: dict[str, Path] = {}
    for path in paths:
        relative = os.path.relpath(os.path.abspath(path), common)
        folder = PurePosixPath(relative).parent
        plain = str(folder / movie_stem(path))
        name = plain
        if name in taken:
            name = str(folder / path.name.replace(".", "_"))
            number = 2
            while name in taken:
                name = f"{plain}_{number}"
                number += 1
            report(f"{path}: outputs are named {name}, since {plain} are those of {taken[plain]}")
        taken[name] = path
    return list(taken)


def _reason(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error)
    line = " ".join(text.split())
    return line[:_LONGEST_REASON] or type(error).__name__
