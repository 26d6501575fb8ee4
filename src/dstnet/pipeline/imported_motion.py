"""Motion found by another program, or by an earlier run: read from RELION's STAR files instead of
being estimated.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from dstnet.errors import BadInputError
from dstnet.motion import Motion
from dstnet.motion.relion import NOT_OBSERVED
from dstnet.movie import Movie
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.motion_source import doubt_of_name, motion_file_of, read_tables

_EER_UP_SAMPLINGS = (0.25, 0.5, 2.0, 4.0)  # of one grid over another
_SAME_PIXEL_SIZE = 1e-3  # relative; tables have six digits
_SAME_PLACE_PX = 0.1


@dataclass(frozen=True)
class ImportedMotion:
    """The frames of a movie whose motion is known, and it.

    Attributes
    ----------
    movie
        Without the frames that the other program left out; its notes say what was done.
    motion
        Of these frames.
    """

    movie: Movie
    motion: Motion


def imported_motion(source: Path, input_movie: InputMovie, movie: Movie) -> ImportedMotion:
    """The motion of a movie.

    Parameters
    ----------
    source
        Where motion files lie; see `dstnet.pipeline.motion_source.MotionSource`.
    input_movie
        The input.
    movie
        The frames of it that are worked on.

    Raises
    ------
    BadInputError
        If there is no motion of this movie, or it is of frames other than these.
    """
    path = motion_file_of(input_movie, source)
    tables = read_tables(path)
    try:
        general = _general(tables)
        pixel, pixel_note = _pixel_size(general, movie)
        _check_grouping(general, movie)
        motion = Motion.from_relion({**tables, "general": general}, pixel)
    except BadInputError as error:
        raise BadInputError(f"{path}: {error}") from None
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{path} holds what is no number ({error}); give another") from None
    count = len(motion.global_shift_angstrom)
    if count != movie.frames_in_file:
        raise BadInputError(
            f"{path} has the motion of {count} frames, {movie.name} has {movie.frames_in_file};"
            " give the motion of this movie"
        )
    written = general.get("rlnMicrographMovieName")
    doubt = doubt_of_name(source, input_movie, None if written is None else str(written))
    notes = (doubt, pixel_note, _reference_note(tables["global_shift"]))
    return _of_known_frames(movie, motion, [note for note in notes if note])


def _reference_note(table: pd.DataFrame) -> str | None:
    """What is to be said of motion that is against another frame than the first one used, as
    MotionCor2's is.
    """
    if "rlnMicrographFrameNumber" in table:
        table = table.sort_values("rlnMicrographFrameNumber")
    shifts = table[["rlnMicrographShiftX", "rlnMicrographShiftY"]].to_numpy(float)
    x, y = next(shift for shift in shifts if NOT_OBSERVED not in shift)
    if math.hypot(x, y) < _SAME_PLACE_PX:
        return None
    return (
        f"the motion given is ({x:.1f}, {y:.1f}) pixels in x, y at its first frame, where sums lie"
        " here: picks on that program's own sum are off by as much on this one"
    )


def _of_known_frames(movie: Movie, motion: Motion, notes: list[str]) -> ImportedMotion:
    """The movie without the frames that the motion lacks."""
    is_known = torch.isfinite(motion.global_shift_angstrom).all(1).tolist()
    numbers = movie.frame_numbers
    kept = [index for index, number in enumerate(numbers) if is_known[number]]
    if not kept:
        raise BadInputError(
            f"{movie.name}: the motion given is of none of its frames {numbers[0] + 1} to"
            f" {numbers[-1] + 1}; change --frame-range, or find the motion again"
        )
    if len(kept) < len(numbers):
        left_out = [number + 1 for number in numbers if not is_known[number]]
        names = ", ".join(map(str, left_out))
        notes.append(f"frames left out, since the motion given left them out: {names}")
    used = movie.subset(kept)
    used = replace(used, notes=(*used.notes, *notes))
    return ImportedMotion(used, motion.window(used.frame_numbers))


def _general(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a STAR file, also where they were written as a table of one row."""
    values = tables.get("general", {})
    if hasattr(values, "to_dict"):
        rows: Sequence[Mapping[str, Any]] = values.to_dict("records")
        values = rows[0] if rows else {}
    return dict(values)


def _pixel_size(general: Mapping[str, Any], movie: Movie) -> tuple[float, str | None]:
    """Sampling in Angstrom of the frames that the motion is of: its pixels are those of the movie,
    or of an EER file's finer or coarser grid; and what is to be said of it.
    """
    height, width = movie.shape
    try:
        sides = int(general["rlnImageSizeY"]), int(general["rlnImageSizeX"])
        stated = float(general.get("rlnMicrographOriginalPixelSize", math.nan))
    except KeyError as error:
        raise BadInputError(f"no {error.args[0]}; give the STAR file as RELION wrote it") from None
    finer = width / sides[1] if sides[1] > 0 else 0.0
    is_eer = movie.eer_up_sampling is not None
    is_allowed = finer == 1 or (is_eer and finer in _EER_UP_SAMPLINGS)
    if not is_allowed or sides[0] * finer != height:
        raise BadInputError(
            f"its frames are {sides[1]} x {sides[0]} pixels, those of {movie.name} {width} x"
            f" {height}; give the motion of this movie"
        )
    pixel = movie.pixel_size_angstrom * finer
    if abs(stated - pixel) <= _SAME_PIXEL_SIZE * pixel or not stated > 0:
        return pixel, None
    return pixel, (
        f"the motion given is of pixels of {stated:g} Å, these are of {pixel:g} Å: its shifts are"
        " taken as pixels"
    )


def _check_grouping(general: Mapping[str, Any], movie: Movie) -> None:
    """Refuse the motion of an EER file's frames that were made otherwise."""
    grouping = general.get("rlnEERGrouping")
    if grouping is None or int(grouping) < 1 or int(grouping) == movie.raw_frames_per_frame:
        return
    raise BadInputError(
        f"its frames are of {int(grouping)} raw frames (rlnEERGrouping), those of {movie.name} of"
        f" {movie.raw_frames_per_frame}; pass --eer-frames {int(grouping)}"
    )
