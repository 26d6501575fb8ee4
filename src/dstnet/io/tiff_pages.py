"""Where the images of a TIFF file lie: its pages, what its descriptions tell of beside them, and
one error for all that can be wrong with them.
"""

import logging
import math
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from dstnet.errors import BadInputError
from dstnet.io.packed_counts import SAMPLE_BYTES

EER_COMPRESSIONS = (65000, 65001, 65002)
_MOST_PAGES = 50_000  # an EER camera writes 20,000 raw frames a minute


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
        If a link leads outside the file or back, or there are absurdly many.
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
        if len(offsets) == _MOST_PAGES:
            raise BadInputError(f"{path} has more than {_MOST_PAGES} pages; split it")
        seen.add(offset)
        offsets.append(offset)
        file.seek(offset)
        (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        file.seek(offset + form.tagnosize + tags * form.tagsize)
        (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    if not offsets:
        raise BadInputError(f"{path} is a TIFF file with no image in it; copy it again")
    return offsets


@dataclass(frozen=True)
class FramesBehind:
    """Frames that lie one behind the other, without pages.

    Attributes
    ----------
    start
        Where the first begins, in bytes.
    shape
        (y, x) of each.
    dtype
        As stored.
    """

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def frame(self, tif: tifffile.TiffFile, index: int) -> np.ndarray:
        """Frame `index` [y, x], rows as stored; EOFError where the file ends within."""
        length = math.prod(self.shape) * self.dtype.itemsize
        tif.filehandle.seek(self.start + index * length)
        data = tif.filehandle.read(length)
        if len(data) < length:
            raise EOFError("the file ends within it")
        pixels = np.frombuffer(data, self.dtype).reshape(self.shape)
        return pixels.astype(self.dtype.newbyteorder("="), copy=False)


def stated_frames(tif: tifffile.TiffFile, first: tifffile.TiffPage) -> int:
    """How many frames the descriptions that programs leave in a file (ImageJ's, OME's, tifffile's,
    ...) tell of; 0 where there are none.
    """
    images = re.search(r"^images=(\d+)", first.description, re.MULTILINE)
    # Copies of a part of a stack may keep its description: that of a stack of one page is believed.
    stated = int(images[1]) if images and not tif.pages.is_multipage else 0
    try:
        pixels = sum(math.prod(series.shape) for series in tif.series)
    except Exception:  # whatever tifffile finds odd in a description: there are pages
        return stated
    return max(stated, pixels // math.prod(first.shape))


def middle_of(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> np.ndarray:
    """Bytes from the middle of a page of bytes, as uint8 [n]."""
    middle = len(page.dataoffsets) // 2
    tif.filehandle.seek(page.dataoffsets[middle])
    data = tif.filehandle.read(page.databytecounts[middle])
    pixels, _, _ = page.decode(data, middle)
    if pixels is None:
        return np.empty(0, np.uint8)
    flat = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
    start = max(flat.size - SAMPLE_BYTES, 0) // 2
    return flat[start : start + SAMPLE_BYTES]
