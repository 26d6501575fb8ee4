"""Which tables and pages in a folder are ours to replace: in a project's own folder the user's lie
under the same names.
"""

import json
import re
from pathlib import Path

from dstnet.core.regular_files import open_regular, read_regular
from dstnet.errors import OutputError
from dstnet.pipeline.journal import MOST_BYTES

TABLE_MARK = "# Written by dstnet"
PROVENANCE = "provenance.json"
TABLE = "micrographs.star"
PAGE = "report.html"
MOVIES = "movies.star"
PARTICLES = "particles.star"
MANIFEST = "manifest.json"

_HEAD_BYTES = 65536
# Of a provenance.json that begins otherwise, so many of these names say that it is ours.
_PROVENANCE_NAMES = {
    "version",
    "weights",
    "weights_sha256",
    "settings",
    "eer",
    "correction",
    "written",
    "failures",
    "movies",
}
_LEAST_NAMES = 6
_PROVENANCE_START = '{\n  "version": "'
_CUT_OFF_BYTES = 100  # of less than that not even the second name is there
# What stands at the beginning of ours. Tables of before 0.9 have no mark; other programs write a
# comment first.
_OURS = {
    PROVENANCE: re.compile(rf'{re.escape(_PROVENANCE_START)}[^"\n]*",\n  "weights": '),
    TABLE: re.compile(
        rf"{TABLE_MARK}\b|\s*data_optics\s+loop_\s.*^data_micrographs\s.*^_rlnMicrographMovieName\b",
        re.S | re.M,
    ),
    MOVIES: re.compile(
        rf"{TABLE_MARK}\b|\s*data_optics\s+loop_\s.*^data_movies\s.*^_rlnMicrographMovieName\b",
        re.S | re.M,
    ),
    PARTICLES: re.compile(rf"{TABLE_MARK}\b"),
    MANIFEST: re.compile(r'\{\n "format": \d+,\n "version": "'),
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
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}; move it away") from error
    if not head.strip("\0"):  # nobody's: what a power cut leaves
        return
    is_ours = _OURS[path.name].match(head) is not None
    if path.name == PROVENANCE and not is_ours:
        is_ours = _is_our_provenance(path, head)
    if not is_ours:
        raise OutputError(
            f"{path} was not written by dstnet and is not replaced; choose another folder, or move"
            " it away"
        )


def _is_our_provenance(path: Path, head: str) -> bool:
    """Whether a file is what is left of ours after a power cut, or ours in another form."""
    rest = head.strip("\0\n")
    if len(rest) < _CUT_OFF_BYTES and rest[: len(_PROVENANCE_START)] in _PROVENANCE_START:
        return True
    try:
        values = json.loads(read_regular(path, MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and len(_PROVENANCE_NAMES & values.keys()) >= _LEAST_NAMES
