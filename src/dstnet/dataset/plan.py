"""Movies planned and checked as a set, before any of them is simulated."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dstnet.dataset.file_sizes import movie_bytes, truth_bytes
from dstnet.dataset.record import MovieFormat, MovieRecord
from dstnet.dataset.simulated_movie import SimulatedMovie
from dstnet.dataset.species_store import Outline, SpeciesStore
from dstnet.errors import OutputError, SettingsError
from dstnet.pipeline.ownership import MANIFEST, MOVIES, PARTICLES, refuse_foreign
from dstnet.potential.potential import MAX_BOX
from dstnet.runs import Shard
from dstnet.simulation import SimulationSettings
from dstnet.simulation.recipe import Recipe
from dstnet.specimen.sources import Source
from dstnet.specimen.species import belt_of
from dstnet.version import __version__

# left free on the disk beyond the estimate: tables, settings, the file system's own
SPARE_BYTES = 64 << 20
LONGEST_NAME = 80  # of the species in a movie's name

# "other": there is a movie of this name that was made in another way
Presence = Literal["missing", "complete", "other"]


@dataclass(frozen=True)
class PlannedMovie:
    """One movie to be made.

    Attributes
    ----------
    movie
        Where it is written, and its record.
    settings
        Those in the record.
    structures
        What is in it, as a command or recipe names them.
    movie_format, expected
        See `SimulatedMovie.write`.
    presence
        What of it was there when it was planned.
    """

    movie: SimulatedMovie
    settings: SimulationSettings
    structures: tuple[Source, ...]
    movie_format: MovieFormat
    expected: bool
    presence: Presence

    @property
    def name(self) -> str:
        """Of the movie."""
        return self.movie.name

    @property
    def seed(self) -> int:
        """Of the movie."""
        return self.movie.record.seed

    @property
    def movie_bytes(self) -> int:
        """About what the movie's file takes."""
        return movie_bytes(self.settings, self.movie_format)

    @property
    def truth_bytes(self) -> int:
        """About what the movie's truths take."""
        return truth_bytes(self.settings, self.expected)


@dataclass(frozen=True)
class Plan:
    """Movies to be made into a folder; every check that needs no simulation has been passed. The
    recipe, as plain values, goes into the manifest.
    """

    folder: Path
    movies: tuple[PlannedMovie, ...]
    recipe: dict[str, Any]

    @property
    def todo(self) -> tuple[PlannedMovie, ...]:
        """The movies that are not complete there yet."""
        return tuple(m for m in self.movies if m.presence != "complete")

    @property
    def bytes(self) -> int:
        """About what the files of the movies to be made take."""
        return sum(m.movie_bytes + m.truth_bytes for m in self.todo)


def plan_movies(
    recipe: Recipe,
    folder: Path,
    *,
    movies: int,
    seed: int,
    store: SpeciesStore,
    movie_format: MovieFormat = "tif",
    expected: bool = False,
    overwrite: bool = False,
    shard: Shard | None = None,
) -> Plan:
    """Everything that can be known before the long work: settings, structures, sizes, what is
    there, disk space. Nothing is written.

    Parameters
    ----------
    recipe
        What the movies are made of.
    folder
        Where they go.
    movies, seed
        How many; movie i has seed + i.
    store
        Gets the structures' names and sizes.
    movie_format
        Of the movies.
    expected
        Write the noise-free frames too.
    overwrite
        Make again what is there, whatever it was made with.
    shard
        The share of the movies that is planned; None: all of them.

    Raises
    ------
    SettingsError, BadInputError
        If a setting is not allowed, a structure cannot be used or does not fit its field.
    OutputError
        If the folder cannot be written, has too little space, or holds movies of these names made
        with other settings.
    """
    recipe.check_variation()
    planned = []
    for index in range(movies):
        if shard is not None and not shard.takes(index):
            continue
        number = seed + index
        settings = recipe.settings_of(number)
        structures = recipe.structures
        if not structures and settings.specimen.populated:
            structures = ("phantom:0",)
        record = _record(recipe, settings, structures, number, store)
        movie = SimulatedMovie(folder, record)
        presence = "missing" if overwrite else _presence(movie, movie_format, expected)
        planned.append(PlannedMovie(movie, settings, structures, movie_format, expected, presence))
    plan = Plan(folder, tuple(planned), recipe.model_dump(mode="json"))
    _check_others(plan)
    _check_folder(folder, plan.bytes)
    return plan


