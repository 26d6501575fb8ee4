"""Outputs that appear complete or not at all: written beside their target under a hidden name, then
renamed.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from dstnet.errors import OutputError
from dstnet.io.leftovers import hidden_path

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "make its folder first",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def _output_error(path: Path, error: OSError) -> OutputError:
    remedy = _REMEDIES.get(error.errno or 0, "choose another output path")
    return OutputError(f"cannot write {path}: {error.strerror or error}; {remedy}")


def _discard(temporary: Path) -> None:
    """Remove what is left; the error that may be on its way says more than one of this."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


Put = Callable[[Path, Path], None]  # puts a complete file, the first, in the place of the second


@contextmanager
def atomic_path(path: Path | str, put: Put | None = None) -> Iterator[Path]:
    """Yield a path to write to; once the block ends well, what lies there replaces `path` in one
    step.

    The path yielded is a hidden name in the same folder with the same suffix; an empty file lies
    there, whose permissions the result gets, as the umask has them. If the block fails, for
    whatever reason, nothing is left behind and an older file at `path` stays as it was. `put` is a
    `Staged` that keeps the file for later, where there is one.

    Raises
    ------
    OutputError
        If the file cannot be written or put in its place (no folder, no permission, disk full, a
        folder of that name).
    """
    path = Path(path)
    temporary = hidden_path(path)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        # Else a crash of the machine could leave the new name on an empty file.
        flush_to_disk(temporary)
        (put or os.replace)(temporary, path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        _discard(temporary)


class Staged:
    """Complete files that wait, under hidden names, until all of them are put in their places.

    To be given as `put` to what writes them; those that wait when the block ends are removed.

    Attributes
    ----------
    waiting
        Where they lie, by where they belong.
    """

    def __init__(self) -> None:
        self.waiting: dict[Path, Path] = {}

    def __call__(self, temporary: Path, path: Path) -> None:
        """Keep a complete file."""
        kept = hidden_path(path)
        os.replace(temporary, kept)
        self.waiting[path] = kept

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for kept in self.waiting.values():
            _discard(kept)

    def put_in_place(self) -> None:
        """Put all files in their places, in the order in which they came.

        Raises
        ------
        OutputError
            If that cannot be done; those before it are in theirs.
        """
        for path, kept in list(self.waiting.items()):
            try:
                os.replace(kept, path)
            except OSError as error:
                raise _output_error(path, error) from error
            del self.waiting[path]


def flush_to_disk(path: Path) -> None:
    """Wait until a file is on the disk: a full one, or a full quota, may say so no sooner.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def create_file(path: Path, text: str) -> bool:
    """Write a new file; False where one of that name is there. Of processes that do so at once, one
    does, and others never see it half written, but on file systems without hard links.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    temporary = hidden_path(path)
    try:
        temporary.write_text(text)
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # no hard links there
            with open(path, "x") as file:
                file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        _discard(temporary)
    return True


def ensure_writable_folder(path: Path | str) -> Path:
    """Make the folder `path` with its parents if need be, and make sure that files can be created
    in it.

    Raises
    ------
    OutputError
        If it cannot be made, is no folder, or no file can be created in it.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Creating a file is the only honest test: permission bits mean little to network file
        # systems and to root. This one has no name that a kill could leave behind.
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        if path.exists() and not path.is_dir():
            raise OutputError(
                f"cannot write into {path}: it is a file, not a folder; choose another folder"
            ) from error
        raise _output_error(path, error) from error
    return path
