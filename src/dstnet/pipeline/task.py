"""What is to be done with one input of a run, and whether it is done already."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dstnet.errors import BadInputError, printable
from dstnet.pipeline.file_state import FileState, file_version, is_in_state
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.ledger import is_broken_off, read_claims
from dstnet.pipeline.products import MOTION, MOTION_ENDING, Product, product_path
from dstnet.pipeline.record import Record, Results, Source
from dstnet.pipeline.records import now


@dataclass(frozen=True)
class Task:
    """One input of a run.

    Attributes
    ----------
    movie
        The input.
    name
        What its record is kept by.
    folder
        The run's folder.
    before
        What is on record of results of this name.
    overwrite
        Make again what is complete.
    replaces_others
        Also where files of another origin lie.
    known
        Files on record under this name, by path from the run's folder, as they were when they were
        written (None: that is not on record).
    begun
        Files that were written without a record of it, with the attempts that did not end: they are
        ours as they are.
    error
        Why it cannot be done at all; None where it can.
    notes
        What the user should know of it beforehand.
    """

    movie: InputMovie
    name: str
    folder: Path
    before: Record | None
    overwrite: bool
    replaces_others: bool = False
    known: Mapping[str, FileState | None] = field(default_factory=dict)
    begun: Mapping[str, Iterable[str]] = field(default_factory=dict)
    error: str | None = None
    notes: tuple[str, ...] = ()

    def record(self, **fields: object) -> Record:
        """A record of this task. It keeps what is on record of the results that lie there: that
        guards them against other values the next time.
        """
        kept = {} if self.before is None else {p: getattr(self.before, p) for p in Record.PARTS}
        path = self.movie.path
        own = {"input": str(path), "name": self.name, "path": os.path.abspath(path), "time": now()}
        return Record.model_validate({**kept, **own, **fields})

    def failed(self, error: str) -> Record:
        """The record of a failure; one that lies before it is forgotten."""
        return self.record(status="failed", error=printable(error))


def result_paths(task: Task, products: list[Product]) -> dict[str, Path]:
    """The files of one input, by kind."""
    endings = {product.kind: product.ending for product in products}
    endings[MOTION] = MOTION_ENDING
    return {
        kind: product_path(task.folder, task.movie.name, ending) for kind, ending in endings.items()
    }


def complete_results(task: Task, source: Source, paths: dict[str, Path]) -> Results | None:
    """What is on record of the results, where all lie there already, made from the same; else None.

    Raises
    ------
    BadInputError
        If those of something else lie there.
    """
    refuse_others(task, source, paths.values())
    there = [path.is_file() for path in paths.values()]
    before = task.before
    if task.overwrite or not any(there) or before is None or before.source is None:
        return None
    results = before.results
    if results is not None and is_broken_off(task.folder, results, task.begun):
        return None
    different = source.differences(before.source)
    if different:
        raise BadInputError(
            f"{task.movie.path}: {product_path(task.folder, task.movie.name, '')}_* were made with"
            f" other {' and '.join(different)}; pass --overwrite, or choose another folder"
        )
    if results is None or not all(there):
        return None
    # The references too that RELION is to go on with.
    all_there = all((task.folder / file).is_file() for file in results.files.values())
    return _as_found(task.folder, results) if all_there else None


def refuse_others(task: Task, source: Source, paths: Iterable[Path]) -> None:
    """Refuse a task where files lie in the place of its results that are not ours.

    Raises
    ------
    BadInputError
        If one does, and it is not to be replaced.
    """
    if task.replaces_others:
        return
    for path in paths:
        if not os.path.lexists(path) or path.is_dir():  # into a folder nothing is written
            continue
        file = path.relative_to(task.folder).as_posix()
        if file in task.begun:
            continue
        if file in task.known:
            state = task.known[file]
            if state is None or is_in_state(path, state):
                continue
        # Another run, or a worker that ended, may have written it since this run began.
        if read_claims(task.folder).holds(task.folder, file, source.digest()):
            continue
        raise BadInputError(
            f"{task.movie.path}: {path} lies where its result belongs, and is not on record as"
            " written here of this movie; pass --overwrite to replace it, or choose another folder"
        )


def _as_found(folder: Path, results: Results) -> Results:
    """Results with the times of change of their files as they are now: of copies, other ones."""
    if results.written is None:
        return results
    written = {}
    for kind, (*_, digest) in results.written.items():
        version = file_version(folder / results.files[kind])
        if version is not None:
            written[kind] = (*version, digest)
    return results.model_copy(update={"written": written})
