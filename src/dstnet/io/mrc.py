"""MRC files (MRC2014 and the older files of its family), a frame at a time.

Rows are taken and written in the order in which they are stored: row 0 of a frame, y = 0, is the
first stored row.

The header is read with mrcfile's description of it, but the data are not read through mrcfile's
memory maps: a plain read of one frame turns a file that was cut off meanwhile, or a failing disk,
into an error message, where a memory map would kill the process. It also keeps no file open, so
that a reader can be sent to worker processes.
"""

import operator
import os
import textwrap
from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import mrcfile.dtypes
import mrcfile.utils
import numpy as np

from dstnet.errors import BadInputError
from dstnet.io.atomic import Put, atomic_path
from dstnet.io.packed_counts import SAMPLE_BYTES, holds_packed, not_packed, note_on_packed, unpacked
from dstnet.io.stored_frames import StoredFrames
from dstnet.movie import FrameStack

if TYPE_CHECKING:
    from torch import Tensor

_HEADER = mrcfile.dtypes.HEADER_DTYPE.newbyteorder("<")
_MODES = {
    0: np.dtype("i1"),
    1: np.dtype("i2"),
    2: np.dtype("f4"),
    6: np.dtype("u2"),
    12: np.dtype("f2"),
}
_MODE_4BIT = 101
_REFUSED_MODES = {3: "complex", 4: "complex", 16: "RGB"}
# Beyond these a header is nonsense. They tell the byte order: a small number is huge in the other.
_SIDE = (1, 1 << 17)
_LIMITS = {"nx": _SIDE, "ny": _SIDE, "nz": (1, 1 << 20), "mode": (0, 1023), "nsymbt": (0, 1 << 26)}
# IMOD's flags, in the part of the header that MRC2014 leaves open (IMOD's description of its MRC
# format, bytes 152 to 160).
_IMOD_STAMP = 1146047817
_IMOD_SIGNED_BYTES = 1
_IMOD_PACKED_4BIT = 16
_BIG_ENDIAN_STAMP = b"\x11\x11"
_LABELS = 10  # of 80 characters


