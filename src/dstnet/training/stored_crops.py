"""Training crops from movies on disk that `dstnet simulate` wrote, with their truths."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dstnet.alignment import FrameGroups, Grouping, accumulate
from dstnet.core.fourier import apply_transfer, radial_frequency, resample
from dstnet.core.randomness import stream
from dstnet.core.shapes import Image, Shape
from dstnet.dataset import SimulatedMovie
from dstnet.errors import BadInputError
from dstnet.motion import Motion
from dstnet.motion.exposure_filter import b_factor_amplitude, damage_amplitude
from dstnet.movie import Movie
from dstnet.movie.normalise import normalised
from dstnet.network.inputs import exposure_inputs
from dstnet.simulation import SimulationSettings
from dstnet.training.batch import Batch, Crop, orient
from dstnet.training.crop_conditions import StreamSettings, draw_group_count
from dstnet.training.targets import CropTruth, make_targets

# Working pixels around a crop that are aligned with it and then cut off: wider than frames usually
# move, so that what alignment shifts in at the edges of the window does not reach the crop.
MARGIN = 16
_TRUTHS = ("clean", "phase", "label")


def check_movies(movies: Sequence[SimulatedMovie], ranges: StreamSettings) -> None:
    """Make sure that crops can be taken from every movie, as far as its header and record tell.

    Raises
    ------
    BadInputError
        If a file is missing or not as its record says, a field too small, or its pixels too large.
    """
    for movie in movies:
        _check_scale(movie, ranges)
        movie.movie()
        movie.motion()
        for what in _TRUTHS:
            if movie.truth(what).shape != (1, *movie.settings.shape):
                raise BadInputError(
                    f"{movie.folder}: {movie.name}: its truth {what} has not the movie's shape;"
                    " simulate this movie again"
                )


def _check_scale(movie: SimulatedMovie, ranges: StreamSettings) -> None:
    where = f"{movie.folder}: {movie.name}"
    pixel = movie.settings.pixel_size_angstrom
    if pixel > 1.01 * ranges.working_pixel_angstrom:
        raise BadInputError(
            f"{where} has pixels of {pixel:g} Å, more than the working"
            f" {ranges.working_pixel_angstrom:g} Å; raise stream.working_pixel_angstrom, or leave"
            " the folder out"
        )
    width = min(movie.settings.shape) * pixel
    crop_width = ranges.crop * ranges.working_pixel_angstrom
    if width < crop_width:
        raise BadInputError(
            f"{where} is {width:.0f} Å wide, less than a crop's {crop_width:.0f} Å; lower"
            " stream.crop"
        )


def stored_batch(
    ranges: StreamSettings, movies: Sequence[SimulatedMovie], *, batch: int, seed: int, index: int
) -> Batch:
    """Batch number `index` under `seed`, from one of `movies`: crops at random places, turned at
    random.

    One movie a batch, since to read it is most of the work. Half of the batches take the complete
    movie, the others some of its consecutive frames, so that exposures vary. The true motion is
    taken out by the functions that enhancement uses.

    Raises
    ------
    BadInputError
        If a file cannot be read.
    """
    generator = stream(seed, "recorded", index)
    number = int(torch.randint(len(movies), (1,), generator=generator))
    movie = movies[number]
    used = _draw_frames(movie.settings.frames, ranges, generator)
    places = []
    known = []
    for i in range(batch):
        places.append(_draw_place(movie, ranges, stream(seed, "recorded crop", index, i)))
        u = float(torch.rand(1, generator=stream(seed, "recorded known", index, i)))
        known.append(u < ranges.exposure_known)
    source = _Source.read(movie, used.frames, places)
    crops = [
        _make_crop(source, place, window, used, ranges, exposure_known)
        for place, window, exposure_known in zip(places, source.windows, known, strict=True)
    ]
    return Batch.stack(crops, used.group_index)


@dataclass(frozen=True)
class _UsedFrames:
    """Which frames of a movie a batch takes, in how many groups, and the group that
    `Crop.frame_target` is of.
    """

    frames: range
    groups: int
    group_index: int


def _draw_frames(frames: int, ranges: StreamSettings, generator: torch.Generator) -> _UsedFrames:
    complete, length, start, grouping, group = torch.rand(5, generator=generator).tolist()
    count = frames
    if complete >= 0.5:
        count = max(1, round(frames**length))
    first = math.floor(start * (frames - count + 1))
    groups = draw_group_count(min(count, ranges.groups), grouping, ranges.single)
    used = range(first, first + count)
    return _UsedFrames(used, groups, math.floor(group * groups))


@dataclass(frozen=True)
class _Place:
    """Where a crop lies in a movie.

    Attributes
    ----------
    corner, side
        A window with a margin around the crop: its first pixel and its side, pixels of the movie.
    working_side
        The window's side in working pixels.
    crop_corner
        The crop's first pixel in the window, working pixels.
    symmetry
        0 to 7: which of the square's symmetries the crop is shown in.
    """

    corner: tuple[int, int]
    side: int
    working_side: int
    crop_corner: tuple[int, int]
    symmetry: int

    @property
    def window(self) -> tuple[slice, slice]:
        """The window in the movie."""
        y, x = self.corner
        return slice(y, y + self.side), slice(x, x + self.side)

    def crop(self, side: int) -> tuple[slice, slice]:
        """The crop in the window, on the working grid."""
        y, x = self.crop_corner
        return slice(y, y + side), slice(x, x + side)


def _draw_place(
    movie: SimulatedMovie, ranges: StreamSettings, generator: torch.Generator
) -> _Place:
    shape = movie.settings.shape
    factor = ranges.working_pixel_angstrom / movie.settings.pixel_size_angstrom
    field = [math.floor(n / factor) for n in shape]  # in working pixels
    working_side = min(ranges.crop + 2 * MARGIN, *(n - n % 2 for n in field))
    side = min(round(working_side * factor), *shape)

    def along(n: int, u: float) -> tuple[int, int]:
        """Along an axis of `n` pixels: first pixels of the window, and of the crop in it."""
        at = u * (n / factor - ranges.crop)  # the crop's, in working pixels of the movie
        start = _clamped(at - MARGIN, 0, n / factor - working_side)
        corner = int(_clamped(round(start * factor), 0, n - side))
        in_window = round(at - corner / factor)
        return corner, int(_clamped(in_window, 0, working_side - ranges.crop))

    u_y, u_x = torch.rand(2, generator=generator).tolist()
    y, crop_y = along(shape[0], u_y)
    x, crop_x = along(shape[1], u_x)
    symmetry = int(torch.randint(8, (1,), generator=generator))
    return _Place((y, x), side, working_side, (crop_y, crop_x), symmetry)


def _clamped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@dataclass(frozen=True)
class _Source:
    """What is read of a movie for a batch.

    Attributes
    ----------
    movie
        Of which.
    motion
        Of the frames used.
    windows
        Of each place, [frame, y, x].
    clean, phase, label
        Truths of the complete field, [y, x].
    """

    movie: SimulatedMovie
    motion: Motion
    windows: list[np.ndarray]
    clean: Image
    phase: Image
    label: Tensor

    @classmethod
    def read(cls, simulated: SimulatedMovie, frames: range, places: Sequence[_Place]) -> "_Source":
        movie = simulated.movie()
        motion = simulated.motion()
        windows: list[list[np.ndarray]] = [[] for _ in places]
        for number in frames:
            frame = np.asarray(movie.frames[number])  # read once for all crops
            for window, place in zip(windows, places, strict=True):
                window.append(frame[place.window].copy())

        def image(what: str, dtype: type) -> Tensor:
            return torch.from_numpy(np.asarray(simulated.truth(what)[0]).astype(dtype))

        return cls(
            movie=simulated,
            motion=motion.window(slice(frames.start, frames.stop)),
            windows=[np.stack(window) for window in windows],
            label=image("label", np.int64),
            clean=image("clean", np.float32),
            phase=image("phase", np.float32),
        )


def _make_crop(
    source: _Source,
    place: _Place,
    window: np.ndarray,
    used: _UsedFrames,
    ranges: StreamSettings,
    exposure_known: bool,
) -> Crop:
    inside = place.crop(ranges.crop)
    groups = _aligned_groups(source, place, window, used)
    frames, total, mean, noise = normalised(groups.images[(..., *inside)], source.movie.name)
    truth = _truth_of(source, place, mean / noise)
    shape = (place.working_side, place.working_side)
    frames_of_group = _frames_of_group(groups, used)
    left = _remaining_amplitude(
        source.movie.settings, frames_of_group, shape, ranges.working_pixel_angstrom
    )
    damaged = apply_transfer(truth.clean, left) * (mean / noise)
    exposure = groups.exposure if exposure_known else None

    def shown(image: Tensor) -> Tensor:
        return orient(image, place.symmetry)

    return Crop(
        frames=shown(frames),
        total=shown(total),
        exposure=exposure_inputs(exposure, len(groups)),
        targets={name: shown(target[inside]) for name, target in make_targets(truth).items()},
        frame_target=shown(damaged[inside]),
    )


def _aligned_groups(
    source: _Source, place: _Place, window: np.ndarray, used: _UsedFrames
) -> FrameGroups:
    """The window's frames in groups on the working grid, the true motion taken out."""
    settings = source.movie.settings
    exposure = settings.exposure.subset(used.frames)
    movie = Movie(window, settings.pixel_size_angstrom, source.movie.name, exposure)
    motion = motion_in_window(source.motion, settings.shape, place.corner, place.side)
    pixel = place.side / place.working_side * settings.pixel_size_angstrom
    grouping = Grouping(pixel, used.groups)
    return accumulate(movie, motion, groupings=[grouping]).groups[grouping]


