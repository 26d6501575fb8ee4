"""Tables of an evaluation: CSV for programs, Markdown and LaTeX for people, JSON of all.

In tables for people a row is a method's output and a column a measure: mean and 95 % interval,
and [of how many movies] where it is not of all.
Bold is only what is surely best: better than the best other, told nothing, by a paired difference
whose interval leaves out zero.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dstnet.evaluation.base import Measure
from dstnet.evaluation.records import MovieScores
from dstnet.evaluation.summary import Difference, Entry, Estimate, Mean, Score, Summary
from dstnet.io import atomic_path

# What tables for people show, in this order, of what there is; all else is in the CSV files.
HEADLINES = (
    "residual",
    "residual-20",
    "residual-10",
    "ssim",
    "frc-area",
    "frc-0.5",
    "exposure-frc",
    "ap",
    "f1",
    "particle-snr-gain",
    "half-shells",
)
_ARROWS = {"higher": "↑", "lower": "↓", "": ""}
_LATEX_ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "": ""}
_LATEX_ESCAPES = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"Å": r"\AA{}", "–": "--"}
)


@dataclass(frozen=True)
class Cell:
    """One number of a table for people; no mean: there is none."""

    estimate: Estimate | None
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """A data set's table.

    Attributes
    ----------
    dataset, movies
        Its name, and how many movies it has.
    columns
        Measures.
    rows
        A label, a cell for each column, and CPU seconds a movie.
    """

    dataset: str
    movies: int
    columns: tuple[Measure, ...]
    rows: tuple[tuple[str, tuple[Cell, ...], float], ...]


def write_tables(
    folder: Path,
    summary: Summary,
    movies: Sequence[MovieScores],
    methods: Sequence[str],
    measures: Sequence[Measure],
) -> list[Table]:
    """Write ``scores.csv``, ``means.csv``, ``differences.csv``, ``scores.json``, ``table.md`` and
    ``table.tex``; gives the tables for people.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    by_name = {measure.name: measure for measure in measures}
    rows = {
        "scores.csv": [_score_row(score, by_name[score.measure]) for score in summary.scores],
        "means.csv": [_mean_row(mean, by_name[mean.measure]) for mean in summary.means],
        "differences.csv": [_difference_row(difference) for difference in summary.differences],
    }
    for name, values in rows.items():
        _write(folder / name, _csv(values))
    about = {m.name: _about(m) for m in measures}
    everything = {"measures": about, **{Path(name).stem: rows[name] for name in rows}}
    _write(folder / "scores.json", json.dumps(everything, indent=1, allow_nan=False) + "\n")
    tables = tables_for_people(summary, movies, methods, measures)
    _write(folder / "table.md", "\n".join(map(markdown, tables)))
    _write(folder / "table.tex", "\n".join(map(latex, tables)))
    return tables


def tables_for_people(
    summary: Summary,
    movies: Sequence[MovieScores],
    methods: Sequence[str],
    measures: Sequence[Measure],
) -> list[Table]:
    """A table a data set."""
    by_name = {measure.name: measure for measure in measures}
    best = {
        (d.dataset, d.method, d.output, d.measure)
        for d in summary.differences
        if d.role == "best other" and d.verdict == "better"
    }
    cells = {(m.dataset, m.method, m.output, m.measure): m.estimate for m in summary.means}
    found = []
    for dataset in dict.fromkeys(movie.dataset for movie in movies):
        of_dataset = [movie for movie in movies if movie.dataset == dataset]
        shown = {mean.measure for mean in summary.means if mean.dataset == dataset}
        columns = [by_name[name] for name in HEADLINES if name in shown]
        rows = []
        for method, output, told in _entries(of_dataset, methods):
            row = []
            for column in columns:
                key = (dataset, method, output, column.name)
                row.append(Cell(cells.get(key), key in best and not told))
            label = entry_label((method, output)) + (" (told)" if told else "")
            rows.append((label, tuple(row), _mean_seconds(of_dataset, method)))
        found.append(Table(dataset, len(of_dataset), tuple(columns), tuple(rows)))
    return found


def _entries(
    movies: Sequence[MovieScores], methods: Sequence[str]
) -> Iterator[tuple[str, str, bool]]:
    """Method, output, and whether the method is told the truth, in the order of `methods`."""
    for method in methods:
        scores = [movie.methods[method] for movie in movies if method in movie.methods]
        for output in dict.fromkeys(name for of in scores for name in of.outputs):
            yield method, output, any(of.told for of in scores)


