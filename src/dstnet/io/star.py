"""STAR tables as RELION reads them."""

import linecache
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import starfile

from dstnet.core.regular_files import TABLE_BYTES, read_regular
from dstnet.io.atomic import Put, atomic_path

_MOST_COLUMNS = 1000  # of all tables; RELION has some 40
_NOT_HELD = " '\"#\\"


def write_star(
    path: Path | str,
    tables: Mapping[str, pd.DataFrame | dict],
    *,
    float_format: str = "%.6f",
    comment: str = "",
    put: Put | None = None,
) -> None:
    """Write tables, or single values by name, as the blocks ``data_NAME`` of a STAR file,
    atomically (see `atomic_path`); equal tables give equal bytes. A comment, with its sign, is the
    first line.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    # The first line that starfile gives is a comment with the time: a file made again would differ.
    text = starfile.to_string(dict(tables), float_format=float_format).split("\n", 1)[1]
    with atomic_path(path, put) as temporary:
        temporary.write_text(f"{comment}\n{text}" if comment else text, encoding="utf-8")


def read_blocks(path: Path) -> dict[str, Any]:
    """The blocks of a STAR file by name: loops as DataFrames, single values as dicts, numbers read
    as such.

    Raises
    ------
    OSError, ValueError
        If it cannot be read.
    """
    columns = read_regular(path, TABLE_BYTES).count(b"\n_")
    if columns > _MOST_COLUMNS:
        raise ValueError(f"it names {columns} columns")
    try:
        blocks = starfile.read(path, always_dict=True)
    except (OSError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None
    except Exception:  # damaged files surface as nearly every kind
        raise ValueError("it is cut off or damaged") from None
    finally:
        # starfile reads by way of this, and forgets it only where all goes well: a file that was
        # mended would be read as it was.
        linecache.clearcache()
    return {str(name): block for name, block in blocks.items()}


def star_holds(name: str) -> bool:
    """Whether all programs read a name in a STAR table as it is: RELION ends it at a blank, others
    at ``#``, and they take quotes and backslashes for signs.
    """
    return name.isprintable() and not any(sign in name for sign in _NOT_HELD)


def star_name(name: str) -> str:
    """A name as a STAR table can hold it: what it cannot is written as %XX, so that the name stays
    one word, which is then not that of the file.
    """
    return "".join(c if star_holds(c) else percent(c) for c in name)


def percent(character: str) -> str:
    """The bytes of a character, of a file's name too, as %XX."""
    return "".join(f"%{byte:02X}" for byte in os.fsencode(character))
