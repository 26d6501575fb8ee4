"""Which movies a folder of simulated movies holds: read from their records, and written for RELION
and as a manifest.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from dstnet.core.regular_files import read_regular_text
from dstnet.core.settings import Settings
from dstnet.dataset.layout import RECORD_ENDING
from dstnet.dataset.movie_facts import FACTS_ENDING, FileFacts, Statistics, file_facts
from dstnet.dataset.simulated_movie import SimulatedMovie, one_line
from dstnet.dataset.splits import NEVER_TRAINED
from dstnet.errors import BadInputError, DstnetError, SettingsError
from dstnet.io import atomic_path
from dstnet.io.star import write_star
from dstnet.pipeline.ownership import MANIFEST, MOVIES, PARTICLES, TABLE_MARK, refuse_foreign
from dstnet.version import __version__

MOST_BYTES = 4 << 30  # some 2 kB a movie
# What RELION calls the movies of an optics group apart by.
OPTICS_COLUMNS = (
    "rlnMicrographOriginalPixelSize",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
)


class MovieEntry(Settings):
    """What the manifest says of a movie."""

    name: str
    seed: int
    version: str = Field(description="of the program that made it")
    species: tuple[str, ...]
    sources: tuple[str, ...] = Field(description="of the structures, with digests of their bytes")
    split: Literal["training", "validation"] = Field(
        description="by structure: those never to be trained on are for validation"
    )
    statistics: Statistics
    files: dict[str, FileFacts] = Field(description="by their path from the data set's folder")


class Manifest(Settings):
    """What a data set holds, so that every file of it can be verified."""

    format: int = Field(default=1, ge=1, le=1)
    version: str = Field(description="of the program that wrote the manifest")
    recipe: dict[str, Any] = Field(description="of the last command that made movies here")
    stand_ins: bool = Field(description="whether any species stands in for a real structure")
    movies: tuple[MovieEntry, ...]
    camera: dict[str, FileFacts] = Field(description="gain references and lists of defects")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a data set.

        Raises
        ------
        BadInputError
            If there is none, or it cannot be read.
        """
        path = folder / MANIFEST
        try:
            return cls.checked(json.loads(read_regular_text(path, MOST_BYTES)), str(path))
        except FileNotFoundError:
            raise BadInputError(
                f"{folder} has no {MANIFEST}; give a folder that dstnet simulate wrote"
            ) from None
        except (OSError, ValueError, RecursionError, SettingsError) as error:
            raise BadInputError(
                f"cannot read {path}: {one_line(error)}; run the command that made the movies"
                " again, which writes it anew"
            ) from None


def recorded_names(folder: Path) -> list[str]:
    """Names of the movies whose record is in a folder, in order."""
    ending = f"_{RECORD_ENDING}"
    records = sorted((folder / "truth").glob(f"*{ending}"))
    return [path.name.removesuffix(ending) for path in records]


def read_dataset(folder: Path) -> list[SimulatedMovie]:
    """The complete movies of a folder that `dstnet simulate` wrote, by name.

    Raises
    ------
    BadInputError
        If there is none, or a record cannot be read.
    """
    movies = [SimulatedMovie.read(folder, name) for name in recorded_names(folder)]
    if not movies:
        raise BadInputError(
            f"{folder} holds no movies with truths (truth/NAME_settings.yaml); give a folder that"
            " dstnet simulate wrote"
        )
    return movies


def complete_movies(folder: Path) -> list[SimulatedMovie]:
    """The movies of a folder that are there with their records; others are left out."""
    movies = []
    for name in recorded_names(folder):
        try:
            movie = SimulatedMovie.read(folder, name)
        except DstnetError:
            continue  # another program's, or another version's
        if movie.formats:
            movies.append(movie)
    return movies


