"""A camera's references from files: gain, dark, defects.

MRC and TIFF files are read with the row order of movies (a TIFF's last stored row is row 0), so
that a reference in the form of its movie fits as it is. An EER camera's ``.gain`` file, a TIFF by
content, keeps its stored order, as EER frames do and as RELION reads it. DM4 files are read as
TIFF files are.
"""

from pathlib import Path

import numpy as np

from dstnet.core.regular_files import open_regular, read_regular_text
from dstnet.errors import BadInputError
from dstnet.io.digital_micrograph import SUFFIXES as DM_SUFFIXES
from dstnet.io.digital_micrograph import read_dm4
from dstnet.io.eer import EerSettings
from dstnet.io.formats import MRC, TIFF, MovieFormat, ReadOptions

# Words of SerialEM's defect files (SerialEM's help, "Defect correction"), which count pixels and
# rows in another way.
_SERIALEM_WORDS = ("CameraSize", "RotationAndFlip", "K2Type", "Bad", "UsableArea")


def read_gain(path: Path | str) -> np.ndarray:
    """A gain reference as float32 [y, x]; 0 marks a defect.

    What frames are multiplied with; of an EER camera's MRC or TIFF, what they are divided by
    (`CorrectionSettings.gain_invert`).

    Raises
    ------
    BadInputError
        If the file cannot be read, is no single MRC, TIFF or DM4 image, or holds NaN, infinite or
        negative values or only zeros.
    """
    gain = _image(path, "gain")
    if gain.min() < 0:
        raise BadInputError(
            f"{path} holds negative values ({int((gain < 0).sum())} pixels), so it is no gain"
            " reference; give another"
        )
    if not gain.max() > 0:
        raise BadInputError(f"{path} holds only zeros, so it is no gain reference; give another")
    return gain


def read_dark(path: Path | str) -> np.ndarray:
    """A dark reference, the mean frame without beam, as float32 [y, x].

    Raises
    ------
    BadInputError
        If the file cannot be read, is no single MRC, TIFF or DM4 image, or holds NaN or infinite
        values.
    """
    return _image(path, "dark")


def read_defects(path: Path | str) -> np.ndarray:
    """Defects of a camera: a map bool [y, x] from an MRC or TIFF image, where anything but 0 is a
    defect; else int [n, 4] from a text.

    Each line of the text is ``x y width height`` in pixels from 0, as in MotionCor's and RELION's
    defect files; empty lines and those that begin with # are skipped.

    Raises
    ------
    BadInputError
        If the file cannot be read or is of another form, such as SerialEM's.
    """
    path = Path(path)
    if _image_format(path, _head(path)) is not None:
        return _image(path, "defect map") != 0
    try:
        lines = read_regular_text(path).splitlines()
    except (OSError, ValueError):
        raise BadInputError(
            f"{path} is neither a text nor an MRC or TIFF image; give lines of 'x y width height'"
            " or a map"
        ) from None
    rectangles = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(_SERIALEM_WORDS):
            raise BadInputError(
                f"{path} is a defect file of SerialEM, which counts in another way; make a map of"
                f" it with IMOD: clip defect -D {path.name} -f tif MOVIE defects.tif"
            )
        try:
            x, y, width, height = (int(word) for word in words)
        except ValueError:
            raise BadInputError(
                f"{path}, line {number}: {line.strip()[:60]!r} is not 'x y width height' in whole"
                " pixels; correct it"
            ) from None
        if width < 1 or height < 1:
            raise BadInputError(
                f"{path}, line {number}: a defect of {width} x {height} pixels; width and height"
                " are at least 1, correct it"
            )
        rectangles.append((x, y, width, height))
    return np.array(rectangles, dtype=np.int64).reshape(-1, 4)


def _head(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(1024)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise BadInputError(
            f"cannot read {path}: {reason}; check the path and its permissions"
        ) from None


def _image_format(path: Path, head: bytes) -> MovieFormat | None:
    """The format of an image: TIFF by its content, since ``.gain`` files are; else MRC."""
    if TIFF.starts(head):
        return TIFF
    if MRC.starts(head) or path.suffix.lower() in MRC.suffixes:
        return MRC
    return None


def _image(path: Path | str, what: str) -> np.ndarray:
    """The one image of a file, float32, rows as movies have them."""
    path = Path(path)
    head = _head(path)
    suffix = path.suffix.lower()
    if suffix in DM_SUFFIXES:
        return _finite(read_dm4(path), path, what)
    row = _image_format(path, head)
    if row is None:
        raise BadInputError(
            f"{path} is neither an MRC nor a TIFF file; give the {what} in one of these formats"
        )
    frames = row.read(path, ReadOptions(EerSettings(), packed_4_bit=False))
    if frames.shape[0] != 1:
        raise BadInputError(
            f"{path} holds {frames.shape[0]} images of {frames.shape[1]} x {frames.shape[2]}; give"
            f" a {what} of one image"
        )
    image = np.asarray(frames[0], dtype=np.float32)
    if suffix == ".gain":
        image = image[::-1]
    return _finite(np.ascontiguousarray(image), path, what)


def _finite(image: np.ndarray, path: Path, what: str) -> np.ndarray:
    """The image, all of whose pixels must be numbers."""
    bad = int((~np.isfinite(image)).sum())
    if bad:
        raise BadInputError(
            f"{path} holds {bad} NaN or infinite pixels; repair it or give another {what}"
        )
    return image
