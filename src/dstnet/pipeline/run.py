"""Many inputs over many workers: each on its own, outputs complete or absent, one record of the
run.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dstnet.errors import SettingsError
from dstnet.io.leftovers import remove_leftovers
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.process import MovieJob, Task
from dstnet.pipeline.record import Record, Status
from dstnet.pipeline.records import Records
from dstnet.pipeline.refreshing import Refresher
from dstnet.pipeline.settings import RunSettings
from dstnet.runs import Outcome, WorkerCrash, Workplace, prepare


@dataclass
class Summary:
    """What came of a run: one record an input, in order."""

    records: list[Record] = field(default_factory=list)

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
    write_more: Callable[[], object] = lambda: None,
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
        Called after the tables were written, as the run goes (see `Refresher`) and at its end.

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
    outcomes_of = prepare(MovieJob(settings), workplace)
    records = Records(folder, settings.made_with(), overwrite)
    remove_leftovers(folder / "micrographs")

    def write() -> None:
        records.refresh()
        write_more()

    begin()
    tables = Refresher(write)
    outcomes = outcomes_of(_tasks(inputs, records, overwrite, tables.idle))
    finished: dict[int, Record] = {}
    try:
        for outcome in outcomes:
            record = _record(outcome)
            finished[outcome.index] = record
            records.add(record)
            tables.finished()
            report(record)
    except KeyboardInterrupt:
        if isinstance(inputs, Sequence):
            raise
    finally:
        outcomes.close()  # workers first: what they have half written must not be listed
        tables.end()
        write()
    return Summary([finished[index] for index in sorted(finished)])


def _tasks(
    inputs: Iterable[InputMovie | None],
    records: Records,
    overwrite: bool,
    idle: Callable[[], None],
) -> Iterator[Task | None]:
    """Tasks as the inputs come; `idle` is called while there are none."""
    taken: dict[str, Path] = {}
    for movie in inputs:
        if movie is None:
            idle()
            yield None
            continue
        name = movie.name
        error = None
        if name in taken:
            error = (
                f"{movie.path}: its results would have the name of those of {taken[name]};"
                " give them another folder"
            )
            # Records are kept by name; another input's must not be lost.
            name = f"{name}{movie.path.suffix}"
        taken.setdefault(movie.name, movie.path)
        before = records.earlier.get(name)
        yield Task(movie, name, records.folder, before, records.recorded, overwrite, error)


def _record(outcome: Outcome[Task, Record]) -> Record:
    if not isinstance(outcome, WorkerCrash):
        return outcome.value
    task = outcome.task
    return task.failed(
        f"{task.movie.path}: its worker ended {outcome.tries} times ({outcome.why}); pass fewer"
        " --workers or a smaller --tile"
    )
