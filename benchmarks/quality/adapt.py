"""Weights before and after `dstnet adapt`, on movies that the adaptation never touched.

    python benchmarks/quality/adapt.py [--settings FILE] fields DATA SCORES    real apoferritin:
    five fields adapted to, five others scored python benchmarks/quality/adapt.py [--settings FILE]
    structure FILE        simulated movies of one structure: the same

Each real field is two images, the average without one frame and that frame, with the one scale and
the unequal exposures that a movie of two frames has; DATA is the folder of the fields and SCORES
the file apoferritin_scores.py. Simulated movies are those of held_out.py.
"""

import argparse
import importlib.util
import json
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from dstnet import __version__
from dstnet.enhancement import EnhancementSettings, NetworkRestorer
from dstnet.metrics.image import residual_after_best_shift
from dstnet.movie import Movie
from dstnet.network.weights import load_weights
from dstnet.potential import Projector, build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import read_structure
from dstnet.training.finetune.crops import cut, split
from dstnet.training.finetune.finetune import Adaptation, Outcome
from dstnet.training.settings import AdaptSettings

PIXEL_ANGSTROM = 1.5  # of the fields
DEFOCUS_ANGSTROM = (9000.0, 14000.0, 20000.0)


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


def adapted(movies: list[Movie], settings: AdaptSettings) -> Outcome:
    """Adapt to movies, printing each judgement."""
    network, card = load_weights(settings.model)
    learn, judge = split([cut(m, card, network.stride, settings) for m in movies], settings)
    return Adaptation(learn, judge, network, card, settings).train(
        lambda r: print(json.dumps(r), flush=True)
    )


def restorers(settings: AdaptSettings, outcome: Outcome) -> dict[str, NetworkRestorer]:
    """Enhancement with the starting weights, and with the adapted ones where there are such."""
    made = {"before": NetworkRestorer(EnhancementSettings(model=settings.model))}
    if outcome.network is not None:
        made["after"] = NetworkRestorer(EnhancementSettings(model=settings.model))
        made["after"].network = outcome.network
    return made


def fields(data: Path, scores: Path, settings: AdaptSettings) -> tuple[Outcome, list[dict]]:
    """Adapt to every other field and score the others: shell correlation with independent frames,
    precision of two pickers.
    """
    tool = scores_of(scores)
    found = list(tool.fields(str(data)))
    movies = [
        Movie(two_frames(average, frame, rest), PIXEL_ANGSTROM, name)
        for name, average, frame, rest, _ in found[::2]
    ]
    outcome = adapted(movies, settings)
    rows = []
    for name, _, frame, rest, picks in found[1::2]:
        row: dict = {"movie": name}
        for when, restorer in restorers(settings, outcome).items():
            for kind, image, other in (("rest", rest, frame), ("frame", frame, rest)):
                seen = (
                    restorer(
                        Movie((image / image.std())[None].astype(np.float32), PIXEL_ANGSTROM, name)
                    )
                    .micrograph.double()
                    .numpy()
                )
                row[f"{kind} shell, {when}"] = tool.shells(seen, other)
                if picks is not None:
                    row |= {
                        f"{kind} {p}, {when}": tool.pick_ap(seen, picks, p)
                        for p in ("ring", "blob")
                    }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return outcome, rows


def structure(
    path: Path, settings: AdaptSettings, adapt_to: int, score: int, side: int
) -> tuple[Outcome, list[dict]]:
    """Adapt to simulated movies of a structure and score others of it: residual energy against the
    truth.
    """
    atoms = read_structure(path)
    projector = None
    shots = []
    for seed in range(adapt_to + score):
        base = SimulationSettings(shape=(side, side), specimen=SpecimenSettings(coverage=0.3))
        optics = base.optics.model_copy(
            update={"defocus_angstrom": DEFOCUS_ANGSTROM[seed % len(DEFOCUS_ANGSTROM)]}
        )
        if projector is None:
            projector = Projector(
                build_potential(atoms, base.pixel_size_angstrom), optics.voltage_kv
            )
        species = ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector)
        shots.append(MovieSimulator(base.model_copy(update={"optics": optics}), [species], seed))
    movies = [shot.movie(f"{atoms.name}-{seed}") for seed, shot in enumerate(shots)]
    outcome = adapted(movies[:adapt_to], settings)
    rows = []
    for movie, shot in list(zip(movies, shots, strict=True))[adapt_to:]:
        row: dict = {"movie": movie.name}
        for when, restorer in restorers(settings, outcome).items():
            row[f"residual, {when}"] = residual_after_best_shift(
                restorer(movie).micrograph, shot.truth.clean
            )
        print(json.dumps(row), flush=True)
        rows.append(row)
    return outcome, rows


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--output", type=Path, help="default: benchmarks/results/adapt_KIND.json"
    )
    arguments.add_argument("--settings", type=Path, help="YAML file of AdaptSettings")
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
    settings = AdaptSettings.from_yaml(options.settings) if options.settings else AdaptSettings()
    started = time.process_time()
    if options.kind == "fields":
        outcome, rows = fields(options.data, options.scores, settings)
    else:
        outcome, rows = structure(
            options.file, settings, options.adapt_to, options.score, options.side
        )
    names = [k for k in rows[0] if k != "movie"]
    mean = {k: float(np.mean([r[k] for r in rows if k in r])) for k in names}
    print("mean", json.dumps({k: round(v, 4) for k, v in mean.items()}), outcome.why)
    record = {
        "version": __version__,
        "settings": settings.model_dump(mode="json"),
        "threads": torch.get_num_threads(),
        "cpu_seconds": round(time.process_time() - started),
        "ended": outcome.why,
        "released": outcome.record,
        "judgements": outcome.records,
        "mean": mean,
        "movies": rows,
    }
    output = options.output or Path(__file__).parents[1] / "results" / f"adapt_{options.kind}.json"
    output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
