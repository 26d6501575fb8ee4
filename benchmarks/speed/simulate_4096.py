"""CPU seconds and peak memory of simulating a 4096 x 4096 x 40 movie with ice and local motion,
beside the same chain in plain NumPy.

    python benchmarks/speed/simulate_4096.py [--frames 40] [--numpy-frames 4]

Also a training-sized movie of 512 x 512 x 40. Each runs in a process of its own; "frames" is the
time from the first frame asked for to the last written as LZW TIFF, "setup" what comes before
(particles, potentials, transfer functions). The NumPy chain is given the setup's results and makes
fewer frames; its time is scaled to the number asked for.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from timing import keep, machine, peak_memory_gb, phantom_species, rounded, seconds_of

from dstnet.core.randomness import stream
from dstnet.io import write_tiff
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.species import ProjectionBank, Species

CROP_SIDE, CROP_FRAMES, SIDE = 512, 40, 4096
POSES = 30


def species_for(settings: SimulationSettings, drawn_before: bool) -> Species:
    """The phantom, projected anew for every particle, or drawn from a bank as in training."""
    species = phantom_species(settings)
    if not drawn_before:
        return species
    generator = stream(0, "bank")
    return ProjectionBank.from_projector(
        species.name, species.radius_angstrom, species.projector, POSES, generator
    )


def simulate(side: int, frames: int, out: Path | None) -> dict[str, Any]:
    """Our own chain; without `out` the frames are made and dropped, as in training."""
    settings = SimulationSettings(shape=(side, side), frames=frames, exposure_e_per_a2=1.0)
    species = species_for(settings, out is None)
    # What is done once in a process, such as loading compiled code, is not counted.
    small = settings.model_copy(update={"shape": (128, 128), "frames": 2})
    list(MovieSimulator(small, [species], 0).frames())
    made: list[MovieSimulator] = []
    setup = seconds_of(lambda: made.append(MovieSimulator(settings, [species], 0)))
    simulator = made[0]

    def write() -> None:
        if out is None:
            for _ in simulator.frames():
                pass
            return
        counts = (frame.numpy().astype("uint8") for frame in simulator.frames())
        write_tiff(out, counts, settings.pixel_size_angstrom)

    written = seconds_of(write)
    return {
        "setup_wall_s": setup.wall,
        "setup_cpu_s": setup.cpu,
        "frames_wall_s": written.wall,
        "frames_cpu_s": written.cpu,
        "particles": len(simulator.truth.particles),
        "peak_gb": peak_memory_gb(),
    }


def plain_frames(side: int, frames: int) -> Iterator[np.ndarray]:
    """The same physics with numpy.fft, scipy's cubic map_coordinates and numpy's Poisson, as one
    would write it down.
    """
    n = side + 200
    pixel, exposure = 1.06, 1.0
    rng = np.random.default_rng(0)
    ky, kx = np.fft.fftfreq(n, pixel)[:, None], np.fft.rfftfreq(n, pixel)[None, :]
    k = np.hypot(ky, kx).astype(np.float32)
    transfer = (-2 * np.sin(np.pi * 0.0197 * 15000 * k**2) * np.exp(-5 * k**2)).astype(np.float32)
    clean = np.fft.rfft2(rng.standard_normal((n, n), dtype=np.float32) * 0.02) * transfer
    amplitude = (0.05 / (1 + (k / 0.25) ** 2)).astype(np.float32)
    memory = np.exp(-2 * np.pi**2 * k**2 * 1.1 / 3 * exposure).astype(np.float32)
    critical = 0.245 * np.maximum(k, 1e-6) ** -1.665 + 2.81
    mtf = 1 / (1 + (k * pixel / 0.7) ** 2)
    y, x = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")

    ice = None
    for t in range(frames):
        fresh = np.fft.rfft2(rng.standard_normal((n, n), dtype=np.float32))
        ice = fresh if ice is None else memory * ice + np.sqrt(1 - memory**2) * fresh
        spectrum = (
            clean * np.exp(-(t + 0.5) * exposure / (2 * critical)) + ice * amplitude * transfer
        )
        spectrum = (
            spectrum
            * np.sinc(0.3 * ky + 0.1 * kx)
            * mtf
            * np.exp(-2j * np.pi * (ky * 1.3 + kx * 0.7))
        )
        image = np.fft.irfft2(spectrum, s=(n, n))
        uy = 0.3 * x + 0.2 * y + 0.1 * (x * x - 1 / 3) + 0.1 * x * y
        ux = 0.2 * x - 0.3 * y + 0.1 * (y * y - 1 / 3) + 0.1 * x * y
        rows, columns = np.mgrid[100 : 100 + side, 100 : 100 + side]
        image = ndimage.map_coordinates(image, [rows - uy, columns - ux], order=3)
        yield rng.poisson(np.maximum(1 + image, 0) * exposure * pixel**2 * 0.85).astype(np.uint8)


def simulate_plainly(side: int, frames: int, out: Path) -> dict[str, Any]:
    """The chain in plain NumPy, written as ours is."""
    written = seconds_of(lambda: write_tiff(out, plain_frames(side, frames), 1.06))
    return {
        "frames_wall_s": written.wall,
        "frames_cpu_s": written.cpu,
        "peak_gb": peak_memory_gb(),
    }


def measure(what: str, side: int, frames: int) -> dict[str, Any]:
    """One chain in this process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "movie.tif"
        if what == "numpy":
            return simulate_plainly(side, frames, out)
        return simulate(side, frames, out if what == "movie" else None)


def measured_alone(what: str, side: int, frames: int) -> dict[str, Any]:
    """One chain in a process of its own."""
    command = [sys.executable, __file__, "--only", what, str(side), str(frames)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return rounded(json.loads(report), 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--numpy-frames", type=int, default=4)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)  # what, side, frames: the child
    options = parser.parse_args()
    if options.only:
        what, side, frames = options.only
        print(json.dumps(measure(what, int(side), int(frames))))
        return
    ours = measured_alone("movie", SIDE, options.frames)
    crop = measured_alone("crop", CROP_SIDE, CROP_FRAMES)
    plain = measured_alone("numpy", SIDE, options.numpy_frames)
    scale = options.frames / options.numpy_frames
    for name in ("frames_wall_s", "frames_cpu_s"):
        plain[name] = round(plain[name] * scale, 2)
    record = {
        "machine": machine(),
        "frames": options.frames,
        "movie_4096": ours,
        f"crop_{CROP_SIDE}_x_{CROP_FRAMES}": crop,
        "plain_numpy_4096": plain,
        "numpy_over_ours_cpu": round(plain["frames_cpu_s"] / ours["frames_cpu_s"], 2),
    }
    keep("simulate_4096", record)


if __name__ == "__main__":
    main()
