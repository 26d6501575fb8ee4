"""Weights adapted without truth on the very movies that are evaluated, as `dstnet adapt` does for a
user's own.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from dstnet.alignment import Grouping
from dstnet.core.regular_files import file_sha256, read_regular_text
from dstnet.errors import BadInputError, DstnetError
from dstnet.evaluation.base import DoesNotFitError, Made, Scene, Subject
from dstnet.evaluation.plain_methods import RegistryCandidate
from dstnet.io import atomic_path
from dstnet.movie import Movie
from dstnet.network.weights import load_weights
from dstnet.training.finetune import FinetuneSettings, finetune_run

ENDING = "+adapt"
_RECORD = "adapted.json"


@dataclass(frozen=True)
class Adapted:
    """What came of adapting to a data set.

    Attributes
    ----------
    weights
        File of adapted weights; None: nothing was gained, or the data set has no movies to adapt
        to.
    note
        What a table's reader should know; the reason where `refused`.
    refused
        Whether there is nothing to evaluate.
    """

    weights: Path | None
    note: str
    refused: bool = False


@dataclass(frozen=True)
class AdaptedCandidate:
    """Weights adapted to each data set of the run.

    Attributes
    ----------
    name
        As in tables.
    model
        That the adapting started from.
    by_dataset
        What came of it, by the data set's name.
    """

    name: str
    model: str
    by_dataset: Mapping[str, Adapted]
    needs_truth: bool = False

    def groupings(self, movie: Movie) -> tuple[Grouping, ...]:
        """As of the weights that the adapting started from."""
        return self._start.groupings(movie)

    def describe(self) -> dict[str, Any]:
        """See `Candidate`."""
        adapted = {
            dataset: None if made.weights is None else file_sha256(made.weights)
            for dataset, made in self.by_dataset.items()
        }
        return {"adapted_from": self._start.describe(), "weights_sha256": adapted}

    def __call__(self, scene: Scene) -> Made:
        """See `Candidate`.

        Raises
        ------
        DoesNotFitError
            If the data set has nothing to adapt to. Other errors are those of `Restorer`.
        """
        adapted = self.by_dataset[scene.subject.dataset]
        if adapted.refused:
            raise DoesNotFitError(f"{scene.aligned.movie.name}: {adapted.note}")
        model = self.model if adapted.weights is None else str(adapted.weights)
        made = RegistryCandidate(self.name, model)(scene)
        return Made(made.images, (*made.notes, adapted.note))

    @property
    def _start(self) -> RegistryCandidate:
        return RegistryCandidate(self.name, self.model)


def adapted_candidate(
    name: str,
    subjects: Sequence[Subject],
    folder: Path,
    settings: FinetuneSettings,
    *,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> AdaptedCandidate:
    """Adapt weights to each data set, or find them adapted by an earlier run.

    Parameters
    ----------
    name
        Of the method: that of the weights, and `ENDING`.
    subjects
        All that is evaluated.
    folder
        Gets a folder for each data set, as `dstnet adapt` fills it.
    settings
        Of the adapting; their `model` is taken from the name.
    device
        Where the network is trained.
    say
        Gets remarks.

    Raises
    ------
    SettingsError, WeightsError
        If there are no such weights, or they cannot be adapted.
    OutputError
        If the folder cannot be written.
    """
    model = name.removesuffix(ENDING)
    settings = settings.model_copy(update={"model": model})
    _, card = load_weights(model)
    datasets: dict[str, list[Subject]] = {}
    for subject in subjects:
        datasets.setdefault(subject.dataset, []).append(subject)
    made = {}
    for dataset, members in datasets.items():
        key = {
            "weights": card.sha256,
            "settings": settings.model_dump(mode="json"),
            "movies": sorted(member.digest for member in members),
        }
        digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        place = folder / f"{dataset}-{digest}"
        made[dataset] = _read(place) or _adapt(place, name, members, settings, device, say)
    return AdaptedCandidate(name, model, made)


def _adapt(
    folder: Path,
    name: str,
    members: Sequence[Subject],
    settings: FinetuneSettings,
    device: str,
    say: Callable[[str], None],
) -> Adapted:
    movies = {}
    for member in members:
        try:
            if len(member.open()) > 1:
                movies[member.name] = member.open
        except DstnetError as error:
            say(f"{name}: {error}")
    if not movies:
        return Adapted(
            None, f"{name} compares frames with frames, and this is a single image", True
        )
    shutil.rmtree(folder, ignore_errors=True)  # what a run that was stopped left
    start = time.process_time()
    try:
        path, _ = finetune_run(
            folder, movies, settings, device=device, say=lambda line: say(f"{name}: {line}")
        )
    except BadInputError as error:
        return Adapted(None, f"{name}: {error}", True)
    cost = f"{time.process_time() - start:.0f} s of CPU for {len(movies)} movies"
    note = f"adapted on these movies without truth, {cost}"
    if path is None:
        note = f"nothing was gained by adapting ({cost}): the weights are those of {settings.model}"
    values = {"weights": None if path is None else path.name, "note": note}
    with atomic_path(folder / _RECORD) as temporary:
        temporary.write_text(json.dumps(values) + "\n")
    return Adapted(path, note)


def _read(folder: Path) -> Adapted | None:
    """What an earlier run left; None where it is not complete."""
    try:
        values = json.loads(read_regular_text(folder / _RECORD))
        weights = values["weights"]
        adapted = Adapted(None if weights is None else folder / weights, str(values["note"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return adapted if adapted.weights is None or adapted.weights.is_file() else None
