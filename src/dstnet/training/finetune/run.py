"""A fine-tuning from what opens a user's movies."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from dstnet.core.devices import resolve_device
from dstnet.core.progress import working_on
from dstnet.core.regular_files import read_regular_text
from dstnet.errors import (
    BadInputError,
    DstnetError,
    OutputError,
    SettingsError,
    WeightsError,
)
from dstnet.io.atomic import atomic_path, ensure_writable_folder, flush_to_disk
from dstnet.io.leftovers import remove_leftovers
from dstnet.movie import Movie
from dstnet.network.blocks import MovieNetwork
from dstnet.network.weights import ModelCard, load_weights, read_card, save_weights
from dstnet.training.finetune.crops import MovieCrops, extract_crops, split_crops
from dstnet.training.finetune.finetuning import Finetuning
from dstnet.training.finetune.records import (
    GainRecord,
    OutcomeRecord,
    SplitRecord,
    StartRecord,
)
from dstnet.training.finetune.settings import FinetuneSettings
from dstnet.training.records import refuse_present

SETTINGS_NAME, LOG_NAME, OUTCOME_NAME = "settings.yaml", "log.jsonl", "outcome.json"
WEIGHTS_NAME = "weights.safetensors"
_FILES = (SETTINGS_NAME, LOG_NAME, OUTCOME_NAME, WEIGHTS_NAME)


def finetune_run(
    folder: Path,
    movies: Mapping[str, Callable[[], Movie]],
    settings: FinetuneSettings,
    *,
    device: str | None = "cpu",
    say: Callable[[str], None] = lambda line: None,
    report: Callable[[GainRecord], None] = lambda record: None,
) -> tuple[Path | None, tuple[str, ...]]:
    """Fine-tune on movies and write the weights with their card into `folder`, if they are better
    than those they started from.

    Parameters
    ----------
    folder
        Gets ``settings.yaml``, ``log.jsonl`` with every record, ``outcome.json``, and
        ``weights.safetensors`` with ``weights.json``.
    movies
        What opens each movie, by its name. One that cannot be used is said, and the others go on.
    settings
        Of the run.
    device
        Where the network runs; None: cuda where there is one.
    say, report
        Get remarks, and each record.

    Returns
    -------
    path, failures
        ``folder/weights.safetensors``, None where nothing was gained and so nothing written; and
        what was wrong with each movie left out.

    Raises
    ------
    BadInputError
        If no movie can be used, or too little to judge by would be left.
    OutputError
        If the folder cannot be written, or holds fine-tuned weights already.
    SettingsError, WeightsError
        If the weights or the device cannot be used, or the network has no layer that `frozen`
        names.
    """
    ensure_writable_folder(folder)
    path = folder / WEIGHTS_NAME
    outcome_path = folder / OUTCOME_NAME
    if path.exists() and (outcome_path.exists() or not _is_adapted(path)):
        raise OutputError(f"{folder} already holds weights; choose another folder")
    _refuse_foreign(folder)
    for name in _FILES:
        remove_leftovers(folder, stem=Path(name).stem, older_than_seconds=0.0, below=False)
    outcome_path.unlink(missing_ok=True)  # of an earlier run
    network, card = load_weights(settings.model)
    chosen = resolve_device(device)
    network = network.to(chosen)
    # As the network's own where none are given, so that the run's records name them.
    settings = settings.model_copy(update={"frozen": settings.frozen_of(network)})
    _check_frozen(network, card, settings)
    crops, failures = _extract_all(movies, network, card, settings, chosen, say)
    learn, judge = split_crops(crops, settings)
    _write(folder / LOG_NAME, "")  # first: it tells that the others are ours
    _write(folder / SETTINGS_NAME, settings.to_yaml())
    lines: list[str] = []

    def log(record: GainRecord) -> None:
        lines.append(json.dumps(record.model_dump(mode="json")) + "\n")
        _write(folder / LOG_NAME, "".join(lines))
        report(record)

    outcome = Finetuning(learn, judge, network, card, settings, chosen).train(log)
    say(f"ended: {outcome.why}")
    record = OutcomeRecord(
        adapted_from=StartRecord(name=card.name, sha256=card.sha256),
        movies=SplitRecord(
            learnt_from=tuple(movie.name for movie in learn),
            judged_by=tuple(movie.name for movie in judge),
        ),
        ended=outcome.why,
        released=outcome.record,
        failures=failures,
    )
    # On the disk before the weights are there, but under its name only once they are.
    with atomic_path(outcome_path) as temporary:
        temporary.write_text(json.dumps(record.model_dump(mode="json"), indent=2) + "\n")
        flush_to_disk(temporary)
        if outcome.network is not None and outcome.record is not None:
            name = f"{card.name}-{folder.resolve().name}"
            made = _card(card, name, settings, record, outcome.records[0], outcome.record)
            save_weights(outcome.network, made, path)
    return (None if outcome.network is None else path), failures


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder with files under the names of ours that no fine-tuning wrote."""
    try:
        first, _, _ = read_regular_text(folder / LOG_NAME).partition("\n")
        if not first or GainRecord.model_validate_json(first):
            return
    except (OSError, ValueError):
        pass
    refuse_present(folder, (LOG_NAME, SETTINGS_NAME, OUTCOME_NAME), "adaptation")


def _is_adapted(path: Path) -> bool:
    """Whether weights are a fine-tuning's."""
    try:
        return "adapted_from" in read_card(path).training
    except WeightsError:
        return False


def _check_frozen(network: MovieNetwork, card: ModelCard, settings: FinetuneSettings) -> None:
    layers = [name for name, _ in network.named_parameters()]
    frozen = settings.frozen_of(network)
    for name in frozen:
        if not any(layer.startswith(name) for layer in layers):
            raise SettingsError(
                f"frozen: {card.name} has no layer {name!r}; its parameters are called {layers[0]}"
                f" to {layers[-1]}"
            )
    if all(layer.startswith(frozen) for layer in layers):
        raise SettingsError(
            f"frozen: {', '.join(frozen)} is all of {card.name}; leave something to learn"
        )


def _extract_all(
    movies: Mapping[str, Callable[[], Movie]],
    network: MovieNetwork,
    card: ModelCard,
    settings: FinetuneSettings,
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[list[MovieCrops], tuple[str, ...]]:
    """Crops of the movies that can be used, and what is wrong with the others."""
    crops = []
    failures = []
    for name, open_it in movies.items():
        try:
            with working_on(name):
                found = extract_crops(open_it(), card, network.stride, settings, device)
        except DstnetError as error:
            failures.append(str(error))
            say(f"failed: {error}")
            continue
        crops.append(found)
        side = found.images.shape[-1]
        say(f"{name}: {len(found)} crops of {side} pixels, {found.groups} groups of frames")
    if not crops:
        raise BadInputError("no movie is left to learn from; each was named above with its reason")
    return crops, tuple(failures)


def _card(
    start: ModelCard,
    name: str,
    settings: FinetuneSettings,
    outcome: OutcomeRecord,
    before: GainRecord,
    after: GainRecord,
) -> ModelCard:
    """Of fine-tuned weights: that which they started from, but for name, training and scores."""
    training = outcome.model_dump(mode="json", exclude={"released", "failures"})
    training["settings"] = settings.model_dump(mode="json")
    training["steps"] = after.step
    training["before"] = start.training
    scores = {
        "held-out halves, before": before.model_dump(mode="json"),
        "held-out halves, adapted": after.model_dump(mode="json"),
    }
    return start.model_copy(update={"name": name, "training": training, "scores": scores})


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)
