"""Movies of extreme sizes, numbers and kinds: each ends in finite images of its own size and level,
or is refused in one line; nothing else is said.

    python benchmarks/quality/extreme_movies.py FOLDER [--seed N]

700 movies through `dstnet align` and `dstnet enhance`. Prints what came of each kind of extreme; 1
is the exit code where something was wrong.
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import small_commands
import tiny  # pyright: ignore[reportMissingImports]
from small_commands import Ended, run

from dstnet.io import write_mrc, write_tiff

SIZES = (
    *((1, 1, 1), (1, 1, 50), (3, 50, 1), (2, 2, 2), (3, 31, 31), (3, 32, 32), (1, 33, 97)),
    *((4, 61, 67), (2, 33, 400), (3, 300, 34), (40, 37, 41), (2, 128, 128), (5, 127, 131)),
)
PLAIN = ((1, 64, 72), (3, 64, 72), (7, 61, 67))
KINDS = (np.int8, np.uint8, np.int16, np.uint16, np.float16, np.float32)
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _with(value: float, count: int) -> Change:
    """So many pixels of one value, wherever."""

    def changed(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
        frames.reshape(-1)[random.integers(0, frames.size, count)] = value
        return frames

    return changed


def _one_place(value: float) -> Change:
    """The same pixel of all frames."""

    def changed(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
        y, x = (random.integers(0, side) for side in frames.shape[1:])
        frames[:, y, x] = value
        return frames

    return changed


def _frame(value: float | None) -> Change:
    """A frame of one value, or a copy of another."""

    def changed(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
        frames[-1] = frames[0] if value is None else value
        return frames

    return changed


def _row(value: float) -> Change:
    def changed(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
        frames[:, random.integers(0, frames.shape[1])] = value
        return frames

    return changed


CHANGES: dict[str, Change] = {
    "plain": lambda frames, random: frames,
    "zero": lambda frames, random: 0 * frames,
    "constant": lambda frames, random: 0 * frames + 7,
    "negative": lambda frames, random: -frames,
    "offset 1e6": lambda frames, random: frames + 1e6,
    "offset -30000": lambda frames, random: frames - 30000,
    "near overflow": lambda frames, random: frames + 65500,
    "times 1e30": lambda frames, random: frames * 1e30,
    "times 1e-30": lambda frames, random: frames * 1e-30,
    "denormal": lambda frames, random: frames * 1e-42,
    "1e38": lambda frames, random: 0 * frames + 1e38 * (1 + 0.1 * (frames % 3)),
    "one NaN": _with(np.nan, 1),
    "NaN": _with(np.nan, 200),
    "all NaN": lambda frames, random: frames * np.nan,
    "inf": _with(np.inf, 3),
    "-inf": _with(-np.inf, 3),
    "hot 1e30": _with(1e30, 1),
    "cold -1e30": _with(-1e30, 1),
    "hot column": _one_place(60000),
    "hot 3e38": _one_place(3e38),
    "dead row": _row(0),
    "hot row": _row(5000),
    "zero frame": _frame(0),
    "bright frame": _frame(30000),
    "NaN frame": _frame(np.nan),
    "equal frames": lambda frames, random: np.repeat(frames[:1], len(frames), 0),
    "two equal": _frame(None),
    "one electron": lambda frames, random: (frames > frames.max() - 1).astype(float),
    "single events": lambda frames, random: random.poisson(0.001, frames.shape).astype(float),
    "binary": lambda frames, random: (frames > np.median(frames)).astype(float),
    "ramp": lambda frames, random: np.broadcast_to(np.arange(frames.shape[2]), frames.shape) * 1.0,
    "stripes": lambda frames, random: frames + 1000.0 * (np.arange(frames.shape[2]) % 2),
}


@dataclass(frozen=True)
class Extreme:
    """A movie and what is extreme about it."""

    what: str
    path: Path
    frames: np.ndarray


def extremes(folder: Path, seed: int, count: int) -> Iterator[Extreme]:
    """Movies written into a folder: all changes and sizes, kinds of number and formats in turn."""
    random = np.random.default_rng(seed)
    number = 0
    while number < count:
        for what, change in CHANGES.items():
            sizes = SIZES if number % 3 == 0 else PLAIN
            shape = sizes[random.integers(len(sizes))]
            kind = KINDS[-1] if random.random() < 0.5 else KINDS[random.integers(len(KINDS))]
            counts = random.poisson(20.0, shape).astype(np.float64)
            with np.errstate(all="ignore"):
                frames = change(counts, random).astype(kind)
            as_tiff = random.random() < 0.4 and kind != np.float16
            path = folder / f"m{number:04d}.{'tif' if as_tiff else 'mrc'}"
            _write(path, frames)
            yield Extreme(f"{what}, {np.dtype(kind)}", path, frames)
            number += 1
            if number == count:
                return


def _write(path: Path, frames: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        if path.suffix == ".tif":
            write_tiff(path, frames, 2.0)
        elif frames.dtype == np.uint8:
            write_mrc(path, frames.astype(np.int16), 2.0, "extreme", stack=True)
        else:
            write_mrc(path, frames, 2.0, "extreme", stack=True)


def judged(movie: Extreme, out: Path, end: Ended) -> tuple[str, list[str]]:
    """How a movie ended, and what is wrong about that."""
    failed = [line for line in end.err.splitlines() if f"{movie.path.name}" in line]
    failed = [line for line in failed if line.startswith("failed: ")]
    images = sorted(out.glob(f"micrographs/**/{movie.path.stem}_*.mrc"))
    if failed:
        wrong = ["failed, with images"] * bool(images)
        said = failed[0].replace(movie.path.name, "NAME")
        return re.sub(r"[-+0-9.e]*[0-9]", "N", said)[:150], wrong
    if not images:
        return "lost", ["neither done nor failed"]
    wrong = []
    for path in images:
        image = np.asarray(mrcfile.read(path))
        if not np.isfinite(image).all():
            wrong.append(f"{path.name} is not finite")
        if image.shape[-2:] != movie.frames.shape[1:]:
            wrong.append(f"{path.name} is {image.shape}")
        if path.stem.endswith("_aligned") and np.isfinite(movie.frames).all():
            wrong += _level(image, movie.frames.astype(np.float64))
    return "done", wrong


def _level(image: np.ndarray, frames: np.ndarray) -> list[str]:
    """Whether a sum lies between the least and the most that its frames may come to."""
    median = float(np.median(image))
    medians = np.median(frames, (1, 2))
    least, most = min(0.0, *medians) * len(frames), max(0.0, *medians) * len(frames)
    spread = float(np.subtract(*np.percentile(frames, (95, 5)))) * len(frames)
    is_near = least - spread - 1e-3 <= median <= most + spread + 1e-3
    return [] if is_near else [f"its median is {median:g}, of the frames {medians[:3]}"]


def campaign(verb: tuple[str, ...], movies: list[Extreme], folder: Path) -> int:
    """All movies through one command; how many were wrong."""
    out = folder / f"out_{verb[0]}"
    shutil.rmtree(out, ignore_errors=True)
    names = [movie.path.name for movie in movies]
    end = run((*verb, *names, "-o", out.name), folder / "said")
    bad, ends = 0, {}
    for movie in movies:
        what, wrong = judged(movie, out, end)
        ends.setdefault(what, {}).setdefault(movie.what.split(",")[0], 0)
        ends[what][movie.what.split(",")[0]] += 1
        if wrong:
            bad += 1
            print("  WRONG", movie.path.name, movie.what, movie.frames.shape, wrong, flush=True)
    for word in ("Warning", "Traceback", "please report", "unexpected"):
        if word in end.out + end.err:
            bad += 1
            at = (end.out + end.err).index(word)
            print("  WRONG words:", (end.out + end.err)[max(0, at - 200) : at + 300])
    print(verb[0], "exit code", end.code, json.dumps(ends, indent=1), flush=True)
    return bad


def main() -> int:
    """Print what came of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--movies", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    small_commands.one_thread()
    folder = given.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chdir(folder)
    tiny.save_model(folder)
    movies = list(extremes(folder, given.seed, given.movies))
    options = ("--dose-per-frame", "1", "--threads", "1", "--patches", "0")
    enhance = ("enhance", "--model", "tiny.safetensors", "--device", "cpu", "--uncertainty")
    bad = campaign(("align", *options), movies, folder)
    bad += campaign((*enhance, *options), movies, folder)
    print(f"{len(movies)} movies, seed {given.seed}: {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
