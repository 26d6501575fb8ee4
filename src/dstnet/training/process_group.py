"""One training process among several, started by torchrun on one machine or many; one process alone
is the plain case of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from dstnet.errors import SettingsError

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Process:
    """Which of `count` processes this is, and the device it works on. The first, number 0, is the
    one that writes and speaks.
    """

    number: int = 0
    count: int = 1
    device: torch.device = _CPU

    @property
    def first(self) -> bool:
        return self.number == 0

    def mean(self, value: float) -> float:
        """The mean of a number over all processes."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return float(total) / self.count

    def of_first(self, value: float | None) -> float | None:
        """What the first process has, NaN aside."""
        if self.count == 1:
            return value
        shared = torch.tensor(
            float("nan") if value is None else value, dtype=torch.float64, device=self.device
        )
        distributed.broadcast(shared, 0)
        return None if shared.isnan() else float(shared)


@contextmanager
def joined(device: str) -> Iterator[Process]:
    """This process, joined to the others that torchrun started, if it did.

    Parameters
    ----------
    device
        "cpu", "cuda", "cuda:1", ...; of several processes on a machine with "cuda", each takes the
        GPU of its local number.

    Raises
    ------
    SettingsError
        If the device cannot be used.
    """
    number, count, local = (
        int(os.environ.get(n, d))
        for n, d in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    try:
        chosen = torch.device(f"cuda:{local}" if device == "cuda" and count > 1 else device)
        torch.empty(1, device=chosen)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}; use --device cpu"
        ) from None
    if count == 1:
        yield Process(device=chosen)
        return
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Process(number, count, chosen)
    finally:
        distributed.destroy_process_group()
