"""STAR files, read as their writers mean them: names and values stay text until somebody asks for
a number.

Readers that turn columns into numbers make 7 of a group called ``007``; those that follow the
grammar of CIF take a file below ``data_june/`` for the head of a block. RELION goes by lines, and
so does this: a block begins with ``data_NAME`` alone on its line, and a line of a loop is a row.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dstnet.core.regular_files import TABLE_BYTES, read_regular
from dstnet.errors import BadInputError

_TOKEN = re.compile(r"""("[^"]*"|'[^']*')(?=\s|$)|\S+""", re.ASCII)
_BLOCK = re.compile(r"data_[^\s/\\]*", re.IGNORECASE)
_LABEL = re.compile(r"_[A-Za-z][\w.\-\[\]]*")
_SPECIAL = re.compile("[\"'#]")
_BLANKS = " \t\v\f"  # others may be part of a name
# Beyond these it is no table of movies, or a damaged one; RELION has some 300 names of columns.
_MOST_COLUMNS = 1000


@dataclass
class StarTable:
    """A loop of a STAR file, or the single values of a block as a table of one row.

    Attributes
    ----------
    name
        Of its block, without ``data_``.
    columns
        Names without the underscore.
    rows
        The cells of each row as text, without quotes.
    """

    name: str
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def records(self, columns: Collection[str] | None = None) -> Iterator[dict[str, str]]:
        """Each row by the names of its columns, or of those among `columns`."""
        taken = [
            (place, name)
            for place, name in enumerate(self.columns)
            if columns is None or name in columns
        ]
        for row in self.rows:
            yield {name: row[place] for place, name in taken}


def read_star(path: Path | str) -> list[StarTable]:
    """The tables of a STAR file, in its order; two of one name stay two.

    Bytes that are no UTF-8 are kept as Python keeps those of file names.

    Raises
    ------
    BadInputError
        If the file is missing, is no STAR file or is damaged: a row with more or fewer cells than
        its table has columns, or a column given twice.
    """
    path = Path(path)
    text = _text(path)
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), 1):
        try:
            reader.line(line.strip(_BLANKS))
        except ValueError as error:
            raise _error(path, f"line {number} {error}") from None
    if not reader.tables:
        raise _error(path, "it has no table")
    return reader.tables


def _text(path: Path) -> str:
    try:
        content = read_regular(path, TABLE_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _error(path, str(getattr(error, "strerror", None) or error)) from error
    if b"\0" in content:
        raise _error(path, "it is no text")
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _error(path: Path, why: str) -> BadInputError:
    return BadInputError(
        f"cannot read the STAR file {path}: {why}; give a table that RELION can read"
    )


class _Reader:
    """What the lines of a STAR file say, one after the other.

    Attributes
    ----------
    tables
        Those begun so far.
    """

    def __init__(self) -> None:
        self.tables: list[StarTable] = []
        self._block: str | None = None
        self._loop: StarTable | None = None
        self._values: StarTable | None = None

    def line(self, line: str) -> None:
        """Take a line, stripped of blanks at its ends.

        Raises
        ------
        ValueError
            If it does not belong where it stands; the text goes on from the line's number.
        """
        if not line or line.startswith("#"):
            return
        tokens = _tokens(line)
        if _BLOCK.fullmatch(line.split("#")[0].strip()):
            self._block = tokens[0][len("data_") :]
            self._loop = None
            self._values = None
        elif self._block is None:
            raise ValueError("stands before the first data_ block")
        elif line.lower() == "loop_":
            self._loop = self._begun()
        elif self._is_label(tokens):
            self._label(tokens)
        elif self._loop is None:
            raise ValueError("belongs to no table")
        else:
            self._row(self._loop, tokens)

    def _begun(self) -> StarTable:
        table = StarTable(self._block or "")
        self.tables.append(table)
        return table

    def _is_label(self, tokens: list[str]) -> bool:
        """Whether a line names a column or a value, and is no row that begins with ``_``."""
        if not _LABEL.fullmatch(tokens[0]):
            return False
        return self._loop is None or len(tokens) != len(self._loop.columns) or self._is_head(tokens)

    def _is_head(self, tokens: list[str]) -> bool:
        """Whether a line names a column of a loop."""
        return self._loop is not None and not self._loop.rows and len(tokens) == 1

    def _label(self, tokens: list[str]) -> None:
        name, *values = tokens
        if self._loop is not None and self._is_head(tokens):
            table = self._loop
        elif len(values) <= 1:
            self._loop = None
            self._values = table = self._values or self._begun()
            table.rows = table.rows or [[]]
            table.rows[0].append(values[0] if values else "")
        else:
            raise ValueError(f"has {len(values)} values for {name}")
        if name[1:] in table.columns:
            raise ValueError(f"names {name} a second time")
        if len(table.columns) >= _MOST_COLUMNS:
            raise ValueError(f"names more than {_MOST_COLUMNS} columns")
        table.columns.append(name[1:])

    def _row(self, loop: StarTable, tokens: list[str]) -> None:
        if len(tokens) != len(loop.columns):
            raise ValueError(f"has {len(tokens)} cells for {len(loop.columns)} columns")
        loop.rows.append(tokens)


def _tokens(line: str) -> list[str]:
    """The words of a line; quotes hold one together, and ``#`` at the start of one ends the
    line.
    """
    if line.isascii() and not _SPECIAL.search(line):
        return line.split()
    tokens = []
    for match in _TOKEN.finditer(line):
        word = match[0]
        if word.startswith("#"):
            break
        tokens.append(word[1:-1] if match[1] else word)
    return tokens
