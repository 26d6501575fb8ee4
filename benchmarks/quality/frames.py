"""Residual energy of single raw frames, each enhanced where it lies by weights of raw frames,
beside what simpler methods leave.

    python benchmarks/quality/frames.py STRUCTURE... [--model NAME_OR_FILE] [--contrast 2.5]
    [--b-factor 100]

Movies of 512 x 512 x 16 frames of 2 e-/Å2 at 1.06 Å/px, 30 % of the field under particles, with
drift, local motion, moving ice and damage. Three frames of each are scored, after the best shift,
48 pixels at each border left out, as 1 - r^2 against the clean frame with its motion and damage in
it. Gaussians are the best of a sweep by the truth: of the raw frame, and of the sum of the five
unaligned frames around it. Beside them, what the default weights, which are for aligned movies,
make of the frame alone; and the power of enhanced frames of pure Poisson noise over that of these.
Micrographs of the same weights are scored by `dstnet evaluate`.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
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
from dstnet.core.shapes import Image
from dstnet.enhancement import EnhancementSettings, Restored, Restorer, make_restorer
from dstnet.metrics.image import residual_after_best_shift
from dstnet.metrics.oracle import best_gaussian, gaussian_filtered
from dstnet.movie import Movie
from dstnet.network.weights import DEFAULT_MODEL
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.structure import read_structure

FRAMES, SCORED, HALF = 16, (2, 8, 13), 2
TITLES = ("raw frame, 2 e⁻/Å²", "five frames, best Gaussian", "enhanced", "truth")


def draw(path: Path, *images: Image) -> None:
    """The images side by side."""
    figure, panels = plt.subplots(1, len(TITLES), figsize=(13, 3.6))
    for axes, title, image in zip(panels, TITLES, images, strict=True):
        low, high = np.percentile(image, (1, 99))
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower")
        axes.set_title(title)
        axes.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def neighbours(movie: Movie, frame: int) -> Image:
    """Sum of a frame and those around it, unaligned."""
    first, last = max(0, frame - HALF), min(len(movie), frame + HALF + 1)
    return torch.stack([movie.frame(i) for i in range(first, last)]).sum(0)


def score_frame(
    simulator: MovieSimulator, movie: Movie, enhanced: Image, frame: int, aligned_weights: Restorer
) -> dict[str, float]:
    """One frame by all methods."""
    truth = simulator.clean_frame(frame)
    raw = movie.frame(frame)
    # Its exposure is that of a frame which nothing went before.
    alone = replace(movie.subset([0]), frames=raw.numpy()[None])
    _, restored = enhance(alone, aligned_weights)
    return {
        "raw frame": residual_after_best_shift(raw, truth),
        "best Gaussian of it": best_gaussian(raw, truth)[0],
        "best Gaussian of the window": best_gaussian(neighbours(movie, frame), truth)[0],
        "whole movies' weights on it alone": residual_after_best_shift(restored.micrograph, truth),
        "enhanced frame": residual_after_best_shift(enhanced, truth),
    }


def enhanced_noise(movie: Movie, windows: Restorer, seed: int) -> Restored:
    """Frames of nothing but shot noise, as many electrons as in the movie's first, enhanced."""
    level = float(movie.frame(0).mean())
    rates = torch.full((len(movie), *movie.shape), level)
    counts = torch.poisson(rates, generator=torch.Generator().manual_seed(seed))
    return enhance(replace(movie, frames=counts.numpy()), windows, ("micrograph", "frames"))[1]


def score_movie(
    simulator: MovieSimulator, name: str, number: int, windows: Restorer, aligned_weights: Restorer
) -> tuple[dict[str, Any], Movie, Restored]:
    """One movie by all methods, its frames' scores averaged; the movie, and what weights of raw
    frames made of it.
    """
    movie = simulator.movie(name)
    started = time.process_time()
    _, restored = enhance(movie, windows, ("micrograph", "frames"))
    seconds = time.process_time() - started
    rows = [score_frame(simulator, movie, restored.frames[t], t, aligned_weights) for t in SCORED]
    nothing = enhanced_noise(movie, windows, number).frames
    of_nothing = nothing.var(dim=(1, 2)).mean()
    of_particles = restored.frames.var(dim=(1, 2)).mean()
    row: dict[str, Any] = {"movie": name} | means(rows)
    row["pure noise over particles, power"] = float(of_nothing / of_particles)
    row["cpu seconds"] = seconds
    return row, movie, restored


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("structures", nargs="+", type=Path)
    arguments.add_argument("--model", default="dstnet-window-1")
    arguments.add_argument("--contrast", type=float, default=2.5)
    arguments.add_argument("--b-factor", type=float, default=100.0)
    arguments.add_argument("--output", type=Path, default=RESULTS / "frames.json")
    arguments.add_argument(
        "--picture", type=Path, help="a frame of the first movie beside what is known of it"
    )
    options = arguments.parse_args()
    windows = make_restorer(EnhancementSettings(model=options.model))
    aligned_weights = make_restorer(EnhancementSettings(model=DEFAULT_MODEL))
    specimen = SpecimenSettings(coverage=0.3, contrast=options.contrast)
    base = SimulationSettings(
        shape=(512, 512), frames=FRAMES, exposure_e_per_a2=2.0, specimen=specimen
    )
    rows: list[dict[str, Any]] = []
    for number, path in enumerate(options.structures):
        atoms = read_structure(path)
        settings = settings_of(base, number, options.b_factor)
        simulator = simulator_of(atoms, settings, number)
        row, movie, restored = score_movie(simulator, atoms.name, number, windows, aligned_weights)
        if options.picture and not number:
            shown = SCORED[1]
            truth, around = simulator.clean_frame(shown), neighbours(movie, shown)
            smooth = gaussian_filtered(around, best_gaussian(around, truth)[1])
            draw(options.picture, movie.frame(shown), smooth, restored.frames[shown], truth)
        rows.append(row)
        print_row(row)
    mean = means(rows)
    print_means(mean)
    description = windows.describe()
    record = {
        "version": __version__,
        "model": windows.name,
        "sha256": description["weights_sha256"],
        "contrast": options.contrast,
        "b_factor_angstrom2": options.b_factor,
        "mean": mean,
        "movies": rows,
    }
    write_record(options.output, record)


if __name__ == "__main__":
    main()
