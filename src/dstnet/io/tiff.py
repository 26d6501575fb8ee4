"""Multi-page TIFF files (classic and BigTIFF, plain or losslessly compressed), a frame at a time.

Row 0 of a frame, y = 0, is the last stored row, since TIFF images are stored from the top down: so
RELION and MotionCor read movies, and so coordinates, gains and motion agree with theirs, and with
those of the same movie as MRC.

The resolution tags of TIFF files are defaults of some library more often than not; a pixel size is
read only where the description names its unit, as ImageJ and `write_tiff` do.
"""

import logging
import math
import operator
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from dstnet.errors import BadInputError
from dstnet.io.atomic import atomic_path
from dstnet.io.stored_frames import StoredFrames
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
EER_COMPRESSIONS = (65000, 65001, 65002)
# A classic TIFF ends at 4 GiB; LZW can also make noise a little larger.
_CLASSIC_LIMIT_BYTES = 3 << 30


@contextmanager
def one_error(what: str) -> Iterator[None]:
    """Turn whatever tifffile and the codecs do about a damaged file into one BadInputError.

    Raises
    ------
    BadInputError
        If anything was raised within; the message begins with `what`.
    """
    logger = logging.getLogger("tifffile")

    def quiet(_record: logging.LogRecord) -> bool:
        # tifffile also prints what it meets; the error below is all that a user should see
        return False

    logger.addFilter(quiet)
    try:
        yield
    except BadInputError:
        raise
    except OSError as error:
        raise BadInputError(
            f"{what}: {error.strerror or error}; check the file and its permissions"
        ) from error
    except Exception as error:  # damaged bytes surface as nearly every kind of error there is
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadInputError(f"{what}: {reason}; copy it again or save it anew") from error
    finally:
        logger.removeFilter(quiet)


def page_at(tif: tifffile.TiffFile, offset: int, index: int) -> tifffile.TiffPage:
    """The page whose directory starts at `offset`."""
    tif.filehandle.seek(offset)
    return tifffile.TiffPage(tif, index)


def page_offsets(tif: tifffile.TiffFile, path: Path) -> list[int]:
    """Where each page's directory starts. Walked here, since tifffile drops the pages behind a
    broken link and goes on.

    Raises
    ------
    BadInputError
        If a link leads outside the file or back.
    """
    file = tif.filehandle
    form = tif.tiff
    offsets: list[int] = []
    seen: set[int] = set()
    file.seek(form.offsetsize if form.offsetsize == 8 else 4)
    (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    while offset:
        if offset in seen or offset >= file.size:
            raise BadInputError(
                f"{path} is cut off or damaged after frame {len(offsets)}; copy it again"
            )
        seen.add(offset)
        offsets.append(offset)
        file.seek(offset)
        (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        file.seek(offset + form.tagnosize + tags * form.tagsize)
        (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    if not offsets:
        raise BadInputError(f"{path} is a TIFF file with no image in it; copy it again")
    return offsets


class TiffFrames(StoredFrames):
    """The frames of a TIFF file; parameters and attributes are those of `StoredFrames`.

    One grey image a page, all pages of one size and number type.

    Raises
    ------
    BadInputError
        If it is no TIFF file, is cut off, or its pages are no movie. Also when a frame cannot be
        read or decompressed.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with one_error(f"cannot read {self.path} as TIFF"), tifffile.TiffFile(self.path) as tif:
            self._offsets = page_offsets(tif, self.path)
            first = self._page(tif, 0)
            count = len(self._offsets)
            for i in range(count):
                page = self._page(tif, i)
                self._check_page(first, page, i, tif.filehandle.size)
            height, width = first.shape
            self.shape = (count, height, width)
            self.pixel_size_yx_angstrom = _pixel_size(first)
            # ImageJ keeps stacks beyond 4 GB, and tifffile some others, as one page and bytes after
            # it.
            stated = re.search(r"^images=(\d+)", first.description, re.MULTILINE)
            if stated and int(stated[1]) > self.shape[0] == 1:
                raise BadInputError(
                    f"{self.path} says {stated[1]} images but has 1 page; save it as a TIFF file of"
                    " one page a frame"
                )

    def _page(self, tif: tifffile.TiffFile, index: int) -> tifffile.TiffPage:
        return page_at(tif, self._offsets[index], index)

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

    def __getitem__(self, index: int, /) -> np.ndarray:
        index = range(self.shape[0])[operator.index(index)]
        what = f"{self.path}: frame {index + 1} cannot be read"
        with one_error(what), tifffile.TiffFile(self.path) as tif:
            stored = self._page(tif, index).asarray()
            frame = np.ascontiguousarray(stored[::-1])
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