class MrcFrames(StoredFrames):
    """The frames of an MRC file; other parameters and attributes are those of `StoredFrames`.

    Modes 0 (signed bytes, unless IMOD's flags say unsigned), 1, 2, 6, 12 and 101 (two pixels a
    byte, the lower half first), in either byte order. An image is a movie of one frame, a volume
    one of its sections.

    Parameters
    ----------
    packed_4_bit
        Bytes of mode 0 hold two counts each, as in files from before mode 101
        (`dstnet.io.packed_counts`); None: where the file says or looks so.

    Raises
    ------
    BadInputError
        If it is no MRC file, is cut off, or holds something else than real-valued images. Also when
        a frame cannot be read.
    """

    def __init__(self, path: Path | str, packed_4_bit: bool | None = None) -> None:
        self.path = Path(path)
        try:
            raw, size = self._head_and_size(_HEADER.itemsize)
        except OSError as error:
            raise BadInputError(
                f"cannot read {self.path}: {error.strerror or error}; check the path and its"
                " permissions"
            ) from error
        header, order = self._header(raw)
        frames, height, width = (int(header[side]) for side in ("nz", "ny", "nx"))
        mode = int(header["mode"])
        flags = _imod_flags(header, order)
        self._start = _HEADER.itemsize + int(header["nsymbt"])
        self._packed = mode == _MODE_4BIT
        row = (width + 1) // 2 if self._packed else width
        if not self._packed and self._holds_packed(header, flags, packed_4_bit):
            self._packed = True
            width *= 2
            self.notes = (note_on_packed(width),)
        self._dtype = self._data_type(mode, flags).newbyteorder(order)
        self.shape = (frames, height, width)
        self._stored = (height, row)
        self._frame_bytes = self.shape[1] * row * self._dtype.itemsize
        self._marked = bytes(header["map"])[:3] == b"MAP"
        self._check_axes(header)
        if size is not None:
            self._check_size(size)
        pixel_y = _pixel_size(header, "y")
        pixel_x = _pixel_size(header, "x")
        self.pixel_size_yx_angstrom = None
        if pixel_y is not None and pixel_x is not None:
            self.pixel_size_yx_angstrom = (pixel_y, pixel_x)

    def _header(self, raw: bytes) -> tuple[np.void, Literal["<", ">"]]:
        """The header and its byte order; the machine stamp is believed first, but files are seen
        where it is wrong or blank.
        """
        if len(raw) < _HEADER.itemsize:
            raise BadInputError(
                f"{self.path} ends within its header ({len(raw)} of {_HEADER.itemsize} bytes); copy"
                " it again"
            )
        orders: list[Literal["<", ">"]] = ["<", ">"]
        if raw[212:214] == _BIG_ENDIAN_STAMP:
            orders.reverse()
        for order in orders:
            header = np.frombuffer(raw, _HEADER.newbyteorder(order))[0]
            if _is_sensible(header):
                return header, order
        header = np.frombuffer(raw, _HEADER)[0]
        raise BadInputError(
            f"{self.path} has no valid MRC header (size {header['nx']} x {header['ny']} x"
            f" {header['nz']}, mode {header['mode']}); give an MRC file or copy it again"
        )

    def _holds_packed(self, header: np.void, flags: int, told: bool | None) -> bool:
        """Whether bytes hold two counts each, by IMOD's flag or their look."""
        if header["mode"] != 0:
            return not_packed(self.path, told, f"MRC mode {header['mode']}")
        if told is None and flags & _IMOD_PACKED_4BIT:
            return True
        head, _ = self._head_and_size(self._start + SAMPLE_BYTES)
        sample = np.frombuffer(head, np.uint8)[self._start :]
        shape = int(header["ny"]), int(header["nx"])
        return bool(sample.size) and holds_packed(self.path, *shape, [sample], told)

    def _data_type(self, mode: int, flags: int) -> np.dtype:
        if self._packed or (mode == 0 and not flags & _IMOD_SIGNED_BYTES):
            return np.dtype("u1")
        if mode not in _MODES:
            kind = _REFUSED_MODES.get(mode, "unknown")
            raise BadInputError(
                f"{self.path} is of MRC mode {mode} ({kind}); modes 0, 1, 2, 6, 12 and 101 can be"
                " read, convert it"
            )
        return _MODES[mode]

    def _head_and_size(self, length: int) -> tuple[bytes, int | None]:
        """The first bytes and the size in bytes; None where it is not known before the first frame
        is read.
        """
        with open(self.path, "rb") as file:
            return file.read(length), file.seek(0, 2)

    def _file(self) -> AbstractContextManager[BinaryIO]:
        """The file that holds the frames, to be read at given places only: other threads may read
        it at the same time.
        """
        return open(self.path, "rb", buffering=0)

    def _check_axes(self, header: np.void) -> None:
        if mrcfile.utils.spacegroup_is_volume_stack(header["ispg"]):
            raise BadInputError(
                f"{self.path} is a stack of volumes (4 dimensions); a movie has 3, give an image or"
                " an image stack"
            )
        axes = tuple(int(header[axis]) for axis in ("mapc", "mapr", "maps"))
        if sorted(axes) == [1, 2, 3] and axes != (1, 2, 3):
            raise BadInputError(
                f"{self.path} stores its axes in the order {axes}; only (1, 2, 3) can be read,"
                " transpose it"
            )

    def _check_size(self, size: int) -> None:
        """Refuse more or less data than the header says."""
        expected = self._start + self.shape[0] * self._frame_bytes
        if size < expected:
            complete = max(0, size - self._start) // self._frame_bytes
            raise BadInputError(
                f"{self.path} is cut off: {size} bytes where its header asks for {expected},"
                f" {complete} of {self.shape[0]} frames complete; copy it again"
            )
        # Some writers pad the end; a frame or more beyond what the header says means that the
        # header is wrong. Files older than the map mark have only their size to vouch for them.
        beyond = size - expected
        if beyond >= self._frame_bytes or (beyond and not self._marked):
            raise BadInputError(
                f"{self.path} has {size} bytes where its header asks for {expected}: its header is"
                " damaged or it is no MRC file; copy it again or repair the header"
            )

    def __getitem__(self, index: int, /) -> np.ndarray:
        index = range(self.shape[0])[operator.index(index)]
        frame = np.empty(self._stored, self._dtype)
        rest = frame.data.cast("B")
        offset = self._start + index * self._frame_bytes
        try:
            with self._file() as file:
                while rest:
                    read = os.preadv(file.fileno(), [rest], offset)
                    if not read:
                        break
                    rest = rest[read:]
                    offset += read
        except OSError as error:
            raise BadInputError(
                f"{self.path}: frame {index + 1} cannot be read: {error.strerror or error}; copy it"
                " again"
            ) from error
        if rest:
            raise BadInputError(
                f"{self.path}: frame {index + 1} is cut off; the file changed since it was opened,"
                " copy it again"
            )
        if self._packed:
            return unpacked(frame)[:, : self.shape[2]]
        return frame.astype(frame.dtype.newbyteorder("="), copy=False)


