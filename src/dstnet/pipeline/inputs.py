"""What a user names as inputs, as a list of movies: paths, folders, wildcards, ``@list.txt`` and
RELION STAR files.
"""

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd
import starfile

from dstnet.errors import BadInputError
from dstnet.io.movie_file import is_movie_name, movie_stem

_MOVIE_COLUMNS = (
    "rlnMicrographMovieName",
    "rlnMicrographName",
)  # the first that a table has counts
_GROUP_COLUMN = "rlnOpticsGroup"
_GAIN_COLUMN = "rlnMicrographGainName"
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
    optics: Mapping[str, str | float | int] = field(default_factory=dict)
    gain: Path | None = None


def read_inputs(
    arguments: Sequence[str | Path], *, report: Callable[[str], None] = lambda line: None
) -> list[InputMovie]:
    """The movies that `arguments` name, in their order, each once.

    Parameters
    ----------
    arguments
        Each is the path of a movie; a folder (its movies, by name, without those of its
        sub-folders); a wildcard that the shell left as it was (``*``, ``?``, ``[...]``, ``**`` for
        any depth); ``@FILE``, a list of one path a line, in which empty lines and those that start
        with ``#`` do not count; or a RELION STAR file with a table of movies or micrographs. Paths
        inside a list or a STAR file start at the current folder, else at the file's own or the
        nearest one above it where the movie is found.
    report
        Gets a line on whatever was left out or named differently than expected.

    Returns
    -------
    list of InputMovie
        A single movie that is missing is among them, and fails when it is opened.

    Raises
    ------
    BadInputError
        If nothing is given, a wildcard or a folder has no movie, or a list or STAR file cannot be
        read or names none.
    """
    found: dict[str, tuple[Path, dict, Path | None]] = {}
    repeated: list[Path] = []
    roots: set[str] = set()
    for argument in arguments:
        root = _root(str(argument))
        for path, optics, gain in _expand(str(argument)):
            key = os.path.abspath(path)
            if key in found:
                repeated.append(path)
            else:
                found[key] = (path, optics, gain)
                parent = os.path.dirname(
                    key
                )  # a STAR file that a wildcard found may name movies elsewhere
                roots.add(root if root and os.path.commonpath([root, parent]) == root else parent)
    if not found:
        raise BadInputError("no input is given; name movies, folders, @lists or STAR files")
    if repeated:
        report(
            f"{len(repeated)} inputs are named more than once and taken once"
            f" ({repeated[0]}{', ...' if len(repeated) > 1 else ''})"
        )
    names = _names([path for path, _, _ in found.values()], os.path.commonpath(roots), report)
    return [
        InputMovie(path, name, optics, gain)
        for name, (path, optics, gain) in zip(names, found.values(), strict=True)
    ]


def _expand(argument: str) -> Iterator[tuple[Path, dict, Path | None]]:
    if argument.startswith("@") and not os.path.exists(argument):
        yield from ((path, {}, None) for path in _listed(Path(argument[1:])))
    elif glob.has_magic(argument) and not os.path.lexists(argument):
        paths = sorted(Path(p) for p in glob.glob(argument, recursive=True) if not os.path.isdir(p))
        if not paths:
            raise BadInputError(f"no file matches {argument}; check the pattern")
        for path in paths:
            yield from _from_file(path)
    elif os.path.isdir(argument):
        paths = sorted(
            p
            for p in Path(argument).iterdir()
            if is_movie_name(p) and not p.name.startswith(".") and not p.is_dir()
        )
        if not paths:
            raise BadInputError(
                f"no movie lies in the folder {argument}; name the movies, or a pattern such as"
                f" '{argument}/**/*.tif'"
            )
        yield from ((path, {}, None) for path in paths)
    else:
        yield from _from_file(Path(argument))


