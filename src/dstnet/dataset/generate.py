"""Many movies: planned and checked as a whole, then made one by one in this process or over
several, whole or not at all.
"""

import hashlib
import math
import os
import re
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import imagecodecs
import numpy as np
import pandas as pd
import torch

import dstnet
from dstnet.core.fourier import next_fast_size
from dstnet.dataset.simulated_movie import (
    MovieFormat,
    MovieRecord,
    is_whole,
    movie_path,
    record_path,
    write_shot,
)
from dstnet.errors import DstnetError, OutputError, SettingsError
from dstnet.io import ensure_writable_folder
from dstnet.io.star import write_star
from dstnet.potential.potential import MARGIN_ANGSTROM, MAX_BOX
from dstnet.runs.local import WorkerCrash, in_this_process, in_workers, torch_threads
from dstnet.simulation.movie_simulator import MovieSimulator, SimulationSettings
from dstnet.simulation.recipe import Recipe
from dstnet.specimen.species import (
    ProjectedSpecies,
    SpeciesSettings,
    is_map,
    load_potential,
    load_structure,
)
from dstnet.structure import fetch_structure

FORMATS: tuple[MovieFormat, ...] = get_args(MovieFormat)
TRIES = 2  # a worker that is killed, often for memory, costs its movie one try
# LZW codes of Poisson counts are 1.4 times their entropy as 16-bit numbers (measured, 0.05 to 16 a
# pixel), less as 8-bit ones.
LZW_OVER_ENTROPY = 1.45
OUTLINE_PIXEL_ANGSTROM = 8.0  # a map's size needs no finer one
NOISE_GROWS_BY_LZW = 1.1
# float32 images of a field among its truths: phase, contrast, ice, thickness, and labels of half
# that size
TRUTH_IMAGES = 4.5
PROBE_PIXELS = 1024  # side of the field that is measured for an estimate
# Memory, measured: the program itself; images of a field at once; a potential while it is made;
# what its projector keeps.
BASE_MEMORY_BYTES = 450 << 20
PEAK_IMAGES = 28
MAKING_BYTES_PER_VOXEL = 40
KEPT_BYTES_PER_VOXEL = 16
SPARE_BYTES = (
    64 << 20
)  # left free on the disk beyond the estimate: tables, settings, the file system's own


@dataclass(frozen=True)
class Planned:
    """One movie to be made: its record, its settings, what is in it, and what of it is there
    already.
    """

    record: MovieRecord
    settings: SimulationSettings
    structures: tuple[str, ...]
    movie_format: MovieFormat
    expected: bool
    there: Literal["nothing", "whole", "other"]

    @property
    def movie_bytes(self) -> int:
        """About what the movie's file takes."""
        return _movie_bytes(self.settings, self.movie_format)

    @property
    def truth_bytes(self) -> int:
        """About what the movie's truths take."""
        images = TRUTH_IMAGES + (self.settings.frames if self.expected else 0)
        return int(images * 4 * math.prod(self.settings.shape))


@dataclass(frozen=True)
class Plan:
    """Movies to be made into a folder; every check that needs no simulation has been passed."""

    folder: Path
    movies: tuple[Planned, ...]

    @property
    def todo(self) -> tuple[Planned, ...]:
        """The movies that are not whole there yet."""
        return tuple(m for m in self.movies if m.there != "whole")

    @property
    def bytes(self) -> int:
        """About what the files of the movies to be made take."""
        return sum(m.movie_bytes + m.truth_bytes for m in self.todo)


@dataclass(frozen=True)
class Estimate:
    """Roughly what a plan costs on this machine."""

    cpu_seconds: float
    memory_bytes: int


def _movie_bytes(settings: SimulationSettings, movie_format: MovieFormat) -> int:
    """About what a movie's file takes."""
    pixels = settings.frames * settings.shape[0] * settings.shape[1]
    counting = settings.detector.mode == "counting"
    stored = 2 if counting or settings.detector.bits else 4
    if movie_format == "mrc":
        return pixels * stored
    if not counting:
        return int(pixels * stored * NOISE_GROWS_BY_LZW)
    mean = (
        settings.exposure_e_per_a2
        * settings.pixel_size_angstrom**2
        * settings.detector.quantum_efficiency
    )
    # Entropy of a Poisson variable: by its terms where there are few, else as of a normal one.
    if mean < 20:
        terms = (math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(80))
        bits = -sum(p * math.log2(p) for p in terms if p > 0)
    else:
        bits = 0.5 * math.log2(2 * math.pi * math.e * mean)
    return int(pixels * min(bits * LZW_OVER_ENTROPY, 16 * NOISE_GROWS_BY_LZW) / 8)


@dataclass(frozen=True)
class Outline:
    """What is known of a structure before its potential is made."""

    name: str
    diameter_angstrom: float


