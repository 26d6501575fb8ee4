"""What is kept of an evaluation on disk, a file a movie: scores of each method, and crops to look
at.

::

    provenance.json              what all scores share; written first: the folder is then ours
    movies/DATASET/NAME.json     scores
    movies/DATASET/NAME.npz      crops by method, to look at
"""

import json
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from dstnet.core.regular_files import open_regular, read_regular_text
from dstnet.errors import OutputError, printable
from dstnet.evaluation.base import Curve, ScoredPicks, Subject
from dstnet.io import atomic_path, ensure_writable_folder
from dstnet.pipeline.ownership import PROVENANCE

# Crops beside the methods': the truth; the plain sum, also where that method is not asked for.
TRUTH = "truth"
PLAIN = "sum"
_MOST_BYTES = 100_000_000


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Digested(BaseModel):
    """A record with the digest of what it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str


R = TypeVar("R", bound=Digested)


class OutputScores(_Stored):
    """What measures say of one output; what is not known is left out.

    Attributes
    ----------
    values, curves, picks
        By the measure's name.
    """

    values: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    picks: dict[str, ScoredPicks] = {}


class MethodScores(_Stored):
    """What came of one method on one movie.

    Attributes
    ----------
    digest
        Of all that decides the scores besides the movie.
    told
        Whether the method was told the truth.
    measures
        That were asked for.
    outputs
        By name; none where the method failed, or does not fit the movie.
    notes, problems
        What the user should know, and what went wrong, a line each.
    cpu_seconds
        Of the method on the whole movie, with the processes that it started, without the alignment
        that all share.
    peak_bytes
        Of memory of processes that it started; None: none, or not known.
    """

    digest: str
    told: bool
    measures: tuple[str, ...]
    outputs: dict[str, OutputScores] = {}
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    cpu_seconds: float = 0.0
    peak_bytes: int | None = None


class MovieScores(Digested):
    """What is on record of one movie.

    Attributes
    ----------
    dataset, name, path, digest
        Of the subject.
    pixel_size_angstrom
        Of its sums; None: it could not be aligned.
    notes, problems
        Of the movie, its truth and its picks, as of a method.
    methods
        By name.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    dataset: str
    name: str
    path: str
    pixel_size_angstrom: float | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    methods: dict[str, MethodScores] = {}

    def failures(self, methods: Collection[str]) -> list[str]:
        """A line on each thing of the movie and of these methods that was left out."""
        lines = list(self.problems)
        for name, method in self.methods.items():
            if name in methods:
                lines += [f"{name}: {problem}" for problem in method.problems]
        return [line if self.path in line else f"{self.path}: {line}" for line in lines]


def claim_folder(folder: Path, shared: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Make the folder of an evaluation, or make sure that it is one.

    Parameters
    ----------
    folder
        Made if need be.
    shared
        What all scores in it share, as plain values.
    overwrite
        Whether scores made with something else may be replaced.

    Raises
    ------
    OutputError
        If it cannot be written, or holds something else, or scores made with something else that
        may not be replaced.
    """
    ensure_writable_folder(folder)
    known = _shared(folder / PROVENANCE)
    if known is None:
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if others:
            raise OutputError(
                f"{folder} holds something else than an evaluation ({others[0]}); choose another"
                " folder"
            )
    else:
        different = [name for name, value in shared.items() if known.get(name) != value]
        if different and not overwrite:
            raise OutputError(
                f"{folder} holds an evaluation with another {' and '.join(different)}; pass"
                " --overwrite, or choose another folder"
            )
    if known != shared:
        write_provenance(folder, shared, {})
    return folder


def write_provenance(folder: Path, shared: dict[str, Any], more: dict[str, Any]) -> None:
    """Put on record what all scores share, and more.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    text = json.dumps({"evaluation": shared, **more}, indent=1, default=str) + "\n"
    with atomic_path(folder / PROVENANCE) as path:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _shared(path: Path) -> dict[str, Any] | None:
    try:
        shared = json.loads(read_regular_text(path, _MOST_BYTES))["evaluation"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return shared if isinstance(shared, dict) else None


def scores_path(folder: Path, subject: Subject) -> Path:
    """Where the scores of a movie are."""
    return folder / "movies" / subject.dataset / f"{subject.name}.json"


def read_scores(folder: Path, subject: Subject) -> MovieScores:
    """What is on record of a movie as it is now; nothing where there is none, or it was another."""
    fresh = MovieScores(
        dataset=subject.dataset,
        name=subject.name,
        path=printable(str(subject.path)),
        digest=subject.digest,
    )
    return read_record(scores_path(folder, subject), MovieScores, subject.digest) or fresh


def write_scores(folder: Path, subject: Subject, scores: MovieScores) -> None:
    """Put the scores of a movie on record.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    write_record(scores_path(folder, subject), scores)


def read_record(path: Path, kind: type[R], digest: str) -> R | None:
    """A record of some kind; None where there is none, or it is of another digest."""
    try:
        found = kind.model_validate_json(read_regular_text(path, _MOST_BYTES))
    except (OSError, ValueError):
        return None
    return found if found.digest == digest else None


def write_record(path: Path, record: Digested) -> None:
    """Put a record in its place, its folder made where it is missing.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    ensure_writable_folder(path.parent)
    with atomic_path(path) as temporary:
        temporary.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_crops(folder: Path, subject: Subject) -> dict[str, np.ndarray]:
    """Crops of a movie, [y, x] float16, by method; none where they cannot be read."""
    path = scores_path(folder, subject).with_suffix(".npz")
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def write_crops(folder: Path, subject: Subject, crops: dict[str, np.ndarray]) -> None:
    """Keep the crops of a movie.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    target = scores_path(folder, subject).with_suffix(".npz")
    ensure_writable_folder(target.parent)
    with atomic_path(target) as path, open(path, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **crops)  # pyright: ignore[reportArgumentType]