def _root(argument: str) -> str | None:
    """The folder below which all files of a wildcard lie, whichever of them are there yet; None
    where `argument` is none.
    """
    if argument.startswith("@") or not glob.has_magic(argument) or os.path.lexists(argument):
        return None
    parts = Path(argument).parts
    return os.path.abspath(
        Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
    )


def _from_file(path: Path) -> Iterator[tuple[Path, dict, Path | None]]:
    if path.suffix.lower() == ".star":
        yield from _starred(path)
    else:
        yield path, {}, None


def _listed(path: Path) -> Iterator[Path]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:  # ValueError: no text, or a null byte in the path
        raise BadInputError(
            f"cannot read the list {path}: {_reason(error)}; give a text file of one path a line"
        ) from error
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise BadInputError(f"the list {path} names no movie; write one path a line")
    finder = _Finder(path)
    yield from (finder(name) for name in names)


def _starred(path: Path) -> Iterator[tuple[Path, dict, Path | None]]:
    try:
        blocks = starfile.read(path, always_dict=True)
        tables = {str(name): _table(block) for name, block in blocks.items()}
    except Exception as error:  # a damaged file surfaces as nearly every kind of error
        raise BadInputError(
            f"cannot read the STAR file {path}: {_reason(error)}; give a table of movies that"
            " RELION can read"
        ) from error
    movies = next(
        ((t, c) for c in _MOVIE_COLUMNS for t in tables.values() if c in t.columns and len(t)), None
    )
    if movies is None:
        raise BadInputError(
            f"{path} has no table with {' or '.join(_MOVIE_COLUMNS)}; give RELION's movies.star or"
            " a micrographs table"
        )
    table, column = movies
    groups = _optics_groups(path, tables, table)
    finder, gain_finder = _Finder(path), _Finder(path)
    for row in table.to_dict("records"):
        own = {c: row[c] for c in _OPTICS_COLUMNS if c in row}
        gain = str(row.get(_GAIN_COLUMN, "None"))
        yield (
            finder(str(row[column])),
            {**own, **groups.get(str(row.get(_GROUP_COLUMN)), {})},
            gain_finder(gain) if gain not in ("None", "nan", "") else None,
        )


def _table(block: object) -> pd.DataFrame:
    return block if isinstance(block, pd.DataFrame) else pd.DataFrame([block])


def _optics_groups(
    path: Path, tables: dict[str, pd.DataFrame], movies: pd.DataFrame
) -> dict[str, dict]:
    """Rows of the optics table by group."""
    optics = next(
        (t for name, t in tables.items() if name == "optics" and _GROUP_COLUMN in t.columns), None
    )
    if optics is None:
        return {}
    groups = {str(row[_GROUP_COLUMN]): row for row in optics.to_dict("records")}
    if _GROUP_COLUMN in movies.columns and (
        unknown := {str(g) for g in movies[_GROUP_COLUMN]} - set(groups)
    ):
        raise BadInputError(
            f"{path} has movies of optics group {min(unknown)}, which its optics table lacks; mend"
            " the STAR file"
        )
    return groups


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
            if os.path.exists(base / name):
                if base != self._bases[0]:  # the next one lies there too, most likely
                    self._bases = [base, *(b for b in self._bases if b != base)]
                return base / name
        return Path(name)


def _names(paths: Sequence[Path], common: str, report: Callable[[str], None]) -> list[str]:
    """Names below `common` that tell all of `paths` apart; where two files differ in their suffix
    alone, the later one's holds its own.
    """
    names: list[str] = []
    taken: dict[str, Path] = {}
    for path in paths:
        folder = PurePosixPath(os.path.relpath(os.path.dirname(os.path.abspath(path)), common))
        name = plain = str(folder / movie_stem(path))
        if name in taken:
            name = str(folder / path.name.replace(".", "_"))
            number = 2
            while name in taken:
                name, number = f"{plain}_{number}", number + 1
            report(f"{path}: outputs are named {name}, since {plain} are those of {taken[plain]}")
        taken[name] = path
        names.append(name)
    return names


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:200] or type(error).__name__
