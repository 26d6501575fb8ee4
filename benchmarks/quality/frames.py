"""Residual energy of single raw frames, each enhanced where it lies by weights of windows, beside
what simpler methods leave.

    python benchmarks/quality/frames.py STRUCTURE... [--model NAME_OR_FILE] [--contrast 2.5]
    [--b-factor 100]

Movies of 512 x 512 x 16 frames of 2 e-/Å2 at 1.06 Å/px, 30 % of the field under particles, with
drift, local motion, moving ice and damage. Three frames of each are scored, after the best shift,
48 pixels at each border left out, as 1 - r^2 against the clean frame with its motion and damage in
it. Gaussians are the best of a sweep, told the truth: of the raw frame, and of the sum of the five
frames around it as they lie. Beside them, what the default weights, which are for whole movies,
make of the frame alone and of the movie; and the power of enhanced frames of pure Poisson noise
over that of these.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from held_out import DEFOCUS_ANGSTROM, best_gaussian, filtered

from dstnet import __version__
from dstnet.core.fourier import radial_frequency
from dstnet.enhancement import EnhancementSettings
from dstnet.enhancement.frame_window import restorer_of
from dstnet.metrics.image import residual_after_best_shift
from dstnet.potential import Projector, build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import read_structure

FRAMES, SCORED, HALF = 16, (2, 8, 13), 2


def draw(path: Path, *images: torch.Tensor) -> None:
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.6))
    for axis, title, image in zip(
        axes,
        ("raw frame, 2 e⁻/Å²", "five frames, best Gaussian", "enhanced", "truth"),
        images,
        strict=True,
    ):
        low, high = np.percentile(image, (1, 99))
        axis.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower")
        axis.set_title(title)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("structures", nargs="+", type=Path)
    arguments.add_argument("--model", default="dstnet-window-1")
    arguments.add_argument("--contrast", type=float, default=2.5)
    arguments.add_argument("--b-factor", type=float, default=100.0)
    arguments.add_argument(
        "--output", type=Path, default=Path(__file__).parents[1] / "results" / "frames.json"
    )
    arguments.add_argument(
        "--picture", type=Path, help="a frame of the first movie beside what is known of it"
    )
    options = arguments.parse_args()
    windows, alone = (
        restorer_of(EnhancementSettings(model=options.model)),
        restorer_of(EnhancementSettings()),
    )
    rows = []
    for number, path in enumerate(options.structures):
        atoms = read_structure(path)
        specimen = SpecimenSettings(coverage=0.3, contrast=options.contrast)
        base = SimulationSettings(
            shape=(512, 512), frames=FRAMES, exposure_e_per_a2=2.0, specimen=specimen
        )
        told = {
            "defocus_angstrom": DEFOCUS_ANGSTROM[number % len(DEFOCUS_ANGSTROM)],
            "b_factor_angstrom2": options.b_factor,
        }
        settings = base.model_copy(update={"optics": base.optics.model_copy(update=told)})
        projector = Projector(
            build_potential(atoms, settings.pixel_size_angstrom), settings.optics.voltage_kv
        )
        shot = MovieSimulator(
            settings, [ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector)], number
        )
        movie = shot.movie(atoms.name)
        started = time.process_time()
        enhanced = windows(movie, frames=True)
        seconds = time.process_time() - started
        assert enhanced.frames is not None
        of_frames = []
        for t in SCORED:
            truth = shot.clean_frame(t)
            one = alone(replace(movie, frames=movie.frame(t).numpy()[None]))
            around = torch.stack(
                [movie.frame(i) for i in range(max(0, t - HALF), min(FRAMES, t + HALF + 1))]
            ).sum(0)
            of_window, sigma = best_gaussian(around, truth)
            if options.picture and not number and t == SCORED[1]:
                smooth = filtered(
                    around, torch.exp(-2 * (torch.pi * sigma * radial_frequency(movie.shape)) ** 2)
                )
                draw(options.picture, movie.frame(t), smooth, enhanced.frames[t], truth)
            of_frames.append(
                {
                    "raw frame": residual_after_best_shift(movie.frame(t), truth),
                    "best Gaussian of it": best_gaussian(movie.frame(t), truth)[0],
                    "best Gaussian of the window": of_window,
                    "whole movies' weights on it alone": residual_after_best_shift(
                        one.micrograph, truth
                    ),
                    "enhanced frame": residual_after_best_shift(enhanced.frames[t], truth),
                }
            )
        row = {k: sum(f[k] for f in of_frames) / len(of_frames) for k in of_frames[0]}
        level = float(movie.frame(0).mean())
        counts = torch.poisson(
            torch.full((FRAMES, *movie.shape), level),
            generator=torch.Generator().manual_seed(number),
        ).numpy()
        nothing = windows(replace(movie, frames=counts), frames=True).frames
        assert nothing is not None
        row |= {
            "pure noise over particles, power": float(
                nothing.var(dim=(1, 2)).mean() / enhanced.frames.var(dim=(1, 2)).mean()
            ),
            "whole movies' weights, micrograph": residual_after_best_shift(
                alone(movie).micrograph, shot.truth.clean
            ),
            "best Gaussian of the aligned sum": best_gaussian(
                enhanced.sums.total, shot.truth.clean
            )[0],
            "micrograph": residual_after_best_shift(enhanced.micrograph, shot.truth.clean),
            "cpu seconds": seconds,
        }
        rows.append({"movie": atoms.name, **row})
        print(
            json.dumps(
                {k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}
            ),
            flush=True,
        )
    mean = {k: sum(r[k] for r in rows) / len(rows) for k in rows[0] if k != "movie"}
    print("mean", json.dumps({k: round(v, 3) for k, v in mean.items()}))
    record = {"version": __version__, "model": windows.card.name, "sha256": windows.card.sha256}
    record |= {"contrast": options.contrast, "b_factor_angstrom2": options.b_factor}
    options.output.write_text(json.dumps({**record, "mean": mean, "movies": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
