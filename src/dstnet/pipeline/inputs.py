"""What a user names as inputs, as a list of movies: paths, folders, wildcards, ``@list.txt`` and
RELION STAR files.
"""

import glob
import os
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstnet.core.regular_files import TABLE_BYTES, read_regular
from dstnet.errors import BadInputError
from dstnet.io.movie_file import is_movie_name
from dstnet.pipeline.companions import sums_of_movies, without_other_files
from dstnet.pipeline.naming import movie_identity, result_name
from dstnet.pipeline.star_inputs import FileFinder, FoundMovie, reason, star_movies
from dstnet.pipeline.star_row import StarRow

_LONGEST_PATH = 4096  # bytes, of any path


class NothingThereError(BadInputError):
    """A folder or a pattern names no movie, which may change."""


@dataclass(frozen=True)
class InputMovie:
    """A movie file to work on; whether it is there, and is a movie, shows when it is opened.

    Parameters
    ----------
    path
        The file.
    name
        What its outputs are called, with their sub-folder; see `dstnet.pipeline.naming`. Other
        inputs have no part in it.
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
    arguments: Sequence[str | Path],
    *,
    report: Callable[[str], None] = lambda line: None,
    references: Iterable[Path | None] = (),
    pass_over: Callable[[BadInputError], None] | None = None,
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
        current folder, else at the file's own or the nearest one above it where the movie is found;
        what is two files so is refused.
    report
        Gets a line on whatever was left out.
    references
        Files of the camera's references that are given beside: no movies where they lie among them.
    pass_over
        Gets why an argument names no movie, while the others count; without it, that is raised.

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
    found: dict[str, FoundMovie] = {}
    repeated: list[Path] = []
    for argument in arguments:
        for movie in _expanded(str(argument), report, pass_over):
            key = movie_identity(movie.path)
            if key in found:
                found[key] = _either(found[key], movie)
                repeated.append(movie.path)
            else:
                found[key] = movie
    if not found and pass_over is None:
        raise BadInputError("no input is given; name movies, folders, @lists or STAR files")
    sums = sums_of_movies(movie.path for movie in found.values())
    given = [*references, *(movie.gain for movie in found.values())]
    own = {movie_identity(path) for path in given if path is not None}
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
    return [
        InputMovie(
            movie.path,
            result_name(movie.path, movie.written),
            movie.row,
            movie.gain,
            movie.defects,
        )
        for movie in found.values()
    ]


def _either(first: FoundMovie, second: FoundMovie) -> FoundMovie:
    """One movie that is named twice, with what is said of it.

    Raises
    ------
    BadInputError
        If that is not the same.
    """
    if second.row is None:
        return first
    if first.row is None:
        return second
    difference = first.row.difference(second.row)
    if difference is not None:
        raise BadInputError(
            f"{first.path} is named twice, with {difference}; leave one of them out, or repair it"
        )
    return first


Report = Callable[[str], None]


def _expanded(
    argument: str, report: Report, pass_over: Callable[[BadInputError], None] | None
) -> Iterator[FoundMovie]:
    if pass_over is None:
        yield from _expand(argument, report)
        return
    try:
        movies = list(_expand(argument, report))
    except BadInputError as error:
        pass_over(error)
    else:
        yield from movies


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


def _matching(pattern: str, report: Report) -> Iterator[FoundMovie]:
    matches = map(Path, _glob(pattern))
    paths = sorted(path for path in matches if not os.path.isdir(path))
    if not paths:
        raise NothingThereError(f"no file matches {pattern}; check the pattern")
    for path in without_other_files(paths):
        yield from _from_file(path, report)


def _glob(pattern: str) -> set[str]:
    """What matches a wildcard; with ``**`` each folder once, though links may lead to it again and
    again.
    """
    if os.path.basename(pattern) == "**":
        pattern += "/*"
    start, deep, rest = f"/{pattern}".partition("/**/")
    if not deep:
        return set(glob.glob(pattern))
    start = start[1:] + "/" if start else pattern[:1] * pattern.startswith("/")
    found = set()
    seen = set()
    waiting = sorted(glob.glob(start)) if start else [""]
    while waiting:
        folder = waiting.pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        here = glob.escape(folder)
        found |= _glob(here + rest)
        waiting += sorted(glob.glob(f"{here}*/"))
    return found


def _in_folder(folder: Path) -> Iterator[FoundMovie]:
    try:
        paths = sorted(path for path in folder.iterdir() if _is_visible_movie(path))
    except OSError as error:
        raise BadInputError(
            f"cannot list the folder {folder}: {reason(error)}; make it readable, or leave it out"
        ) from error
    if not paths:
        raise NothingThereError(
            f"no movie lies in the folder {folder}; name the movies, or a pattern such as"
            f" '{folder}/**/*.tif'"
        )
    for path in paths:
        yield FoundMovie(path)


def _is_visible_movie(path: Path) -> bool:
    is_hidden = path.name.startswith(".")
    return is_movie_name(path) and not is_hidden and not os.path.isdir(path)


def _from_file(path: Path, report: Report) -> Iterator[FoundMovie]:
    if path.suffix.lower() == ".star":
        yield from star_movies(path, report)
    else:
        yield FoundMovie(path)


def _listed(path: Path) -> Iterator[FoundMovie]:
    advice = "give a text file of one path a line"
    try:
        lines = os.fsdecode(read_regular(path, TABLE_BYTES).removeprefix(BOM_UTF8)).split("\n")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise BadInputError(f"cannot read the list {path}: {reason(error)}; {advice}") from error
    finder = FileFinder(path)
    is_empty = True
    for number, line in enumerate(lines, 1):
        if len(line) > _LONGEST_PATH:
            raise BadInputError(
                f"cannot read the list {path}: line {number} has {len(line)} characters, more than"
                f" a path may have; {advice}"
            )
        name = _listed_name(line.removesuffix("\r"), finder)
        if not name:
            continue
        is_empty = False
        movie = finder(name)
        # The bytes of a name are free, if it is one.
        if not name.isprintable() and not os.path.lexists(movie):
            raise BadInputError(f"cannot read the list {path}: it is no UTF-8 text; {advice}")
        yield FoundMovie(movie, written=name)
    if is_empty:
        raise BadInputError(f"the list {path} names no movie; write one path a line")


def _listed_name(line: str, finder: FileFinder) -> str | None:
    """The movie that a line names; None where it is empty or a comment."""
    name = line.strip()
    if not name or name.startswith("#"):
        return None
    is_name_with_blanks = name != line and os.path.lexists(finder(line))
    return line if is_name_with_blanks else name