def _is_sensible(header: np.void) -> bool:
    """Whether the numbers of a header can be those of a file."""
    return all(least <= header[name] <= most for name, (least, most) in _LIMITS.items())


def _imod_flags(header: np.void, order: str) -> int:
    """IMOD's flags; those of a file of MRC2014 where IMOD did not write it."""
    imod = header["extra2"].tobytes()[40:48]
    stamp, flags = np.frombuffer(imod, f"{order}i4")
    return int(flags) if stamp == _IMOD_STAMP else _IMOD_SIGNED_BYTES


def _pixel_size(header: np.void, axis: str) -> float | None:
    """Pixel size in Angstrom along an axis; None where the header does not say."""
    cell = header["cella"][axis]
    grid = int(header["m" + axis])
    if grid <= 0 or not np.isfinite(cell) or cell <= 0:
        return None
    return float(cell) / grid


def write_mrc(
    path: Path | str,
    array: "np.ndarray | Tensor | FrameStack | Iterable[np.ndarray]",
    pixel_size_angstrom: float,
    label: str,
    *,
    stack: bool = False,
    origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0),
    put: Put | None = None,
) -> None:
    """Write an image, an image stack or a volume as an MRC2014 file, atomically (see `atomic_path`,
    also of `put`); the header's statistics are those of the data.

    Parameters
    ----------
    path
        The file to write; one of that name is replaced.
    array
        ``[y, x]``, ``[frame, y, x]``, or frames ``[y, x]`` in any iterable, taken one by one.
        float32, float16, int8, int16 or uint16, kept as they are.
    pixel_size_angstrom
        Pixel size, the same along all axes.
    label
        What the file is; its text goes into the header's labels (ten of 80 ASCII characters).
    stack
        Three dimensions are a stack of images; otherwise a volume.
    origin_angstrom
        Where (x, y, z) the first pixel lies.

    Raises
    ------
    BadInputError
        If the number type, the shape or the pixel size does not fit an MRC file.
    OutputError
        If the file cannot be written.
    """
    image = len(getattr(array, "shape", (0, 0, 0))) < 3
    frames = (np.asarray(frame) for frame in ([array] if image else array))  # pyright: ignore[reportGeneralTypeIssues]
    first = next(frames, None)
    if first is None or first.ndim != 2 or min(first.shape) < 1:
        shape = "nothing" if first is None else f"frames of shape {first.shape}"
        raise BadInputError(f"{path}: {shape} cannot be an MRC file; give [y, x] or [frame, y, x]")
    if not 0 < pixel_size_angstrom < float("inf"):
        raise BadInputError(f"{path}: pixel size is {pixel_size_angstrom} Å; give a positive one")
    dtype = first.dtype
    mode = _mode_of(dtype)
    if mode is None:
        raise BadInputError(
            f"{path}: {dtype} has no MRC mode; convert to float32, float16, int8, int16 or uint16"
        )
    is_volume = not image and not stack
    header = _new_header(mode, label, origin_angstrom, is_volume)
    statistics = _Statistics()
    with atomic_path(path, put) as temporary, open(temporary, "wb") as file:
        file.write(header.tobytes())  # room for the true one, written last
        for frame in chain([first], frames):
            if frame.shape != first.shape or frame.dtype != dtype:
                raise BadInputError(
                    f"{path}: frame {statistics.count + 1} is {frame.dtype} {frame.shape}, the"
                    f" first {dtype} {first.shape}"
                )
            stored = frame.astype(dtype.newbyteorder("<"), copy=False)
            file.write(stored.tobytes())
            statistics.add(frame)
        depth = statistics.count if is_volume else 1
        _fill_size(header, first.shape, statistics.count, depth, pixel_size_angstrom)
        statistics.fill(header, first.size)
        file.seek(0)
        file.write(header.tobytes())


