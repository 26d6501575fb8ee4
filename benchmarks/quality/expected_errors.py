"""A model's expected errors beside its actual ones.

    python benchmarks/quality/expected_errors.py STRUCTURE... [--model NAME] [--crops 60] [--picture
    docs/images/uncertainty.png]

Crops of structures that the model never saw, under the conditions it was trained for, with another
seed. Pixels are sorted by the error that the model expects there; in each of twenty classes stands
the rms error that it made. The first half of the structures gives the `calibration` (a, b) of a
straight line through the classes, both logarithmic, which belongs on the model's card; what is
shown is the second half, by the calibration on the card.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from scenes import RESULTS, write_record

from dstnet import __version__
from dstnet.metrics.uncertainty import ErrorClass, error_classes, error_ratio, fit_calibration
from dstnet.network.blocks import MovieNetwork
from dstnet.network.engine import autocast
from dstnet.network.weights import DEFAULT_MODEL, load_weights
from dstnet.structure import read_structure
from dstnet.training.crop_conditions import StreamSettings
from dstnet.training.simulated_crops import simulated_batch
from dstnet.training.species import project

CLASSES = 20
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
    """The calibration that half of the structures gives, and the other half by that on the card."""
    network, card = load_weights(model)
    if "uncertainty" not in network.outputs:
        raise SystemExit(f"{model} expects no errors; give another model")
    half = len(structures) // 2
    pixel = card.working_pixel_angstrom
    fitted = error_classes(*expected_and_actual(network, pixel, structures[:half], crops), CLASSES)
    expected, actual = expected_and_actual(network, pixel, structures[half:], crops)
    factor, power = card.uncertainty_calibration
    expected = factor * expected**power
    return {
        "version": __version__,
        "model": card.name,
        "sha256": card.sha256,
        "calibration": list(fit_calibration(fitted)),
        "calibration_on_card": [factor, power],
        "rms_actual_over_expected": error_ratio(expected, actual),
        "classes": [asdict(row) for row in error_classes(expected, actual, CLASSES)],
    }


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
    arguments.add_argument(
        "--calibrate-only", action="store_true", help="print the calibration, write nothing"
    )
    arguments.add_argument("--picture", type=Path, help="where the two errors are drawn")
    arguments.add_argument("--output", type=Path, default=RESULTS / "expected_errors.json")
    options = arguments.parse_args()
    record = judge_expected_errors(options.model, options.structures, options.crops)
    print(json.dumps({k: v for k, v in record.items() if k != "classes"}), flush=True)
    rows = [ErrorClass(**row) for row in record["classes"]]
    for row in rows:
        ratio = row.actual / row.expected
        print(f"expected {row.expected:.4f}  actual {row.actual:.4f}  ratio {ratio:.2f}")
    if options.picture:
        draw(rows, options.picture)
    if not options.calibrate_only:
        write_record(options.output, record)


if __name__ == "__main__":
    main()
