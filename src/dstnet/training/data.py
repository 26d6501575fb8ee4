"""Training batches by number, from the simulator, from movies on disk, or from both."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from dstnet.core.randomness import stream
from dstnet.errors import DstnetError, SettingsError
from dstnet.specimen.species import Species
from dstnet.training.simulated_crops import CropStream, StreamSettings
from dstnet.training.stored_crops import RecordedMovie, recorded_batch

Batch = tuple[Tensor, ...]


class Batches(Dataset):
    """Batch number i of a seed, the same in every process and on every later day: frames, total,
    exposure, target, contrast, particles, frame target, which; see
    `dstnet.training.simulated_crops.Crop`.

    Parameters
    ----------
    ranges
        Of the crops.
    species, movies
        What they are made of; one of the two may be empty.
    batch, seed
        Crops of a batch; where randomness starts.
    recorded
        Part of the batches that come from the movies, where there are both.
    device
        Where crops are simulated; those of movies come on the CPU.
    """

    def __init__(
        self,
        ranges: StreamSettings,
        species: Sequence[Species],
        movies: Sequence[RecordedMovie],
        *,
        batch: int,
        seed: int,
        recorded: float = 0.5,
        device: torch.device | str = "cpu",
    ):
        if movies and (ranges.window is not None or not ranges.aligned):
            raise SettingsError(
                "movies on disk are learnt from as aligned whole movies; leave stream.window and"
                " stream.aligned as they are"
            )
        self.ranges, self.species, self.movies, self.batch, self.seed = (
            ranges,
            species,
            movies,
            batch,
            seed,
        )
        self.recorded = recorded if species and movies else float(bool(movies))
        self.device = device

    def __getitem__(self, index: int) -> Batch:
        if float(torch.rand(1, generator=stream(self.seed, "source", index))) < self.recorded:
            return recorded_batch(self.ranges, self.movies, self.batch, self.seed, index)
        worker = get_worker_info()
        first = index - (
            worker.id if worker else 0
        )  # a stream in a worker process begins that much later
        return next(
            iter(
                CropStream(
                    self.ranges, self.species, self.batch, self.seed, first, index + 1, self.device
                )
            )
        )


class _Safe(Dataset):
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


def loaded(batches: Batches, indices: Sequence[int], workers: int) -> Iterator[Batch]:
    """Batches of these numbers in their order, made by `workers` processes ahead of time, or
    between steps by none.

    Raises
    ------
    DstnetError
        What making a batch raised; or if a worker process died.
    """
    loader = DataLoader(
        _Safe(batches),
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
            raise DstnetError(
                f"a process that makes crops died ({' '.join(str(error).split())[:120]}); the last"
                " checkpoint stays"
            ) from None
        if isinstance(batch, DstnetError):
            raise batch
        yield batch
