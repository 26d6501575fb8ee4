"""Panels of the overview of a simulated movie, each drawn on axes of its own."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from dstnet.optics.ctf import OpticsSettings
from dstnet.report.picture import show_grey
from dstnet.report.spectrum import FINEST_ANGSTROM, ctf_zeros, power_spectrum, radial_profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_PIXELS = 560  # an image's longer side on the page
PERCENTILES = (0.3, 99.7)  # of an image, that are black and white
INK = "#1d2733"
ACCENT = "#c2452d"
MUTED = "#7b8794"
COURSES = ("#2f6f9f", "#d08c2c", "#5b8c5a", "#8a5a9e", "#8c6d5a")


def draw_image(
    axes: "Axes",
    image: np.ndarray,
    pixel_size_angstrom: float,
    title: str,
    least_range: float = 0.0,
) -> None:
    """An image in grey, with a scale bar.

    Parameters
    ----------
    axes
        Where it is drawn.
    image
        ``[y, x]``; row 0 is drawn at the top.
    pixel_size_angstrom
        Of the image.
    title
        Above it.
    least_range
        From black to white at least, in the image's unit.
    """
    step = math.ceil(max(image.shape) / SHOWN_PIXELS)
    height, width = show_grey(axes, image, step, PERCENTILES, least_range)
    axes.set_title(title, fontsize=11, color=INK)
    draw_scale_bar(axes, (height, width), pixel_size_angstrom)


def draw_scale_bar(axes: "Axes", shape: tuple[int, int], pixel_size_angstrom: float) -> None:
    """A bar of a round length, with that length, at the lower left of an image of `shape` (y, x)
    pixels.
    """
    height, width = shape
    length = scale_bar_angstrom(width * pixel_size_angstrom)
    x = width * 0.04
    y = height * 0.96
    end = x + length / pixel_size_angstrom
    axes.plot([x, end], [y, y], color="white", linewidth=4, solid_capstyle="butt")
    box = {"facecolor": "black", "alpha": 0.35, "pad": 1.5, "edgecolor": "none"}
    label = f"{length / 10:g} nm"
    above = y - height * 0.018
    axes.text(x, above, label, color="white", fontsize=10, va="bottom", bbox=box)


def scale_bar_angstrom(width_angstrom: float) -> float:
    """A round length of about a fifth of the field's width."""
    fifth = width_angstrom / 5
    power = 10 ** math.floor(math.log10(fifth))
    round_lengths = (power, 2 * power, 5 * power)
    return max(length for length in round_lengths if length <= fifth)


def draw_rings(
    axes: "Axes", image: np.ndarray, pixel_size_angstrom: float, optics: OpticsSettings
) -> None:
    """The power spectrum of an image, and the zeros of the CTF on its right half.

    Parameters
    ----------
    axes
        Where it is drawn.
    image
        ``[y, x]``.
    pixel_size_angstrom
        Of the image.
    optics
        What the CTF follows from.
    """
    spectrum, edge = power_spectrum(image, pixel_size_angstrom)
    spectrum = ndimage.gaussian_filter(spectrum, 1.0)  # for the eye: single samples are speckle
    low, high = np.percentile(spectrum, (1, 99))
    axes.imshow(
        spectrum,
        cmap="gray",
        vmin=low,
        vmax=high,
        extent=(-edge, edge, edge, -edge),
        interpolation="bilinear",
    )
    angles = np.arange(-90, 91, 3)  # the right half: the left stays free for the rings themselves
    cosines = np.cos(np.radians(angles))
    sines = np.sin(np.radians(angles))
    zeros = [ctf_zeros(optics, float(angle), edge) for angle in angles]
    # A line for each zero that lies within the spectrum in all directions.
    for k in map(np.array, zip(*zeros, strict=False)):
        axes.plot(k * cosines, k * sines, color=ACCENT, linewidth=0.9, alpha=0.9)
    axes.set_xlim(-edge, edge)
    axes.set_ylim(edge, -edge)
    title = f"power of the sum to {1 / edge:.1f} Å, zeros of the CTF"
    axes.set_title(title, fontsize=11, color=INK)
    axes.set_axis_off()


def _style(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize=11, color=INK)
    axes.tick_params(labelsize=9, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color="#e6e9ed", linewidth=0.7)
    axes.set_axisbelow(True)


