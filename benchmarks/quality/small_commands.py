"""Small forms of the commands for campaigns of bad days: their data, each run in a process of its
own, and what they left.

The imports are made once, in the process that forks: with them a run takes half a second.
"""

# ruff: noqa: E402 - what tests have is found only once their folders are known

import atexit
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import tiny  # pyright: ignore[reportMissingImports]

import dstnet.alignment
import dstnet.pipeline
import dstnet.report
import dstnet.simulation
import dstnet.training.finetune  # noqa: F401
from dstnet.cli import main as command
from dstnet.io import write_mrc, write_tiff

SIDE, PIXEL_ANGSTROM = 136, 2.0
MOVIES = ("m0.mrc", "m1.tif", "m2.mrc")
TRAINING = {
    "network": tiny.SETTINGS,
    "stream": {
        "crop": 64,
        "groups": 2,
        "working_pixel_angstrom": 4.0,
        "defocus_angstrom": [4000.0, 12000.0],
    },
    "phantoms": 0,
    "poses": 2,
    "batch": 1,
    "steps": 8,
    "warm_up": 1,
    "checkpoint_every": 2,
    "rings": 8,
    "workers": 0,
}
ADAPTING = {
    "crop": 64,
    "held_out": 0.5,
    "batch": 2,
    "steps": 8,
    "learning_rate": 0.01,
    "check_every": 4,
    "alignment": {"resolution_angstrom": 12, "patches": 0},
}
_ATOM = "ATOM  {0:5d}  CA  ALA A{0:4d}    {1:8.3f}{2:8.3f}{3:8.3f}  1.00 20.00           C\n"
_MOVIE_OPTIONS = ("--dose-per-frame", "1.5", "--patches", "0", "--threads", "1", "--bin", "1.3")
_ENHANCE = (
    *("enhance", *MOVIES, "--model", "tiny.safetensors", "--device", "cpu", *_MOVIE_OPTIONS),
    *("--halves", "--frames", "--contrast", "--uncertainty", "--particles", "--gain", "gain.mrc"),
)
_SIMULATE = (
    *("simulate", "a.pdb", "--movies", "2", "--shape", "128", "128", "--pixel-size", "4"),
    *("--frames", "3", "--dose-per-frame", "1", "--device", "cpu", "--expected-frames"),
)
_TRAIN = ("train", "a.pdb", "--settings", "train.yaml", "--device", "cpu")
COMMANDS: dict[str, tuple[str, ...]] = {
    "align": ("align", *MOVIES, "--halves", "--gain", "gain.mrc", *_MOVIE_OPTIONS),
    "enhance": _ENHANCE,
    "enhance with workers": (*_ENHANCE, "--workers", "2"),
    "simulate": _SIMULATE,
    "simulate with workers": (*_SIMULATE, "--workers", "2", "--preview", "--format", "mrc"),
    "train": _TRAIN,
    "train for tensorboard": (*_TRAIN, "--tensorboard"),
    "adapt": ("adapt", *MOVIES, "--settings", "adapt.yaml", "--model", "tiny.safetensors"),
}
# What is not the same twice: times, and what tells them.
_COMPARED = (".mrc", ".mrcs", ".tif", ".star", ".safetensors", ".yaml", ".png")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal that killed it) and what it said."""

    code: int
    out: str
    err: str


def make_data(folder: Path) -> None:
    """Movies, a gain, a network and settings."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.save_model(folder)
    for number, name in enumerate(MOVIES):
        random = np.random.default_rng(number)
        y, x = np.mgrid[:SIDE, :SIDE]
        places = random.uniform(6, SIDE - 6, (30, 2))
        discs = sum(np.exp(-((((y - a) ** 2 + (x - b) ** 2) / 18) ** 2)) for a, b in places)
        rate = 20 * np.clip(1 - 0.3 * discs, 0.05, None)
        frames = random.poisson(rate, (4, SIDE, SIDE)).astype(np.uint16)
        if name.endswith(".tif"):
            write_tiff(folder / name, frames, PIXEL_ANGSTROM)
        else:
            write_mrc(folder / name, frames, PIXEL_ANGSTROM, "small", stack=True)
    gain = np.random.default_rng(9).normal(1, 0.02, (SIDE, SIDE)).astype(np.float32)
    write_mrc(folder / "gain.mrc", gain, PIXEL_ANGSTROM, "gain")
    turns = np.arange(1, 301) / 3
    places = zip(25 * np.cos(turns), 25 * np.sin(turns), 0.5 * turns, strict=True)
    atoms = [_ATOM.format(number, *place) for number, place in enumerate(places, 1)]
    (folder / "a.pdb").write_text("".join(atoms))
    (folder / "train.yaml").write_text(yaml.safe_dump(TRAINING))
    (folder / "adapt.yaml").write_text(yaml.safe_dump(ADAPTING))