def entry_label(entry: Entry) -> str:
    """What tables and figures call a method's output."""
    method, output = entry
    return method if output == "micrograph" else f"{method}: {output}"


def markdown(table: Table) -> str:
    """A table in Markdown."""
    heads = [f"{c.label}{_unit(c)} {_ARROWS[c.better]}".strip() for c in table.columns]
    lines = [
        f"**{table.dataset}**, {table.movies} movies",
        "",
        "| | " + " | ".join([*heads, "CPU s"]) + " |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for label, cells, seconds in table.rows:
        texts = [_text(cell, table.movies) for cell in cells]
        texts = [
            f"**{text}**" if cell.is_best else text for text, cell in zip(texts, cells, strict=True)
        ]
        name = label.replace("|", r"\|")
        lines.append(f"| {name} | " + " | ".join([*texts, f"{seconds:.1f}"]) + " |")
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """A table in LaTeX (booktabs)."""
    heads = [
        (c.label + _unit(c)).translate(_LATEX_ESCAPES) + _LATEX_ARROWS[c.better]
        for c in table.columns
    ]
    lines = [
        f"% {table.dataset}, {table.movies} movies",
        rf"\begin{{tabular}}{{l{'r' * (len(heads) + 1)}}}",
        r"\toprule",
        " & ".join(["", *heads, r"CPU s"]) + r" \\",
        r"\midrule",
    ]
    for label, cells, seconds in table.rows:
        texts = [_text(cell, table.movies).translate(_LATEX_ESCAPES) for cell in cells]
        texts = [
            rf"\textbf{{{text}}}" if cell.is_best else text
            for text, cell in zip(texts, cells, strict=True)
        ]
        row = [label.translate(_LATEX_ESCAPES), *texts, f"{seconds:.1f}"]
        lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _unit(measure: Measure) -> str:
    return f", {measure.unit}" if measure.unit else ""


def _text(cell: Cell, movies: int) -> str:
    """Mean, interval, and of how many movies where that is not all of them."""
    estimate = cell.estimate
    if estimate is None:
        return "–"
    digits = _digits(estimate.mean)
    text = f"{estimate.mean:.{digits}f}"
    if estimate.interval is not None:
        low, high = estimate.interval
        text += f" ({low:.{digits}f}–{high:.{digits}f})"
    return text if estimate.movies == movies else f"{text} [{estimate.movies}]"


def _digits(value: float) -> int:
    """After the point: three figures, or as many as are of use below one."""
    return 3 if abs(value) < 1 else max(0, 2 - int(math.log10(abs(value))))


def _mean_seconds(movies: Iterable[MovieScores], method: str) -> float:
    seconds = [m.methods[method].cpu_seconds for m in movies if method in m.methods]
    return sum(seconds) / max(1, len(seconds))


def _about(measure: Measure) -> dict[str, object]:
    values = asdict(measure)
    del values["function"]
    return values


def _score_row(score: Score, measure: Measure) -> dict[str, object]:
    return {
        "dataset": score.dataset,
        "movie": score.movie,
        "method": score.method,
        "output": score.output,
        "measure": score.measure,
        "unit": measure.unit,
        "better": measure.better,
        "value": score.value,
    }


def _mean_row(mean: Mean, measure: Measure) -> dict[str, object]:
    return {
        "dataset": mean.dataset,
        "method": mean.method,
        "output": mean.output,
        "told": mean.told,
        "measure": mean.measure,
        "unit": measure.unit,
        "better": measure.better,
        **_estimate_columns(mean.estimate),
    }


def _difference_row(difference: Difference) -> dict[str, object]:
    return {
        "dataset": difference.dataset,
        "method": difference.method,
        "output": difference.output,
        "measure": difference.measure,
        "against": difference.role,
        "other_method": difference.other[0],
        "other_output": difference.other[1],
        **_estimate_columns(difference.estimate),
        "verdict": difference.verdict,
    }


def _estimate_columns(estimate: Estimate) -> dict[str, object]:
    low, high = estimate.interval or (None, None)
    mean = estimate.mean if math.isfinite(estimate.mean) else None
    return {"movies": estimate.movies, "mean": mean, "low": low, "high": high}


def _csv(rows: Sequence[dict[str, object]]) -> str:
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return stream.getvalue()


def _write(target: Path, text: str) -> None:
    with atomic_path(target) as path:
        path.write_text(text, encoding="utf-8")
