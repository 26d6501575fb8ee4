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
from pathlib import Path

import numpy as np
import starfile
import torch

from dstnet import __version__
from dstnet.alignment import AlignmentSettings, MovieMotion, align
from dstnet.io import open_movie, write_tiff
from dstnet.motion.field import local_displacement
from dstnet.motion.relion import from_relion
from dstnet.potential import Projector, build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import phantom, read_structure

CASES = (
    (768, 24, 2.0, 3),
    (1024, 20, 1.0, 3),
)  # side, frames, e-/Å2 a frame, RELION's patches a side
LARGE = (4096, 40, 1.0, 5)


def errors(motion: MovieMotion, shot: MovieSimulator) -> dict[str, float]:
    """Rms errors in pixels."""
    field, planted = (
        torch.stack([local_displacement(c, (9, 9)) for c in coefficients])
        for coefficients in (
            motion.local_coefficients_angstrom,
            shot.truth.local_coefficients_angstrom,
        )
    )
    pixel = shot.settings.pixel_size_angstrom
    shift = motion.shifts_angstrom - shot.truth.global_shift_angstrom
    return {
        "global px": float(shift.square().mean().sqrt()) / pixel,
        "local px": float((field - planted).square().mean().sqrt()) / pixel,
    }


def likeness(image: torch.Tensor, truth: torch.Tensor) -> float:
    """Correlation inside a border of 32 pixels."""
    return float(
        torch.corrcoef(torch.stack([i[32:-32, 32:-32].flatten() for i in (image, truth)]))[0, 1]
    )


def relion_motion(path: Path, pixel: float, patches: int) -> MovieMotion | None:
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
    return MovieMotion(*from_relion(starfile.read(star))) if star.exists() else None


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("structures", nargs="*", type=Path)
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--large", action="store_true")
    arguments.add_argument("--contrast", type=float, default=1.0)
    options = arguments.parse_args()
    strong, rows = options.contrast != 1, []
    cases = (*(() if strong and options.large else CASES), *((LARGE,) if options.large else ()))
    for atoms in (phantom(), *(read_structure(path) for path in options.structures)):
        for case in cases:
            side, frames, exposure, patches = case
            for seed in range(options.seeds if case != LARGE else 1):
                specimen = SpecimenSettings(coverage=0.3, contrast=options.contrast)
                settings = SimulationSettings(
                    shape=(side, side), frames=frames, exposure_e_per_a2=exposure, specimen=specimen
                )
                pixel = settings.pixel_size_angstrom
                projector = Projector(build_potential(atoms, pixel), settings.optics.voltage_kv)
                shot = MovieSimulator(
                    settings,
                    [ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector)],
                    seed,
                )
                truth = shot.truth.clean
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "m.tif"
                    write_tiff(
                        path, (frame.numpy().astype(np.uint8) for frame in shot.frames()), pixel
                    )
                    movie = open_movie(path, pixel_size_angstrom=pixel)
                    planted = MovieMotion(
                        shot.truth.global_shift_angstrom, shot.truth.local_coefficients_angstrom
                    )
                    still = MovieMotion.of_shifts(torch.zeros(frames, 2))
                    ours, without = (
                        align(movie, AlignmentSettings()),
                        align(movie, AlignmentSettings(patches=0)),
                    )
                    row = {
                        "movie": f"{atoms.name} {side} x {side} x {frames}",
                        "seed": seed,
                        "notes": list(ours.notes),
                    }
                    row["no motion"] = errors(still, shot)
                    row["global only"] = errors(without.motion, shot) | {
                        "likeness": likeness(without.total, truth)
                    }
                    row["local"] = errors(ours.motion, shot) | {
                        "likeness": likeness(ours.total, truth)
                    }
                    theirs = relion_motion(path, pixel, patches)
                    for name, motion in (
                        ("no motion", still),
                        ("planted", planted),
                        ("RELION's motion", theirs),
                    ):
                        if motion is not None:
                            total = align(movie, AlignmentSettings(), motion=motion).total
                            row[name] = (errors(motion, shot)) | {
                                "likeness": likeness(total, truth)
                            }
                rows.append(row)
                print(json.dumps(row), flush=True)
    record: dict = {
        "version": __version__,
        "contrast": options.contrast,
        "lowered": sum(r["local"]["likeness"] < r["global only"]["likeness"] for r in rows),
        "movies": rows,
    }
    name = "alignment_contrast.json" if strong else "alignment.json"
    (Path(__file__).parents[1] / "results" / name).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
