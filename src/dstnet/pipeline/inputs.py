"""What a user names as inputs, as a list of movies: paths, folders, wildcards, ``@list.txt`` and
RELION STAR files.
"""

import glob
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dstnet.errors import BadInputError
from dstnet.io.movie_file import is_movie_name, movie_stem
from dstnet.pipeline.star_inputs import FileFinder, FoundMovie, reason, star_movies
from dstnet.pipeline.star_row import StarRow


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
    row
        What a STAR file says of this movie: its own row and that of its optics group.
    gain, defects
        Gain reference and file of defects that a STAR file names for this movie.
    """

    path: Path
    name: str
    row: StarRow | None = None
    gain: Path | None = None
    defects: Path | None = None

    @property
    def optics(self) -> dict[str, Any]:
        """Of a STAR file, the movie's optics group by RELION's names (``rlnVoltage`` in kV,
        ``rlnMicrographOriginalPixelSize`` in Å, ...); else nothing.
        """
        return {} if self.row is None else self.row.optics


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
    found: dict[str, FoundMovie] = {}
    repeated: list[Path] = []
    roots: set[str] = set()
    for argument in arguments:
        root = _pattern_root(str(argument))
        for movie in _expand(str(argument), report):
            key = os.path.abspath(movie.path)
            if key in found:
                found[key] = _either(found[key], movie)
                repeated.append(movie.path)
                continue
            found[key] = movie
            # A STAR file that a wildcard found may name movies elsewhere.
            parent = os.path.dirname(key)
            is_below = root is not None and os.path.commonpath([root, parent]) == root
            roots.add(root if root is not None and is_below else parent)
    if not found:
        raise BadInputError("no input is given; name movies, folders, @lists or STAR files")
    if repeated:
        others = ", ..." if len(repeated) > 1 else ""
        report(
            f"{len(repeated)} inputs are named more than once and taken once"
            f" ({repeated[0]}{others})"
        )
    movies = list(found.values())
    names = _names([movie.path for movie in movies], os.path.commonpath(roots), report)
    return [
        InputMovie(movie.path, name, movie.row, movie.gain, movie.defects)
        for name, movie in zip(names, movies, strict=True)
    ]


def _either(first: FoundMovie, second: FoundMovie) -> FoundMovie:
    """One movie that is named twice, with what is said of it.

    Raises
    ------
    BadInputError
        If that is not the same.
    """
    if first.row is None or second.row is None:
        return second if first.row is None else first
    difference = first.row.difference(second.row)
    if difference is not None:
        raise BadInputError(
            f"{first.path} is named twice, with {difference}; leave one of them out, or repair it"
        )
    return first


Report = Callable[[str], None]


def _expand(argument: str, report: Report) -> Iterator[FoundMovie]:
    if argument.startswith("@") and not os.path.exists(argument):
        yield from _listed(Path(argument[1:]))
    elif _is_pattern(argument):
        yield from _matching(argument, report)
    elif os.path.isdir(argument):
        yield from _in_folder(Path(argument))
    else:
        yield from _from_file(Path(argument), report)


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


def _matching(pattern: str, report: Report) -> Iterator[FoundMovie]:
    matches = map(Path, glob.glob(pattern, recursive=True))
    paths = sorted(path for path in matches if not path.is_dir())
    if not paths:
        raise BadInputError(f"no file matches {pattern}; check the pattern")
    for path in paths:
        yield from _from_file(path, report)


def _in_folder(folder: Path) -> Iterator[FoundMovie]:
    paths = sorted(path for path in folder.iterdir() if _is_visible_movie(path))
    if not paths:
        raise BadInputError(
            f"no movie lies in the folder {folder}; name the movies, or a pattern such as"
            f" '{folder}/**/*.tif'"
        )
    for path in paths:
        yield FoundMovie(path)


def _is_visible_movie(path: Path) -> bool:
    is_hidden = path.name.startswith(".")
    return is_movie_name(path) and not is_hidden and not path.is_dir()


def _from_file(path: Path, report: Report) -> Iterator[FoundMovie]:
    if path.suffix.lower() == ".star":
        yield from star_movies(path, report)
    else:
        yield FoundMovie(path)


def _listed(path: Path) -> Iterator[FoundMovie]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no text, or a null byte in the path
        raise BadInputError(
            f"cannot read the list {path}: {reason(error)}; give a text file of one path a line"
        ) from error
    names = []
    for line in text.splitlines():
        name = line.strip()
        is_comment = name.startswith("#")
        if name and not is_comment:
            names.append(name)
    if not names:
        raise BadInputError(f"the list {path} names no movie; write one path a line")
    finder = FileFinder(path)
    for name in names:
        yield FoundMovie(finder(name))


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
