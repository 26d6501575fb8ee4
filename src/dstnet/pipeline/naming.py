"""What a movie's results are called, by that movie alone; which movie is which."""

import os
import re
from hashlib import sha256
from pathlib import Path, PurePosixPath

from dstnet.io.movie_file import is_movie_name, movie_stem
from dstnet.io.star import percent

_JOB = re.compile(r"^\w+/job\d+/")  # a job's folder as RELION makes it
_DIGITS = 6  # of a digest: enough to tell apart the folders of one project
_LONGEST_PART = 255  # bytes, of a name in the usual file systems
_LONGEST_ENDING = 35  # of our products, and of what other programs add to theirs
_LONGEST_FOLDER = 100  # leaves the name of a folder readable


def result_name(path: Path, written: str | None = None) -> str:
    """What the results of a movie are called, with their sub-folder, without a suffix.

    Parameters
    ----------
    path
        The movie.
    written
        How a STAR or list file names it; None where none does.

    Returns
    -------
    str
        Below the working folder: the path from there. Elsewhere, for a relative path that a file
        wrote: that path. Of both, as RELION does, a leading job folder (``Import/job001/``) is
        taken off. Elsewhere, else: the name of the movie's folder and six digits of the SHA-256 of
        its whole path, then the movie's name. A suffix that says the format is taken off. What
        cannot be printed, and what is too long for a file system, is replaced, see `_safe`.
    """
    folder = _folder_below_working_folder(path)
    if folder is None and written:
        folder = _written_folder(written)
    stem = movie_stem(path) if is_movie_name(path) else path.name
    name = _safe(stem, _LONGEST_PART - _LONGEST_ENDING)
    if name.startswith("."):
        name = "%2E" + name[1:]  # results are never hidden: those are files half written
    if folder is None:
        return f"{_folder_elsewhere(path)}/{name}"
    below_job = PurePosixPath(_JOB.sub("", f"{folder}/"))
    parts = [_safe(part, _LONGEST_PART) for part in below_job.parts]
    return "/".join([*parts, name])


def movie_identity(path: Path | str) -> str:
    """The same for two spellings of a path, also through linked folders, and for no two movies.

    A link to a movie, under another name or in another folder, is a movie of its own.
    """
    absolute = os.path.abspath(path)
    folder, name = os.path.split(absolute)
    return os.path.join(os.path.realpath(folder), name)


def _written_folder(written: str) -> PurePosixPath | None:
    """The folder that a file names; None where it leads elsewhere."""
    path = PurePosixPath(written)
    if path.is_absolute() or ".." in path.parts:
        return None
    return path.parent


def _folder_below_working_folder(path: Path) -> PurePosixPath | None:
    """A movie's folder from the working folder; None where it lies elsewhere."""
    here = os.getcwd()
    folder = os.path.dirname(os.path.abspath(path))
    # A shell that came here through a link calls this folder by another name.
    called = os.environ.get("PWD", here)
    bases = [here, called] if os.path.realpath(called) == here else [here]
    for place in (folder, os.path.realpath(folder)):
        for base in bases:
            below = os.path.relpath(place, base)
            if below != ".." and not below.startswith("../"):
                return PurePosixPath(below)
    return None


def _folder_elsewhere(path: Path) -> str:
    """A name for a movie's folder that no other folder has."""
    folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    # Blanks and quotes are what tables cannot hold; the digest tells folders apart.
    name = re.sub(r"[^\w.+-]", "_", os.path.basename(folder)) or "root"
    return f"{_safe(name, _LONGEST_FOLDER)}-{_digest(folder)}"


def _safe(part: str, longest: int) -> str:
    """A part of a path that can be printed, of at most `longest` bytes: other characters, and bytes
    that are no UTF-8, as %XX; the end of what is too long as a digest of all of it.
    """
    escaped = "".join(c if c.isprintable() else percent(c) for c in part)
    encoded = escaped.encode()
    if len(encoded) <= longest:
        return escaped
    kept = encoded[: longest - _DIGITS - 1].decode(errors="ignore")
    return f"{kept}-{_digest(part)}"


def _digest(name: str) -> str:
    return sha256(os.fsencode(name)).hexdigest()[:_DIGITS]
