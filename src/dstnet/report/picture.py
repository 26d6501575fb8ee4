"""Before and after, side by side, as one PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dstnet.io import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_PIXELS = 700  # about, of an image's shorter side: as a screen shows it
PERCENTILES = (0.5, 99.5)  # of an image, that are black and white


def averaged_down(image: np.ndarray, step: int) -> tuple[np.ndarray, int]:
    """An image ``[y, x]`` averaged over squares of `step` pixels, at least 1, and that side; what
    does not fill a square is left out.
    """
    step = max(1, step)
    rows, columns = (n // step for n in image.shape)
    kept = image[: rows * step, : columns * step]
    squares = kept.reshape(rows, step, columns, step)
    return squares.mean((1, 3)), step


def show_grey(
    axes: "Axes",
    image: np.ndarray,
    step: int,
    percentiles: tuple[float, float],
    least_range: float = 0.0,
) -> tuple[int, int]:
    """Draw an image in grey on axes that count its own pixels, row 0 at the top.

    Parameters
    ----------
    axes, image
        Where it is drawn, and the image, ``[y, x]``.
    step
        It is averaged over squares of so many pixels first.
    percentiles
        Of the image, that are black and white.
    least_range
        From black to white at least, in the image's unit: what is less than the noise is not to
        show as particles do.

    Returns
    -------
    tuple
        Height and width in pixels of what is shown.
    """
    small, step = averaged_down(image, step)
    rows, columns = small.shape
    height = rows * step
    width = columns * step
    low, high = np.percentile(small, percentiles)
    missing = max(0.0, least_range - (high - low)) / 2
    axes.imshow(
        small,
        cmap="gray",
        vmin=low - missing,
        vmax=max(high + missing, low + 1e-12),
        extent=(0, width, height, 0),
        interpolation="nearest",
    )
    axes.set_axis_off()
    return height, width


def picture(
    images: Sequence[tuple[str, np.ndarray]],
    path: Path,
    *,
    pixel_size_angstrom: float,
    title: str = "",
) -> None:
    """Images ``[y, x]`` side by side, each in its own grey range (0.5 to 99.5 percent), a scale bar
    in the first.

    Row 0 is drawn at the top. Large images are averaged down to about 700 pixels, as a screen shows
    them.

    Parameters
    ----------
    images
        The name above each, and the image.
    path
        Of the PNG file.
    pixel_size_angstrom
        Of the images.
    title
        Above them all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(images), 4.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(1, len(images)))
    for axes, (name, image) in zip(panels, images, strict=True):
        step = min(image.shape) // SHOWN_PIXELS
        shape = show_grey(axes, image, step, PERCENTILES)
        axes.set_title(name, fontsize=11)
        if image is images[0][1]:
            _draw_scale_bar(axes, shape, pixel_size_angstrom)
    figure.suptitle(title, fontsize=12)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _draw_scale_bar(axes: "Axes", shape: tuple[int, int], pixel_size_angstrom: float) -> None:
    """A bar of 20 nm, or of 50 nm in a wide image, at the lower left."""
    height, width = shape
    length_angstrom = 500.0
    if width * pixel_size_angstrom < 2000:
        length_angstrom = 200.0
    x = width * 0.05
    y = height * 0.95
    end = x + length_angstrom / pixel_size_angstrom
    axes.plot([x, end], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    label = f"{length_angstrom / 10:.0f} nm"
    axes.text(x, y - height * 0.015, label, color="white", fontsize=10, va="bottom")
