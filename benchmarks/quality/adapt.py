"""Weights before and after `dstnet adapt`, on movies that the adaptation never touched.

    python benchmarks/quality/adapt.py [--settings FILE] fields DATA SCORES
    python benchmarks/quality/adapt.py [--settings FILE] structure FILE

The first adapts to five fields of real apoferritin and scores five others; the second does the same
with simulated movies of one structure, those of held_out.sh.

Each real field is two images, the average without one frame and that frame, with the one scale and
the unequal exposures that a movie of two frames has; DATA is the folder of the fields and SCORES
the file apoferritin_scores.py.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scenes import DEFOCUS_ANGSTROM, RESULTS, enhance, species_of, with_optics, write_record

from dstnet import __version__
from dstnet.core.shapes import Image
from dstnet.enhancement import EnhancementSettings, Restorer, make_restorer
from dstnet.metrics.image import residual_after_best_shift
from dstnet.movie import Movie
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.structure import read_structure
from dstnet.training.finetune import FinetuneSettings, finetune_run

PIXEL_ANGSTROM = 1.5  # of the fields
PICKERS = ("ring", "blob")


@dataclass(frozen=True)
class Adapted:
    """What came of an adaptation: methods by when their weights are from, and what is on record."""

    restorers: dict[str, Restorer]
    outcome: dict[str, Any]
    log: list[dict[str, Any]]


def adapted(movies: Sequence[Movie], settings: FinetuneSettings) -> Adapted:
    """Adapt to movies, printing each score on the way."""
    restorers = {"before": make_restorer(EnhancementSettings(model=settings.model))}
    opened = {movie.name: lambda movie=movie: movie for movie in movies}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "adapted"
        path, _ = finetune_run(
            folder,
            opened,
            settings,
            say=lambda line: print(line, flush=True),
            report=lambda record: print(record.model_dump_json(), flush=True),
        )
        if path is not None:
            restorers["after"] = make_restorer(EnhancementSettings(model=str(path)))
        outcome = json.loads((folder / "outcome.json").read_text())
        lines = (folder / "log.jsonl").read_text().splitlines()
    return Adapted(restorers, outcome, [json.loads(line) for line in lines])


def micrograph(image: np.ndarray, name: str, restorer: Restorer) -> Image:
    """An image enhanced as a movie of one frame."""
    frames = (image / image.std())[None].astype(np.float32)
    _, restored = enhance(Movie(frames, PIXEL_ANGSTROM, name), restorer)
    return restored.micrograph


def scores_of(path: Path) -> ModuleType:
    """The scores' own file as a module."""
    spec = importlib.util.spec_from_file_location("scores", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def two_frames(average: np.ndarray, frame: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The sum of all other frames in the frame's own scale, and the frame: rest = average - beta
    frame, so rest / beta is that sum.
    """
    beta = float(((average - rest) * frame).sum() / (frame * frame).sum())
    return np.stack((rest / beta, frame)).astype(np.float32)


def fields(
    data: Path, scores: Path, settings: FinetuneSettings
) -> tuple[Adapted, list[dict[str, Any]]]:
    """Adapt to every other field and score the others: shell correlation with independent frames,
    precision of two pickers.
    """
    tool = scores_of(scores)
    found = list(tool.fields(str(data)))
    movies = [
        Movie(two_frames(average, frame, rest), PIXEL_ANGSTROM, name)
        for name, average, frame, rest, _ in found[::2]
    ]
    done = adapted(movies, settings)
    rows = []
    for name, _, frame, rest, picks in found[1::2]:
        row: dict[str, Any] = {"movie": name}
        for when, restorer in done.restorers.items():
            for kind, image, other in (("rest", rest, frame), ("frame", frame, rest)):
                seen = micrograph(image, name, restorer).double().numpy()
                row[f"{kind} shell, {when}"] = tool.shells(seen, other)
                for picker in () if picks is None else PICKERS:
                    row[f"{kind} {picker}, {when}"] = tool.pick_ap(seen, picks, picker)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return done, rows


def structure(
    path: Path, settings: FinetuneSettings, adapt_to: int, score: int, side: int
) -> tuple[Adapted, list[dict[str, Any]]]:
    """Adapt to simulated movies of a structure and score others of it: residual energy against the
    truth.
    """
    atoms = read_structure(path)
    base = SimulationSettings(shape=(side, side), specimen=SpecimenSettings(coverage=0.3))
    species = species_of(atoms, base)
    simulators = []
    for seed in range(adapt_to + score):
        defocus = DEFOCUS_ANGSTROM[seed % len(DEFOCUS_ANGSTROM)]
        of_seed = with_optics(base, defocus_angstrom=defocus)
        simulators.append(MovieSimulator(of_seed, [species], seed))
    movies = [simulator.movie(f"{atoms.name}-{seed}") for seed, simulator in enumerate(simulators)]
    done = adapted(movies[:adapt_to], settings)
    rows = []
    for movie, simulator in zip(movies[adapt_to:], simulators[adapt_to:], strict=True):
        row: dict[str, Any] = {"movie": movie.name}
        for when, restorer in done.restorers.items():
            _, restored = enhance(movie, restorer)
            left = residual_after_best_shift(restored.micrograph, simulator.truth.clean)
            row[f"residual, {when}"] = left
        print(json.dumps(row), flush=True)
        rows.append(row)
    return done, rows


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--output", type=Path, help="default: benchmarks/results/adapt_KIND.json"
    )
    arguments.add_argument("--settings", type=Path, help="YAML file of fine-tuning's settings")
    kinds = arguments.add_subparsers(dest="kind", required=True)
    real = kinds.add_parser("fields")
    real.add_argument("data", type=Path)
    real.add_argument("scores", type=Path)
    simulated = kinds.add_parser("structure")
    simulated.add_argument("file", type=Path)
    simulated.add_argument("--adapt-to", type=int, default=4)
    simulated.add_argument("--score", type=int, default=2)
    simulated.add_argument("--side", type=int, default=768)
    options = arguments.parse_args()
    settings = FinetuneSettings()
    if options.settings:
        settings = FinetuneSettings.from_yaml(options.settings)
    started = time.process_time()
    if options.kind == "fields":
        done, rows = fields(options.data, options.scores, settings)
    else:
        done, rows = structure(
            options.file, settings, options.adapt_to, options.score, options.side
        )
    names = [name for name in rows[0] if name != "movie"]
    mean = {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
    print("mean", json.dumps({k: round(v, 4) for k, v in mean.items()}), done.outcome["ended"])
    record = {
        "version": __version__,
        "settings": settings.model_dump(mode="json"),
        "threads": torch.get_num_threads(),
        "cpu_seconds": round(time.process_time() - started),
        "ended": done.outcome["ended"],
        "released": done.outcome["released"],
        "judgements": done.log,
        "mean": mean,
        "movies": rows,
    }
    write_record(options.output or RESULTS / f"adapt_{options.kind}.json", record)


if __name__ == "__main__":
    main()
