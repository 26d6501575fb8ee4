"""What a data set's manifest says of each movie: how much it shows and moves, and a digest of each
of its files.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from dstnet.core.regular_files import file_sha256
from dstnet.core.settings import Settings
from dstnet.simulation import MovieSimulator

FACTS_ENDING = "facts.json"


class FileFacts(Settings):
    """Of one file, so that a change of it shows."""

    bytes: int = Field(ge=0)
    sha256: str


class Statistics(Settings):
    """Of one simulated movie."""

    particles: int = Field(description="whose centre lies in the field")
    contrast: float = Field(description="deviation of the clean image, the mean being 1")
    snr_of_sum: float = Field(
        description=(
            "power of the clean image over that of the shot noise of all electrons of the movie,"
            " pixel by pixel; what the camera adds is left out"
        )
    )
    counts_per_pixel: float = Field(description="mean of a frame as recorded")
    motion_rms_angstrom: float = Field(description="of the whole field about its mean, per axis")
    motion_path_angstrom: float = Field(description="length of the whole field's path")
    local_motion_rms_angstrom: float = Field(
        description="of the coefficients of local motion, per axis"
    )
    defocus_angstrom: float = Field(description="underfocus of the field's middle")
    thickness_angstrom: float = Field(description="of the ice, mean over the field")


class MovieFacts(Settings):
    """What is written beside a movie as ``truth/NAME_facts.json``."""

    statistics: Statistics
    files: dict[str, FileFacts] = Field(description="by their path from the data set's folder")


def statistics_of(simulator: MovieSimulator, counts_per_pixel: float) -> Statistics:
    """Statistics of a movie.

    Parameters
    ----------
    simulator
        Of the movie.
    counts_per_pixel
        Mean of its frames as they were written.
    """
    settings = simulator.settings
    truth = simulator.truth
    area = settings.pixel_size_angstrom**2
    electrons = settings.exposure_e_per_a2 * settings.frames * area
    contrast = float(truth.clean.std(correction=0))
    shifts = truth.motion.global_shift_angstrom.double()
    steps = shifts.diff(dim=0)
    local = truth.motion.local_coefficients_angstrom.double()
    return Statistics(
        particles=len(truth.particles),
        contrast=contrast,
        snr_of_sum=contrast**2 * electrons,
        counts_per_pixel=counts_per_pixel,
        motion_rms_angstrom=float((shifts - shifts.mean(0)).square().mean().sqrt()),
        motion_path_angstrom=float(steps.square().sum(1).sqrt().sum()),
        local_motion_rms_angstrom=float((local - local.mean(0)).square().mean().sqrt()),
        defocus_angstrom=truth.defocus_angstrom,
        thickness_angstrom=float(truth.thickness_angstrom.mean()),
    )


def file_facts(path: Path) -> FileFacts:
    """Size and digest of a file.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    return FileFacts(bytes=path.stat().st_size, sha256=file_sha256(path))


class MeanCounts:
    """The mean of frames that pass one by one."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._pixels = 0

    def add(self, frame: np.ndarray) -> None:
        """Count a frame in."""
        self._sum += float(frame.sum(dtype=np.float64))
        self._pixels += frame.size

    @property
    def mean(self) -> float:
        """Of all so far; 0 where there was none."""
        return self._sum / max(1, self._pixels)


def facts_as_json(facts: MovieFacts) -> dict[str, Any]:
    """As plain values, floats rounded to six digits so that no machine's last bit shows."""
    values = facts.model_dump(mode="json")
    statistics = values["statistics"]
    for name, value in statistics.items():
        if isinstance(value, float):
            statistics[name] = float(f"{value:.6g}")
    return values