def start(
    arguments: Sequence[str],
    said: Path,
    *,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], object] = lambda: None,
) -> int:
    """Begin a command, or what `prepare` does before it, in a process of its own, which leads a
    group; its id. What it prints goes into `said`.out and `said`.err.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        for stream, ending in ((1, ".out"), (2, ".err")):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(said.with_suffix(ending), flags, 0o644), stream)
        os.environ.update(environment or {})
        prepare()
        command([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 70
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)


def ended(child: int, said: Path) -> Ended:
    """What came of a command, once it has ended."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out, err = (said.with_suffix(e).read_text(errors="replace") for e in (".out", ".err"))
    return Ended(code, out, err)


def run(arguments: Sequence[str], said: Path, **options) -> Ended:
    """A command from its beginning to its end; options as of `start`."""
    return ended(start(arguments, said, **options), said)


def again(arguments: tuple[str, ...], out: Path) -> tuple[str, ...]:
    """The command with which one goes on."""
    if arguments[0] == "train" and (out / "checkpoint.safetensors").exists():
        return (*arguments, "--resume")
    return arguments


def _checkpoint_head(path: Path) -> int:
    """Length of what holds times, before the numbers."""
    with open(path, "rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def results(out: Path) -> dict[str, bytes]:
    """Contents by name of what must be the same twice: images, tables, weights, settings; cards and
    logs without their times.
    """
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if not path.is_file() or path.name.startswith("."):
            continue
        if name == "checkpoint.safetensors":
            found[name] = path.read_bytes()[_checkpoint_head(path) :]
        elif path.suffix in _COMPARED:
            found[name] = path.read_bytes()
        elif path.name in ("log.jsonl", "weights.json", "outcome.json"):
            text = re.sub(r'"(seconds|hours)": [0-9.]+', '"time": 0', path.read_text())
            found[name] = text.encode()
    return found


def differences(whole: Mapping[str, bytes], found: Mapping[str, bytes]) -> list[str]:
    """What results are not as those of a whole run, or are none of its."""
    wrong = [f"differs: {key}" for key in whole if found.get(key) != whole[key]]
    return wrong + [f"too many: {key}" for key in found if key not in whole]


def hidden_files(out: Path) -> list[str]:
    """What is left of half-written files."""
    return [str(path.relative_to(out)) for path in out.rglob(".*")]


def half_done(out: Path, whole: Mapping[str, bytes]) -> list[str]:
    """What is wrong with what a broken-off run left, beside the results of a whole one."""
    wrong = [f"hidden {name}" for name in hidden_files(out)]
    growing = (".star", ".jsonl")  # those list more as a run goes on
    for name, content in results(out).items():
        is_same = content == whole.get(name)
        if not is_same and not name.endswith(growing) and not name.startswith("checkpoint"):
            wrong.append(f"another {name}")
    weights, card = out / "weights.safetensors", out / "weights.json"
    if weights.exists() != card.exists():
        wrong.append("weights or card alone")
    if (out / "outcome.json").exists() and not weights.exists():
        wrong.append("an outcome without its weights")
    for path in [*out.glob("*.json"), *out.glob("truth/*.json")]:
        try:
            json.loads(path.read_text())
        except ValueError:
            wrong.append(f"half a {path.name}")
    return wrong


def unsaid(end: Ended) -> list[str]:
    """What is wrong with the words that a command ended with, where something failed."""
    lines = [line for line in end.err.splitlines() if re.match(r"dstnet: error|failed:", line)]
    said = end.out + end.err
    found = []
    if not lines:
        found.append(f"nothing said: {said[-300:]}")
    for word in ("Traceback", "please report", "unexpected", "Warning", "Exception"):
        if word in said:
            found.append(f"{word}: {said[max(0, said.index(word) - 200) :][:600]}")
    if sum(line.startswith("dstnet: error") for line in lines) > 1:
        found.append(f"more than one error: {lines}")
    return found


def one_thread() -> None:
    """As all of these are run; before the first fork."""
    torch.set_num_threads(1)
    os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT / "src"))
