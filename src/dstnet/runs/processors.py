"""How many processors this process may use, and who says so: the one place that knows.

Batch systems and containers give a job a part of a machine in several ways, none of which shows in
`os.cpu_count`: the affinity of its processes, a quota of its control group, or a variable alone.
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

# OMP_NUM_THREADS too is taken as what all processes together may use: batch systems set it to a
# job's processors.
VARIABLES = ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Processors:
    """Processors that may be used.

    Attributes
    ----------
    count
        How many, at least 1.
    why
        Who says so, for people.
    is_whole_machine
        Whether nothing says less than the machine has, or cannot be understood.
    """

    count: int
    why: str
    is_whole_machine: bool = False


@cache
def processors() -> Processors:
    """The processors that this process and those it starts may use, as it was when first asked:
    `limit_libraries` changes a variable.
    """
    return find_processors(os.environ, Path("/proc"))


def find_processors(environment: Mapping[str, str], proc: Path) -> Processors:
    """The fewest processors that any of the machine, the affinity, the control group, SLURM and
    OpenMP's variable allow.

    Parameters
    ----------
    environment
        Where `VARIABLES` are looked for. One that is no positive number is passed over, aloud.
    proc
        The kernel's own files.
    """
    machine = os.cpu_count() or 1
    limits = [(machine, "all of this machine")]
    if hasattr(os, "sched_getaffinity"):
        limits.append((len(os.sched_getaffinity(0)), "CPU affinity"))
    quota = _quota(proc)
    if quota is not None:
        # The last processor may be had for a part of the time.
        limits.append((max(1, math.ceil(quota)), f"quota of {quota:g} of the control group"))
    passed_over = []
    for name in VARIABLES:
        if name not in environment:
            continue
        number = _first_number(environment[name])
        if number is None:
            passed_over.append(f"{name}={environment[name]!r} is no positive number: passed over")
        else:
            limits.append((number, f"{name}={environment[name]}"))
    count, who = min(limits, key=lambda limit: limit[0])
    is_all = count == machine
    why = who if is_all else f"{who}; this machine has {machine}"
    return Processors(count, "; ".join([why, *passed_over]), is_all and not passed_over)


def limit_libraries() -> None:
    """Have the libraries that are loaded from now on, here and in processes that are started, begin
    no more threads than there are processors, and let threads that wait for each other sleep.

    Otherwise OpenMP's threads wait by spinning, and where another program has the processor that
    the last of them needs, two threads take ten times as long as one (docs/decisions/0021).
    """
    if "torch" in sys.modules:
        return  # too late: OpenMP has read its variables
    os.environ["OMP_NUM_THREADS"] = str(processors().count)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _first_number(text: str) -> int | None:
    """Of OpenMP's list by levels of nesting, the first; None where it is no positive number."""
    first = text.partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and int(first) > 0 else None


def _quota(proc: Path) -> float | None:
    """Processors' worth of time that control groups give, of version 1 or 2; None: no limit.

    A group has no more than those that it lies in, so that all up to the root count.
    """
    quotas = []
    for folder in _group_folders(proc):
        try:
            if (folder / "cpu.max").is_file():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            share = float(quota) / float(period)  # no limit: max, or -1
        except (OSError, ValueError, ZeroDivisionError):
            continue
        if share > 0:
            quotas.append(share)
    return min(quotas, default=None)


def _group_folders(proc: Path) -> Iterator[Path]:
    """Folders of this process' control groups that may hold a quota, and of those around them."""
    try:
        groups = (proc / "self" / "cgroup").read_text().splitlines()
        mounts = (proc / "self" / "mountinfo").read_text().splitlines()
    except OSError:
        return
    paths = {}
    for line in groups:
        controllers, _, path = line.partition(":")[2].partition(":")
        for controller in controllers.split(","):
            paths[controller] = path  # of version 2: without a name
    for line in mounts:
        mount, _, system = line.partition(" - ")
        kind, _, rest = system.partition(" ")
        options = rest.rpartition(" ")[2].split(",")
        path = None
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup" and "cpu" in options:
            path = paths.get("cpu")
        if path is None:
            continue
        root, point = mount.split()[3:5]
        top = Path(point)
        inside = PurePosixPath(path)
        # A container may see its own group only, as the root of what is mounted.
        inside = inside.relative_to(root) if inside.is_relative_to(root) else PurePosixPath()
        if ".." in inside.parts:
            inside = PurePosixPath()
        yield top
        for depth in range(len(inside.parts)):
            yield top.joinpath(*inside.parts[: depth + 1])
