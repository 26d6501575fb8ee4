"""Endless training crops straight from the simulator, each with conditions of its own; nothing touches the disk."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.ndimage import binary_fill_holes, distance_transform_edt, find_objects
from torch import Tensor

from dstnet.core.fourier import frequencies, multiplied, scale_, shift_phase
from dstnet.core.randomness import stream
from dstnet.core.settings import Settings
from dstnet.core.shapes import Image
from dstnet.detector.camera import DetectorSettings
from dstnet.enhancement.evidence import filled
from dstnet.motion.field import MotionSettings
from dstnet.motion.warp import warp_local, warp_prefilter
from dstnet.movie import Truth
from dstnet.movie.normalise import normalised
from dstnet.network.dstnet import exposure_features
from dstnet.optics.ctf import OpticsSettings, contrast_transfer, envelope
from dstnet.optics.thon import AMPLITUDE_CONTRAST
from dstnet.simulation import Shot, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import Species
from dstnet.training.degradation import DegradationSettings, Fields, degrade

# Windows are cut out of fields that are larger by this much on each side: what moves into a crop must exist. Frames lie within half of it
# of their window's mean position, but for a few in a thousand; the other half is for how far moving rings at a border.
_BORDER_ANGSTROM = 32.0
# Of some 30 kDa, where particles begin to be told from ice at all (Henderson, Q. Rev. Biophys. 28, 171 (1995): 38 kDa at the least).
DEBRIS_RADIUS_ANGSTROM = 28.0
# Of the two courses of local motion (`dstnet.motion.field`), the early one settles within a few times this exposure, as there; the late
# one is spread over the exposure of a usual movie.
_EARLY_E_PER_A2, _MOVIE_E_PER_A2 = 4.0, 50.0


class StreamSettings(Settings):
    """The range of conditions that training crops are drawn from. Pairs are (lowest, highest)."""

    crop: int = Field(default=256, ge=64, description="pixels")
    working_pixel_angstrom: float = Field(default=2.0, gt=0)
    fractions: int = Field(default=8, ge=1, description="most fractions of a crop")
    exposure_e_per_a2: tuple[float, float] = Field(
        default=(0.7, 110.0), description="whole exposure; half of the crops lie above the range's 2/3 in log"
    )
    defocus_angstrom: tuple[float, float] = Field(default=(4000.0, 32000.0), description="log-uniform")
    coverage: tuple[float, float] = (0.04, 0.45)
    contrast: tuple[float, float] = Field(default=(0.7, 3.5), description="log-uniform")
    crowded: float = Field(default=0.25, ge=0, le=1, description="part of crops whose particles touch and overlap")
    crowded_coverage: tuple[float, float] = (0.35, 0.6)
    frost: float = Field(default=0.12, ge=0, le=1, description="part of crops with frost")
    debris: float = Field(
        default=0.25, ge=0, le=1, description="part of crops with pieces of structures strewn among the particles, where there are any"
    )
    empty: float = Field(default=0.06, ge=0, le=1, description="part of crops without any particle")
    mixed: float = Field(default=0.3, ge=0, le=1, description="part of crops with two or three species")
    exposure_known: float = Field(default=0.7, ge=0, le=1, description="part of crops whose exposure the network is told")
    single: float = Field(default=0.2, ge=0, le=1, description="part of batches of one fraction, as sums and pictures are")
    whole: float = Field(default=0.4, ge=0, le=1, description="part of batches of as many fractions as there may be")
    solid_contrast: bool = Field(
        default=False, description="learn the contrast with its coarse detail that of solid particles, as `filled` makes it of the truth"
    )
    transfer_input: float | None = Field(
        default=None, description="part of crops that come with their total multiplied by the transfer function, as a last frame; None: none do"
    )
    crystals: float = Field(default=0.0, ge=0, le=1, description="part of crops with crystalline ice")
    film: float = Field(default=0.0, ge=0, le=1, description="part of crops at the edge of a hole in carbon film")
    phase_plate: float = Field(default=0.0, ge=0, le=1, description="part of crops taken with a phase plate")
    degradation: DegradationSettings = DegradationSettings()
    aligned: bool = Field(default=True, description="whether the motion is taken out, but for what an alignment leaves")
    window: int | None = Field(
        default=None,
        ge=1,
        description="raw frames around the one that is learnt, odd: 5 is two past and two future ones; None: whole movies in fractions",
    )
    frame_exposure_e_per_a2: tuple[float, float] = Field(
        default=(0.5, 5.0),
        description="of a raw frame of a window, log-uniform; the exposure before a window reaches up to the end of exposure_e_per_a2",
    )
    cut: float = Field(default=0.2, ge=0, le=1, description="part of batches whose windows are cut short, as at a movie's ends")

    @model_validator(mode="after")
    def _of_raw_frames(self) -> Self:
        if self.window is not None and self.window % 2 == 0:
            raise ValueError(f"a window has as many past as future frames, so it is odd, not {self.window}")
        if self.window is not None and self.aligned:
            raise ValueError("a window is of raw frames, their motion in them: set aligned to false beside it")
        return self


@dataclass(frozen=True)
class Crop:
    """One example: network input, its truth in the same units, and what it was made under."""

    frames: Tensor  # [frame, y, x], unit noise
    total: Tensor  # [y, x], unit noise; of a window, the very frame that is learnt
    exposure: Tensor  # [frame, 3]
    target: Tensor  # [y, x], in units of total's noise, as are those below: all that stays, so particles, debris and frost, but no water
    contrast: Tensor  # [y, x], what protein alone would show without the CTF and with all phase turned into contrast
    particles: Tensor  # [y, x], see `domes`
    frame_target: Tensor  # [y, x], of frame `which`
    settings: SimulationSettings


def draw_settings(ranges: StreamSettings, fractions: int, generator: torch.Generator) -> SimulationSettings:
    """Conditions of one crop: a movie of `fractions` frames at the working pixel, with the motion that alignment leaves, or all of it.

    Whether aligned or not, all else is drawn the same.
    """
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
        phase_plate_deg=uniform(50, 120) if ranges.phase_plate and chance(ranges.phase_plate) else 0.0,
    )
    empty, crowded = chance(ranges.empty), chance(ranges.crowded)
    coverage = uniform(*(ranges.crowded_coverage if crowded else ranges.coverage))
    specimen = SpecimenSettings(
        coverage=0.0 if empty else coverage,
        gap_angstrom=uniform(-25, 0) if crowded else 5.0,
        clustering=uniform(0, 0.6) if crowded else 0.0,
        contrast=log_uniform(*ranges.contrast),
        ice_thickness_angstrom=log_uniform(200, 900),
        ice_noise=uniform(0.6, 1.6),
        thickness_gradient=uniform(0, 0.6),
        contaminants_per_um2=log_uniform(8, 400) if chance(ranges.frost) else 0.0,
    )
    if ranges.crystals or ranges.film:
        crystals = log_uniform(4, 100) if chance(ranges.crystals) else 0.0
        film = {"film_thickness_angstrom": uniform(80, 220), "hole_diameter_angstrom": log_uniform(6000, 20000)} if chance(ranges.film) else {}
        specimen = specimen.model_copy(update={"crystals_per_um2": crystals, **film})
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
        mtf_half_frequency=None if chance(0.1) else log_uniform(0.3, 4.0),
        mtf_power=uniform(1.5, 2.5),
        binning=ranges.working_pixel_angstrom / uniform(0.6, 1.9),
    )
    if ranges.window is None:
        # Below a few e-/Å2 there is little to learn from: u^0.6 draws more of the stronger ones than log-uniform would.
        exposure = low * (high / low) ** (next(numbers) ** 0.6) / fractions
        before = uniform(0, 40) if chance(0.3) else 0.0
    else:
        exposure = log_uniform(*ranges.frame_exposure_e_per_a2)
        before = high * next(numbers) ** 2  # more often early, where the motion is
    if not ranges.aligned:
        after = before + exposure * fractions
        early = math.exp(-before / _EARLY_E_PER_A2) - math.exp(-after / _EARLY_E_PER_A2)
        motion = MotionSettings(
            burst_angstrom=uniform(0, 4),
            drift_angstrom_per_e=uniform(0, 0.12),
            jitter_angstrom=uniform(0, 0.4),
            # The part of a whole movie's local motion that falls between `before` and `after`.
            local_angstrom=uniform(0, 1.2) * 0.5 * (early + (after - before) / _MOVIE_E_PER_A2),
        )
    return SimulationSettings(
        shape=(ranges.crop, ranges.crop),
        pixel_size_angstrom=ranges.working_pixel_angstrom,
        frames=fractions,
        exposure_e_per_a2=exposure,
        pre_exposure_e_per_a2=before,
        specimen=specimen,
        optics=optics,
        motion=motion,
        detector=detector,
    )


def make_crop(
    settings: SimulationSettings,
    species: Sequence[Species],
    seed: int,
    which: int,
    known: bool,
    device: torch.device | str = "cpu",
    ranges: StreamSettings | None = None,
) -> Crop:
    """Simulate one movie and bring it to the form that the network sees, with the very functions that enhancement uses, on `device`."""
    shot = Shot(settings, species, seed, device)
    fractions = torch.stack(list(shot.frames()))
    frames, total, mean, noise = normalised(fractions)
    truths = {
        "target": (shot.truth.clean.to(device) + shot.still()) * (mean / noise),
        "contrast": shot.truth.phase.to(device) * (-2 * mean / noise),
        "particles": domes(_whole(shot.truth, species)).to(device),
        "frame_target": shot.clean_frame(which, still=True) * (mean / noise),
    }
    if ranges is not None and ranges.solid_contrast:
        truths["contrast"] = filled(truths["contrast"], truths["particles"], settings.pixel_size_angstrom)
    fields = Fields(frames, total, truths)
    if ranges is not None:
        degrade(fields, ranges.degradation, settings.pixel_size_angstrom, stream(seed, "degradation"))
    given = fields.frames
    if ranges is not None and ranges.transfer_input is not None:
        given = torch.cat((given, _phased(fields.total, settings, ranges.transfer_input, stream(seed, "transfer"))[None]))
    return Crop(given, fields.total, _told(settings, known).to(device), **fields.truths, settings=settings)


def _phased(total: Image, settings: SimulationSettings, part: float, generator: torch.Generator) -> Image:
    """A total multiplied by its contrast transfer function, known as well as a fit to its rings knows it, or not at all."""
    u, error, other = torch.rand(3, generator=generator).tolist()
    if u >= part:
        return torch.zeros_like(total)
    optics = settings.optics
    off = optics.defocus_angstrom * 0.02 * (2 * error - 1)
    fitted = optics.model_copy(
        update={
            "defocus_angstrom": optics.defocus_angstrom + off,
            "astigmatism_angstrom": optics.astigmatism_angstrom * (0.8 + 0.4 * other),
            "amplitude_contrast": AMPLITUDE_CONTRAST,
        }
    )
    shape = (total.shape[0], total.shape[1])
    transfer = contrast_transfer(shape, settings.pixel_size_angstrom, fitted, device=total.device)
    # The envelopes are taken off again: what is fitted are the rings' phases alone.
    ky, kx = frequencies(shape, settings.pixel_size_angstrom, total.device)
    transfer = transfer / (2 * envelope(kx * kx + ky * ky, fitted, fitted.defocus_angstrom).clamp(min=1e-6))
    return multiplied(total, -transfer)


def make_window(
    settings: SimulationSettings, species: Sequence[Species], seed: int, which: int, known: bool, device: torch.device | str = "cpu"
) -> Crop:
    """Simulate a few raw frames as they are, and learn frame `which` where it lies: `total` is that frame, and truths are moved to it.

    Target and contrast are undamaged, like those of whole movies; only `frame_target` is damaged. So the sum of enhanced frames shows what
    a whole movie's enhanced micrograph does, and weights its frames well: where the amplitude is damaged to d and the noise is strong, the
    best estimate of the undamaged image is the input times d over the noise, as dose weighting has it; that of the damaged one has d^2.
    """
    border = math.ceil(_BORDER_ANGSTROM / settings.pixel_size_angstrom)
    larger = settings.model_copy(update={"shape": (settings.shape[0] + 2 * border, settings.shape[1] + 2 * border)})
    inside = (slice(border, -border), slice(border, -border))
    shot = Shot(larger, species, seed, device)
    raw = torch.stack([frame[inside] for frame in shot.frames()])
    frames = normalised(raw)[0]
    _, alone, mean, noise = normalised(raw[which : which + 1])
    clean, phase = (
        _where_it_lies(image.to(device), shot.truth, which, settings.pixel_size_angstrom)
        for image in (shot.truth.clean.to(device) + shot.still(), shot.truth.phase)
    )
    # Labels are whole numbers, and what local motion moves them by is less than their edges' own vagueness.
    whole = [round(v) for v in (shot.truth.global_shift_angstrom[which] / settings.pixel_size_angstrom).tolist()]
    return Crop(
        frames,
        alone,
        _told(settings, known).to(device),
        clean[inside] * (mean / noise),
        phase[inside] * (-2 * mean / noise),
        domes(torch.roll(_whole(shot.truth, species), whole, (0, 1))[inside]).to(device),
        shot.clean_frame(which, still=True)[inside] * (mean / noise),
        settings,
    )


def _whole(truth: Truth, species: Sequence[Species]) -> Tensor:
    """The truth's label without debris, which nobody wants picked."""
    debris = {one.name for one in parted(species)[1]}
    numbers = [i for i, particle in enumerate(truth.particles, 1) if particle.species in debris]
    return truth.label.masked_fill(torch.isin(truth.label, torch.tensor(numbers, dtype=truth.label.dtype)), 0)


