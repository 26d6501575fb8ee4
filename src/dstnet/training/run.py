"""A training run from what a user names: structures, data sets on disk, or neither."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from dstnet.dataset import SimulatedMovie, read_dataset, split_movies
from dstnet.dataset.splits import check_held_out, structure_name
from dstnet.errors import OutputError, SettingsError
from dstnet.io import ensure_writable_folder
from dstnet.network.architectures import build
from dstnet.network.weights import load_matching_weights
from dstnet.runs import processors
from dstnet.specimen.species import ProjectionBank
from dstnet.training.data import Sources
from dstnet.training.process_group import Process, process_group
from dstnet.training.records import LogRecord, refuse_foreign_records
from dstnet.training.settings import TrainingSettings
from dstnet.training.species import PreparedSpecies, prepare
from dstnet.training.stored_crops import check_movies
from dstnet.training.trainer import CHECKPOINT_NAME, WEIGHTS_NAME, Trainer


def _silent(_: object) -> None:
    """What the processes beside the first say."""


def train_run(
    folder: Path,
    data: Sequence[Path],
    settings: TrainingSettings,
    *,
    resume: bool = False,
    device: str | None = "cpu",
    say: Callable[[str], None] = lambda line: None,
    report: Callable[[LogRecord], None] = lambda record: None,
) -> Path:
    """Train in `folder` and write the weights with their card there. In each process that torchrun
    started, the same call.

    Parameters
    ----------
    folder
        Of the run; made if need be.
    data
        PDB or mmCIF files, simulated from as crops are needed, and folders of movies that `dstnet
        simulate` wrote. With folders alone nothing is simulated; with nothing at all, phantoms are.
    settings
        Of the run.
    resume
        Go on from the folder's checkpoint, if there is one.
    device
        See `dstnet.training.process_group.process_group`.
    say, report
        Get remarks, and each record of the log; in the first process only.

    Returns
    -------
    Path
        ``folder/weights.safetensors``.

    Raises
    ------
    SettingsError, BadInputError, OutputError, WeightsError
        As `Trainer`, `prepare` and `dstnet.dataset.read_dataset`.
    DstnetError
        As `Trainer.train`.
    """
    with process_group(device) as process:
        if not process.first:
            say = report = _silent
        # The run's folder and network are judged before the minutes that projections take.
        ensure_writable_folder(folder)
        _refuse_what_is_there(folder, resume)
        _check_network(settings)
        trainer = _trainer(folder, data, settings, resume, process, say)
        found = processors()
        say(
            f"threads: {torch.get_num_threads()}, and {trainer.workers} processes that make crops"
            f" (processors to be used: {found.count}, {found.why})"
        )
        trainer.train(report)
        return trainer.release()


def _refuse_what_is_there(folder: Path, resume: bool) -> None:
    """Refuse a folder with a run that is not to be gone on with, or a user's own files under the
    names of a run's.
    """
    has_checkpoint = (folder / CHECKPOINT_NAME).exists()
    if has_checkpoint and not resume:
        raise OutputError(
            f"{folder} already holds a training run; add --resume to go on with it, or choose"
            " another folder"
        )
    if not has_checkpoint and (folder / WEIGHTS_NAME).exists():
        raise OutputError(f"{folder} already holds weights; choose another folder")
    if not resume:
        refuse_foreign_records(folder)


def _check_network(settings: TrainingSettings) -> None:
    """Make sure that the network can be built and start from the weights that the settings name."""
    network = build(settings.architecture, settings.network)
    if settings.start_from:
        load_matching_weights(network, settings.start_from)


def _trainer(
    folder: Path,
    data: Sequence[Path],
    settings: TrainingSettings,
    resume: bool,
    process: Process,
    say: Callable[[str], None],
) -> Trainer:
    folders = [path for path in data if path.is_dir()]
    structures = [path for path in data if not path.is_dir()]
    movies = [movie for path in folders for movie in read_dataset(path)]
    check_movies(movies, settings.stream)
    held_structures = _held_out_structures(structures, movies, settings.held_out)
    trained, held = split_movies(movies, settings.held_out)
    prepared = PreparedSpecies()
    if structures or not movies:
        prepared = prepare(
            structures,
            held_structures,
            phantoms=settings.phantoms,
            poses=settings.poses,
            pixel_size_angstrom=settings.stream.working_pixel_angstrom,
            seed=settings.seed,
            widest_angstrom=settings.stream.crop * settings.stream.working_pixel_angstrom,
            report=say,
            with_variants=settings.variants,
        )
    if not prepared.train and not trained:
        raise SettingsError(
            "nothing to train on: every movie holds a held-out structure; hold out fewer, or give"
            " other data"
        )
    for path in folders:
        learnt = sum(movie.folder == path for movie in trained)
        kept = sum(movie.folder == path for movie in held)
        say(f"{path}: {learnt} movies to train on, {kept} held out")
    return Trainer(
        folder,
        settings,
        Sources(prepared.train, trained),
        Sources(prepared.held_out, held),
        resume=resume,
        process=process,
        trained_names=_digests(prepared.train, trained, prepared),
        held_out_names=_digests(prepared.held_out, held, prepared),
    )


def _held_out_structures(
    structures: Sequence[Path], movies: Sequence[SimulatedMovie], held_out: Sequence[str]
) -> Sequence[str]:
    """Of the names to hold out, those of structure files; beside movies, names of what is only in
    these are taken too.
    """
    if not movies:
        return held_out
    in_files = {structure_name(path) for path in structures}
    check_held_out(held_out, in_files.union(*(movie.structures for movie in movies)))
    return [name for name in held_out if name.lower() in in_files]


def _digests(
    species: Sequence[ProjectionBank],
    movies: Sequence[SimulatedMovie],
    prepared: PreparedSpecies,
) -> dict[str, str]:
    """For the records, by name."""
    found = {one.name: prepared.digests[one.name] for one in species}
    found |= {f"{movie.folder.name}/{movie.name}": movie.digest for movie in movies}
    return found
