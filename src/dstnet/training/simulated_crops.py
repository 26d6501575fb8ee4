"""Endless training crops straight from the simulator, each with conditions of its own; nothing
touches the disk.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dstnet.core.devices import Device
from dstnet.core.fourier import scale_, shift_phase
from dstnet.core.randomness import stream
from dstnet.core.shapes import Image
from dstnet.motion.warp import warp_local, warp_prefilter
from dstnet.movie.normalise import normalised
from dstnet.network.inputs import exposure_inputs
from dstnet.simulation import MovieSimulator, Truth
from dstnet.specimen.species import Species
from dstnet.training.batch import Batch, Crop
from dstnet.training.crop_conditions import CropPlan, StreamSettings, plan_batch, split_debris
from dstnet.training.targets import CropTruth, make_targets

# Windows are cut out of fields that are larger by this much on each side: what moves into a crop
# must exist. Frames lie within it of their window's first, most within half of it; the rest is for
# how far moving rings at a border.
BORDER_ANGSTROM = 32.0


def simulated_batch(
    ranges: StreamSettings,
    species: Sequence[Species],
    *,
    batch: int,
    seed: int,
    index: int,
    device: Device = "cpu",
) -> Batch:
    """Batch number `index` under `seed`, of `batch` crops.

    Parameters
    ----------
    ranges
        Of the conditions.
    species
        What is placed in the fields.
    batch
        How many crops.
    seed, index
        What decides them: nothing else is random.
    device
        Where they are simulated, and lie.

    Raises
    ------
    SettingsError
        If drawn conditions cannot be simulated.
    BadInputError
        If a movie holds no noise to be measured by.
    """
    plans = plan_batch(ranges, species, batch, seed, index)
    make = make_crop if ranges.window is None else make_window
    crops = [make(plan, device) for plan in plans]
    return Batch.stack(crops, plans[0].frame_index)


def make_crop(plan: CropPlan, device: Device = "cpu") -> Crop:
    """Simulate a movie and bring it to the form that the network sees, with the very functions that
    enhancement uses, on `device`.

    Raises
    ------
    SettingsError, BadInputError
        As `simulated_batch`.
    """
    simulator = MovieSimulator(plan.settings, plan.species, plan.seed, device)
    faults = plan.faults
    pixel = plan.settings.pixel_size_angstrom
    counts = torch.stack(list(simulator.frames()))
    counts = faults.add_to(counts, pixel, stream(plan.seed, "faults"))
    counts = faults.limit(counts, pixel, plan.seed)
    frames, total, mean, noise = normalised(counts)
    clean = simulator.truth.clean.to(device) + simulator.static_contrast()
    truth = CropTruth(
        clean=faults.limit_signal(clean, pixel),
        phase=simulator.truth.phase.to(device),
        label=_label_without_debris(simulator.truth, plan.species),
        mean_over_noise=mean / noise,
    )
    frame_signal = simulator.clean_frame(plan.frame_index, with_static=True)
    return Crop(
        frames=frames,
        total=total,
        exposure=_exposure_inputs(plan).to(device),
        targets=make_targets(truth),
        frame_target=faults.limit_signal(frame_signal, pixel) * (mean / noise),
    )


def make_window(plan: CropPlan, device: Device = "cpu") -> Crop:
    """Simulate a few raw frames as they are, and learn frame `plan.frame_index` where it lies:
    `total` is that frame, and truths are moved to it.

    Targets are undamaged, like those of complete movies; only `frame_target` is damaged. So the sum
    of enhanced frames shows what a complete movie's enhanced micrograph does, and weights its
    frames well: where the amplitude is damaged to d and the noise is strong, the best estimate of
    the undamaged image is the input times d over the noise, as dose weighting has it; that of the
    damaged one has d^2.

    Raises
    ------
    SettingsError, BadInputError
        As `simulated_batch`.
    """
    border = math.ceil(BORDER_ANGSTROM / plan.settings.pixel_size_angstrom)
    height, width = plan.settings.shape
    larger_shape = (height + 2 * border, width + 2 * border)
    larger = plan.settings.model_copy(update={"shape": larger_shape})
    inside = (slice(border, -border), slice(border, -border))
    simulator = MovieSimulator(larger, plan.species, plan.seed, device)
    counts = torch.stack([frame[inside] for frame in simulator.frames()])
    frames = normalised(counts)[0]
    _, total, mean, noise = normalised(counts[plan.frame_index][None])
    truth = _truth_of_frame(simulator, plan, mean / noise, device).window(inside)
    frame_signal = simulator.clean_frame(plan.frame_index, with_static=True)[inside]
    return Crop(
        frames=frames,
        total=total,
        exposure=_exposure_inputs(plan).to(device),
        targets=make_targets(truth),
        frame_target=frame_signal * (mean / noise),
    )


def _truth_of_frame(
    simulator: MovieSimulator, plan: CropPlan, mean_over_noise: float, device: Device
) -> CropTruth:
    """What is true of a field, where the plan's frame has it."""
    truth = simulator.truth
    pixel = plan.settings.pixel_size_angstrom
    clean = truth.clean.to(device) + simulator.static_contrast()
    phase = truth.phase.to(device)
    # Labels are integers, and what local motion moves them by is less than their edges' own
    # vagueness.
    shift = truth.motion.global_shift_angstrom[plan.frame_index] / pixel
    rounded = [round(v) for v in shift.tolist()]
    label = _label_without_debris(truth, plan.species)
    return CropTruth(
        clean=_moved_to_frame(clean, truth, plan.frame_index, pixel),
        phase=_moved_to_frame(phase, truth, plan.frame_index, pixel),
        label=torch.roll(label, rounded, (0, 1)),
        mean_over_noise=mean_over_noise,
    )


def _label_without_debris(truth: Truth, species: Sequence[Species]) -> Tensor:
    debris = {one.name for one in split_debris(species)[1]}
    label = truth.label
    numbers = [i for i, particle in enumerate(truth.particles, 1) if particle.species in debris]
    is_debris = torch.isin(label, torch.tensor(numbers, dtype=label.dtype))
    return label.masked_fill(is_debris, 0)


def _exposure_inputs(plan: CropPlan) -> Tensor:
    """What the network is given about the exposure of each frame, [frame, 3]."""
    exposure = plan.settings.exposure if plan.exposure_known else None
    return exposure_inputs(exposure, plan.settings.frames)


def _moved_to_frame(image: Image, truth: Truth, frame: int, pixel_angstrom: float) -> Image:
    """An image at the reference position, moved to where `frame` has it; what enters at the
    borders comes from the opposite ones.
    """
    shape = (image.shape[0], image.shape[1])
    shift = truth.motion.global_shift_angstrom[frame] / pixel_angstrom
    local = truth.motion.local_coefficients_angstrom[frame] / pixel_angstrom
    dy, dx = shift.tolist()
    spectrum = torch.fft.rfft2(image)
    scale_(spectrum, shift_phase(shape, (dy, dx), image.device))
    if not bool(local.any()):
        return torch.fft.irfft2(spectrum, s=shape)
    scale_(spectrum, warp_prefilter(shape, image.device))
    return warp_local(torch.fft.irfft2(spectrum, s=shape), local)
