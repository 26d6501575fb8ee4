"""STAR tables as RELION reads them."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import starfile

from dstnet.io.atomic import atomic_path


def write_star(
    path: Path | str, tables: Mapping[str, pd.DataFrame | dict], *, float_format: str = "%.6f"
) -> None:
    """Write tables, or single values by name, as the blocks ``data_NAME`` of a STAR file,
    atomically; equal tables give equal bytes.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    # The first line that starfile gives is a comment with the time: a file made again would differ.
    text = starfile.to_string(dict(tables), float_format=float_format).split("\n", 1)[1]
    with atomic_path(path) as temporary:
        temporary.write_text(text)
