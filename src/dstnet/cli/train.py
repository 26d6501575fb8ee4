"""dstnet train: a network from structures, by way of the simulator, or from data sets that it
wrote.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from dstnet.cli.options import (
    Json,
    Output,
    SettingsFile,
    Whole,
    advising,
    chosen_device,
    reporting,
    settings_from,
)
from dstnet.runs import processors, torch_threads

if TYPE_CHECKING:
    from dstnet.training import LogRecord


def train(
    data: Annotated[
        list[Path] | None,
        Parameter(
            help=(
                "What to learn from: PDB or mmCIF files, simulated as crops are needed, and folders"
                " that dstnet simulate wrote. With "
                "folders alone nothing is simulated; without anything, phantoms are."
            )
        ),
    ] = None,
    /,
    *,
    output: Output,
    hold_out: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            help=(
                "Structures, by file name, to validate on and never train on, nor on movies that"
                " hold them; may be repeated."
            ),
        ),
    ] = None,
    model: Annotated[
        str | None, Parameter(name=["--model", "-m"], help="Network to train (see dstnet models).")
    ] = None,
    steps: Annotated[Whole | None, Parameter(help="Optimiser steps.")] = None,
    seed: Annotated[Whole | None, Parameter(help="Of crops, initial weights and poses.")] = None,
    settings: SettingsFile = None,
    resume: Annotated[
        bool, Parameter(negative=(), help="Go on from the run's last checkpoint.")
    ] = False,
    device: Annotated[
        str | None,
        Parameter(
            name=["--device", "-d"],
            help=(
                "cpu, cuda, cuda:1, ...; without it, cuda where there is one. Under torchrun one"
                " GPU a process."
            ),
        ),
    ] = None,
    tensorboard: Annotated[
        bool,
        Parameter(
            negative=(),
            help=(
                "Also write the log for tensorboard, into OUTPUT/tensorboard (needs"
                " dstnet[tensorboard])."
            ),
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Train a network on crops that the simulator makes as they are needed, or on movies that it
    made before.

    OUTPUT gets settings.yaml and run.json (the run can be repeated from them), log.jsonl,
    checkpoint.safetensors, and at the end weights.safetensors with its card weights.json, which
    `dstnet enhance --model OUTPUT/weights.safetensors` takes.

    Several GPUs or machines: torchrun --nproc-per-node 4 --no-python dstnet train ...
    """
    from dstnet.training import LogRecord, TrainingSettings, train_run
    from dstnet.training.data import loader_processes
    from dstnet.training.tensorboard import tensorboard_writer
    from dstnet.training.trainer import CHECKPOINT_NAME

    chosen = settings_from(
        TrainingSettings,
        settings,
        held_out=tuple(hold_out) if hold_out else None,
        architecture=model,
        steps=steps,
        seed=seed,
    )
    first = os.environ.get("RANK", "0") == "0"
    write = tensorboard_writer(output / "tensorboard") if tensorboard and first else None
    validations = -(-chosen.steps // chosen.checkpoint_every)
    loaders = loader_processes(chosen.workers, chosen_device(device))
    threads = max(1, processors().count - loaders)
    with torch_threads(threads), reporting(validations, "training", json) as report:

        def report_record(record: LogRecord) -> None:
            if write:
                write(record)
            report(_line(record, chosen.steps), record.numbers())

        with advising(lambda: _how_to_go_on((output / CHECKPOINT_NAME).exists())):
            path = train_run(
                output,
                data or [],
                chosen,
                resume=resume,
                device=device,
                say=report.say,
                report=report_record,
            )
    if first:
        report.say(f"weights in {path}")
    return 0


def _how_to_go_on(has_checkpoint: bool) -> str:
    if has_checkpoint:
        return "the same command with --resume goes on from the last checkpoint"
    return "there is no checkpoint yet, so the same command begins anew"


def _line(record: "LogRecord", steps: int) -> str:
    """A record for people: where it is, how fast, how long it takes still, then its measures."""
    parts = [f"step {record.step}/{steps}"]
    if record.seconds:
        minutes = round((steps - record.step) * record.seconds / record.step / 60)
        parts.append(f"{record.step / record.seconds:.2f} steps/s")
        parts.append(f"{minutes // 60} h {minutes % 60:02} min left")
    measures = record.measures if record.loss is None else {"loss": record.loss, **record.measures}
    parts += [f"{name} {value:.4g}" for name, value in measures.items()]
    return "  ".join(parts)
