"""Errors of estimated motion on simulated movies, ours beside RELION's in the same run, and the
likeness of the sums to the truth.

    python benchmarks/quality/alignment.py [STRUCTURE...] [--seeds 2] [--large] [--contrast 1]

Movies are the built-in phantom's and those of each STRUCTURE, in moving ice, with burst, drift,
jitter and local motion: 768 x 768 x 24 of 2 e-/Å2, 1024 x 1024 x 20 and, with --large, 4096 x 4096
x 40 of 1 e-/Å2. Errors are rms per axis in pixels, of the global shifts over the frames and of the
local field over 9 x 9 places of all frames. Likeness is the correlation of a plain sum with the
undamaged contrast. RELION is left out where it is not installed. With --contrast, particles are so
many times as strong as they are: what is then left of the errors is the method's, not the signal's;
results go to alignment_contrast.json, of the large case alone with --large.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import starfile
import torch
from scenes import RESULTS, simulator_of, write_record

from dstnet import __version__
from dstnet.alignment import AlignmentSettings, align
from dstnet.core.shapes import Image
from dstnet.io import open_movie, write_tiff
from dstnet.metrics.image import correlation
from dstnet.metrics.motion import motion_error
from dstnet.motion import Motion
from dstnet.movie import Movie
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.structure import Atoms, phantom, read_structure

BORDER = 32  # pixels at each side that likeness leaves out


@dataclass(frozen=True)
class Case:
    """One kind of movie."""

    side: int
    frames: int
    exposure_e_per_a2: float
    relion_patches: int
    only_one_seed: bool = False


CASES = (Case(768, 24, 2.0, 3), Case(1024, 20, 1.0, 3))
LARGE = Case(4096, 40, 1.0, 5, only_one_seed=True)


def errors(motion: Motion, simulator: MovieSimulator) -> dict[str, float]:
    """Rms errors in pixels."""
    pixel = simulator.settings.pixel_size_angstrom
    error = motion_error(motion, simulator.truth.motion, pixel)
    return {"global px": error.global_px, "local px": error.local_px}


def likeness(image: Image, truth: Image) -> float:
    """Correlation inside the border."""
    inside = (slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return correlation(image[inside], truth[inside])


def relion_motion(path: Path, pixel: float, patches: int) -> Motion | None:
    """RELION's estimate, or None where it is not installed or makes none."""
    program = shutil.which("relion_run_motioncorr")
    if program is None:
        return None
    command = (
        f"--use_own --i {path.name} --o o/ --angpix {pixel} --voltage 300 --patch_x {patches}"
        f" --patch_y {patches} --j 1"
    )
    subprocess.run([program, *command.split()], cwd=path.parent, capture_output=True, check=False)
    star = path.parent / "o" / path.with_suffix(".star").name
    if not star.exists():
        return None
    tables = starfile.read(star, always_dict=True)
    return Motion.from_relion({str(name): table for name, table in tables.items()})


def score_motions(movie: Movie, simulator: MovieSimulator, relion: Motion | None) -> dict[str, Any]:
    """Errors and likeness by all estimates of one movie's motion."""
    truth = simulator.truth
    local = align(movie, AlignmentSettings())
    shifts_only = align(movie, AlignmentSettings(patches=0))
    still = Motion.of_shifts(torch.zeros(len(movie), 2))

    def scored(motion: Motion, total: Image) -> dict[str, float]:
        return errors(motion, simulator) | {"likeness": likeness(total, truth.clean)}

    def by(motion: Motion) -> dict[str, float]:
        return scored(motion, align(movie, AlignmentSettings(), motion=motion).total)

    row: dict[str, Any] = {
        "notes": list(local.notes),
        "no motion": by(still),
        "global only": scored(shifts_only.motion, shifts_only.total),
        "local": scored(local.motion, local.total),
        "planted": by(truth.motion),
    }
    if relion is not None:
        row["RELION's motion"] = by(relion)
    return row


def score_case(atoms: Atoms, case: Case, seed: int, contrast: float) -> dict[str, Any]:
    """One movie, made, written, read and aligned by all."""
    settings = SimulationSettings(
        shape=(case.side, case.side),
        frames=case.frames,
        exposure_e_per_a2=case.exposure_e_per_a2,
        specimen=SpecimenSettings(coverage=0.3, contrast=contrast),
    )
    pixel = settings.pixel_size_angstrom
    simulator = simulator_of(atoms, settings, seed)
    row: dict[str, Any] = {
        "movie": f"{atoms.name} {case.side} x {case.side} x {case.frames}",
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.tif"
        counts = (frame.numpy().astype(np.uint8) for frame in simulator.frames())
        write_tiff(path, counts, pixel)
        movie = open_movie(path, pixel_size_angstrom=pixel)
        relion = relion_motion(path, pixel, case.relion_patches)
        return row | score_motions(movie, simulator, relion)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("structures", nargs="*", type=Path)
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--large", action="store_true")
    arguments.add_argument("--contrast", type=float, default=1.0)
    options = arguments.parse_args()
    strong = options.contrast != 1
    cases = [] if strong and options.large else list(CASES)
    if options.large:
        cases.append(LARGE)
    rows = []
    for atoms in (phantom(), *(read_structure(path) for path in options.structures)):
        for case in cases:
            for seed in range(1 if case.only_one_seed else options.seeds):
                rows.append(score_case(atoms, case, seed, options.contrast))
                print(json.dumps(rows[-1]), flush=True)
    lowered = [row["local"]["likeness"] < row["global only"]["likeness"] for row in rows]
    record: dict[str, Any] = {
        "version": __version__,
        "contrast": options.contrast,
        "lowered": sum(lowered),
        "movies": rows,
    }
    write_record(RESULTS / ("alignment_contrast.json" if strong else "alignment.json"), record)


if __name__ == "__main__":
    main()