def _mode_of(dtype: np.dtype) -> int | None:
    """The MRC mode of a number type, whatever its byte order."""
    for mode, allowed in _MODES.items():
        if (allowed.kind, allowed.itemsize) == (dtype.kind, dtype.itemsize):
            return mode
    return None


def _new_header(
    mode: int, label: str, origin_angstrom: tuple[float, float, float], is_volume: bool
) -> np.ndarray:
    """A header that lacks only size and statistics."""
    header = np.zeros((), _HEADER)
    header["mode"] = mode
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90
    for number, axis in enumerate(("mapc", "mapr", "maps"), 1):
        header[axis] = number
    header["origin"] = origin_angstrom
    header["ispg"] = 1 if is_volume else 0
    header["nversion"] = 20141
    header["map"] = b"MAP "
    header["machst"] = list(mrcfile.utils.machine_stamp_from_byte_order("<"))
    ascii_label = label.encode("ascii", "replace").decode()
    lines = textwrap.wrap(ascii_label, 80)[:_LABELS]
    header["nlabl"] = len(lines)
    for i, line in enumerate(lines):
        header["label"][i] = line.encode()
    return header


def _fill_size(
    header: np.ndarray,
    shape: tuple[int, ...],
    frames: int,
    depth: int,
    pixel_size_angstrom: float,
) -> None:
    """Write numbers of pixels and the cell, `depth` pixels along z, into a header."""
    height, width = shape
    numbers = {"x": width, "y": height, "z": frames}
    grid = {"x": width, "y": height, "z": depth}
    for axis in "xyz":
        header["n" + axis] = numbers[axis]
        header["m" + axis] = grid[axis]
        header["cella"][axis] = pixel_size_angstrom * float(grid[axis])


class _Statistics:
    """Least, greatest, mean and spread of frames of one size, while they pass.

    References
    ----------
    Chan, Golub & LeVeque, Stanford report STAN-CS-79-773 (1979): a plain sum of squares would
    cancel for data far from zero.
    """

    def __init__(self) -> None:
        self.count = 0
        self._low: float = np.inf
        self._high: float = -np.inf
        self._mean = 0.0
        self._squares = 0.0  # sum of squared deviations from the mean

    def add(self, frame: np.ndarray) -> None:
        """Merge a frame's mean and squared deviations into those before it."""
        self.count += 1
        values = frame.astype(np.float64)
        difference = values.mean() - self._mean
        self._mean += difference / self.count
        between = difference**2 * values.size * (self.count - 1) / self.count
        self._squares += values.var() * values.size + between
        self._low = min(self._low, frame.min())
        self._high = max(self._high, frame.max())

    def fill(self, header: np.ndarray, frame_pixels: int) -> None:
        """Write the statistics into a header."""
        header["dmin"] = self._low
        header["dmax"] = self._high
        header["dmean"] = self._mean
        header["rms"] = np.sqrt(self._squares / (self.count * frame_pixels))
