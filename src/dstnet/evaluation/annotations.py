"""Annotations (a stand-in until the real one is merged)."""

import json
from pathlib import Path

import numpy as np

from dstnet.errors import BadInputError
from dstnet.evaluation.base import Annotation
from dstnet.movie import Movie


def annotation_file(folder: Path, name: str) -> Path | None:
    """The file of a movie's picks in a folder; None where there is none."""
    path = folder / f"{name}_picks.csv"
    return path if path.is_file() else None


def read_annotation(path: Path, diameter_angstrom: float | None, movie: Movie) -> Annotation:
    """The picks of a movie.

    Raises
    ------
    BadInputError
        If they cannot be read, do not fit the movie, or have no diameter.
    """
    if diameter_angstrom is None:
        settings = path.parent / "set.json"
        if not settings.is_file():
            raise BadInputError(f"{path}: the particles' diameter is not known; pass --diameter")
        diameter_angstrom = float(json.loads(settings.read_text())["diameter_angstrom"])
    centres = np.loadtxt(path, delimiter=",", skiprows=1)[:, ::-1]
    return Annotation(centres, diameter_angstrom)
