"""Frames that are decoded once and asked for several times."""

import operator
from dataclasses import dataclass

import numpy as np

from dstnet.movie.movie import FrameStack

KEPT_BYTES = 350_000_000  # 41 frames of 4096 x 4096 in four bits
_RARE = 1 / 256  # part of the pixels that may hold more than four bits tell


class FrameCache:
    """The frames of a stack; what has been read of counts is held in memory, without loss, as far
    as there is room for it.

    A movie is looked through for bad frames, for its motion and for its sums; to decompress a
    counted frame takes ten times as long as to unpack it. Counts of up to 15, as nearly all are,
    take half a byte. Frames of real numbers, and those beyond `limit_bytes`, are read anew each
    time.

    Parameters
    ----------
    frames
        The stack.
    limit_bytes
        Most memory held.

    Attributes
    ----------
    shape
        (frame, y, x).
    """

    def __init__(self, frames: FrameStack, limit_bytes: int = KEPT_BYTES) -> None:
        self._frames = frames
        self._limit = limit_bytes
        self._room = limit_bytes
        self._kept: dict[int, _PackedFrame] = {}
        self._type: np.dtype | None = None
        self.shape = frames.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Frame `index` as a new array; errors are those of the stack's own frames."""
        number = range(self.shape[0])[operator.index(index)]
        if number in self._kept and self._type is not None:
            flat = self._kept[number].unpacked(self._type)
            return flat.reshape(self.shape[1:])
        frame = np.asarray(self._frames[number])
        self._keep(number, frame)
        return frame

    def _keep(self, number: int, frame: np.ndarray) -> None:
        """Hold a frame, if it is one of counts and there is room."""
        is_of_counts = frame.dtype.kind in "iu"
        is_of_type = self._type in (None, frame.dtype)
        has_room = frame.size // 2 < self._room
        if not (is_of_counts and is_of_type and has_room):
            return
        packed = _packed(frame)
        if packed is None:
            self._room = 0  # nor will the other frames fit
        elif packed.nbytes <= self._room:
            self._kept[number] = packed
            self._type = frame.dtype
            self._room -= packed.nbytes

    def forget(self) -> None:
        """Free all that is held; what is asked for from now on is read anew."""
        self._kept.clear()
        self._room = self._limit


@dataclass(frozen=True)
class _PackedFrame:
    """Counts of a frame in little room.

    Attributes
    ----------
    size
        Number of pixels.
    packed
        Two pixels a byte (the first half of the frame in the lower four bits), or one.
    places, values
        Of those pixels for which that is too little.
    """

    size: int
    packed: np.ndarray
    places: np.ndarray
    values: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + self.places.nbytes + self.values.nbytes

    def unpacked(self, dtype: np.dtype) -> np.ndarray:
        """All pixels [n], as a new array."""
        flat = np.empty(self.size, dtype)
        half = len(self.packed)
        if half == self.size:
            flat[:] = self.packed
            return flat
        np.bitwise_and(self.packed, 15, out=flat[:half], casting="unsafe")
        upper = self.packed[: self.size - half]
        np.right_shift(upper, 4, out=flat[half:], casting="unsafe")
        flat[self.places] = self.values
        return flat


def _packed(frame: np.ndarray) -> _PackedFrame | None:
    """A frame of integers packed; None where its values are too large or negative."""
    flat = frame.reshape(-1)
    size = flat.size
    places = np.empty(0, np.intp)
    if flat.dtype.kind == "i" and flat.min() < 0:
        return None
    most = flat.max()
    if most > 15:
        is_beyond = flat > 15
        are_many = np.count_nonzero(is_beyond) > _RARE * size
        if are_many and most > 255:
            return None
        if are_many:
            whole_bytes = flat.astype(np.uint8)
            return _PackedFrame(size, whole_bytes, places, flat[places])
        places = np.flatnonzero(is_beyond)
    low = flat.astype(np.uint8, copy=False)
    half = (size + 1) // 2
    packed = low[:half] & 15
    upper = low[half:] << 4
    packed[: len(upper)] |= upper
    return _PackedFrame(size, packed, places, flat[places])
