"""What the benchmarks of speed share: measuring time and memory, and keeping results."""

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstnet.potential import Projector, build_potential
from dstnet.simulation import SimulationSettings
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import phantom

RESULTS = Path(__file__).resolve().parents[1] / "results"

# Runs in a process of its own, which reports its only child.
_REPORT_CHILD = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(
    sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
)
use = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "wall_s": time.perf_counter() - start,
    "cpu_s": use.ru_utime + use.ru_stime,
    "peak_gb": use.ru_maxrss / 1e6,
    "exit": done.returncode,
    "error": done.stderr[-300:] if done.returncode else "",
}))
"""


@dataclass(frozen=True)
class Seconds:
    """What some work took."""

    wall: float
    cpu: float


def seconds_of(work: Callable[[], object]) -> Seconds:
    """Wall and CPU seconds of some work in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def peak_memory_gb() -> float:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measured_command(command: Sequence[str]) -> dict[str, Any]:
    """Wall and CPU seconds and peak resident memory of a command, by way of a child that reports
    its own children.
    """
    reporter = [sys.executable, "-c", _REPORT_CHILD, *command]
    report = subprocess.run(reporter, capture_output=True, text=True, check=True).stdout
    return rounded(json.loads(report), 2)


def rounded(values: dict[str, Any], digits: int) -> dict[str, Any]:
    """Real numbers rounded."""
    return {k: round(v, digits) if isinstance(v, float) else v for k, v in values.items()}


def machine() -> str:
    """The processor, as far as the system names it."""
    return platform.processor() or platform.machine()


def keep(name: str, record: dict[str, Any]) -> None:
    """Write and print results."""
    text = json.dumps(record, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def phantom_species(settings: SimulationSettings) -> ProjectedSpecies:
    """The built-in phantom, ready to be placed in movies of such settings."""
    atoms = phantom()
    potential = build_potential(atoms, settings.pixel_size_angstrom)
    projector = Projector(potential, settings.optics.voltage_kv)
    return ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector)
