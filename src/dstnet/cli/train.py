"""dstnet train: a network from structures, by way of the simulator."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dstnet.cli.options import Json, Output, SettingsFile, reporting, settings_from


def train(
    structures: Annotated[list[Path] | None, Parameter(help="PDB or mmCIF files to learn from; without any, phantoms alone.")] = None,
    /,
    *,
    output: Output,
    hold_out: Annotated[
        list[str] | None, Parameter(negative=(), help="Structures, by file name, to validate on and never train on; may be repeated.")
    ] = None,
    model: Annotated[str | None, Parameter(name=["--model", "-m"], help="Network to train (see dstnet models).")] = None,
    steps: Annotated[int | None, Parameter(help="Optimiser steps.")] = None,
    seed: Annotated[int | None, Parameter(help="Of crops, initial weights and poses.")] = None,
    settings: SettingsFile = None,
    resume: Annotated[bool, Parameter(negative=(), help="Go on from the run's last checkpoint.")] = False,
    json: Json = False,
) -> int:
    """Train a network on crops that the simulator makes as they are needed.

    OUTPUT gets settings.yaml (the run can be repeated from it), log.jsonl, checkpoint.safetensors, and at the end weights.safetensors with
    its card weights.json, which `dstnet enhance --model OUTPUT/weights.safetensors` takes.
    """
    from dstnet.training import TrainingSettings, train_run

    held = tuple(hold_out) if hold_out else None
    chosen = settings_from(TrainingSettings, settings, held_out=held, architecture=model, steps=steps, seed=seed)
    with reporting(chosen.steps // chosen.checkpoint_every, "training", json) as report:
        path = train_run(
            output,
            structures or [],
            chosen,
            resume=resume,
            say=report.say,
            report=lambda r: report("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in r.items()), r),
        )
    report.say(f"weights in {path}")
    return 0
