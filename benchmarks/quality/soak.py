"""Many movies with bad ones among them, a worker killed, then the complete run killed, then the
same again: what is there in the end?

    python benchmarks/quality/soak.py [MOVIES] [RESULTS.json]

Small movies are made on the fly; the network is a tiny one of random weights, as it is the
bookkeeping that is tried. Asks for: every good movie's results, byte for byte those of an
undisturbed run in one process; one failure by name for each bad one; memory that does not grow.
Images and STAR files are compared; provenance.json and records hold times.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dstnet.correction.corrections import CorrectionSettings
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.io import write_mrc, write_tiff
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.records import read_records
from dstnet.pipeline.run import run_files
from dstnet.pipeline.settings import CameraReferences, MovieSettings, RunSettings
from dstnet.runs import Workplace

ROOT = Path(__file__).resolve().parents[2]
FRAMES, SIDE, PIXEL = 4, 128, 2.0
KINDS = (
    "empty",
    "text",
    "cut",
    "cut_tiff",
    "nan",
    "constant",
    "size",
    "pixel",
    "missing",
    "folder",
)
TIFF_KINDS = ("cut_tiff", "pixel")
DRIVE = "--drive"  # what a process that may be killed is started with


@dataclass(frozen=True)
class Inputs:
    """All inputs, and the bad ones among them."""

    every: list[Path]
    bad: list[Path]


def frames_of(seed: int) -> np.ndarray:
    """Counts [frame, y, x] of blobs that drift."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    places = random.uniform(10, SIDE - 10, (8, 2))
    rates = []
    for t in range(FRAMES):
        blobs = sum(np.exp(-((y - a - t) ** 2 + (x - b) ** 2) / 40) for a, b in places)
        rates.append(20 * (1 - 0.3 * np.minimum(blobs, 1)))
    return random.poisson(np.stack(rates)).astype(np.uint16)


