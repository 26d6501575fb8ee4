"""Sums over groups of frames on a working grid."""

import itertools

import torch
from torch import Tensor

from dstnet.alignment.aligned_movie import FrameGroups, Grouping
from dstnet.alignment.coarser_image import coarser_image, has_step_across_borders
from dstnet.core.devices import Device
from dstnet.core.fourier import crop_spectrum, irfft2
from dstnet.core.shapes import Shape
from dstnet.errors import SettingsError
from dstnet.movie import Movie


class GroupSums:
    """Sums over groups of frames on one working grid, while the frames pass in order.

    Parameters
    ----------
    movie
        The movie.
    grouping
        What is asked for.
    device
        Where the sums lie.

    Raises
    ------
    SettingsError
        If the working pixel or the number of groups is not positive.
    """

    def __init__(self, movie: Movie, grouping: Grouping, device: Device) -> None:
        working = grouping.working_pixel_angstrom
        most = grouping.most_groups
        if not working > 0 or most < 1:
            raise SettingsError(
                f"working pixel {working} Å and {most} groups were asked for; give a positive size"
                " and at least 1"
            )
        n = len(movie)
        count = min(n, most)
        # The first groups take one frame more where frames do not divide evenly.
        size, longer = divmod(n, count)
        self._movie = movie
        self._shape = coarser_shape(movie.shape, working / movie.pixel_size_angstrom)
        self._counts = [size + (number < longer) for number in range(count)]
        self._ends = list(itertools.accumulate(self._counts))
        self._images = torch.empty(count, *self._shape, device=device)
        # The total at the end of the last group: the image, or the spectrum on the working grid
        self._before = torch.zeros((), device=device)
        self._has_step = False
        self._done = 0

    def follow(self, total: Tensor, frames: int) -> None:
        """Take in the spectrum of the sum of the first `frames` frames."""
        if frames != self._ends[self._done]:
            return
        whole = self._movie.shape
        is_coarser = self._shape != whole
        if is_coarser and self._done == 0:
            self._has_step = has_step_across_borders(total, whole)
        if self._has_step:
            now = coarser_image(total, whole, self._shape, mirrored=True)
            self._images[self._done] = now - self._before
        else:
            now = crop_spectrum(total, whole, self._shape) if is_coarser else total.clone()
            self._images[self._done] = irfft2(now - self._before, self._shape)
        self._before = now
        self._done += 1

    def _members(self) -> list[range]:
        """The frames of each group."""
        pairs = zip(self._ends, self._counts, strict=True)
        return [range(end - count, end) for end, count in pairs]

    def result(self) -> FrameGroups:
        """The groups, once all frames have passed."""
        movie = self._movie
        exposure = movie.exposure
        if exposure is not None:
            exposure = exposure.grouped(self._members())
        height_factor = movie.shape[0] / self._shape[0]
        width_factor = movie.shape[1] / self._shape[1]
        return FrameGroups(
            images=self._images,
            frame_counts=tuple(self._counts),
            exposure=exposure,
            pixel_size_angstrom=movie.pixel_size_angstrom * 0.5 * (height_factor + width_factor),
        )


def coarser_shape(shape: Shape, factor: float) -> Shape:
    """Pixels of a grid `factor` times as coarse: each axis even, at least 2; the shape itself for a
    factor of 1 or less.
    """
    if factor <= 1:
        return shape
    height, width = shape
    return _coarser_side(height, factor), _coarser_side(width, factor)


def _coarser_side(pixels: int, factor: float) -> int:
    even = 2 * round(pixels / factor / 2)
    return min(pixels, max(2, even))
