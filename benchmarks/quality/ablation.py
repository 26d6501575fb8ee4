"""What each part of the network, each loss, the number of frames, alignment and size are worth,
under one small budget.

    python benchmarks/quality/ablation.py --train STRUCTURE... --held-out STRUCTURE... [--steps 500]
    [--only NAME...]

Every variant differs from the first in one thing only, and is trained from nothing on as many crops
of the same stream (128² pixels of 2 Å, four a step). All are scored on the same movies of held-out
structures, 24 raw frames at 40 e-/Å2, summed to as many groups as a variant takes: residual
energy of the micrograph (mean over movies), and the mean Fourier ring correlation from 60 to 10 Å.
`seed` repeats the first with another seed: smaller differences than that say nothing. At a budget
of minutes these are the parts' worth early in training, no more.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scenes import RESULTS, print_row, write_record

from dstnet import __version__
from dstnet.core.randomness import stream
from dstnet.core.shapes import Image, Stack
from dstnet.metrics.image import residual_energy
from dstnet.metrics.spectral import band_correlation
from dstnet.movie.normalise import normalised
from dstnet.network.blocks import MovieNetwork
from dstnet.network.engine import autocast
from dstnet.network.inputs import exposure_inputs
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.species import ProjectionBank
from dstnet.structure import Atoms, phantom, read_structure
from dstnet.training.crop_conditions import StreamSettings, draw_settings
from dstnet.training.data import Sources
from dstnet.training.settings import TrainingSettings
from dstnet.training.species import project
from dstnet.training.trainer import Trainer

TINY = {"features": 12, "growth": 8, "dense_layers": 1, "widths": [24, 40, 56], "blocks": [1, 1, 1]}
FRAMES, EXPOSURE_E_PER_A2, MOVIES, CROP = 24, 40.0, 24, 128
COARSEST_ANGSTROM, FINEST_ANGSTROM = 60.0, 10.0  # of the mean ring correlation
PHANTOMS, POSES = 12, 48
VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "seed": {"seed": 1},
    "without spatial": {"network": {"without": ["spatial"]}},
    "without temporal": {"network": {"without": ["temporal"]}},
    "without fusion": {"network": {"without": ["fusion"]}},
    "without reconstructor": {"network": {"without": ["reconstructor"]}},
    "1 group": {"stream": {"groups": 1}},
    "2 groups": {"stream": {"groups": 2}},
    "5 groups": {"stream": {"groups": 5}},
    "all 24 frames": {"stream": {"groups": FRAMES}},
    "not aligned": {"stream": {"aligned": False}},
    "L1": {"pixel_loss": "l1", "ring_weight": 0.0},
    "L2": {"pixel_loss": "l2", "ring_weight": 0.0},
    "Charbonnier": {"pixel_loss": "charbonnier", "ring_weight": 0.0},
    "squared ratio": {"ring_weight": 0.0},
    "squared ratio + focal frequency": {"ring_weight": 0.0, "focal_weight": 0.3},
    "squared ratio + ring 1": {"ring_weight": 1.0},
    "half as wide": {"network": {"features": 8, "growth": 4, "widths": [12, 20, 28]}},
    "default size": {
        "network": {
            "features": 32,
            "growth": 16,
            "dense_layers": 2,
            "widths": [48, 80, 112, 128],
            "blocks": [2, 2, 4, 4],
        }
    },
}


def settings_of(changes: dict[str, Any], steps: int) -> TrainingSettings:
    """The run of a variant."""
    others = {name: value for name, value in changes.items() if name not in ("network", "stream")}
    settings = {
        "steps": steps,
        "batch": 4,
        "warm_up": 50,
        "average": 0.99,
        "validate_batches": 0,
        "checkpoint_every": steps,
        "ring_weight": 0.3,  # one variant has more
        "network": {**TINY, **changes.get("network", {})},
        "stream": {"crop": CROP, **changes.get("stream", {})},
    }
    return TrainingSettings.checked({**settings, **others}, "variant")


@dataclass(frozen=True)
class Scored:
    """A movie that variants are scored on: its frames, its truth and how it was made."""

    frames: Stack
    truth: Image
    settings: SimulationSettings


def movies(species: Sequence[ProjectionBank], aligned: bool) -> list[Scored]:
    """The movies that all variants are scored on."""
    ranges = StreamSettings(
        crop=CROP, empty=0.0, contrast=(1.0, 2.0), coverage=(0.2, 0.45), aligned=aligned
    )
    exposure = {
        "exposure_e_per_a2": EXPOSURE_E_PER_A2 / FRAMES,
        "pre_exposure_e_per_a2": 0.0,
    }
    made = []
    for number in range(MOVIES):
        drawn = draw_settings(ranges, FRAMES, stream(77, "ablation", number))
        settings = drawn.model_copy(update=exposure)
        simulator = MovieSimulator(settings, [species[number % len(species)]], number)
        frames = torch.stack(list(simulator.frames()))
        made.append(Scored(frames, simulator.truth.clean, settings))
    return made


def enhanced(network: MovieNetwork, movie: Scored, groups: int) -> Image:
    """What a network makes of a movie's frames in so many groups."""
    members = torch.arange(len(movie.frames)).chunk(groups)
    images = torch.stack([movie.frames[part].sum(0) for part in members])
    exposure = movie.settings.exposure.grouped([part.tolist() for part in members])
    unit, total, _, _ = normalised(images)
    inputs = exposure_inputs(exposure, len(images))
    with torch.no_grad(), autocast(torch.device("cpu")):
        return network(unit[None], total[None], inputs[None])[0, 0].float()


