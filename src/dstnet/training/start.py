"""A training run from what a user names: structures, data sets on disk, or neither."""

from collections.abc import Callable, Sequence
from pathlib import Path

from dstnet.errors import OutputError, SettingsError
from dstnet.io import ensure_writable_folder
from dstnet.training.loop import Run
from dstnet.training.processes import joined
from dstnet.training.recorded import check_movies, read_folder, split_movies
from dstnet.training.settings import TrainingSettings
from dstnet.training.species import prepare, stem


def train_run(
    folder: Path,
    data: Sequence[Path],
    settings: TrainingSettings,
    *,
    resume: bool = False,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
    report: Callable[[dict], None] = lambda record: None,
) -> Path:
    """Train in `folder` and write the weights with their card there. In each process that torchrun started, the same call.

    Parameters
    ----------
    data
        PDB or mmCIF files, simulated from as crops are needed, and folders of movies that `dstnet simulate` wrote. With folders alone
        nothing is simulated; with nothing at all, phantoms are.
    settings
        Of the run.
    resume
        Go on from the folder's checkpoint, if there is one.
    device
        See `dstnet.training.processes.joined`.
    say, report
        Get remarks, and each logged record; in the first process only.

    Returns
    -------
    Path
        ``folder/weights.safetensors``.

    Raises
    ------
    SettingsError, BadInputError, OutputError, WeightsError
        As `Run`, `prepare` and `read_folder`.
    DstnetError
        As `Run.train`.
    """
    with joined(device) as process:
        if not process.first:
            say, report = (lambda line: None), (lambda record: None)
        # The run's own folder is judged before the minutes that banks take.
        ensure_writable_folder(folder)
        if not resume and (folder / "checkpoint.safetensors").exists():
            raise OutputError(f"{folder} already holds a training run; add --resume to go on with it, or choose another folder")
        folders = [path for path in data if path.is_dir()]
        structures = [path for path in data if not path.is_dir()]
        movies = [movie for path in folders for movie in read_folder(path)]
        check_movies(movies, settings.stream)
        here = {stem(path) for path in structures}
        names = here.union(*(movie.structures for movie in movies))
        if movies and (missing := {h.lower() for h in settings.held_out} - names):
            raise SettingsError(f"cannot hold out {', '.join(sorted(missing))}: no such structure among {', '.join(sorted(names))}")
        trained, held = split_movies(movies, settings.held_out)
        species, held_species, digests = [], [], {}
        if structures or not movies:
            species, held_species, digests = prepare(
                structures,
                [h for h in settings.held_out if h.lower() in here] if movies else settings.held_out,
                phantoms=settings.phantoms,
                poses=settings.poses,
                pixel_size_angstrom=settings.stream.working_pixel_angstrom,
                seed=settings.seed,
                widest_angstrom=settings.stream.crop * settings.stream.working_pixel_angstrom,
                report=say,
                variants=settings.variants,
            )
        if not species and not trained:
            raise SettingsError("nothing to train on: every movie holds a held-out structure; hold out fewer, or give other data")
        for path in folders:
            own = [m in trained for m in movies if m.folder == path]
            say(f"{path}: {sum(own)} movies to train on, {len(own) - sum(own)} held out")
        learnt, kept = (
            {one.name: digests[one.name] for one in banked} | {f"{m.folder.name}/{m.record.name}": m.digest for m in from_disk}
            for banked, from_disk in ((species, trained), (held_species, held))
        )
        run = Run(folder, settings, (species, trained), (held_species, held), resume, process, {"trained_on": learnt, "held_out": kept})
        run.train(report)
        return run.release()
