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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import mrcfile
import numpy as np
from scipy import ndimage

from dstnet import __version__
from dstnet.potential import build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.simulation.recipe import Recipe
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import read_structure

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

FRAMES = 42
# the files say 1.5; the ring of 6z6u and the valleys of its spectrum fit between 1.52 and 1.54
PIXEL_ANGSTROM = 1.52
# the real one carries 0.64 to 0.86 of the mean frame's signal (90 to 28 Å), as damage leaves in the
# last
FRAME_KEPT = 41
UNTUNED = Recipe(
    settings=SimulationSettings(
        frames=FRAMES, pixel_size_angstrom=PIXEL_ANGSTROM, exposure_e_per_a2=1.0
    )
)

NOISE_BAND = (0.36, 0.48)  # cycles per pixel: shot noise outweighs all else
SKEW_BAND = (
    0.10,
    0.24,
    # holds triads k1 + k2 = k3, and twice its end is below Nyquist: blind to how the pixels were
    # binned
)
RINGS = np.geomspace(1 / 500, 1 / 3.1, 56)  # edges in 1/Angstrom
SPECTRUM_RANGE = (1 / 400, 1 / 8)  # 1/Angstrom; above is noise, below a ring has a few terms only
LOW_PASS_PX, WINDOW_PX = 4.0, 100
PERCENTILES = np.arange(5, 100, 5)
RADII_PX = np.arange(56)
HIGH_PASS_PX = 60.0


@dataclass(frozen=True)
class Field:
    """One field of view: arrays [y, x]; centres [n, 2] as (y, x) in pixels, or None where nobody
    picked.
    """

    name: str
    average: np.ndarray
    frame: np.ndarray
    centres: np.ndarray | None
    defocus_angstrom: float | None = None


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
        centres = np.loadtxt(picks, delimiter=",", skiprows=1)[:, ::-1] if picks.exists() else None
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
        species = ProjectedSpecies.of(
            build_potential(atoms, settings.pixel_size_angstrom), settings.optics.voltage_kv
        )
        shot = MovieSimulator(settings, [species], seed + index)
        average, one = np.zeros(shape), np.zeros(shape)
        for t, frame in enumerate(shot.frames()):
            average += frame.numpy() / settings.frames
            if t == FRAME_KEPT:
                one = frame.numpy().astype(float)
        pixel = settings.pixel_size_angstrom
        centres = np.array(
            [(p.y_angstrom / pixel, p.x_angstrom / pixel) for p in shot.truth.particles]
        )
        fields.append(
            Field(f"simulated {index}", average, one, centres, settings.optics.defocus_angstrom)
        )
    return fields


def frequency(shape: tuple[int, ...]) -> np.ndarray:
    """Cycles per pixel on the ``rfft2`` grid."""
    return np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])


def transform(image: np.ndarray) -> np.ndarray:
    """``rfft2`` of an image less its mean, under a window that fades the outer twentieth, so that
    its borders do not ring.
    """
    y, x = (
        np.clip(np.minimum(np.arange(n), np.arange(n)[::-1]) / (0.05 * n), 0, 1)
        for n in image.shape
    )
    window = np.sin(np.pi / 2 * y)[:, None] ** 2 * np.sin(np.pi / 2 * x)[None] ** 2
    window /= math.sqrt(np.mean(window**2))
    return np.fft.rfft2((image - image.mean()) * window)


