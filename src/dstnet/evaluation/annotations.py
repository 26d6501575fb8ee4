"""Particles that people marked, as the usual programs write them.

In all of them the first row of the stored image is y = 0 and its first column x = 0, as in this
package; a file by EMAN names a corner of a box there, the others the centre of a particle.
"""

import csv
import json
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from dstnet.core.regular_files import TABLE_BYTES, read_regular_text
from dstnet.core.shapes import Shape
from dstnet.errors import BadInputError
from dstnet.evaluation.base import Annotation
from dstnet.io.movie_file import movie_stem
from dstnet.io.star_table import StarTable, read_star
from dstnet.movie import Movie

SUFFIXES = (".csv", ".star", ".box", ".txt", ".tsv")
# After the movie's name, the likeliest first; RELION's pickers write the last ones.
_ENDINGS = ("_picks", "", "_particles", "_manualpick", "_autopick")
_SET_NAME = "set.json"
# Names of columns, in lower case: ours, RELION's, CryoPPP's, Topaz's
_X_NAMES = ("x", "rlncoordinatex", "x-coordinate", "x_coord", "x_px")
_Y_NAMES = ("y", "rlncoordinatey", "y-coordinate", "y_coord", "y_px")
_DIAMETER_NAMES = ("diameter",)  # CryoPPP's, in pixels
_MOVIE_NAMES = ("rlnmicrographname", "micrographs filename", "image_name", "micrograph")
_IMPORT_NUMBER = re.compile(r"^\d{15,}_")  # before a name, as CryoSPARC imports it
_PROGRAM_ENDINGS = re.compile(
    r"(_patch_aligned|_rigid_aligned|_doseweighted|_noDW|_DW|_fractions)+$"
)
_MOST_OUTSIDE = 0.25  # more are picks of another field or scale
_FEW_PICKS = 20  # so many tell by their extent which scale they have
_SHRUNK = 0.55
_SAME_PIXEL_SIZE = 0.01


@dataclass(frozen=True)
class Picks:
    """Centres as a file has them.

    Attributes
    ----------
    centres_px
        [particle, 2] (y, x).
    pixel_size_angstrom
        Of the image that they were picked in; None: not said.
    diameter_px
        None: not said.
    """

    centres_px: np.ndarray
    pixel_size_angstrom: float | None = None
    diameter_px: float | None = None


def annotation_file(place: Path, name: str) -> Path | None:
    """The file with a movie's picks; None where there is none.

    Parameters
    ----------
    place
        A folder with a file a movie, or a table of several movies; or such a table itself.
    name
        Of the movie's file, without suffix.

    Raises
    ------
    BadInputError
        If a table cannot be read.
    """
    if place.is_file():
        return place if _names_movie(place, name) else None
    for ending in _ENDINGS:
        for suffix in SUFFIXES:
            path = place / f"{name}{ending}{suffix}"
            if path.is_file():
                return path
    tables = [path for path in sorted(place.iterdir()) if path.suffix.lower() in (".star", ".csv")]
    return next((path for path in tables if _names_movie(path, name)), None)


def read_annotation(path: Path, diameter_angstrom: float | None, movie: Movie) -> Annotation:
    """Particles that people marked on a movie.

    Parameters
    ----------
    path
        As `annotation_file` gives it.
    diameter_angstrom
        Of the particles; None: as ``set.json`` beside the file or the file itself says.
    movie
        Named by its file.

    Raises
    ------
    BadInputError
        If the file cannot be read, holds no picks of this movie, or those of another field or pixel
        size; or if no diameter is known.
    """
    picks = read_picks(path, movie_stem(Path(movie.name)))
    pixel_size_angstrom = movie.pixel_size_angstrom
    notes = []
    own = picks.pixel_size_angstrom
    if own is not None and not math.isclose(own, pixel_size_angstrom, rel_tol=_SAME_PIXEL_SIZE):
        factor = own / pixel_size_angstrom
        picks = replace(picks, centres_px=picks.centres_px * factor)
        notes.append(f"{path}: picks at {own:g} Å/pixel, scaled to {pixel_size_angstrom:g} Å/pixel")
    inside = _inside(picks.centres_px, movie.shape, path)
    outside = len(picks.centres_px) - len(inside)
    if outside:
        notes.append(f"{path}: {outside} of {len(picks.centres_px)} picks lie outside the field")
    diameter = diameter_angstrom or _set_diameter(path.parent)
    if diameter is None and picks.diameter_px is not None:
        diameter = picks.diameter_px * (own or pixel_size_angstrom)
    if diameter is None:
        raise BadInputError(
            f"{path}: the particles' diameter is not known; pass --diameter, or write"
            f' {{"diameter_angstrom": 150}} into {_SET_NAME} beside it'
        )
    return Annotation(inside, diameter, tuple(notes))


