"""One synthetic movie on one page: what a camera would give, the truth under it, its motion, and
its power spectrum.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import starfile
import torch
from scipy import ndimage

from dstnet.core.constants import electron_wavelength_angstrom
from dstnet.core.fourier import apply_transfer, radial_frequency, radial_mean
from dstnet.dataset import MovieRecord
from dstnet.dataset.simulated_movie import MovieFormat, movie_path
from dstnet.errors import BadInputError
from dstnet.io import atomic_path, ensure_writable_folder, open_movie
from dstnet.motion.field import local_displacement
from dstnet.optics.ctf import OpticsSettings
from dstnet.simulation import SimulationSettings

SEEN_ANGSTROM = 20.0  # low-pass of the sum, for the eye
SHOWN_PIXELS = 560  # an image's longer side on the page
FINEST_ANGSTROM = 5.0  # edge of the spectra: rings of a movie at usual exposures are lost before
ZEROS = 8  # zeros of the CTF that are drawn
INK, ACCENT, MUTED = "#1d2733", "#c2452d", "#7b8794"
COURSES = ("#2f6f9f", "#d08c2c", "#5b8c5a", "#8a5a9e", "#8c6d5a")


@dataclass(frozen=True)
class Overview:
    """What the page shows of a movie.

    Attributes
    ----------
    total, clean, phase
        ``[y, x]``: sum of the frames as recorded; the specimen's contrast after the CTF; its
        projected phase in rad.
    pixel_size_angstrom
        Of all three.
    track, parts
        ``[frame, 2]`` (y, x) in Å: motion of the whole field, and what it is the sum of, by name.
    local
        ``[2, n, n]`` (y, x) in Å: local motion from the first frame to the last on an even grid
        over the field.
    optics
        What the CTF follows from.
    numbers
        Names and values, as text.
    """

    name: str
    total: np.ndarray
    clean: np.ndarray
    phase: np.ndarray
    pixel_size_angstrom: float
    track: np.ndarray
    parts: Mapping[str, np.ndarray]
    local: np.ndarray
    optics: OpticsSettings
    numbers: Sequence[tuple[str, str]]


def write_overview(folder: Path, name: str, movie_format: MovieFormat) -> None:
    """Draw the movie `name` of a folder that `dstnet.simulation.make_movies` wrote as
    ``folder/preview/NAME.png``.

    Raises
    ------
    BadInputError
        If a file of the movie is missing or damaged.
    OutputError
        If the picture cannot be written.
    """
    ensure_writable_folder(folder / "preview")
    draw(read_overview(folder, name, movie_format), folder / "preview" / f"{name}.png")


def read_overview(folder: Path, name: str, movie_format: MovieFormat) -> Overview:
    """What `write_overview` draws, read from the movie's files."""
    record = MovieRecord.from_yaml(folder / "truth" / f"{name}_settings.yaml")
    s = SimulationSettings.checked(record.settings, name)
    movie = open_movie(
        movie_path(folder, name, movie_format), pixel_size_angstrom=s.pixel_size_angstrom
    )
    total = movie.frame(0).clone()
    for i in range(1, len(movie)):
        total += movie.frame(i)
    try:
        motion = json.loads((folder / "truth" / f"{name}_motion.json").read_text())
        coefficients = torch.tensor(motion["local_coefficients_angstrom"])
        track = np.array(motion["global_shift_angstrom_yx"])
        parts = {part: np.array(values) for part, values in motion["parts_angstrom_yx"].items()}
        tables = starfile.read(folder / "truth" / f"{name}_particles.star", always_dict=True)
        particles = pd.DataFrame(tables["particles"])  # pyright: ignore[reportArgumentType, reportCallIssue]
    except (OSError, ValueError, KeyError) as error:
        raise BadInputError(
            f"{folder / 'truth' / name}_* cannot be read ({error}); make the movie again"
        ) from None
    exposure = s.frames * s.exposure_e_per_a2
    optics = s.optics
    numbers = [
        ("field", f"{s.shape[1]} x {s.shape[0]} px, {s.pixel_size_angstrom:g} Å/px"),
        ("exposure", f"{exposure:g} e⁻/Å² in {s.frames} frames"),
        ("counts", f"{float(total.mean()) / s.frames:.2f} a pixel and frame"),
        ("underfocus", f"{optics.defocus_angstrom / 1e4:.2f} µm"),
        (
            "astigmatism",
            f"{optics.astigmatism_angstrom:.0f} Å at {optics.astigmatism_angle_deg:.0f}°",
        ),
        ("microscope", f"{optics.voltage_kv:g} kV, Cs {optics.cs_mm:g} mm"),
        ("particles", str(len(particles))),
        ("species", ", ".join(record.species) or "none"),
        ("camera", s.detector.mode),
        ("ice", f"{s.specimen.ice_thickness_angstrom / 10:.0f} nm"),
        ("seed", str(record.seed)),
    ]
    return Overview(
        name=name,
        total=total.numpy(),
        clean=open_movie(folder / "truth" / f"{name}_clean.mrc").frame(0).numpy(),
        phase=open_movie(folder / "truth" / f"{name}_phase.mrc").frame(0).numpy(),
        pixel_size_angstrom=s.pixel_size_angstrom,
        track=track,
        parts={part: values for part, values in parts.items() if values.any()},
        local=local_displacement(coefficients[-1] - coefficients[0], (9, 9)).numpy(),
        optics=optics,
        numbers=numbers,
    )


