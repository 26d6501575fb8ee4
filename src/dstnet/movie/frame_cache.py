"""Frames that are decoded once and asked for several times."""

import operator

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
        self._frames, self._room, self._limit = frames, limit_bytes, limit_bytes
        self._kept: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._type: np.dtype | None = None
        self.shape = frames.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Frame `index` as a new array."""
        number = range(self.shape[0])[operator.index(index)]
        if number in self._kept:
            return self._unpacked(*self._kept[number])
        frame = np.asarray(self._frames[number])
        if (
            frame.dtype.kind in "iu"
            and self._type in (None, frame.dtype)
            and frame.size // 2 < self._room
        ):
            packed = _packed(frame)
            size = sum(part.nbytes for part in packed) if packed else 0
            if packed is None:
                self._room = 0  # nor will the other frames fit
            elif size <= self._room:
                self._kept[number], self._type = packed, frame.dtype
                self._room -= size
        return frame

    def forget(self) -> None:
        """Free all that is held; what is asked for from now on is read anew."""
        self._kept.clear()
        self._room = self._limit

    def _unpacked(self, packed: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
        flat = np.empty(self.shape[1] * self.shape[2], self._type)
        if len(packed) == flat.size:
            flat[:] = packed
        else:
            np.bitwise_and(packed, 15, out=flat[: len(packed)], casting="unsafe")
            np.right_shift(
                packed[: flat.size - len(packed)], 4, out=flat[len(packed) :], casting="unsafe"
            )
            flat[places] = values
        return flat.reshape(self.shape[1:])


def _packed(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Pixels of a frame, two a byte (the first half of the frame in the lower four bits) or one,
    and places and values of those for which that is too little; None where they fit neither.
    """
    flat, places = frame.reshape(-1), np.empty(0, np.intp)
    if flat.dtype.kind == "i" and flat.min() < 0:
        return None
    if (most := flat.max()) > 15:
        beyond = flat > 15
        if np.count_nonzero(beyond) > _RARE * flat.size:
            return (flat.astype(np.uint8), places, flat[places]) if most <= 255 else None
        places = np.flatnonzero(beyond)
    low = flat.astype(np.uint8, copy=False)
    half = (flat.size + 1) // 2
    packed = low[:half] & 15
    packed[: flat.size - half] |= low[half:] << 4
    return packed, places, flat[places]
