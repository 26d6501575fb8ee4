"""Many movies with bad ones among them, a worker killed, then the whole run killed, then the same
again: what is there in the end?

    python benchmarks/quality/soak.py [MOVIES] [RESULTS.json]

Small movies are made on the fly; the network is a tiny one of random weights, as it is the
bookkeeping that is tried. Asks for: every good movie's results, byte for byte those of an
undisturbed run in one process; one failure by name for each bad one; memory that does not grow.
Images and STAR files are compared; provenance.json and records hold times
(dstnet.pipeline.records.VOLATILE).
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from dstnet.correction.corrections import CorrectionSettings
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.io import write_mrc, write_tiff
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.records import read_records
from dstnet.pipeline.run import Job, run_files

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


def frames_of(seed: int) -> np.ndarray:
    """Counts [frame, y, x] of blobs that drift."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    places = rng.uniform(10, SIDE - 10, (8, 2))
    scenes = [
        sum(np.exp(-((y - a - t) ** 2 + (x - b) ** 2) / 40) for a, b in places)
        for t in range(FRAMES)
    ]
    return rng.poisson(np.stack([20 * (1 - 0.3 * np.minimum(s, 1)) for s in scenes])).astype(
        np.uint16
    )


def make_inputs(folder: Path, count: int) -> tuple[list[Path], list[Path]]:
    """`count` inputs, one of each bad kind spread among them: all, and the bad ones."""
    bad_at = {(i * count) // len(KINDS) + 1: kind for i, kind in enumerate(KINDS)}
    every, bad = [], []
    for number in range(count):
        kind = bad_at.get(number)
        path = folder / (f"m{number:04d}_{kind}" if kind else f"m{number:04d}")
        path = path.with_suffix(
            ".tif" if kind in ("cut_tiff", "pixel") or (not kind and number % 2) else ".mrc"
        )
        frames = frames_of(number)
        if kind == "empty":
            path.touch()
        elif kind == "text":
            path.write_text("no movie\n" * 200)
        elif kind == "folder":
            path.mkdir()
        elif kind == "pixel":
            tifffile.imwrite(path, frames, photometric="minisblack")
        elif kind != "missing":
            if kind == "nan":
                frames = np.full(frames.shape, np.nan, np.float32)
            elif kind == "constant":
                frames = np.full_like(frames, 7)
            elif kind == "size":
                frames = frames[:, : SIDE // 2 + 6]
            if path.suffix == ".tif":
                write_tiff(path, frames, PIXEL)
            else:
                write_mrc(path, frames, PIXEL, "soak", stack=True)
            if kind in ("cut", "cut_tiff"):
                path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        every.append(path)
        if kind:
            bad.append(path)
    return every, bad


def drive(data: Path, out: Path, workers: int | None) -> None:
    """One run, in a process that may be killed."""
    inputs = [
        InputMovie(Path(p), Path(p).stem) for p in json.loads((data / "inputs.json").read_text())
    ]
    job = Job(
        EnhancementSettings(model=str(data / "tiny.safetensors")),
        exposure_e_per_a2=1.5,
        correction=CorrectionSettings(),
        gain=data / "gain.mrc",
    )
    run_files(inputs, out, job, workers=workers, threads=1)


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


def soak(folder: Path, count: int) -> dict:
    """The whole trial in `folder`; its figures."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from tiny import save_model

    data = folder / "data"
    data.mkdir()
    save_model(data)
    write_mrc(
        data / "gain.mrc",
        np.random.default_rng(1).normal(1, 0.02, (SIDE, SIDE)).astype(np.float32),
        PIXEL,
        "gain",
    )
    every, bad = make_inputs(data, count)
    (data / "inputs.json").write_text(json.dumps([str(p) for p in every]))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}

    def start(out: Path, workers: int) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, __file__, "--drive", str(data), str(out), str(workers)],
            env=environment,
        )

    def wait_for(out: Path, process: subprocess.Popen, number: int) -> None:
        while process.poll() is None and recorded(out) < number:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"

    begun = time.perf_counter()
    whole, hurt = folder / "whole", folder / "hurt"
    assert start(whole, 0).wait() == 0
    undisturbed_seconds = time.perf_counter() - begun

    process = start(hurt, 2)
    wait_for(hurt, process, count // 4)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    wait_for(hurt, process, count // 2)
    process.kill()
    process.wait()
    at_kill = recorded(hurt)
    begun = time.perf_counter()
    assert start(hurt, 2).wait() == 0
    rerun_seconds = time.perf_counter() - begun

    expected, found = results(whole), results(hurt)
    _, records = read_records(hurt)
    peaks = [
        r["peak_memory_bytes"] for r in read_records(whole)[1].values() if "peak_memory_bytes" in r
    ]
    failed = {r["input"]: r["error"] for r in records.values() if r["status"] == "failed"}
    return {
        "movies": count,
        "good": count - len(bad),
        "enhanced": sum(name.endswith("_enhanced.mrc") for name in found),
        "failures_named": (
            sorted(failed) == sorted(str(p) for p in bad) and all(p in e for p, e in failed.items())
        ),
        "failures": {Path(p).name: e.replace(str(folder), "") for p, e in failed.items()},
        "identical": expected == found,
        "files": len(found),
        "hidden_left": len(list((hurt / "micrographs").rglob(".*"))),
        "on_record_when_killed": at_kill,
        "skipped_by_rerun": sum(r["status"] == "skipped" for r in records.values()),
        "peak_memory_mb_at_movie_10": round(peaks[min(9, len(peaks) - 1)] / 1e6),
        "peak_memory_mb_at_the_end": round(peaks[-1] / 1e6),
        "undisturbed_seconds_one_process": round(undisturbed_seconds, 1),
        "rerun_seconds_two_workers": round(rerun_seconds, 1),
    }


def main() -> int:
    """Print the figures; 1 if one of them is not what it must be."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        figures = soak(Path(folder), count)
    text = json.dumps(figures, indent=2)
    print(text)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(text + "\n")
    return (
        0
        if figures["identical"]
        and figures["failures_named"]
        and figures["enhanced"] == figures["good"]
        else 1
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drive"]:
        drive(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]) or None)
    else:
        sys.exit(main())
