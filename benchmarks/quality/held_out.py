"""Residual energy on movies of structures that the released weights never saw, beside what simpler
methods leave.

    python benchmarks/quality/held_out.py STRUCTURE... [--model NAME] [--seeds 2] [--contrast 1]
    [--b-factor 20]

Each structure gets movies of 768 x 768 x 24 frames at 1.06 Å/px and 48 e-/Å2, 30 % of the field
under particles, with drift, local motion, moving ice and damage. Everything is scored after the
best shift, 48 pixels at each border left out, as 1 - r^2 against the clean CTF-modulated contrast.
The Gaussian is the best of a sweep, and the Wiener filter knows the true radial spectra: both are
told what no user knows. Contrast and B-factor (Å2) decide how hard the movies are: at 1 and 20 a
third of the truth is finer than 10 Å, where nothing can be had.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from dstnet import __version__
from dstnet.core.fourier import apply_transfer, radial_frequency, shift_phase
from dstnet.enhancement import EnhancementSettings, NetworkRestorer
from dstnet.metrics.image import best_shift, residual_after_best_shift
from dstnet.network.weights import DEFAULT_MODEL
from dstnet.optics.ctf import OpticsSettings
from dstnet.potential import Projector, build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import read_structure

SIGMAS_PX = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
DEFOCUS_ANGSTROM = (9000.0, 14000.0, 20000.0)


def filtered(image: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
    """An image with its ``rfft2`` multiplied by `transfer`."""
    return apply_transfer(image - image.mean(), transfer)


def best_gaussian(image: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Least residual energy over the sweep, and its sigma in pixels."""
    k = radial_frequency((image.shape[0], image.shape[1]))
    return min(
        (
            residual_after_best_shift(
                filtered(image, torch.exp(-2 * (torch.pi * s * k) ** 2)), truth
            ),
            s,
        )
        for s in SIGMAS_PX
    )


def oracle_wiener(image: torch.Tensor, truth: torch.Tensor, rings: int = 200) -> float:
    """Residual energy of the best radial filter: in each ring, <image* truth> / <|image|^2>, from
    the truth itself.
    """
    shape = (image.shape[0], image.shape[1])
    moved = apply_transfer(
        truth, shift_phase(shape, best_shift(filtered(image, torch.ones(1)), truth))
    )
    a, b = torch.fft.rfft2(image - image.mean()), torch.fft.rfft2(moved - moved.mean())
    index = (radial_frequency(shape) / 0.75 * rings).long().clamp(max=rings - 1).flatten()
    cross = torch.zeros(rings).index_add_(0, index, (a.conj() * b).real.flatten())
    power = torch.zeros(rings).index_add_(0, index, a.abs().square().flatten())
    transfer = (cross / power.clamp(min=1e-30))[index].reshape(a.shape)
    return residual_after_best_shift(filtered(image, transfer), truth)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("structures", nargs="+", type=Path)
    arguments.add_argument("--model", default=DEFAULT_MODEL)
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--contrast", type=float, default=1.0)
    arguments.add_argument("--b-factor", type=float, default=OpticsSettings().b_factor_angstrom2)
    arguments.add_argument(
        "--output", type=Path, default=Path(__file__).parents[1] / "results" / "held_out.json"
    )
    options = arguments.parse_args()
    restorer = NetworkRestorer(EnhancementSettings(model=options.model))
    network_alone = NetworkRestorer(
        EnhancementSettings(model=options.model, evidence=False, ctf=False)
    )
    heads = tuple(name for name in restorer.network.outputs if name == "contrast")
    rows = []
    for path in options.structures:
        atoms = read_structure(path)
        for seed in range(options.seeds):
            base = SimulationSettings(
                shape=(768, 768), specimen=SpecimenSettings(coverage=0.3, contrast=options.contrast)
            )
            defocus = DEFOCUS_ANGSTROM[len(rows) % len(DEFOCUS_ANGSTROM)]
            optics = base.optics.model_copy(
                update={"defocus_angstrom": defocus, "b_factor_angstrom2": options.b_factor}
            )
            settings = base.model_copy(update={"optics": optics})
            projector = Projector(
                build_potential(atoms, settings.pixel_size_angstrom), optics.voltage_kv
            )
            shot = MovieSimulator(
                settings,
                [ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector)],
                seed,
            )
            movie = shot.movie(f"{atoms.name}-{seed}")
            started = time.process_time()
            enhanced = restorer(movie, heads=heads)
            seconds = time.process_time() - started
            network = network_alone(movie).micrograph
            truth = shot.truth.clean
            gaussian, sigma = best_gaussian(enhanced.sums.total, truth)
            unmoved = movie.stack().sum(0)
            assert enhanced.sums.dose_weighted is not None
            shifts = (
                enhanced.sums.shifts_angstrom - shot.truth.global_shift_angstrom
            ) / settings.pixel_size_angstrom
            rows.append(
                {
                    "movie": movie.name,
                    "particles": len(shot.truth.particles),
                    "raw sum": residual_after_best_shift(unmoved, truth),
                    "aligned sum": residual_after_best_shift(enhanced.sums.total, truth),
                    "dose-weighted sum": residual_after_best_shift(
                        enhanced.sums.dose_weighted, truth
                    ),
                    "best Gaussian": gaussian,
                    "oracle Wiener": oracle_wiener(enhanced.sums.total, truth),
                    "dstnet": residual_after_best_shift(enhanced.micrograph, truth),
                    "network alone": residual_after_best_shift(network, truth),
                    **(
                        {}
                        if enhanced.contrast is None
                        else {
                            "contrast": residual_after_best_shift(
                                enhanced.contrast, -shot.truth.phase
                            )
                        }
                    ),
                    "best sigma px": sigma,
                    "global shift error px": float(
                        (shifts - shifts.mean(0)).square().mean().sqrt()
                    ),
                    "cpu seconds": seconds,
                }
            )
            print(
                json.dumps(
                    {k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}
                ),
                flush=True,
            )
    mean = {
        k: sum(r[k] for r in rows) / len(rows) for k in rows[0] if isinstance(rows[0][k], float)
    }
    print("mean", json.dumps({k: round(v, 3) for k, v in mean.items()}))
    record = {
        "version": __version__,
        "model": restorer.card.name,
        "sha256": restorer.card.sha256,
        "contrast": options.contrast,
        "b_factor_angstrom2": options.b_factor,
        "machine": platform.processor() or platform.machine(),
    }
    options.output.write_text(json.dumps({**record, "mean": mean, "movies": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