def write_input(path: Path, number: int, kind: str | None) -> None:
    """One movie, good or with the fault called `kind`."""
    frames = frames_of(number)
    match kind:
        case "missing":
            return
        case "empty":
            path.touch()
            return
        case "text":
            path.write_text("no movie\n" * 200)
            return
        case "folder":
            path.mkdir()
            return
        case "pixel":
            tifffile.imwrite(path, frames, photometric="minisblack")
            return
        case "nan":
            frames = np.full(frames.shape, np.nan, np.float32)
        case "constant":
            frames = np.full_like(frames, 7)
        case "size":
            frames = frames[:, : SIDE // 2 + 6]
    if path.suffix == ".tif":
        write_tiff(path, frames, PIXEL)
    else:
        write_mrc(path, frames, PIXEL, "soak", stack=True)
    if kind in ("cut", "cut_tiff"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def make_inputs(folder: Path, count: int) -> Inputs:
    """`count` inputs, one of each bad kind spread among them."""
    bad_at = {(i * count) // len(KINDS) + 1: kind for i, kind in enumerate(KINDS)}
    inputs = Inputs([], [])
    for number in range(count):
        kind = bad_at.get(number)
        as_tiff = kind in TIFF_KINDS if kind else number % 2 == 1
        name = f"m{number:04d}_{kind}" if kind else f"m{number:04d}"
        path = folder / f"{name}{'.tif' if as_tiff else '.mrc'}"
        write_input(path, number, kind)
        inputs.every.append(path)
        if kind:
            inputs.bad.append(path)
    return inputs


def make_data(folder: Path, count: int) -> Inputs:
    """Inputs, a gain reference and a tiny network in `folder`."""
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny import save_model  # pyright: ignore[reportMissingImports]

    folder.mkdir()
    save_model(folder)
    gain = np.random.default_rng(1).normal(1, 0.02, (SIDE, SIDE)).astype(np.float32)
    write_mrc(folder / "gain.mrc", gain, PIXEL, "gain")
    inputs = make_inputs(folder, count)
    (folder / "inputs.json").write_text(json.dumps([str(path) for path in inputs.every]))
    return inputs


def drive(data: Path, out: Path, workers: int | None) -> None:
    """One run, in a process that may be killed."""
    paths = [Path(path) for path in json.loads((data / "inputs.json").read_text())]
    settings = RunSettings(
        EnhancementSettings(model=str(data / "tiny.safetensors")),
        movies=MovieSettings(exposure_e_per_a2=1.5),
        references=CameraReferences(CorrectionSettings(), gain=data / "gain.mrc"),
    )
    inputs = [InputMovie(path, path.stem) for path in paths]
    run_files(inputs, out, settings, workplace=Workplace(workers=workers, threads=1))


def start(data: Path, out: Path, workers: int) -> subprocess.Popen:
    """A run in a process of its own; 0 workers: in that process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, __file__, DRIVE, str(data), str(out), str(workers)]
    return subprocess.Popen(command, env=environment)


def wait_for(out: Path, process: subprocess.Popen, number: int) -> None:
    """Until so many inputs are on record."""
    while process.poll() is None and recorded(out) < number:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"


def workers_of(process: int) -> list[int]:
    """Spawned workers of a process, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == process and b"spawn_main" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except (OSError, ValueError):
            pass
    return found


def recorded(out: Path) -> int:
    """Inputs put on record so far, over all runs."""
    return sum(
        max(0, len(p.read_text().splitlines()) - 1) for p in (out / "records").glob("*.jsonl")
    )


def results(out: Path) -> dict[str, bytes]:
    """Images and tables; paths in them made independent of the folder."""
    files = [
        p
        for p in out.rglob("*")
        if p.is_file() and p.suffix in (".mrc", ".mrcs", ".star") and not p.name.startswith(".")
    ]
    return {
        str(p.relative_to(out)): p.read_bytes().replace(os.fsencode(out), b"OUT") for p in files
    }


def run_and_kill(data: Path, out: Path, count: int) -> int:
    """A run of which a worker is killed, and then everything; how many inputs are on record."""
    process = start(data, out, 2)
    wait_for(out, process, count // 4)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    wait_for(out, process, count // 2)
    process.kill()
    process.wait()
    return recorded(out)


def seconds_to_the_end(data: Path, out: Path, workers: int) -> float:
    """Of a run that nobody disturbs."""
    begun = time.perf_counter()
    assert start(data, out, workers).wait() == 0
    return round(time.perf_counter() - begun, 1)


def peak_memory_mb(out: Path) -> list[int]:
    """What the process had held by the end of each movie."""
    records = read_records(out).records.values()
    return [round(r.cost.peak_memory_bytes / 1e6) for r in records if r.cost is not None]


def names_of_failures(failures: dict[str, str], bad: Sequence[Path]) -> bool:
    """Whether just the bad inputs failed, each with its name in the reason."""
    named = all(path in error for path, error in failures.items())
    return named and sorted(failures) == sorted(str(path) for path in bad)


def soak(folder: Path, count: int) -> dict[str, Any]:
    """The complete trial in `folder`; its figures."""
    data, undisturbed, hurt = folder / "data", folder / "whole", folder / "hurt"
    inputs = make_data(data, count)
    undisturbed_seconds = seconds_to_the_end(data, undisturbed, 0)
    at_kill = run_and_kill(data, hurt, count)
    rerun_seconds = seconds_to_the_end(data, hurt, 2)
    expected, found = results(undisturbed), results(hurt)
    records = read_records(hurt).records.values()
    failures = {r.input: r.error or "" for r in records if r.status == "failed"}
    peaks = peak_memory_mb(undisturbed)
    return {
        "movies": count,
        "good": count - len(inputs.bad),
        "enhanced": sum(name.endswith("_enhanced.mrc") for name in found),
        "failures_named": names_of_failures(failures, inputs.bad),
        "failures": {
            Path(path).name: error.replace(str(folder), "") for path, error in failures.items()
        },
        "identical": expected == found,
        "files": len(found),
        "hidden_left": len(list((hurt / "micrographs").rglob(".*"))),
        "on_record_when_killed": at_kill,
        "skipped_by_rerun": sum(r.status == "skipped" for r in records),
        "peak_memory_mb_at_movie_10": peaks[min(9, len(peaks) - 1)],
        "peak_memory_mb_at_the_end": peaks[-1],
        "undisturbed_seconds_one_process": undisturbed_seconds,
        "rerun_seconds_two_workers": rerun_seconds,
    }


def is_right(figures: dict[str, Any]) -> bool:
    """Whether all is as it must be."""
    complete = figures["enhanced"] == figures["good"]
    return figures["identical"] and figures["failures_named"] and complete


def main() -> int:
    """Print the figures; 1 if one of them is not what it must be."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        figures = soak(Path(folder), count)
    text = json.dumps(figures, indent=2)
    print(text)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(text + "\n")
    return 0 if is_right(figures) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == [DRIVE]:
        drive(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]) or None)
    else:
        sys.exit(main())
