"""Training batches by number, from the simulator, from movies on disk, or from both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from dstnet.core.devices import Device
from dstnet.core.randomness import stream
from dstnet.dataset import SimulatedMovie
from dstnet.errors import DstnetError, SettingsError
from dstnet.runs import processors
from dstnet.specimen.species import Species
from dstnet.training.batch import Batch
from dstnet.training.crop_conditions import StreamSettings
from dstnet.training.simulated_crops import simulated_batch
from dstnet.training.stored_crops import stored_batch


@dataclass(frozen=True)
class Sources:
    """What crops are made of: species to simulate, and movies on disk; either may be empty."""

    species: Sequence[Species] = ()
    movies: Sequence[SimulatedMovie] = ()

    def __bool__(self) -> bool:
        return bool(self.species or self.movies)


class Batches(Dataset):
    """Batch number i of a seed, the same in every process and on every later day.

    Parameters
    ----------
    ranges
        Of the crops.
    sources
        What they are made of.
    batch, seed
        Crops of a batch; where randomness starts.
    recorded
        Part of the batches that come from the movies, where there are both.
    device
        Where crops are simulated; those of movies come on the CPU.

    Raises
    ------
    SettingsError
        If the crops of movies cannot be what the ranges ask for.
    """

    def __init__(
        self,
        ranges: StreamSettings,
        sources: Sources,
        *,
        batch: int,
        seed: int,
        recorded: float = 0.5,
        device: Device = "cpu",
    ):
        if sources.movies and (ranges.window is not None or not ranges.aligned):
            raise SettingsError(
                "movies on disk are learnt from as aligned complete movies; leave stream.window and"
                " stream.aligned as they are"
            )
        self.ranges = ranges
        self.sources = sources
        self.batch = batch
        self.seed = seed
        self.recorded = recorded
        if not (sources.species and sources.movies):
            self.recorded = float(bool(sources.movies))
        self.device = device

    def __getitem__(self, index: int) -> Batch:
        """Batch number `index`.

        Raises
        ------
        BadInputError
            If a movie cannot be read.
        SettingsError
            If drawn conditions cannot be simulated.
        """
        u = float(torch.rand(1, generator=stream(self.seed, "source", index)))
        if u < self.recorded:
            return stored_batch(
                self.ranges, self.sources.movies, batch=self.batch, seed=self.seed, index=index
            )
        return simulated_batch(
            self.ranges,
            self.sources.species,
            batch=self.batch,
            seed=self.seed,
            index=index,
            device=self.device,
        )


class _WithErrors(Dataset):
    """Gives errors back instead of raising them: those that a loader's worker raises come with a
    traceback in their message.
    """

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, index: int) -> Batch | DstnetError:
        try:
            return self.batches[index]
        except DstnetError as error:
            return error


def loader_processes(asked_for: int | None, device: str) -> int:
    """Processes beside this one that make crops, where `asked_for` says none: 1, but 0 where a GPU
    makes them between steps, or there is no processor for another process.
    """
    if asked_for is not None:
        return asked_for
    return int(device.startswith("cpu") and processors().count > 1)


def load_batches(batches: Batches, indices: Sequence[int], workers: int) -> Iterator[Batch]:
    """Batches of these numbers in their order, made by `workers` processes ahead of time, or
    between steps by none.

    Raises
    ------
    DstnetError
        What making a batch raised; or if a worker process died.
    """
    loader = DataLoader(
        _WithErrors(batches),
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),
    )
    iterator = iter(loader)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = " ".join(str(error).split())[:120]
            raise DstnetError(
                f"a process that makes crops died ({reason}); the last checkpoint stays"
            ) from None
        if isinstance(batch, DstnetError):
            raise batch
        yield batch
