"""White noise drawn straight in Fourier space."""

import math

import torch
from torch import Tensor

from dstnet.core.shapes import Shape


def fill_white_noise(out: Tensor, shape: Shape, generator: torch.Generator) -> Tensor:
    """Fill `out` with the ``rfft2`` of white noise of unit variance on an image of `shape`, drawn
    straight in Fourier space; gives `out` back.

    Real and imaginary parts are uniform numbers: every pixel is a sum over all Fourier terms, and
    in an AR(1) process over frames as well, so the image is Gaussian by the central limit theorem,
    and only variances matter.

    Parameters
    ----------
    out
        complex64 ``[y, x // 2 + 1]``.
    shape
        (y, x) of the image.
    generator
        On the device of `out`.
    """
    # rfft2 of unit white noise has variance N a term, N / 2 a part; a uniform number from -a to a
    # has a^2 / 3.
    height, width = shape
    bound = math.sqrt(1.5 * height * width)
    parts = torch.view_as_real(out)
    parts.uniform_(-bound, bound, generator=generator)
    lone_columns = [0]
    if width % 2 == 0:
        lone_columns.append(width // 2)
    for column in lone_columns:
        # These stand for themselves and must be conjugate at -ky. The root keeps the variance,
        # doubled by the sum.
        line = out[:, column]
        mirrored = line.flip(0).roll(1).conj()
        out[:, column] = (line + mirrored) / math.sqrt(2)
    return out
