"""The low frequencies kept of each frame."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.alignment.settings import AlignmentSettings
from dstnet.alignment.terms import HalfDisc, reach
from dstnet.core.devices import Device
from dstnet.core.fourier import next_fast_size
from dstnet.core.shapes import Image, Shape
from dstnet.errors import BadInputError
from dstnet.movie import Movie

_TAPER = 1 / 16  # part of each side of the frame
_HIGHEST = 0.45  # cycles per pixel
_LEAST_PERIODS = 8
_LEAST_TERMS = 16
# Detail finer than that lowers the error of local motion by 4 % and doubles the work.
_FINEST_ANGSTROM = 8.0


def finest_frequency(pixel_angstrom: float, resolution_angstrom: float) -> float:
    """Highest frequency in 1/Angstrom that patches of a movie are worth looking at, memory
    permitting.
    """
    return min(1 / max(resolution_angstrom, _FINEST_ANGSTROM), _HIGHEST / pixel_angstrom)


@dataclass(frozen=True)
class Band:
    """The Fourier terms kept of each frame: a half disc without its axes.

    Attributes
    ----------
    binning
        Pixels a side that are averaged first.
    shape
        (y, x) of the binned frame.
    rows, columns
        Where the kept terms lie in its ``rfft2``.
    k
        [term, 2] in 1/Angstrom, (y, x).
    ring
        Ring of each term by its |k|.
    field
        Sides of the frame in Angstrom, (y, x).
    grid
        (y, x) of the map of correlations.
    step
        Its spacing in Angstrom.
    taper
        What binned frames are multiplied with, [y, x].
    """

    binning: int
    shape: Shape
    rows: Tensor
    columns: Tensor
    k: Tensor
    ring: Tensor
    field: tuple[float, float]
    grid: Shape
    step: float
    taper: Image

    @classmethod
    def of(cls, movie: Movie, settings: AlignmentSettings, device: Device) -> "Band":
        """The band of a movie.

        Raises
        ------
        BadInputError
            If its frames are too small to align.
        """
        pixel = movie.pixel_size_angstrom
        highest = _highest_frequency(movie, settings)
        binning = _binning(pixel, highest, settings)
        height = movie.shape[0] // binning
        width = movie.shape[1] // binning
        field = (height * binning * pixel, width * binning * pixel)
        lowest = 1 / settings.lowest_resolution_angstrom
        terms = HalfDisc.between(lowest, highest, field, device)
        if len(terms) < _LEAST_TERMS:
            raise BadInputError(
                f"{movie.name}: frames of {movie.shape} pixels at {pixel} Å hold {len(terms)}"
                " usable frequencies, too few to align; give a larger field, or raise alignment:"
                " lowest_resolution_angstrom in the settings"
            )
        most_y, most_x = reach(highest, field)
        grid = (next_fast_size(2 * most_y + 2), next_fast_size(2 * most_x + 2))
        step_y = field[0] / grid[0]
        step_x = field[1] / grid[1]
        taper_y = _edge(height, device)
        taper_x = _edge(width, device)
        return cls(
            binning=binning,
            shape=(height, width),
            rows=terms.y % height,
            columns=terms.x,
            k=terms.k(),
            ring=terms.ring(),
            field=field,
            grid=grid,
            step=max(step_y, step_x),
            taper=taper_y[:, None] * taper_x[None, :],
        )

    def binned(self, image: Image) -> Image:
        """A full-size image on the grid of `shape`."""
        size = self.binning
        if size == 1:
            return image
        height, width = self.shape
        bottom = height * size
        right = width * size
        # Added one after the other; rows first, which takes a fifth of the time of a pooling.
        rows = image[:bottom:size]
        for start in range(1, size):
            rows = rows + image[start:bottom:size]
        total = rows[:, :right:size]
        for start in range(1, size):
            total = total + rows[:, start:right:size]
        return total / size**2

    def coefficients(self, binned: Image) -> Tensor:
        """The kept terms of a binned image, its mean taken out and its edges tapered: linear in the
        image.
        """
        tapered = (binned - binned.mean()) * self.taper
        spectrum = torch.fft.rfft2(tapered)
        return spectrum[self.rows, self.columns]

    def phases(self, shift: Tensor) -> Tensor:
        """exp(2 pi i k.u): what takes content displaced by u = `shift`, (y, x) in Angstrom, back to
        the reference.
        """
        return phases(self.k, shift)


def phases(k: Tensor, shift: Tensor) -> Tensor:
    """exp(2 pi i k.u): what takes content displaced by u = `shift` back to the reference.

    Parameters
    ----------
    k
        [term, 2] in 1/Angstrom, (y, x).
    shift
        [2] or [patch, 2] in Angstrom, (y, x).

    Returns
    -------
    Tensor
        [term] or [patch, term].
    """
    angle = 2 * math.pi * (shift @ k.T)
    one = torch.ones((), device=angle.device)
    return torch.polar(one, angle)


def _highest_frequency(movie: Movie, settings: AlignmentSettings) -> float:
    """Highest frequency kept, in 1/Angstrom."""
    pixel = movie.pixel_size_angstrom
    height, width = (size * pixel for size in movie.shape)
    # A field of few pixels would hold next to nothing below the resolution asked for: it gets at
    # least 8 periods a side.
    least = _LEAST_PERIODS / min(height, width)
    requested = max(1 / settings.resolution_angstrom, least)
    # A half disc of radius k holds pi k^2 / 2 terms per 1/Angstrom^2.
    squared = 2 * settings.max_coefficients / (math.pi * height * width)
    affordable = math.sqrt(squared)
    return min(requested, _HIGHEST / pixel, affordable)


def _binning(pixel_angstrom: float, highest: float, settings: AlignmentSettings) -> int:
    """Pixels a side that are averaged before anything else."""
    finest = highest
    if settings.patches:
        finest = max(finest, finest_frequency(pixel_angstrom, settings.resolution_angstrom))
    # The binned Nyquist frequency is at least 1.75 times the highest one kept, where averaging
    # costs an eighth of the amplitude.
    return max(1, int(1 / (3.5 * finest * pixel_angstrom)))


def _edge(n: int, device: Device) -> Tensor:
    """1 inside, falling as a raised cosine to 0 over the outer part of each side."""
    distance = (torch.arange(n, device=device) + 0.5) / n
    from_edge = torch.minimum(distance, 1 - distance)
    part = (from_edge / _TAPER).clamp(max=1)
    return 0.5 - 0.5 * torch.cos(math.pi * part)
