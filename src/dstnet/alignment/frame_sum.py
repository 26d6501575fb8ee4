"""Sums of a movie's frames with the motion taken out."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.alignment.aligned_movie import AlignedMovie, Grouping
from dstnet.alignment.dose_weighting import DoseWeighting
from dstnet.alignment.frame_groups import GroupSums, coarser_shape
from dstnet.alignment.global_motion import estimate_motion
from dstnet.alignment.reading import checked_frame
from dstnet.alignment.settings import AlignmentSettings
from dstnet.alignment.undo_motion import (
    MotionRemoval,
    checked_motion,
    field_of,
    largest_displacement,
)
from dstnet.core.devices import Device
from dstnet.core.fourier import crop_spectrum, irfft2
from dstnet.core.progress import progress
from dstnet.core.shapes import Shape, Trajectory
from dstnet.motion import Motion
from dstnet.movie import Movie


def align(
    movie: Movie,
    settings: AlignmentSettings,
    *,
    groupings: Collection[Grouping] = (),
    halves: bool = False,
    motion: Motion | None = None,
    device: Device = "cpu",
) -> AlignedMovie:
    """Estimate the motion of a movie, take it out and sum; sums lie where the first frame does.

    Frames are read twice, once where `motion` is given or none is to be found (settings:
    pre_aligned). Memory holds a few images and, while the motion is estimated, the low frequencies
    of all frames (settings: max_coefficients).

    Parameters
    ----------
    movie
        The movie.
    settings
        How to estimate, and the binning of the sums.
    groupings
        Groups of frames to make besides the sums.
    halves
        Whether to make the even and the odd sum too.
    motion
        Motion found elsewhere, against any reference: nothing is estimated.
    device
        Where the arithmetic is done and the result lies.

    Raises
    ------
    BadInputError
        If a frame is constant, holds NaN or infinity, cannot be read, or is too small to align; or
        if `motion` does not fit the movie.
    SettingsError
        If a working pixel or a number of groups is not positive.
    """
    n = len(movie)
    notes: list[str] = []
    if motion is None and settings.pre_aligned:
        motion = Motion.of_shifts(torch.zeros(n, 2))
    if motion is None:
        motion, notes = estimate_motion(movie, settings, device)
    motion = checked_motion(motion, movie, device)
    field = field_of(movie.shape, movie.pixel_size_angstrom)
    return accumulate(
        movie,
        motion.from_first_frame(field),
        groupings=groupings,
        halves=halves,
        binning=settings.bin,
        device=device,
        notes=tuple(notes),
    )


def half_movie(
    aligned: AlignedMovie, first: int, *, groupings: Collection[Grouping] | None = None
) -> AlignedMovie:
    """Every other frame of an aligned movie, from `first` on (0 or 1), summed and grouped anew.

    What the frames between have exposed counts as before those that follow.

    Parameters
    ----------
    aligned
        All frames; their motion is not estimated again.
    first
        0 for the half that `AlignedMovie.even` sums, 1 for the other.
    groupings
        Groups of frames to make; by default those that `aligned` has.

    Raises
    ------
    BadInputError
        If a frame cannot be used.
    """
    chosen = range(first, len(aligned.movie), 2)
    return accumulate(
        aligned.movie.subset(chosen),
        aligned.motion.window(chosen),
        groupings=tuple(aligned.groups) if groupings is None else groupings,
        binning=aligned.binning,
        device=aligned.total.device,
    )


def accumulate(
    movie: Movie,
    motion: Motion | Trajectory,
    *,
    groupings: Collection[Grouping] = (),
    halves: bool = False,
    binning: float = 1.0,
    device: Device = "cpu",
    notes: tuple[str, ...] = (),
) -> AlignedMovie:
    """Undo the motion of each frame and sum: plain, dose-weighted, and in groups on coarser grids.

    Whole pixels are moved by indexing (the border continued by reflection, so that nothing wraps
    from the opposite edge), the rest by a Fourier phase, which keeps white noise white; or, where
    there is local motion, together with it by `warp_local`, which keeps detail of up to 0.4 cycles
    per pixel and loses up to 15 % at 0.45, halfway between pixels. Each frame is read once; memory
    holds a few full-size spectra, whatever the number of frames.

    Parameters are those of `align`, with the motion given, or the shifts of the whole field alone,
    and `binning` as in the settings. The sums lie at the reference of the motion.

    Raises
    ------
    BadInputError
        If the motion is not one finite set a frame, or a frame is constant, holds NaN or infinity,
        or cannot be read.
    SettingsError
        If a working pixel or a number of groups is not positive.

    References
    ----------
    Dose weighting: Grant & Grigorieff, eLife 4:e06980 (2015), eq. 9.
    """
    shape = movie.shape
    motion = checked_motion(motion, movie, device)
    out = coarser_shape(shape, binning)
    removal = MotionRemoval(motion, shape, movie.pixel_size_angstrom, device)
    sums = _Sums.empty(movie, out, halves, device)
    groups = {grouping: GroupSums(movie, grouping, device) for grouping in groupings}
    for i in range(len(movie)):
        frame = checked_frame(movie, i, device)
        spectrum = removal.spectrum(frame, i)
        sums.add(i, spectrum)
        for group_sums in groups.values():
            group_sums.follow(sums.total, i + 1)
        progress("summing, frame", i + 1, len(movie))
    height_factor = shape[0] / out[0]
    width_factor = shape[1] / out[1]
    pixel = movie.pixel_size_angstrom
    reach_y, reach_x = (largest_displacement(motion) / pixel).tolist()
    total, even, odd = sums.images()
    return AlignedMovie(
        movie=movie,
        total=total,
        dose_weighted=sums.dose_weighted(),
        even=even,
        odd=odd,
        groups={grouping: group_sums.result() for grouping, group_sums in groups.items()},
        motion=motion,
        binning=binning,
        pixel_size_angstrom=pixel * 0.5 * (height_factor + width_factor),
        margin_px=(
            math.ceil(reach_y * out[0] / shape[0]),
            math.ceil(reach_x * out[1] / shape[1]),
        ),
        notes=notes,
    )


@dataclass
class _Sums:
    """Spectra of the sums, while the frames pass in order.

    Attributes
    ----------
    shape, out
        (y, x) of the frames and of the sums.
    total
        Of all frames so far, on the frames' grid.
    even
        Of every other frame; None: not asked for.
    weighting
        Dose weighting; None: the exposure is unknown.
    """

    shape: Shape
    out: Shape
    total: Tensor
    even: Tensor | None
    weighting: DoseWeighting | None

    @classmethod
    def empty(cls, movie: Movie, out: Shape, halves: bool, device: Device) -> "_Sums":
        height, width = movie.shape
        total = torch.zeros(height, width // 2 + 1, dtype=torch.complex64, device=device)
        weighting = None
        if movie.exposure is not None:
            weighting = DoseWeighting(movie, movie.exposure, out, device)
        even = torch.zeros_like(total) if halves else None
        return cls(movie.shape, out, total, even, weighting)

    def add(self, number: int, spectrum: Tensor) -> None:
        """Add a frame, by its number from 0."""
        self.total += spectrum
        if self.even is not None and number % 2 == 0:
            self.even += spectrum
        if self.weighting is not None:
            self.weighting.add(self._cropped(spectrum))

    def _cropped(self, spectrum: Tensor) -> Tensor:
        if self.out == self.shape:
            return spectrum
        return crop_spectrum(spectrum, self.shape, self.out)

    def images(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The sums of all, the even and the odd frames, [y, x]; uses up the spectra."""
        total = self.total = self._cropped(self.total)
        image = irfft2(total, self.out)
        if self.even is None:
            return image, None, None
        even = self.even = self._cropped(self.even)
        even_image = irfft2(even, self.out)
        odd_image = irfft2(total - even, self.out)
        return image, even_image, odd_image

    def dose_weighted(self) -> Tensor | None:
        """The dose-weighted sum [y, x]; uses up its spectrum."""
        if self.weighting is None:
            return None
        return irfft2(self.weighting.result(), self.out)