def _frames_of_group(groups: FrameGroups, used: _UsedFrames) -> range:
    """The movie's frames that the group used for `Crop.frame_target` is the sum of."""
    counts = groups.frame_counts
    before = sum(counts[: used.group_index])
    start = used.frames.start + before
    return range(start, start + counts[used.group_index])


def _truth_of(source: _Source, place: _Place, mean_over_noise: float) -> CropTruth:
    """What is true of the window, on the working grid."""
    side = place.working_side
    middles = (torch.arange(side) + 0.5) * place.side / side
    nearest = torch.round(middles - 0.5).long()
    return CropTruth(
        clean=resample(source.clean[place.window], (side, side)),
        phase=resample(source.phase[place.window], (side, side)),
        label=source.label[place.window][nearest[:, None], nearest],
        mean_over_noise=mean_over_noise,
    )


def motion_in_window(motion: Motion, shape: Shape, corner: tuple[int, int], side: int) -> Motion:
    """The motion of a field as that of a square window of it.

    Parameters
    ----------
    motion
        Of the field.
    shape
        (y, x) of the field, pixels.
    corner
        (y, x), the window's first pixel.
    side
        Of the window, pixels.
    """
    # The field's coordinates, from -1 to 1, in terms of the window's: o + s times these.
    sy, sx = ((side - 1) / (n - 1) for n in shape)
    oy = (2 * corner[0] + side - 1) / (shape[0] - 1) - 1
    ox = (2 * corner[1] + side - 1) / (shape[1] - 1) - 1
    x, y, xx, yy, xy = motion.local_coefficients_angstrom.unbind(-1)
    terms = (
        sx * (x + 2 * ox * xx + oy * xy),
        sy * (y + 2 * oy * yy + ox * xy),
        sx * sx * xx,
        sy * sy * yy,
        sx * sy * xy,
    )
    third = 1 / 3
    middle = (
        ox * x
        + oy * y
        + (ox * ox + sx * sx * third - third) * xx
        + (oy * oy + sy * sy * third - third) * yy
        + ox * oy * xy
    )
    return Motion(motion.global_shift_angstrom + middle, torch.stack(terms, -1))


def _remaining_amplitude(
    settings: SimulationSettings, frames: range, shape: Shape, pixel_angstrom: float
) -> Tensor:
    """Amplitude of the particles' Fourier terms that damage leaves in a sum of `frames`, on the
    ``rfft2`` grid.
    """
    if settings.damage is None:
        return torch.ones(1)
    k = radial_frequency(shape, pixel_angstrom)
    left = []
    for exposure in settings.exposure.subset(frames).accumulated_e_per_a2:
        if settings.damage == "grant_grigorieff":
            left.append(damage_amplitude(k, exposure, settings.optics.voltage_kv))
        else:
            left.append(b_factor_amplitude(k, exposure))
    return torch.stack(left).mean(0)
