"""Figures and the page of an evaluation: crops of all methods on one grey scale, ring
correlations, bars with intervals.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

from dstnet.errors import printable
from dstnet.evaluation import Evaluation
from dstnet.evaluation.base import Curve, Measure
from dstnet.evaluation.crops import STEP
from dstnet.evaluation.records import TRUTH, MovieScores, read_crops, write_provenance
from dstnet.evaluation.summary import summarised
from dstnet.evaluation.tables import Table, write_tables
from dstnet.io import atomic_path
from dstnet.report.drawing import draw_line_style, new_figure, save_figure, style_axes
from dstnet.report.panels import ACCENT, INK, draw_scale_bar

PAGE = "evaluation.html"
FURTHER = "erased.png", "maps-*.png"  # pictures of dstnet.report.trust
COLUMNS = 5  # crops in a row of a panel
PERCENTILES = (1.0, 99.0)  # of a crop; black and white are the middle ones of all crops'
FINEST_ANGSTROM = 4.0  # of ring correlations
_CURVES = {"frc": "FRC to the truth", "half-frc": "enhanced half against raw other half"}

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(folder: Path, evaluation: Evaluation, left_out: Sequence[str]) -> Path:
    """Write tables, figures, ``provenance.json`` and the page of an evaluation; gives the page.

    Parameters
    ----------
    folder
        Of the evaluation.
    evaluation
        What came of it.
    left_out
        A line on each thing that has no score though it should.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    settings = evaluation.settings
    methods = [candidate.name for candidate in evaluation.candidates]
    summary = summarised(
        evaluation.movies,
        methods,
        evaluation.measures,
        reference=settings.reference,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    tables = write_tables(folder, summary, evaluation.movies, methods, evaluation.measures)
    for table in tables:
        _write_figures(folder, evaluation, methods, table)
    about = _about(evaluation, left_out)
    write_provenance(folder, settings.shared, about)
    return write_page(folder, tables, about)


def _write_figures(
    folder: Path, evaluation: Evaluation, methods: Sequence[str], table: Table
) -> None:
    outcomes = [o for o in evaluation.outcomes if o.scores.dataset == table.dataset]
    # The first of those that most methods were tried on: not chosen by how it looks.
    first = max(outcomes, key=lambda outcome: len(outcome.scores.methods))
    scored = {name for name, scores in first.scores.methods.items() if scores.outputs}
    crops = read_crops(folder, first.subject)
    shown = Shown(first.scores, {k: crop for k, crop in crops.items() if k in scored | {TRUTH}})
    measure = table.columns[0] if table.columns else None
    if any(name in shown.crops for name in methods):
        write_panel(folder / f"panel-{table.dataset}.png", shown, methods, measure)
    movies = [outcome.scores for outcome in outcomes]
    write_curves(folder / f"frc-{table.dataset}.png", movies, methods)
    if table.columns:
        write_bars(folder / f"bars-{table.dataset}.png", table)


def _about(evaluation: Evaluation, left_out: Sequence[str]) -> dict[str, Any]:
    """What goes on record of an evaluation besides its scores."""
    cpu_seconds = sum(
        scores.cpu_seconds for movie in evaluation.movies for scores in movie.methods.values()
    )
    return {
        "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "seconds_of_last_run": round(evaluation.seconds, 1),
        "cpu_seconds_of_methods": round(cpu_seconds, 1),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in ("numpy", "scipy", "torch")},
        "settings": evaluation.settings.model_dump(mode="json"),
        "methods": {c.name: c.describe() for c in evaluation.candidates},
        "measures": [measure.name for measure in evaluation.measures],
        "movies": [f"{m.dataset}/{m.name}: {m.path}" for m in evaluation.movies],
        "left_out": list(left_out),
    }


@dataclass(frozen=True)
class Shown:
    """A movie whose crops are shown.

    Attributes
    ----------
    movie
        Its scores.
    crops
        By method, [y, x], see `dstnet.evaluation.crops`; the truth among them.
    """

    movie: MovieScores
    crops: Mapping[str, np.ndarray]


