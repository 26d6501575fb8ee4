"""Motion found by another program, or by an earlier run: read from RELION's STAR files instead of
being estimated.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import starfile

from dstnet.alignment import MovieMotion
from dstnet.errors import BadInputError
from dstnet.io.movie_file import movie_stem
from dstnet.motion.relion import from_relion
from dstnet.pipeline.inputs import InputMovie


def given_motion(source: Path, movie: InputMovie, frames: Sequence[int]) -> MovieMotion:
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
    shifts, local = from_relion(_read(path))
    if max(frames) >= len(shifts):
        raise BadInputError(
            f"{path} has the motion of {len(shifts)} frames, {movie.path} has more; give the motion"
            " of this movie"
        )
    chosen = list(frames)
    shifts, local = shifts[chosen], local[chosen]
    return MovieMotion(shifts - shifts.mean(0), local - local.mean(0))


def _folder_file(folder: Path, movie: InputMovie) -> Path:
    for path in (folder / f"{movie.name}.star", folder / "micrographs" / f"{movie.name}.star"):
        if path.is_file():
            return path
    raise BadInputError(
        f"no motion of {movie.path}: {folder} has no {movie.name}.star; pass the folder that"
        " holds it"
    )


def _table_file(source: Path, movie: InputMovie) -> Path:
    tables = _read(source)
    if "global_shift" in tables:
        return source
    for table in tables.values():
        if "rlnMicrographMetadata" not in getattr(table, "columns", ()):
            continue
        for row in table.to_dict("records"):
            named = str(row.get("rlnMicrographMovieName", row.get("rlnMicrographName", "")))
            metadata = str(row["rlnMicrographMetadata"])
            # RELION's own tables name the sums, not the movies: these and their metadata share the
            # movie's name.
            if movie_stem(Path(named)) == movie_stem(movie.path) or movie_stem(
                Path(metadata)
            ) == movie_stem(movie.path):
                for base in (Path(), *source.absolute().parents):
                    if os.path.exists(base / metadata):
                        return base / metadata
                raise BadInputError(
                    f"{source} names {metadata} for {movie.path}, which is not there; keep RELION's"
                    " job folder with it"
                )
    raise BadInputError(
        f"{source} has no rlnMicrographMetadata of {movie.path}; give the table of the motion"
        " correction of this movie"
    )


@lru_cache(maxsize=2)  # one table serves all movies
def _read(path: Path) -> dict[str, Any]:
    try:
        return {str(name): block for name, block in starfile.read(path, always_dict=True).items()}  # pyright: ignore
    except Exception as error:  # a damaged file surfaces as nearly every kind of error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadInputError(
            f"cannot read the motion in {path}: {reason}; give a STAR file of RELION's motion"
            " correction"
        ) from None
