"""Files that grow by a line of JSON each time something is put on record: one writer a file."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dstnet.core.regular_files import open_regular
from dstnet.errors import OutputError

MOST_BYTES = 1 << 30  # 5 kB a movie, more or less


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Put a line on record.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        with open(path, "a") as file:
            file.write(json.dumps(values) + "\n")
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose"
            " another folder"
        ) from error


def read_values(path: Path) -> Iterator[Any]:
    """What such a file has on record; a line that is damaged, or cut off, is passed over.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, is no regular file, or is larger than `MOST_BYTES`.
    """
    with open_regular(path, MOST_BYTES) as file:
        yield from _values(file)


def read_on(path: Path, start: int) -> tuple[list[Any], int]:
    """What such a file has on record behind byte `start`, in lines that are complete by now, and
    where these end.

    Raises
    ------
    OSError, ValueError
        As `read_values`.
    """
    with open_regular(path, MOST_BYTES) as file:
        file.seek(start)
        content = file.read()
    complete = content[: content.rfind(b"\n") + 1]
    return list(_values(complete.splitlines())), start + len(complete)


def _values(lines: Iterable[bytes]) -> Iterator[Any]:
    for line in lines:
        try:
            value = json.loads(line.decode(errors="replace"))
        except (ValueError, RecursionError):
            continue
        yield value