def write_panel(path: Path, shown: Shown, methods: Sequence[str], measure: Measure | None) -> None:
    """Draw crops of all methods on one grey scale, each with its name and its score.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    names = [name for name in (*methods, TRUTH) if name in shown.crops]
    rows = -(-len(names) // COLUMNS)
    figure = new_figure(2.9 * min(COLUMNS, len(names)), 3.15 * rows + 0.3)
    axes_of = figure.subplots(rows, min(COLUMNS, len(names)), squeeze=False).ravel()
    images = [shown.crops[name].astype(np.float32) for name in names]
    low, high = np.median([np.percentile(image, PERCENTILES) for image in images], axis=0)
    pixel = (shown.movie.pixel_size_angstrom or 1.0) * STEP
    for axes, name, image in zip(axes_of, names, images, strict=False):
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axes.set_title(_titled(shown.movie, name, measure), fontsize=9.5, color=INK)
    for axes in axes_of:
        axes.set_axis_off()
    draw_scale_bar(axes_of[0], images[0].shape, pixel)
    said = "one grey scale, each scaled to explain most of the plain sum"
    figure.suptitle(f"{shown.movie.dataset}, {shown.movie.name}: {said}", fontsize=10, color=INK)
    save_figure(figure, path)


def _titled(movie: MovieScores, name: str, measure: Measure | None) -> str:
    scores = movie.methods.get(name)
    if measure is None or scores is None:
        return name
    told = " (told)" if scores.told else ""
    value = scores.outputs["micrograph"].values.get(measure.name)
    return f"{name}{told}" if value is None else f"{name}{told}: {value:.3f}"


def write_curves(path: Path, movies: Sequence[MovieScores], methods: Sequence[str]) -> bool:
    """Draw ring correlations, means over movies; False where there are none.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    found = {}
    for name in _CURVES:
        of_methods = {method: _mean_curve(movies, method, name) for method in methods}
        if any(curve is not None for curve in of_methods.values()):
            found[name] = of_methods
    if not found:
        return False
    figure = new_figure(7.4 * len(found), 4.6)
    for axes, (name, curves) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        for number, (method, curve) in enumerate(curves.items()):
            if curve is not None:
                axes.plot(curve.x, curve.y, label=method, **draw_line_style(number, method))
        style_axes(axes)
        axes.set_xlim(0, 1 / FINEST_ANGSTROM)
        axes.set_title(_CURVES[name], fontsize=11, color=INK)
        axes.set_xlabel("spatial frequency, 1/Å", fontsize=10, color=INK)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.legend(fontsize=8, frameon=False)
    save_figure(figure, path)
    return True


def _mean_curve(movies: Sequence[MovieScores], method: str, name: str) -> Curve | None:
    """Mean over movies, on the rings of the first."""
    curves = [
        movie.methods[method].outputs["micrograph"].curves[name]
        for movie in movies
        if method in movie.methods
        and "micrograph" in movie.methods[method].outputs
        and name in movie.methods[method].outputs["micrograph"].curves
    ]
    if not curves:
        return None
    x = curves[0].x
    y = np.mean([np.interp(x, curve.x, curve.y) for curve in curves], axis=0)
    return Curve(x, tuple(y.tolist()))


def write_bars(path: Path, table: Table) -> None:
    """Draw the means of a table with their intervals.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    count = len(table.columns)
    across = min(4, count)
    down = -(-count // across)
    labels = [label for label, _, _ in table.rows]
    figure = new_figure(3.6 * across + 1.2, (0.24 * len(labels) + 0.9) * down)
    axes_of = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for number, (axes, measure) in enumerate(zip(axes_of, table.columns, strict=False)):
        for row, (_, cells, _) in enumerate(table.rows):
            estimate = cells[number].estimate
            if estimate is None:
                continue
            color = ACCENT if cells[number].is_best else "#7b93a8"
            axes.barh(row, estimate.mean, color=color, height=0.7)
            if estimate.interval is not None:
                axes.plot(estimate.interval, (row, row), color=INK, linewidth=1.4)
        style_axes(axes)
        unit = f", {measure.unit}" if measure.unit else ""
        way = f" ({measure.better} is better)" if measure.better else ""
        axes.set_title(f"{measure.label}{unit}{way}", fontsize=9, color=INK)
    for axes in axes_of[count:]:
        axes.set_axis_off()
    axes_of[0].set_yticks(range(len(labels)), labels)
    axes_of[0].invert_yaxis()
    save_figure(figure, path)


def write_page(folder: Path, tables: Sequence[Table], about: Mapping[str, Any]) -> Path:
    """Write ``evaluation.html``: tables, the figures that lie beside it, and what was left out.

    Parameters
    ----------
    folder
        Of the evaluation.
    tables
        A data set each.
    about
        As in ``provenance.json``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    blocks = []
    for table in tables:
        names = (f"{kind}-{table.dataset}.png" for kind in ("panel", "frc", "bars"))
        blocks.append(
            {"table": table, "pictures": [name for name in names if (folder / name).is_file()]}
        )
    values = {
        "title": printable(f"dstnet: evaluation {folder.absolute().name}"),
        "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "blocks": blocks,
        "further": [n for pattern in FURTHER for n in sorted(p.name for p in folder.glob(pattern))],
        "left_out": about["left_out"],
        "about": yaml.safe_dump(json.loads(json.dumps(about, default=str)), sort_keys=False),
    }
    page = folder / PAGE
    with atomic_path(page) as path:
        path.write_text(_TEMPLATES.get_template(PAGE).render(values), encoding="utf-8")
    return page
