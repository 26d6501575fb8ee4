"""Do simulated movies look like real ones? Apoferritin, simulated and real, in the same numbers and
one figure.

    python benchmarks/quality/apoferritin_match.py DATA_FOLDER STRUCTURE [--recipe RECIPE] [--fields
    10] [--shape 1200 1240]

DATA_FOLDER holds, for each real field, NAME_average.mrc (plain average of an unaligned movie),
NAME_frame.mrc (one frame of it) and, where there are picks, NAME_picks.csv (x and y in pixels).
Their counts were scaled, so that everything is compared in units of the shot noise, measured at
high frequency: power spectra of average and frame, coherence of the frame with the rest of the
movie (the average without the frame), local standard deviation, mean profile of the particles,
their density, and the electrons per pixel that the skewness of the noise tells. The same is
computed for movies that the simulator makes by the recipe, and by a plain exposure of 42 e-/A2 with
every other setting at its default, where one did not tune.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from field_figures import draw
from field_statistics import (
    PERCENTILES,
    PIXEL_ANGSTROM,
    RING_MIDDLES,
    Field,
    between,
    measured,
    middle,
)
from scenes import RESULTS, species_of

from dstnet import __version__
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.simulation.recipe import Recipe
from dstnet.structure import read_structure

FRAMES = 42
# The real one carries 0.64 to 0.86 of the mean frame's signal (90 to 28 Å), as damage leaves in the
# last.
FRAME_KEPT = 41
UNTUNED = Recipe(
    settings=SimulationSettings(
        frames=FRAMES, pixel_size_angstrom=PIXEL_ANGSTROM, exposure_e_per_a2=1.0
    )
)
SPECTRUM_RANGE = (1 / 400, 1 / 8)  # 1/Angstrom; above is noise, below a ring has a few terms only
OVER_RINGS = ("average spectrum", "frame spectrum", "coherence")
COMPARED = (*OVER_RINGS, "local sd", "profile", "particles per um2", "electrons per pixel")
# Mean of a statistic between two resolutions in Angstrom, by what the table calls it.
BANDS = {
    "average power, 500-150 A": ("average spectrum", 500, 150),
    "average power, 80-30 A": ("average spectrum", 80, 30),
    "average power, 22-12 A": ("average spectrum", 22, 12),
    "average power, 12-7 A": ("average spectrum", 12, 7),
    "frame power, 80-30 A": ("frame spectrum", 80, 30),
    "frame power, 22-7 A": ("frame spectrum", 22, 7),
    "coherence, 80-30 A": ("coherence", 80, 30),
    "coherence, 22-12 A": ("coherence", 22, 12),
}
Row = dict[str, Any]


def real_fields(folder: Path) -> list[Field]:
    """The fields in `folder`."""
    fields = []
    for path in sorted(folder.glob("*_average.mrc")):
        stem = path.name.removesuffix("_average.mrc")
        average, frame = (
            np.squeeze(mrcfile.read(folder / f"{stem}_{kind}.mrc")).astype(float)
            for kind in ("average", "frame")
        )
        picks = folder / f"{stem}_picks.csv"
        centres = None
        if picks.exists():
            centres = np.loadtxt(picks, delimiter=",", skiprows=1)[:, ::-1]
        fields.append(Field(stem, average, frame, centres))
    return fields


def simulated_fields(
    recipe: Recipe, structure: Path, count: int, shape: tuple[int, int], seed: int
) -> list[Field]:
    """`count` movies by `recipe`, each as its unaligned average, one frame of it and its true
    particle centres.
    """
    atoms = read_structure(structure)
    fields = []
    for index in range(count):
        settings = recipe.settings_of(seed + index).model_copy(update={"shape": shape})
        simulator = MovieSimulator(settings, [species_of(atoms, settings)], seed + index)
        average, kept = np.zeros(shape), np.zeros(shape)
        for t, frame in enumerate(simulator.frames()):
            average += frame.numpy() / settings.frames
            if t == FRAME_KEPT:
                kept = frame.numpy().astype(float)
        particles = simulator.truth.particles
        centres = np.array([(p.y_angstrom, p.x_angstrom) for p in particles])
        centres = centres / settings.pixel_size_angstrom
        name, defocus = f"simulated {index}", settings.optics.defocus_angstrom
        fields.append(Field(name, average, kept, centres, defocus))
    return fields


def mismatches(rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
    """One figure a statistic, 0 for agreement of the fields' medians.

    Spectra, local standard deviation, density, electrons: root mean square (over rings,
    percentiles) of the natural logarithm of the ratio, so that 0.1 is 10 %. Coherence: root mean
    square difference. Profile: root mean square difference over the range of the real one.
    """
    used = between(RING_MIDDLES, SPECTRUM_RANGE)
    found = {}
    for name in COMPARED:
        if not any(name in row for row in rows):
            continue
        ours, theirs = middle(rows, name), middle(reference, name)
        if name in OVER_RINGS:
            ours, theirs = ours[used], theirs[used]
        if name in ("coherence", "profile"):
            difference = ours - theirs
        else:
            difference = np.log(ours / theirs)
        scale = float(np.ptp(theirs)) if name == "profile" else 1.0
        found[name] = float(np.sqrt(np.mean(difference**2))) / scale
    return found


def scatter(rows: Sequence[Row]) -> dict[str, float]:
    """How far a field lies from the others (median of its mismatches): the agreement that can be
    had.
    """
    each = [mismatches([row], [other for other in rows if other is not row]) for row in rows]
    return {name: float(np.median([e[name] for e in each if name in e])) for name in each[0]}


def numbers(row: Row) -> dict[str, float]:
    """What the table shows of one field."""
    shown = {}
    for title, (name, coarse, fine) in BANDS.items():
        inside = between(RING_MIDDLES, (1 / coarse, 1 / fine))
        shown[title] = float(np.mean(row[name][inside]))
    local = row["local sd"]
    shown["local sd, median"] = float(local[len(PERCENTILES) // 2])
    shown["local sd, 95th over 5th percentile"] = float(local[-1] / local[0])
    shown["electrons per pixel and frame"] = row["electrons per pixel"]
    shown["frame shift px"] = row["frame shift px"]
    fitted = row["fit explains"] > 0.3
    shown["fitted defocus A"] = row["fitted defocus"] if fitted else math.nan
    if "profile" in row:
        profile = row["profile"]
        least = profile.min()
        shown["particle ring depth, noise sd"] = float(profile[:45].max() - least)
        shown["particle centre over ring, noise sd"] = float(profile[:6].mean() - least)
        shown["darkest radius A"] = float(profile.argmin()) * PIXEL_ANGSTROM
        shown["particles per um2"] = row["particles per um2"]
    return shown


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Of those that are known; not a number where none is."""
    known = np.array([value for value in values if math.isfinite(value)])
    return (float(known.mean()), float(known.std())) if len(known) else (math.nan, math.nan)


