"""A run's state on disk, from which it goes on as if it had never stopped, and its log."""

import hashlib
import json
from pathlib import Path

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dstnet.core.settings import Settings
from dstnet.errors import OutputError, SettingsError, WeightsError
from dstnet.io import atomic_path


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
        """Progress after a validation at this step; `plateau` as in the settings where the schedule
        goes by it.
        """
        if self.best is None or residual < self.best:
            return self.model_copy(
                update={"best": residual, "best_step": self.step, "since_best": 0, "waited": 0}
            )
        waited, halved = self.waited + 1, self.halved
        if plateau and waited >= plateau:
            waited, halved = 0, halved + 1
        return self.model_copy(
            update={"since_best": self.since_best + 1, "waited": waited, "halved": halved}
        )


def _digest(tensors: dict[str, Tensor], progress: str) -> str:
    found = hashlib.sha256(progress.encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def save_checkpoint(path: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    """Write a checkpoint: to a temporary name, then renamed, so that a kill or a full disk leaves
    the last good one.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    state = progress.model_dump_json()
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, {"progress": state, "sha256": _digest(tensors, state)})
    except (OutputError, SafetensorError) as error:
        raise OutputError(
            f"{error}; the checkpoint before it is kept: add --resume once that is mended"
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
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
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


def append_log(path: Path, record: dict) -> None:
    """Add a record to a log of JSON lines.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        with open(path, "a") as log:
            log.write(json.dumps(record) + "\n")
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free some space and add --resume"
        ) from None


def shorten_log(path: Path, step: int) -> None:
    """Drop what a log says of steps after `step`, which are done again, and a last line that a kill
    cut off.
    """
    kept = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    with atomic_path(path) as temporary:
        temporary.write_text("".join(kept))
