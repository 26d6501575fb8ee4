"""How near an image comes to a truth.

Whether an enhanced image is right does not hang on its scale, so most of these leave it out.
"""

import math

import torch
from torch import Tensor

from dstnet.core.fourier import (
    NYQUIST,
    apply_transfer,
    cosine_frequency,
    cosine_transform,
    inverse_cosine_transform,
    shift_phase,
)
from dstnet.core.shapes import Image


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson correlation of two images; 0 where one of them is constant."""
    a = (a - a.mean()).double()
    b = (b - b.mean()).double()
    power_of_a = a.square().sum()
    power_of_b = b.square().sum()
    power = float(power_of_a * power_of_b)
    if not power > 0:
        return 0.0
    cross = float((a * b).sum())
    return cross / power**0.5


def residual_energy(image: Image, truth: Image) -> float:
    """1 - r^2, r their correlation: the part of the truth's energy that no scaling of `image`
    explains. 0 is perfect, 1 is nothing.
    """
    return 1 - correlation(image, truth) ** 2


def fitted(image: Image, truth: Image) -> Image:
    """An image brought to the scale and the mean of a truth by least squares: the truth's mean
    everywhere where the two have nothing in common.
    """
    centred = image - image.mean()
    centred_truth = truth - truth.mean()
    power = float(centred.double().square().sum())
    cross = float((centred.double() * centred_truth.double()).sum())
    scale = cross / power if power > 0 else 0.0
    return scale * centred + truth.mean()


def low_passed(image: Image, pixel_size_angstrom: float, finest_angstrom: float) -> Image:
    """An image without what is finer than a resolution; it goes on as its mirror image beyond its
    edges, so that they do not leak.
    """
    shape = (image.shape[0], image.shape[1])
    k = cosine_frequency(shape, pixel_size_angstrom, image.device)
    is_coarser = k < 1 / finest_angstrom
    return inverse_cosine_transform(cosine_transform(image) * is_coarser)


def residual_energy_to(
    image: Image,
    truth: Image,
    pixel_size_angstrom: float,
    finest_angstrom: float,
    border: int = 0,
) -> float:
    """Residual energy of what is coarser than a resolution, `border` pixels left out at each side,
    where what is finer leaks. Not a number where the resolution is finer than Nyquist.
    """
    if pixel_size_angstrom / finest_angstrom > NYQUIST:
        return math.nan
    inside = slice(border, -border or None)
    coarse, coarse_truth = (
        low_passed(whole, pixel_size_angstrom, finest_angstrom)[inside, inside]
        for whole in (image, truth)
    )
    return residual_energy(coarse, coarse_truth)


def peak_signal_to_noise_db(image: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio in decibels, the image brought to the truth's scale and mean by
    least squares: 10 log10(range^2 / mean square error), the range that of the truth's values.

    Infinite for a perfect image; minus infinity where the truth is constant.
    """
    spread = float(truth.max() - truth.min())
    if spread == 0:
        return -math.inf
    variance = float(truth.double().var(correction=0))
    error = variance * residual_energy(image, truth)
    if error <= 0:
        return math.inf
    return 10 * math.log10(spread**2 / error)


def best_shift(image: Image, truth: Image, span: int = 24) -> tuple[float, float]:
    """Shift (dy, dx) in pixels, at most `span`, that moves `truth` onto `image`: the correlation's
    peak, refined by a parabola per axis.
    """
    centred = image - image.mean()
    centred_truth = truth - truth.mean()
    spectrum = torch.fft.rfft2(centred)
    of_truth = torch.fft.rfft2(centred_truth)
    product = spectrum * of_truth.conj()
    cross = torch.fft.irfft2(product, s=image.shape)
    width = 2 * span + 1
    rolled = torch.roll(cross, (span, span), (0, 1))
    window = rolled[:width, :width]
    highest = int(window.argmax())
    row, column = divmod(highest, width)
    dy = row - span + _peak_offset(window[:, column], row)
    dx = column - span + _peak_offset(window[row], column)
    return dy, dx


def _peak_offset(values: Tensor, peak: int) -> float:
    """How far beyond `peak` the top of the parabola through it and its two neighbours lies; 0 at
    the borders.
    """
    if not 0 < peak < len(values) - 1:
        return 0.0
    low, middle, high = values[peak - 1 : peak + 2]
    bend = float(low - 2 * middle + high)
    if bend == 0:
        return 0.0
    slope = float(low - high)
    return 0.5 * slope / bend


def moved_truth(image: Image, truth: Image) -> Image:
    """The truth moved to where `image` has it.

    How well an alignment knows the place of the first frame, where sums are put, is no error.
    """
    shape = (truth.shape[0], truth.shape[1])
    shift = best_shift(image, truth)
    return apply_transfer(truth, shift_phase(shape, shift))


def residual_after_best_shift(image: Image, truth: Image, border: int = 48) -> float:
    """Residual energy once the truth is moved to the image, `border` pixels left out at each
    side.
    """
    moved = moved_truth(image, truth)
    inside = (slice(border, -border), slice(border, -border))
    return residual_energy(image[inside], moved[inside])
