"""What `mutations.py` mutates of what runs leave behind: networks, records, simulated movies."""


# ruff: noqa: E402 - what tests have is found only once their folders are known

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests" / p) for p in ("", "unit")]

import tiny  # pyright: ignore[reportMissingImports]

from dstnet.alignment import AlignmentSettings
from dstnet.dataset.generate import make_movies
from dstnet.dataset.manifest import read_dataset
from dstnet.dataset.plan import plan_movies
from dstnet.dataset.species_store import SpeciesStore
from dstnet.io import write_mrc
from dstnet.network.weights import load_weights, read_card
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.ledger import Ledger
from dstnet.pipeline.record import MadeWith
from dstnet.pipeline.records import Records, read_records
from dstnet.simulation.recipe import Recipe
from dstnet.training import TrainingSettings
from dstnet.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from dstnet.training.records import RunRecord, check_same_run, shorten_log, write_records


@dataclass(frozen=True)
class Kind:
    """A file of one kind.

    Attributes
    ----------
    path
        Where a good one lies.
    read
        Reads it and uses it as a command does.
    repaired
        What is done with mutated bytes so that more than a digest is tried.
    """

    path: Path
    read: Callable[[Path], object]
    repaired: Callable[[bytes], bytes] = lambda content: content


def networks(folder: Path) -> dict[str, Kind]:
    """Weights with cards, checkpoints, and what lies beside them."""
    weights = tiny.save_model(folder)
    card_path = weights.with_suffix(".json")
    card = json.loads(card_path.read_text())

    def fitting(path: Path) -> None:
        content = path.read_bytes()
        changed = {**card, "sha256": hashlib.sha256(content).hexdigest()}
        card_path.write_text(json.dumps(changed))
        load_weights(str(path))

    def carded(path: Path) -> None:
        read_card(path.with_suffix(".safetensors"))
        load_weights(str(folder / "carded.safetensors"))

    (folder / "carded.safetensors").write_bytes(weights.read_bytes())
    (folder / "carded.json").write_text(card_path.read_text())
    save_checkpoint(folder / "checkpoint.safetensors", {"model.a": torch.ones(3, 4)}, Progress())
    run = folder / "run"
    run.mkdir(exist_ok=True)
    settings = TrainingSettings(steps=3)
    record = RunRecord(device="cpu", processes=1, seed=0, trained_on={"a": "1"})
    write_records(run, settings, record)
    (run / "log.jsonl").write_text('{"step": 2, "loss": 0.5}\n{"step": 4, "loss": 0.4}\n')

    def resumed(_: Path) -> None:
        check_same_run(run, settings, record)

    return {
        "weights": Kind(weights, fitting),
        "card": Kind(folder / "carded.json", carded),
        "checkpoint": Kind(folder / "checkpoint.safetensors", load_checkpoint),
        "training run.json": Kind(run / "run.json", resumed),
        "training settings.yaml": Kind(run / "settings.yaml", resumed),
        "training log.jsonl": Kind(run / "log.jsonl", lambda _: shorten_log(run, 3)),
    }


def records(folder: Path) -> dict[str, Kind]:
    """What a run left: records, ledgers, provenance."""
    from dstnet.pipeline.run import run_files
    from dstnet.pipeline.settings import RunSettings

    data, out = folder / "data", folder / "out"
    data.mkdir(exist_ok=True)
    if not (out / "provenance.json").exists():
        write_mrc(data / "m.mrc", tiny.make_frames(3), 2.0, "x", stack=True)
        run_files([InputMovie(data / "m.mrc", "m")], out, RunSettings(AlignmentSettings(patches=0)))
    provenance = out / "provenance.json"
    kept = provenance.read_bytes()
    made_with = read_records(out).made_with
    assert isinstance(made_with, MadeWith)
    journal = next(iter(sorted((out / "records").glob("*.jsonl"))))
    ledger = next(iter(sorted((out / "records").glob("*.ledger"))))

    def opened(path: Path) -> None:
        before = set((out / "records").iterdir())
        try:
            records = Records(out, made_with, False)
            records.left(
                [f for r in records.earlier.values() if r.results for f in r.results.files]
            )
            records.refresh()
        finally:
            for new in set((out / "records").iterdir()) - before:
                new.unlink()
            (out / "micrographs.star").unlink(missing_ok=True)
            if path != provenance:
                provenance.write_bytes(kept)

    def alone(path: Path) -> None:
        provenance.unlink(missing_ok=True)
        opened(path)

    return {
        "provenance": Kind(provenance, opened),
        "record": Kind(journal, opened),
        "record without provenance": Kind(journal, alone),
        "ledger": Kind(ledger, lambda p: (Ledger(out, "run").all_claims(), opened(p))),
    }


def simulated(folder: Path) -> dict[str, Kind]:
    """A simulated movie's record and truths."""
    data = folder / "simulated"
    recipe = Recipe(structures=("phantom:1",)).with_options(
        {"shape": (128, 128), "pixel_size_angstrom": 4.0, "frames": 2, "exposure_e_per_a2": 2.0}
    )
    options = {"movies": 1, "seed": 0, "store": SpeciesStore()}
    make_movies(plan_movies(recipe, data, **options))

    def used(_: Path) -> None:
        for movie in read_dataset(data):
            movie.raw_movie()
            movie.motion()
            movie.motion_parts_angstrom()
            movie.particles()
            movie.truth("phase")[0]

    def planned(_: Path) -> None:
        plan_movies(recipe, data, **options)

    def of(ending: str, read: Callable = used) -> Kind:
        return Kind(next((data / "truth").glob(f"*{ending}")), read)

    return {
        "simulated record": of("_settings.yaml"),
        "simulated record, planned again": of("_settings.yaml", planned),
        "simulated motion": of("_motion.json"),
        "simulated particles": of("_particles.star"),
        "simulated truth": of("_phase.mrc"),
    }
