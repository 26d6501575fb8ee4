"""Average precision of the template-free picker on annotated real micrographs: in the image as it
is, and in what was made of it.

    python benchmarks/quality/picking.py SET_FOLDER [NAME=FOLDER:SUFFIX ...] [--output FILE]

SET_FOLDER holds NAME.mrc, NAME_picks.csv (x,y in pixels from the first row and column, one header
line) and set.json (diameter_angstrom); each further argument names a folder in which FIELD+SUFFIX
.mrc stands for every field, e.g. contrast=out/micrographs:_contrast. Printed: average precision in
each field, its mean, and in how many fields it is at least that of the image as it is.
"""

import argparse
import json
from pathlib import Path

import mrcfile
import numpy as np
import torch
from scenes import print_row, write_record

from dstnet import __version__
from dstnet.metrics.picking import TOLERANCE, average_precision
from dstnet.picking import pick_blobs

RAW = "raw"


def read_image(path: Path) -> torch.Tensor:
    """[y, x], float64."""
    return torch.from_numpy(np.squeeze(mrcfile.read(path)).astype(float))


def score_field(
    field: Path, made: dict[str, tuple[Path, str]], diameter_angstrom: float
) -> dict[str, float]:
    """Average precision in a field and in what was made of it, `made` saying where that lies."""
    name = field.stem
    with mrcfile.open(field, header_only=True) as file:
        diameter_px = diameter_angstrom / float(file.voxel_size.x)
    picks_file = field.with_name(f"{name}_picks.csv")
    centres = np.loadtxt(picks_file, delimiter=",", skiprows=1)[:, ::-1]
    paths = {RAW: field}
    paths |= {key: folder / f"{name}{suffix}.mrc" for key, (folder, suffix) in made.items()}
    scores = {}
    for key, path in paths.items():
        picks = pick_blobs(read_image(path), diameter_px)
        looked_for = centres[picks.searched(centres)]
        found = average_precision(picks.centres_px, looked_for, TOLERANCE * diameter_px)
        scores[key] = round(found, 3)
    return scores


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("folder", type=Path, metavar="SET_FOLDER")
    arguments.add_argument("made", nargs="*", metavar="NAME=FOLDER:SUFFIX")
    arguments.add_argument("--output", type=Path, help="results as JSON")
    options = arguments.parse_args()
    made = {}
    for argument in options.made:
        key, _, where = argument.partition("=")
        folder, _, suffix = where.rpartition(":")
        made[key] = (Path(folder), suffix)
    diameter = json.loads((options.folder / "set.json").read_text())["diameter_angstrom"]
    rows = []
    for picks in sorted(options.folder.glob("*_picks.csv")):
        field = picks.with_name(f"{picks.name.removesuffix('_picks.csv')}.mrc")
        rows.append({"field": field.stem} | score_field(field, made, diameter))
        print_row(rows[-1])
    summary = {}
    for key in (RAW, *made):
        precise = [row[key] >= row[RAW] for row in rows]
        mean = float(np.mean([row[key] for row in rows]))
        summary[key] = {"mean": mean, "at_least_raw": sum(precise)}
        print(f"mean {key}: AP {mean:.3f}, at least raw's in {sum(precise)} of {len(rows)} fields")
    if options.output:
        record = {"version": __version__, "set": options.folder.name, "mean": summary}
        write_record(options.output, record | {"fields": rows})


if __name__ == "__main__":
    main()
