"""Images that other programs wrote."""

from pathlib import Path

from dstnet.core.shapes import Image, Shape
from dstnet.errors import BadInputError
from dstnet.io import open_movie


def read_image(path: Path) -> Image:
    """The only image of a file, float32.

    Raises
    ------
    BadInputError
        If it cannot be read, holds several images, or a value is not finite.
    """
    # Of the file's image alone: what its header says of the pixel size does not matter.
    stored = open_movie(path, pixel_size_angstrom=1.0)
    if len(stored) != 1:
        raise BadInputError(f"{path} holds {len(stored)} images; give one an input")
    return stored.frame(0)


def read_result(path: Path, shape: Shape, program: str, subject: str) -> Image:
    """The image that a program has just written, [y, x].

    Raises
    ------
    BadInputError
        If it is missing, cannot be read, is not finite, or is not of `shape`.
    """
    if not path.is_file():
        raise BadInputError(f"{subject}: {program} ended without writing {path.name}")
    image = read_image(path)
    if image.shape != shape:
        height, width = image.shape
        raise BadInputError(
            f"{subject}: {program} wrote {width} x {height} pixels, the sum has {shape[1]} x"
            f" {shape[0]}"
        )
    return image