def write_tables(folder: Path, recipe: dict[str, Any]) -> None:
    """Write what lists all complete movies of a folder: ``movies.star`` and ``particles.star``,
    paths from `folder`, for RELION to be run there, and ``manifest.json``.

    Parameters
    ----------
    folder
        Of the data set.
    recipe
        Of the command that made movies now.

    Raises
    ------
    OutputError
        If they cannot be written, or files of these names lie there that are not ours.
    """
    for name in (MOVIES, PARTICLES, MANIFEST):
        refuse_foreign(folder / name)
    movies = complete_movies(folder)
    if not movies:
        return
    groups: dict[tuple[float, ...], int] = {}
    numbers = [groups.setdefault(_optics(movie), len(groups) + 1) for movie in movies]
    _write_movies_star(folder, movies, groups, numbers)
    _write_particles_star(folder, movies, groups, numbers)
    entries = [entry for movie in movies if (entry := _entry(movie)) is not None]
    camera = sorted(path for path in (folder / "camera").glob("*") if path.is_file())
    manifest = Manifest(
        version=__version__,
        recipe=recipe,
        stand_ins=any(name.startswith("stand-in-") for entry in entries for name in entry.species),
        movies=tuple(entries),
        camera={path.relative_to(folder).as_posix(): file_facts(path) for path in camera},
    )
    with atomic_path(folder / MANIFEST) as path:
        path.write_text(json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")


def _optics(movie: SimulatedMovie) -> tuple[float, ...]:
    """What decides the optics group, as `OPTICS_COLUMNS`."""
    settings = movie.settings
    optics = settings.optics
    return (
        settings.pixel_size_angstrom,
        optics.voltage_kv,
        optics.cs_mm,
        optics.amplitude_contrast,
    )


def _optics_table(groups: dict[tuple[float, ...], int]) -> pd.DataFrame:
    table = pd.DataFrame(list(groups), columns=list(OPTICS_COLUMNS))
    numbers = list(groups.values())
    table.insert(0, "rlnOpticsGroupName", [f"opticsGroup{i}" for i in numbers])
    table.insert(1, "rlnOpticsGroup", numbers)
    return table


def _movie_name(movie: SimulatedMovie) -> str:
    return movie.movie_path(movie.formats[0]).relative_to(movie.folder).as_posix()


def _write_movies_star(
    folder: Path,
    movies: Sequence[SimulatedMovie],
    groups: dict[tuple[float, ...], int],
    numbers: Sequence[int],
) -> None:
    """As RELION's movie import writes them."""
    rows = [(_movie_name(movie), number) for movie, number in zip(movies, numbers, strict=True)]
    table = pd.DataFrame(rows, columns=["rlnMicrographMovieName", "rlnOpticsGroup"])
    tables = {"optics": _optics_table(groups), "movies": table}
    write_star(folder / MOVIES, tables, comment=TABLE_MARK)


def _write_particles_star(
    folder: Path,
    movies: Sequence[SimulatedMovie],
    groups: dict[tuple[float, ...], int],
    numbers: Sequence[int],
) -> None:
    """The particles of all movies, their tables one after the other; a movie whose table cannot be
    read has none.
    """
    tables = []
    for movie, number in zip(movies, numbers, strict=True):
        try:
            particles = movie.particles()
        except BadInputError:
            continue
        tables.append(particles.assign(rlnOpticsGroup=number))
    filled = [table for table in tables if len(table)]
    if not filled:
        return
    optics = _optics_table(groups)
    optics.insert(2, "rlnMicrographPixelSize", optics["rlnMicrographOriginalPixelSize"])
    particles = pd.concat(filled, ignore_index=True)
    blocks = {"optics": optics, "particles": particles}
    write_star(folder / PARTICLES, blocks, float_format="%.9g", comment=TABLE_MARK)


def _entry(movie: SimulatedMovie) -> MovieEntry | None:
    """What the manifest says of a movie; None where its facts were lost."""
    try:
        facts = movie.facts()
    except BadInputError:
        return None
    record = movie.record
    files = dict(facts.files)
    for path in (movie.truth_path(FACTS_ENDING), movie.record_path):
        files[path.relative_to(movie.folder).as_posix()] = file_facts(path)
    return MovieEntry(
        name=movie.name,
        seed=record.seed,
        version=record.version,
        species=record.species,
        sources=record.sources,
        split="validation" if movie.structures & NEVER_TRAINED else "training",
        statistics=facts.statistics,
        files=files,
    )
