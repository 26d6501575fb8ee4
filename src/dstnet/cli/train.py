"""dstnet train: a network from structures, by way of the simulator, or from data sets that it
wrote.
"""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dstnet.cli.options import Json, Output, SettingsFile, chosen_device, reporting, settings_from


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
    steps: Annotated[int | None, Parameter(help="Optimiser steps.")] = None,
    seed: Annotated[int | None, Parameter(help="Of crops, initial weights and poses.")] = None,
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
    from dstnet.training import TrainingSettings, train_run
    from dstnet.training.tensorboard import tensorboard_writer

    held = tuple(hold_out) if hold_out else None
    chosen = settings_from(
        TrainingSettings, settings, held_out=held, architecture=model, steps=steps, seed=seed
    )
    first = os.environ.get("RANK", "0") == "0"
    board = tensorboard_writer(output / "tensorboard") if tensorboard and first else None
    with reporting(-(-chosen.steps // chosen.checkpoint_every), "training", json) as report:

        def told(record: dict) -> None:
            if board:
                board(record)
            report(_line(record, chosen.steps), record)

        path = train_run(
            output,
            data or [],
            chosen,
            resume=resume,
            device=chosen_device(device),
            say=report.say,
            report=told,
        )
    if first:
        report.say(f"weights in {path}")
    return 0


def _line(record: dict, steps: int) -> str:
    """A record for people: where it is, how fast, how long it takes still, then its measures."""
    step, seconds = record["step"], record.get("seconds", 0)
    parts = [f"step {step}/{steps}"]
    if seconds:
        left = round((steps - step) * seconds / step / 60)
        parts += [f"{step / seconds:.2f} steps/s", f"{left // 60} h {left % 60:02} min left"]
    parts += [
        f"{name} {value:.4g}" for name, value in record.items() if name not in ("step", "seconds")
    ]
    return "  ".join(parts)
