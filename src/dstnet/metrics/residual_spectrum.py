"""Whether what a method takes out is noise, and nothing but noise."""

import math

import torch

from dstnet.core.fourier import radial_mean
from dstnet.core.shapes import Image
from dstnet.metrics.image import correlation
from dstnet.metrics.rings import tapered

RINGS = 32  # the first, where illumination lies, is left out
_NOTHING = 1e-6  # of the sum's variance


def taken_out(total: Image, image: Image) -> Image | None:
    """The sum less the image, [y, x], the image brought to the scale at which least is left over;
    None where nothing is taken out, as of the sum itself.
    """
    centred = (image - image.mean()).double()
    left = (total - total.mean()).double()
    variance = float(left.var())
    power = float(centred.square().sum())
    if power > 0:
        left = left - centred * float((centred * left).sum()) / power
    return left.to(total.dtype) if float(left.var()) > _NOTHING * variance else None


def unevenness(residual: Image) -> float:
    """Deviation over mean of the power of a residual over rings equally wide, up to Nyquist: 0 for
    white noise, within about sqrt(3.8 / terms of a ring).
    """
    shape = (residual.shape[0], residual.shape[1])
    power = torch.fft.rfft2(tapered(residual)).abs().square()
    of_rings = radial_mean(power, shape, RINGS)[1:]
    mean = float(of_rings.mean())
    return float(of_rings.std(correction=0)) / mean if mean > 0 else math.nan


def particles_left(residual: Image, covered: torch.Tensor) -> float:
    """Size of the correlation of a residual with where particles are: 0 where none shows in it,
    within 1 / sqrt(the particles' area in independent pixels).

    Parameters
    ----------
    residual
        [y, x].
    covered
        [y, x], boolean: whether a particle covers the pixel.
    """
    return abs(correlation(residual, covered.to(residual.dtype)))