def table(groups: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and standard deviation over fields: {number: {group: (mean, sd)}}."""
    listed = {group: [numbers(row) for row in rows] for group, rows in groups.items()}
    names = dict.fromkeys(name for rows in listed.values() for row in rows for name in row)
    return {
        name: {
            group: mean_and_sd([row[name] for row in rows if name in row])
            for group, rows in listed.items()
        }
        for name in names
    }


def print_results(
    fields: Sequence[Field],
    groups: Mapping[str, Sequence[Row]],
    rows: Mapping[str, Mapping[str, tuple[float, float]]],
    wrong: Mapping[str, Mapping[str, float]],
) -> None:
    """The table, the mismatches and each real field's defocus."""
    print(f"{'':38s}" + "".join(f"{group:>20s}" for group in groups))
    for name, values in rows.items():
        print(f"{name:38s}" + "".join(f"{m:12.3f} ± {s:5.2f}" for m, s in values.values()))
    for name in wrong["recipe"]:
        print(f"mismatch, {name:28s}" + "".join(f"{w[name]:20.3f}" for w in wrong.values()))
    for field, row in zip(fields, groups["real"], strict=True):
        print(
            f"{field.name}: defocus {row['fitted defocus']:.0f} A (fit {row['fit explains']:.2f}),"
            f" shift {row['frame shift px']:.1f} px"
        )


def main() -> None:
    root = Path(__file__).parents[2]
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("data", type=Path, help="folder of the real fields")
    arguments.add_argument("structure", type=Path, help="apoferritin, PDB 6z6u")
    arguments.add_argument(
        "--recipe", default="empiar-10146", help="a shipped recipe or a YAML file"
    )
    arguments.add_argument(
        "--fields", type=int, default=10, help="movies to simulate by each settings"
    )
    arguments.add_argument(
        "--shape",
        type=int,
        nargs=2,
        default=(1200, 1240),
        metavar=("Y", "X"),
        help="of a simulated field, pixels",
    )
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument(
        "--no-untuned", action="store_true", help="leave out the movies of default settings"
    )
    arguments.add_argument("--output", type=Path, default=RESULTS / "apoferritin_match.json")
    arguments.add_argument(
        "--figure", type=Path, default=root / "docs" / "images" / "apoferritin_match.png"
    )
    options = arguments.parse_args()
    started = time.process_time()
    recipe = Recipe.named(options.recipe)
    sources = {"recipe": recipe}
    if not options.no_untuned:
        sources["untuned"] = UNTUNED
    shape = tuple(options.shape)
    fields = {"real": real_fields(options.data)}
    for group, source in sources.items():
        fields[group] = simulated_fields(
            source, options.structure, options.fields, shape, options.seed
        )
    groups = {group: [measured(field) for field in members] for group, members in fields.items()}
    rows = table(groups)
    real = groups["real"]
    wrong = {"real": scatter(real)}
    wrong |= {group: mismatches(groups[group], real) for group in sources}
    print_results(fields["real"], groups, rows, wrong)
    examples = {group: members[min(4, len(members) - 1)] for group, members in fields.items()}
    draw(examples, groups, wrong, options.figure)
    record = {
        "version": __version__,
        "machine": platform.processor() or platform.machine(),
        "cpu_seconds": round(time.process_time() - started),
        "fields": options.fields,
        "shape": list(options.shape),
        "seed": options.seed,
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "mismatch": wrong,
        "numbers": {
            name: {group: {"mean": mean, "sd": sd} for group, (mean, sd) in values.items()}
            for name, values in rows.items()
        },
        "real_defocus_angstrom": {
            field.name: row["fitted defocus"]
            for field, row in zip(fields["real"], real, strict=True)
        },
    }
    options.output.write_text(json.dumps(record, indent=1, allow_nan=True) + "\n")


if __name__ == "__main__":
    main()
