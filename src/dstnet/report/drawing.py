"""What figures of an evaluation share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstnet.io import atomic_path
from dstnet.report.panels import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_line_style(number: int, method: str) -> dict[str, Any]:
    """Colour and style of a method's curve, the methods numbered from 0."""
    import matplotlib

    colours = matplotlib.colormaps["tab10"].colors  # pyright: ignore[reportAttributeAccessIssue]
    own = method.startswith("dstnet")
    style = ("-", "--", ":")[number // len(colours) % 3]
    return {
        "color": colours[number % len(colours)],
        "linestyle": style,
        "linewidth": 2.2 if own else 1.3,
    }


def new_figure(width: float, height: float) -> "Figure":
    """An empty one, in inches, that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: "Axes") -> None:
    """Thin grid, no box."""
    axes.tick_params(labelsize=9, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color="#e6e9ed", linewidth=0.7)
    axes.set_axisbelow(True)


def save_figure(figure: "Figure", target: Path) -> None:
    """As a PNG file, complete or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with atomic_path(target) as path:
        figure.savefig(path, dpi=100)
