"""Overlapping patches of frames, and the Fourier terms kept of each.

The windows' squares add up to one. A Fourier transform by such windows keeps scalar products (a
tight frame), so the patches' likelihoods add up to that of the field, though they overlap.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.alignment.terms import HalfDisc
from dstnet.core.shapes import Image, Shape
from dstnet.motion.local_field import TERM_POWER

# Of the distance between patches: the part of each window that it shares with the next one
_OVERLAP = 0.25
# Between patches' centres; below, a patch holds too few periods of what a frame shows.
_MIN_STEP_ANGSTROM = 180.0
_LEAST_PATCHES = 3  # a side: a quadratic needs three places
_LEAST_FRAMES = 3
_LEAST_TERMS = 64
_MEMORY_BYTES = 400e6  # of all patches' terms
_TERM_BYTES = 8
# Fourier terms a side of the squares that the halves are made of; neighbouring terms are not
# independent
_BLOCK = 4

# One over the rms over [-1, 1]^2 of x, y, x^2 - 1/3, y^2 - 1/3, x y and 1
TERM_SCALE = torch.tensor([*TERM_POWER, 1], dtype=torch.float64).rsqrt()


@dataclass(frozen=True)
class Patches:
    """Windows on a binned frame and the Fourier terms kept of each: a half disc without its axes.

    Attributes
    ----------
    count
        Patches a side, (y, x).
    corners
        First row and column of each window, in binned pixels.
    window
        Weights of one window, [y, x].
    rows, columns
        Where the kept terms lie in a window's ``rfft2``.
    k
        [term, 2] in 1/Angstrom, (y, x).
    ring
        Ring of each term by its |k|.
    half
        0 or 1: in which half of the terms each one is.
    basis
        [patch, 6]: the polynomial terms' means over the windows, the constant last, each of rms 1
        over the field.
    """

    count: tuple[int, int]
    corners: tuple[tuple[int, int], ...]
    window: Image
    rows: Tensor
    columns: Tensor
    k: Tensor
    ring: Tensor
    half: Tensor
    basis: Tensor

    @classmethod
    def of(
        cls,
        shape: Shape,
        pixel_angstrom: float,
        frames: int,
        most: int,
        highest: float,
        lowest: float,
        device: torch.device,
    ) -> "Patches | None":
        """Patches on binned frames; None where those are too few or too small.

        Parameters
        ----------
        shape
            (y, x) of the binned frames.
        pixel_angstrom
            Their sampling.
        frames
            How many there are.
        most
            Most patches a side.
        highest, lowest
            Frequencies of the terms kept, in 1/Angstrom; fewer where memory is short.
        """
        if frames < _LEAST_FRAMES:
            return None
        along_y = _Side.of(shape[0], pixel_angstrom, most)
        along_x = _Side.of(shape[1], pixel_angstrom, most)
        if along_y is None or along_x is None:
            return None
        periods = (along_y.window * pixel_angstrom, along_x.window * pixel_angstrom)
        spectra = frames * along_y.patches * along_x.patches
        # A half disc of radius k holds pi k^2 / 2 terms per 1/Angstrom^2.
        room = _MEMORY_BYTES / (_TERM_BYTES * spectra)
        affordable = math.sqrt(2 * room / (math.pi * periods[0] * periods[1]))
        highest = min(highest, affordable)
        terms = HalfDisc.between(lowest, highest, periods, device)
        if len(terms) < _LEAST_TERMS:
            return None
        window_y = along_y.weights(device)
        window_x = along_x.weights(device)
        block_y = torch.div(terms.y, _BLOCK, rounding_mode="floor")
        block_x = torch.div(terms.x, _BLOCK, rounding_mode="floor")
        return cls(
            count=(along_y.patches, along_x.patches),
            corners=tuple(itertools.product(along_y.corners, along_x.corners)),
            window=window_y[:, None] * window_x[None, :],
            rows=terms.y % along_y.window,
            columns=terms.x,
            k=terms.k(),
            ring=terms.ring(),
            half=(block_y + block_x) % 2,
            basis=_basis_means(along_y, along_x, window_y, window_x).to(device),
        )

    def empty_spectra(self, frames: int) -> Tensor:
        """Room for the kept terms, [frame, patch, term]."""
        shape = (frames, len(self.corners), len(self.k))
        return torch.empty(shape, dtype=torch.complex64, device=self.k.device)

    def coefficients(self, binned: Image) -> Tensor:
        """The kept terms of every patch of a binned frame, [patch, term]: linear in the frame."""
        height, width = self.window.shape
        patches = []
        for top, left in self.corners:
            rows = binned[top : top + height]
            patches.append(rows[:, left : left + width])
        cut = torch.stack(patches)
        mean = cut.mean((1, 2), keepdim=True)
        windowed = (cut - mean) * self.window
        # The columns beyond need not be transformed along y.
        kept = int(self.columns.max()) + 1
        along_x = torch.fft.rfft(windowed)[..., :kept]
        along_both = torch.fft.fft(along_x, dim=1)
        return along_both[:, self.rows, self.columns]


@dataclass(frozen=True)
class _Side:
    """The patches along one side of a frame.

    Attributes
    ----------
    length
        Of the frame, in pixels.
    window
        Of a window.
    corners
        First pixel of each window.
    """

    length: int
    window: int
    corners: tuple[int, ...]

    @classmethod
    def of(cls, length: int, pixel_angstrom: float, most: int) -> "_Side | None":
        """Up to `most` patches; None where there is no room for enough."""
        room = length * pixel_angstrom / _MIN_STEP_ANGSTROM - _OVERLAP
        patches = min(most, int(room))
        if patches < _LEAST_PATCHES:
            return None
        step = length / (patches + _OVERLAP)
        even = 2 * math.ceil(step * (1 + _OVERLAP) / 2)
        window = min(length, even)
        last_corner = length - window
        between = patches - 1
        corners = tuple(round(number * last_corner / between) for number in range(patches))
        return cls(length, window, corners)

    @property
    def patches(self) -> int:
        return len(self.corners)

    def centres(self) -> Tensor:
        """Of the windows, from -1 to 1 over the frame."""
        middle = (self.window - 1) / 2
        last = self.length - 1
        centres = [2 * (corner + middle) / last - 1 for corner in self.corners]
        return torch.tensor(centres, dtype=torch.float64)

    def weights(self, device: torch.device) -> Tensor:
        """Of one window: 1 inside; at both ends the quarter of a sine, as long as neighbours
        overlap, so that the squares of neighbours add up to one.
        """
        step = (self.length - self.window) / (self.patches - 1)
        overlap = max(1, round(self.window - step))
        pixels = torch.arange(overlap, device=device) + 0.5
        edge = torch.sin(0.5 * math.pi * pixels / overlap)
        window = torch.ones(self.window, device=device)
        window[:overlap] *= edge
        end = self.window - overlap
        window[end:] *= edge.flip(0)
        return window

    def spread(self, weights: Tensor) -> float:
        """Mean square distance from a window's centre, weighted as the window weights power, where
        the frame runs from -1 to 1.
        """
        pixels = torch.arange(len(weights), device=weights.device)
        distance = pixels - (len(weights) - 1) / 2
        power = weights.square()
        square = power * distance.square()
        mean_square = float(square.sum() / power.sum())
        unit = 2 / (self.length - 1)
        return mean_square * unit**2


def _basis_means(along_y: _Side, along_x: _Side, window_y: Tensor, window_x: Tensor) -> Tensor:
    """Means of the polynomial terms over each window, [patch, 6]."""
    grid = torch.meshgrid(along_y.centres(), along_x.centres(), indexing="ij")
    y, x = (axis.reshape(-1) for axis in grid)
    terms = (
        x,
        y,
        x * x + along_x.spread(window_x) - 1 / 3,
        y * y + along_y.spread(window_y) - 1 / 3,
        x * y,
        torch.ones_like(x),
    )
    return torch.stack(terms, 1) * TERM_SCALE
