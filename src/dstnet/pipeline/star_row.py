"""What a STAR file says of one movie, or of one sum."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstnet.errors import BadInputError

SUM_COLUMN = "rlnMicrographName"
MOVIE_COLUMNS = ("rlnMicrographMovieName", "rlnTomoTiltMovieFile", "wrpMovieName")
GROUP = "rlnOpticsGroup"
GROUP_NAME = "rlnOpticsGroupName"
GAIN = "rlnMicrographGainName"
DEFECTS = "rlnMicrographDefectFile"
METADATA = "rlnMicrographMetadata"
PARTICLE = "rlnImageName"
# What a program writes where it has nothing to say.
_EMPTY = frozenset(("", "none", "nan", "<na>", "na", "n/a", "null", "-"))
# What a table without optics groups (before RELION 3.1), or of one movie, says of its optics
# itself.
OPTICS_COLUMNS = (
    GROUP,
    GROUP_NAME,
    "rlnMicrographOriginalPixelSize",
    "rlnMicrographPixelSize",
    "rlnTomoTiltSeriesPixelSize",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnMtfFileName",
    "rlnMagnification",
    "rlnDetectorPixelSize",
)
# What an optics group of particles says of their images, and pixel sizes in the older form, which
# ours says in the newer one.
_NOT_OF_MICROGRAPHS = frozenset(
    (
        "rlnMagnification",
        "rlnDetectorPixelSize",
        "rlnTomoTiltSeriesPixelSize",
        "rlnImagePixelSize",
        "rlnImageSize",
        "rlnImageDimensionality",
        "rlnCtfDataAreCtfPremultiplied",
    )
)
# What is taken of a row, beside the name of the file.
_TAKEN = (
    *OPTICS_COLUMNS[2:],
    "rlnMicrographDoseRate",
    "rlnMicrographPreExposure",
    "rlnEERGrouping",
    "rlnEERUpsampling",
    GAIN,
    DEFECTS,
)
KNOWN_COLUMNS = (
    *OPTICS_COLUMNS[:2],
    *_TAKEN,
    PARTICLE,
    "rlnMicrographBinning",
    METADATA,
    "rlnAccumMotionTotal",
)
_TEXT = frozenset((GROUP_NAME, "rlnMtfFileName"))
_WHOLE = re.compile(r"[+-]?\d{1,15}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class StarRow:
    """The cells of a STAR file that are about one movie, or one sum, as text.

    Attributes
    ----------
    star
        The file.
    column
        Which names what is opened: `SUM_COLUMN` a sum, any other a movie.
    cells
        By RELION's names: the movie's own row, and over it that of its optics group.
    optics_columns
        Those that are about optics.
    """

    star: Path
    column: str
    cells: Mapping[str, str]
    optics_columns: tuple[str, ...] = ()

    @property
    def names_a_sum(self) -> bool:
        """Whether what is opened is called a sum, not a movie."""
        return self.column == SUM_COLUMN

    def text(self, column: str) -> str | None:
        """A cell; None where there is none, or a sign for nothing."""
        cell = self.cells.get(column)
        return None if cell is None or is_empty(cell) else cell

    def empty(self, *columns: str) -> list[str]:
        """Those of the columns that are there with nothing in this row."""
        return [name for name in columns if name in self.cells and self.text(name) is None]

    def number(self, column: str, least: float, most: float, remedy: str) -> float | None:
        """A cell as a number; None where there is none.

        Raises
        ------
        BadInputError
            If it is no number from `least` to `most`.
        """
        cell = self.text(column)
        if cell is None:
            return None
        value = _number(cell)
        if isinstance(value, str) or not least <= value <= most:
            raise BadInputError(
                f"{self.star}: {column} of {self.cells[self.column]} is {cell!r}; {least:g} to"
                f" {most:g} are allowed, {remedy}"
            )
        return float(value)

    def contradicted(self, own: Mapping[str, str]) -> set[str]:
        """The optics columns that the movie's row has otherwise than its optics group."""
        return {
            column
            for column in OPTICS_COLUMNS[2:]
            if column in own
            and own[column] != self.cells[column]
            and _number(own[column]) != _number(self.cells[column])
        }

    def difference(self, other: "StarRow") -> str | None:
        """Where another row of the same movie says something else of how it was taken."""
        for column in _TAKEN:
            if self.cells.get(column) == other.cells.get(column):
                continue
            one = self.text(column)
            second = other.text(column)
            if one is None or second is None or _number(one) == _number(second):
                continue
            where = f" in {other.star}" if other.star != self.star else ""
            return f"{column} {one} in {self.star} and {second}{where}"
        return None

    @property
    def optics(self) -> dict[str, Any]:
        """The optics group by RELION's names, numbers as such, as it fits a table of sums."""
        return {
            name: cell if name in _TEXT else _number(cell)
            for name in self.optics_columns
            if name not in _NOT_OF_MICROGRAPHS and (cell := self.text(name)) is not None
        }


def is_empty(cell: str) -> bool:
    """Whether a cell is a sign for nothing."""
    return cell.strip().lower() in _EMPTY


def _number(cell: str) -> float | int | str:
    """A cell as the number that it is, else as its text."""
    if _WHOLE.fullmatch(cell):
        return int(cell)
    return float(cell) if _DECIMAL.fullmatch(cell) else cell
