"""Endless training crops straight from the simulator, each with conditions of its own; nothing touches the disk."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from dstnet.core.randomness import stream
from dstnet.core.settings import Settings
from dstnet.detector.camera import DetectorSettings
from dstnet.motion.field import MotionSettings
from dstnet.movie.normalise import normalised
from dstnet.network.dstnet import exposure_features
from dstnet.optics.ctf import OpticsSettings
from dstnet.simulation import Shot, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import Species


class StreamSettings(Settings):
    """The range of conditions that training crops are drawn from. Pairs are (lowest, highest)."""

    crop: int = Field(default=256, ge=64, description="pixels")
    working_pixel_angstrom: float = Field(default=2.0, gt=0)
    fractions: int = Field(default=8, ge=1, description="most fractions of a crop")
    exposure_e_per_a2: tuple[float, float] = Field(
        default=(0.7, 80.0), description="whole exposure; half of the crops lie above the range's 2/3 in log"
    )
    defocus_angstrom: tuple[float, float] = Field(default=(4000.0, 32000.0), description="log-uniform")
    coverage: tuple[float, float] = (0.04, 0.45)
    contrast: tuple[float, float] = Field(default=(0.8, 2.0), description="log-uniform")
    empty: float = Field(default=0.06, ge=0, le=1, description="part of crops without any particle")
    mixed: float = Field(default=0.3, ge=0, le=1, description="part of crops with two or three species")
    exposure_known: float = Field(default=0.7, ge=0, le=1, description="part of crops whose exposure the network is told")


@dataclass(frozen=True)
class Crop:
    """One example: network input, its truth in the same units, and what it was made under."""

    frames: Tensor  # [frame, y, x], unit noise
    total: Tensor  # [y, x], unit noise
    exposure: Tensor  # [frame, 3]
    target: Tensor  # [y, x], in units of total's noise
    frame_target: Tensor  # [y, x], of frame `which`
    settings: SimulationSettings


def draw_settings(ranges: StreamSettings, fractions: int, generator: torch.Generator) -> SimulationSettings:
    """Conditions of one crop: a pre-aligned movie of `fractions` frames at the working pixel, with the motion that alignment leaves."""
    numbers = iter(torch.rand(40, generator=generator).tolist())

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * next(numbers)

    def log_uniform(low: float, high: float) -> float:
        return low * (high / low) ** next(numbers)

    def chance(p: float) -> bool:
        return next(numbers) < p

    voltage = 300.0 if chance(0.7) else 200.0
    optics = OpticsSettings(
        voltage_kv=voltage,
        cs_mm=2.7 if chance(0.8) else 0.01,
        amplitude_contrast=uniform(0.06, 0.11),
        defocus_angstrom=log_uniform(*ranges.defocus_angstrom),
        astigmatism_angstrom=uniform(0, 600),
        astigmatism_angle_deg=uniform(0, 180),
        b_factor_angstrom2=uniform(5, 160),
    )
    specimen = SpecimenSettings(
        coverage=0.0 if chance(ranges.empty) else uniform(*ranges.coverage),
        contrast=log_uniform(*ranges.contrast),
        ice_thickness_angstrom=log_uniform(200, 900),
        ice_noise=uniform(0.6, 1.6),
        thickness_gradient=uniform(0, 0.6),
        contaminants_per_um2=uniform(50, 400) if chance(0.12) else 0.0,
    )
    low, high = ranges.exposure_e_per_a2
    # One fraction stands for a sum that somebody made, aligned or not: more blur is left in it.
    summed = fractions == 1 and chance(0.5)
    motion = MotionSettings(
        burst_angstrom=uniform(0, 1.5 if summed else 0.6),
        drift_angstrom_per_e=uniform(0, 0.1) if summed else 0.0,
        jitter_angstrom=uniform(0, 0.4),
        local_angstrom=uniform(0, 0.3),
    )
    detector = DetectorSettings(
        mode="counting" if chance(0.75) else "integrating",
        quantum_efficiency=uniform(0.5, 0.95),
        mtf_half_frequency=None if chance(0.1) else log_uniform(0.3, 1.2),
        mtf_power=uniform(1.5, 2.5),
        binning=ranges.working_pixel_angstrom / uniform(0.6, 1.9),
    )
    return SimulationSettings(
        shape=(ranges.crop, ranges.crop),
        pixel_size_angstrom=ranges.working_pixel_angstrom,
        frames=fractions,
        # Below a few e-/Å2 there is little to learn from: u^0.6 draws more of the stronger ones than log-uniform would.
        exposure_e_per_a2=low * (high / low) ** (next(numbers) ** 0.6) / fractions,
        pre_exposure_e_per_a2=uniform(0, 40) if chance(0.3) else 0.0,
        specimen=specimen,
        optics=optics,
        motion=motion,
        detector=detector,
    )


def make_crop(
    settings: SimulationSettings, species: Sequence[Species], seed: int, which: int, known: bool, device: torch.device | str = "cpu"
) -> Crop:
    """Simulate one movie and bring it to the form that the network sees, with the very functions that enhancement uses, on `device`."""
    shot = Shot(settings, species, seed, device)
    fractions = torch.stack(list(shot.frames()))
    frames, total, mean, noise = normalised(fractions)
    own = torch.full((settings.frames,), settings.exposure_e_per_a2)
    middle = settings.pre_exposure_e_per_a2 + settings.exposure_e_per_a2 * (torch.arange(settings.frames) + 0.5)
    return Crop(
        frames,
        total,
        (exposure_features(middle, own, settings.frames) if known else exposure_features(None, None, settings.frames)).to(device),
        shot.truth.clean.to(device) * (mean / noise),
        shot.clean_frame(which) * (mean / noise),
        settings,
    )


def draw_batch(
    ranges: StreamSettings, species: Sequence[Species], batch: int, seed: int, index: int, device: torch.device | str = "cpu"
) -> tuple[list[Crop], int]:
    """Batch number `index` of the stream under `seed`: crops with one number of fractions, and the frame whose own target they carry."""
    random = stream(seed, "batch", index)
    u = torch.rand(2, generator=random).tolist()
    if u[0] < 0.2:
        fractions = 1
    elif u[0] < 0.6:
        fractions = ranges.fractions
    else:
        fractions = min(ranges.fractions, 2 + math.floor((u[0] - 0.6) / 0.4 * (ranges.fractions - 1)))
    which = math.floor(u[1] * fractions)
    crops = []
    for i in range(batch):
        own = stream(seed, "crop", index, i)
        settings = draw_settings(ranges, fractions, own)
        u = torch.rand(3, generator=own).tolist()
        number = 1 if u[0] >= ranges.mixed else 2 + int(u[1] < 0.5)
        chosen = [species[int(j)] for j in torch.randint(len(species), (number,), generator=own)]
        number = int(torch.randint(1 << 62, (1,), generator=own))
        crops.append(make_crop(settings, chosen, number, which, u[2] < ranges.exposure_known, device))
    return crops, which


class CropStream(torch.utils.data.IterableDataset):
    """Batches `first`, `first` + 1, ... of the stream on `device`, stacked: frames, total, exposure, target, frame target, which."""

    def __init__(
        self,
        ranges: StreamSettings,
        species: Sequence[Species],
        batch: int,
        seed: int,
        first: int,
        last: int,
        device: torch.device | str = "cpu",
    ):
        self.ranges, self.species, self.batch, self.seed, self.first, self.last = ranges, species, batch, seed, first, last
        self.device = device

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        worker = torch.utils.data.get_worker_info()
        start, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in range(self.first + start, self.last, step):
            crops, which = draw_batch(self.ranges, self.species, self.batch, self.seed, index, self.device)
            names = ("frames", "total", "exposure", "target", "frame_target")
            yield (*(torch.stack([getattr(c, name) for c in crops]) for name in names), torch.tensor(which))
