"""CPU seconds of 500 projections of a 256 x 256 x 256 potential in random orientations, beside the
same by plain NumPy.

    python benchmarks/speed/projections.py

The yardstick reads the padded cube's spectrum on the same slices by SciPy's cubic splines, four
samples per axis as ours, and transforms back. Both set-ups are left out of the ratio. Seconds
differ from machine to machine; the ratio less so.
"""

import time
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from timing import keep, machine, seconds_of

from dstnet.core.randomness import stream
from dstnet.potential import Potential, Projector, random_rotation

SIZE, PROJECTIONS, PLAIN_PROJECTIONS, PADDING = 256, 500, 10, 1.5


def plain(volume: np.ndarray, rotations: np.ndarray) -> float:
    """CPU seconds a projection of the yardstick, its set-up apart."""
    n = volume.shape[0]
    padded = round(n * PADDING)
    spectrum = np.fft.fftshift(np.fft.fftn(volume, s=(padded,) * 3)).astype(np.complex64)
    parts = (spectrum.real, spectrum.imag)
    single: Any = np.float32  # the stubs of SciPy know float64 alone
    coefficients = [ndimage.spline_filter(part, order=3, output=single) for part in parts]
    k = np.fft.fftfreq(n)
    ky, kx = np.meshgrid(k, k[: n // 2 + 1], indexing="ij")
    start = time.process_time()
    for rotation in rotations:
        at = kx.ravel()[:, None] * rotation[0] + ky.ravel()[:, None] * rotation[1]
        at = at[:, ::-1].T * padded + padded // 2
        real, imaginary = (
            ndimage.map_coordinates(part, at, order=3, prefilter=False) for part in coefficients
        )
        np.fft.irfft2((real + 1j * imaginary).reshape(kx.shape), s=(n, n))
    return (time.process_time() - start) / len(rotations)


def main() -> None:
    volume = np.random.default_rng(0).normal(size=(SIZE,) * 3).astype(np.float32)
    generator = stream(0, "rotations")
    rotations = torch.stack([random_rotation(generator) for _ in range(PROJECTIONS)])
    potential = Potential(volume, 1.0, "noise", SIZE / 2)
    made: list[Projector] = []
    setup = seconds_of(lambda: made.append(Projector(potential, 300.0)))
    projector = made[0]
    projector.phase(rotations[0])  # warm up

    def project() -> None:
        for rotation in rotations:
            projector.phase(rotation)

    projected = seconds_of(project)
    yardstick = plain(volume, rotations[:PLAIN_PROJECTIONS].numpy()) * PROJECTIONS
    record = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "projections": PROJECTIONS,
        "size": SIZE,
        "setup": {"wall_s": round(setup.wall, 2), "cpu_s": round(setup.cpu, 2)},
        "project": {"wall_s": round(projected.wall, 2), "cpu_s": round(projected.cpu, 2)},
        "yardstick_cpu_s": round(yardstick, 2),
        "cpu_over_yardstick": round(projected.cpu / yardstick, 3),
    }
    keep("projections", record)


if __name__ == "__main__":
    main()
