"""Open a movie file: which format it is, whether it can be a movie at all, and its pixel size."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dstnet.errors import BadInputError
from dstnet.io.compressed_mrc import is_packed
from dstnet.io.digital_micrograph import SUFFIXES as DM_SUFFIXES
from dstnet.io.digital_micrograph import to_be_converted
from dstnet.io.eer import EerSettings
from dstnet.io.formats import (
    FORMATS,
    ReadOptions,
    format_names,
    format_of_content,
    format_of_suffix,
    is_packed_name,
    unpacked_name,
)
from dstnet.io.stored_frames import StoredFrames
from dstnet.movie import Exposure, Movie

_ZIP_MAGIC = b"PK\x03\x04"
_HEAD_BYTES = 1024
_MIN_SIDE = 32
_MAX_SIDE = 1 << 16  # no camera comes near; a damaged header easily does
PIXEL_SIZE_RANGE_ANGSTROM = (0.05, 100.0)
# Programs write it where they know none.
_PLACEHOLDER_ANGSTROM = 1.0
_ROUNDING = 0.005  # of headers, and of calibrations


def open_movie(
    path: Path | str,
    *,
    pixel_size_angstrom: float | None = None,
    exposure_e_per_a2: float | None = None,
    pre_exposure_e_per_a2: float = 0.0,
    voltage_kv: float = 300.0,
    frames: slice | None = None,
    eer: EerSettings = EerSettings(),  # noqa: B008  it is frozen
    packed_4_bit: bool | None = None,
) -> Movie:
    """Open an MRC, TIFF or EER file as a movie. No pixel is read before a frame is asked for.

    Parameters
    ----------
    path
        The file. Its suffix says its format (.mrc .mrcs .st .map, .tif .tiff, .eer); under any
        other, its content does. An MRC file may be packed as a whole (gzip, bzip2, xz or zstd, as
        its content says).
    pixel_size_angstrom
        Wins over what the file says, with a note where that is something else; needed where the
        file says nothing.
    exposure_e_per_a2
        Exposure of one frame; None where it is not known. Of an EER movie, that of a fraction, or
        of a raw frame where `eer` gives fractions by exposure.
    pre_exposure_e_per_a2
        Exposure before the first frame of the file. Frames left out at the start by `frames` are
        added to it where their exposure is known.
    voltage_kv
        Acceleration voltage.
    frames
        Which frames to take, from 0, end excluded, without a step; None takes all. Of an EER movie,
        fractions.
    eer
        How the raw frames of an EER movie are made into frames; other files do not look at it.
    packed_4_bit
        Whether the bytes of an MRC or TIFF file hold two 4-bit counts each, as those of cameras'
        super-resolution frames may (`dstnet.io.packed_counts`); None: where the file looks so.

    Returns
    -------
    Movie
        Named by its path; a frame that turns out to be damaged raises BadInputError when it is
        read.

    Raises
    ------
    BadInputError
        If the file is missing, unreadable, empty, cut off or no movie; if its pixel size is
        missing, absurd or not square; or if it has not the frames asked for.
    """
    path = Path(path)
    stack = _open_frames(path, ReadOptions(eer, exposure_e_per_a2, packed_4_bit))
    count, *sides = stack.shape
    if min(sides) < _MIN_SIDE or max(sides) > _MAX_SIDE:
        raise BadInputError(
            f"{path}: frames are {sides[0]} x {sides[1]} pixels; {_MIN_SIDE} to {_MAX_SIDE} a side"
            " are allowed, give a complete micrograph"
        )
    notes = list(stack.notes)
    if pixel_size_angstrom is None:
        pixel_size_angstrom = _stored_pixel_size(path, stack.pixel_size_yx_angstrom)
        if pixel_size_angstrom == _PLACEHOLDER_ANGSTROM:
            notes.append(
                "the pixel size is 1 Å as the header says, which often nobody measured; pass"
                " --pixel-size"
            )
    else:
        notes += _disagreement(pixel_size_angstrom, stack.pixel_size_yx_angstrom)
    exposure = None
    if exposure_e_per_a2 is not None:
        frame_exposure = exposure_e_per_a2 * stack.exposure_multiple
        exposure = Exposure.uniform(count, frame_exposure, pre_exposure_e_per_a2)
    movie = Movie(
        stack,
        pixel_size_angstrom,
        str(path),
        exposure,
        voltage_kv,
        frames_in_file=count,
        raw_frames_per_frame=stack.frames_per_fraction,
        eer_up_sampling=stack.eer_up_sampling,
        notes=tuple(notes),
    )
    if frames is None:
        return movie
    start = frames.start or 0
    stop = count if frames.stop is None else frames.stop
    if not 0 <= start < stop <= count or frames.step not in (None, 1):
        raise BadInputError(
            f"{path} has frames 1 to {count}, but {start + 1} to {stop} were asked for; change"
            " --frame-range"
        )
    return movie.subset(range(start, stop))


def write_movie(
    path: Path | str, frames: Iterable[np.ndarray], pixel_size_angstrom: float, label: str
) -> None:
    """Write a movie in the format that its suffix says, atomically, one frame in memory at a time.

    Parameters
    ----------
    path
        The file to write; one of that name is replaced.
    frames
        ``[y, x]``, all of one shape and number type.
    pixel_size_angstrom
        Pixel size.
    label
        What the file is, where the format has room for it.

    Raises
    ------
    BadInputError
        If no format of that suffix can be written, or the frames do not fit it.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    row = format_of_suffix(path.suffix)
    if row is None or row.write is None:
        allowed = ", ".join(suffix for row in FORMATS if row.write for suffix in row.suffixes)
        raise BadInputError(f"{path} cannot be written as a movie; give one of {allowed}")
    row.write(path, frames, pixel_size_angstrom, label)


