"""The range of conditions that simulated crops are made under, and how each crop's are drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from pydantic import AliasChoices, Field, model_validator

from dstnet.core.randomness import stream
from dstnet.core.settings import Settings
from dstnet.detector.settings import DetectorSettings
from dstnet.motion.simulated_motion import MotionSettings
from dstnet.optics.ctf import OpticsSettings
from dstnet.simulation import SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import Species
from dstnet.training.faults import NO_FAULTS, Faults, FaultSettings, draw_faults

# Of some 30 kDa, the smallest that can be told from ice at all (Henderson, Q. Rev. Biophys. 28,
# 171 (1995): 38 kDa at the least).
DEBRIS_RADIUS_ANGSTROM = 28.0
# Of the two courses of local motion (`dstnet.motion.simulated_motion`), the early one settles
# within a few times this exposure, as there; the late one is spread over the exposure of a usual
# movie.
_EARLY_E_PER_A2, _MOVIE_E_PER_A2 = 4.0, 50.0


class StreamSettings(Settings):
    """The range of conditions that training crops are drawn from. Pairs are (lowest, highest)."""

    crop: int = Field(default=256, ge=64, description="pixels")
    working_pixel_angstrom: float = Field(default=2.0, gt=0)
    groups: int = Field(
        default=8,
        ge=1,
        validation_alias=AliasChoices("groups", "fractions"),  # as settings before 0.8 call them
        description="most groups of frames of a crop",
    )
    single: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="part of the batches of one group, as sums are that somebody else made",
    )
    exposure_e_per_a2: tuple[float, float] = Field(
        default=(0.7, 110.0),
        description="total exposure; half of the crops lie above the range's 2/3 in log",
    )
    defocus_angstrom: tuple[float, float] = Field(
        default=(4000.0, 32000.0), description="log-uniform"
    )
    coverage: tuple[float, float] = (0.04, 0.45)
    contrast: tuple[float, float] = Field(default=(0.7, 3.5), description="log-uniform")
    crowded: float = Field(
        default=0.25, ge=0, le=1, description="part of crops whose particles touch and overlap"
    )
    crowded_coverage: tuple[float, float] = (0.35, 0.6)
    frost: float = Field(
        default=0.12, ge=0, le=1, description="part of crops with ice contamination"
    )
    debris: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description=(
            "part of crops with fragments of structures strewn among the particles, where there"
            " are any"
        ),
    )
    empty: float = Field(default=0.06, ge=0, le=1, description="part of crops without any particle")
    mixed: float = Field(
        default=0.3, ge=0, le=1, description="part of crops with two or three species"
    )
    exposure_known: float = Field(
        default=0.7, ge=0, le=1, description="part of crops whose exposure the network is given"
    )
    aligned: bool = Field(
        default=True,
        description="whether the motion is taken out, but for what an alignment leaves",
    )
    window: int | None = Field(
        default=None,
        ge=1,
        description=(
            "raw frames around the one that is learnt, odd: 5 is two past and two future ones;"
            " None: complete movies in groups of frames"
        ),
    )
    frame_exposure_e_per_a2: tuple[float, float] = Field(
        default=(0.5, 5.0),
        description=(
            "of a raw frame of a window, log-uniform; the exposure before a window reaches up to"
            " the end of exposure_e_per_a2"
        ),
    )
    cut: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="part of batches whose windows are cut short, as at a movie's ends",
    )

    faults: FaultSettings = FaultSettings()

    @model_validator(mode="after")
    def _of_raw_frames(self) -> Self:
        if self.window is None:
            return self
        if self.faults.share:
            raise ValueError("a window is of raw frames, which have no faults: leave faults out")
        if self.window % 2 == 0:
            raise ValueError(
                f"a window has as many past as future frames, so it is odd, not {self.window}"
            )
        if self.aligned:
            raise ValueError(
                "a window is of raw frames, their motion in them: set aligned to false beside it"
            )
        return self


@dataclass(frozen=True)
class CropPlan:
    """All that decides a simulated crop.

    Attributes
    ----------
    settings
        Conditions of the movie that it is.
    species
        What is in it.
    seed
        Of the simulation.
    frame_index
        The frame whose own target it carries.
    exposure_known
        Whether the network is given its exposure.
    faults
        What happens to its images after the camera.
    """

    settings: SimulationSettings
    species: tuple[Species, ...]
    seed: int
    frame_index: int
    exposure_known: bool
    faults: Faults = NO_FAULTS


def plan_batch(
    ranges: StreamSettings, species: Sequence[Species], batch: int, seed: int, index: int
) -> list[CropPlan]:
    """Crops of batch number `index` under `seed`: all of one number of frames, and with the target
    of the same frame.

    Of windows, that frame is the middle one, unless the window is cut short.
    """
    generator = stream(seed, "batch", index)
    frames, frame_index = _draw_frames(ranges, generator)
    return [
        replace(
            _plan_crop(ranges, species, frames, frame_index, stream(seed, "crop", index, i)),
            faults=draw_faults(ranges.faults, stream(seed, "faults", index, i)),
        )
        for i in range(batch)
    ]


def _draw_frames(ranges: StreamSettings, generator: torch.Generator) -> tuple[int, int]:
    """How many frames the crops of a batch have, and which one's own target they carry."""
    u = torch.rand(2, generator=generator).tolist()
    if ranges.window is None:
        frames = draw_group_count(ranges.groups, u[0], ranges.single)
        return frames, math.floor(u[1] * frames)
    half = ranges.window // 2
    past, future = half, half
    if u[0] < ranges.cut:
        past, future = torch.randint(half + 1, (2,), generator=generator).tolist()
    return past + 1 + future, past


