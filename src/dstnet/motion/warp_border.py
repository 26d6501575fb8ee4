"""The borders of a field that does not continue periodically, where `warp_prefilter` comes after
the warp.

In Fourier space the prefilter takes what lies beyond a border from the opposite one, where the
motion is another: noise between pixels is damped by the kernel as its own motion says, so that the
two do not fit, and the prefilter, 53 at the highest frequency, makes spikes of the step. So the
warp is carried on for some pixels beyond each border, and what these say is worked into the pixels
within.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from dstnet.core.shapes import Image, Shape
from dstnet.motion.warp import kernel_at_pixels

# In pixels: the prefilter falls to two thirds from one to the next, there to 3e-4.
MARGIN = 20


def on_wider_field(coefficients_px: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """The same motion, as `warp_local` takes it, for a result with `MARGIN` more pixels on each
    side.

    Parameters
    ----------
    coefficients_px
        [2, 5], of a result of `shape`.
    shape
        (y, x), at least 2.

    Returns
    -------
    tuple
        [2, 5] coefficients, and [2] what is added to the shift, (y, x) in pixels.
    """
    wider_y, wider_x = ((n - 1 + 2 * MARGIN) / (n - 1) for n in shape)
    terms = (wider_x, wider_y, wider_x**2, wider_y**2, wider_x * wider_y)
    wider = coefficients_px * coefficients_px.new_tensor(terms)
    # The squares' terms have no mean over the field; over the wider one they would have.
    of_squares = (wider[:, 2:4] - coefficients_px[:, 2:4]).sum(1) / 3
    return wider, of_squares


def joined_to_opposite(image: Image) -> Image:
    """A warped image changed near its borders, so that `warp_prefilter`, which goes round them,
    gives what it would give from the margin beyond.

    The margin says what the prefilter has to give; the kernel, which is short, says of what it
    gives that.

    Parameters
    ----------
    image
        [y, x], `MARGIN` pixels wider than the result on each side; it is overwritten.

    Returns
    -------
    Tensor
        The image without the margin, a view.
    """
    reach = MARGIN + len(kernel_at_pixels()) - 1
    change = torch.from_numpy(_change_across()).to(image.device)
    for axis in (0, 1):
        lines = image.transpose(0, axis)
        within = lines[MARGIN:-MARGIN]
        before_first = lines[:MARGIN] - within[-MARGIN:]
        after_last = lines[-MARGIN:] - within[:MARGIN]
        changes = change @ torch.cat((before_first, after_last))
        within[-reach:] += changes[:reach]
        within[:reach] += changes[reach:]
        image = within.transpose(0, axis)
    return image


@cache
def _change_across() -> np.ndarray:
    """From what the lines before the first and those after the last are more than the opposite
    ones, to the change of the last lines and of the first: [2 reach, 2 MARGIN].
    """
    kernel = kernel_at_pixels()
    half = len(kernel) - 1
    size = 16 * MARGIN
    turns = 2 * np.pi * np.fft.rfftfreq(size)
    transform = kernel[0] + sum(2 * kernel[n] * np.cos(n * turns) for n in range(1, half + 1))
    prefilter = np.fft.irfft(1 / transform, size)
    # Going round, lines before the border have numbers below 0. What lies beyond it, on either
    # side, stands in for those that go on there, and counts on its own side alone.
    line = np.arange(-MARGIN, MARGIN)[:, None]
    other = line.T
    is_own_side = (line < 0) != (other < 0)
    filtered = prefilter[np.abs(line - other)] * is_own_side
    change = np.zeros((2 * (MARGIN + half), 2 * MARGIN))
    for tap in range(-half, half + 1):
        change[half + tap : half + tap + 2 * MARGIN] += kernel[abs(tap)] * filtered
    return change.astype(np.float32)