def parted(species: Sequence[Species]) -> tuple[list[Species], list[Species]]:
    """Particles, and debris: species too small to be looked for, never alone in a crop and without domes. Where all are small, none is."""
    small = [one.radius_angstrom < DEBRIS_RADIUS_ANGSTROM for one in species]
    if all(small):
        return list(species), []
    return [one for one, s in zip(species, small, strict=True) if not s], [one for one, s in zip(species, small, strict=True) if s]


def domes(label: Tensor) -> Tensor:
    """Where particles are: over each a dome, 1 where it is farthest from its edge, 0 there, and between particles that touch; float32.

    A pore or cavity within a particle's outline is part of it: a picker looks for its middle.

    Parameters
    ----------
    label
        [y, x], which particle covers each pixel, 0 none (`dstnet.movie.Truth.label`).
    """
    covered = label.cpu().numpy().copy()
    for number, box in enumerate(find_objects(covered), 1):
        if box is not None:
            part = covered[box]
            part[(part == 0) & np.asarray(binary_fill_holes(part == number))] = number
    apart = covered > 0
    for axis in (0, 1):
        differs = np.diff(covered, axis=axis) != 0
        # Two that touch: the pixels on both sides of their common edge belong to neither.
        low, high = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        apart[low] &= ~differs
        apart[high] &= ~differs
    if apart.all():  # no edge anywhere
        return torch.ones(label.shape)
    inside = np.asarray(distance_transform_edt(apart))
    deepest = np.zeros(int(covered.max()) + 1)
    np.maximum.at(deepest, covered.ravel(), inside.ravel())
    return torch.from_numpy((inside / np.maximum(deepest, 1)[covered]).astype(np.float32))


