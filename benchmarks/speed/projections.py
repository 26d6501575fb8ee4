"""CPU seconds of 500 projections of a 256 x 256 x 256 potential in random orientations, beside the
same by plain NumPy.

    python benchmarks/speed/projections.py

The yardstick reads the padded cube's spectrum on the same slices by SciPy's cubic splines, four
samples an axis as ours, and transforms back. Both set-ups are left out of the ratio. Seconds differ
from machine to machine; the ratio less so.
"""

import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from dstnet.core.randomness import stream
from dstnet.potential import Potential, Projector, random_rotation

SIZE, PROJECTIONS, PLAIN_PROJECTIONS, PADDING = 256, 500, 10, 1.5


def plain(volume: np.ndarray, rotations: np.ndarray) -> float:
    """CPU seconds a projection of the yardstick, its set-up apart."""
    n = volume.shape[0]
    padded = round(n * PADDING)
    spectrum = np.fft.fftshift(np.fft.fftn(volume, s=(padded,) * 3)).astype(np.complex64)
    coefficients = [
        ndimage.spline_filter(part, order=3, output=np.float32)
        for part in (spectrum.real, spectrum.imag)
    ]
    k = np.fft.fftfreq(n)
    ky, kx = np.meshgrid(k, k[: n // 2 + 1], indexing="ij")
    start = time.process_time()
    for rotation in rotations:
        at = kx.ravel()[:, None] * rotation[0] + ky.ravel()[:, None] * rotation[1]
        at = at[:, ::-1].T * padded + padded // 2
        parts = [
            ndimage.map_coordinates(part, at, order=3, prefilter=False) for part in coefficients
        ]
        np.fft.irfft2((parts[0] + 1j * parts[1]).reshape(kx.shape), s=(n, n))
    return (time.process_time() - start) / len(rotations)


def main() -> None:
    volume = np.random.default_rng(0).normal(size=(SIZE,) * 3).astype(np.float32)
    generator = stream(0, "rotations")
    rotations = torch.stack([random_rotation(generator) for _ in range(PROJECTIONS)])
    start, cpu = time.perf_counter(), time.process_time()
    projector = Projector(Potential(volume, 1.0, "noise", SIZE / 2), 300.0)
    setup_wall, setup_cpu = time.perf_counter() - start, time.process_time() - cpu
    projector.phase(rotations[0])  # warm up
    start, cpu = time.perf_counter(), time.process_time()
    for rotation in rotations:
        projector.phase(rotation)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    yardstick = plain(volume, rotations[:PLAIN_PROJECTIONS].numpy()) * PROJECTIONS
    record = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "projections": PROJECTIONS,
        "size": SIZE,
        "setup": {"wall_s": round(setup_wall, 2), "cpu_s": round(setup_cpu, 2)},
        "project": {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2)},
        "yardstick_cpu_s": round(yardstick, 2),
        "cpu_over_yardstick": round(cpu / yardstick, 3),
    }
    (Path(__file__).parents[1] / "results" / "projections.json").write_text(
        json.dumps(record, indent=1) + "\n"
    )
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
