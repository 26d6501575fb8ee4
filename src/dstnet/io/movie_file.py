"""Open a movie file: which format it is, whether it can be a movie at all, and its pixel size."""

import operator
from pathlib import Path

import numpy as np

from dstnet.errors import BadInputError
from dstnet.io.compressed_mrc import PACKED_SUFFIXES, CompressedMrcFrames, is_packed
from dstnet.io.eer import EerFrames, EerSettings
from dstnet.io.mrc import MrcFrames
from dstnet.io.tiff import TiffFrames
from dstnet.movie import FrameStack, Movie

_MRC_SUFFIXES = (".mrc", ".mrcs", ".st", ".map")
_TIFF_SUFFIXES = (".tif", ".tiff")
_EER_SUFFIXES = (".eer",)
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ZIP_MAGIC = b"PK\x03\x04"
_MIN_SIDE = 32
_MAX_SIDE = 1 << 16  # no camera comes near; a damaged header easily does
_PIXEL_SIZE_RANGE_ANGSTROM = (0.05, 100.0)


class _FrameRange:
    """Some consecutive frames of a stack."""

    def __init__(self, frames: FrameStack, start: int, stop: int) -> None:
        self._frames, self._range = frames, range(start, stop)
        self.notes = getattr(frames, "notes", ())
        self.shape = (len(self._range), *frames.shape[1:])

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self._frames[self._range[operator.index(index)]]


def open_movie(
    path: Path | str,
    *,
    pixel_size_angstrom: float | None = None,
    exposure_e_per_a2: float | None = None,
    pre_exposure_e_per_a2: float = 0.0,
    voltage_kv: float = 300.0,
    frames: slice | None = None,
    eer: EerSettings = EerSettings(),  # noqa: B008  it is frozen
) -> Movie:
    """Open an MRC, TIFF or EER file as a movie. No pixel is read before a frame is asked for.

    Parameters
    ----------
    path
        The file. Its suffix says its format (.mrc .mrcs .st .map, .tif .tiff, .eer); under any
        other, its content does. An MRC file may be packed as a whole (gzip, bzip2, xz or zstd, as
        its content says).
    pixel_size_angstrom
        Wins over what the file says; needed where the file says nothing.
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
    stack = _open_frames(path, eer, exposure_e_per_a2)
    if (
        isinstance(stack, EerFrames)
        and eer.exposure_per_fraction_e_per_a2 is not None
        and exposure_e_per_a2 is not None
    ):
        exposure_e_per_a2 *= stack.frames_per_fraction
    count, *sides = stack.shape
    if min(sides) < _MIN_SIDE or max(sides) > _MAX_SIDE:
        raise BadInputError(
            f"{path}: frames are {sides[0]} x {sides[1]} pixels; {_MIN_SIDE} to {_MAX_SIDE} a side"
            " are allowed, give a whole micrograph"
        )
    if pixel_size_angstrom is None:
        pixel_size_angstrom = _stored_pixel_size(path, stack.pixel_size_yx_angstrom)
    chosen: FrameStack = stack
    if frames is not None:
        start, stop = frames.start or 0, count if frames.stop is None else frames.stop
        if not 0 <= start < stop <= count or frames.step not in (None, 1):
            raise BadInputError(
                f"{path} has frames 1 to {count}, but {start + 1} to {stop} were asked for; change"
                " --frame-range"
            )
        chosen = _FrameRange(stack, start, stop)
        pre_exposure_e_per_a2 += start * (exposure_e_per_a2 or 0.0)
    return Movie(
        chosen, pixel_size_angstrom, str(path), exposure_e_per_a2, pre_exposure_e_per_a2, voltage_kv
    )


def movie_stem(path: Path) -> str:
    """A movie file's name without what says its format: ``a`` of a.tif, of a.mrc.gz."""
    return (Path(path.stem) if path.suffix.lower() in PACKED_SUFFIXES else path).stem


def is_movie_name(path: Path) -> bool:
    """Whether a file's name says that it is a movie (or an image) that can be opened."""
    suffix = path.suffix.lower()
    if suffix in PACKED_SUFFIXES:
        return Path(path.stem).suffix.lower() in _MRC_SUFFIXES
    return suffix in (*_MRC_SUFFIXES, *_TIFF_SUFFIXES, *_EER_SUFFIXES)


def _open_frames(
    path: Path, eer: EerSettings, exposure_e_per_a2: float | None
) -> MrcFrames | TiffFrames | EerFrames:
    head = _head(path)
    packed = is_packed(head)
    suffix = (
        Path(path.stem) if packed and path.suffix.lower() in PACKED_SUFFIXES else path
    ).suffix.lower()
    if packed and suffix not in (*_TIFF_SUFFIXES, *_EER_SUFFIXES):
        return CompressedMrcFrames(path)
    if packed or head.startswith(_ZIP_MAGIC):
        raise BadInputError(
            f"{path} is packed as a whole, which is read of MRC files by gzip, bzip2, xz and zstd"
            " only; unpack it first"
        )
    if suffix in _EER_SUFFIXES:
        return EerFrames(path, eer, exposure_e_per_a2)
    if suffix in _TIFF_SUFFIXES or (suffix not in _MRC_SUFFIXES and head.startswith(_TIFF_MAGIC)):
        return TiffFrames(path)
    if suffix in _MRC_SUFFIXES or head[208:211] == b"MAP":
        return MrcFrames(path)
    raise BadInputError(
        f"{path} is neither an MRC nor a TIFF nor an EER file; give a movie in one of these formats"
    )


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
            head = file.read(1024)
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
    if min(head) >= 9 and not is_packed(
        head
    ):  # movies have zero bytes early on, text has no byte below the tabulator
        raise BadInputError(f"{path} is a text file; give a movie as MRC, TIFF or EER")
    return head


def _stored_pixel_size(path: Path, stored_yx: tuple[float, float] | None) -> float:
    low, high = _PIXEL_SIZE_RANGE_ANGSTROM
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
    return float(
        f"{x:.6g}"
    )  # files hold single precision; six digits give back the number that was meant