def score(network: MovieNetwork, scored: Sequence[Scored], groups: int) -> dict[str, float]:
    """Means over movies."""
    residual, ring = 0.0, 0.0
    for movie in scored:
        image = enhanced(network, movie, groups)
        residual += residual_energy(image, movie.truth) / len(scored)
        pixel = movie.settings.pixel_size_angstrom
        shared = band_correlation(image, movie.truth, pixel, COARSEST_ANGSTROM, FINEST_ANGSTROM)
        ring += shared / len(scored)
    return {"residual": residual, "ring correlation": ring}


def train(settings: TrainingSettings, species: Sequence[ProjectionBank]) -> MovieNetwork:
    """A network trained from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Path(folder), settings, Sources(species), Sources())
        trainer.train(lambda record: None)
    return trainer.averaged()


def small_structures(paths: Sequence[Path], widest_angstrom: float) -> list[Atoms]:
    """Those that a crop can hold."""
    every = [read_structure(path).centred() for path in paths]
    return [atoms for atoms in every if atoms.diameter_angstrom < widest_angstrom]


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--train", nargs="+", type=Path, required=True)
    arguments.add_argument("--held-out", nargs="+", type=Path, required=True)
    arguments.add_argument("--steps", type=int, default=500)
    arguments.add_argument("--only", nargs="+", choices=VARIANTS)
    arguments.add_argument("--output", type=Path, default=RESULTS / "ablation.json")
    options = arguments.parse_args()
    pixel = StreamSettings().working_pixel_angstrom
    atoms = small_structures(options.train, CROP * pixel)
    atoms += [phantom(number + 1) for number in range(PHANTOMS)]
    trained = [project(a, pixel, POSES, 0) for a in atoms]
    held_out = [read_structure(path).centred() for path in options.held_out]
    unseen = [project(a, pixel, POSES, 0) for a in held_out]
    scored = {aligned: movies(unseen, aligned) for aligned in (True, False)}
    variants: dict[str, dict[str, float]] = {}
    record: dict[str, Any] = {
        "version": __version__,
        "steps": options.steps,
        "crops": 4 * options.steps,
        "variants": variants,
    }
    for name in options.only or VARIANTS:
        settings = settings_of(VARIANTS[name], options.steps)
        started = time.process_time()
        network = train(settings, trained)
        row: dict[str, float] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "cpu_s": round(time.process_time() - started),
        }
        row |= score(network, scored[settings.stream.aligned], settings.stream.groups)
        variants[name] = row
        print_row({"variant": name, **row}, digits=4)
        write_record(options.output, record)


if __name__ == "__main__":
    main()
