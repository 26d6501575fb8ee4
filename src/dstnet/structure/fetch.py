"""Structures by their Protein Data Bank entry, downloaded once by `pooch`."""

import gzip
import os
import re
import sys
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dstnet.core.regular_files import TABLE_BYTES, file_sha256, read_regular_text
from dstnet.errors import BadInputError, OutputError
from dstnet.io import atomic_path, ensure_writable_folder

ARCHIVES = ("https://files.rcsb.org/download",)
ARCHIVES_VARIABLE = "DSTNET_PDB_ARCHIVES"  # mirrors, tried in their order
TIMEOUT_S = 60
_CHUNK_BYTES = 1 << 20
CHECKSUMS = "checksums.txt"  # of the cache: a name and its SHA-256 a line, as pooch reads them


def archives() -> tuple[str, ...]:
    """Addresses of the folders that hold ``6Z6U.cif.gz`` and the like: those that
    ``$DSTNET_PDB_ARCHIVES`` names, parted by blanks, or the Protein Data Bank's.
    """
    return tuple(os.environ.get(ARCHIVES_VARIABLE, "").split()) or ARCHIVES


def cache_folder() -> Path:
    """Where downloads are kept: ``$DSTNET_CACHE``, or `dstnet` in the platform's folder for
    caches.
    """
    if chosen := os.environ.get("DSTNET_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "dstnet"


def fetch_structure(
    entry: str, mirrors: Sequence[str] | None = None, timeout_s: float = TIMEOUT_S
) -> Path:
    """The mmCIF file of a Protein Data Bank entry, from the cache or downloaded into it.

    Its checksum is kept when it is first used; a file that has changed since is not used.

    Parameters
    ----------
    entry
        Its identifier of four characters, such as ``6z6u``.
    mirrors
        Addresses of the folders that hold ``6Z6U.cif.gz`` and the like, tried in their order; None:
        see `archives`.
    timeout_s
        How long to wait for an answer.

    Raises
    ------
    BadInputError
        If that is no identifier, there is no such entry, it cannot be downloaded, or the file in
        the cache is not what it was.
    OutputError
        If the cache cannot be written.
    """
    name = entry.lower()
    if not re.fullmatch(r"[0-9][a-z0-9]{3}", name):
        raise BadInputError(
            f"{entry!r} is no PDB identifier; give four characters such as 6z6u, or a structure"
            " file"
        )
    path = cache_folder() / f"{name}.cif.gz"
    if not path.is_file():
        _download(path, tuple(mirrors or archives()), timeout_s)
    _check(path)
    return path


def _download(path: Path, mirrors: Sequence[str], timeout_s: float) -> None:
    """Download an entry into the cache from the first archive that has it.

    Raises
    ------
    BadInputError
        If none gives it, whole.
    OutputError
        If the cache cannot be written.
    """
    name = path.name.removesuffix(".cif.gz")
    ensure_writable_folder(path.parent)
    problems = []
    for archive in mirrors:
        address = f"{archive.rstrip('/')}/{name.upper()}.cif.gz"
        try:
            with atomic_path(path) as temporary:
                _download_whole(address, temporary, timeout_s)
            return
        except _NotGivenError as problem:
            problems.append(str(problem))
    if all(problem.endswith(_NO_ENTRY) for problem in problems):
        raise BadInputError(
            f"there is no PDB entry {name}: {'; '.join(problems)}; check its identifier"
        )
    raise BadInputError(
        f"cannot download the PDB entry {name}: {'; '.join(problems)}; check the network, name a"
        f" mirror in ${ARCHIVES_VARIABLE}, or put the entry's mmCIF file at {path} yourself"
    )


class _NotGivenError(Exception):
    """Why an archive gave no entry."""


_NO_ENTRY = "has no such file"


def _download_whole(address: str, path: Path, timeout_s: float) -> None:
    """Download an entry.

    Raises
    ------
    _NotGivenError
        If it is not there, or comes to pieces.
    """
    # Not imported above: they take a third of a second, and most structures lie on the disk.
    import pooch
    import requests

    try:
        pooch.HTTPDownloader(timeout=timeout_s)(address, str(path), None)
    except requests.HTTPError as error:
        if error.response is not None and error.response.status_code in (404, 410):
            raise _NotGivenError(f"{address} {_NO_ENTRY}") from None
        raise _NotGivenError(f"{address}: {_one_line(error)}") from None
    except requests.RequestException as error:
        raise _NotGivenError(f"{address}: {_one_line(error)}") from None
    if not _is_whole(path):
        size = path.stat().st_size
        raise _NotGivenError(f"{address} gave no complete mmCIF file ({size} bytes)")


def _is_whole(path: Path) -> bool:
    """Whether a file is a gzipped mmCIF file to its end."""
    try:
        with gzip.open(path) as file:
            starts_well = file.read(_CHUNK_BYTES).lstrip().startswith(b"data_")
            while file.read(_CHUNK_BYTES):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return starts_well


def _check(path: Path) -> None:
    """Refuse a file of the cache that is not what it was when it was first used. In a cache that
    cannot be written, as many share one, a file without a checksum is taken as it is.

    Raises
    ------
    BadInputError
        If it is not, or the checksums cannot be read.
    """
    digest = file_sha256(path)
    kept = path.with_name(CHECKSUMS)
    try:
        lines = read_regular_text(kept, TABLE_BYTES).splitlines() if kept.is_file() else []
    except (OSError, ValueError) as error:
        raise BadInputError(f"cannot read {kept}: {_one_line(error)}; delete it") from None
    known = dict(line.split(maxsplit=1) for line in lines if len(line.split()) == 2)
    if path.name not in known:
        with suppress(OutputError), atomic_path(kept) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in [*lines, f"{path.name} {digest}"]))
    elif known[path.name].strip() != digest:
        raise BadInputError(
            f"{path} is not the file that was first used (its SHA-256 begins {digest[:16]}, that of"
            f" the first {known[path.name][:16]}); delete it to have it downloaded again, or its"
            f" line in {kept} if the new one is meant"
        )


def _one_line(error: Exception) -> str:
    """What a network error says, without the addresses in memory of its objects."""
    reason = getattr(error, "reason", None) or (error.args[0] if error.args else error)
    inner = getattr(reason, "reason", reason)
    text = re.sub(r"<[^<>]* object at 0x[0-9a-f]+>:?\s*", "", str(inner))
    return " ".join(text.split())[:200]
