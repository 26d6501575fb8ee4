"""Particles erased from the movies of data sets: each movie by one worker, on record as soon as its
scores are there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from dstnet.core.progress import working_on
from dstnet.dataset import SimulatedMovie
from dstnet.dataset.species_store import SpeciesStore
from dstnet.errors import BadInputError, OutputError
from dstnet.evaluation.base import Candidate, Subject
from dstnet.evaluation.erased_particles import ErasedScores, judge
from dstnet.evaluation.erased_summary import ErasedRow, summarise
from dstnet.evaluation.records import Digested, read_record, write_record
from dstnet.evaluation.run import method_digest
from dstnet.evaluation.scoring import said
from dstnet.evaluation.settings import EvaluationSettings
from dstnet.evaluation.twins import twins_of
from dstnet.runs import WorkerCrash, Workplace, prepare


class ErasedMovie(Digested):
    """What is on record of a movie and its twin.

    Attributes
    ----------
    digest
        Of the movie.
    methods
        Digest of each method that was worked on.
    scores
        Of all of them.
    """

    methods: dict[str, str] = Field(default={})
    scores: tuple[ErasedScores, ...] = ()


@dataclass(frozen=True)
class ErasedOutcome:
    """What came of a movie: its record, and a line on each thing that was left out."""

    movie: ErasedMovie
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Erasure:
    """What methods show where particles were taken away.

    Attributes
    ----------
    rows
        Method by method, condition by condition.
    left_out
        A line on each thing that has no score though it should.
    """

    rows: tuple[ErasedRow, ...]
    left_out: tuple[str, ...]


def simulated_of(subject: Subject) -> SimulatedMovie:
    """The simulated movie that a subject is.

    Raises
    ------
    BadInputError
        If it is none.
    """
    folder = subject.path.parent.parent
    try:
        return SimulatedMovie.read(folder, subject.name)
    except BadInputError:
        raise BadInputError(
            f"{subject.path} is no movie of dstnet simulate with its truths; leave it out of"
            " --hallucination and --reconstruction"
        ) from None


def erase_particles(
    subjects: Sequence[Subject],
    candidates: Sequence[Candidate],
    folder: Path,
    settings: EvaluationSettings,
    structures: Sequence[Path] = (),
    *,
    workplace: Workplace | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Erasure:
    """Judge methods by what they show where particles were erased, into ``folder/erased``.

    Parameters
    ----------
    subjects, candidates
        Simulated movies of one structure each, and the methods.
    folder
        Of the evaluation; what is on record there of the same movie and method is not made again.
    settings
        Of the evaluation.
    structures
        Folders of structure files.
    workplace
        Where; None: in this process.
    report
        Gets a line as each movie is finished.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    job = ErasedJob(settings, tuple(candidates), folder / "erased", tuple(structures))
    scores: list[ErasedScores] = []
    left_out: list[str] = []
    names = {candidate.name for candidate in candidates}
    outcomes = prepare(job, workplace or Workplace())(subjects)
    finished: dict[int, ErasedOutcome] = {}
    try:
        for outcome in outcomes:
            subject = outcome.task
            if isinstance(outcome, WorkerCrash):
                left_out.append(f"{subject.path}: its worker ended ({outcome.why})")
                continue
            finished[outcome.index] = outcome.value
            report(f"{subject.dataset}/{subject.name}: particles erased")
    finally:
        outcomes.close()
    for _, value in sorted(finished.items()):
        scores += [score for score in value.movie.scores if score.method in names]
        left_out += value.left_out
    return Erasure(tuple(summarise(scores, settings.seed)), tuple(left_out))


@dataclass(frozen=True)
class ErasedJob:
    """What all movies share; see `dstnet.runs.Job`."""

    settings: EvaluationSettings
    candidates: tuple[Candidate, ...]
    folder: Path
    structures: tuple[Path, ...]

    def worker(self, device: str) -> Callable[[Subject], ErasedOutcome]:
        """What a worker does with a movie."""
        store = SpeciesStore()
        return lambda subject: self.work(subject, store)

    def work(self, subject: Subject, store: SpeciesStore) -> ErasedOutcome:
        """Judge the methods that are not on record yet."""
        fresh = ErasedMovie(digest=subject.digest)
        record = read_record(self._path(subject), ErasedMovie, subject.digest) or fresh
        digests = {c.name: method_digest(c, self.settings) for c in self.candidates}
        todo = [c for c in self.candidates if record.methods.get(c.name) != digests[c.name]]
        if not todo:
            return ErasedOutcome(record)
        try:
            with working_on(str(subject.path)):
                simulated = simulated_of(subject)
                twins = twins_of(simulated, store, self.structures)
                scores, failures = judge(
                    twins, subject, todo, simulated.settings, self.settings.alignment
                )
        except OutputError:
            raise
        except Exception as error:
            return ErasedOutcome(record, (f"{subject.path}: {said(error)}",))
        names = {candidate.name for candidate in todo}
        kept = [score for score in record.scores if score.method not in names]
        done = {name: digests[name] for name in names - failures.keys()}
        record = ErasedMovie(
            digest=subject.digest,
            methods={**record.methods, **done},
            scores=(*kept, *scores),
        )
        write_record(self._path(subject), record)
        lines = tuple(f"{subject.path}: {name}: {why}" for name, why in failures.items())
        return ErasedOutcome(record, lines)

    def _path(self, subject: Subject) -> Path:
        return self.folder / subject.dataset / f"{subject.name}.json"
