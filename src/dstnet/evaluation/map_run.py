"""Maps of data sets, a structure each, by what every method gives."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from dstnet.errors import DstnetError
from dstnet.evaluation.base import Candidate, Subject
from dstnet.evaluation.erased_run import simulated_of
from dstnet.evaluation.map_curves import MapCurves, map_curves
from dstnet.evaluation.reconstruction import box_size, gather, one_structure, true_map
from dstnet.evaluation.records import Digested, read_record, write_record
from dstnet.evaluation.run import method_digest
from dstnet.evaluation.settings import EvaluationSettings


class DatasetMaps(Digested):
    """What is on record of a data set's maps.

    Attributes
    ----------
    digest
        Of its movies and of the methods.
    dataset
        Its name.
    curves
        Of each method's map.
    left_out
        A line on each method that failed on a movie.
    """

    dataset: str
    curves: tuple[MapCurves, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reconstructions:
    """Maps of all data sets, and a line on each thing that was left out."""

    datasets: tuple[DatasetMaps, ...]
    left_out: tuple[str, ...]


def reconstruct(
    subjects: Sequence[Subject],
    candidates: Sequence[Candidate],
    folder: Path,
    settings: EvaluationSettings,
    structures: Sequence[Path] = (),
    *,
    matched: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> Reconstructions:
    """Make a map of each data set by each method, at the true poses, into ``folder/maps``.

    The movies of a data set are worked on one after the other, in this process.

    Parameters
    ----------
    subjects, candidates
        Simulated movies, those of a data set of one structure, and the methods.
    folder
        Of the evaluation; a data set that is on record there with the same movies and methods is
        not worked on again.
    settings
        Of the evaluation.
    structures
        Folders of structure files.
    matched
        Whether maps are also made with what each method passes taken into account.
    report
        Gets a line as each data set is finished.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    done: list[DatasetMaps] = []
    left_out: list[str] = []
    digests = [method_digest(candidate, settings) for candidate in candidates]
    for dataset, of_dataset in groupby(subjects, lambda subject: subject.dataset):
        group = list(of_dataset)
        text = json.dumps([digests, [subject.digest for subject in group], matched])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        path = folder / "maps" / f"{dataset}.json"
        maps = read_record(path, DatasetMaps, digest)
        if maps is None:
            try:
                maps = _maps(group, candidates, settings, structures, matched, digest)
            except DstnetError as error:
                left_out.append(f"{dataset}: {error}")
                continue
            write_record(path, maps)
        report(f"{dataset}: maps of {len(maps.curves)} kinds of image")
        done.append(maps)
        left_out += maps.left_out
    return Reconstructions(tuple(done), tuple(left_out))


def _maps(
    group: Sequence[Subject],
    candidates: Sequence[Candidate],
    settings: EvaluationSettings,
    structures: Sequence[Path],
    matched: bool,
    digest: str,
) -> DatasetMaps:
    movies = [simulated_of(subject) for subject in group]
    potential = one_structure(movies, structures)
    radius, pixel = potential.radius_angstrom, potential.pixel_size_angstrom
    size = box_size(2 * radius, pixel)
    pairs = zip(movies, group, strict=True)
    gathered, left_out = gather(
        pairs, candidates, size, alignment=settings.alignment, matched=matched
    )
    truth = true_map(potential, size)
    curves = [
        map_curves(name, particles, truth, pixel, radius) for name, particles in gathered.items()
    ]
    return DatasetMaps(
        digest=digest,
        dataset=group[0].dataset,
        curves=tuple(curves),
        left_out=tuple(left_out),
    )