def _record(
    recipe: Recipe,
    settings: SimulationSettings,
    structures: Sequence[Source],
    seed: int,
    store: SpeciesStore,
) -> MovieRecord:
    """The record of a movie whose structures fit its field."""
    outlines = [store.outline(structure, recipe.species) for structure in structures]
    for outline in outlines:
        _check_fits(outline, settings)
    species = tuple(outline.name for outline in outlines)
    title = "-".join(species)[:LONGEST_NAME] or "empty"
    return MovieRecord(
        name=f"{title}_{seed:05d}",
        seed=seed,
        species=species,
        sources=tuple(store.source(structure) for structure in structures),
        species_settings=recipe.species,
        belts=tuple(belt_of(structure, recipe.species) for structure in structures),
        version=__version__,
        settings=settings.model_dump(mode="json"),
    )


def _check_fits(outline: Outline, settings: SimulationSettings) -> None:
    pixel = settings.pixel_size_angstrom
    field_angstrom = min(settings.shape) * pixel
    if outline.diameter_angstrom > field_angstrom:
        raise SettingsError(
            f"{outline.name} is {outline.diameter_angstrom:.0f} Å wide, the field"
            f" {field_angstrom:.0f} Å; make the field (shape x pixel size) larger"
        )
    box = outline.box(pixel)
    if box > MAX_BOX:
        raise SettingsError(
            f"{outline.name} at {pixel:g} Å/pixel needs a box of {box} voxels, more than {MAX_BOX};"
            " use a larger pixel size"
        )


def _presence(movie: SimulatedMovie, movie_format: MovieFormat, expected: bool) -> Presence:
    """The record is written last: without it, or without the movie, what is there is a broken-off
    run's and is made again.
    """
    written = movie.record_path
    try:
        formats = movie.formats
        if not formats or not written.is_file():
            return "missing"
        if formats != (movie_format,) or not movie.is_recorded():
            return "other"
        return "complete" if movie.is_complete(movie_format, expected) else "missing"
    except OSError as error:
        raise OutputError(
            f"cannot read {written}: {error.strerror or error}; choose another folder"
        ) from None


def _check_others(plan: Plan) -> None:
    """Refuse to make what would replace movies that were made in another way."""
    others = [movie.name for movie in plan.movies if movie.presence == "other"]
    if others:
        count = f"{len(others)} movie" + "s" * (len(others) != 1)
        raise OutputError(
            f"{plan.folder} holds {count} of these names made with other settings, format or"
            f" version ({others[0]}); pass --overwrite, or choose another folder"
        )


def _check_folder(folder: Path, needed_bytes: int) -> None:
    """Refuse a folder that cannot take the movies, as far as that shows without writing to it."""
    places = (folder, *folder.absolute().parents)
    existing = next((path for path in places if path.exists()), Path("/"))
    if not existing.is_dir():
        raise OutputError(
            f"cannot write into {folder}: {existing} is a file, not a folder; choose another folder"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write into {folder}: no permission for {existing}; choose a folder that you"
            " may write to"
        )
    for name in (MOVIES, PARTICLES, MANIFEST):
        refuse_foreign(folder / name)
    free = shutil.disk_usage(existing).free
    needed = needed_bytes + SPARE_BYTES
    if needed_bytes and needed > free:
        raise OutputError(
            f"{folder} has {free / 1e9:.2f} GB free where about {needed / 1e9:.2f} GB are needed;"
            " free some space, make fewer movies or choose another folder"
        )
