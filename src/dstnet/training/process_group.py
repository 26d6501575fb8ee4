"""One training process among several, started by torchrun on one machine or many; one process alone
is the plain case of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from dstnet.core.devices import resolve_device

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
        """Whether this is the one that writes."""
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
        number = float("nan") if value is None else value
        shared = torch.tensor(number, dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return None if shared.isnan() else float(shared)


@contextmanager
def process_group(device: str | None = None) -> Iterator[Process]:
    """This process, joined to the others that torchrun started, if it did.

    Parameters
    ----------
    device
        "cpu", "cuda", "cuda:1", ...; without one, cuda where there is one. Of several processes on
        a machine with "cuda", each takes the GPU of its local number.

    Raises
    ------
    SettingsError
        If the device cannot be used.
    """
    number = int(os.environ.get("RANK", "0"))
    count = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = resolve_device(device)
    if chosen == torch.device("cuda") and count > 1:
        chosen = resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    if count == 1:
        yield Process(device=chosen)
        return
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Process(number, count, chosen)
    finally:
        distributed.destroy_process_group()
