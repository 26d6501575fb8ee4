"""Sums on coarser grids, from their spectra.

A spectrum that is cut off rings wherever the image has a step: also between opposite borders, where
one of them is dark, since in Fourier space they are neighbours. Sums with such a step are resampled
as if they went on as their mirror images, which takes a few times as long.
"""

import math

import torch
from torch import Tensor

from dstnet.core.fourier import conjugate_counts, crop_spectrum, irfft2, resample_mirrored
from dstnet.core.shapes import Image, Shape

# Opposite borders differ where means over so many pixels do by so many deviations of a pixel: six
# times as much as noise alone does.
_PIXELS = 128
_DEVIATIONS = 0.75


def coarser_image(spectrum: Tensor, shape: Shape, new_shape: Shape, *, mirrored: bool) -> Image:
    """The image of a spectrum on a coarser grid.

    Parameters
    ----------
    spectrum
        ``rfft2`` of an image of `shape`.
    shape, new_shape
        (y, x) in pixels.
    mirrored
        Whether it goes on as its mirror image beyond its borders; or else periodically.
    """
    if shape == new_shape:
        return irfft2(spectrum, shape)
    if mirrored:
        return resample_mirrored(irfft2(spectrum, shape), new_shape)
    return irfft2(crop_spectrum(spectrum, shape, new_shape), new_shape)


def has_step_across_borders(spectrum: Tensor, shape: Shape) -> bool:
    """Whether opposite borders of the image of a spectrum differ by more than noise."""
    height, width = shape
    rows = _first_less_last(height).to(spectrum) @ spectrum
    across_rows = torch.fft.irfft(rows, width)
    counts = conjugate_counts(width, spectrum.device)
    columns = spectrum @ (counts * _first_less_last(width)[: len(counts)].to(spectrum))
    across_columns = torch.fft.ifft(columns).real / width
    return any(_has_step(line) for line in (across_rows / height, across_columns))


def _first_less_last(length: int) -> Tensor:
    """What the terms of a spectrum's axis are multiplied by for the first pixel less the last."""
    turns = torch.fft.fftfreq(length, device="cpu")
    one = torch.ones(1, device="cpu")
    return 1 - torch.polar(one, -2 * math.pi * turns)


def _has_step(difference: Tensor) -> bool:
    """Whether parts of a line differ from zero by more than its noise."""
    line = difference.cpu()
    noise = 1.4826 / 2 * float(line.diff().abs().median())
    parts = max(1, len(line) // _PIXELS)
    means = [float(part.mean()) for part in line.tensor_split(parts)]
    return max(map(abs, means)) > _DEVIATIONS * noise