def draw(movie: Overview, path: Path) -> None:
    """Draw the page as a PNG file of less than 1 MB.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(17, 9), dpi=90, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(
        movie.name, x=0.035, y=0.975, ha="left", fontsize=15, color=INK, fontweight="bold"
    )
    axes = figure.subplots(
        2,
        4,
        gridspec_kw={
            "left": 0.035,
            "right": 0.99,
            "top": 0.905,
            "bottom": 0.065,
            "wspace": 0.16,
            "hspace": 0.2,
        },
    )
    _image(
        axes[0, 0],
        low_passed(movie.total, movie.pixel_size_angstrom),
        movie,
        f"sum of frames as recorded, low-pass {SEEN_ANGSTROM:g} Å",
    )
    _image(axes[0, 1], movie.clean, movie, "truth: contrast, CTF on, no noise")
    _image(
        axes[0, 2], movie.phase, movie, f"truth: projected phase, to {movie.phase.max():.2f} rad"
    )
    spectrum, edge = power_spectrum(movie.total, movie.pixel_size_angstrom)
    _rings(axes[0, 3], spectrum, edge, movie.optics)
    _track(axes[1, 0], movie)
    _field(axes[1, 1], movie)
    _numbers(axes[1, 2], movie.numbers)
    _profile(axes[1, 3], movie)
    canvas.draw()
    page = Image.fromarray(
        np.asarray(canvas.buffer_rgba())[..., :3]
    )  # the page has nothing transparent, which would cost a quarter more
    with atomic_path(path) as temporary:
        page.save(temporary, optimize=True)


def low_passed(
    image: np.ndarray, pixel_size_angstrom: float, resolution_angstrom: float = SEEN_ANGSTROM
) -> np.ndarray:
    """`image` with a Gaussian fall to 1/e of the amplitude at `resolution_angstrom`."""
    shape = (image.shape[0], image.shape[1])
    k = radial_frequency(shape, pixel_size_angstrom)
    return apply_transfer(
        torch.from_numpy(image), torch.exp(-((k * resolution_angstrom) ** 2))
    ).numpy()


def power_spectrum(
    image: np.ndarray, pixel_size_angstrom: float, tile: int = 512
) -> tuple[np.ndarray, float]:
    """Mean power spectrum of half-overlapping, tapered tiles over its own radial mean, out to
    `FINEST_ANGSTROM` or Nyquist.

    Returns
    -------
    spectrum : ndarray
        ``[y, x]``, zero frequency in the middle; 1 on average along any ring.
    edge : float
        Frequency in 1/Å at its border.
    """
    n = min(tile, min(image.shape) // 2 * 2)
    power = _mean_power(image, n)
    cut = min(n // 2 - 1, round(n * pixel_size_angstrom / FINEST_ANGSTROM))
    full = np.fft.fftshift(_whole(power, n))
    y, x = np.indices(full.shape) - n // 2
    rings = np.hypot(y, x)
    background = np.interp(rings, *_smooth_profile(power, n))
    part = slice(n // 2 - cut, n // 2 + cut + 1)
    return (full / background)[part, part], cut / (n * pixel_size_angstrom)


def _mean_power(image: np.ndarray, n: int) -> torch.Tensor:
    """Mean ``rfft2`` power of half-overlapping tiles of `n` pixels, each without its mean and
    tapered by a Hann window.
    """
    values = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    window = torch.hann_window(n)
    window = window[:, None] * window[None, :]
    tiles = values.unfold(0, n, n // 2).unfold(1, n, n // 2).flatten(0, 1)
    power = torch.zeros(n, n // 2 + 1)
    for one in tiles:
        power += torch.fft.rfft2((one - one.mean()) * window).abs().square()
    return power / len(tiles)


def _whole(half: torch.Tensor, n: int) -> np.ndarray:
    """The whole of a real image's power spectrum from its ``rfft2`` half."""
    values = half.numpy()
    mirrored = np.roll(values[::-1], 1, axis=0)[:, 1 : (n + 1) // 2][:, ::-1]
    return np.concatenate([values, mirrored], axis=1)


def _smooth_profile(power: torch.Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Radius in samples and a radial mean of `power` too smooth to hold the CTF's rings."""
    profile = radial_mean(power, (n, n), n // 2).numpy()
    half = max(2, n // 24)
    padded = np.pad(np.log(np.maximum(profile, 1e-12)), half, mode="edge")
    smooth = np.convolve(padded, np.ones(2 * half + 1) / (2 * half + 1), mode="valid")
    return np.arange(n // 2) + 0.5, np.exp(smooth)


def ctf_zeros(
    optics: OpticsSettings, angle_deg: float, finest: float, count: int = ZEROS
) -> list[float]:
    """Frequencies in 1/Å, up to `finest`, of the first `count` zeros of the CTF along a direction
    (from x towards y).
    """
    wavelength = electron_wavelength_angstrom(optics.voltage_kv)
    across = math.radians(angle_deg - optics.astigmatism_angle_deg)
    defocus = optics.defocus_angstrom + optics.astigmatism_angstrom / 2 * math.cos(2 * across)
    k = np.linspace(0, finest, 4000)
    chi = math.pi * wavelength * k**2 * (defocus - 0.5 * optics.cs_mm * 1e7 * wavelength**2 * k**2)
    turns = (
        chi + math.asin(optics.amplitude_contrast) + math.radians(optics.phase_plate_deg)
    ) / math.pi
    crossed = np.flatnonzero(np.diff(np.floor(turns)))
    return [float(k[i]) for i in crossed[:count]]


def _image(axes, image: np.ndarray, movie: Overview, title: str) -> None:
    step = max(1, math.ceil(max(image.shape) / SHOWN_PIXELS))
    height, width = (n // step * step for n in image.shape)
    small = image[:height, :width].reshape(height // step, step, width // step, step).mean((1, 3))
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
    length = scale_bar_angstrom(width * movie.pixel_size_angstrom)
    x, y = width * 0.04, height * 0.96
    axes.plot(
        [x, x + length / movie.pixel_size_angstrom],
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


def _rings(axes, spectrum: np.ndarray, edge: float, optics: OpticsSettings) -> None:
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
    zeros = [ctf_zeros(optics, float(a), edge) for a in angles]
    for i in range(min(len(z) for z in zeros)):
        k = np.array([z[i] for z in zeros])
        radians = np.radians(angles)
        axes.plot(k * np.cos(radians), k * np.sin(radians), color=ACCENT, linewidth=0.9, alpha=0.9)
    axes.set_xlim(-edge, edge)
    axes.set_ylim(edge, -edge)
    axes.set_title(
        f"power of the sum to {1 / edge:.1f} Å, zeros of the CTF", fontsize=11, color=INK
    )
    axes.set_axis_off()


def _plain(axes, title: str) -> None:
    axes.set_title(title, fontsize=11, color=INK)
    axes.tick_params(labelsize=9, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color="#e6e9ed", linewidth=0.7)
    axes.set_axisbelow(True)


def _track(axes, movie: Overview) -> None:
    _plain(axes, "motion of the whole field")
    y, x = movie.track.T
    for colour, (name, part) in zip(COURSES, movie.parts.items(), strict=False):
        axes.plot(part[:, 1], part[:, 0], color=colour, linewidth=1.4, alpha=0.9, label=name)
    axes.plot(
        x, y, color=INK, linewidth=1.2, alpha=0.8, label="all together" if movie.parts else None
    )
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


def _field(axes, movie: Overview) -> None:
    height, width = movie.total.shape
    n = movie.local.shape[-1]
    y, x = np.meshgrid(np.linspace(0, height - 1, n), np.linspace(0, width - 1, n), indexing="ij")
    dy, dx = movie.local
    largest = float(np.hypot(dy, dx).max())
    _plain(axes, f"local motion, first to last frame, to {largest:.1f} Å")
    if largest > 0:
        # The longest arrow spans one cell of the grid.
        scale = largest / (0.95 * min(height, width) / (n - 1))
        arrows = axes.quiver(
            x,
            y,
            dx,
            dy,
            np.hypot(dy, dx),
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


def _numbers(axes, numbers: Sequence[tuple[str, str]]) -> None:
    axes.set_axis_off()
    for i, (name, value) in enumerate(numbers):
        y = 0.94 - i * 0.98 / max(len(numbers), 9)
        axes.text(0.0, y, name, fontsize=10.5, color=MUTED, transform=axes.transAxes, va="baseline")
        shown = value if len(value) <= 36 else value[:35] + "…"
        axes.text(0.29, y, shown, fontsize=10.5, color=INK, transform=axes.transAxes, va="baseline")


def _profile(axes, movie: Overview) -> None:
    _plain(axes, "rotational power of the sum over its noise")
    pixel = movie.pixel_size_angstrom
    n = min(512, min(movie.total.shape) // 2 * 2)
    profile = radial_mean(_mean_power(movie.total, n), (n, n), n // 2).numpy()
    k = (np.arange(n // 2) + 0.5) / (n * pixel)
    shown = (k > 1 / 200) & (k < min(1 / FINEST_ANGSTROM, 0.5 / pixel))
    level = float(profile[int(0.9 * len(profile)) :].mean())  # beyond all signal
    for i, zero in enumerate(
        ctf_zeros(movie.optics, movie.optics.astigmatism_angle_deg + 45, float(k[shown].max()))
    ):
        axes.axvline(
            zero,
            color=ACCENT,
            linewidth=0.9,
            alpha=0.8,
            linestyle=(0, (4, 2)),
            label="the CTF's zeros" if i == 0 else None,
        )
    axes.plot(k[shown], profile[shown] / level, color=COURSES[0], linewidth=1.5)
    axes.set_xlim(0, float(k[shown].max()))
    # The first ring and those after it; what lies before is the ice's and the particles' shape,
    # many times as strong.
    ringed = profile[shown & (k > 1 / 40)] / level
    axes.set_ylim(min(0.9, float(ringed.min()) * 0.97), max(1.2, float(ringed.max()) * 1.15))
    ticks = [r for r in (50, 20, 10, 7, 5, 4) if 1 / r <= k[shown].max() * 1.001]
    axes.set_xticks([1 / r for r in ticks], [str(r) for r in ticks])
    axes.set_xlabel("resolution, Å", fontsize=10, color=INK)
    axes.legend(fontsize=8.5, loc="upper right", edgecolor="none", framealpha=0.85)
