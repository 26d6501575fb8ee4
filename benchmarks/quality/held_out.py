"""Residual energy on movies of structures that the released weights never saw, beside what simpler
methods leave.

    python benchmarks/quality/held_out.py STRUCTURE... [--model NAME] [--seeds 2] [--contrast 1]
    [--b-factor 20]

Each structure gets movies of 768 x 768 x 24 frames at 1.06 Å/px and 48 e-/Å2, 30 % of the field
under particles, with drift, local motion, moving ice and damage. Everything is scored after the
best shift, 48 pixels at each border left out, as 1 - r^2 against the clean CTF-modulated contrast.
The Gaussian is the best of a sweep, and the Wiener filter knows the true radial spectra: both know
what no user knows. Contrast and B-factor (Å2) decide how hard the movies are: at 1 and 20 a third
of the truth is finer than 10 Å, where nothing can be had.
"""

import argparse
import platform
import time
from pathlib import Path
from typing import Any

from scenes import (
    RESULTS,
    enhance,
    means,
    print_means,
    print_row,
    settings_of,
    simulator_of,
    write_record,
)

from dstnet import __version__
from dstnet.alignment import AlignedMovie
from dstnet.enhancement import EnhancementSettings, NetworkRestorer
from dstnet.metrics.image import residual_after_best_shift
from dstnet.metrics.oracle import best_gaussian, oracle_wiener
from dstnet.network.weights import DEFAULT_MODEL
from dstnet.optics.ctf import OpticsSettings
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.structure import read_structure

SHAPE, COVERAGE = (768, 768), 0.3


def global_shift_error_px(aligned: AlignedMovie, simulator: MovieSimulator) -> float:
    """Root mean square error per axis of the global shifts, where the reference lies left out."""
    found = aligned.motion.global_shift_angstrom
    planted = simulator.truth.motion.global_shift_angstrom
    error = (found - planted) / simulator.settings.pixel_size_angstrom
    return float((error - error.mean(0)).square().mean().sqrt())


def score(
    simulator: MovieSimulator, name: str, restorer: NetworkRestorer, alone: NetworkRestorer
) -> dict[str, Any]:
    """One movie by all methods; `alone` is the network without what follows it."""
    movie = simulator.movie(name)
    outputs = [o for o in ("micrograph", "contrast") if o in restorer.outputs]
    started = time.process_time()
    aligned, restored = enhance(movie, restorer, outputs)
    seconds = time.process_time() - started
    assert aligned.dose_weighted is not None
    truth = simulator.truth
    gaussian, sigma = best_gaussian(aligned.total, truth.clean)
    images = {
        "raw sum": movie.stack().sum(0),
        "aligned sum": aligned.total,
        "dose-weighted sum": aligned.dose_weighted,
        "dstnet": restored.micrograph,
        "network alone": alone(aligned).micrograph,
    }
    left = {key: residual_after_best_shift(image, truth.clean) for key, image in images.items()}
    row: dict[str, Any] = {"movie": name, "particles": len(truth.particles)}
    row |= {key: left[key] for key in ("raw sum", "aligned sum", "dose-weighted sum")}
    row["best Gaussian"] = gaussian
    row["oracle Wiener"] = oracle_wiener(aligned.total, truth.clean)
    row |= {key: left[key] for key in ("dstnet", "network alone")}
    if "contrast" in outputs:
        row["contrast"] = residual_after_best_shift(restored.images["contrast"], -truth.phase)
    row["best sigma px"] = sigma
    row["global shift error px"] = global_shift_error_px(aligned, simulator)
    row["cpu seconds"] = seconds
    return row


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("structures", nargs="+", type=Path)
    arguments.add_argument("--model", default=DEFAULT_MODEL)
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--contrast", type=float, default=1.0)
    arguments.add_argument("--b-factor", type=float, default=OpticsSettings().b_factor_angstrom2)
    arguments.add_argument("--output", type=Path, default=RESULTS / "held_out.json")
    options = arguments.parse_args()
    # Sharpened, a contrast is no estimate of the phase.
    restorer = NetworkRestorer(EnhancementSettings(model=options.model, sharpen=False))
    alone = NetworkRestorer(EnhancementSettings(model=options.model, evidence=False, ctf=False))
    specimen = SpecimenSettings(coverage=COVERAGE, contrast=options.contrast)
    base = SimulationSettings(shape=SHAPE, specimen=specimen)
    rows: list[dict[str, Any]] = []
    for path in options.structures:
        atoms = read_structure(path)
        for seed in range(options.seeds):
            settings = settings_of(base, len(rows), options.b_factor)
            simulator = simulator_of(atoms, settings, seed)
            rows.append(score(simulator, f"{atoms.name}-{seed}", restorer, alone))
            print_row(rows[-1])
    mean = means(rows)
    print_means(mean)
    record = {
        "version": __version__,
        "model": restorer.card.name,
        "sha256": restorer.card.sha256,
        "contrast": options.contrast,
        "b_factor_angstrom2": options.b_factor,
        "machine": platform.processor() or platform.machine(),
        "mean": mean,
        "movies": rows,
    }
    write_record(options.output, record)


if __name__ == "__main__":
    main()
