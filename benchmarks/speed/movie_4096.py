"""The 4096 x 4096 x 40 movie that aligning and enhancing are measured on, and the least that must
be done with it.
"""

import sys
from pathlib import Path
from typing import Any

from timing import measured_command, phantom_species

from dstnet.io import write_tiff
from dstnet.simulation import MovieSimulator, SimulationSettings

PIXEL_ANGSTROM, FRAMES, EXPOSURE_E_PER_A2 = 1.06, 40, 1.0
# Reading every frame once and one float32 FFT pair of each, which no Fourier aligner can avoid.
_YARDSTICK = """
import sys, torch
torch.set_num_threads(1)
from dstnet.io import open_movie
movie = open_movie(sys.argv[1], pixel_size_angstrom=1.06)
for i in range(len(movie)):
    torch.fft.irfft2(torch.fft.rfft2(movie.frame(i)), s=movie.shape)
"""


def make(path: Path) -> None:
    """The movie, of the built-in phantom, written to `path`."""
    settings = SimulationSettings(
        shape=(4096, 4096),
        pixel_size_angstrom=PIXEL_ANGSTROM,
        frames=FRAMES,
        exposure_e_per_a2=EXPOSURE_E_PER_A2,
    )
    simulator = MovieSimulator(settings, [phantom_species(settings)], 0)
    counts = (frame.numpy().astype("uint8") for frame in simulator.frames())
    write_tiff(path, counts, PIXEL_ANGSTROM)


def measured_yardstick(path: Path) -> dict[str, Any]:
    """Time and memory of the least that must be done with the movie."""
    return measured_command([sys.executable, "-c", _YARDSTICK, str(path)])


def dstnet_command(verb: str, movie: Path, folder: Path) -> list[str]:
    """A command on the movie, on one thread."""
    program = Path(sys.executable).parent / "dstnet"
    exposure = f"{EXPOSURE_E_PER_A2:g}"
    return [
        str(program),
        verb,
        str(movie),
        "-o",
        str(folder),
        "--pixel-size",
        str(PIXEL_ANGSTROM),
        "--dose-per-frame",
        exposure,
        "--threads",
        "1",
    ]
