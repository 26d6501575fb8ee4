"""Before and after, side by side, as one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dstnet.io import atomic_path

SHOWN_PIXELS = 700  # about, of an image's shorter side: as a screen shows it


def averaged_down(image: np.ndarray, step: int) -> tuple[np.ndarray, int]:
    """An image ``[y, x]`` averaged over squares of `step` pixels, at least 1, and that side; what
    does not fill a square is left out.
    """
    step = max(1, step)
    rows, columns = (n // step for n in image.shape)
    squares = image[: rows * step, : columns * step].reshape(rows, step, columns, step)
    return squares.mean((1, 3)), step


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
        small, step = averaged_down(image, min(image.shape) // SHOWN_PIXELS)
        height = small.shape[0] * step
        width = small.shape[1] * step
        low, high = np.percentile(small, (0.5, 99.5))
        axes.imshow(
            small,
            cmap="gray",
            vmin=low,
            vmax=high,
            extent=(0, width, height, 0),
            interpolation="nearest",
        )
        axes.set_title(name, fontsize=11)
        axes.set_axis_off()
        if image is images[0][1]:
            bar = 200.0 if width * pixel_size_angstrom < 2000 else 500.0
            x = width * 0.05
            y = height * 0.95
            length = bar / pixel_size_angstrom
            axes.plot([x, x + length], [y, y], color="white", linewidth=3, solid_capstyle="butt")
            label = f"{bar / 10:.0f} nm"
            axes.text(x, y - height * 0.015, label, color="white", fontsize=10, va="bottom")
    figure.suptitle(title, fontsize=12)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
