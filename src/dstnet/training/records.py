"""What a training run keeps beside its weights: its settings, what it was made of, and its log."""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from dstnet.core.regular_files import TABLE_BYTES, read_regular, read_regular_text
from dstnet.core.settings import Settings
from dstnet.errors import OutputError, SettingsError, WeightsError
from dstnet.io import atomic_path
from dstnet.training.settings import TrainingSettings
from dstnet.version import __version__

SETTINGS_NAME, RECORD_NAME, LOG_NAME = "settings.yaml", "run.json", "log.jsonl"
RECORDS = (SETTINGS_NAME, RECORD_NAME, LOG_NAME)


class RunRecord(Settings):
    """What a run was made of, as ``run.json`` has it."""

    version: str = __version__
    torch: str = torch.__version__
    device: str
    processes: int
    seed: int
    started_from: str | None = Field(
        default=None, description="digest of the weights that it began with"
    )
    trained_on: dict[str, str] = Field(
        default_factory=dict, description="digests of structures and movies, by name, in order"
    )
    held_out: dict[str, str] = Field(
        default_factory=dict, description="of those that are only validated on"
    )


@dataclass(frozen=True)
class LogRecord:
    """A line of the log.

    Attributes
    ----------
    step
        Steps that are done.
    measures
        By name: see `dstnet.training.validation.validate`.
    seconds
        That the run has taken; None before its first step.
    loss
        Mean since the last record; None before the first step.
    """

    step: int
    measures: dict[str, float] = field(default_factory=dict)
    seconds: int | None = None
    loss: float | None = None

    def numbers(self) -> dict[str, float]:
        """All of it as JSON has it, by name, in order."""
        found: dict[str, float] = {"step": self.step}
        if self.seconds is not None:
            found["seconds"] = self.seconds
        if self.loss is not None:
            found["loss"] = self.loss
        return {**found, **self.measures}


def refuse_foreign_records(folder: Path) -> None:
    """Refuse a folder with files under the names of a run's records that no run wrote.

    Raises
    ------
    OutputError
        If there is one.
    """
    try:
        _read_record(folder / RECORD_NAME)
        return
    except WeightsError:
        pass
    refuse_present(folder, (RECORD_NAME, SETTINGS_NAME, LOG_NAME), "training run")


def refuse_present(folder: Path, names: Iterable[str], kind: str) -> None:
    """Refuse a folder that holds anything under one of some names.

    Parameters
    ----------
    folder, names
        Where, and which.
    kind
        What it is not of, in the message.

    Raises
    ------
    OutputError
        If there is such a thing.
    """
    for name in names:
        if os.path.lexists(folder / name):
            raise OutputError(
                f"{folder / name} is of no {kind} and is not replaced; choose another folder, or"
                " move it away"
            )


def write_records(folder: Path, settings: TrainingSettings, record: RunRecord) -> None:
    """Write ``settings.yaml`` and ``run.json``.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    # First what tells that the others are a run's.
    with atomic_path(folder / RECORD_NAME) as temporary:
        temporary.write_text(json.dumps(record.model_dump(mode="json"), indent=2) + "\n")
    with atomic_path(folder / SETTINGS_NAME) as temporary:
        temporary.write_text(settings.to_yaml())


def check_same_run(folder: Path, settings: TrainingSettings, record: RunRecord) -> None:
    """Make sure that the run in `folder` can go on with these settings and data. Only how many
    processes simulate may differ.

    Raises
    ------
    WeightsError
        If the settings or the data are others, or the run's record cannot be read.
    SettingsError
        If its settings cannot be read.
    """
    stored = TrainingSettings.from_yaml(folder / SETTINGS_NAME)
    if stored.model_copy(update={"workers": settings.workers}) != settings:
        raise WeightsError(
            f"{folder} was trained with other settings than those given; resume with its own"
            " settings.yaml"
        )
    before = _read_record(folder / RECORD_NAME)
    other = [
        name
        for name in ("held_out", "trained_on")
        if list(getattr(before, name).items()) != list(getattr(record, name).items())
    ]
    if other:
        raise WeightsError(
            f"{folder} was trained with other data ({', '.join(other)} in run.json); give the"
            " same, in order"
        )


def _read_record(path: Path) -> RunRecord:
    try:
        values: Any = json.loads(read_regular_text(path))
        return RunRecord.checked(values, str(path))
    except (OSError, ValueError, RecursionError, SettingsError) as error:
        raise WeightsError(
            f"cannot resume: {path} cannot be read ({' '.join(str(error).split())}); copy the"
            " complete folder again"
        ) from None


def append_log(folder: Path, record: LogRecord) -> None:
    """Add a record to the log.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    path = folder / LOG_NAME
    try:
        with open(path, "a") as log:
            log.write(json.dumps(record.numbers()) + "\n")
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free some space and add --resume"
        ) from None


def shorten_log(folder: Path, step: int) -> None:
    """Drop what the log says of steps after `step`, which are done again, and a last line that a
    kill cut off.

    Raises
    ------
    WeightsError
        If it cannot be read.
    OutputError
        If it cannot be written.
    """
    path = folder / LOG_NAME
    try:
        log = read_regular(path, TABLE_BYTES).decode(errors="replace") if path.exists() else ""
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"cannot go on with {path}: {error}; move it away, or choose another folder"
        ) from None
    kept = [line + "\n" for line in log.splitlines() if _logged_step(line) <= step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(kept))


def _logged_step(line: str) -> float:
    """The step of a line of the log; infinite where it is no complete record."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return math.inf
