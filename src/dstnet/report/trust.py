"""Tables and figures of what methods invent, and of what maps from their images promise."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dstnet.evaluation.base import Candidate, Subject
from dstnet.evaluation.erased_run import erase_particles
from dstnet.evaluation.erased_summary import ErasedRow, Estimate
from dstnet.evaluation.map_curves import MapCurves
from dstnet.evaluation.map_run import DatasetMaps, reconstruct
from dstnet.evaluation.settings import EvaluationSettings
from dstnet.io import atomic_path
from dstnet.report.drawing import draw_line_style, new_figure, save_figure, style_axes
from dstnet.report.panels import ACCENT, INK, MUTED
from dstnet.runs import Workplace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COARSEST_ANGSTROM = 40.0  # of shell correlations; coarser shells are few terms
_ERASED_COLUMNS = {
    "invented": "invented",
    "scatter": "scatter",
    "told_apart": "told apart",
    "amplitude": "amplitude",
    "picked_present": "picked where present",
    "picked_erased": "picked where erased",
}
_MAP_COLUMNS = {
    "promised_angstrom": "half maps at 0.143, Å",
    "confirmed_angstrom": "truth at 0.5, Å",
    "bias": "promised - confirmed",
}
# In the figure: what is drawn, where the perfect method lies, and the range that is always shown.
_DRAWN = {
    "invented": ("drawn of erased particles", 0.0, (-0.1, 0.3)),
    "scatter": ("scatter where erased", 0.0, (0.0, 0.6)),
    "told_apart": ("present and erased told apart", 1.0, (0.45, 1.03)),
    "picked_erased": ("picked where erased (faint: present)", 0.0, (-0.05, 1.05)),
}


@dataclass(frozen=True)
class Trust:
    """What goes beyond a table: the same methods on erased particles, and maps of their images.

    Attributes
    ----------
    subjects, candidates
        Simulated movies, and the methods.
    folder
        Of the evaluation.
    settings
        Of it.
    structures
        Folders of structure files.
    """

    subjects: Sequence[Subject]
    candidates: Sequence[Candidate]
    folder: Path
    settings: EvaluationSettings
    structures: tuple[Path, ...] = ()

    def write_erased(self, workplace: Workplace, say: Callable[[str], None]) -> tuple[str, ...]:
        """Erase particles and write what methods show there; a line on each thing left out.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        erasure = erase_particles(
            self.subjects,
            self.candidates,
            self.folder,
            self.settings,
            self.structures,
            workplace=workplace,
            report=say,
        )
        write_erased(self.folder, erasure.rows)
        return erasure.left_out

    def write_maps(self, say: Callable[[str], None]) -> tuple[str, ...]:
        """Make maps and write what they promise; a line on each thing left out.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        made = reconstruct(
            self.subjects,
            self.candidates,
            self.folder,
            self.settings,
            self.structures,
            report=say,
        )
        write_maps(self.folder, made.datasets)
        return made.left_out


def write_erased(folder: Path, rows: Sequence[ErasedRow]) -> None:
    """Write ``erased.csv``, ``erased.json``, ``erased.md`` and ``erased.png``.

    Parameters
    ----------
    folder
        Of the evaluation.
    rows
        Method by method, condition by condition.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    records = [_flat(row) for row in rows]
    _write(folder / "erased.csv", _csv(records))
    _write(folder / "erased.json", json.dumps(records, indent=1) + "\n")
    headings = ("particle", "e⁻/Å²", "contrast", "method", *_ERASED_COLUMNS.values(), "places")
    lines = [
        (
            f"{row.structure} ({row.diameter_angstrom:.0f} Å)",
            f"{row.exposure_e_per_a2:g}",
            f"{row.contrast:g}",
            entry_name(row),
            *(_interval(getattr(row, name)) for name in _ERASED_COLUMNS),
            str(row.places),
        )
        for row in rows
    ]
    _write(folder / "erased.md", _markdown(headings, lines))
    if rows:
        draw_erased(folder / "erased.png", rows)


def write_maps(folder: Path, datasets: Sequence[DatasetMaps]) -> None:
    """Write ``maps.csv``, ``maps.md`` and a ``maps-NAME.png`` for each data set.

    Parameters
    ----------
    folder
        Of the evaluation.
    datasets
        Their maps.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    records = []
    lines = []
    for maps in datasets:
        for curves in maps.curves:
            numbers = zip(
                curves.frequency,
                curves.half_maps,
                curves.promised,
                curves.confirmed,
                strict=True,
            )
            names = ("frequency_per_angstrom", "half_maps", "promised", "confirmed")
            start = {"dataset": maps.dataset, "method": curves.method}
            records += [start | dict(zip(names, row, strict=True)) for row in numbers]
            figures = [_interval(getattr(curves, name), 2) for name in _MAP_COLUMNS]
            lines.append((maps.dataset, curves.method, str(curves.particles), *figures))
        draw_maps(folder / f"maps-{maps.dataset}.png", maps)
    _write(folder / "maps.csv", _csv(records))
    headings = ("data set", "images", "particles", *_MAP_COLUMNS.values())
    _write(folder / "maps.md", _markdown(headings, lines))


def draw_erased(path: Path, rows: Sequence[ErasedRow]) -> None:
    """What is drawn of erased particles, how well they are told from present ones, and how often
    they are picked, by the particles' size; a row of axes for each exposure and contrast.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    conditions = sorted({(row.exposure_e_per_a2, row.contrast) for row in rows})
    entries = list(dict.fromkeys(entry_name(row) for row in rows))
    figure = new_figure(3.7 * len(_DRAWN), 2.9 * len(conditions) + 0.6)
    axes_of = figure.subplots(len(conditions), len(_DRAWN), squeeze=False, sharex=True)
    for across, condition in zip(axes_of, conditions, strict=True):
        exposure, contrast = condition
        for axes, (name, (label, perfect, shown)) in zip(across, _DRAWN.items(), strict=True):
            of_condition = [r for r in rows if (r.exposure_e_per_a2, r.contrast) == condition]
            _draw_by_size(axes, of_condition, entries, name)
            if name == "picked_erased":
                _draw_by_size(axes, of_condition, entries, "picked_present", alpha=0.3)
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, shown[0]), max(high, shown[1]))
            axes.margins(x=0.1)
            axes.axhline(perfect, color=INK, linewidth=0.8)
            axes.set_title(f"{label}\n{exposure:g} e⁻/Å², contrast {contrast:g}", fontsize=9.5)
            style_axes(axes)
    for axes in axes_of[-1]:
        axes.set_xlabel("diameter of the particle, Å", fontsize=9.5, color=INK)
    axes_of[0, 0].legend(fontsize=8, frameon=False)
    save_figure(figure, path)