def ring_means(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Mean of `values` (on the ``rfft2`` grid) in each of `RINGS`; a ring without a term (small
    fields) gets its neighbours' mean.
    """
    index = np.digitize(frequency(shape) / PIXEL_ANGSTROM, RINGS).ravel() - 1
    inside = (index >= 0) & (index < len(RINGS) - 1)
    count = np.bincount(index[inside], minlength=len(RINGS) - 1)
    total = np.bincount(index[inside], values.ravel()[inside], minlength=len(RINGS) - 1)
    known = count > 0
    return np.interp(np.arange(len(count)), np.flatnonzero(known), total[known] / count[known])


def between(k: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    """Where `k` lies in `band`."""
    return (k > band[0]) & (k < band[1])


def best_shift(
    a: np.ndarray, b: np.ndarray, shape: tuple[int, ...], reach: int = 15
) -> tuple[int, int]:
    """By how many pixels (y, x) the image of spectrum `b` is moved against that of `a`, up to
    `reach`; from 10 to 150 Angstrom.
    """
    band = between(frequency(shape) / PIXEL_ANGSTROM, (1 / 150, 1 / 10))
    near = np.roll(np.fft.irfft2(np.where(band, b * a.conj(), 0), s=shape), (reach, reach), (0, 1))[
        : 2 * reach + 1, : 2 * reach + 1
    ]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    return int(y) - reach, int(x) - reach


def coherence(average: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Correlation of the frame with the rest of its movie in each ring, at the best shift, and that
    shift.

    The rest is the average less as much of the frame as makes their noise independent: no cross
    term at high frequency.
    """
    shape = average.shape
    a, f = transform(average), transform(frame)
    high = between(frequency(shape), (0.3, 0.48))
    rest = a - f * (np.real(a * f.conj())[high].sum() / (np.abs(f) ** 2)[high].sum())
    y, x = best_shift(rest, f, shape)
    cross = (
        f
        * rest.conj()
        * np.exp(
            2j
            * np.pi
            * (np.fft.fftfreq(shape[0])[:, None] * y + np.fft.rfftfreq(shape[1])[None] * x)
        )
    )
    power = ring_means(np.abs(f) ** 2, shape) * ring_means(np.abs(rest) ** 2, shape)
    return ring_means(cross.real, shape) / np.sqrt(power), (y, x)


def noise_sd(image: np.ndarray) -> float:
    """Standard deviation per pixel that white noise of the power in `NOISE_BAND` would have."""
    power = np.abs(transform(image)) ** 2
    return math.sqrt(float(power[between(frequency(image.shape), NOISE_BAND)].mean()) / image.size)


def skewness(image: np.ndarray) -> float:
    """Skewness of the image between the limits of `SKEW_BAND`."""
    spectrum = np.fft.rfft2(image - image.mean())
    x = np.fft.irfft2(
        np.where(between(frequency(image.shape), SKEW_BAND), spectrum, 0), s=image.shape
    )
    return float((x**3).mean() / (x**2).mean() ** 1.5)


def electrons_per_pixel(frame: np.ndarray) -> float:
    """Detected electrons per pixel of a frame: the skewness of Poisson counts is one over the root
    of their mean.

    Good to about 10 % for one frame, so that only the mean over fields says much.
    """
    few = 0.02  # strong skewness, hence precisely known
    unit = skewness(np.random.default_rng(1).poisson(few, (2048, 2048)).astype(float)) * math.sqrt(
        few
    )
    return (unit / skewness(frame)) ** 2


def local_sd(average: np.ndarray) -> np.ndarray:
    """`PERCENTILES` of the standard deviation in windows of the low-passed average, in units of the
    noise's.
    """
    smooth = ndimage.gaussian_filter(average - average.mean(), LOW_PASS_PX)
    mean, square = (ndimage.uniform_filter(v, WINDOW_PX) for v in (smooth, smooth**2))
    edge, step = WINDOW_PX // 2, WINDOW_PX // 4
    sd = np.sqrt(np.maximum(square - mean**2, 0))[edge:-edge:step, edge:-edge:step]
    return np.percentile(sd, PERCENTILES) / noise_sd(average)


def particle_profile(average: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Mean rotational profile of the particles, in units of the noise's standard deviation, over
    `RADII_PX`.

    Centres are refined twice, by up to 6 pixels, against the mean profile itself: annotated ones
    are a few pixels off.
    """
    image = (average - ndimage.gaussian_filter(average, HIGH_PASS_PX)) / noise_sd(average)
    half, reach = len(RADII_PX), 6
    inner = half + reach + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    radius = np.rint(np.hypot(y, x)).astype(int)
    inside = radius < half
    count = np.bincount(radius[inside])
    ok = ((centres > inner) & (centres < np.array(average.shape) - inner)).all(1)
    places = np.rint(centres[ok]).astype(int)

    def profile(at: np.ndarray) -> np.ndarray:
        total = sum(image[a - half : a + half + 1, b - half : b + half + 1] for a, b in at)
        return np.bincount(radius[inside], np.asarray(total)[inside]) / count / len(at)

    for _ in range(2):
        ring = profile(places)
        template = np.where(inside, ring[np.minimum(radius, half - 1)], 0)
        template[inside] -= template[inside].mean()
        refined = []
        for a, b in np.rint(centres[ok]).astype(int):
            patch = image[
                a - half - reach : a + half + reach + 1, b - half - reach : b + half + reach + 1
            ]
            windows = np.lib.stride_tricks.sliding_window_view(patch, template.shape)
            score = np.einsum("ijyx,yx->ij", windows, template)
            dy, dx = np.unravel_index(int(score.argmax()), score.shape)
            refined.append((a + dy - reach, b + dx - reach))
        places = np.array(refined)
    return profile(places)


def fitted_defocus(average: np.ndarray, voltage_kv: float = 300.0) -> tuple[float, float]:
    """Mean underfocus in Angstrom, from the Thon rings between 22 and 7 Angstrom, and how much of
    the spectrum's shape they explain.

    The spherical aberration is left out: at these frequencies it changes the defocus by less than 1
    %.
    """
    k = np.linspace(1 / 22, 1 / 7, 221)
    r = frequency(average.shape) / PIXEL_ANGSTROM
    index = np.digitize(r, k).ravel()
    power = np.bincount(index, (np.abs(transform(average)) ** 2).ravel()) / np.bincount(index)
    k, y = 0.5 * (k[1:] + k[:-1]), np.log(power[1 : len(k)])
    wavelength = 12.2643 / math.sqrt(voltage_kv * 1e3 + 0.97845e-6 * (voltage_kv * 1e3) ** 2)
    smooth = np.stack([np.ones_like(k), k, k**2, k**-2], 1)

    def unexplained(columns: np.ndarray) -> tuple[float, float]:
        weights = np.linalg.lstsq(columns, y, rcond=None)[0]
        return float(((y - columns @ weights) ** 2).sum()), float(weights[-1])

    plain = unexplained(smooth)[0]
    best = (0.0, 0.0)
    for defocus in range(6000, 32000, 100):
        rings = np.sin(np.pi * wavelength * defocus * k**2 + math.asin(0.07)) ** 2 * np.exp(
            -60 * k**2
        )
        left, weight = unexplained(np.column_stack([smooth, rings]))
        if weight > 0:
            best = max(best, (1 - left / plain, float(defocus)))
    return best[1], best[0]


def measured(field: Field) -> dict:
    """All statistics of one field; arrays over rings, percentiles or radii, and numbers."""
    shape = field.average.shape
    correlation, shift = coherence(field.average, field.frame)
    defocus, explained = fitted_defocus(field.average)
    out = {
        "average spectrum": (
            ring_means(np.abs(transform(field.average)) ** 2, shape)
            / noise_sd(field.average) ** 2
            / field.average.size
        ),
        "frame spectrum": (
            ring_means(np.abs(transform(field.frame)) ** 2, shape)
            / noise_sd(field.frame) ** 2
            / field.frame.size
        ),
        "coherence": correlation,
        "local sd": local_sd(field.average),
        "electrons per pixel": electrons_per_pixel(field.frame),
        "frame shift px": math.hypot(*shift),
        "fitted defocus": defocus,
        "fit explains": explained,
    }
    if field.centres is not None:
        out["profile"] = particle_profile(field.average, field.centres)
        out["particles per um2"] = len(field.centres) / (
            shape[0] * shape[1] * PIXEL_ANGSTROM**2 * 1e-8
        )
    if field.defocus_angstrom is not None:
        out["true defocus"] = field.defocus_angstrom
    return out


def middle(rows: Sequence[dict], name: str) -> np.ndarray:
    """Median of a statistic over the fields that have it."""
    return np.median([r[name] for r in rows if name in r], axis=0)


def mismatches(rows: Sequence[dict], reference: Sequence[dict]) -> dict[str, float]:
    """One figure a statistic, 0 for agreement of the fields' medians.

    Spectra, local standard deviation, density, electrons: root mean square (over rings,
    percentiles) of the natural logarithm of the ratio, so that 0.1 is 10 %. Coherence: root mean
    square difference. Profile: root mean square difference over the range of the real one.
    """
    ring = np.sqrt(RINGS[1:] * RINGS[:-1])
    used = between(ring, SPECTRUM_RANGE)
    out = {}
    for name in (
        "average spectrum",
        "frame spectrum",
        "coherence",
        "local sd",
        "profile",
        "particles per um2",
        "electrons per pixel",
    ):
        if not any(name in r for r in rows):
            continue
        ours, theirs = middle(rows, name), middle(reference, name)
        if name in ("average spectrum", "frame spectrum", "coherence"):
            ours, theirs = ours[used], theirs[used]
        difference = ours - theirs if name in ("coherence", "profile") else np.log(ours / theirs)
        scale = float(np.ptp(theirs)) if name == "profile" else 1.0
        out[name] = float(np.sqrt(np.mean(difference**2))) / scale
    return out


def scatter(rows: Sequence[dict]) -> dict[str, float]:
    """How far a field lies from the others (median of its mismatches): the agreement that can be
    had.
    """
    each = [mismatches([r], [o for o in rows if o is not r]) for r in rows]
    return {name: float(np.median([e[name] for e in each if name in e])) for name in each[0]}


def numbers(row: dict) -> dict[str, float]:
    """What the table shows of one field."""
    ring = np.sqrt(RINGS[1:] * RINGS[:-1])

    def band(name: str, coarse: float, fine: float) -> float:
        return float(np.mean(row[name][between(ring, (1 / coarse, 1 / fine))]))

    out = {
        "average power, 500-150 A": band("average spectrum", 500, 150),
        "average power, 80-30 A": band("average spectrum", 80, 30),
        "average power, 22-12 A": band("average spectrum", 22, 12),
        "average power, 12-7 A": band("average spectrum", 12, 7),
        "frame power, 80-30 A": band("frame spectrum", 80, 30),
        "frame power, 22-7 A": band("frame spectrum", 22, 7),
        "coherence, 80-30 A": band("coherence", 80, 30),
        "coherence, 22-12 A": band("coherence", 22, 12),
        "local sd, median": float(row["local sd"][len(PERCENTILES) // 2]),
        "local sd, 95th over 5th percentile": float(row["local sd"][-1] / row["local sd"][0]),
        "electrons per pixel and frame": row["electrons per pixel"],
        "frame shift px": row["frame shift px"],
        "fitted defocus A": row["fitted defocus"] if row["fit explains"] > 0.3 else math.nan,
    }
    if "profile" in row:
        profile = row["profile"]
        out["particle ring depth, noise sd"] = float(profile[:45].max() - profile.min())
        out["particle centre over ring, noise sd"] = float(profile[:6].mean() - profile.min())
        out["darkest radius A"] = float(profile.argmin()) * PIXEL_ANGSTROM
        out["particles per um2"] = row["particles per um2"]
    return out


def table(groups: dict[str, list[dict]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and standard deviation over fields: {number: {group: (mean, sd)}}."""
    listed = {group: [numbers(r) for r in rows] for group, rows in groups.items()}
    names = list(dict.fromkeys(n for rows in listed.values() for r in rows for n in r))
    out: dict[str, dict[str, tuple[float, float]]] = {}
    for name in names:
        out[name] = {}
        for group, rows in listed.items():
            values = np.array([r[name] for r in rows if name in r])
            values = values[np.isfinite(values)]
            out[name][group] = (
                (float(values.mean()), float(values.std())) if len(values) else (math.nan, math.nan)
            )
    return out


def example(field: Field) -> np.ndarray:
    """The middle 600 x 600 pixels of the average, low-passed and in units of noise, for the eye."""
    image = (field.average - ndimage.gaussian_filter(field.average, 150)) / noise_sd(field.average)
    y, x = ((n - 600) // 2 for n in image.shape)
    return ndimage.gaussian_filter(image, 2)[y : y + 600, x : x + 600]


def draw(
    fields: dict[str, Field],
    groups: dict[str, list[dict]],
    wrong: dict[str, dict[str, float]],
    path: Path,
) -> None:
    """One figure: an example of each group above, the statistics below."""
    colours = dict(zip(groups, ("#222222", "#d1495b", "#b0b0b0"), strict=False))
    names = dict(zip(groups, ("real", "simulated, recipe", "simulated, untuned"), strict=False))
    figure = plt.figure(figsize=(11, 9.6), layout="constrained")
    top, bottom = (
        figure.add_subfigure(part) for part in figure.add_gridspec(2, 1, height_ratios=(1, 1.55))
    )
    for axes, (group, field) in zip(top.subplots(1, len(fields)), fields.items(), strict=True):
        axes.imshow(example(field), cmap="gray", vmin=-1.1, vmax=0.9, interpolation="antialiased")
        axes.set_title(names[group], color=colours[group], fontsize=11)
        length = 250 / PIXEL_ANGSTROM
        axes.add_patch(Rectangle((0, 552), length + 40, 48, color="black", alpha=0.55, lw=0))
        axes.plot((20, 20 + length), (588, 588), color="white", lw=2.5)
        axes.text(20 + length / 2, 580, "25 nm", color="white", fontsize=8, ha="center")
        axes.set_axis_off()
    ring = np.sqrt(RINGS[1:] * RINGS[:-1])
    panels = bottom.subplots(2, 3).ravel()
    shown = (
        ("average spectrum", ring, "power of the unaligned average over shot noise", "1/Å"),
        ("frame spectrum", ring, "power of one frame over shot noise", "1/Å"),
        ("coherence", ring, "correlation of the frame with the rest", "1/Å"),
        ("profile", RADII_PX * PIXEL_ANGSTROM, "mean particle, in sd of the noise", "radius, Å"),
        (
            "local sd",
            PERCENTILES,
            "local standard deviation, in sd of the noise",
            "percentile of windows",
        ),
    )
    for axes, (name, x, title, label) in zip(panels, shown, strict=False):
        for group, rows in groups.items():
            values = np.array([r[name] for r in rows if name in r])
            low, mid, high = np.percentile(values, (10, 50, 90), axis=0)
            axes.fill_between(x, low, high, color=colours[group], alpha=0.18, lw=0)
            axes.plot(x, mid, color=colours[group], lw=1.5, label=names[group])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(label, fontsize=9)
        axes.grid(alpha=0.25)
        if x is ring:
            axes.set_xscale("log")
            axes.set_xlim(1 / 400, 1 / 3.2)
            axes.set_xticks(
                [1 / r for r in (300, 100, 30, 10, 5)], ["1/300", "1/100", "1/30", "1/10", "1/5"]
            )
            axes.minorticks_off()
        if name.endswith("spectrum"):
            axes.set_yscale("log")
            axes.set_yticks(ticks := (1, 2, 5, 10, 20, 50, 100), [str(t) for t in ticks])
            axes.minorticks_off()
    panels[0].set_ylim(0.85, 120)
    panels[1].set_ylim(0.85, 8)
    panels[2].set_ylim(-0.1, 1)
    panels[0].legend(frameon=False, fontsize=9)
    y = np.arange(len(wrong["real"]))
    for i, (group, values) in enumerate(wrong.items()):
        panels[5].barh(
            y + 0.27 * (i - 1), [values[n] for n in wrong["real"]], 0.25, color=colours[group]
        )
    panels[5].set_yticks(y, list(wrong["real"]), fontsize=8)
    panels[5].yaxis.tick_right()
    panels[5].invert_yaxis()
    panels[5].set_title("mismatch with the real median", fontsize=10)
    panels[5].grid(alpha=0.25, axis="x")
    panels[5].set_xlabel("real: one field against the others", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=84, pil_kwargs={"optimize": True})
    plt.close(figure)


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
    arguments.add_argument(
        "--output", type=Path, default=root / "benchmarks" / "results" / "apoferritin_match.json"
    )
    arguments.add_argument(
        "--figure", type=Path, default=root / "docs" / "images" / "apoferritin_match.png"
    )
    options = arguments.parse_args()
    started = time.process_time()
    recipe = Recipe.named(options.recipe)
    fields = {"real": real_fields(options.data)}
    for group, source in (
        ("recipe", recipe),
        *(() if options.no_untuned else (("untuned", UNTUNED),)),
    ):
        fields[group] = simulated_fields(
            source, options.structure, options.fields, tuple(options.shape), options.seed
        )
    groups = {group: [measured(f) for f in members] for group, members in fields.items()}
    rows = table(groups)
    print(f"{'':38s}" + "".join(f"{g:>20s}" for g in groups))
    for name, values in rows.items():
        print(f"{name:38s}" + "".join(f"{m:12.3f} ± {s:5.2f}" for m, s in values.values()))
    wrong = {
        g: scatter(r) if g == "real" else mismatches(r, groups["real"]) for g, r in groups.items()
    }
    for name in wrong["recipe"]:
        print(f"mismatch, {name:28s}" + "".join(f"{w[name]:20.3f}" for w in wrong.values()))
    for field, row in zip(fields["real"], groups["real"], strict=True):
        print(
            f"{field.name}: defocus {row['fitted defocus']:.0f} A (fit {row['fit explains']:.2f}),"
            f" shift {row['frame shift px']:.1f} px"
        )
    draw(
        {group: members[min(4, len(members) - 1)] for group, members in fields.items()},
        groups,
        wrong,
        options.figure,
    )
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
            n: {g: {"mean": m, "sd": s} for g, (m, s) in v.items()} for n, v in rows.items()
        },
        "real_defocus_angstrom": {
            f.name: r["fitted defocus"] for f, r in zip(fields["real"], groups["real"], strict=True)
        },
    }
    options.output.write_text(json.dumps(record, indent=1, allow_nan=True) + "\n")


if __name__ == "__main__":
    main()
