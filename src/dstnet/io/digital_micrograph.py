"""Files of Gatan's Digital Micrograph: gain and dark references as DM4 are read, where the package
dm4 is there; movies, and DM3, are to be converted.
"""

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dstnet.core.regular_files import open_regular
from dstnet.errors import BadInputError

SUFFIXES = (".dm3", ".dm4")


def to_be_converted(path: Path, why: str = "which cannot be read") -> BadInputError:
    """The error for a file that cannot be read; it names what converts it."""
    target = path.with_suffix(".mrc").name
    return BadInputError(
        f"{path} is a Digital Micrograph file, {why}; convert it: dm2mrc {path.name} {target}"
        f" (IMOD) or e2proc2d.py {path.name} {target} (EMAN2)"
    )


class _Counted:
    """A DM4 file whose directory is refused where it counts more than the file has bytes: the
    package would make room for it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        self.seek = file.seek
        self.tell = file.tell
        self.is_directory = True
        self._name_length = 0

    def read(self, length: int) -> bytes:
        """The next bytes; in the directory eight are a count, but for names, whose length stands
        before them in two.
        """
        data = self._file.read(length)
        is_name = length == self._name_length
        self._name_length = int.from_bytes(data) if length == 2 else 0
        is_count = self.is_directory and length == 8 and not is_name
        if is_count and int.from_bytes(data) > self._size:
            raise ValueError("it counts more than it holds")
        return data


def read_dm4(path: Path) -> np.ndarray:
    """The image [y, x] of a DM4 file, its last stored row first: as of a TIFF, and as dm2mrc gives
    it.

    Raises
    ------
    BadInputError
        If it is no DM4 file of one image of real numbers, or the package dm4 is not there.
    """
    if path.suffix.lower() != ".dm4" or importlib.util.find_spec("dm4") is None:
        raise to_be_converted(path)
    dm4: Any = importlib.import_module("dm4")  # not above: few need it
    try:
        with open_regular(path) as content:
            counted = _Counted(content)
            file = dm4.DM4File(counted)
            # A file holds images one behind the other, the first of them often a thumbnail.
            images = file.read_directory().named_subdirs["ImageList"].unnamed_subdirs
            counted.is_directory = False
            stored = images[-1].named_subdirs["ImageData"]
            sides = [
                int(file.read_tag_data(side))
                for side in stored.named_subdirs["Dimensions"].unnamed_tags
            ]
            values: Any = file.read_tag_data(stored.named_tags["Data"])
        image = np.asarray(values, dtype=np.float32).reshape(sides[::-1])
    except OSError as error:
        raise BadInputError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from error
    except Exception as error:  # damaged bytes surface as nearly every kind of error there is
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise to_be_converted(path, f"which cannot be read as one image ({reason})") from error
    image = image.reshape([side for side in image.shape if side > 1])
    if image.ndim != 2:
        raise BadInputError(
            f"{path} holds {' x '.join(map(str, image.shape))} pixels; give a reference of one"
            " image"
        )
    return np.ascontiguousarray(image[::-1])
