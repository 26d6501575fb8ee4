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
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def simulate(shape: int, frames: int, out: Path | None) -> dict:
    """Our own chain; without `out` the frames are made and dropped, as in training."""
    from dstnet.core.randomness import stream
    from dstnet.io import write_tiff
    from dstnet.potential import Projector, build_potential
    from dstnet.simulation import MovieSimulator, SimulationSettings
    from dstnet.specimen.species import ProjectedSpecies, ProjectionBank
    from dstnet.structure import phantom

    settings = SimulationSettings(shape=(shape, shape), frames=frames, exposure_e_per_a2=1.0)
    atoms = phantom()
    projector = Projector(
        build_potential(atoms, settings.pixel_size_angstrom), settings.optics.voltage_kv
    )
    species = ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector)
    if out is None:
        species = ProjectionBank.from_projector(
            atoms.name, atoms.diameter_angstrom / 2, projector, 30, stream(0, "bank")
        )
    small = settings.model_copy(update={"shape": (128, 128), "frames": 2})
    list(
        MovieSimulator(small, [species], 0).frames()
    )  # what is done once in a process, such as loading compiled code
    wall, cpu = time.perf_counter(), time.process_time()
    shot = MovieSimulator(settings, [species], 0)
    setup = {"setup_wall_s": time.perf_counter() - wall, "setup_cpu_s": time.process_time() - cpu}
    wall, cpu = time.perf_counter(), time.process_time()
    if out is None:
        for _ in shot.frames():
            pass
    else:
        write_tiff(
            out,
            (frame.numpy().astype("uint8") for frame in shot.frames()),
            settings.pixel_size_angstrom,
        )
    used = {"frames_wall_s": time.perf_counter() - wall, "frames_cpu_s": time.process_time() - cpu}
    return (
        setup
        | used
        | {
            "particles": len(shot.truth.particles),
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }
    )


def plain_numpy(shape: int, frames: int, out: Path) -> dict:
    """The same physics with numpy.fft, scipy's cubic map_coordinates and numpy's Poisson, as one
    would write it down.
    """
    import numpy as np
    from scipy import ndimage

    from dstnet.io import write_tiff

    n = shape + 200
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
    y, x = np.meshgrid(np.linspace(-1, 1, shape), np.linspace(-1, 1, shape), indexing="ij")

    def movie():
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
            rows, columns = np.mgrid[100 : 100 + shape, 100 : 100 + shape]
            image = ndimage.map_coordinates(image, [rows - uy, columns - ux], order=3)
            yield rng.poisson(np.maximum(1 + image, 0) * exposure * pixel**2 * 0.85).astype(
                np.uint8
            )

    wall, cpu = time.perf_counter(), time.process_time()
    write_tiff(out, movie(), pixel)
    return {
        "frames_wall_s": time.perf_counter() - wall,
        "frames_cpu_s": time.process_time() - cpu,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--numpy-frames", type=int, default=4)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)  # what, shape, frames: the child
    options = parser.parse_args()
    if options.only:
        what, shape, frames = options.only[0], int(options.only[1]), int(options.only[2])
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "movie.tif"
            print(
                json.dumps(
                    plain_numpy(shape, frames, out)
                    if what == "numpy"
                    else simulate(shape, frames, out if what == "movie" else None)
                )
            )
        return

    def child(what: str, shape: int, frames: int) -> dict:
        command = [sys.executable, __file__, "--only", what, str(shape), str(frames)]
        values = json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout
        )
        return {k: round(v, 3) for k, v in values.items()}

    record: dict = {"machine": platform.processor() or platform.machine(), "frames": options.frames}
    record["movie_4096"] = child("movie", 4096, options.frames)
    record["crop_512_x_40"] = child("crop", 512, 40)
    plain = child("numpy", 4096, options.numpy_frames)
    scale = options.frames / options.numpy_frames
    record["plain_numpy_4096"] = {
        k: round(v * scale, 2) if k.endswith("_s") else v for k, v in plain.items()
    }
    record["numpy_over_ours_cpu"] = round(
        record["plain_numpy_4096"]["frames_cpu_s"] / record["movie_4096"]["frames_cpu_s"], 2
    )
    (Path(__file__).parents[1] / "results" / "simulate_4096.json").write_text(
        json.dumps(record, indent=1) + "\n"
    )
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