def draw_track(axes: "Axes", track: np.ndarray, parts: Mapping[str, np.ndarray]) -> None:
    """Motion of the whole field, and what it is the sum of.

    Parameters
    ----------
    axes
        Where it is drawn.
    track
        ``[frame, 2]`` (y, x) in Å.
    parts
        Each as `track`, by name.
    """
    _style(axes, "motion of the whole field")
    y, x = track.T
    for colour, (name, part) in zip(COURSES, parts.items(), strict=False):
        axes.plot(part[:, 1], part[:, 0], color=colour, linewidth=1.4, alpha=0.9, label=name)
    label = "all together" if parts else None
    axes.plot(x, y, color=INK, linewidth=1.2, alpha=0.8, label=label)
    axes.scatter(x, y, c=np.arange(len(x)), cmap="viridis", s=18, zorder=3)
    axes.scatter(
        x[:1],
        y[:1],
        facecolor="none",
        edgecolor=ACCENT,
        s=110,
        linewidth=1.6,
        zorder=4,
        label="first frame",
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    axes.invert_yaxis()  # as in the images: y down
    axes.set_xlabel("x, Å", fontsize=10, color=INK)
    axes.set_ylabel("y, Å", fontsize=10, color=INK)
    axes.legend(fontsize=8.5, frameon=False, loc="best")


def draw_local_motion(axes: "Axes", local: np.ndarray, shape: tuple[int, int]) -> None:
    """Local motion from the first frame to the last, as arrows.

    Parameters
    ----------
    axes
        Where it is drawn.
    local
        ``[2, n, n]`` (y, x) in Å on an even grid over the field.
    shape
        (y, x) of the field in pixels.
    """
    height, width = shape
    n = local.shape[-1]
    rows = np.linspace(0, height - 1, n)
    columns = np.linspace(0, width - 1, n)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    dy, dx = local
    length = np.hypot(dy, dx)
    largest = float(length.max())
    _style(axes, f"local motion, first to last frame, to {largest:.1f} Å")
    if largest > 0:
        # The longest arrow spans one cell of the grid.
        longest_arrow = 0.95 * min(height, width) / (n - 1)
        scale = largest / longest_arrow
        arrows = axes.quiver(
            x,
            y,
            dx,
            dy,
            length,
            angles="xy",
            scale_units="xy",
            scale=scale,
            cmap="viridis",
            width=0.0065,
            pivot="middle",
        )
        arrows.set_clim(0, largest)
    axes.set_xlim(-0.06 * width, 1.06 * width)
    axes.set_ylim(1.06 * height, -0.06 * height)
    axes.set_aspect("equal")
    axes.set_xlabel("x, pixels", fontsize=10, color=INK)
    axes.set_ylabel("y, pixels", fontsize=10, color=INK)


def draw_numbers(axes: "Axes", numbers: Sequence[tuple[str, str]]) -> None:
    """Names and values, a line each."""
    axes.set_axis_off()
    style: dict[str, Any] = {"fontsize": 10.5, "transform": axes.transAxes, "va": "baseline"}
    for i, (name, value) in enumerate(numbers):
        y = 0.94 - i * 0.98 / max(len(numbers), 9)
        if len(value) > 36:
            value = value[:35] + "…"
        axes.text(0.0, y, name, color=MUTED, **style)
        axes.text(0.29, y, value, color=INK, **style)


def draw_profile(
    axes: "Axes", image: np.ndarray, pixel_size_angstrom: float, optics: OpticsSettings
) -> None:
    """The rotational mean of an image's power over its noise, and the zeros of the CTF.

    Parameters
    ----------
    axes, image, pixel_size_angstrom, optics
        As those of `draw_rings`.
    """
    _style(axes, "rotational power of the sum over its noise")
    k, power = radial_profile(image, pixel_size_angstrom)
    edge = min(1 / FINEST_ANGSTROM, 0.5 / pixel_size_angstrom)
    is_shown = (k > 1 / 200) & (k < edge)
    highest = float(k[is_shown].max())
    signal_ends = int(0.9 * len(power))
    noise = float(power[signal_ends:].mean())
    relative = power / noise
    label: str | None = "the CTF's zeros"
    between_axes = optics.astigmatism_angle_deg + 45
    for zero in ctf_zeros(optics, between_axes, highest):
        dashes = (0, (4, 2))
        axes.axvline(zero, color=ACCENT, linewidth=0.9, alpha=0.8, linestyle=dashes, label=label)
        label = None
    axes.plot(k[is_shown], relative[is_shown], color=COURSES[0], linewidth=1.5)
    axes.set_xlim(0, highest)
    # The first ring and those after it; what lies before is the ice's and the particles' shape,
    # many times as strong.
    has_rings = is_shown & (k > 1 / 40)
    rings = relative[has_rings]
    bottom = min(0.9, float(rings.min()) * 0.97)
    top = max(1.2, float(rings.max()) * 1.15)
    axes.set_ylim(bottom, top)
    ticks = [spacing for spacing in (50, 20, 10, 7, 5, 4) if 1 / spacing <= highest * 1.001]
    axes.set_xticks([1 / spacing for spacing in ticks], [str(spacing) for spacing in ticks])
    axes.set_xlabel("resolution, Å", fontsize=10, color=INK)
    axes.legend(fontsize=8.5, loc="upper right", edgecolor="none", framealpha=0.85)