def movie_stem(path: Path) -> str:
    """A movie file's name without what says its format: ``a`` of a.tif, of a.mrc.gz."""
    return unpacked_name(path).stem


def is_movie_name(path: Path) -> bool:
    """Whether a file's name says that it is a movie (or an image) that can be opened."""
    row = format_of_suffix(unpacked_name(path).suffix)
    if row is None:
        return False
    return row.read_packed is not None or not is_packed_name(path)


def _open_frames(path: Path, options: ReadOptions) -> StoredFrames:
    head = _head(path)
    if is_packed(head):
        row = format_of_suffix(unpacked_name(path).suffix)
        readers = [row] if row else FORMATS
        packed = [other.read_packed for other in readers if other.read_packed]
        if packed:
            return packed[0](path, options)
    if is_packed(head) or head.startswith(_ZIP_MAGIC):
        raise BadInputError(
            f"{path} is packed as a whole, which is read of MRC files by gzip, bzip2, xz and zstd"
            " only; unpack it first"
        )
    if path.suffix.lower() in DM_SUFFIXES:
        raise to_be_converted(path)
    row = format_of_suffix(path.suffix) or format_of_content(head)
    if row is None:
        raise BadInputError(
            f"{path} is no {format_names()} file; give a movie in one of these formats"
        )
    return row.read(path, options)


def _head(path: Path) -> bytes:
    """The first bytes of `path`, once it is sure to be a file that can be read and holds no plain
    mistake.
    """
    try:
        if path.is_dir():
            raise BadInputError(f"{path} is a folder; give the movie files in it")
        if path.exists() and not path.is_file():
            raise BadInputError(f"{path} is no regular file; give a movie file")
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise BadInputError(f"{path} does not exist; check the path") from None
    except PermissionError:
        raise BadInputError(f"{path} may not be read; change its permissions") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise BadInputError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}; check the path and"
            " the disk"
        ) from None
    if not head:
        raise BadInputError(f"{path} is empty (0 bytes); copy it again")
    # Movies have zero bytes early on, text has no byte below the tabulator.
    if min(head) >= 9 and not is_packed(head):
        raise BadInputError(f"{path} is a text file; give a movie as {format_names()}")
    return head


def stored_pixel_size_angstrom(path: Path | str) -> float | None:
    """The pixel size that a file's header says; None where it says none that can be meant: 1 Å is
    written by programs that know none.

    Raises
    ------
    BadInputError
        If the file cannot be opened.
    """
    path = Path(path)
    stored_yx = _open_frames(path, ReadOptions(EerSettings())).pixel_size_yx_angstrom
    try:
        pixel = _stored_pixel_size(path, stored_yx)
    except BadInputError:
        return None
    return None if pixel == _PLACEHOLDER_ANGSTROM else pixel


def _disagreement(
    taken_angstrom: float, stored_yx_angstrom: tuple[float, float] | None
) -> list[str]:
    """A note where a header says another pixel size than the one that is taken."""
    low, high = PIXEL_SIZE_RANGE_ANGSTROM
    stored = (stored_yx_angstrom or (0.0,))[-1]
    is_meant = low <= stored <= high and float(f"{stored:.6g}") != _PLACEHOLDER_ANGSTROM
    if not is_meant or math.isclose(stored, taken_angstrom, rel_tol=_ROUNDING):
        return []
    return [f"the pixel size is {taken_angstrom:g} Å as given; the header says {stored:.4g} Å"]


def _stored_pixel_size(path: Path, stored_yx: tuple[float, float] | None) -> float:
    low, high = PIXEL_SIZE_RANGE_ANGSTROM
    if stored_yx is None:
        raise BadInputError(f"pixel size missing in {path}; pass --pixel-size")
    y, x = stored_yx
    if not (low <= y <= high and low <= x <= high):
        raise BadInputError(
            f"pixel size in {path} is absurd ({y:.4g} x {x:.4g} Å, {low:g} to {high:g} are"
            " allowed); pass --pixel-size"
        )
    if abs(y - x) > 0.01 * min(x, y):
        raise BadInputError(
            f"pixels in {path} are not square ({y:.4g} x {x:.4g} Å in y and x); pass --pixel-size"
            " if that is wrong"
        )
    # Files hold single precision; six digits give back the number that was meant.
    return float(f"{x:.6g}")
