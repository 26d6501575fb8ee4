"""Files of every kind that is read, mutated: only errors in words may come of them, within five
seconds of a processor and a gigabyte each.

    python benchmarks/quality/mutations.py FOLDER [KIND ...] [--each N] [--first SEED]

Prints a count by kind, and the seeds of all that went wrong: the same KIND with --first SEED --each
1 does it again. 1 is the exit code where something did.
"""

import argparse
import faulthandler
import json
import logging
import multiprocessing
import os
import random
import resource
import signal
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "faults"))

import mutated_kinds
from mutated_kinds import Kind
from test_mutated_files import PIECES  # pyright: ignore[reportMissingImports]

from dstnet.errors import DstnetError

LONGEST_SECONDS = 5  # of a processor
WAIT_SECONDS = 120.0  # whatever else runs there
MOST_BYTES = 1 << 30
EXTREMES = (
    *(struct.pack("<i", value) for value in (0, 1, -1, 2**31 - 1, -(2**31), 65536, 7)),
    *(struct.pack(">i", value) for value in (1, 2**31 - 1, 65536)),
    *(struct.pack("<f", value) for value in (float("nan"), float("inf"), 3e38, -3e38, 1e-40)),
    *(struct.pack("<q", value) for value in (-1, 2**63 - 1, 2**40, 0)),
    *(struct.pack("<H", value) for value in (0, 1, 65535)),
)
_HEAD = 1100  # where most of what a file says of itself stands


def mutated(content: bytes, generator: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, left out, put between or set to extremes."""
    for _ in range(generator.choice((1, 1, 1, 2, 3, 8))):
        near = generator.random() < 0.6
        at = generator.randrange(min(len(content), _HEAD) if near else len(content))
        length = generator.choice((1, 2, 4, 16, 100, 1000))
        kind = generator.randrange(7)
        piece: bytes
        match kind:
            case 0:
                piece, cut = bytes([content[at] ^ 1 << generator.randrange(8)]), 1
            case 1:
                piece, cut = generator.randbytes(min(length, 16)), min(length, 16)
            case 2:
                piece = generator.choice(EXTREMES)
                at, cut = at // 4 * 4, len(piece)
            case 3:
                piece, cut = content[at : at + length] * 2, length
            case 4:
                piece, cut = b"", length
            case 5:
                piece, cut = generator.choice(PIECES), generator.randrange(4)
            case _:
                piece, cut = b"", generator.choice((0, len(content)))
        content = content[:at] + piece + content[at + cut :]
        if not content:
            return b""
    return content


@dataclass
class Found:
    """What came of the mutations of one kind."""

    counts: Counter = field(default_factory=Counter)
    wrong: dict[str, list[int]] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)

    def add(self, seed: int, what: str, seconds: float, *, is_wrong: bool = False) -> None:
        """Count one."""
        self.counts["wrong" if is_wrong else what] += 1
        if is_wrong:
            self.wrong.setdefault(what, []).append(seed)
        self.slowest = max(self.slowest, (round(seconds, 2), seed))


class _Heard(logging.Handler):
    """Counts what libraries log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"logged by {record.name}: {record.getMessage()[:60]}")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/dstnet/" in frame.filename] or frames[-1:]
    inner, last = ours[-1], frames[-1]
    places = f"{Path(inner.filename).name}:{inner.lineno}"
    return f"{places} > {Path(last.filename).name}:{last.lineno}" if last is not inner else places


def judged(read: Callable[[Path], object], path: Path) -> tuple[str, bool]:
    """What reading a file came to, and whether that is wrong."""
    heard = _Heard()
    logging.getLogger().addHandler(heard)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("default")
            try:
                read(path)
                what, is_wrong = "read", False
            except DstnetError as error:
                what, is_wrong = type(error).__name__, "\n" in str(error)
            except BaseException as error:  # the very thing that is looked for
                said = " ".join(str(error).split())[:80]
                what, is_wrong = f"{type(error).__name__} at {_place(error)}: {said}", True
    finally:
        logging.getLogger().removeHandler(heard)
    noise = heard.lines + [f"warned: {str(w.message)[:80]}" for w in warned]
    if noise and not is_wrong:
        return noise[0], True
    return what, is_wrong


def work(name: str, folder: Path, seeds: range, pipe) -> None:
    """Read mutations one after another, in a process that may end at any of them."""
    kind = mutated_kinds.made(folder)[name]
    kind.read(kind.path)  # warm, and right
    faulthandler.enable(open(folder / "fault.txt", "w"))  # noqa: SIM115
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST_BYTES, resource.RLIM_INFINITY))
    content = kind.path.read_bytes()
    for seed in seeds:
        pipe.send((seed, None, 0.0, False))
        changed = mutated(content, random.Random(seed))
        kind.path.write_bytes(kind.repaired(changed))
        faulthandler.dump_traceback_later(WAIT_SECONDS, exit=True)
        begun = time.process_time()
        most = int(begun) + 1 + LONGEST_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
        what, is_wrong = judged(kind.read, kind.path)
        faulthandler.cancel_dump_traceback_later()
        pipe.send((seed, what, time.process_time() - begun, is_wrong))
    kind.path.write_bytes(content)


def campaign(name: str, folder: Path, seeds: range) -> Found:
    """All mutations of one kind; a process that ends at one is followed by another."""
    found = Found()
    context = multiprocessing.get_context("fork")
    at = seeds.start
    while at < seeds.stop:
        ours, theirs = context.Pipe(duplex=False)
        target = range(at, seeds.stop)
        process = context.Process(target=work, args=(name, folder, target, theirs))
        process.start()
        theirs.close()
        begun = at - 1
        try:
            while True:
                seed, what, seconds, is_wrong = ours.recv()
                if what is None:
                    begun = seed
                else:
                    found.add(seed, what, seconds, is_wrong=is_wrong)
                    at = seed + 1
        except EOFError:
            pass
        process.join()
        if begun < at - 1 or (begun == at - 1 and process.exitcode != 0 and begun < seeds.start):
            raise SystemExit(f"{name} cannot be tried: its process ended with {process.exitcode}")
        if begun >= at:
            code = process.exitcode or 0
            ending = signal.Signals(-code).name if code < 0 else f"waiting {WAIT_SECONDS} s"
            found.add(begun, f"ended by {ending}", LONGEST_SECONDS, is_wrong=True)
            at = begun + 1
    return found


def main() -> int:
    """Print what came of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--each", type=int, default=1500)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(folder)
    kinds: dict[str, Kind] = mutated_kinds.made(folder)
    names = [n for n in kinds if not given.kinds or any(word in n for word in given.kinds)]
    total, bad = 0, 0
    for name in names:
        begun = time.perf_counter()
        found = campaign(name, folder, range(given.first, given.first + given.each))
        wrong = {what: [len(seeds), seeds[:3]] for what, seeds in found.wrong.items()}
        total += sum(found.counts.values())
        bad += found.counts["wrong"]
        seconds = round(time.perf_counter() - begun, 1)
        shown = {"counts": found.counts, "slowest": found.slowest, "seconds": seconds}
        print(name, json.dumps(shown), flush=True)
        for what, seeds in wrong.items():
            print("  WRONG", what, seeds, flush=True)
    print(f"{total} mutations, seeds from {given.first}: {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