def _told(settings: SimulationSettings, known: bool) -> Tensor:
    """What the network is told about the exposure of each frame, [frame, 3]."""
    if not known:
        return exposure_features(None, None, settings.frames)
    own = torch.full((settings.frames,), settings.exposure_e_per_a2)
    middle = settings.pre_exposure_e_per_a2 + settings.exposure_e_per_a2 * (torch.arange(settings.frames) + 0.5)
    return exposure_features(middle, own, settings.frames)


def _where_it_lies(image: Image, truth: Truth, frame: int, pixel: float) -> Image:
    """An image at the mean position, moved to where frame `frame` has it; what enters at the borders comes from the opposite ones."""
    shape = (image.shape[0], image.shape[1])
    dy, dx = (truth.global_shift_angstrom[frame] / pixel).tolist()
    spectrum = scale_(torch.fft.rfft2(image), shift_phase(shape, (dy, dx), image.device))
    local = truth.local_coefficients_angstrom[frame] / pixel
    if not bool(local.any()):
        return torch.fft.irfft2(spectrum, s=shape)
    return warp_local(torch.fft.irfft2(scale_(spectrum, warp_prefilter(shape, image.device)), s=shape), local)


def draw_batch(
    ranges: StreamSettings, species: Sequence[Species], batch: int, seed: int, index: int, device: torch.device | str = "cpu"
) -> tuple[list[Crop], int]:
    """Batch number `index` of the stream under `seed`: crops with one number of fractions, and the frame whose own target they carry.

    Of windows, that frame is the middle one, unless the window is cut short.
    """
    random = stream(seed, "batch", index)
    u = torch.rand(2, generator=random).tolist()
    if ranges.window is not None:
        half = ranges.window // 2
        past, future = torch.randint(half + 1, (2,), generator=random).tolist() if u[0] < ranges.cut else (half, half)
        fractions = past + 1 + future
    elif u[0] < ranges.single:
        fractions = 1
    elif u[0] < ranges.single + ranges.whole:
        fractions = ranges.fractions
    else:
        part = (u[0] - ranges.single - ranges.whole) / (1 - ranges.single - ranges.whole)
        fractions = min(ranges.fractions, 2 + math.floor(part * (ranges.fractions - 1)))
    which = math.floor(u[1] * fractions) if ranges.window is None else past
    particles, debris = parted(species)
    crops = []
    for i in range(batch):
        own = stream(seed, "crop", index, i)
        settings = draw_settings(ranges, fractions, own)
        u = torch.rand(3, generator=own).tolist()
        number = 1 if u[0] >= ranges.mixed else 2 + int(u[1] < 0.5)
        chosen = [particles[int(j)] for j in torch.randint(len(particles), (number,), generator=own)]
        if debris and float(torch.rand(1, generator=own)) < ranges.debris:
            chosen += [debris[int(j)] for j in torch.randint(len(debris), (int(torch.randint(1, 4, (1,), generator=own)),), generator=own)]
        number = int(torch.randint(1 << 62, (1,), generator=own))
        known = u[2] < ranges.exposure_known
        if ranges.window is None:
            crops.append(make_crop(settings, chosen, number, which, known, device, ranges))
        else:
            crops.append(make_window(settings, chosen, number, which, known, device))
    return crops, which


class CropStream(torch.utils.data.IterableDataset):
    """Batches `first`, `first` + 1, ... of the stream on `device`, stacked: frames, total, exposure, target, contrast, particles, frame
    target, which.
    """

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
            names = ("frames", "total", "exposure", "target", "contrast", "particles", "frame_target")
            yield (*(torch.stack([getattr(c, name) for c in crops]) for name in names), torch.tensor(which))
