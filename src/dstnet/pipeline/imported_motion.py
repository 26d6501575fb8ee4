"""Motion found by another program, or by an earlier run: read from RELION's STAR files instead of
being estimated.
"""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import starfile

from dstnet.errors import BadInputError
from dstnet.io.movie_file import movie_stem
from dstnet.motion import Motion
from dstnet.pipeline.inputs import InputMovie

_METADATA_COLUMN = "rlnMicrographMetadata"


def imported_motion(source: Path, movie: InputMovie, frames: Sequence[int]) -> Motion:
    """The motion of `frames` (numbers in the file, from 0) of a movie.

    Parameters
    ----------
    source
        A folder that holds ``NAME.star`` (NAME with its sub-folder, as outputs are called; also
        below ``micrographs``), a table of micrographs with ``rlnMicrographMetadata`` (RELION's
        corrected_micrographs.star), or the STAR file of one movie.
    movie
        The movie.
    frames
        Which frames are worked on.

    Raises
    ------
    BadInputError
        If there is no motion of this movie, or it is of fewer frames.
    """
    path = _folder_file(source, movie) if source.is_dir() else _table_file(source, movie)
    motion = Motion.from_relion(_read(path))
    count = len(motion.global_shift_angstrom)
    if max(frames) >= count:
        raise BadInputError(
            f"{path} has the motion of {count} frames, {movie.path} has more; give the motion of"
            " this movie"
        )
    return motion.window(frames).centred()


def _folder_file(folder: Path, movie: InputMovie) -> Path:
    for path in (folder / f"{movie.name}.star", folder / "micrographs" / f"{movie.name}.star"):
        if path.is_file():
            return path
    raise BadInputError(
        f"no motion of {movie.path}: {folder} has no {movie.name}.star; pass the folder that"
        " holds it"
    )


def _table_file(source: Path, movie: InputMovie) -> Path:
    """The file of one movie that `source` names, or is."""
    tables = _read(source)
    if "global_shift" in tables:
        return source
    for row in _metadata_rows(tables):
        named = row.get("rlnMicrographMovieName", row.get("rlnMicrographName", ""))
        metadata = str(row[_METADATA_COLUMN])
        # RELION's own tables name the sums, not the movies: these and their metadata share the
        # movie's name.
        stems = {movie_stem(Path(str(named))), movie_stem(Path(metadata))}
        if movie_stem(movie.path) in stems:
            return _found_above(source, metadata, movie)
    raise BadInputError(
        f"{source} has no {_METADATA_COLUMN} of {movie.path}; give the table of the motion"
        " correction of this movie"
    )


def _metadata_rows(tables: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for table in tables.values():
        if _METADATA_COLUMN in getattr(table, "columns", ()):
            yield from table.to_dict("records")


def _found_above(source: Path, metadata: str, movie: InputMovie) -> Path:
    """A file that a table names, from the current folder or from one above the table."""
    for base in (Path(), *source.absolute().parents):
        if os.path.exists(base / metadata):
            return base / metadata
    raise BadInputError(
        f"{source} names {metadata} for {movie.path}, which is not there; keep RELION's job folder"
        " with it"
    )


@lru_cache(maxsize=2)  # one table serves all movies
def _read(path: Path) -> dict[str, Any]:
    try:
        blocks = starfile.read(path, always_dict=True)
    except Exception as error:  # a damaged file surfaces as nearly every kind of error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadInputError(
            f"cannot read the motion in {path}: {reason}; give a STAR file of RELION's motion"
            " correction"
        ) from None
    return {str(name): block for name, block in blocks.items()}
