"""Planned movies made one by one, here or elsewhere, each complete or not at all."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch

from dstnet.core.progress import working_on
from dstnet.dataset.manifest import write_tables
from dstnet.dataset.plan import Plan, PlannedMovie
from dstnet.dataset.record import MOVIE_FORMATS
from dstnet.dataset.simulated_movie import SimulatedMovie
from dstnet.dataset.species_store import SpeciesStore
from dstnet.errors import DstnetError, OutputError
from dstnet.io import ensure_writable_folder
from dstnet.io.leftovers import remove_leftovers
from dstnet.runs import Outcome, WorkerCrash, Workplace, prepare
from dstnet.simulation.movie_simulator import MovieSimulator


@dataclass(frozen=True)
class MovieOutcome:
    """What came of a planned movie.

    Attributes
    ----------
    name, seed
        Of the movie.
    status
        "skipped" if it was complete already.
    particles, seconds, cpu_seconds
        Of one that was made.
    error
        Why it failed, the movie's name first.
    """

    name: str
    seed: int
    status: Literal["done", "skipped", "failed"]
    particles: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    error: str | None = None

    @classmethod
    def skipped(cls, movie: PlannedMovie) -> "MovieOutcome":
        """Of a movie that was complete already."""
        return cls(movie.name, movie.seed, "skipped")

    @classmethod
    def failed(cls, movie: PlannedMovie, why: str) -> "MovieOutcome":
        """Of a movie that could not be made."""
        return cls(movie.name, movie.seed, "failed", error=f"{movie.name}: {why}")

    def to_record(self) -> dict[str, Any]:
        """As plain values by name, those that it has, for machines to read."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def make_movies(
    plan: Plan,
    workplace: Workplace | None = None,
    *,
    store: SpeciesStore | None = None,
    after: Callable[[SimulatedMovie], None] | None = None,
    report: Callable[[MovieOutcome], None] = lambda outcome: None,
) -> list[MovieOutcome]:
    """Make what is not complete yet, and write ``movies.star``, ``particles.star`` and
    ``manifest.json`` of all complete movies of the folder.

    The bytes of a movie depend on its settings, seed and device only. Sums, and vectorised
    functions at the borders of the threads' shares, differ in the last bit with the number of
    threads that torch has, so the workplace should give each worker one; more workers are what uses
    several cores. Each holds one movie and its species.

    Parameters
    ----------
    plan
        From `dstnet.dataset.plan.plan_movies`; of one shard where several runs share the work.
    workplace
        Where the movies are made; None: in this process, on the CPU. Its own shard is not looked
        at: the plan's counts.
    store
        Species that are known already; of use in this process.
    after
        Called with each movie where it was made, once it is complete or was found complete. For
        workers it must be a module's function.
    report
        Gets what came of each movie, in the plan's order.

    Returns
    -------
    list of MovieOutcome
        What came of each movie, in the plan's order.

    Raises
    ------
    OutputError
        If a file cannot be written; what is complete stays, and the same plan goes on from there.
    SettingsError
        If the workers cannot be had.
    """
    place = workplace or Workplace(threads=1)
    # Another process' species are its own, and so are a cluster's.
    job = _Job(after, store if place.is_here else None)
    have_made = prepare(job, replace(place, shard=None))
    _prepare_folder(plan)
    outcomes = _InOrder(report)
    tasks: list[PlannedMovie] = []
    places: list[int] = []  # of the tasks among the plan's movies
    for number, movie in enumerate(plan.movies):
        if movie.presence == "complete" and after is None:
            outcomes.add(number, MovieOutcome.skipped(movie))
        else:
            tasks.append(movie)
            places.append(number)
    for outcome in have_made(tasks):
        outcomes.add(places[outcome.index], _movie_outcome(outcome))
    write_tables(plan.folder, plan.recipe)
    return outcomes.reported


def _prepare_folder(plan: Plan) -> None:
    for name in ("movies", "truth"):
        folder = ensure_writable_folder(plan.folder / name)
        for movie in plan.todo:
            remove_leftovers(folder, stem=movie.name, older_than_seconds=0)


@dataclass
class _InOrder:
    """Outcomes reported in the plan's order, whatever the order in which they come."""

    report: Callable[[MovieOutcome], None]
    reported: list[MovieOutcome] = field(default_factory=list)
    waiting: dict[int, MovieOutcome] = field(default_factory=dict)

    def add(self, number: int, outcome: MovieOutcome) -> None:
        """Take the outcome of the plan's movie of this number; report what is next in order."""
        self.waiting[number] = outcome
        while len(self.reported) in self.waiting:
            ready = self.waiting.pop(len(self.reported))
            self.reported.append(ready)
            self.report(ready)


def _movie_outcome(outcome: Outcome[PlannedMovie, MovieOutcome]) -> MovieOutcome:
    if isinstance(outcome, WorkerCrash):
        ended = f"its worker ended {outcome.tries} times ({outcome.why})"
        why = f"{ended}; use fewer workers or a smaller field"
        return MovieOutcome.failed(outcome.task, why)
    return outcome.value


@dataclass(frozen=True)
class _Job:
    """What all movies of a run share."""

    after: Callable[[SimulatedMovie], None] | None
    store: SpeciesStore | None

    def worker(self, device: str) -> Callable[[PlannedMovie], MovieOutcome]:
        """What a worker does with a movie."""
        species = self.store or SpeciesStore()
        return lambda movie: self.make(movie, species, device)

    def make(self, movie: PlannedMovie, store: SpeciesStore, device: str) -> MovieOutcome:
        """Make one movie and say what came of it.

        Raises
        ------
        OutputError
            If nothing more can be written.
        """
        outcome = MovieOutcome.skipped(movie)
        try:
            if movie.presence != "complete":
                outcome = _made(movie, store, device)
            if self.after:
                self.after(movie.movie)
        except OutputError:
            raise
        except DstnetError as error:
            return MovieOutcome.failed(movie, str(error))
        except (MemoryError, torch.OutOfMemoryError) as error:
            why = f"out of memory ({error}); use fewer workers or a smaller field"
            return MovieOutcome.failed(movie, why)
        return outcome


def _made(planned: PlannedMovie, store: SpeciesStore, device: str) -> MovieOutcome:
    started = time.perf_counter()
    cpu_started = time.process_time()
    movie = planned.movie
    record = planned.movie.record
    species = store.species(planned.structures, record.species_settings, planned.settings, device)
    # What is there was found not to be this movie: not complete from here on.
    movie.record_path.unlink(missing_ok=True)
    for other in set(MOVIE_FORMATS) - {planned.movie_format}:
        movie.movie_path(other).unlink(missing_ok=True)
    simulator = MovieSimulator(planned.settings, species, record.seed, device)
    with working_on(record.name):
        movie.write(simulator, planned.movie_format, planned.expected)
    return MovieOutcome(
        name=record.name,
        seed=record.seed,
        status="done",
        particles=len(simulator.truth.particles),
        seconds=round(time.perf_counter() - started, 2),
        cpu_seconds=round(time.process_time() - cpu_started, 2),
    )
