"""What is evaluated on: movies of data sets with their truths, and movie files with what is given
for them.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from dstnet.dataset import SimulatedMovie
from dstnet.dataset.manifest import recorded_names
from dstnet.dataset.truth_files import MOTION_ENDING
from dstnet.errors import BadInputError, printable
from dstnet.evaluation.annotations import annotation_file, read_annotation
from dstnet.evaluation.base import Subject
from dstnet.evaluation.truths import TruthFolder, simulated_truth, without_particles
from dstnet.movie import Movie
from dstnet.movie.frame_cache import FrameCache
from dstnet.pipeline import CameraReferences, InputMovie, MovieSettings, read_inputs
from dstnet.pipeline.file_state import file_version

_DIGITS = 6  # of a digest: enough to tell apart the folders of one evaluation


@dataclass(frozen=True)
class SubjectOptions:
    """What is given for movie files.

    Attributes
    ----------
    movies, references
        How they were taken, and the camera's references.
    truth
        Folder of their truths, see `TruthFolder`; None: none is known.
    picks
        Folders of their annotations, or tables of several movies'; the first that has a movie's.
    diameter_angstrom
        Of the particles there; None: as the folder says.
    """

    movies: MovieSettings = field(default_factory=MovieSettings)
    references: CameraReferences = field(default_factory=CameraReferences)
    truth: Path | None = None
    picks: tuple[Path, ...] = ()
    diameter_angstrom: float | None = None

    @property
    def taken(self) -> tuple[Any, ...]:
        """What decides scores beside the files."""
        return self.movies, self.references.correction, self.diameter_angstrom


def find_subjects(
    arguments: Sequence[str],
    options: SubjectOptions,
    *,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[list[Subject], list[str]]:
    """The movies of all data sets and files that are named, and a line on each that cannot be
    read.

    Parameters
    ----------
    arguments
        Folders that `dstnet simulate` wrote, and whatever `dstnet.pipeline.read_inputs` takes.
    options
        What is given for the latter.
    report
        Gets a line on whatever was left out without being wrong.

    Raises
    ------
    BadInputError
        If nothing is named, or there is no such folder of truths or picks.
    """
    found: list[Subject] = []
    problems: list[str] = []
    files: list[str] = []
    for argument in arguments:
        names = recorded_names(Path(argument))
        if not names:
            files.append(argument)
        for name in names:
            try:
                found.append(_simulated(SimulatedMovie.read(Path(argument), name)))
            except BadInputError as error:
                problems.append(str(error))
    if files or not arguments:
        inputs = read_inputs(files, report=report, references=options.references.files)
        found += _of_files(inputs, options, report)
    return _distinct(found), problems


def _simulated(movie: SimulatedMovie) -> Subject:
    if not movie.formats:
        raise BadInputError(
            f"{movie.folder / 'movies'} has no {movie.name}; simulate it again, or take its truths"
            " away"
        )
    path = movie.movie_path(movie.formats[0])
    gain, defects = (p if p.is_file() else None for p in (movie.gain_path, movie.defects_path))
    endings = ("clean.mrc", "phase.mrc", "label.mrc", "particles.star", MOTION_ENDING)
    truths = [movie.truth_path(ending) for ending in endings]
    return Subject(
        name=movie.name,
        dataset=_folder_name(movie.folder),
        path=path,
        digest=_digest([path, gain, defects, *truths], movie.digest),
        open=partial(_cached, movie.movie),
        truth=partial(simulated_truth, movie),
        gain_path=gain,
        defects_path=defects,
        ice=partial(without_particles, movie),
    )


def _of_files(
    inputs: Iterable[InputMovie], options: SubjectOptions, report: Callable[[str], None]
) -> list[Subject]:
    truths = None if options.truth is None else TruthFolder(options.truth)
    for place in options.picks:
        if not place.exists():
            raise BadInputError(f"{place} is not there; give a folder of picks to --picks")
    found = []
    without: dict[str, list[str]] = {"--truth": [], "--picks": []}
    for source in inputs:
        name = source.name.rpartition("/")[2]
        truth = None if truths is None else truths.reader(name)
        picks = next(filter(None, (annotation_file(p, name) for p in options.picks)), None)
        if truths is not None and truth is None:
            without["--truth"].append(name)
        if options.picks and picks is None:
            without["--picks"].append(name)
        gain = options.references.gain_of(source)
        defects = options.references.defects_of(source)
        files = [source.path, gain, options.references.dark, defects, picks]
        files += [] if truths is None else truths.files(name)
        annotation = None
        if picks is not None:
            annotation = partial(read_annotation, picks, options.diameter_angstrom)
        found.append(
            Subject(
                name=name,
                dataset=_folder_name(source.path.parent),
                path=source.path,
                digest=_digest(
                    files, options.movies, options.references, options.diameter_angstrom
                ),
                open=partial(_open, source, options.movies, options.references),
                truth=truth,
                annotation=annotation,
                gain_path=gain,
                defects_path=defects,
            )
        )
    for option, names in without.items():
        if names:
            more = ", ..." if len(names) > 1 else ""
            report(
                f"{len(names)} of {len(found)} movies have nothing in {option} ({names[0]}{more})"
            )
    return found


def _open(source: InputMovie, movies: MovieSettings, references: CameraReferences) -> Movie:
    """A movie file, corrected."""
    movie = _cached(partial(movies.open, source))
    corrections = references.corrections(references.gain_of(source), references.defects_of(source))
    return movie if corrections is None else corrections.applied(movie)


def _cached(opened: Callable[[], Movie]) -> Movie:
    """A movie whose frames are kept in memory as they are read: several methods read them."""
    movie = opened()
    return replace(movie, frames=FrameCache(movie.frames))


def _digest(files: Iterable[Path | None], *others: Any) -> str:
    """Of names, sizes and times of files, and of whatever else decides what they mean."""
    versions = [(path.name, file_version(path)) for path in files if path is not None]
    text = repr((versions, others))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _folder_name(folder: Path) -> str:
    """What a data set is called, in a form that is fit for a file's name."""
    name = printable(folder.resolve().name)
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "root"


def _distinct(subjects: Iterable[Subject]) -> list[Subject]:
    """Subjects of folders of one name told apart, then those of files of one stem."""
    folder_of: dict[str, Path] = {}
    taken: set[tuple[str, str]] = set()
    found = []
    for subject in subjects:
        folder = subject.path.parent.resolve()
        if folder_of.setdefault(subject.dataset, folder) != folder:
            digest = hashlib.sha256(str(folder).encode(errors="surrogateescape")).hexdigest()
            subject = replace(subject, dataset=f"{subject.dataset}-{digest[:_DIGITS]}")
        if (subject.dataset, subject.name) in taken:
            subject = replace(subject, name=re.sub(r"[^\w.+-]", "_", subject.path.name))
        taken.add((subject.dataset, subject.name))
        found.append(subject)
    return found
