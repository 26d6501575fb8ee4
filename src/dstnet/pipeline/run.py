"""Many inputs over many workers: each on its own, outputs complete or absent, one record of the
run.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dstnet.correction.reference_check import Doubt
from dstnet.enhancement import EnhancementSettings
from dstnet.errors import BadInputError, SettingsError
from dstnet.io import ensure_writable_folder
from dstnet.io.leftovers import remove_leftovers
from dstnet.pipeline.checked_references import CheckedReferences
from dstnet.pipeline.file_state import file_version
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.motion_source import shared_motion
from dstnet.pipeline.ownership import PAGE, PROVENANCE, TABLE
from dstnet.pipeline.process import MovieJob
from dstnet.pipeline.products import possible_files
from dstnet.pipeline.record import Record, Status
from dstnet.pipeline.records import Records, StoredRun
from dstnet.pipeline.refreshing import Refresher
from dstnet.pipeline.relion_references import FOLDER as REFERENCES
from dstnet.pipeline.settings import RunSettings
from dstnet.pipeline.task import Task
from dstnet.runs import Outcome, WorkerCrash, Workplace, prepare

_TABLES = tuple(Path(name).stem for name in (PROVENANCE, TABLE, PAGE))
_TABLE_SECONDS = 60.0  # so long, none takes to write

_REPLACED = "made again: its file is not the one that was there (another size or time)"


@dataclass
class Summary:
    """What came of a run: one record an input, in order; and the movies that ``micrographs.star``
    cannot list.
    """

    records: list[Record] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)

    def of(self, status: Status) -> list[Record]:
        """Records of one status."""
        return [record for record in self.records if record.status == status]


def run_files(
    inputs: Iterable[InputMovie | None],
    folder: Path,
    settings: RunSettings,
    *,
    workplace: Workplace | None = None,
    overwrite: bool = False,
    begin: Callable[[], None] = lambda: None,
    report: Callable[[Record], None] = lambda record: None,
    write_more: Callable[[StoredRun], object] = lambda stored: None,
) -> Summary:
    """Work on every input, into `folder`; a bad one is recorded and the others go on. Complete
    results are skipped.

    Images depend on the inputs, the settings and the number of threads that torch has (sums differ
    in the last bit with it), not on workers, shards, order or time.

    Parameters
    ----------
    inputs
        A list; or what comes as it comes, as from `dstnet.pipeline.watch.watch` (then Ctrl-C is an
        end like another).
    folder
        Gets ``micrographs``, ``records``, ``provenance.json`` and ``micrographs.star``.
    settings
        What is done with each.
    workplace
        Where; None: in this process. Several runs of different shards may write into one folder at
        once.
    overwrite
        Make again what is complete.
    begin
        Called once everything that can be refused before the first input has been looked at.
    report
        Gets each input's record as it is finished.
    write_more
        Called after the tables were written, with what they are made of, as the run goes (see
        `Refresher`) and at its end.

    Raises
    ------
    OutputError
        If the folder cannot be written, or holds results made with something else and `overwrite`
        is not given.
    SettingsError, WeightsError, BadInputError
        If the weights, a device, a reference or the workplace cannot be used.
    """
    workplace = workplace or Workplace()
    if workplace.shard is not None and not isinstance(inputs, Sequence):
        raise SettingsError(
            "inputs that arrive while they are watched for have no fixed order to be divided by;"
            " give --watch or --shard"
        )
    # What cannot be used at all is refused before anything is written.
    references = CheckedReferences(settings)
    if isinstance(inputs, Sequence):
        _refuse_wrong_references(inputs, references)
    outcomes_of = prepare(MovieJob(settings), workplace)
    records = Records(folder, settings.made_with(), overwrite)
    ensure_writable_folder(folder / "micrographs")
    for name in ("micrographs", REFERENCES):
        remove_leftovers(folder / name)
    for table in _TABLES:
        remove_leftovers(folder, stem=table, older_than_seconds=_TABLE_SECONDS, below=False)
    refused: dict[str, str] = {}
    if settings.motion_from is not None and isinstance(inputs, Sequence):
        refused = shared_motion(settings.motion_from, filter(None, inputs))

    def write() -> None:
        write_more(records.refresh())

    begin()
    tables = Refresher(write)

    def judged(task: Task | None) -> Task | None:
        if task is None:
            tables.idle()
            return None
        return _judged(task, refused, references.doubts(task.movie))

    outcomes = outcomes_of(map(judged, _tasks(inputs, records, settings, overwrite)))
    finished: dict[int, Record] = {}
    try:
        for outcome in outcomes:
            record = records.add(_record(outcome))
            finished[outcome.index] = record
            tables.finished()
            report(record)
    except KeyboardInterrupt:
        if isinstance(inputs, Sequence):
            raise
    finally:
        outcomes.close()  # workers first: what they have half written must not be listed
        tables.end()
        write()
    # Of a movie that was replaced while it was watched, the last.
    by_name = {finished[index].name: finished[index] for index in sorted(finished)}
    return Summary(list(by_name.values()), records.unlisted)


def _refuse_wrong_references(
    inputs: Iterable[InputMovie | None], references: CheckedReferences
) -> None:
    """Refuse a run whose references are surely wrong for all inputs, before anything is written."""
    wrong = None
    for movie in inputs:
        if movie is None:
            continue
        found = _certain(references.doubts(movie))
        if found is None and references.are_tried(movie):
            return
        wrong = found or wrong
    if wrong is not None:
        raise BadInputError(wrong)


def _certain(doubts: list[Doubt]) -> str | None:
    return next((doubt.message for doubt in doubts if doubt.is_certain), None)


def _tasks(
    inputs: Iterable[InputMovie | None],
    records: Records,
    settings: RunSettings,
    overwrite: bool,
) -> Iterator[Task | None]:
    """Tasks as the inputs come."""
    is_enhanced = isinstance(settings.method, EnhancementSettings)
    on_record = {
        file: record
        for record in records.earlier.values()
        if record.results is not None
        for file in record.results.files.values()
    }
    taken: dict[str, Path] = {}
    for movie in inputs:
        if movie is None:
            yield None
            continue
        files = possible_files(movie.name, settings.products, is_enhanced=is_enhanced)
        task = _task(movie, records, files, overwrite)
        if all(taken.get(file) == movie.path for file in files):
            # It changed after it had come: what is on record by now is of what it was.
            task = replace(task, before=None, overwrite=True, notes=(_REPLACED,))
        for file in files:
            if taken.get(file, movie.path) != movie.path:
                task = _refused(task, taken[file], "rename one of them, or give it another folder")
            # Enhanced halves of `a` are called as halves of `a_enhanced`.
            elif file in on_record and on_record[file].name != movie.name:
                task = _refused(task, on_record[file].movie, "give it another folder")
        if task.error is None:
            taken |= dict.fromkeys(files, movie.path)
        yield task


def _task(movie: InputMovie, records: Records, files: Iterable[str], overwrite: bool) -> Task:
    """What is to be done with a movie that makes these files, as far as the records say."""
    name = movie.name
    before = records.earlier.get(name)
    known = before.results.states() if before is not None and before.results is not None else {}
    task = Task(
        movie,
        name,
        records.folder,
        records.run,
        before=None,
        overwrite=overwrite,
        replaces_others=overwrite,
        known=known,
        left=records.left(files),
    )
    if before is None or before.source is None:
        return task
    version = file_version(movie.path)
    if not before.is_of(movie.path, version):
        if overwrite:
            return task
        advice = "pass --overwrite to replace them, or choose another folder"
        return _refused(task, before.movie, advice)
    if version is None or before.source.is_of_version(version):
        return replace(task, before=before)
    note = _REPLACED
    if before.source.size_bytes is None:
        note = "made again: it is not on record of which file the results were"
    return replace(task, overwrite=True, notes=(note,))


def _refused(task: Task, other: Path, advice: str) -> Task:
    """A movie whose results have the name of another's; these stay on record under it."""
    path = task.movie.path
    error = f"{path}: files of its results would have the names of those of {other}; {advice}"
    own_name = f"{task.movie.name} ({os.path.abspath(path)})"
    return replace(task, name=own_name, before=None, error=error)


def _judged(task: Task, refused: Mapping[str, str], doubts: list[Doubt]) -> Task:
    """A task with what speaks against its motion, by name, and its references."""
    error = task.error or refused.get(task.movie.name)
    wrong = _certain(doubts)
    if error is None and wrong is not None:
        error = f"{task.movie.path}: {wrong}"
    return replace(task, error=error, notes=(*task.notes, *(doubt.message for doubt in doubts)))


def _record(outcome: Outcome[Task, Record]) -> Record:
    if not isinstance(outcome, WorkerCrash):
        return outcome.value
    task = outcome.task
    return task.failed(
        f"{task.movie.path}: its worker ended {outcome.tries} times ({outcome.why}); pass fewer"
        " --workers or a smaller --tile"
    )