def _draw_by_size(
    axes: "Axes",
    rows: Sequence[ErasedRow],
    entries: Sequence[str],
    name: str,
    alpha: float = 1.0,
) -> None:
    for number, entry in enumerate(entries):
        own = [row for row in rows if entry_name(row) == entry]
        own.sort(key=lambda row: row.diameter_angstrom)
        if not own:
            continue
        # Side by side, so that intervals do not hide each other.
        beside = 1.2 * (number - len(entries) / 2)
        x = np.array([row.diameter_angstrom for row in own]) + beside
        estimates: list[Estimate] = [getattr(row, name) for row in own]
        y = np.array([estimate.value for estimate in estimates])
        low = y - np.array([estimate.low for estimate in estimates])
        high = np.array([estimate.high for estimate in estimates]) - y
        errors = np.clip(np.nan_to_num([low, high]), 0, None)
        style = draw_line_style(number, entry)
        style |= {"marker": "o", "markersize": 3.5, "capsize": 2, "alpha": alpha}
        axes.errorbar(x, y, errors, label=entry, **style)


def draw_maps(path: Path, maps: DatasetMaps) -> None:
    """Half maps' promise and the truth's word, side by side for each kind of image.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    across = min(3, len(maps.curves))
    down = -(-len(maps.curves) // across)
    figure = new_figure(4.5 * across, 3.5 * down + 0.5)
    axes_of = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, curves in zip(axes_of, maps.curves, strict=False):
        _draw_promise(axes, curves)
        style_axes(axes)
    for axes in axes_of[len(maps.curves) :]:
        axes.set_axis_off()
    axes_of[0].legend(fontsize=8, frameon=False, loc="lower left")
    for axes in axes_of[-across:]:
        axes.set_xlabel("spatial frequency, 1/Å", fontsize=9.5, color=INK)
    figure.suptitle(f"{maps.dataset}: Fourier shell correlation", fontsize=11, color=INK)
    save_figure(figure, path)


def _draw_promise(axes: "Axes", curves: MapCurves) -> None:
    k = np.array(curves.frequency)
    shown = k >= 1 / COARSEST_ANGSTROM
    promised = np.array(curves.promised)[shown]
    confirmed = np.array(curves.confirmed)[shown]
    k = k[shown]
    axes.plot(
        k, promised, color=ACCENT, linewidth=1.6, label="with the truth, as half maps promise"
    )
    axes.plot(k, confirmed, color=INK, linewidth=1.8, label="with the truth")
    half_maps = np.array(curves.half_maps)[shown]
    axes.plot(k, half_maps, color=MUTED, linewidth=1.0, linestyle="--", label="of the half maps")
    is_too_much = (promised > confirmed).tolist()
    axes.fill_between(k, confirmed, promised, where=is_too_much, color=ACCENT, alpha=0.2, lw=0)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set_ylim(-0.1, 1.02)
    said = f"{curves.promised_angstrom.value:.1f} Å promised, {curves.confirmed_angstrom.value:.1f}"
    axes.set_title(f"{curves.method}\n{said} Å true", fontsize=9.5, color=INK)


def entry_name(row: ErasedRow) -> str:
    """A method, and its output where that is not the micrograph."""
    return row.method if row.output == "micrograph" else f"{row.method} {row.output}"


def _interval(estimate: Estimate, digits: int = 2) -> str:
    value, low, high = (f"{number:.{digits}f}" for number in astuple(estimate))
    return f"{value} ({low} to {high})"


def _flat(row: ErasedRow) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for field in fields(row):
        value = getattr(row, field.name)
        if isinstance(value, Estimate):
            names = (field.name, f"{field.name}_low", f"{field.name}_high")
            numbers = (number if math.isfinite(number) else None for number in astuple(value))
            record |= dict(zip(names, numbers, strict=True))
        else:
            record[field.name] = value
    return record


def _csv(records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [headings, ["---"] * len(headings), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _write(target: Path, text: str) -> None:
    with atomic_path(target) as path:
        path.write_text(text, encoding="utf-8")
