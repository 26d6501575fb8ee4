"""Pictures of fields of view, real and simulated, and of their statistics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from field_statistics import PERCENTILES, PIXEL_ANGSTROM, RADII_PX, RING_MIDDLES, Field, noise_sd
from scipy import ndimage

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

COLOURS = ("#222222", "#d1495b", "#b0b0b0")
NAMES = ("real", "simulated, recipe", "simulated, untuned")
# Statistic, what it is over, title and label.
PANELS = (
    (
        "average spectrum",
        RING_MIDDLES,
        "power of the unaligned average over shot noise",
        "1/Å",
    ),
    ("frame spectrum", RING_MIDDLES, "power of one frame over shot noise", "1/Å"),
    ("coherence", RING_MIDDLES, "correlation of the frame with the rest", "1/Å"),
    ("profile", RADII_PX * PIXEL_ANGSTROM, "mean particle, in sd of the noise", "radius, Å"),
    (
        "local sd",
        PERCENTILES,
        "local standard deviation, in sd of the noise",
        "percentile of windows",
    ),
)
POWERS = (1, 2, 5, 10, 20, 50, 100)
RESOLUTIONS_ANGSTROM = (300, 100, 30, 10, 5)
Rows = Sequence[dict[str, Any]]


def example(field: Field) -> np.ndarray:
    """The middle 600 x 600 pixels of the average, low-passed and in units of noise, for the eye."""
    image = (field.average - ndimage.gaussian_filter(field.average, 150)) / noise_sd(field.average)
    y, x = ((n - 600) // 2 for n in image.shape)
    return ndimage.gaussian_filter(image, 2)[y : y + 600, x : x + 600]


def draw(
    fields: Mapping[str, Field],
    groups: Mapping[str, Rows],
    wrong: Mapping[str, Mapping[str, float]],
    path: Path,
) -> None:
    """One figure: an example of each group above, the statistics below."""
    colours = dict(zip(groups, COLOURS, strict=False))
    names = dict(zip(groups, NAMES, strict=False))
    figure = plt.figure(figsize=(11, 9.6), layout="constrained")
    parts = figure.add_gridspec(2, 1, height_ratios=(1, 1.55))
    top, bottom = (figure.add_subfigure(part) for part in parts)
    for axes, (group, field) in zip(top.subplots(1, len(fields)), fields.items(), strict=True):
        draw_example(axes, field)
        axes.set_title(names[group], color=colours[group], fontsize=11)
    panels = bottom.subplots(2, 3).ravel()
    for axes, (name, x, title, label) in zip(panels, PANELS, strict=False):
        for group, rows in groups.items():
            values = np.array([row[name] for row in rows if name in row])
            low, mid, high = np.percentile(values, (10, 50, 90), axis=0)
            axes.fill_between(x, low, high, color=colours[group], alpha=0.18, lw=0)
            axes.plot(x, mid, color=colours[group], lw=1.5, label=names[group])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(label, fontsize=9)
        axes.grid(alpha=0.25)
        scale_axes(axes, x is RING_MIDDLES, name.endswith("spectrum"))
    panels[0].set_ylim(0.85, 120)
    panels[1].set_ylim(0.85, 8)
    panels[2].set_ylim(-0.1, 1)
    panels[0].legend(frameon=False, fontsize=9)
    draw_mismatches(panels[5], wrong, colours)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=84, pil_kwargs={"optimize": True})
    plt.close(figure)


def draw_example(axes: Axes, field: Field) -> None:
    """A part of a field with a bar of 25 nm."""
    axes.imshow(example(field), cmap="gray", vmin=-1.1, vmax=0.9, interpolation="antialiased")
    length = 250 / PIXEL_ANGSTROM
    axes.add_patch(Rectangle((0, 552), length + 40, 48, color="black", alpha=0.55, lw=0))
    axes.plot((20, 20 + length), (588, 588), color="white", lw=2.5)
    axes.text(20 + length / 2, 580, "25 nm", color="white", fontsize=8, ha="center")
    axes.set_axis_off()


def scale_axes(axes: Axes, over_rings: bool, power: bool) -> None:
    """Logarithmic axes with plain numbers."""
    if over_rings:
        axes.set_xscale("log")
        axes.set_xlim(1 / 400, 1 / 3.2)
        places = [1 / resolution for resolution in RESOLUTIONS_ANGSTROM]
        axes.set_xticks(places, [f"1/{resolution}" for resolution in RESOLUTIONS_ANGSTROM])
        axes.minorticks_off()
    if power:
        axes.set_yscale("log")
        axes.set_yticks(POWERS, [str(power) for power in POWERS])
        axes.minorticks_off()


def draw_mismatches(
    axes: Axes, wrong: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]
) -> None:
    """A bar a statistic and group."""
    y = np.arange(len(wrong["real"]))
    for i, (group, values) in enumerate(wrong.items()):
        lengths = [values[name] for name in wrong["real"]]
        axes.barh(y + 0.27 * (i - 1), lengths, 0.25, color=colours[group])
    axes.set_yticks(y, list(wrong["real"]), fontsize=8)
    axes.yaxis.tick_right()
    axes.invert_yaxis()
    axes.set_title("mismatch with the real median", fontsize=10)
    axes.grid(alpha=0.25, axis="x")
    axes.set_xlabel("real: one field against the others", fontsize=9)
