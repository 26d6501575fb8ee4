"""One synthetic movie on one page: what a camera would give, the truth under it, its motion, and
its power spectrum.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from dstnet.dataset import SimulatedMovie
from dstnet.io import atomic_path, ensure_writable_folder
from dstnet.motion.local_field import local_displacement
from dstnet.optics.ctf import OpticsSettings
from dstnet.report.panels import (
    INK,
    draw_image,
    draw_local_motion,
    draw_numbers,
    draw_profile,
    draw_rings,
    draw_track,
)
from dstnet.report.spectrum import low_passed

SEEN_ANGSTROM = 20.0  # low-pass of the sum, for the eye
# From black to white at least, in deviations of the low-passed sum's noise, and in rad
LEAST_DEVIATIONS = 8.0
LEAST_PHASE_RAD = 0.1
PANEL_GRID = {
    "left": 0.035,
    "right": 0.99,
    "top": 0.905,
    "bottom": 0.065,
    "wspace": 0.16,
    "hspace": 0.2,
}


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


def write_overview(movie: SimulatedMovie) -> None:
    """Draw a movie of a data set as ``preview/NAME.png`` in the data set's folder.

    Raises
    ------
    BadInputError
        If a file of the movie is missing or damaged.
    OutputError
        If the picture cannot be written.
    """
    folder = ensure_writable_folder(movie.folder / "preview")
    draw(read_overview(movie), folder / f"{movie.name}.png")


def read_overview(movie: SimulatedMovie) -> Overview:
    """What `write_overview` draws, read from the movie's files.

    Raises
    ------
    BadInputError
        If a file of the movie is missing or damaged.
    """
    settings = movie.settings
    total = recorded_sum(movie)
    motion = movie.motion()
    coefficients = motion.local_coefficients_angstrom
    local = local_displacement(coefficients[-1] - coefficients[0], (9, 9))
    parts = {}
    for name, part in movie.motion_parts_angstrom().items():
        if part.any():
            parts[name] = part.numpy()
    counts = float(total.mean()) / settings.frames
    return Overview(
        name=movie.name,
        total=total.numpy(),
        clean=movie.truth("clean")[0],
        phase=movie.truth("phase")[0],
        pixel_size_angstrom=settings.pixel_size_angstrom,
        track=motion.global_shift_angstrom.double().numpy(),
        parts=parts,
        local=local.numpy(),
        optics=settings.optics,
        numbers=_numbers(movie, counts),
    )


def recorded_sum(movie: SimulatedMovie) -> Tensor:
    """Sum of a movie's frames as the camera wrote them, [y, x].

    Raises
    ------
    BadInputError
        If the movie is missing or damaged.
    """
    frames = movie.raw_movie()
    total = frames.frame(0).clone()
    for i in range(1, len(frames)):
        total += frames.frame(i)
    return total


def _numbers(movie: SimulatedMovie, counts_per_pixel: float) -> list[tuple[str, str]]:
    """What the page says of a movie in words."""
    settings = movie.settings
    optics = movie.settings.optics
    height, width = settings.shape
    exposure = settings.frames * settings.exposure_e_per_a2
    astigmatism = f"{optics.astigmatism_angstrom:.0f} Å at {optics.astigmatism_angle_deg:.0f}°"
    return [
        ("field", f"{width} x {height} px, {settings.pixel_size_angstrom:g} Å/px"),
        ("exposure", f"{exposure:g} e⁻/Å² in {settings.frames} frames"),
        ("counts", f"{counts_per_pixel:.2f} a pixel and frame"),
        ("underfocus", f"{optics.defocus_angstrom / 1e4:.2f} µm"),
        ("astigmatism", astigmatism),
        ("microscope", f"{optics.voltage_kv:g} kV, Cs {optics.cs_mm:g} mm"),
        ("particles", str(len(movie.particles()))),
        ("species", ", ".join(movie.record.species) or "none"),
        ("camera", settings.detector.mode),
        ("ice", f"{settings.specimen.ice_thickness_angstrom / 10:.0f} nm"),
        ("seed", str(movie.record.seed)),
    ]


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
    panels = figure.subplots(2, 4, gridspec_kw=PANEL_GRID)
    sum_panel, contrast_panel, phase_panel, rings_panel = panels[0]
    track_panel, local_panel, numbers_panel, profile_panel = panels[1]
    pixel = movie.pixel_size_angstrom
    seen = low_passed(movie.total, pixel, SEEN_ANGSTROM)
    title = f"sum of frames as recorded, low-pass {SEEN_ANGSTROM:g} Å"
    counts = float(movie.total.mean())
    # The mean square of the low-pass over all frequencies is pi / (2 x^2), x in pixels.
    noise = math.sqrt(counts * math.pi / 2) * pixel / SEEN_ANGSTROM
    least = LEAST_DEVIATIONS * noise
    draw_image(sum_panel, seen, pixel, title, least)
    title = "truth: contrast, CTF on, no noise"
    draw_image(contrast_panel, movie.clean, pixel, title, least / counts)
    title = f"truth: projected phase, to {movie.phase.max():.2f} rad"
    draw_image(phase_panel, movie.phase, pixel, title, LEAST_PHASE_RAD)
    draw_rings(rings_panel, movie.total, pixel, movie.optics)
    draw_track(track_panel, movie.track, movie.parts)
    height, width = movie.total.shape
    draw_local_motion(local_panel, movie.local, (height, width))
    draw_numbers(numbers_panel, movie.numbers)
    draw_profile(profile_panel, movie.total, pixel, movie.optics)
    canvas.draw()
    # Nothing of the page is transparent, which would cost a quarter more.
    pixels = np.asarray(canvas.buffer_rgba())
    opaque = pixels[..., :3]
    page = Image.fromarray(opaque)
    with atomic_path(path) as temporary:
        page.save(temporary, optimize=True)
