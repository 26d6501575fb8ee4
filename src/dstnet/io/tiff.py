"""Multi-page TIFF files (classic and BigTIFF, plain or losslessly compressed), a frame at a time.

Row 0 of a frame, y = 0, is the last stored row, since TIFF images are stored from the top down: so
RELION and MotionCor read movies, and so coordinates, gains and motion agree with theirs, and with
those of the same movie as MRC.

The resolution tags of TIFF files are defaults of some library more often than not; a pixel size is
read only where the description names its unit, as ImageJ and `write_tiff` do.
"""

import math
import operator
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from dstnet.errors import BadInputError
from dstnet.io.atomic import atomic_path
from dstnet.io.packed_counts import holds_packed, not_packed, note_on_packed, unpacked
from dstnet.io.stored_frames import StoredFrames
from dstnet.io.tiff_pages import (
    EER_COMPRESSIONS,
    FramesBehind,
    middle_of,
    one_error,
    page_at,
    page_offsets,
    stated_frames,
)
from dstnet.movie import FrameStack

if TYPE_CHECKING:
    from torch import Tensor

_ANGSTROM_PER_UNIT = {
    "angstrom": 1.0,
    "angstroms": 1.0,
    "å": 1.0,
    "\\u00c5": 1.0,
    "nm": 10.0,
    "nanometer": 10.0,
}
# A classic TIFF ends at 4 GiB; LZW can also make noise a little larger.
_CLASSIC_LIMIT_BYTES = 3 << 30
_ENTRY_BYTES = 20  # of a page's directory (BigTIFF)
_MOST_PADDING_BYTES = 1 << 12  # a page


