"""What a model's outputs are worth: its expected errors beside its actual ones, and what it draws
where there is nothing.

    python benchmarks/quality/hallucination.py STRUCTURE... [--model NAME] [--crops 60] [--picture
    docs/images/uncertainty.png]

Expected errors: crops of structures that the model never saw, under the conditions it was trained
for, with another seed. Pixels are sorted by the error that the model expects there; in each of
twenty classes stands the rms error that it made. The first half of the structures gives the
`calibration` (a, b) of a straight line through the classes, both logarithmic, which belongs on the
model's card; what is shown is the second half, by the calibration on the card.

Controls: pure Poisson counts, an empty field of ice and, with --shuffled, the pixels of every frame
in random order, at each exposure through all of enhancement; the output's power over that of the
same field with particles.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from scenes import RESULTS, enhance, print_row, species_of, write_record

from dstnet import __version__
from dstnet.core.shapes import Image
from dstnet.enhancement import EnhancementSettings, NetworkRestorer
from dstnet.metrics.hallucination import noise_only, relative_power, shuffled
from dstnet.metrics.uncertainty import ErrorClass, error_classes, error_ratio, fit_calibration
from dstnet.movie import Movie
from dstnet.network.blocks import MovieNetwork
from dstnet.network.engine import autocast
from dstnet.network.weights import DEFAULT_MODEL, load_weights
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.structure import read_structure
from dstnet.training.crop_conditions import StreamSettings
from dstnet.training.simulated_crops import simulated_batch
from dstnet.training.species import project

EXPOSURES_E_PER_A2 = (1.0, 2.0, 5.0, 10.0, 20.0, 48.0, 100.0)
CLASSES = 20
FRAMES, SHAPE, COVERAGE, SEED = 8, (768, 768), 0.3, 5
CROPS_SEED = 990_000  # of no training run: theirs and their validations' are small numbers
BATCH, POSES, POSES_SEED = 2, 32, 7
PIXEL_STEP = 10  # every tenth pixel is scored


def expected_and_actual(
    network: MovieNetwork, pixel_size_angstrom: float, structures: list[Path], crops: int
) -> tuple[np.ndarray, np.ndarray]:
    """Expected error and error of a tenth of all pixels of all crops, in units of the sum's
    noise.
    """
    banks = [
        project(read_structure(path).centred(), pixel_size_angstrom, POSES, POSES_SEED)
        for path in structures
    ]
    ranges = StreamSettings()
    expected, actual = [], []
    for index in range(crops // BATCH):
        batch = simulated_batch(ranges, banks, batch=BATCH, seed=CROPS_SEED, index=index)
        with torch.no_grad(), autocast(torch.device("cpu")):
            out = network(batch.frames, batch.total, batch.exposure).float()
        outputs = dict(zip(network.outputs, out.unbind(1), strict=True))
        error = outputs["micrograph"] - batch.targets["micrograph"]
        expected.append(outputs["uncertainty"].flatten()[::PIXEL_STEP].numpy())
        actual.append(error.flatten()[::PIXEL_STEP].numpy())
    return np.concatenate(expected), np.concatenate(actual)


def judge_expected_errors(model: str, structures: list[Path], crops: int) -> dict[str, Any]:
    """The calibration that half of the structures gives, and the other half by that on the card;
    nothing for a model that expects no errors.
    """
    network, card = load_weights(model)
    if "uncertainty" not in network.outputs:
        return {}
    half = len(structures) // 2
    pixel = card.working_pixel_angstrom
    fitted = error_classes(*expected_and_actual(network, pixel, structures[:half], crops), CLASSES)
    expected, actual = expected_and_actual(network, pixel, structures[half:], crops)
    factor, power = card.uncertainty_calibration
    expected = factor * expected**power
    return {
        "calibration": list(fit_calibration(fitted)),
        "calibration_on_card": [factor, power],
        "rms_actual_over_expected": error_ratio(expected, actual),
        "classes": [asdict(row) for row in error_classes(expected, actual, CLASSES)],
    }


def settings_at(exposure_e_per_a2: float, coverage: float) -> SimulationSettings:
    """A field of so much exposure in all frames together."""
    return SimulationSettings(
        shape=SHAPE,
        frames=FRAMES,
        exposure_e_per_a2=exposure_e_per_a2 / FRAMES,
        specimen=SpecimenSettings(coverage=coverage),
    )


def control_powers(
    restorer: NetworkRestorer, structure: Path, exposure_e_per_a2: float, with_shuffled: bool
) -> dict[str, float]:
    """Power that each control gives at an exposure, over that of particles."""
    atoms = read_structure(structure)
    settings = settings_at(exposure_e_per_a2, COVERAGE)
    species = [species_of(atoms, settings)]
    empty = settings_at(exposure_e_per_a2, 0.0)
    particles = MovieSimulator(settings, species, SEED).movie()
    mean = settings.exposure_e_per_a2 * settings.pixel_size_angstrom**2
    controls = {
        "noise": noise_only(particles, mean, np.random.default_rng(SEED)),
        "ice": MovieSimulator(empty, species, SEED).movie(),
    }
    if with_shuffled:
        controls["shuffled"] = shuffled(particles, np.random.default_rng(SEED))

    def images(movie: Movie) -> tuple[Image, Image]:
        aligned, restored = enhance(movie, restorer)
        return restored.micrograph, aligned.total

    reference = images(particles)
    powers = {name: relative_power(*images(movie), *reference) for name, movie in controls.items()}
    return {"exposure_e_per_a2": exposure_e_per_a2} | powers


def draw(rows: list[ErrorClass], path: Path) -> None:
    """Actual against expected errors, beside the line where they are equal."""
    expected = [row.expected for row in rows]
    _, axes = plt.subplots(figsize=(4.2, 4))
    axes.loglog(expected, [row.actual for row in rows], "o-", color="#2465a8")
    ends = [expected[0], expected[-1]]
    axes.loglog(ends, ends, color="#888", linewidth=1)
    axes.set(
        xlabel="expected error (noise of the sum = 1)",
        ylabel="actual error, rms",
        title="Structures never seen",
    )
    plt.tight_layout()
    plt.savefig(path, dpi=110)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("structures", nargs="+", type=Path)
    arguments.add_argument("--model", default=DEFAULT_MODEL)
    arguments.add_argument("--crops", type=int, default=60)
    arguments.add_argument("--shuffled", action="store_true", help="add the shuffled control")
    arguments.add_argument(
        "--calibrate-only", action="store_true", help="leave out the controls, write nothing"
    )
    arguments.add_argument("--picture", type=Path, help="where the two errors are drawn")
    arguments.add_argument("--output", type=Path, default=RESULTS / "hallucination.json")
    options = arguments.parse_args()
    restorer = NetworkRestorer(EnhancementSettings(model=options.model))
    record: dict[str, Any] = {
        "version": __version__,
        "model": restorer.card.name,
        "sha256": restorer.card.sha256,
    }
    record |= judge_expected_errors(options.model, options.structures, options.crops)
    if "classes" in record:
        print(json.dumps({k: v for k, v in record.items() if k != "classes"}), flush=True)
        rows = [ErrorClass(**row) for row in record["classes"]]
        for row in rows:
            ratio = row.actual / row.expected
            print(f"expected {row.expected:.4f}  actual {row.actual:.4f}  ratio {ratio:.2f}")
        if options.picture:
            draw(rows, options.picture)
    if options.calibrate_only:
        return
    record["output_power_over_particles"] = powers = []
    for exposure in EXPOSURES_E_PER_A2:
        powers.append(control_powers(restorer, options.structures[0], exposure, options.shuffled))
        print_row(powers[-1], digits=4)
    write_record(options.output, record)


if __name__ == "__main__":
    main()