class SpeciesStore:
    """Species by structure, pixel size and voltage, each built once while it is in use."""

    def __init__(self) -> None:
        self._sources: dict[str, str] = {}
        self._outlines: dict[str, Outline] = {}
        self._species: OrderedDict[tuple[str, SpeciesSettings, float, float], ProjectedSpecies] = (
            OrderedDict()
        )

    def outline(self, structure: str) -> Outline:
        """Name and size of a structure as a command or recipe names it.

        Raises
        ------
        BadInputError, SettingsError
            If it cannot be read, fetched, or made.
        """
        if structure not in self._outlines:
            self._outlines[structure] = _outline(structure)
        return self._outlines[structure]

    def source(self, structure: str) -> str:
        """What a record says of where a structure comes from: a file's name and a digest of its
        bytes, so that a changed one shows.
        """
        if structure not in self._sources:
            kind, _, entry = structure.partition(":")
            if kind == "phantom":
                return structure
            path = fetch_structure(entry) if kind == "pdb" and entry else Path(structure)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            self._sources[structure] = f"{path.name} sha256:{digest}"
        return self._sources[structure]

    def species(
        self,
        structures: Sequence[str],
        made_by: SpeciesSettings,
        settings: SimulationSettings,
        device: str = "cpu",
    ) -> list[ProjectedSpecies]:
        """The species of a movie. Those of earlier movies are kept as long as they are no more than
        twice as many.
        """
        pixel, voltage = settings.pixel_size_angstrom, settings.optics.voltage_kv
        keys = [(structure, made_by, pixel, voltage) for structure in structures]
        for key in keys:
            if key not in self._species:
                potential = load_potential(key[0], pixel, made_by.potential, made_by.em_map)
                self._species[key] = ProjectedSpecies.of(potential, voltage, made_by.poses, device)
            self._species.move_to_end(key)
            while len(self._species) > 2 * len(structures):
                self._species.popitem(last=False)
        return [self._species[key] for key in keys]


def _outline(structure: str) -> Outline:
    if is_map(structure):
        coarse = load_potential(structure, OUTLINE_PIXEL_ANGSTROM)
        return Outline(coarse.name, 2 * coarse.radius_angstrom)
    atoms = load_structure(structure)
    return Outline(atoms.name, atoms.diameter_angstrom)


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
    for number in range(seed, seed + movies):
        settings = recipe.settings_of(number)
        structures = recipe.structures or (("phantom:0",) if settings.specimen.populated else ())
        outlines = [store.outline(s) for s in structures]
        for one in outlines:
            _check_fits(one, settings)
        record = MovieRecord(
            name=f"{'-'.join(o.name for o in outlines)[:80] or 'empty'}_{number:05d}",
            seed=number,
            species=tuple(o.name for o in outlines),
            sources=tuple(store.source(s) for s in structures),
            species_settings=recipe.species,
            version=dstnet.__version__,
            settings=settings.model_dump(mode="json"),
        )
        there = "nothing" if overwrite else _what_is_there(folder, record, movie_format, expected)
        planned.append(Planned(record, settings, structures, movie_format, expected, there))
    if other := [m.record.name for m in planned if m.there == "other"]:
        raise OutputError(
            f"{folder} holds {_movies(len(other))} of these names made with other settings, format"
            f" or version ({other[0]}); pass --overwrite, or choose another folder"
        )
    plan = Plan(folder, tuple(planned))
    _check_folder(folder, plan.bytes)
    return plan


def _movies(count: int) -> str:
    return f"{count} movie" + "s" * (count != 1)


def _check_fits(one: Outline, settings: SimulationSettings) -> None:
    field, pixel = min(settings.shape) * settings.pixel_size_angstrom, settings.pixel_size_angstrom
    if one.diameter_angstrom > field:
        raise SettingsError(
            f"{one.name} is {one.diameter_angstrom:.0f} Å wide, the field {field:.0f} Å; make the"
            " field (shape x pixel size) larger"
        )
    box = _box(one, pixel)
    if box > MAX_BOX:
        raise SettingsError(
            f"{one.name} at {pixel:g} Å/pixel needs a box of {box} voxels, more than {MAX_BOX}; use"
            " a larger pixel size"
        )


def _box(one: Outline, pixel_size_angstrom: float) -> int:
    return next_fast_size(
        math.ceil((one.diameter_angstrom + MARGIN_ANGSTROM) / pixel_size_angstrom)
    )


