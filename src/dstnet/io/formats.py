"""The table of file formats that movies are read from and written to: a new one is a file with its
reader, and a row here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dstnet.io.compressed_mrc import PACKED_SUFFIXES, CompressedMrcFrames
from dstnet.io.eer import EerFrames, EerSettings
from dstnet.io.mrc import MrcFrames, write_mrc
from dstnet.io.stored_frames import StoredFrames
from dstnet.io.tiff import TiffFrames, write_tiff


@dataclass(frozen=True)
class ReadOptions:
    """What a reader may want to know besides the path.

    Attributes
    ----------
    eer
        How raw frames of EER movies are summed.
    exposure_e_per_a2
        Exposure that the user gave, of a frame or a raw frame.
    packed_4_bit
        Whether bytes hold two 4-bit counts each; None: where the file looks so.
    """

    eer: EerSettings
    exposure_e_per_a2: float | None = None
    packed_4_bit: bool | None = None


Reader = Callable[[Path, ReadOptions], StoredFrames]
Writer = Callable[[Path, Iterable[np.ndarray], float, str], None]


@dataclass(frozen=True)
class MovieFormat:
    """One row of the table.

    Attributes
    ----------
    name
        What messages call it.
    suffixes
        Of its files, in small letters. A suffix says the format, whatever the content.
    magic
        Bytes that its files hold, each with its place; any of them says the format of a file with
        another suffix.
    read
        Opens a file.
    read_packed
        Opens a file that was packed as a whole (`dstnet.io.compressed_mrc`); None: cannot be done.
    write
        Writes frames, all of one shape and type, with their pixel size and a line on what they are;
        None: is read only.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: tuple[tuple[int, bytes], ...]
    read: Reader
    read_packed: Reader | None = None
    write: Writer | None = None

    def starts(self, head: bytes) -> bool:
        """Whether a file that starts with `head` is of this format."""
        return any(head[at : at + len(mark)] == mark for at, mark in self.magic)


def _write_mrc(path: Path, frames: Iterable[np.ndarray], pixel: float, label: str) -> None:
    write_mrc(path, frames, pixel, label, stack=True)


def _write_tiff(path: Path, frames: Iterable[np.ndarray], pixel: float, _label: str) -> None:
    write_tiff(path, frames, pixel)


MRC = MovieFormat(
    name="MRC",
    suffixes=(".mrc", ".mrcs", ".st", ".map"),
    magic=((208, b"MAP"),),
    read=lambda path, options: MrcFrames(path, options.packed_4_bit),
    read_packed=lambda path, options: CompressedMrcFrames(path, options.packed_4_bit),
    write=_write_mrc,
)
TIFF = MovieFormat(
    name="TIFF",
    suffixes=(".tif", ".tiff"),
    magic=((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")),
    read=lambda path, options: TiffFrames(path, options.packed_4_bit),
    write=_write_tiff,
)
# No magic: an EER file is a TIFF file by its first bytes, and its reader says so.
EER = MovieFormat(
    name="EER",
    suffixes=(".eer",),
    magic=(),
    read=lambda path, options: EerFrames(path, options.eer, options.exposure_e_per_a2),
)

FORMATS = (MRC, TIFF, EER)


def format_names() -> str:
    """The formats as messages list them: "MRC, TIFF or EER"."""
    *others, last = (row.name for row in FORMATS)
    return f"{', '.join(others)} or {last}"


def format_of_suffix(suffix: str) -> MovieFormat | None:
    """The format that a suffix, such as ``.tif``, stands for."""
    return next((row for row in FORMATS if suffix.lower() in row.suffixes), None)


def format_of_content(head: bytes) -> MovieFormat | None:
    """The format of a file that starts with `head`, by its magic bytes."""
    matching = [row for row in FORMATS if row.starts(head)]
    # A mark at the very start says more than one further on.
    return min(matching, key=lambda row: row.magic[0][0], default=None)


def is_packed_name(path: Path) -> bool:
    """Whether a file's suffix says that it is packed as a whole."""
    return path.suffix.lower() in PACKED_SUFFIXES


def unpacked_name(path: Path) -> Path:
    """A path without the suffix that says that its file is packed, if it has one."""
    return path.with_suffix("") if is_packed_name(path) else path