def draw_group_count(most: int, u: float, single: float) -> int:
    """A number of groups of frames from a uniform number `u`: one in a part `single` of the cases;
    of the rest, `most` in half, any from two on else.
    """
    if u < single:
        return 1
    rest = (u - single) / (1 - single)
    if rest < 0.5:
        return most
    return min(most, 2 + math.floor((rest - 0.5) / 0.5 * (most - 1)))


def _plan_crop(
    ranges: StreamSettings,
    species: Sequence[Species],
    frames: int,
    frame_index: int,
    generator: torch.Generator,
) -> CropPlan:
    settings = draw_settings(ranges, frames, generator)
    u = torch.rand(3, generator=generator).tolist()
    count = 1 if u[0] >= ranges.mixed else 2 + int(u[1] < 0.5)
    particles, debris = split_debris(species)
    chosen = _choose(particles, count, generator)
    if debris and float(torch.rand(1, generator=generator)) < ranges.debris:
        count = int(torch.randint(1, 4, (1,), generator=generator))
        chosen += _choose(debris, count, generator)
    return CropPlan(
        settings=settings,
        species=tuple(chosen),
        seed=int(torch.randint(1 << 62, (1,), generator=generator)),
        frame_index=frame_index,
        exposure_known=u[2] < ranges.exposure_known,
    )


def _choose(species: Sequence[Species], count: int, generator: torch.Generator) -> list[Species]:
    indices = torch.randint(len(species), (count,), generator=generator)
    return [species[i] for i in indices.tolist()]


def split_debris(species: Sequence[Species]) -> tuple[list[Species], list[Species]]:
    """Particles, and debris: species too small to be looked for, never alone in a crop and without
    a place in its particle map. Where all are small, none is debris.
    """
    particles = [one for one in species if one.radius_angstrom >= DEBRIS_RADIUS_ANGSTROM]
    debris = [one for one in species if one.radius_angstrom < DEBRIS_RADIUS_ANGSTROM]
    return (particles, debris) if particles else (debris, [])


class _Draws:
    """Uniform numbers, one after another; what is drawn depends on the order of the calls."""

    def __init__(self, generator: torch.Generator):
        self._numbers = iter(torch.rand(40, generator=generator).tolist())

    def unit(self) -> float:
        return next(self._numbers)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def log_uniform(self, low: float, high: float) -> float:
        return low * (high / low) ** self.unit()

    def chance(self, probability: float) -> bool:
        return self.unit() < probability


