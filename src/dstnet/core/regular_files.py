"""Files read as a whole: regular ones alone, up to a size that is said beforehand.

Whatever else bears a file's name - a pipe, a device, a socket - may keep a reader waiting for ever,
or never end.
"""

import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

# Tables and texts that name files or list numbers. RELION's table of 100,000 movies has some 50 MB.
TABLE_BYTES = 128 << 20
# Settings, cards and records of one run.
RECORD_BYTES = 16 << 20
_PIECE_BYTES = 1 << 20


def open_regular(path: Path | str, most_bytes: int | None = None) -> BufferedReader:
    """A regular file opened for reading; to be closed by the caller.

    Parameters
    ----------
    path
        The file, or a link to it.
    most_bytes
        That it may have; None: any number.

    Raises
    ------
    OSError
        If it cannot be opened, is no regular file, or is larger.
    ValueError
        If the path has a null byte.
    """
    # Else opening a pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise OSError("it is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no regular file")
        if most_bytes is not None and status.st_size > most_bytes:
            raise OSError(f"it is larger than {most_bytes >> 20} MiB")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a regular file, in hexadecimal digits; it is read piece by piece.

    Raises
    ------
    OSError, ValueError
        As `open_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_regular(path: Path | str, most_bytes: int = RECORD_BYTES) -> bytes:
    """The bytes of a regular file.

    Raises
    ------
    OSError, ValueError
        As `open_regular`; also if the file grows beyond `most_bytes` meanwhile.
    """
    content = bytearray()
    with open_regular(path, most_bytes) as file:
        # In pieces: a reader makes room beforehand for all that it is asked for.
        while piece := file.read(_PIECE_BYTES):
            content += piece
            if len(content) > most_bytes:
                raise OSError(f"it is larger than {most_bytes >> 20} MiB")
    return bytes(content)


def read_regular_text(path: Path | str, most_bytes: int = RECORD_BYTES) -> str:
    """The text of a regular UTF-8 file, its lines ended by ``\\n``.

    Raises
    ------
    OSError, ValueError
        As `read_regular`; UnicodeDecodeError, which is a ValueError, if it is no UTF-8.
    """
    text = read_regular(path, most_bytes).decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")