def _what_is_there(
    folder: Path, record: MovieRecord, movie_format: MovieFormat, expected: bool
) -> Literal["nothing", "whole", "other"]:
    """The settings are written last: without them, or without the movie, what is there is a
    broken-off run's and is made again.
    """
    written = record_path(folder, record.name)
    formats = [f for f in FORMATS if movie_path(folder, record.name, f).is_file()]
    try:
        if not formats or not written.is_file():
            return "nothing"
        if formats != [movie_format] or written.read_text() != record.to_yaml():
            return "other"
        return "whole" if is_whole(folder, record, movie_format, expected) else "nothing"
    except OSError as error:
        raise OutputError(
            f"cannot read {written}: {error.strerror or error}; choose another folder"
        ) from None


def _check_folder(folder: Path, needed_bytes: int) -> None:
    """Refuse a folder that cannot take the movies, as far as that shows without writing to it."""
    existing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path("/"))
    if not existing.is_dir():
        raise OutputError(
            f"cannot write into {folder}: {existing} is a file, not a folder; choose another folder"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write into {folder}: no permission for {existing}; choose a folder that you"
            " may write to"
        )
    free = shutil.disk_usage(existing).free
    if needed_bytes and needed_bytes + SPARE_BYTES > free:
        raise OutputError(
            f"{folder} has {free / 1e9:.2f} GB free where about"
            f" {(needed_bytes + SPARE_BYTES) / 1e9:.2f} GB are needed; free some space, make fewer"
            " movies or choose another folder"
        )


def estimate(plan: Plan, workers: int, device: str, store: SpeciesStore) -> Estimate:
    """Measure two short movies of the first one's settings, no particles in them, on this machine,
    and reckon from there.

    What potentials and projections of particles cost is not in it.
    """
    if not plan.todo:
        return Estimate(0.0, 0)
    first = plan.todo[0].settings
    shape = (min(first.shape[0], PROBE_PIXELS), min(first.shape[1], PROBE_PIXELS))
    specimen = first.specimen.model_copy(update={"coverage": 0.0, "aggregates_per_um2": 0.0})

    def seconds(frames: int) -> float:
        probe = first.model_copy(update={"shape": shape, "frames": frames, "specimen": specimen})
        started = time.process_time()
        for frame in MovieSimulator(probe, [], 0, device).frames():
            imagecodecs.lzw_encode(frame.cpu().numpy().astype(np.uint16).tobytes())
        return time.process_time() - started

    with torch_threads(1):
        seconds(2)  # what is done once in a process is no movie's cost
        short, long = seconds(2), seconds(4)
    frame = max(long - short, 0.0) / 2
    start = max(short - 2 * frame, 0.0)
    cost = sum(
        (start + frame * m.settings.frames) * math.prod(m.settings.shape) / math.prod(shape)
        for m in plan.todo
    )
    largest = max(_memory_bytes(m, store) for m in plan.todo)
    return Estimate(
        cost,
        BASE_MEMORY_BYTES
        + min(workers, len(plan.todo)) * (largest + (BASE_MEMORY_BYTES if workers > 1 else 0)),
    )


def _memory_bytes(movie: Planned, store: SpeciesStore) -> int:
    """Roughly what making a movie takes: its images, or the making of its largest potential,
    whichever is more.
    """
    images = PEAK_IMAGES * 4 * math.prod(movie.settings.shape)
    boxes = [
        _box(store.outline(s), movie.settings.pixel_size_angstrom) ** 3 for s in movie.structures
    ]
    kept = sum(KEPT_BYTES_PER_VOXEL * b for b in boxes)
    return max(images + kept, max(boxes, default=0) * MAKING_BYTES_PER_VOXEL + kept)


def make_movies(
    plan: Plan,
    *,
    workers: int = 1,
    device: str = "cpu",
    store: SpeciesStore | None = None,
    after: Callable[[Path, str, MovieFormat], None] | None = None,
    report: Callable[[dict], None] = lambda record: None,
) -> list[dict]:
    """Make what is not whole yet, and write ``movies.star`` for all whole movies of the folder.

    The bytes of a movie depend on its settings, seed and device only. Sums, and vectorised
    functions at the borders of the threads' shares, differ in the last bit with the number of
    threads that torch has, so each movie is made by one; workers are what uses several cores. Each
    holds one movie and its species.

    Parameters
    ----------
    plan
        From `plan_movies`.
    workers
        Processes; 1 works in this one.
    device
        Where torch works.
    store
        Species that are known already (used with one worker).
    after
        Called with (folder, name, movie_format) where the movie was made, once it is whole or was
        found whole. With several workers it must be a module's function.
    report
        Gets each movie's record, in the plan's order: name, status ("done", "skipped", "failed"),
        particles and seconds or error.

    Returns
    -------
    list of dict
        The records.

    Raises
    ------
    OutputError
        If a file cannot be written; what is whole stays, and the same plan goes on from there.
    """
    ensure_writable_folder(plan.folder / "movies")
    ensure_writable_folder(plan.folder / "truth")
    for movie in plan.todo:
        _remove_leftovers(plan.folder, movie.record.name)
    job = _Job(plan.folder, device, after)
    workers = max(1, min(workers, len(plan.movies) if after else len(plan.todo)))
    if workers == 1:
        outcomes = in_this_process(plan.movies, job.worker(0, store))
    else:
        outcomes = in_workers(plan.movies, job, workers=workers, tries=TRIES)
    finished: dict[int, dict] = {}
    records: list[dict] = []
    for index, outcome in outcomes:
        if isinstance(outcome, WorkerCrash):
            record = plan.movies[index].record
            error = (
                f"{record.name}: its worker ended {outcome.tries} times ({outcome.why}); use fewer"
                " workers or a smaller field"
            )
            outcome = {"name": record.name, "seed": record.seed, "status": "failed", "error": error}
        if "stop" in outcome:
            raise OutputError(outcome["stop"])
        finished[index] = outcome
        while len(records) in finished:
            records.append(finished.pop(len(records)))
            report(records[-1])
    write_movies_star(plan.folder)
    return records


