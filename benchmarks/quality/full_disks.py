"""Every command on disks that are full, or out of inodes, at many moments: one line, nothing half
done, and with room again the same bytes.

    python benchmarks/quality/full_disks.py FOLDER [COMMAND ...] [--moments N]

Mounts small file systems in memory below FOLDER, so it must be root's, on Linux. 1 is the exit code
where something went wrong.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import small_commands
from small_commands import (
    COMMANDS,
    again,
    differences,
    half_done,
    hidden_files,
    make_data,
    results,
    run,
    unsaid,
)

from dstnet.dataset import plan

AMPLE = "size=256m,nr_inodes=10000"
PAGE = 4096


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """A file system in memory with such room."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def give_room(path: Path) -> None:
    """As if somebody had cleared up."""
    subprocess.run(["mount", "-o", f"remount,{AMPLE}", path], check=True)


def used(path: Path) -> tuple[int, int]:
    """Pages and inodes that a file system has in use."""
    words = subprocess.check_output(["stat", "-f", "-c", "%b %f %c %d", path], text=True).split()
    blocks, free, inodes, free_inodes = map(int, words)
    return blocks - free, inodes - free_inodes


def moments(pages: int, inodes: int, count: int) -> list[str]:
    """Options of file systems too small for so much, from nothing at all to nearly enough."""
    sizes = {max(1, round(pages * (i + 0.5) / count)) for i in range(count)}
    sizes |= {pages - 1, max(1, pages - 3)}
    few = max(3, count // 3)
    numbers = {max(2, round(inodes * (i + 0.5) / few)) for i in range(few)} | {inodes - 1}
    found = [f"size={size * PAGE},nr_inodes=10000" for size in sorted(sizes)]
    return found + [f"size=256m,nr_inodes={number}" for number in sorted(numbers)]


def _believe_in_room() -> None:
    """Have `simulate` begin on a disk that will not do, as if others filled it meanwhile."""
    plan.SPARE_BYTES = -(1 << 30)


def trial(name: str, folder: Path, options: str, whole: dict[str, bytes]) -> dict:
    """One full disk: what was wrong with what it left, said and came to in the end."""
    arguments = (*COMMANDS[name], "-o", "out")
    out = folder / "out"
    with mounted(out, options):
        first = run(arguments, folder / "said", prepare=_believe_in_room)
        if first.code == 0:
            return {"fits": True, "wrong": [] if results(out) == whole else ["other results"]}
        wrong = half_done(out, whole) + unsaid(first)
        give_room(out)
        second = run(again(arguments, out), folder / "said")
        if second.code != 0:
            wrong.append(f"the second run ended with {second.code}: {second.err[-300:]}")
        wrong += differences(whole, results(out))
        wrong += [f"left {key}" for key in hidden_files(out)]
    return {"fits": False, "code": first.code, "said": first.err[-400:], "wrong": wrong}


def campaign(name: str, folder: Path, count: int) -> dict:
    """All moments of one command."""
    out = folder / "out"
    begun = time.perf_counter()
    with mounted(out, AMPLE):
        undisturbed = run((*COMMANDS[name], "-o", "out"), folder / "said")
        if undisturbed.code != 0:
            raise SystemExit(f"{name} fails undisturbed: {undisturbed.err}")
        whole = results(out)
        room = used(out)
    full, wrong = 0, {}
    sayings: dict[str, int] = {}
    for options in moments(*room, count):
        found = trial(name, folder, options, whole)
        full += not found["fits"]
        last = found.get("said", "").strip().splitlines()
        if last:
            sayings[last[-1]] = sayings.get(last[-1], 0) + 1
        if found["wrong"]:
            wrong[options] = found["wrong"]
    seconds = round(time.perf_counter() - begun)
    return {"full": full, "wrong": wrong, "seconds": seconds, "said": sayings}


def main() -> int:
    """Print what came of each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("commands", nargs="*", metavar="COMMAND")
    parser.add_argument("--moments", type=int, default=9)
    given = parser.parse_args()
    small_commands.one_thread()
    folder = given.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    make_data(folder)
    os.chdir(folder)
    total, bad = 0, 0
    for name in given.commands or COMMANDS:
        found = campaign(name, folder, given.moments)
        total += found["full"]
        bad += len(found["wrong"])
        print(name, json.dumps(found, indent=1), flush=True)
    print(f"{total} full disks, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
