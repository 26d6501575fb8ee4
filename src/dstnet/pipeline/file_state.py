"""Whether a file is still the one that it was."""

from functools import lru_cache
from pathlib import Path

from dstnet.core import regular_files

FileVersion = tuple[int, int]
FileState = tuple[int, int, str]

_DIGEST_LENGTH = 16


def file_version(path: Path) -> FileVersion | None:
    """Size in bytes and time of change in ns since 1970; None where there is no file."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return None
    return status.st_size, status.st_mtime_ns


def file_state(path: Path) -> FileState | None:
    """Size, time of change and the beginning of its digest; None where there is no file."""
    version = file_version(path)
    digest = file_sha256(path)
    return None if version is None or digest is None else (*version, digest[:_DIGEST_LENGTH])


def is_in_state(path: Path, state: FileState) -> bool:
    """Whether a file is as it was; of a copy, whose time is another, the bytes say so."""
    size_bytes, modified_ns, digest = state
    version = file_version(path)
    if version == (size_bytes, modified_ns):
        return True
    if version is None or version[0] != size_bytes:
        return False
    return (file_sha256(path) or "").startswith(digest)


def file_sha256(path: Path) -> str | None:
    """Digest of a file, read once a version; None where it cannot be read."""
    try:
        return _sha256(path, file_version(path))
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=8)
def _sha256(path: Path, _version: FileVersion | None) -> str:
    return regular_files.file_sha256(path)
