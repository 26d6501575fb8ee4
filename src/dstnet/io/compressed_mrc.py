"""MRC files packed as a whole by gzip, bzip2, xz or zstd: unpacked to a temporary file when the
first frame is asked for.

The temporary file has no name (it lies in $TMPDIR, as Python's tempfile chooses), so that it is
gone with its reader, however that ends.
"""

import bz2
import errno
import gzip
import lzma
import mmap
import os
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import imagecodecs

from dstnet.errors import BadInputError
from dstnet.io.mrc import MrcFrames

PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"
_CHUNK_BYTES = 1 << 22
# The most that a block of zstd holds unpacked (RFC 8878, section 3.1.1.2.4)
_ZSTD_BLOCK_BYTES = 1 << 17


def is_packed(head: bytes) -> bool:
    """Whether a file that starts so is packed in a way that can be read here."""
    return head.startswith((_GZIP, _BZIP2, _XZ, _ZSTD))


class CompressedMrcFrames(MrcFrames):
    """The frames of an MRC file that is packed as a whole; see `MrcFrames`.

    Opening reads no more than the header and the first megabyte (of zstd, everything). A reader
    that is sent to another process unpacks the file there again.

    Raises
    ------
    BadInputError
        As `MrcFrames`; also if the file cannot be unpacked, or there is no room for it.
    """

    def __init__(self, path: Path | str, packed_4_bit: bool | None = None) -> None:
        self._unpacked: BinaryIO | None = None
        self._told = packed_4_bit
        super().__init__(path, packed_4_bit)

    def __reduce__(self) -> tuple:
        return (type(self), (self.path, self._told))

    def _head_and_size(self, length: int) -> tuple[bytes, int | None]:
        with open(self.path, "rb") as packed:
            zstd = packed.read(4) == _ZSTD
        if zstd:  # can be unpacked as a whole only
            self._unpacked = self._unpacked or self._temporary(self._unpack_zstd)
            return (
                os.pread(self._unpacked.fileno(), length, 0),
                os.fstat(self._unpacked.fileno()).st_size,
            )
        with _stream(self.path) as stream, _one_error(self.path):
            return stream.read(length), None

    @contextmanager
    def _file(self) -> Iterator[BinaryIO]:
        if self._unpacked is None:
            unpacked = self._temporary(self._unpack_stream)
            try:
                self._check_size(os.fstat(unpacked.fileno()).st_size)
            except BadInputError:
                unpacked.close()
                raise
            self._unpacked = unpacked
        yield self._unpacked

    def _temporary(self, unpack: Callable[[BinaryIO], None]) -> BinaryIO:
        """A new nameless file that `unpack` has filled."""
        try:
            file = cast(BinaryIO, tempfile.TemporaryFile(prefix="dstnet-"))  # noqa: SIM115  it is closed with the reader
            try:
                unpack(file)
                file.flush()
            except BaseException:
                file.close()
                raise
            weakref.finalize(self, file.close)
            return file
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            remedy = (
                "free some space there, or set TMPDIR to a larger folder"
                if full
                else "set TMPDIR to a folder that can be written"
            )
            raise BadInputError(
                f"cannot unpack {self.path} into {_folder()}: {error.strerror or error}; {remedy}"
            ) from error

    def _unpack_stream(self, file: BinaryIO) -> None:
        # What holds more than its header says is refused, so no more than that is unpacked.
        most = self._start + (self.shape[0] + 1) * self._frame_bytes
        size = 0
        with _stream(self.path) as stream:
            while size < most:
                with _one_error(self.path):
                    chunk = stream.read(_CHUNK_BYTES)
                if not chunk:
                    return
                size += file.write(chunk)

    def _unpack_zstd(self, file: BinaryIO) -> None:
        # The codec unpacks a file as a whole, so both ends are memory maps, which the system may
        # write out and drop. Room is taken beforehand: a disk that fills up under a map would kill
        # the process.
        with (
            open(self.path, "rb") as packed,
            mmap.mmap(packed.fileno(), 0, access=mmap.ACCESS_READ) as source,
        ):
            with _one_error(self.path):
                most = _zstd_bound(source)
            os.posix_fallocate(file.fileno(), 0, most)
            with (
                mmap.mmap(file.fileno(), most) as target,
                memoryview(target) as room,
                _one_error(self.path),
            ):
                size = len(imagecodecs.zstd_decode(source, out=room))
        os.ftruncate(file.fileno(), size)


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return "a temporary folder"


def _stream(path: Path) -> BinaryIO:
    with open(path, "rb") as packed:
        magic = packed.read(6)
    opener = lzma.open
    if magic.startswith(_GZIP):
        opener = gzip.open
    elif magic.startswith(_BZIP2):
        opener = bz2.open
    return cast(BinaryIO, opener(path, "rb"))


@contextmanager
def _one_error(path: Path) -> Iterator[None]:
    """Turn what the unpackers do about a damaged file into one BadInputError."""
    try:
        yield
    except EOFError as error:
        raise BadInputError(
            f"{path} is cut off: it ends within its packed data; copy it again"
        ) from error
    except (OSError, ValueError, zlib.error, lzma.LZMAError, imagecodecs.ZstdError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadInputError(f"{path} cannot be unpacked: {reason}; copy it again") from error


def _zstd_bound(data: mmap.mmap) -> int:
    """The most bytes that a zstd file can unpack to, from its blocks' headers (RFC 8878, section
    3.1); EOFError where it is cut off.
    """
    position, most = 0, 0

    def skip(length: int) -> int:
        """Where the next `length` bytes start."""
        nonlocal position
        position += length
        if position > len(data):
            raise EOFError
        return position - length

    def number(length: int) -> int:
        start = skip(length)
        return int.from_bytes(data[start : start + length], "little")

    while position < len(data):
        magic = number(4)
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # a frame that holds something else
            skip(number(4))
            continue
        if magic != int.from_bytes(_ZSTD, "little"):
            raise ValueError("no zstd frame where one should start")
        descriptor = number(1)
        single = descriptor >> 5 & 1
        checksum = descriptor >> 2 & 1
        skip((1 - single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6])
        last = 0
        while not last:
            block = number(3)
            last = block & 1
            kind = block >> 1 & 3
            size = block >> 3
            most += size if kind < 2 else _ZSTD_BLOCK_BYTES
            skip(1 if kind == 1 else size)
        skip(4 * checksum)
    if not most:
        raise EOFError
    return most
