"""Which tables and pages in a folder are ours to replace: in a project's own folder the user's lie
under the same names.
"""

import re
from pathlib import Path

from dstnet.errors import OutputError

TABLE_MARK = "# Written by dstnet"
PROVENANCE = "provenance.json"
TABLE = "micrographs.star"
PAGE = "report.html"

_HEAD_BYTES = 65536
# What stands at the beginning of ours. Tables of before 0.9 have no mark; other programs write a
# comment first.
_OURS = {
    # What is left of one that was cut off too; whole ones are read.
    PROVENANCE: re.compile(r'[\s\0]*($|\{\s*($|"version":))'),
    TABLE: re.compile(
        rf"{TABLE_MARK}\b|\s*data_optics\s+loop_\s.*^data_micrographs\s.*^_rlnMicrographMovieName\b",
        re.S | re.M,
    ),
    PAGE: re.compile(r"<!doctype html>\s<html[^>]*><head>.{,100}<title>dstnet: ", re.S),
}


def refuse_foreign(path: Path) -> None:
    """Refuse to replace a table or page that we did not write.

    Raises
    ------
    OutputError
        If it is there and not ours.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}; move it away") from error
    if not _OURS[path.name].match(head):
        raise OutputError(
            f"{path} was not written by dstnet and is not replaced; choose another folder, or move"
            " it away"
        )
