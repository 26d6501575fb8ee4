"""Frames read once each, for the Fourier terms kept of them, without what sticks to the detector.

What stays on the detector would pull every shift to zero. So pixels further from the frame's mean
than 10 standard deviations are clipped; and pixels whose mean over the movie sticks out of their
neighbourhood (hot, dead, columns) have their excess subtracted, which is linear and so can be done
after the frames have been read. What a gain reference leaves behind, a few per cent from pixel to
pixel, is then too weak to matter.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dstnet.alignment.band import Band
from dstnet.alignment.patches import Patches
from dstnet.core.devices import Device
from dstnet.core.progress import progress
from dstnet.core.shapes import Image
from dstnet.errors import BadInputError
from dstnet.movie import Movie

_CLIP_SIGMAS = 10.0
_OUTLIER_SIGMAS = 7.0  # of a mean over frames; noise takes one pixel in 4e11 by mistake
_SAMPLE_PIXELS = 1 << 20
_BLOCK = 8  # pixels a side of a neighbourhood


# Of pixels: powers of Fourier terms go with the square of both, times the number of pixels.
_GREATEST, _LEAST = 1e12, 1e-12


def checked_frame(movie: Movie, index: int, device: Device = "cpu") -> Image:
    """Frame `index` (from 0) as a new float32 tensor on `device`.

    Raises
    ------
    BadInputError
        If the frame is constant, holds NaN, infinity or numbers whose squares single precision
        cannot hold, or cannot be read.
    """
    frame = movie.frame(index)
    low, high = torch.aminmax(frame)
    if not -_GREATEST <= low <= high <= _GREATEST or 0 < high - low < _LEAST:
        raise BadInputError(
            f"frame {index + 1} of {movie.name} has values from {low:g} to {high:g}, which no"
            f" camera gives; scale them to differ by {_LEAST:g} to {_GREATEST:g}, as counts do"
        )
    if low == high:
        raise BadInputError(
            f"frame {index + 1} of {movie.name} is constant (all {low:g}); leave out that frame or"
            " repair the movie"
        )
    return frame.to(device)


def read_terms(movie: Movie, band: Band, patches: Patches | None) -> tuple[Tensor, Tensor | None]:
    """Kept terms of every frame, [frame, term], and of its patches, [frame, patch, term].

    Raises
    ------
    BadInputError
        As `checked_frame`.
    """
    n = len(movie)
    device = band.k.device
    spectra = torch.empty(n, len(band.k), dtype=torch.complex64, device=device)
    of_patches = None if patches is None else patches.empty_spectra(n)
    total = torch.zeros(movie.shape, device=device)
    variance = torch.zeros((), device=device)
    for i in range(n):
        frame = checked_frame(movie, i, device)
        deviation = _clip_(frame)
        binned = band.binned(frame)
        spectra[i] = band.coefficients(binned)
        if patches is not None and of_patches is not None:
            of_patches[i] = patches.coefficients(binned)
        total += frame
        variance += deviation.square()
        progress("looking for motion, frame", i + 1, n)
    # Of frames with independent noise, the mean deviates by sqrt(sum of variances) / n.
    limit = _OUTLIER_SIGMAS * variance.sqrt() / n
    outliers = _outliers(total / n, limit)
    binned = band.binned(outliers)
    spectra -= band.coefficients(binned)
    if patches is not None and of_patches is not None:
        of_patches -= patches.coefficients(binned)
    return spectra, of_patches


def _clip_(frame: Image) -> Tensor:
    """Cut what is further from the mean than `_CLIP_SIGMAS` standard deviations, in place; returns
    the standard deviation.

    Both are those of every few rows, a million pixels in all, which give them to a part in a
    thousand.
    """
    every = max(1, frame.numel() // _SAMPLE_PIXELS)
    rows = frame[::every]
    mean = rows.mean()
    rows = rows - mean
    deviation = limit = torch.zeros(())
    # Three times, so that one cosmic ray does not lift the limit, and with it all hot pixels, in
    # its frame alone
    for _ in range(3):
        deviation = torch.linalg.vector_norm(rows) / math.sqrt(rows.numel())
        limit = _CLIP_SIGMAS * deviation
        low, high = torch.aminmax(rows)
        if max(-low, high) <= limit:
            break
        rows.clamp_(-limit, limit)
    low, high = torch.aminmax(frame)
    furthest = max(mean - low, high - mean)
    if furthest > limit:
        frame.clamp_(mean - limit, mean + limit)
    return deviation


def _outliers(mean: Image, limit: Tensor) -> Image:
    """What of the movie's mean frame is further than `limit` from the median of its 8 x 8
    neighbourhood; zero at all other pixels.
    """
    height, width = mean.shape
    below = -height % _BLOCK
    beside = -width % _BLOCK
    padded = F.pad(mean[None, None], (0, beside, 0, below), mode="replicate")
    rows = (height + below) // _BLOCK
    columns = (width + beside) // _BLOCK
    blocks = padded.reshape(rows, _BLOCK, columns, _BLOCK)
    blocks = blocks.transpose(1, 2)
    blocks = blocks.reshape(rows, columns, _BLOCK * _BLOCK)
    median = blocks.median(-1, keepdim=True).values
    residual = blocks - median
    is_outlier = residual.abs() > limit
    excess = torch.where(is_outlier, residual, 0.0)
    excess = excess.reshape(rows, columns, _BLOCK, _BLOCK)
    excess = excess.transpose(1, 2)
    excess = excess.reshape(rows * _BLOCK, columns * _BLOCK)
    return excess[:height, :width]
