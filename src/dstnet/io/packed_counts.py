"""Counts of four bits, two to a byte: cameras' super-resolution counts are stored so, as bytes of
half the width, the left pixel in the lower half.

No file says so for sure. SerialEM writes K2 and K3 super-resolution frames in this form, which
IMOD, RELION and cisTEM tell by the size of the frames alone; the bytes themselves tell too, since
both halves of a byte count electrons of the same beam.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dstnet.errors import BadInputError

SAMPLE_BYTES = 1 << 20
# (width, height) in bytes of super-resolution frames, and of rotated ones, within two pixels: as
# IMOD takes them. Cameras write no bytes of these sizes else.
_SIZES = (
    (3838, 7420),
    (3840, 7424),
    (5760, 8184),
    (3710, 7676),
    (3712, 7680),
    (4092, 11520),
)
_TOLERANCE = 2
_LEAST_COUNTS = 500  # in either half; fewer say nothing


def unpacked(pairs: np.ndarray) -> np.ndarray:
    """Counts [y, 2 x] of bytes [y, x]."""
    height, width = pairs.shape
    counts = np.empty((height, width, 2), np.uint8)
    np.bitwise_and(pairs, 15, out=counts[..., 0])
    np.right_shift(pairs, 4, out=counts[..., 1])
    return counts.reshape(height, 2 * width)


def not_packed(path: Path, told: bool | None, what: str) -> bool:
    """False, of a file whose pixels are no bytes but `what`.

    Raises
    ------
    BadInputError
        If the user says that they are packed.
    """
    if told:
        raise BadInputError(
            f"{path} is of {what}, but --packed-4-bit is for bytes of two counts; leave it out"
        )
    return False


def holds_packed(
    path: Path, height: int, width: int, samples: Iterable[np.ndarray], told: bool | None
) -> bool:
    """Whether the bytes of a movie hold two counts each.

    Parameters
    ----------
    path
        The file, for messages.
    height, width
        Of a frame, in bytes.
    samples
        Some bytes of one frame, of another, ..., uint8: as many are looked at as it takes.
    told
        What the user says; None: nothing.

    Raises
    ------
    BadInputError
        If frames of a size that speaks for counts hold something else, and the user says nothing.
    """
    if told is not None:
        return told
    is_of_size = any(
        abs(width - w) <= _TOLERANCE and abs(height - h) <= _TOLERANCE for w, h in _SIZES
    )
    for sample in samples:
        lower = _shares(sample & 15)
        upper = _shares(sample >> 4)
        lower_counts, upper_counts = 1 - lower[0], 1 - upper[0]
        most = max(lower_counts, upper_counts)
        if most * sample.size < _LEAST_COUNTS:
            continue
        if upper_counts < 0.1 * lower_counts:
            return False  # small numbers, a byte each
        if _are_alike(lower, upper) and _differ(sample):
            return True
        if not is_of_size:
            return False
        if _difference(lower, upper) < 0.3 * most:
            return True  # by its size, and the halves do not speak against it
        raise BadInputError(
            f"{path}: frames of {height} x {width} bytes (rows x columns) are as a rule two 4-bit"
            " counts a byte, but these do not look so; pass --packed-4-bit or --no-packed-4-bit"
        )
    return is_of_size


def note_on_packed(width: int) -> str:
    """What a user should know of frames read so, `width` counts wide."""
    return (
        f"two 4-bit counts a byte: frames are {width} pixels wide (--no-packed-4-bit reads bytes)"
    )


def _shares(halves: np.ndarray) -> np.ndarray:
    """How often each value of four bits occurs, [16]."""
    return np.bincount(halves.reshape(-1), minlength=16) / halves.size


def _are_alike(lower: np.ndarray, upper: np.ndarray) -> bool:
    """Whether both halves hold the same kind of counts, and not just any bits."""
    counts = min(1 - lower[0], 1 - upper[0])
    any_bits = np.full(16, 1 / 16)
    return _difference(lower, upper) < 0.1 * counts and _difference(lower, any_bits) > 0.15


def _difference(shares: np.ndarray, others: np.ndarray) -> float:
    """Which part of the pixels would have to change for one to become the other."""
    return 0.5 * float(np.abs(shares - others).sum())


def _differ(sample: np.ndarray) -> bool:
    """Whether the halves are pixels of their own: in a map of 0 and 255 they are the same."""
    holding = sample[sample > 0]
    are_same = (holding & 15) == (holding >> 4)
    return float(are_same.mean()) < 0.5
