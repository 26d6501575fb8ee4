"""A camera's references from files: gain, dark, defects.

MRC and TIFF files are read with the row order of movies (a TIFF's last stored row is row 0), so
that a reference in the form of its movie fits as it is. An EER camera's ``.gain`` file, a TIFF by
content, keeps its stored order, as EER frames do and as RELION reads it.
"""

from pathlib import Path

import numpy as np

from dstnet.errors import BadInputError
from dstnet.io.mrc import MrcFrames
from dstnet.io.tiff import TiffFrames

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MRC_SUFFIXES = (".mrc", ".mrcs", ".st", ".map")
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
        If the file cannot be read, is no single MRC or TIFF image, or holds NaN, infinite or
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
        If the file cannot be read, is no single MRC or TIFF image, or holds NaN or infinite values.
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
    head = _head(path)
    if (
        head.startswith(_TIFF_MAGIC)
        or path.suffix.lower() in _MRC_SUFFIXES
        or head[208:211] == b"MAP"
    ):
        return _image(path, "defect map") != 0
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
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
                " pixels; mend it"
            ) from None
        if width < 1 or height < 1:
            raise BadInputError(
                f"{path}, line {number}: a defect of {width} x {height} pixels; width and height"
                " are at least 1, mend it"
            )
        rectangles.append((x, y, width, height))
    return np.array(rectangles, dtype=np.int64).reshape(-1, 4)


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise BadInputError(f"{path} is a folder; give a file")
        with open(path, "rb") as file:
            return file.read(1024)
    except OSError as error:
        raise BadInputError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from None


def _image(path: Path | str, what: str) -> np.ndarray:
    """The one image of a file, float32, rows as movies have them."""
    path = Path(path)
    head = _head(path)
    suffix = path.suffix.lower()
    if suffix in (".dm3", ".dm4"):
        target = path.with_suffix(".mrc").name
        raise BadInputError(
            f"{path} is a Digital Micrograph file, which cannot be read; convert it: dm2mrc"
            f" {path.name} {target} (IMOD) or e2proc2d.py {path.name} {target} (EMAN2)"
        )
    if head.startswith(_TIFF_MAGIC):
        frames = TiffFrames(path)
    elif suffix in _MRC_SUFFIXES or head[208:211] == b"MAP":
        frames = MrcFrames(path)
    else:
        raise BadInputError(
            f"{path} is neither an MRC nor a TIFF file; give the {what} in one of these formats"
        )
    if frames.shape[0] != 1:
        raise BadInputError(
            f"{path} holds {frames.shape[0]} images of {frames.shape[1]} x {frames.shape[2]}; give"
            f" a {what} of one image"
        )
    image = np.asarray(frames[0], dtype=np.float32)
    if suffix == ".gain":
        image = image[::-1]
    bad = int((~np.isfinite(image)).sum())
    if bad:
        raise BadInputError(
            f"{path} holds {bad} NaN or infinite pixels; mend it or give another {what}"
        )
    return np.ascontiguousarray(image)
