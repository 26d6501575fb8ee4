"""What is to be done with one input of a run, and whether it is done already."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dstnet.errors import BadInputError, printable
from dstnet.pipeline.file_state import FileState, file_version, is_in_state
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.ledger import Ledger
from dstnet.pipeline.products import MOTION, MOTION_ENDING, Product, product_path
from dstnet.pipeline.record import Record, Results, Source
from dstnet.pipeline.records import now

_ADVICE = "pass --overwrite to replace it, or choose another folder"


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
    run
        The run's name.
    before
        What is on record of results of this name.
    overwrite
        Make again what is complete.
    replaces_others
        Also where files of another origin lie.
    known
        Files on record under this name, by path from the run's folder, as they were when they were
        written (None: that is not on record).
    left
        Other states in which earlier runs left files of these names.
    error
        Why it cannot be done at all; None where it can.
    notes
        What the user should know of it beforehand.
    """

    movie: InputMovie
    name: str
    folder: Path
    run: str
    before: Record | None
    overwrite: bool
    replaces_others: bool = False
    known: Mapping[str, FileState | None] = field(default_factory=dict)
    left: Mapping[str, Sequence[FileState]] = field(default_factory=dict)
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

    def file(self, path: Path) -> str:
        """A path as records have it."""
        return path.relative_to(self.folder).as_posix()

    def earlier_states(self, file: str) -> list[FileState]:
        """All states in which runs before this one left a file."""
        known = self.known.get(file)
        return [*self.left.get(file, ()), *([] if known is None else [known])]


@dataclass(frozen=True)
class Place:
    """Where the results of one input belong, and who has written there.

    Attributes
    ----------
    task
        The input.
    made_from
        Equal for results that are made from the same in the same way.
    paths
        The files, by kind.
    ledger
        Says what was written.
    """

    task: Task
    made_from: str
    paths: Mapping[str, Path]
    ledger: Ledger

    def refuse_others(self) -> None:
        """Refuse what would replace files that are not ours, or another run's of other make.

        Raises
        ------
        BadInputError
            If there is one, and it is not to be replaced; if one is a folder.
        """
        task = self.task
        for path in self.paths.values():
            if path.is_dir():
                raise BadInputError(
                    f"{task.movie.path}: {path}, where its result belongs, is a folder; move it"
                    " away, or choose another folder"
                )
            if task.replaces_others or not os.path.lexists(path) or self._is_ours(path):
                continue
            said = "lies where its result belongs, and is not as it was written here of this movie"
            if any(is_in_state(path, claim.state) for claim in self.ledger.claims(task.file(path))):
                said = "was made by another run meanwhile, of other values"
            raise BadInputError(f"{task.movie.path}: {path} {said}; {_ADVICE}")

    def claim(self, states: Mapping[str, FileState]) -> None:
        """Put on record in which states the files, by kind, are about to appear.

        Raises
        ------
        BadInputError
            If another run has put on record, since this one began, that it puts results of other
            make there: of two, the later sees the earlier, or both see each other.
        OutputError
            If it cannot be put on record.
        """
        task = self.task
        of_file = {task.file(self.paths[kind]): state for kind, state in states.items()}
        self.ledger.add(self.made_from, of_file)
        if task.replaces_others:
            return
        for file in of_file:
            earlier = task.earlier_states(file)
            for claim in self.ledger.claims(file):
                is_same = claim.run == task.run or claim.made_from == self.made_from
                if not is_same and claim.state not in earlier:
                    raise BadInputError(
                        f"{task.movie.path}: another run writes {task.folder / file} at this moment"
                        f", of other values; {_ADVICE}"
                    )

    def made_meanwhile(self) -> dict[str, FileState] | None:
        """The files' states, by kind, where all are there and made of the same, as by an equal run;
        else None.
        """
        if self.task.overwrite:
            return None
        found = {}
        for kind, path in self.paths.items():
            own = (
                claim.state
                for claim in self.ledger.claims(self.task.file(path))
                if claim.made_from == self.made_from
            )
            state = next((state for state in own if is_in_state(path, state)), None)
            if state is None:
                return None
            found[kind] = state
        return found

    def complete_results(self, source: Source) -> Results | None:
        """What is on record of the results, where all lie there as it says, made from the same;
        else None.

        Raises
        ------
        BadInputError
            If those of something else lie there.
        """
        task = self.task
        there = [path.is_file() for path in self.paths.values()]
        before = task.before
        if task.overwrite or not any(there) or before is None or before.source is None:
            return None
        results = before.results
        if results is not None and any(self._written_over(results)):
            return None
        different = source.differences(before.source)
        if different:
            raise BadInputError(
                f"{task.movie.path}: {product_path(task.folder, task.movie.name, '')}_* were made"
                f" with other {' and '.join(different)}; pass --overwrite, or choose another folder"
            )
        if results is None or not all(there):
            return None
        # The references too that RELION is to go on with.
        all_there = all((task.folder / file).is_file() for file in results.files.values())
        return _as_found(task.folder, results) if all_there else None

    def _is_ours(self, path: Path) -> bool:
        task = self.task
        file = task.file(path)
        if file in task.known and task.known[file] is None:  # of before 0.9
            return True
        if any(is_in_state(path, state) for state in task.earlier_states(file)):
            return True
        return any(
            is_in_state(path, claim.state)
            for claim in self.ledger.claims(file)
            if claim.run == task.run or claim.made_from == self.made_from
        )

    def _written_over(self, results: Results) -> Iterator[str]:
        """Files that are there, but not as they are on record: the record is void."""
        for file, state in results.states().items():
            path = self.task.folder / file
            if not path.is_file():
                continue
            if state is not None:
                is_void = not is_in_state(path, state)
            else:
                is_void = any(is_in_state(path, left) for left in self.task.left.get(file, ()))
            if is_void:
                yield file


def result_paths(task: Task, products: list[Product]) -> dict[str, Path]:
    """The files of one input, by kind."""
    endings = {product.kind: product.ending for product in products}
    endings[MOTION] = MOTION_ENDING
    return {
        kind: product_path(task.folder, task.movie.name, ending) for kind, ending in endings.items()
    }


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