def read_picks(path: Path, name: str) -> Picks:
    """The picks of a movie, in pixels of the image that they were made in.

    Raises
    ------
    BadInputError
        If the file cannot be read, or holds none of this movie.
    """
    if path.suffix.lower() == ".star":
        picks = _from_star(path, name)
    elif path.suffix.lower() == ".box":
        picks = _from_box(path)
    else:
        picks = _from_columns(path, name)
    if not len(picks.centres_px):
        raise BadInputError(f"{path} holds no picks of {name}; give some, or leave the file out")
    if not np.isfinite(picks.centres_px).all():
        raise BadInputError(f"{path} holds picks that are not finite; mend or remove these lines")
    return picks


def _inside(centres_px: np.ndarray, shape: Shape, path: Path) -> np.ndarray:
    is_inside = ((centres_px >= 0) & (centres_px <= np.array(shape) - 1)).all(1)
    outside = int((~is_inside).sum())
    count = len(centres_px)
    height, width = shape
    if outside > _MOST_OUTSIDE * count:
        raise BadInputError(
            f"{path}: {outside} of {count} picks lie outside the field of {width} x {height}"
            " pixels; give picks of this movie, in its own pixels"
        )
    reached = (centres_px.max(0) / np.array(shape)).max()
    if count >= _FEW_PICKS and reached < _SHRUNK:
        raise BadInputError(
            f"{path}: all {count} picks lie within the first {reached:.0%} of the field's {width} x"
            f" {height} pixels, as those of a binned image do; give picks in the movie's own pixels"
        )
    return centres_px[is_inside]


