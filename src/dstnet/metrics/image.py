"""Errors of an enhanced image against a truth."""

import torch
from torch import Tensor

from dstnet.core.fourier import apply_transfer, shift_phase
from dstnet.core.shapes import Image


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson correlation of two images; 0 where one of them is constant."""
    a, b = (a - a.mean()).double(), (b - b.mean()).double()
    power = float(a.square().sum() * b.square().sum())
    return float((a * b).sum()) / power**0.5 if power > 0 else 0.0


def residual_energy(image: Image, truth: Image) -> float:
    """1 - r^2: the part of the truth's energy that no scaling of `image` explains. 0 is perfect, 1
    is nothing.
    """
    return 1 - correlation(image, truth) ** 2


def best_shift(image: Image, truth: Image, span: int = 24) -> tuple[float, float]:
    """Shift (dy, dx) in pixels, at most `span`, that moves `truth` onto `image`: the correlation's
    peak, refined by parabolas.
    """
    cross = torch.fft.irfft2(
        torch.fft.rfft2(image - image.mean()) * torch.fft.rfft2(truth - truth.mean()).conj(),
        s=image.shape,
    )
    window = torch.roll(cross, (span, span), (0, 1))[: 2 * span + 1, : 2 * span + 1]
    row, column = divmod(int(window.argmax()), window.shape[1])

    def refine(low: Tensor, middle: Tensor, high: Tensor) -> float:
        bend = float(low - 2 * middle + high)
        return 0.5 * float(low - high) / bend if bend else 0.0

    dy = refine(*window[row - 1 : row + 2, column]) if 0 < row < 2 * span else 0.0
    dx = refine(*window[row, column - 1 : column + 2]) if 0 < column < 2 * span else 0.0
    return row - span + dy, column - span + dx


def residual_after_best_shift(image: Image, truth: Image, border: int = 48) -> float:
    """Residual energy once the truth is moved to the image, `border` pixels left out at each side.

    Where an image is put by its alignment is a convention (first frame, mean position), no error.
    """
    shape = (truth.shape[0], truth.shape[1])
    moved = apply_transfer(truth, shift_phase(shape, best_shift(image, truth)))
    inside = (slice(border, -border), slice(border, -border))
    return residual_energy(image[inside], moved[inside])
