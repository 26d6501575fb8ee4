"""Which STAR file has the motion of a movie.

RELION names sums and motion by the movie's path, dots made underscores, and tells in each motion
file which movie it is of (``rlnMicrographMovieName``). That path decides, never the file's name
alone where two movies share it: grid squares and sessions hold files of the same names.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote_to_bytes

from dstnet.core.regular_files import open_regular
from dstnet.errors import BadInputError
from dstnet.io.movie_file import movie_stem
from dstnet.io.star import read_blocks
from dstnet.io.star_table import read_star
from dstnet.pipeline.inputs import InputMovie

_METADATA_COLUMN = "rlnMicrographMetadata"
_MOVIE_COLUMN = "rlnMicrographMovieName"
_MOTION_BLOCK = "data_global_shift"
_MOVIE_LINE = re.compile(rf"^\s*_{_MOVIE_COLUMN}\s+(\S.*?)\s*$", re.MULTILINE)
_BLOCK_LINE = re.compile(rf"^\s*{_MOTION_BLOCK}\s*$", re.MULTILINE)
_LOOP_LINE = re.compile(r"^\s*loop_\s*$", re.MULTILINE)  # names may hold it too
_COMPARED_BYTES = 1 << 20
_HEAD_BYTES = 1 << 14  # of a motion file: its general values and the start of its shifts
_NEW_FILES_SECONDS = 5.0  # a folder is looked through again no sooner


@dataclass(frozen=True)
class _MotionFile:
    """A STAR file of one movie.

    Attributes
    ----------
    path
        The file.
    movie_name
        The movie that it is of, as it is written.
    is_named
        Whether anything names the movie; else `movie_name` is the file's own path, or empty for a
        file that the user gave himself.
    """

    path: Path
    movie_name: str
    is_named: bool = True

    @classmethod
    def of(cls, path: Path, movie_name: str | None, otherwise: str) -> Self:
        """A file that names its movie, or does not."""
        return cls(path, movie_name or otherwise, movie_name is not None)


class MotionSource:
    """The motion files that a user named.

    Parameters
    ----------
    source
        A folder below which they lie (RELION's job, or a run of ours), a table of micrographs with
        ``rlnMicrographMetadata`` (RELION's corrected_micrographs.star), or the STAR file of one
        movie.

    Raises
    ------
    BadInputError
        If it cannot be read.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self.read_at = time.monotonic()
        self._files: dict[str, list[_MotionFile]] = {}
        files = _in_folder(source) if source.is_dir() else _in_file(source)
        for file in files:
            self._files.setdefault(_plain_stem(file.movie_name), []).append(file)

    def file_of(self, movie: InputMovie) -> Path:
        """The STAR file of a movie.

        Raises
        ------
        BadInputError
            If there is none, or it cannot be told which one it is.
        """
        path = Path(os.path.abspath(movie.path))
        why = "has no movie of this name"
        named = self._files.get(_plain_stem(path.name)) or self._files.get("", [])
        if named:
            why = f"has that of {named[0].movie_name}, which is another file"
        elif not self._files:
            why = "holds no motion file"
        found = self._files_of(path, named)
        if not found:
            raise BadInputError(
                f"no motion of {movie.path}: {self._source} {why}; give the motion correction of"
                " this movie"
            )
        files = {file.path.resolve(): file.path for file in found}
        if len(files) > 1:
            first, second, *_ = files.values()
            raise BadInputError(
                f"{self._source} has two motions of {movie.path}: {first} and {second}; give the"
                " one that is meant"
            )
        self._check_own_name(found[0].path, path)
        return found[0].path

    def _check_own_name(self, file: Path, movie: Path) -> None:
        """Refuse a file that a table gives to a movie, and that is of another one."""
        own = _movie_in(_head(file)) if file.is_file() else None
        original = _found_above(self._source, own) if own else None
        if original and not _is_same(original, movie):
            raise BadInputError(
                f"{self._source} gives {movie} the motion in {file}, which is that of {own}; repair"
                " the table"
            )

    def _files_of(self, path: Path, named: list[_MotionFile]) -> list[_MotionFile]:
        """Those of the files, all of movies named as this one, that are of this one."""
        elsewhere = []
        same = []
        for file in named:
            original = _found_above(self._source, file.movie_name) if file.is_named else None
            if original is None:
                elsewhere.append(file)
            elif _is_same(original, path):
                same.append(file)
        if same:
            return same
        tails = [_common_tail(file.movie_name, path) for file in elsewhere]
        longest = max(tails, default=0)
        # The name alone does not tell which of several movies this is.
        if longest < 2 and len(named) > 1:
            return []
        pairs = zip(elsewhere, tails, strict=True)
        return [file for file, tail in pairs if tail == longest]


def shared_motion(source: Path, movies: Iterable[InputMovie | None]) -> dict[str, str]:
    """Movies, by name, that would be given the same motion file as another one, and why they are
    refused.
    """
    claims: dict[Path, list[InputMovie]] = {}
    for movie in movies:
        if movie is None:
            continue
        try:
            file = _motion_source(source).file_of(movie)
        except BadInputError:
            continue  # its turn to be refused comes
        claims.setdefault(file.resolve(), []).append(movie)
    refused = {}
    for file, sharing in claims.items():
        first = sharing[0]
        if all(_is_same(first.path, other.path) for other in sharing):
            continue
        for movie in sharing:
            other = first if movie is not first else sharing[1]
            refused[movie.name] = (
                f"{movie.path} and {other.path} would both get the motion in {file}; give the"
                " motion correction of each"
            )
    return refused


def motion_file_of(movie: InputMovie, source: Path) -> Path:
    """The STAR file of a movie at a `MotionSource`, which is read once and again when it has
    changed.

    Raises
    ------
    BadInputError
        As `MotionSource` and its `file_of`.
    """
    files = _motion_source(source)
    try:
        return files.file_of(movie)
    except BadInputError:
        is_old = time.monotonic() - files.read_at > _NEW_FILES_SECONDS
        if not (source.is_dir() and is_old):
            raise
    _read_source.cache_clear()
    return _motion_source(source).file_of(movie)


def doubt_of_name(source: Path, movie: InputMovie, written: str | None) -> str | None:
    """What is to be said where a motion file names its movie as `written`, and nothing but the
    file's own name says that it is this one: it is no longer there, and its folder is called
    otherwise. None where there is no doubt.
    """
    if written is None or _found_above(source, written) is not None:
        return None
    if (
        Path(written).parent == Path()
        or _common_tail(written, Path(os.path.abspath(movie.path))) > 1
    ):
        return None
    return (
        f"the motion given is of {written}, which is not there: told by the name of the file alone"
    )


def _motion_source(source: Path) -> MotionSource:
    try:
        state = source.stat()
    except OSError as error:
        raise BadInputError(
            f"cannot read the motion in {source}: {error.strerror}; check the path"
        ) from None
    return _read_source(source, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _read_source(source: Path, time_ns: int, size: int) -> MotionSource:
    return MotionSource(source)


def _in_folder(folder: Path) -> Iterator[_MotionFile]:
    """Below a folder, whatever the files' names are."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix == ".star" and not name.startswith(".") and path.is_file():
                text = _head(path)
                if _BLOCK_LINE.search(text):
                    yield _MotionFile.of(path, _movie_in(text), str(path.relative_to(folder)))


def _in_file(source: Path) -> Iterator[_MotionFile]:
    """That a table names, or the file itself."""
    text = _head(source)
    if _BLOCK_LINE.search(text):
        yield _MotionFile.of(source, _movie_in(text), "")
        return
    for row in _rows(source):
        metadata = row[_METADATA_COLUMN]
        path = _found_above(source, metadata)
        movie = row.get(_MOVIE_COLUMN)
        if movie is None and path is not None:
            movie = _movie_in(_head(path))
        # A file that is missing is missed by the movie that needs it alone.
        yield _MotionFile.of(path or Path(metadata), movie, metadata)


def _rows(source: Path) -> Iterator[dict[str, str]]:
    """Those of a table that names motion files; names stay as they are written."""
    tables = [table for table in read_star(source) if _METADATA_COLUMN in table.columns]
    if not tables:
        raise BadInputError(
            f"{source} names no motion: it has neither {_METADATA_COLUMN} nor {_MOTION_BLOCK}; give"
            " the corrected_micrographs.star, or the motion file, that motion correction wrote"
        )
    for table in tables:
        yield from table.records()


def read_tables(path: Path) -> dict[str, Any]:
    """The blocks of a STAR file by name.

    Raises
    ------
    BadInputError
        If it cannot be read.
    """
    try:
        return read_blocks(path)
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"cannot read the motion in {path}: {getattr(error, 'strerror', None) or error}; give a"
            " STAR file of a motion correction"
        ) from None


def _head(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return file.read(_HEAD_BYTES).decode("utf-8", "surrogateescape")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise BadInputError(
            f"cannot read the motion in {path}: {getattr(error, 'strerror', None) or error}; give a"
            " STAR file of a motion correction"
        ) from None


def _movie_in(text: str) -> str | None:
    """The movie that a STAR file of one movie names, among the values before its first table."""
    values = _LOOP_LINE.split(text, maxsplit=1)[0]
    line = _MOVIE_LINE.search(values)
    return line[1].strip("\"'") if line else None


def _found_above(listing: Path, name: str) -> Path | None:
    """A file named relative to a project: below a folder above the listing, where RELION's jobs
    lie, else below the current one.
    """
    for base in (*listing.absolute().parents, Path()):
        for spelling in (name, _decoded(name)):
            if os.path.isfile(base / spelling):
                return base / spelling
    return None


def _decoded(name: str) -> str:
    """A name with its %XX as bytes: our tables write so what STAR cannot hold."""
    return os.fsdecode(unquote_to_bytes(os.fsencode(name)))


def _is_same(a: Path, b: Path) -> bool:
    """Whether two paths hold one movie, or a copy of it."""
    try:
        if os.path.samefile(a, b):
            return True
        if not (os.path.isfile(a) and os.path.isfile(b)):
            return False
        with open(a, "rb") as first, open(b, "rb") as second:
            size = os.fstat(first.fileno()).st_size
            if size != os.fstat(second.fileno()).st_size:
                return False
            # Counts of two exposures differ at once.
            for place in (0, max(0, size - _COMPARED_BYTES)):
                first.seek(place)
                second.seek(place)
                if first.read(_COMPARED_BYTES) != second.read(_COMPARED_BYTES):
                    return False
            return True
    except OSError:
        return False


def _plain_stem(name: str) -> str:
    """A movie's name as RELION's files of it are named."""
    return movie_stem(Path(_decoded(name))).replace(".", "_")


def _common_tail(name: str, path: Path) -> int:
    """How many parts of two paths agree, from the files' names up."""
    count = 0
    for ours, theirs in zip(_plain_parts(path), _plain_parts(Path(name)), strict=False):
        if ours != theirs:
            break
        count += 1
    return count


def _plain_parts(path: Path) -> list[str]:
    folders = Path(os.path.normpath(path)).parts[:-1]
    plain = [_decoded(part).replace(".", "_") for part in reversed(folders)]
    return [_plain_stem(path.name), *plain]