def _set_diameter(folder: Path) -> float | None:
    path = folder / _SET_NAME
    if not path.is_file():
        return None
    try:
        diameter = float(json.loads(read_regular_text(path))["diameter_angstrom"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInputError(
            f"cannot read a diameter_angstrom in {path}: {error}; give a number in Å"
        ) from None
    if not 0 < diameter < math.inf:
        raise BadInputError(f"{path}: diameter_angstrom is {diameter}; give a positive number")
    return diameter


# RELION's STAR files


def _from_star(path: Path, name: str) -> Picks:
    tables = read_star(path)
    table = next((table for table in tables if _column(table.columns, _X_NAMES) is not None), None)
    if table is None or _column(table.columns, _Y_NAMES) is None:
        raise BadInputError(f"{path} has no rlnCoordinateX and rlnCoordinateY; give picks")
    rows = _rows_of_movie(table.columns, table.rows, name)
    return Picks(_centres(table.columns, rows, path), _star_pixel_size(tables, table, rows, path))


def _star_pixel_size(
    tables: Sequence[StarTable], table: StarTable, rows: Sequence[Sequence[str]], path: Path
) -> float | None:
    """Of the micrograph that the coordinates count in: what RELION 3.1 and later say of its optics
    group; earlier ones gave the detector's pixel and the magnification.
    """
    if not rows:
        return None
    own = dict(zip(table.columns, rows[0], strict=True))
    group = own.get("rlnOpticsGroup")
    for other in tables:
        if other is not table:
            for optics in other.records(["rlnOpticsGroup", "rlnMicrographPixelSize"]):
                if group is None or optics.get("rlnOpticsGroup") == group:
                    own = {**optics, **own}
    pixel = None
    if "rlnMicrographPixelSize" in own:
        pixel = _number(own["rlnMicrographPixelSize"], path)
    elif "rlnDetectorPixelSize" in own and "rlnMagnification" in own:
        magnification = _number(own["rlnMagnification"], path)
        pixel = 1e4 * _number(own["rlnDetectorPixelSize"], path) / (magnification or math.nan)
    if pixel is not None and not 0 < pixel < math.inf:
        raise BadInputError(f"{path}: its micrographs' pixel size is {pixel}; mend the table")
    return pixel


# EMAN's boxes


def _from_box(path: Path) -> Picks:
    """Lines of x, y of the corner at the first row and column, and the box's width and height."""
    corners = []
    for line in _lines(path):
        cells = line.split()
        if len(cells) < 4:
            raise BadInputError(f"{path}: {line[:80]!r} is no box; give x, y, width and height")
        x, y, width, height = (_number(cell, path) for cell in cells[:4])
        corners.append((y + height / 2, x + width / 2))
    return Picks(np.array(corners).reshape(-1, 2))


# Tables of columns: CSV with or without a line of names, CryoPPP's, Topaz's


def _from_columns(path: Path, name: str) -> Picks:
    columns, rows = _table(path)
    if not columns:
        return Picks(np.zeros((0, 2)))
    if _column(columns, _X_NAMES) is None or _column(columns, _Y_NAMES) is None:
        raise BadInputError(
            f"{path} has no columns x and y (nor rlnCoordinateX, X-Coordinate, x_coord); its first"
            f" line has {', '.join(columns)[:80]!r}"
        )
    rows = _rows_of_movie(columns, rows, name)
    place = _column(columns, _DIAMETER_NAMES)
    diameters = [
        _number(row[place], path) for row in rows if place is not None and place < len(row)
    ]
    diameter = float(np.median(diameters)) if diameters else None
    return Picks(_centres(columns, rows, path), diameter_px=diameter)


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Names of columns, and rows; the first two are x and y where no line has names."""
    lines = _lines(path)
    if not lines:
        return [], []
    sign = next((sign for sign in ",;\t" if sign in lines[0]), None)
    try:
        if sign is None:
            rows = [line.split() for line in lines]
        else:
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=sign)]
    except csv.Error as error:
        raise BadInputError(f"cannot read the picks in {path}: {error}; give a text file") from None
    if all(_is_number(cell) for cell in rows[0][:2]):
        return ["x", "y"], rows
    return rows[0], rows[1:]


def _lines(path: Path) -> list[str]:
    try:
        text = read_regular_text(path, TABLE_BYTES)
    except (OSError, ValueError) as error:
        raise BadInputError(f"cannot read the picks in {path}: {error}; give a text file") from None
    stripped = (line.strip() for line in text.removeprefix("\ufeff").split("\n"))
    return [line for line in stripped if line and not line.startswith("#")]


# What they share


def _centres(columns: Sequence[str], rows: Iterable[Sequence[str]], path: Path) -> np.ndarray:
    places = [_column(columns, names) for names in (_Y_NAMES, _X_NAMES)]
    try:
        cells = [[row[place] for place in places if place is not None] for row in rows]
    except IndexError:
        raise BadInputError(f"{path} has a line with too few cells; give x and y in each") from None
    return np.array([[_number(cell, path) for cell in pair] for pair in cells]).reshape(-1, 2)


def _column(columns: Sequence[str], names: Sequence[str]) -> int | None:
    plain = [column.strip().strip("\"'").lstrip("_").lower() for column in columns]
    return next((plain.index(name) for name in names if name in plain), None)


def _rows_of_movie(
    columns: Sequence[str], rows: Sequence[Sequence[str]], name: str
) -> list[Sequence[str]]:
    """Those of this movie; all where no column names movies."""
    place = _column(columns, _MOVIE_NAMES)
    if place is None:
        return list(rows)
    return [row for row in rows if place < len(row) and _is_among(name, _names_of(row[place]))]


def _names_movie(path: Path, name: str) -> bool:
    """Whether a table has a column of movies, and this one is among them."""
    status = path.stat()
    return _is_among(name, _movies_in(path, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=16)
def _movies_in(path: Path, time_ns: int, size: int) -> frozenset[str]:
    """All names that a table's movies go by; none where it names no movies."""
    tables = [_table(path)]
    if path.suffix.lower() == ".star":
        tables = [(table.columns, table.rows) for table in read_star(path)]
    found: set[str] = set()
    for columns, rows in tables:
        place = _column(columns, _MOVIE_NAMES)
        if place is not None and _column(columns, _X_NAMES) is not None:
            for written in {row[place] for row in rows if place < len(row)}:
                found |= _names_of(written)
    return frozenset(found)


@lru_cache(maxsize=4096)
def _names_of(written: str) -> frozenset[str]:
    """What a movie may be called of which a table writes this: programs add to names."""
    path = Path(written)
    stem = movie_stem(path)
    return frozenset((path.name, stem, _bare(stem)))


def _is_among(name: str, names: Collection[str]) -> bool:
    return name in names or _bare(name) in names


def _bare(stem: str) -> str:
    return _PROGRAM_ENDINGS.sub("", _IMPORT_NUMBER.sub("", stem))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, path: Path) -> float:
    if not _is_number(cell):
        raise BadInputError(f"{path}: {cell[:40]!r} is no number; give coordinates in pixels")
    return float(cell)
