"""EER movies (electron event representation, of Falcon 4 cameras and later), summed to fractions
when asked for.

An EER file is a TIFF file of hundreds to thousands of raw frames, each a list of single electrons
on a grid four times as fine as the camera's pixels (Guo et al. 2020, IUCrJ 7, 860). Everything here
is as RELION has it, so that its values can be taken over: the number of raw frames a fraction, with
an incomplete last group left out; "frames" and the exposure of a frame mean fractions; an electron
is one count in the pixel of the up-sampled grid that it fell into; and row 0, y = 0, is the first
stored row, other than in TIFF movies.
"""

import math
import operator
import re
from pathlib import Path
from typing import BinaryIO, Literal, Self

import numpy as np
import tifffile
from pydantic import Field, model_validator

from dstnet.core.settings import Settings
from dstnet.errors import BadInputError
from dstnet.io.stored_frames import StoredFrames
from dstnet.io.tiff_pages import EER_COMPRESSIONS, one_error, page_at, page_offsets

_RAW_FRAMES_PER_FRACTION = 40  # the default of RELION's motion correction (--eer_grouping)
_SKIP_BITS = {65000: 8, 65001: 7}  # 65002 has its own in tags
# Bits to skip pixels, of x and of y, with their defaults
_BITS_TAGS = {65007: 7, 65008: 2, 65009: 2}
_MOST_CODE_BITS = 16
_METADATA_TAG = 65001
_NO_COMPRESSION = 1


class EerSettings(Settings):
    """How the raw frames of an EER movie are made into frames. With neither of the first two, 40
    raw frames make one, as in RELION.

    Parameters
    ----------
    frames_per_fraction
        Raw frames in a fraction.
    exposure_per_fraction_e_per_a2
        Or: exposure of a fraction, in e-/Å². As many raw frames make one as come nearest to it, and
        `open_movie`'s exposure of a frame is then that of a *raw* frame; else it is that of a
        fraction.
    up_sampling
        1 counts electrons on the camera's own grid (4k), 2 and 4 on grids finer by that factor (8k,
        16k); the pixel size follows.
    """

    frames_per_fraction: int | None = Field(default=None, ge=1)
    exposure_per_fraction_e_per_a2: float | None = Field(default=None, gt=0)
    up_sampling: Literal[1, 2, 4] = 1

    @model_validator(mode="after")
    def _one_grouping(self) -> Self:
        if self.frames_per_fraction is not None and self.exposure_per_fraction_e_per_a2 is not None:
            raise ValueError("fractions are given by raw frames and by exposure; give one of them")
        return self


