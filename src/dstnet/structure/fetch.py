"""Structures by their Protein Data Bank entry, downloaded once."""

import gzip
import os
import re
import sys
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from dstnet.errors import BadInputError
from dstnet.io import atomic_path, ensure_writable_folder

ARCHIVE = "https://files.rcsb.org/download"
TIMEOUT_S = 60


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


def fetch_structure(entry: str, archive: str = ARCHIVE) -> Path:
    """The mmCIF file of a Protein Data Bank entry, from the cache or downloaded into it.

    Parameters
    ----------
    entry
        Its identifier of four characters, such as ``6z6u``.
    archive
        Address of the folder that holds ``6Z6U.cif.gz`` and the like.

    Raises
    ------
    BadInputError
        If that is no identifier, there is no such entry, or it cannot be downloaded.
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
    if path.is_file():
        return path
    address = f"{archive}/{name.upper()}.cif.gz"
    remedy = f"check the network, or put the entry's mmCIF file at {path} yourself"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:
            content = response.read()
    except HTTPError as error:
        if error.code in (404, 410):
            raise BadInputError(
                f"there is no PDB entry {name} at {address}; check its identifier"
            ) from None
        raise BadInputError(f"cannot download {address}: {error}; {remedy}") from None
    except (OSError, HTTPException) as error:  # URLError is an OSError
        raise BadInputError(
            f"cannot download {address}: {' '.join(str(error).split())}; {remedy}"
        ) from None
    try:
        text = gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        text = b""
    if not text.lstrip().startswith(b"data_"):
        raise BadInputError(
            f"{address} gave no complete mmCIF file ({len(content)} bytes); try again, or {remedy}"
        )
    ensure_writable_folder(path.parent)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path
