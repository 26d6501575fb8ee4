"""What a model's outputs are worth: its expected errors beside its actual ones, and what it draws
where there is nothing.

    python benchmarks/quality/honesty.py STRUCTURE... [--model NAME] [--crops 60] [--picture
    docs/images/uncertainty.png]

Expected errors: crops of structures that the model never saw, under the conditions it was trained
for, with another seed. Pixels are sorted by the error that the model expects there; in each of
twenty classes stands the rms error that it made. The first half of the structures gives the
`calibration` (a, b) of a straight line through the classes, both logarithmic, which belongs on the
model's card; what is shown is the second half, by the calibration on the card.

Noise: pure Poisson counts, an empty field of ice, and the same field with particles, at each
exposure through the whole of enhancement; the output's power over that with particles.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from dstnet import __version__
from dstnet.enhancement import EnhancementSettings, NetworkRestorer
from dstnet.movie import Movie
from dstnet.network.engine import autocast
from dstnet.network.weights import DEFAULT_MODEL
from dstnet.potential import Projector, build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import read_structure
from dstnet.training.simulated_crops import CropStream, StreamSettings
from dstnet.training.species import bank

EXPOSURES_E_PER_A2 = (1.0, 2.0, 5.0, 10.0, 20.0, 48.0, 100.0)
CLASSES = 20


def expected_and_actual(
    restorer: NetworkRestorer, structures: list[Path], crops: int
) -> tuple[np.ndarray, np.ndarray]:
    """Expected error and error of a tenth of all pixels of all crops, in units of the sum's
    noise.
    """
    pixel = restorer.card.working_pixel_angstrom
    banks = [bank(read_structure(p).centred(), pixel, 32, 7) for p in structures]
    batch = 2
    expected, actual = [], []
    # The seed is of no training run: theirs and their validations' are small numbers.
    for frames, total, exposure, target, *_ in CropStream(
        StreamSettings(), banks, batch, 990_000, 0, crops // batch
    ):
        with torch.no_grad(), autocast(torch.device("cpu")):
            out = restorer.network(frames, total, exposure).float()
        named = dict(zip(restorer.network.outputs, out.unbind(1), strict=True))
        expected.append(named["uncertainty"].flatten()[::10].numpy())
        actual.append((named["micrograph"] - target).flatten()[::10].numpy())
    return np.concatenate(expected), np.concatenate(actual)


def classes(expected: np.ndarray, actual: np.ndarray) -> list[dict[str, float]]:
    """Rms expected and rms actual error of equal numbers of pixels, sorted by what was expected."""
    order = np.argsort(expected)
    rows = []
    for part in np.array_split(order, CLASSES):
        rows.append(
            {
                "expected": float(np.sqrt((expected[part] ** 2).mean())),
                "actual": float(np.sqrt((actual[part] ** 2).mean())),
            }
        )
    return rows


def noise_curve(restorer: NetworkRestorer, structure: Path) -> list[dict[str, float]]:
    """Output power over particles' at each exposure: of pure noise, and of a field of ice."""
    atoms = read_structure(structure)
    rows = []
    for exposure in EXPOSURES_E_PER_A2:
        base = SimulationSettings(shape=(768, 768), frames=8, exposure_e_per_a2=exposure / 8)
        projector = Projector(
            build_potential(atoms, base.pixel_size_angstrom), base.optics.voltage_kv
        )
        power = {}
        for what in ("particles", "ice"):
            specimen = SpecimenSettings(coverage=0.3 if what == "particles" else 0.0)
            settings = base.model_copy(update={"specimen": specimen})
            power[what] = restorer(
                MovieSimulator(
                    settings,
                    [ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector)],
                    5,
                ).movie()
            )
        mean = exposure / 8 * base.pixel_size_angstrom**2
        counts = np.random.default_rng(5).poisson(mean, (8, *base.shape)).astype(np.float32)
        power["noise"] = restorer(
            Movie(
                counts, base.pixel_size_angstrom, "noise", exposure / 8, 0.0, base.optics.voltage_kv
            )
        )

        def relative(of: str, power: dict = power) -> float:
            # Both in units of their own sum's mean, so that a lower transmission does not count as
            # less.
            image = {k: e.micrograph / float(e.sums.total.mean()) for k, e in power.items()}
            return float(image[of].var() / image["particles"].var())

        rows.append(
            {"exposure_e_per_a2": exposure, "noise": relative("noise"), "ice": relative("ice")}
        )
        print(json.dumps({k: round(v, 4) for k, v in rows[-1].items()}), flush=True)
    return rows


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("structures", nargs="+", type=Path)
    arguments.add_argument("--model", default=DEFAULT_MODEL)
    arguments.add_argument("--crops", type=int, default=60)
    arguments.add_argument(
        "--calibrate-only", action="store_true", help="leave out the noise, write nothing"
    )
    arguments.add_argument("--picture", type=Path, help="where the two errors are drawn")
    arguments.add_argument(
        "--output", type=Path, default=Path(__file__).parents[1] / "results" / "honesty.json"
    )
    options = arguments.parse_args()
    restorer = NetworkRestorer(EnhancementSettings(model=options.model))
    record: dict = {
        "version": __version__,
        "model": restorer.card.name,
        "sha256": restorer.card.sha256,
    }
    if "uncertainty" in restorer.network.outputs:
        half = len(options.structures) // 2
        fitted = classes(*expected_and_actual(restorer, options.structures[:half], options.crops))
        slope, offset = np.polyfit(
            *np.log([[r[k] for r in fitted] for k in ("expected", "actual")]), 1
        )
        record["calibration"] = [float(np.exp(offset)), float(slope)]
        record["calibration_on_card"] = factor, power = restorer.card.uncertainty_calibration
        expected, actual = expected_and_actual(restorer, options.structures[half:], options.crops)
        expected = factor * expected**power
        record["rms_actual_over_expected"] = float(
            np.sqrt((actual**2).mean() / (expected**2).mean())
        )
        record["classes"] = rows = classes(expected, actual)
        print(json.dumps({k: v for k, v in record.items() if k != "classes"}), flush=True)
        for row in rows:
            print(
                f"expected {row['expected']:.4f}  actual {row['actual']:.4f}  ratio"
                f" {row['actual'] / row['expected']:.2f}",
                flush=True,
            )
        if options.picture:
            _, axes = plt.subplots(figsize=(4.2, 4))
            axes.loglog(
                [r["expected"] for r in rows], [r["actual"] for r in rows], "o-", color="#2465a8"
            )
            ends = [rows[0]["expected"], rows[-1]["expected"]]
            axes.loglog(ends, ends, color="#888", linewidth=1)
            axes.set(
                xlabel="expected error (noise of the sum = 1)",
                ylabel="actual error, rms",
                title="Structures never seen",
            )
            plt.tight_layout()
            plt.savefig(options.picture, dpi=110)
    if options.calibrate_only:
        return
    record["output_power_over_particles"] = noise_curve(restorer, options.structures[0])
    options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
