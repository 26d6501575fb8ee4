"""A run's state on disk, from which it goes on as if it had never stopped."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dstnet.core.settings import Settings
from dstnet.errors import OutputError, SettingsError, WeightsError
from dstnet.io import atomic_path
from dstnet.network.blocks import MovieNetwork

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of each parameter


class Progress(Settings):
    """How far a run has come."""

    step: int = Field(default=0, ge=0)
    seconds: float = 0.0
    best: float | None = Field(
        default=None, description="smallest residual on held-out structures so far"
    )
    best_step: int = 0
    since_best: int = Field(default=0, description="validations since then")
    waited: int = Field(
        default=0, description="validations since then or since the learning rate was last halved"
    )
    halved: int = Field(default=0, description="how often the learning rate was halved")

    def after(self, residual: float, plateau: int | None) -> "Progress":
        """Progress after a validation at this step.

        Parameters
        ----------
        residual
            What was found.
        plateau
            As in the settings where the schedule goes by it, else None.
        """
        if self.best is None or residual < self.best:
            return self.model_copy(
                update={"best": residual, "best_step": self.step, "since_best": 0, "waited": 0}
            )
        waited = self.waited + 1
        halved = self.halved
        if plateau and waited >= plateau:
            waited = 0
            halved += 1
        return self.model_copy(
            update={"since_best": self.since_best + 1, "waited": waited, "halved": halved}
        )


@dataclass
class State:
    """What changes while a run trains.

    Attributes
    ----------
    network, optimizer
        As they train; the optimiser is AdamW.
    average
        The averaged weights, by name.
    best
        The best of them so far; `average` itself where none was chosen.
    """

    network: MovieNetwork
    optimizer: torch.optim.AdamW
    average: dict[str, Tensor]
    best: dict[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name."""
        found = _prefixed("model.", self.network.state_dict())
        found |= _prefixed("average.", self.average)
        if self.best is not self.average:
            found |= _prefixed("best.", self.best)
        for i, parameter in enumerate(self.network.parameters()):
            moments = self.optimizer.state[parameter]
            kept = {name: moments[name] for name in _MOMENTS}
            found |= _prefixed(f"optimizer.{i}.", kept)
        return found

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Take over what `tensors` gave.

        Raises
        ------
        KeyError, RuntimeError
            If they are of another network.
        """
        self.network.load_state_dict(_part(tensors, "model.", device))
        average = _part(tensors, "average.", device)
        self.average = {name: average[name] for name in self.average}
        self.best = _part(tensors, "best.", device) or self.average
        for i, parameter in enumerate(self.network.parameters()):
            moments = {name: tensors[f"optimizer.{i}.{name}"] for name in _MOMENTS}
            for name in _MOMENTS[1:]:
                moments[name] = moments[name].to(device)  # the count of steps stays on the CPU
            self.optimizer.state[parameter] = moments


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def _part(tensors: dict[str, Tensor], prefix: str, device: torch.device) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value.to(device)
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _digest(tensors: dict[str, Tensor], progress: str) -> str:
    found = hashlib.sha256(progress.encode())
    for name in sorted(tensors):
        value = tensors[name]
        heading = f"{name} {value.dtype} {tuple(value.shape)}"
        found.update(heading.encode())
        as_bytes = value.reshape(-1).view(torch.uint8)
        found.update(as_bytes.numpy().data)
    return found.hexdigest()


def save_checkpoint(path: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    """Write a checkpoint: to a temporary name, then renamed, so that a kill or a full disk leaves
    the last good one.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    state = progress.model_dump_json()
    metadata = {"progress": state, "sha256": _digest(tensors, state)}
    try:
        with atomic_path(path) as temporary:
            # Not by save_file, whose own temporary file would outlast a kill.
            temporary.write_bytes(save(tensors, metadata))
    except OutputError as error:
        raise OutputError(
            f"{error}; the checkpoint before it is kept: add --resume once that is repaired"
        ) from None


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], Progress]:
    """What `save_checkpoint` wrote.

    Raises
    ------
    WeightsError
        If the file is cut off, changed, or no checkpoint.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        state = metadata["progress"]
        if metadata["sha256"] != _digest(tensors, state):
            raise ValueError(
                "its contents are not those that were written (changed, or damaged on the disk)"
            )
        return tensors, Progress.checked(json.loads(state), str(path))
    except KeyError as error:
        reason = f"it has no {error.args[0]}, so it is none of this version's checkpoints"
    except (SafetensorError, OSError, ValueError, SettingsError) as error:
        reason = " ".join(str(error).split())[:200]
    raise WeightsError(
        f"cannot resume from {path}: {reason}; start again in another folder, from a copy, or with"
        " start_from"
    )
