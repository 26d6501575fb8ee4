"""What is to be done with one input of a run, and whether it is done already."""

import os
from dataclasses import dataclass
from pathlib import Path

from dstnet.errors import BadInputError, printable
from dstnet.pipeline.inputs import InputMovie
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
    recorded
        Whether the folder had a record at all: files without one are not ours.
    overwrite
        Make again what is complete.
    error
        Why it cannot be done at all; None where it can.
    notes
        What the user should know of it beforehand.
    """

    movie: InputMovie
    name: str
    folder: Path
    before: Record | None
    recorded: bool
    overwrite: bool
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
    there = [path.is_file() for path in paths.values()]
    if task.overwrite or not any(there):
        return None
    before = task.before
    different = []
    if before is not None and before.source is not None:
        different = source.differences(before.source)
    if different or not task.recorded:
        other = f"other {' and '.join(different)}" if different else "something else"
        raise BadInputError(
            f"{task.movie.path}: {product_path(task.folder, task.movie.name, '')}_* were made with"
            f" {other}; pass --overwrite, or choose another folder"
        )
    if not all(there) or before is None or before.results is None:
        return None
    # The references too that RELION is to go on with.
    files = before.results.files.values()
    return before.results if all((task.folder / name).is_file() for name in files) else None
