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
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import imagecodecs

from dstnet.errors import BadInputError
from dstnet.io import zstd_layout
from dstnet.io.mrc import MrcFrames

PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ"
_CHUNK_BYTES = 1 << 22
_START_BYTES = 1 << 22  # that the first blocks of a zstd file hold at most
_MOST_TIMES = 1000  # as many bytes as packed; counts of a camera make some ten


def is_packed(head: bytes) -> bool:
    """Whether a file that starts so is packed in a way that can be read here."""
    return head.startswith((_GZIP, _BZIP2, _XZ, zstd_layout.MAGIC))


def holds_more_than(path: Path, most_bytes: int) -> bool:
    """Whether a file, one packed by gzip, bzip2 or xz once unpacked, has more bytes than that; such
    a one is read through for it.

    Raises
    ------
    BadInputError
        If it cannot be read or unpacked.
    """
    with _one_error(path):
        if path.stat().st_size > most_bytes:
            return True
        with open(path, "rb") as file:
            head = file.read(6)
        if not head.startswith((_GZIP, _BZIP2, _XZ)):
            return False
        size = 0
        with _stream(path) as stream:
            while size <= most_bytes:
                chunk = stream.read(_CHUNK_BYTES)
                if not chunk:
                    return False
                size += len(chunk)
    return True


class CompressedMrcFrames(MrcFrames):
    """The frames of an MRC file that is packed as a whole; see `MrcFrames`.

    Opening unpacks no more than the first megabytes, a frame asked for no more than the header says
    there is. A reader that is sent to another process unpacks the file there again.

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
            self._is_zstd = packed.read(4) == zstd_layout.MAGIC
        if self._is_zstd:
            with self._zstd_file() as (_, layout), _one_error(self.path):
                start = imagecodecs.zstd_decode(bytes(layout.start), out=_START_BYTES)
                return bytes(start[:length]), None
        with _stream(self.path) as stream, _one_error(self.path):
            return stream.read(length), None

    @contextmanager
    def _file(self) -> Iterator[BinaryIO]:
        if self._unpacked is None:
            unpack = self._unpack_zstd if self._is_zstd else self._unpack_stream
            unpacked = self._temporary(unpack)
            try:
                self._check_size(os.fstat(unpacked.fileno()).st_size)
            except BadInputError:
                unpacked.close()
                raise
            self._unpacked = unpacked
        yield self._unpacked

    def _temporary(self, unpack: Callable[[BinaryIO], None]) -> BinaryIO:
        """A new nameless file that `unpack` has filled."""
        self._refuse_what_has_no_room()
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

    def _refuse_what_has_no_room(self) -> None:
        """Refuse what its header says would fill a disk, before it does."""
        most = self._most_bytes
        packed = self.path.stat().st_size
        if most > max(_MOST_TIMES * packed, _START_BYTES):
            raise BadInputError(
                f"{self.path} has {packed / 1e6:.3g} MB packed where its header says"
                f" {most / 1e9:.3g} GB of frames, {_MOST_TIMES} times as much and more; copy it"
                " again"
            )
        try:
            free = shutil.disk_usage(tempfile.gettempdir()).free
        except OSError:
            return  # making the file will say why
        if most > free:
            raise BadInputError(
                f"cannot unpack {self.path} into {_folder()}: its header says {most / 1e9:.3g} GB"
                f" of frames, and {free / 1e9:.3g} GB are free there; free some space, or set"
                " TMPDIR to a larger folder"
            )

    def _unpack_stream(self, file: BinaryIO) -> None:
        most = self._most_bytes
        size = 0
        with _stream(self.path) as stream:
            while size < most:
                with _one_error(self.path):
                    chunk = stream.read(_CHUNK_BYTES)
                if not chunk:
                    return
                size += file.write(chunk)

    @property
    def _most_bytes(self) -> int:
        """That are unpacked: what holds more than its header says is refused."""
        return self._start + (self.shape[0] + 1) * self._frame_bytes

    @contextmanager
    def _zstd_file(self) -> Iterator[tuple[mmap.mmap, zstd_layout.ZstdLayout]]:
        with (
            open(self.path, "rb") as packed,
            mmap.mmap(packed.fileno(), 0, access=mmap.ACCESS_READ) as source,
        ):
            with _one_error(self.path):
                layout = zstd_layout.zstd_layout(source)
            yield source, layout

    def _unpack_zstd(self, file: BinaryIO) -> None:
        # The codec unpacks a file as a whole, so both ends are memory maps, which the system may
        # write out and drop. Room is taken beforehand: a disk that fills up under a map would kill
        # the process.
        with self._zstd_file() as (source, layout):
            most = min(layout.most_bytes, self._most_bytes)
            os.posix_fallocate(file.fileno(), 0, most)
            with (
                mmap.mmap(file.fileno(), most) as target,
                memoryview(target) as room,
                _one_error(self.path),
            ):
                try:
                    size = len(imagecodecs.zstd_decode(source, out=room))
                except imagecodecs.ZstdError as error:
                    if most == layout.most_bytes or "too small" not in str(error):
                        raise
                    size = most  # there is more, so that the file is refused
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
