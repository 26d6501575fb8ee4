"""Many simulated movies on one picture: of each the sum of its frames and the truth under it."""

import math
from collections.abc import Sequence
from pathlib import Path

from dstnet.dataset import SimulatedMovie
from dstnet.io import atomic_path
from dstnet.report.overview import SEEN_ANGSTROM, recorded_sum
from dstnet.report.panels import INK, draw_image
from dstnet.report.spectrum import low_passed

COLUMNS = 4  # of movies; each takes two pictures side by side
INCHES = 2.3  # a picture


def draw_contact_sheet(movies: Sequence[SimulatedMovie], path: Path) -> None:
    """Draw movies as one PNG file, in their order.

    Parameters
    ----------
    movies
        At least one.
    path
        Of the picture.

    Raises
    ------
    BadInputError
        If a file of a movie is missing or damaged.
    OutputError
        If the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(movies))
    rows = math.ceil(len(movies) / columns)
    size = (2 * columns * INCHES, rows * (INCHES + 0.45))
    figure = Figure(figsize=size, dpi=110, facecolor="white", layout="constrained")
    panels = figure.subplots(rows, 2 * columns, squeeze=False)
    for panel in panels.ravel():
        panel.set_axis_off()
    for number, movie in enumerate(movies):
        row, column = divmod(number, columns)
        pixel = movie.settings.pixel_size_angstrom
        of_sum, of_truth = panels[row, 2 * column : 2 * column + 2]
        seen = low_passed(recorded_sum(movie).numpy(), pixel, SEEN_ANGSTROM)
        draw_image(of_sum, seen, pixel, movie.name[-28:])
        draw_image(of_truth, movie.truth("clean")[0], pixel, _numbers(movie))
        of_sum.title.set_fontsize(7.5)
        of_truth.title.set_fontsize(7.5)
    figure.suptitle(
        f"sums of frames as recorded, low-pass {SEEN_ANGSTROM:g} Å, and the truth under each",
        fontsize=10,
        color=INK,
    )
    canvas = FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        canvas.print_png(str(temporary))


def _numbers(movie: SimulatedMovie) -> str:
    """What is said above a movie's truth."""
    statistics = movie.facts().statistics
    underfocus = statistics.defocus_angstrom / 1e4
    return f"{statistics.particles} particles, {underfocus:.1f} µm, SNR {statistics.snr_of_sum:.3f}"