def draw_settings(
    ranges: StreamSettings, frames: int, generator: torch.Generator
) -> SimulationSettings:
    """Conditions of one crop: a movie of `frames` frames at the working pixel, with the motion that
    alignment leaves, or all of it.

    Whether aligned or not, all else is drawn the same.
    """
    draws = _Draws(generator)
    optics = _draw_optics(ranges, draws)
    specimen = _draw_specimen(ranges, draws)
    # One frame stands for a sum that somebody made, aligned or not: more blur is left in it.
    summed = frames == 1 and draws.chance(0.5)
    motion = MotionSettings(
        burst_angstrom=draws.uniform(0, 1.5 if summed else 0.6),
        drift_angstrom_per_e=draws.uniform(0, 0.1) if summed else 0.0,
        jitter_angstrom=draws.uniform(0, 0.4),
        local_angstrom=draws.uniform(0, 0.3),
    )
    detector = DetectorSettings(
        mode="counting" if draws.chance(0.75) else "integrating",
        quantum_efficiency=draws.uniform(0.5, 0.95),
        mtf_half_frequency=None if draws.chance(0.1) else draws.log_uniform(0.3, 4.0),
        mtf_power=draws.uniform(1.5, 2.5),
        binning=ranges.working_pixel_angstrom / draws.uniform(0.6, 1.9),
    )
    exposure, before = _draw_exposure(ranges, frames, draws)
    if not ranges.aligned:
        motion = _draw_raw_motion(before, before + exposure * frames, draws)
    return SimulationSettings(
        shape=(ranges.crop, ranges.crop),
        pixel_size_angstrom=ranges.working_pixel_angstrom,
        frames=frames,
        exposure_e_per_a2=exposure,
        pre_exposure_e_per_a2=before,
        specimen=specimen,
        optics=optics,
        motion=motion,
        detector=detector,
    )


def _draw_optics(ranges: StreamSettings, draws: _Draws) -> OpticsSettings:
    return OpticsSettings(
        voltage_kv=300.0 if draws.chance(0.7) else 200.0,
        cs_mm=2.7 if draws.chance(0.8) else 0.01,
        amplitude_contrast=draws.uniform(0.06, 0.11),
        defocus_angstrom=draws.log_uniform(*ranges.defocus_angstrom),
        astigmatism_angstrom=draws.uniform(0, 600),
        astigmatism_angle_deg=draws.uniform(0, 180),
        b_factor_angstrom2=draws.uniform(5, 160),
    )


def _draw_specimen(ranges: StreamSettings, draws: _Draws) -> SpecimenSettings:
    empty = draws.chance(ranges.empty)
    crowded = draws.chance(ranges.crowded)
    coverage = draws.uniform(*(ranges.crowded_coverage if crowded else ranges.coverage))
    return SpecimenSettings(
        coverage=0.0 if empty else coverage,
        gap_angstrom=draws.uniform(-25, 0) if crowded else 5.0,
        clustering=draws.uniform(0, 0.6) if crowded else 0.0,
        contrast=draws.log_uniform(*ranges.contrast),
        ice_thickness_angstrom=draws.log_uniform(200, 900),
        ice_noise=draws.uniform(0.6, 1.6),
        thickness_gradient=draws.uniform(0, 0.6),
        contaminants_per_um2=draws.log_uniform(8, 400) if draws.chance(ranges.frost) else 0.0,
    )


def _draw_exposure(ranges: StreamSettings, frames: int, draws: _Draws) -> tuple[float, float]:
    """Exposure of a frame, and before the first, e-/Å2."""
    low, high = ranges.exposure_e_per_a2
    if ranges.window is None:
        # Below a few e-/Å2 there is little to learn from: u^0.6 draws more of the stronger ones
        # than log-uniform would.
        exposure = low * (high / low) ** (draws.unit() ** 0.6) / frames
        before = draws.uniform(0, 40) if draws.chance(0.3) else 0.0
    else:
        exposure = draws.log_uniform(*ranges.frame_exposure_e_per_a2)
        before = high * draws.unit() ** 2  # more often early, where the motion is
    return exposure, before


def _draw_raw_motion(before: float, after: float, draws: _Draws) -> MotionSettings:
    """Motion of frames that nobody aligned, exposed between `before` and `after` e-/Å2."""
    early = math.exp(-before / _EARLY_E_PER_A2) - math.exp(-after / _EARLY_E_PER_A2)
    late = (after - before) / _MOVIE_E_PER_A2
    return MotionSettings(
        burst_angstrom=draws.uniform(0, 4),
        drift_angstrom_per_e=draws.uniform(0, 0.12),
        jitter_angstrom=draws.uniform(0, 0.4),
        # The part of a complete movie's local motion that falls between `before` and `after`.
        local_angstrom=draws.uniform(0, 1.2) * 0.5 * (early + late),
    )
