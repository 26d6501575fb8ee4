"""Methods × movies × measures: each movie by one worker, each method's scores on record as soon as
they are there.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dstnet.alignment import AlignedMovie, Grouping, align
from dstnet.core.progress import progress, working_on
from dstnet.errors import BadInputError, DstnetError, OutputError, SettingsError
from dstnet.evaluation.base import Annotation, Candidate, Measure, Scene, Subject
from dstnet.evaluation.controls import CONTROLS, Controls
from dstnet.evaluation.crops import crop_of
from dstnet.evaluation.measures import MEASURES
from dstnet.evaluation.records import (
    TRUTH,
    MovieScores,
    claim_folder,
    read_crops,
    read_scores,
    write_crops,
    write_scores,
)
from dstnet.evaluation.scoring import Scorer, said
from dstnet.evaluation.settings import EvaluationSettings
from dstnet.evaluation.truths import checked_truth
from dstnet.movie import Movie
from dstnet.runs import Outcome, WorkerCrash, Workplace, prepare

LEAST_LEFT_PX = 32  # of a movie's shorter side within the border


@dataclass(frozen=True)
class MovieOutcome:
    """What came of a movie in this run.

    Attributes
    ----------
    subject
        The movie.
    scores
        All that is on record of it.
    made
        Methods that were worked on now.
    """

    subject: Subject
    scores: MovieScores
    made: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """What came of all movies.

    Attributes
    ----------
    settings, candidates, measures
        How, what and by what.
    outcomes
        A movie each, in their order; those of other shards as they are on record.
    seconds
        That this run took.
    """

    settings: EvaluationSettings
    candidates: tuple[Candidate, ...]
    measures: tuple[Measure, ...]
    outcomes: tuple[MovieOutcome, ...]
    seconds: float

    @property
    def movies(self) -> list[MovieScores]:
        """What is on record of each."""
        return [outcome.scores for outcome in self.outcomes]

    @property
    def left_out(self) -> list[str]:
        """A line on each thing that has no score though it should."""
        names = {candidate.name for candidate in self.candidates}
        return [line for movie in self.movies for line in movie.failures(names)]


def evaluate(
    subjects: Sequence[Subject],
    candidates: Sequence[Candidate],
    folder: Path,
    settings: EvaluationSettings,
    *,
    workplace: Workplace | None = None,
    overwrite: bool = False,
    report: Callable[[MovieOutcome], None] = lambda outcome: None,
) -> Evaluation:
    """Score methods on movies, into `folder`; what is on record there of the same files, methods
    and settings is not made again.

    Parameters
    ----------
    subjects, candidates
        The movies, and the methods.
    folder
        Gets ``movies`` and ``provenance.json``; empty, or of an earlier evaluation.
    settings
        Their names of methods are not looked at: `candidates` are taken.
    workplace
        Where; None: in this process. A crash of a worker costs its movie what was not on record.
    overwrite
        Replace scores that were made with other settings.
    report
        Gets what came of each movie as it is finished.

    Raises
    ------
    OutputError
        If the folder cannot be written, or holds something else.
    SettingsError
        If there is no such measure, or the workplace cannot be used.
    """
    started = time.perf_counter()
    digests = {candidate.name: method_digest(candidate, settings) for candidate in candidates}
    job = EvaluationJob(settings, tuple(candidates), digests, folder)
    outcomes_of = prepare(job, workplace or Workplace())
    claim_folder(folder, settings.shared, overwrite=overwrite)
    finished: dict[int, MovieOutcome] = {}
    outcomes = outcomes_of(subjects)
    try:
        for outcome in outcomes:
            finished[outcome.index] = _of_movie(outcome, folder)
            report(finished[outcome.index])
    finally:
        outcomes.close()
    ordered = [
        finished.get(index) or MovieOutcome(subject, read_scores(folder, subject))
        for index, subject in enumerate(subjects)
    ]
    seconds = time.perf_counter() - started
    measures = chosen_measures(settings)
    return Evaluation(settings, tuple(candidates), measures, tuple(ordered), seconds)


def chosen_measures(settings: EvaluationSettings) -> tuple[Measure, ...]:
    """The measures that the settings name, or all; those of controls only where there are some.

    Raises
    ------
    SettingsError
        If there is none of a name.
    """
    by_name = {measure.name: measure for measure in MEASURES}
    for name in settings.measures:
        if name not in by_name:
            raise SettingsError(f"there is no measure {name!r}; there are {', '.join(by_name)}")
    chosen = [by_name[name] for name in settings.measures] or MEASURES
    return tuple(m for m in chosen if settings.controls or m.needs not in CONTROLS)


def method_digest(candidate: Candidate, settings: EvaluationSettings) -> str:
    """Of all that decides a method's scores besides the movie."""
    text = json.dumps([settings.shared, candidate.describe()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _of_movie(outcome: Outcome[Subject, MovieOutcome], folder: Path) -> MovieOutcome:
    if not isinstance(outcome, WorkerCrash):
        return outcome.value
    scores = read_scores(folder, outcome.task)
    problem = (
        f"its worker ended {outcome.tries} times ({outcome.why}); give fewer --workers, or leave"
        " out the method that it was at"
    )
    return MovieOutcome(outcome.task, scores.model_copy(update={"problems": (problem,)}))


@dataclass(frozen=True)
class EvaluationJob:
    """What all movies of an evaluation share; see `dstnet.runs.Job`."""

    settings: EvaluationSettings
    candidates: tuple[Candidate, ...]
    digests: Mapping[str, str]
    folder: Path

    def worker(self, device: str) -> Callable[[Subject], MovieOutcome]:
        """What a worker does with a movie."""
        return _Worker(self, device)


class _Worker:
    """Works on movies, one after the other."""

    def __init__(self, job: EvaluationJob, device: str) -> None:
        self._job = job
        self._device = device
        self._measures = chosen_measures(job.settings)

    def __call__(self, subject: Subject) -> MovieOutcome:
        record = read_scores(self._job.folder, subject)
        todo = [c for c in self._job.candidates if self._is_missing(c, record, subject)]
        if not todo:
            return MovieOutcome(subject, record)
        record = record.model_copy(update={"problems": (), "notes": ()})
        try:
            with working_on(str(subject.path)):
                return self._worked_on(subject, record, todo)
        except OutputError:
            raise
        except Exception as error:
            problems = (*record.problems, said(error))
            return MovieOutcome(subject, record.model_copy(update={"problems": problems}))

    def _is_missing(self, candidate: Candidate, record: MovieScores, subject: Subject) -> bool:
        """Whether a method is still to be worked on."""
        if candidate.needs_truth and subject.truth is None:
            return False
        known = record.methods.get(candidate.name)
        if known is None or known.problems or known.digest != self._job.digests[candidate.name]:
            return True
        return not {measure.name for measure in self._measures} <= set(known.measures)

    def _worked_on(
        self, subject: Subject, record: MovieScores, todo: Sequence[Candidate]
    ) -> MovieOutcome:
        folder = self._job.folder
        settings = self._job.settings

        def groupings(movie: Movie) -> tuple[Grouping, ...]:
            return tuple({g for candidate in todo for g in candidate.groupings(movie)})

        def aligned_for_all(movie: Movie) -> AlignedMovie:
            return align(
                movie,
                settings.alignment,
                groupings=groupings(movie),
                halves=len(movie) > 1,
                device=self._device,
            )

        movie = subject.open()
        left_px = min(movie.shape) - 2 * settings.border_px
        if left_px < LEAST_LEFT_PX:
            raise BadInputError(
                f"of {movie.shape[0]} x {movie.shape[1]} pixels, {max(0, left_px)} are left without"
                f" the border; give a --border that leaves {LEAST_LEFT_PX}"
            )
        aligned = aligned_for_all(movie)
        with tempfile.TemporaryDirectory(prefix="dstnet-evaluate-") as scratch:
            scene = Scene(subject, aligned, None, Path(scratch), groupings)
            known = _what_is_known(scene)
            scene = known.scene
            record = record.model_copy(
                update={
                    "pixel_size_angstrom": aligned.pixel_size_angstrom,
                    "notes": (*aligned.movie.notes, *aligned.notes, *known.notes),
                    "problems": tuple(known.problems),
                }
            )
            controls = Controls(scene, settings.seed, aligned_for_all)
            scorer = Scorer(self._measures, scene, known.annotation, controls, settings.border_px)
            crops = read_crops(folder, subject)
            if scene.truth is not None:
                crops[TRUTH] = crop_of(scene.truth.clean, aligned.total)
            made = []
            for number, candidate in enumerate(todo, 1):
                if candidate.needs_truth and scene.truth is None:
                    continue
                progress(f"{candidate.name}, method", number, len(todo))
                scores, image = scorer(candidate, self._job.digests[candidate.name])
                methods = {**record.methods, candidate.name: scores}
                record = record.model_copy(update={"methods": methods})
                if image is not None:
                    crops[candidate.name] = crop_of(image, aligned.total)
                    write_crops(folder, subject, crops)
                write_scores(folder, subject, record)
                made.append(candidate.name)
        return MovieOutcome(subject, record, tuple(made))


@dataclass
class _Known:
    """What is known of a movie, and what turned out not to be.

    Attributes
    ----------
    scene
        With the truth, if there is one.
    """

    scene: Scene
    annotation: Annotation | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _what_is_known(scene: Scene) -> _Known:
    known = _Known(scene)
    subject = scene.subject
    if subject.truth is not None:
        try:
            truth, note = checked_truth(subject.truth(), scene.aligned)
        except DstnetError as error:
            known.problems.append(f"{error}; left out with what needs it")
        else:
            known.notes += [note] if note else []
            known.scene = replace(scene, truth=truth)
            if len(truth.centres_px) and truth.diameter_angstrom is not None:
                known.annotation = Annotation(truth.centres_px, truth.diameter_angstrom)
    if subject.annotation is not None:
        try:
            known.annotation = subject.annotation(scene.aligned.movie)
        except DstnetError as error:
            known.problems.append(f"{error}; left out with what needs it")
        else:
            known.notes += known.annotation.notes
    return known