class EerFrames(StoredFrames):
    """The fractions of an EER movie, each summed from its raw frames when asked for: ``frames[i]``
    is a new array ``[y, x]`` of counts.

    Shape and pixel size are those of the up-sampled grid. A fraction and one compressed raw frame
    are in memory at a time.

    Parameters
    ----------
    path
        The file.
    settings
        Fractions and grid.
    exposure_e_per_a2
        Exposure of a raw frame; needed where fractions are asked for by exposure, and not used
        otherwise.

    Attributes
    ----------
    raw_frames
        Raw frames in the file.
    frames_per_fraction
        Raw frames that a fraction is the sum of.

    Raises
    ------
    BadInputError
        If it is no EER file, is cut off, or cannot be divided as asked for. Also when a raw frame
        is damaged.
    """

    def __init__(
        self, path: Path | str, settings: EerSettings, exposure_e_per_a2: float | None = None
    ) -> None:
        self.path = Path(path)
        with one_error(f"cannot read {self.path} as EER"), tifffile.TiffFile(self.path) as tif:
            offsets = page_offsets(tif, self.path)
            pages = [page_at(tif, offset, i) for i, offset in enumerate(offsets)]
            if len(pages) > 1 and pages[0].compression == _NO_COMPRESSION:
                del pages[0]  # some programs put the sum of all frames first
            first = pages[0]
            self._sides = (int(first.imagelength), int(first.imagewidth))
            self._bits = self._code_bits(first, settings.up_sampling)
            spans: list[tuple[int, int, int]] = []
            for i, page in enumerate(pages):
                spans += self._spans(page, first, i, len(pages), tif.filehandle.size)
            metadata = first.tags.valueof(_METADATA_TAG, b"")
        self._starts, self._counts, self._first_strips = _packed(spans, len(pages))
        self.raw_frames = len(pages)
        self.frames_per_fraction = self._grouping(settings, exposure_e_per_a2)
        by_exposure = settings.exposure_per_fraction_e_per_a2 is not None
        self.exposure_multiple = self.frames_per_fraction if by_exposure else 1
        self._up_sampling = settings.up_sampling
        self.eer_up_sampling = settings.up_sampling
        height, width = self._sides
        fractions, rest = divmod(self.raw_frames, self.frames_per_fraction)
        self.shape = (fractions, height * settings.up_sampling, width * settings.up_sampling)
        self.pixel_size_yx_angstrom = _pixel_size(metadata, settings.up_sampling)
        left_out = f", the last {rest} left out" if rest else ""
        self.notes = (
            (
                f"EER: {self.raw_frames} raw frames, {self.frames_per_fraction} a fraction:"
                f" {fractions} frames{left_out}"
            ),
        )

    def _code_bits(self, page: tifffile.TiffPage, up_sampling: int) -> tuple[int, int, int]:
        """Bits of an event's code: pixels to skip, place in x, place in y."""
        compression = int(page.compression)
        if compression not in EER_COMPRESSIONS:
            raise BadInputError(
                f"{self.path} is no EER movie (TIFF compression {compression}); give it the suffix"
                " .tif"
            )
        skip, x, y = (int(page.tags.valueof(tag, default)) for tag, default in _BITS_TAGS.items())
        if compression in _SKIP_BITS:
            skip = _SKIP_BITS[compression]
            x = 2
            y = 2
        if not (skip >= 2 and min(x, y) >= 1 and skip + x + y <= _MOST_CODE_BITS):
            raise BadInputError(
                f"{self.path} has codes of {skip} + {x} + {y} bits; {_MOST_CODE_BITS} in all can be"
                " read, convert it to TIFF"
            )
        if up_sampling > 1 << min(x, y):
            raise BadInputError(
                f"{self.path} has {1 << x} x {1 << y} places in a pixel; take an up-sampling of at"
                f" most {1 << min(x, y)}"
            )
        return skip, x, y

    def _spans(
        self, page: tifffile.TiffPage, first: tifffile.TiffPage, index: int, count: int, size: int
    ) -> list[tuple[int, int, int]]:
        """(raw frame, start, bytes) of each strip; a frame's strips are one stream of codes."""
        where = f"{self.path}: raw frame {index + 1}"
        sides = (int(page.imagelength), int(page.imagewidth))
        if sides != self._sides or page.compression != first.compression:
            raise BadInputError(f"{where} is of another size or kind than the first; copy it again")
        strips = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if not strips or any(start <= 0 or length <= 0 for start, length in strips):
            raise BadInputError(f"{where} lacks parts of its data; copy it again")
        if max(start + length for start, length in strips) > size:
            raise BadInputError(
                f"{self.path} is cut off: raw frame {index + 1} of {count} is incomplete; copy it"
                " again"
            )
        return [(index, start, length) for start, length in strips]

    def _grouping(self, settings: EerSettings, exposure_e_per_a2: float | None) -> int:
        requested = settings.exposure_per_fraction_e_per_a2
        if requested is None:
            group = settings.frames_per_fraction or min(_RAW_FRAMES_PER_FRACTION, self.raw_frames)
        elif exposure_e_per_a2 is None:
            raise BadInputError(
                f"{self.path}: fractions by exposure need a raw frame's; pass --dose-per-frame, or"
                " raw frames a fraction"
            )
        elif requested < 1.5 * exposure_e_per_a2:
            raise BadInputError(
                f"{self.path}: fractions of {requested:g} e-/Å2 from raw frames of"
                f" {exposure_e_per_a2:g} each; where fractions are given by exposure,"
                " --dose-per-frame is that of a raw frame of the camera, not of a fraction"
            )
        else:
            group = round(requested / exposure_e_per_a2)
        if group > self.raw_frames:
            raise BadInputError(
                f"{self.path} has {self.raw_frames} raw frames, no fraction of {group}; take"
                " smaller fractions"
            )
        return group

    def __getitem__(self, index: int, /) -> np.ndarray:
        from dstnet.io._eer_kernel import add_events  # not above: numba takes half a second to load

        index = range(self.shape[0])[operator.index(index)]
        group = self.frames_per_fraction
        # A pixel gets at most one electron a raw frame, so a byte holds the sum of up to 255.
        counts = np.zeros(self.shape[1:], np.min_scalar_type(group))
        up_sampling_bits = self._up_sampling.bit_length() - 1
        what = f"{self.path}: frame {index + 1} cannot be read"
        with one_error(what), open(self.path, "rb") as file:
            for i in range(index * group, (index + 1) * group):
                codes, missing = self._codes(file, i)
                is_complete = add_events(codes, counts, up_sampling_bits, *self._bits)
                if missing or not is_complete:
                    fault = "cut off" if missing else "damaged"
                    raise BadInputError(f"{what}: raw frame {i + 1} is {fault}; copy it again")
        return counts

    def _codes(self, file: BinaryIO, raw_frame: int) -> tuple[np.ndarray, int]:
        """Bytes of a raw frame's codes, with three more, as uint8; and how many are missing."""
        first, end = self._first_strips[raw_frame : raw_frame + 2]
        starts = self._starts[first:end].tolist()
        lengths = self._counts[first:end].tolist()
        stream = bytearray()
        for start, length in zip(starts, lengths, strict=True):
            file.seek(start)
            stream += file.read(length)
        missing = sum(lengths) - len(stream)
        stream += bytes(3)
        return np.frombuffer(stream, np.uint8), missing


def _packed(
    spans: list[tuple[int, int, int]], frames: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts and lengths of all strips, and each raw frame's first strip with the end behind them:
    arrays travel better than lists.
    """
    owners, starts, lengths = np.array(spans, np.int64).T
    first_strips = np.searchsorted(owners, np.arange(frames + 1))
    return starts.copy(), lengths.copy(), first_strips


def _pixel_size(metadata: object, up_sampling: int) -> tuple[float, float] | None:
    """Pixel size (y, x) in Angstrom from the file's XML: that in the specimen, of the camera's own
    grid, in metres.
    """
    text = metadata.decode("utf-8", "replace") if isinstance(metadata, bytes) else str(metadata)
    found = {}
    for attributes, value in re.findall(r"<item\b([^<>]*)>\s*([^<>]*?)\s*</item>", text):
        named = dict(re.findall(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']", attributes))
        if named.get("unit") == "m":
            found[named.get("name")] = value
    try:
        y = float(found["sensorPixelSize.height"]) * 1e10 / up_sampling
        x = float(found["sensorPixelSize.width"]) * 1e10 / up_sampling
    except (KeyError, ValueError):
        return None
    is_sensible = math.isfinite(y) and math.isfinite(x) and min(y, x) > 0
    return (y, x) if is_sensible else None
