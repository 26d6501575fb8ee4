"""What a run says while it goes on and at its end: lines for people."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstnet.cli.options import Reporter
from dstnet.errors import printable

if TYPE_CHECKING:
    from dstnet.pipeline import Record, Summary
    from dstnet.runs import Workplace


def say_threads(workplace: "Workplace", report: Reporter) -> None:
    """Say how many threads work, where something limits them."""
    said = workplace.threads_in_words
    if said is not None:
        report.say(said)


class NumberedRecords:
    """Reports records with their number among `total`. A note that many movies have is printed
    with the first, and at the end with how many have it.
    """

    def __init__(self, report: Reporter, total: int | None) -> None:
        self._report = report
        self._number = 0
        self._of_all = "" if total is None else f"/{total}"
        self._times: Counter[str] = Counter()

    def __call__(self, record: "Record") -> None:
        self._number += 1
        results = record.results if record.status == "done" else None
        notes = [] if results is None else results.notes
        new = [note for note in dict.fromkeys(notes) if note not in self._times]
        self._times.update(set(notes))
        self._report(f"[{self._number}{self._of_all}] {_line(record, new)}", record.to_json())

    def say_repeated_notes(self) -> None:
        """Say which notes several movies have."""
        for note, times in self._times.items():
            if times > 1:
                self._report.say(f"note, of {times} movies: {note}")


def say_summary(summary: "Summary", output: Path, page: Path, report: Reporter) -> None:
    """Say what came of a run, and what is needed for RELION to go on."""
    done, skipped, failed = (summary.of(s) for s in ("done", "skipped", "failed"))
    report.say(
        f"{len(done)} done, {len(skipped)} already there, {len(failed)} failed; results in"
        f" {output}, see {page}"
    )
    for record in failed:
        report.say(f"failed: {record.error}")
    if summary.unlisted:
        report.say(
            f"micrographs.star leaves out {len(summary.unlisted)} of them, as STAR files hold no"
            f" blank, quote, backslash or # in a name ({summary.unlisted[0]}); rename them, or the"
            " output folder, for RELION to go on from them"
        )
    optics = [record.results.optics for record in (*done, *skipped) if record.results is not None]
    if any("rlnSphericalAberration" not in group for group in optics):
        report.say(
            "for RELION to go on from micrographs.star, pass --cs and --amplitude-contrast too"
        )
    left_out = _not_of_all(optics)
    if left_out:
        report.say(
            f"micrographs.star leaves out {', '.join(left_out)}, which some optics groups lack"
        )
    sources = [record.source for record in (*done, *skipped) if record.source is not None]
    if any(source.exposure_per_frame_e_per_a2 is None for source in sources):
        report.say(
            "for RELION's Polish to go on, pass --dose-per-frame too, or give it --fdose: without"
            " a dose it makes noise of the particles and says nothing"
        )


def _not_of_all(optics: list[dict[str, Any]]) -> list[str]:
    """What some optics groups say and others do not, but for what is always written."""
    written = {
        "rlnOpticsGroup",
        "rlnOpticsGroupName",
        "rlnVoltage",
        "rlnMicrographPixelSize",
        "rlnMicrographOriginalPixelSize",
    }
    names = {name for group in optics for name in group} - written
    return sorted(name for name in names if any(name not in group for group in optics))


def _line(record: "Record", new_notes: Sequence[str]) -> str:
    if record.status == "failed":
        return f"FAILED {record.error}"
    if record.status == "skipped":
        return f"{printable(record.input)}: already there, skipped"
    source = record.source
    results = record.results
    cost = record.cost
    assert source is not None and results is not None and cost is not None
    notes = "".join(f"\n    note: {note}" for note in new_notes)
    made = f"{source.frames} frames, accumulated motion {results.motion_in_words()}"
    return f"{printable(record.input)}: {made}, {cost.seconds:.1f} s{notes}"
