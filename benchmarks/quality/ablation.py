"""What each part of the network, each loss, the number of frames, alignment and size are worth,
under one small budget.

    python benchmarks/quality/ablation.py --train STRUCTURE... --held-out STRUCTURE... [--steps 500]
    [--only NAME...]

Every variant differs from the first in one thing only, and is trained from nothing on as many crops
of the same stream (128² pixels of 2 Å, four a step). All are scored on the same movies of held-out
structures, 24 raw frames at 40 e-/Å2, summed to as many fractions as a variant takes: residual
energy of the micrograph (mean over movies), and the mean Fourier ring correlation from 60 to 10 Å.
`seed` repeats the first with another seed: smaller differences than that say nothing. At a budget
of minutes these are the parts' worth early in training, no more.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from dstnet import __version__
from dstnet.core.fourier import radial_frequency
from dstnet.core.randomness import stream
from dstnet.metrics.image import residual_energy
from dstnet.movie.normalise import normalised
from dstnet.network.blocks import MovieNetwork
from dstnet.network.dstnet import exposure_features
from dstnet.network.engine import autocast
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.species import ProjectionBank
from dstnet.structure import phantom, read_structure
from dstnet.training.settings import TrainingSettings
from dstnet.training.simulated_crops import StreamSettings, draw_settings
from dstnet.training.species import bank
from dstnet.training.trainer import Run

TINY = {"features": 12, "growth": 8, "dense_layers": 1, "widths": [24, 40, 56], "blocks": [1, 1, 1]}
FRAMES, EXPOSURE_E_PER_A2, MOVIES, CROP = 24, 40.0, 24, 128
VARIANTS: dict[str, dict] = {
    "tiny": {},
    "seed": {"seed": 1},
    "without spatial": {"network": {"without": ["spatial"]}},
    "without temporal": {"network": {"without": ["temporal"]}},
    "without fusion": {"network": {"without": ["fusion"]}},
    "without reconstructor": {"network": {"without": ["reconstructor"]}},
    "1 fraction": {"stream": {"fractions": 1}},
    "2 fractions": {"stream": {"fractions": 2}},
    "5 fractions": {"stream": {"fractions": 5}},
    "all 24 frames": {"stream": {"fractions": FRAMES}},
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


def settings_of(changes: dict, steps: int) -> TrainingSettings:
    """The run of a variant."""
    base: dict = {
        "steps": steps,
        "batch": 4,
        "warm_up": 50,
        "average": 0.99,
        "validate_batches": 0,
        "checkpoint_every": steps,
    }
    base["ring_weight"] = 0.3  # one variant has more
    stream_settings = {"crop": CROP, **changes.get("stream", {})}
    others = {k: v for k, v in changes.items() if k not in ("network", "stream")}
    return TrainingSettings.checked(
        {
            **base,
            "network": {**TINY, **changes.get("network", {})},
            "stream": stream_settings,
            **others,
        },
        "variant",
    )


def movies(
    species: list[ProjectionBank], aligned: bool
) -> list[tuple[torch.Tensor, torch.Tensor, SimulationSettings]]:
    """Frames [frame, y, x], truth [y, x] and conditions of the movies that all are scored on."""
    made = []
    for number in range(MOVIES):
        ranges = StreamSettings(
            crop=CROP, empty=0.0, contrast=(1.0, 2.0), coverage=(0.2, 0.45), aligned=aligned
        )
        drawn = draw_settings(ranges, FRAMES, stream(77, "ablation", number))
        settings = drawn.model_copy(
            update={"exposure_e_per_a2": EXPOSURE_E_PER_A2 / FRAMES, "pre_exposure_e_per_a2": 0.0}
        )
        shot = MovieSimulator(settings, [species[number % len(species)]], number)
        made.append((torch.stack(list(shot.frames())), shot.truth.clean, settings))
    return made


def ring_correlation(a: torch.Tensor, b: torch.Tensor, pixel: float) -> float:
    """Mean Fourier ring correlation from 60 to 10 Å."""
    shape = (a.shape[0], a.shape[1])
    k = radial_frequency(shape, pixel)
    inside = (k > 1 / 60) & (k < 1 / 10)
    ring = (k * shape[0] * pixel).long()[inside]
    x, y = torch.fft.rfft2(a)[inside], torch.fft.rfft2(b)[inside]

    def total(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(int(ring.max()) + 1).index_add_(0, ring, values)

    power = (total(x.abs().square()) * total(y.abs().square())).sqrt()
    return float((total((x * y.conj()).real) / power.clamp(min=1e-20))[power > 0].mean())


def score(network: MovieNetwork, of: list, fractions: int) -> dict[str, float]:
    """Means over movies."""
    residual, ring = 0.0, 0.0
    for frames, truth, settings in of:
        grouped = torch.stack([part.sum(0) for part in frames.chunk(fractions)])
        own = torch.tensor(
            [len(part) * settings.exposure_e_per_a2 for part in frames.chunk(fractions)]
        )
        unit, total, _, _ = normalised(grouped)
        exposure = exposure_features(own.cumsum(0) - own / 2, own, len(own))
        with torch.no_grad(), autocast(torch.device("cpu")):
            out = network(unit[None], total[None], exposure[None])[0, 0].float()
        residual += residual_energy(out, truth) / len(of)
        ring += ring_correlation(out, truth, settings.pixel_size_angstrom) / len(of)
    return {"residual": residual, "ring correlation": ring}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--train", nargs="+", type=Path, required=True)
    arguments.add_argument("--held-out", nargs="+", type=Path, required=True)
    arguments.add_argument("--steps", type=int, default=500)
    arguments.add_argument("--only", nargs="+", choices=VARIANTS)
    arguments.add_argument(
        "--output", type=Path, default=Path(__file__).parents[1] / "results" / "ablation.json"
    )
    options = arguments.parse_args()
    pixel = StreamSettings().working_pixel_angstrom
    widest = CROP * pixel
    given = [
        a for p in options.train if (a := read_structure(p).centred()).diameter_angstrom < widest
    ]
    learnt = [bank(a, pixel, 48, 0) for a in [*given, *(phantom(i + 1) for i in range(12))]]
    scored = {
        aligned: movies(
            [bank(read_structure(p).centred(), pixel, 48, 0) for p in options.held_out], aligned
        )
        for aligned in (True, False)
    }
    record: dict = {
        "version": __version__,
        "steps": options.steps,
        "crops": 4 * options.steps,
        "variants": {},
    }
    for name in options.only or VARIANTS:
        settings = settings_of(VARIANTS[name], options.steps)
        started = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder), settings, (learnt, []), ([], []))
            run.train(lambda r: None)
        network = run.averaged()
        row = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "cpu_s": round(time.process_time() - started),
        }
        row |= score(network, scored[settings.stream.aligned], settings.stream.fractions)
        record["variants"][name] = row
        print(name, json.dumps({k: round(v, 4) for k, v in row.items()}), flush=True)
        options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