class TiffFrames(StoredFrames):
    """The frames of a TIFF file; other parameters and attributes are those of `StoredFrames`.

    One grey image a page, all pages of one size and number type; or one page behind which frames
    lie that only its description tells of, as ImageJ keeps stacks beyond 4 GB.

    Parameters
    ----------
    packed_4_bit
        Bytes hold two counts each (`dstnet.io.packed_counts`); None: where the file looks so.

    Raises
    ------
    BadInputError
        If it is no TIFF file, is cut off, its pages are no movie, or it holds frames that cannot be
        reached. Also when a frame cannot be read or decompressed.
    """

    def __init__(self, path: Path | str, packed_4_bit: bool | None = None) -> None:
        self.path = Path(path)
        self._behind: FramesBehind | None = None
        with one_error(f"cannot read {self.path} as TIFF"), tifffile.TiffFile(self.path) as tif:
            self._offsets = page_offsets(tif, self.path)
            first = self._page(tif, 0)
            count = len(self._offsets)
            unclaimed, largest = self._check_pages(tif, first)
            stated = stated_frames(tif, first)
            if stated > count:
                self._behind = self._frames_behind(tif, first, stated)
                count = stated
            elif unclaimed > largest + count * _MOST_PADDING_BYTES:
                raise BadInputError(
                    f"{self.path} has {count} page{'s'[: count > 1]}, and {unclaimed} bytes that"
                    " belong to none: frames that cannot be reached; save it as a TIFF file of one"
                    " page a frame"
                )
            height, width = first.shape
            self.pixel_size_yx_angstrom = _pixel_size(first)
            self._packed = self._holds_packed(tif, first, packed_4_bit)
            if self._packed:
                width *= 2
                self.notes = (note_on_packed(width),)
            self.shape = (count, height, width)

    def _page(self, tif: tifffile.TiffFile, index: int) -> tifffile.TiffPage:
        return page_at(tif, self._offsets[index], index)

    def _check_pages(self, tif: tifffile.TiffFile, first: tifffile.TiffPage) -> tuple[int, int]:
        """Look at every page; how many bytes of the file belong to none, and how many to the
        largest.
        """
        size = tif.filehandle.size
        unclaimed = size
        largest = 0
        for i in range(len(self._offsets)):
            page = self._page(tif, i)
            self._check_page(first, page, i, size)
            copies = self._smaller_copies(tif, page, i)
            stored = sum(page.databytecounts)
            described = sum(_ENTRY_BYTES + tag.valuebytecount for tag in page.tags)
            unclaimed -= stored + copies + described
            largest = max(largest, stored)
        return unclaimed, largest

    def _check_page(
        self, first: tifffile.TiffPage, page: tifffile.TiffPage, index: int, file_size: int
    ) -> None:
        where = f"{self.path}: frame {index + 1}"
        if page.compression in EER_COMPRESSIONS:
            raise BadInputError(f"{self.path} is an EER movie; give it the suffix .eer")
        if page.samplesperpixel != 1 or len(page.shape) != 2:
            raise BadInputError(
                f"{where} has shape {page.shape} (colour or volume); a movie has one grey image a"
                " page, convert it"
            )
        if page.dtype is None or page.dtype.kind not in "buif":
            raise BadInputError(
                f"{where} holds {page.dtype or 'unknown'} pixels; integers and real numbers can be"
                " read, convert it"
            )
        if page.shape != first.shape or page.dtype != first.dtype:
            raise BadInputError(
                f"{where} is {page.dtype} {page.shape}, the first {first.dtype} {first.shape}; all"
                " must be alike, split the file"
            )
        # tifffile fills strips that are missing with zeros, so they have to be found here.
        spans = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        is_empty = any(start <= 0 or count <= 0 for start, count in spans)
        if len(spans) != math.prod(page.chunked) or is_empty:
            raise BadInputError(f"{where} lacks parts of its data; copy it again")
        if max(start + count for start, count in spans) > file_size:
            raise BadInputError(
                f"{self.path} is cut off: frame {index + 1} of {len(self._offsets)} is incomplete;"
                " copy it again"
            )

    def _smaller_copies(self, tif: tifffile.TiffFile, page: tifffile.TiffPage, index: int) -> int:
        """Bytes of a page's copies of less resolution; refuses images of another kind."""
        total = 0
        for offset in page.subifds or ():
            copy = page_at(tif, offset, index)
            if math.prod(copy.shape) >= math.prod(page.shape):
                raise BadInputError(
                    f"{self.path}: frame {index + 1} has further images in a sub-directory, which"
                    " may be frames; save it as a TIFF file of one page a frame"
                )
            total += sum(copy.databytecounts)
        return total

    def _frames_behind(
        self, tif: tifffile.TiffFile, first: tifffile.TiffPage, stated: int
    ) -> FramesBehind:
        """Where frames lie of which only the first has a page."""
        dtype = first.dtype
        assert dtype is not None
        start = first.dataoffsets[0]
        frame_bytes = math.prod(first.shape) * dtype.itemsize
        are_there = start + stated * frame_bytes <= tif.filehandle.size
        is_plain = first.is_contiguous and sum(first.databytecounts) == frame_bytes
        if len(self._offsets) > 1 or not (is_plain and are_there):
            raise BadInputError(
                f"{self.path} says {stated} images but has {len(self._offsets)}"
                f" page{'s'[: len(self._offsets) > 1]}; save it as a TIFF file of one page a frame"
            )
        return FramesBehind(start, first.shape, dtype.newbyteorder(tif.byteorder))

    def _holds_packed(
        self, tif: tifffile.TiffFile, first: tifffile.TiffPage, told: bool | None
    ) -> bool:
        if first.bitspersample != 8:
            return not_packed(self.path, told, f"{first.bitspersample}-bit pixels")
        height, width = first.shape
        pages = sorted({0, len(self._offsets) // 2, len(self._offsets) - 1})
        samples = (middle_of(tif, self._page(tif, page)) for page in pages)
        return holds_packed(self.path, height, width, samples, told)

    def __getitem__(self, index: int, /) -> np.ndarray:
        index = range(self.shape[0])[operator.index(index)]
        what = f"{self.path}: frame {index + 1} cannot be read"
        with one_error(what), tifffile.TiffFile(self.path) as tif:
            if self._behind is None:
                stored = self._page(tif, index).asarray()
            else:
                stored = self._behind.frame(tif, index)
            frame = np.ascontiguousarray(stored[::-1])
            if self._packed:
                frame = unpacked(frame.view(np.uint8))
            if frame.shape != self.shape[1:]:
                raise BadInputError(f"{what}: the file changed since it was opened; copy it again")
            return frame


def _pixel_size(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Pixel size (y, x) in Angstrom, where the description has ImageJ's line ``unit=`` with a unit
    of the nanometre's order.
    """
    unit = re.search(r"^unit=(.+)$", page.description, re.MULTILINE)
    scale = _ANGSTROM_PER_UNIT.get(unit[1].strip().lower()) if unit else None
    units_y = _units_per_pixel(page, "YResolution")
    units_x = _units_per_pixel(page, "XResolution")
    if scale is None or units_y is None or units_x is None:
        return None
    return scale * units_y[0] / units_y[1], scale * units_x[0] / units_x[1]


def _units_per_pixel(page: tifffile.TiffPage, name: str) -> tuple[int, int] | None:
    """Units and the pixels that they hold, by a tag of resolution; None where it is of no use."""
    tag = page.tags.valueof(name)
    if not isinstance(tag, tuple) or len(tag) != 2 or min(tag) <= 0:
        return None
    pixels, units = tag
    return units, pixels


def write_tiff(
    path: Path | str,
    stack: "Iterable[np.ndarray] | Tensor | FrameStack",
    pixel_size_angstrom: float | None,
) -> None:
    """Write a movie as a multi-page LZW TIFF file, atomically, one frame in memory at a time.

    Parameters
    ----------
    path
        The file to write; one of that name is replaced.
    stack
        Frames ``[y, x]``, all of one shape and number type: integers of 8, 16 or 32 bits, float16
        or float32.
    pixel_size_angstrom
        Pixel size, written so that `TiffFrames` and ImageJ read it back; None where it is not
        known.

    Raises
    ------
    BadInputError
        If there is no frame, frames differ, or their number type does not fit.
    OutputError
        If the file cannot be written.
    """
    frames = (np.asarray(frame) for frame in stack)  # pyright: ignore[reportGeneralTypeIssues]
    first = next(frames, None)
    if first is None:
        raise BadInputError(f"{path}: a movie of no frames cannot be written; give at least one")
    if first.ndim != 2 or first.dtype.kind not in "uif" or first.dtype.itemsize > 4:
        raise BadInputError(
            f"{path}: frames are {first.dtype} {first.shape}; give [y, x] of integers, float16 or"
            " float32"
        )
    count = len(stack) if hasattr(stack, "__len__") else None  # pyright: ignore[reportArgumentType]
    # BigTIFF only where needed: fewer programs read it.
    big = count is None or count * first.nbytes > _CLASSIC_LIMIT_BYTES
    options: dict = {
        "compression": "lzw",
        "photometric": "minisblack",
        "metadata": None,
        "software": "dstnet",
    }
    description = None
    if pixel_size_angstrom is not None:
        options |= {"resolution": (1 / pixel_size_angstrom,) * 2, "resolutionunit": "NONE"}
        description = "unit=Angstrom\n"
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=big) as tif:
        for i, frame in enumerate(chain([first], frames)):
            if frame.shape != first.shape or frame.dtype != first.dtype:
                raise BadInputError(
                    f"{path}: frame {i + 1} is {frame.dtype} {frame.shape}, the first {first.dtype}"
                    f" {first.shape}"
                )
            tif.write(frame[::-1], description=description if i == 0 else None, **options)