def _remove_leftovers(folder: Path, name: str) -> None:
    """Remove the hidden files of `dstnet.io.atomic_path` that a killed run left of this movie."""
    pattern = re.compile(rf"\.{re.escape(name[:40])}.*\.[0-9a-f]{{12}}\.[a-z]+")
    for sub in ("movies", "truth"):
        for path in (folder / sub).glob(".*"):
            if pattern.fullmatch(path.name):
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Job:
    """What all movies of a run share."""

    folder: Path
    device: str
    after: Callable[[Path, str, MovieFormat], None] | None

    def worker(self, number: int, store: SpeciesStore | None = None) -> Callable[[Planned], dict]:
        """What a worker does; its species are its own."""
        species = store or SpeciesStore()
        return lambda movie: self.make(movie, species)

    def make(self, movie: Planned, store: SpeciesStore) -> dict:
        """Make one movie and say what came of it."""
        name = movie.record.name
        outcome: dict[str, Any] = {"name": name, "seed": movie.record.seed, "status": "skipped"}
        started, cpu = time.perf_counter(), time.process_time()
        try:
            if movie.there != "whole":
                species = store.species(
                    movie.structures, movie.record.species_settings, movie.settings, self.device
                )
                # Whatever lies there was found not to be this movie: not whole from here on.
                record_path(self.folder, name).unlink(missing_ok=True)
                for other in set(FORMATS) - {movie.movie_format}:
                    movie_path(self.folder, name, other).unlink(missing_ok=True)
                shot = MovieSimulator(movie.settings, species, movie.record.seed, self.device)
                write_shot(shot, self.folder, movie.record, movie.movie_format, movie.expected)
                outcome |= {"status": "done", "particles": len(shot.truth.particles)}
                outcome |= {
                    "seconds": round(time.perf_counter() - started, 2),
                    "cpu_seconds": round(time.process_time() - cpu, 2),
                }
            if self.after:
                self.after(self.folder, name, movie.movie_format)
        except OutputError as error:
            return {"stop": str(error)}
        except DstnetError as error:
            outcome |= {"status": "failed", "error": f"{name}: {error}"}
        except (MemoryError, torch.OutOfMemoryError) as error:
            outcome |= {
                "status": "failed",
                "error": f"{name}: out of memory ({error}); use fewer workers or a smaller field",
            }
        return outcome


def write_movies_star(folder: Path) -> None:
    """Write ``folder/movies.star``: every whole movie of the folder, as RELION's movie import
    writes them; paths are from `folder`.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    groups: dict[tuple[float, ...], int] = {}
    rows = []
    for path in sorted((folder / "truth").glob("*_settings.yaml")):
        try:
            record = MovieRecord.from_yaml(path)
            settings = SimulationSettings.checked(record.settings, str(path))
        except DstnetError:
            continue  # another program's, or another version's
        movie = next(
            (m for f in FORMATS if (m := movie_path(folder, record.name, f)).is_file()), None
        )
        if movie is None:
            continue
        optics = settings.optics
        key = (
            settings.pixel_size_angstrom,
            optics.voltage_kv,
            optics.cs_mm,
            optics.amplitude_contrast,
        )
        rows.append((movie.relative_to(folder).as_posix(), groups.setdefault(key, len(groups) + 1)))
    if not rows:
        return
    names = [
        "rlnMicrographOriginalPixelSize",
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
    ]
    optics_table = pd.DataFrame(list(groups), columns=names)
    optics_table.insert(0, "rlnOpticsGroupName", [f"opticsGroup{i}" for i in groups.values()])
    optics_table.insert(1, "rlnOpticsGroup", list(groups.values()))
    movies = pd.DataFrame(rows, columns=["rlnMicrographMovieName", "rlnOpticsGroup"])
    write_star(folder / "movies.star", {"optics": optics_table, "movies": movies})
