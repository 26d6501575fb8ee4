"""Every command killed at random moments: begun again, it comes to the bytes of an undisturbed run,
and nothing hidden is left.

    python benchmarks/quality/kills.py FOLDER [COMMAND ...] [--kills N] [--seed N]

Every other kill ends the complete group of processes, as a power cut does; the others the first
process alone, whose workers have to notice. 1 is the exit code where something went wrong.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import small_commands
from small_commands import (
    COMMANDS,
    again,
    differences,
    ended,
    hidden_files,
    make_data,
    results,
    run,
    start,
)

OLD_SECONDS = 1000.0  # so old, what is half-written counts as left behind


def make_old(out: Path) -> list[str]:
    """Have half-written files look as if the next run came later; their names."""
    names = hidden_files(out)
    for name in names:
        then = time.time() - OLD_SECONDS
        os.utime(out / name, (then, then))
    return names


def trial(name: str, folder: Path, seconds: float, *, group: bool) -> dict:
    """One kill after so long, and what the next run came to."""
    arguments, out, said = (*COMMANDS[name], "-o", "out"), folder / "out", folder / "said"
    shutil.rmtree(out, ignore_errors=True)
    child = start(arguments, said)
    time.sleep(seconds)
    if group:
        os.killpg(child, signal.SIGKILL)
    else:
        os.kill(child, signal.SIGKILL)
    code = ended(child, said).code
    if not group:
        time.sleep(1.0)  # in which workers notice
    half = make_old(out) if out.exists() else []
    begun = time.perf_counter()
    end = run(again(arguments, out), said)
    return {
        "killed": code == -signal.SIGKILL,
        "half_written": half,
        "code": end.code,
        "said": end.err[-300:],
        "seconds": time.perf_counter() - begun,
    }


def campaign(name: str, folder: Path, count: int, generator: random.Random) -> dict:
    """All kills of one command."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    arguments = (*COMMANDS[name], "-o", "out")
    begun = time.perf_counter()
    undisturbed = run(arguments, folder / "said")
    length = time.perf_counter() - begun
    if undisturbed.code != 0:
        raise SystemExit(f"{name} fails undisturbed: {undisturbed.err}")
    whole = results(out)
    killed, half, wrong = 0, 0, {}
    for number in range(count):
        seconds = generator.uniform(0.02 * length, length)
        found = trial(name, folder, seconds, group=number % 2 == 0)
        killed += found["killed"]
        half += bool(found["half_written"])
        faults = [f"left {hidden}" for hidden in hidden_files(out)]
        has_ended = name == "adapt" or name.startswith("train")
        if found["code"] != 0 and not (has_ended and not found["killed"]):
            faults.append(f"ended with {found['code']}: {found['said']}")
        faults += differences(whole, results(out))
        if faults:
            wrong[f"{seconds:.3f} s of {length:.3f}"] = faults
    return {"killed": killed, "with_half_written": half, "wrong": wrong}


def main() -> int:
    """Print what came of each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("commands", nargs="*", metavar="COMMAND")
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    small_commands.one_thread()
    folder = given.folder.resolve()
    make_data(folder)
    os.chdir(folder)
    generator = random.Random(given.seed)
    killed, bad = 0, 0
    for name in given.commands or COMMANDS:
        found = campaign(name, folder, given.kills, generator)
        killed += found["killed"]
        bad += len(found["wrong"])
        print(name, json.dumps(found, indent=1), flush=True)
    print(f"{killed} kills, seed {given.seed}: {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
