"""Panels of the overview of a simulated movie, each drawn on axes of its own."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from dstnet.optics.ctf import OpticsSettings
from dstnet.report.picture import averaged_down
from dstnet.report.spectrum import FINEST_ANGSTROM, ctf_zeros, power_spectrum, radial_profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_PIXELS = 560  # an image's longer side on the page
INK, ACCENT, MUTED = "#1d2733", "#c2452d", "#7b8794"
COURSES = ("#2f6f9f", "#d08c2c", "#5b8c5a", "#8a5a9e", "#8c6d5a")


def draw_image(axes: "Axes", image: np.ndarray, pixel_size_angstrom: float, title: str) -> None:
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
    """
    small, step = averaged_down(image, math.ceil(max(image.shape) / SHOWN_PIXELS))
    height = small.shape[0] * step
    width = small.shape[1] * step
    low, high = np.percentile(small, (0.3, 99.7))
    axes.imshow(
        small,
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-12),
        extent=(0, width, height, 0),
        interpolation="nearest",
    )
    axes.set_title(title, fontsize=11, color=INK)
    axes.set_axis_off()
    length = scale_bar_angstrom(width * pixel_size_angstrom)
    x = width * 0.04
    y = height * 0.96
    axes.plot(
        [x, x + length / pixel_size_angstrom],
        [y, y],
        color="white",
        linewidth=4,
        solid_capstyle="butt",
    )
    axes.text(
        x,
        y - height * 0.018,
        f"{length / 10:g} nm",
        color="white",
        fontsize=10,
        va="bottom",
        bbox={"facecolor": "black", "alpha": 0.35, "pad": 1.5, "edgecolor": "none"},
    )


def scale_bar_angstrom(width_angstrom: float) -> float:
    """A round length of about a fifth of the field's width."""
    power = 10 ** math.floor(math.log10(width_angstrom / 5))
    return max(m * power for m in (1, 2, 5) if m * power <= width_angstrom / 5)


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
    spectrum = ndimage.gaussian_filter(spectrum, 1.0)  # for the eye: single samples are all speckle
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
    radians = np.radians(angles)
    zeros = [ctf_zeros(optics, float(angle), edge) for angle in angles]
    for k in map(np.array, zip(*zeros, strict=False)):
        axes.plot(k * np.cos(radians), k * np.sin(radians), color=ACCENT, linewidth=0.9, alpha=0.9)
    axes.set_xlim(-edge, edge)
    axes.set_ylim(edge, -edge)
    axes.set_title(
        f"power of the sum to {1 / edge:.1f} Å, zeros of the CTF", fontsize=11, color=INK
    )
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
    y, x = np.meshgrid(np.linspace(0, height - 1, n), np.linspace(0, width - 1, n), indexing="ij")
    dy, dx = local
    length = np.hypot(dy, dx)
    largest = float(length.max())
    _style(axes, f"local motion, first to last frame, to {largest:.1f} Å")
    if largest > 0:
        # The longest arrow spans one cell of the grid.
        scale = largest / (0.95 * min(height, width) / (n - 1))
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
    for i, (name, value) in enumerate(numbers):
        y = 0.94 - i * 0.98 / max(len(numbers), 9)
        shown = value if len(value) <= 36 else value[:35] + "…"
        style: dict[str, Any] = {"fontsize": 10.5, "transform": axes.transAxes, "va": "baseline"}
        axes.text(0.0, y, name, color=MUTED, **style)
        axes.text(0.29, y, shown, color=INK, **style)


def draw_profile(
    axes: "Axes", image: np.ndarray, pixel_size_angstrom: float, optics: OpticsSettings
) -> None:
    """The rotational mean of an image's power over its noise, and the zeros of the CTF.

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
    _style(axes, "rotational power of the sum over its noise")
    k, profile = radial_profile(image, pixel_size_angstrom)
    shown = (k > 1 / 200) & (k < min(1 / FINEST_ANGSTROM, 0.5 / pixel_size_angstrom))
    highest = float(k[shown].max())
    noise = float(profile[int(0.9 * len(profile)) :].mean())  # beyond all signal
    label: str | None = "the CTF's zeros"
    for zero in ctf_zeros(optics, optics.astigmatism_angle_deg + 45, highest):
        dashes = (0, (4, 2))
        axes.axvline(zero, color=ACCENT, linewidth=0.9, alpha=0.8, linestyle=dashes, label=label)
        label = None
    axes.plot(k[shown], profile[shown] / noise, color=COURSES[0], linewidth=1.5)
    axes.set_xlim(0, highest)
    # The first ring and those after it; what lies before is the ice's and the particles' shape,
    # many times as strong.
    ringed = profile[shown & (k > 1 / 40)] / noise
    axes.set_ylim(min(0.9, float(ringed.min()) * 0.97), max(1.2, float(ringed.max()) * 1.15))
    ticks = [r for r in (50, 20, 10, 7, 5, 4) if 1 / r <= highest * 1.001]
    axes.set_xticks([1 / r for r in ticks], [str(r) for r in ticks])
    axes.set_xlabel("resolution, Å", fontsize=10, color=INK)
    axes.legend(fontsize=8.5, loc="upper right", edgecolor="none", framealpha=0.85)
