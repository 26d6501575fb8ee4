"""Roughly what a plan of movies costs on this machine."""

import math
import time
from dataclasses import dataclass

import imagecodecs
import numpy as np

from dstnet.dataset.plan import Plan, PlannedMovie
from dstnet.dataset.species_store import SpeciesStore
from dstnet.runs import torch_threads
from dstnet.simulation.movie_simulator import MovieSimulator
from dstnet.simulation.settings import SimulationSettings

PROBE_PIXELS = 1024  # side of the field that is measured
SHORT_FRAMES, LONG_FRAMES = 2, 4  # of the two movies that are measured
# Memory, measured: the program itself; images of a field at once; a potential while it is made;
# what its projector keeps.
BASE_MEMORY_BYTES = 450 << 20
PEAK_IMAGES = 28
MAKING_BYTES_PER_VOXEL = 40
KEPT_BYTES_PER_VOXEL = 16


@dataclass(frozen=True)
class Estimate:
    """Roughly what a plan costs on this machine."""

    cpu_seconds: float
    memory_bytes: int


def estimate(plan: Plan, workers: int, device: str, store: SpeciesStore) -> Estimate:
    """Measure two short movies of the first one's settings, no particles in them, on this machine,
    and reckon from there.

    What potentials and projections of particles cost is not in it.

    Parameters
    ----------
    plan
        What is to be made.
    workers
        Processes that make it.
    device
        Where torch works.
    store
        Knows the structures' sizes.
    """
    if not plan.todo:
        return Estimate(0.0, 0)
    probe = _probe(plan.todo[0].settings)
    with torch_threads(1):
        _cpu_seconds(probe, SHORT_FRAMES, device)  # what is done once in a process is no movie's
        short = _cpu_seconds(probe, SHORT_FRAMES, device)
        long = _cpu_seconds(probe, LONG_FRAMES, device)
    frame_seconds = max(long - short, 0.0) / (LONG_FRAMES - SHORT_FRAMES)
    start_seconds = max(short - SHORT_FRAMES * frame_seconds, 0.0)
    cost = 0.0
    for movie in plan.todo:
        fields = math.prod(movie.settings.shape) / math.prod(probe.shape)
        cost += (start_seconds + frame_seconds * movie.settings.frames) * fields
    return Estimate(cost, _memory_bytes(plan, workers, store))


def _probe(settings: SimulationSettings) -> SimulationSettings:
    """Settings of a movie to be measured: no larger than needed, and without particles."""
    height, width = settings.shape
    shape = (min(height, PROBE_PIXELS), min(width, PROBE_PIXELS))
    specimen = settings.specimen.model_copy(update={"coverage": 0.0, "aggregates_per_um2": 0.0})
    return settings.model_copy(update={"shape": shape, "specimen": specimen})


def _cpu_seconds(probe: SimulationSettings, frames: int, device: str) -> float:
    """CPU time that the making and packing of so many frames takes."""
    probe = probe.model_copy(update={"frames": frames})
    started = time.process_time()
    for frame in MovieSimulator(probe, [], 0, device).frames():
        imagecodecs.lzw_encode(frame.cpu().numpy().astype(np.uint16).tobytes())
    return time.process_time() - started


def _memory_bytes(plan: Plan, workers: int, store: SpeciesStore) -> int:
    """Roughly what the workers take together, this process with them."""
    movie_bytes = max(_movie_memory_bytes(movie, store) for movie in plan.todo)
    worker_bytes = movie_bytes
    if workers > 1:
        worker_bytes += BASE_MEMORY_BYTES
    return BASE_MEMORY_BYTES + min(workers, len(plan.todo)) * worker_bytes


def _movie_memory_bytes(movie: PlannedMovie, store: SpeciesStore) -> int:
    """Roughly what making a movie takes: its images, or the making of its largest potential,
    whichever is more.
    """
    pixel = movie.settings.pixel_size_angstrom
    images = PEAK_IMAGES * 4 * math.prod(movie.settings.shape)
    species = movie.movie.record.species_settings
    outlines = [store.outline(structure, species) for structure in movie.structures]
    voxels = [outline.box(pixel) ** 3 for outline in outlines]
    kept = KEPT_BYTES_PER_VOXEL * sum(voxels)
    making = MAKING_BYTES_PER_VOXEL * max(voxels, default=0)
    return max(images, making) + kept
