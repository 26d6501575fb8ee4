"""The one FFT convention: unshifted ``rfft2`` over the last two axes, frequencies in cycles per
unit of the given spacing.

Sampling of a cropped or padded image keeps intensity (its mean), and keeps the position of pixel
[0, 0]. Where no device is given, it is torch's own: the CPU.
"""

import math

import scipy.fft
import torch
from torch import Tensor

from dstnet.core.devices import Device
from dstnet.core.shapes import Image, Shape

NYQUIST = 0.5  # cycles per pixel
_LINES = 512


def frequencies(
    shape: Shape,
    spacing: float = 1.0,
    device: Device | None = None,
) -> tuple[Tensor, Tensor]:
    """Frequency axes (ky as a column, kx as a row) of ``rfft2`` of an image of `shape`, in cycles
    per unit of `spacing`.
    """
    rows, columns = shape
    ky = torch.fft.fftfreq(rows, d=spacing, device=device)
    kx = torch.fft.rfftfreq(columns, d=spacing, device=device)
    return ky[:, None], kx[None, :]


def radial_frequency(
    shape: Shape,
    spacing: float = 1.0,
    device: Device | None = None,
) -> Tensor:
    """|k| on the ``rfft2`` grid of an image of `shape`, in cycles per unit of `spacing`."""
    ky, kx = frequencies(shape, spacing, device)
    return torch.hypot(ky, kx)


def shift_phase(
    shape: Shape,
    shift: tuple[float, float],
    device: Device | None = None,
) -> Tensor:
    """The factor that moves an image's content by `shift` = (dy, dx) pixels when multiplied onto
    its ``rfft2``.
    """
    of_rows, of_columns = shift_factors(shape, shift, device)
    return of_rows * of_columns


def shift_factors(
    shape: Shape,
    shift: tuple[float, float],
    device: Device | None = None,
) -> tuple[Tensor, Tensor]:
    """`shift_phase` as a column and a row whose product it is: to multiply by one after the other
    takes half the time.
    """
    ky, kx = frequencies(shape, 1.0, device)
    dy, dx = shift
    turns_y = ky * dy
    turns_x = kx * dx
    one = torch.ones(1, device=device)
    of_rows = torch.polar(one, -2 * math.pi * turns_y)
    of_columns = torch.polar(one, -2 * math.pi * turns_x)
    return of_rows, of_columns


def scale_(spectrum: Tensor, factor: Tensor) -> Tensor:
    """Multiply a complex spectrum by a real or complex factor on its grid, in place."""
    if factor.is_complex():
        return spectrum.mul_(factor)
    # Complex times real would be worked out as complex times complex.
    torch.view_as_real(spectrum).mul_(factor[..., None])
    return spectrum


def irfft2(spectrum: Tensor, shape: Shape) -> Tensor:
    """``irfft2`` to images of `shape`, which the spectrum's own grid must be that of.

    On a CPU by SciPy: torch's works column by column through memory and takes 1.6 to 1.9 times as
    long (4096 x 4096, 4092 x 5760).
    """
    if spectrum.device.type != "cpu":
        return torch.fft.irfft2(spectrum, s=shape)
    threads = torch.get_num_threads()
    images = scipy.fft.irfft2(spectrum.numpy(), shape, workers=threads)
    return torch.from_numpy(images)


def apply_transfer(image: Tensor, transfer: Tensor) -> Tensor:
    """An image with its ``rfft2`` multiplied by a real or complex `transfer` on its grid."""
    shape = (image.shape[-2], image.shape[-1])
    spectrum = torch.fft.rfft2(image)
    scale_(spectrum, transfer)
    return irfft2(spectrum, shape)


def crop_spectrum(
    spectrum: Tensor,
    shape: Shape,
    new_shape: Shape,
) -> Tensor:
    """Resample the ``rfft2`` of images of `shape` to that of images of `new_shape`, cropping or
    zero-padding each axis.

    Intensities are kept: the mean of the resampled image equals the mean of the original. Nyquist
    terms of even axes that the new grid cannot represent without ambiguity are dropped.
    """
    height, width = shape
    new_height, new_width = new_shape
    # Frequencies 0 .. positive - 1; the lone Nyquist row of an even axis is left out.
    rows = min(height, new_height)
    positive = (rows + 1) // 2
    negative = positive - 1
    columns = min(width, new_width)
    left = slice((columns + 1) // 2)
    stack = spectrum.shape[:-2]
    out = spectrum.new_zeros((*stack, new_height, new_width // 2 + 1))
    top = slice(positive)
    out[..., top, left] = spectrum[..., top, left]
    if negative:
        bottom = slice(-negative, None)
        out[..., bottom, left] = spectrum[..., bottom, left]
    area_factor = new_height * new_width / (height * width)
    return out * area_factor


def resample(images: Tensor, new_shape: Shape) -> Tensor:
    """Fourier-resample images (last two axes) to `new_shape`, keeping the mean. Returns the input
    itself where the shape is the same.
    """
    shape = (images.shape[-2], images.shape[-1])
    if shape == tuple(new_shape):
        return images
    spectrum = crop_spectrum(torch.fft.rfft2(images), shape, new_shape)
    return irfft2(spectrum, new_shape)


def mirrored(image: Image, margin: int) -> Image:
    """An image [y, x] with at least `margin` rows and columns after its last ones, as fast
    transforms like them: its mirror image at that edge, then that at the opposite one, so that it
    goes on periodically without a step.
    """
    for axis in (0, 1):
        length = image.shape[axis]
        number = torch.arange(next_fast_size(length + 2 * margin), device=image.device)
        beyond = number - length
        at_end = length - 1 - beyond % length
        at_start = (len(number) - 1 - number) % length
        mirror = torch.where(2 * beyond < len(number) - length, at_end, at_start)
        number = torch.where(beyond < 0, number, mirror)
        image = image.index_select(axis, number)
    return image


def resample_mirrored(image: Image, new_shape: Shape) -> Image:
    """`resample` of an image [y, x] that goes on as its mirror image beyond its edges, so that
    nothing passes from one edge to the opposite one. Returns the input itself where the shape is
    the same.
    """
    for axis, length in enumerate(new_shape):
        if image.shape[axis] != length:
            image = _resampled_along(image, axis, length)
    return image


def _resampled_along(image: Image, axis: int, new_length: int) -> Image:
    length = image.shape[axis]
    kept = min(length, new_length)
    shape = list(image.shape)
    shape[axis] = new_length
    out = image.new_empty(shape)
    # Some lines at a time: all of them, twice as long and complex, would be six times the image.
    lines = zip(image.split(_LINES, 1 - axis), out.split(_LINES, 1 - axis), strict=True)
    for some, resampled in lines:
        spectrum = torch.fft.rfft(torch.cat((some, some.flip(axis)), axis), dim=axis)
        spectrum = spectrum.narrow(axis, 0, kept)
        whole = torch.fft.irfft(spectrum, 2 * new_length, dim=axis)
        resampled.copy_(whole.narrow(axis, 0, new_length))
    return out.mul_(new_length / length)


def cosine_transform(image: Image) -> Tensor:
    """The spectrum of an image [y, x] that goes on as its mirror image beyond its edges: real, [y,
    x], its frequencies those of `cosine_frequency`. White noise has the same variance in it, each
    term its own.
    """
    if image.device.type == "cpu":
        threads = torch.get_num_threads()
        return torch.from_numpy(scipy.fft.dctn(image.numpy(), norm="ortho", workers=threads))
    return _cosine_along_columns(_cosine_along_columns(image).T).T


def inverse_cosine_transform(spectrum: Tensor) -> Image:
    """The image of which `cosine_transform` gives `spectrum`."""
    if spectrum.device.type == "cpu":
        threads = torch.get_num_threads()
        return torch.from_numpy(scipy.fft.idctn(spectrum.numpy(), norm="ortho", workers=threads))
    return _image_along_columns(_image_along_columns(spectrum).T).T


def cosine_frequency(
    shape: Shape,
    spacing: float = 1.0,
    device: Device | None = None,
) -> Tensor:
    """|k| on the grid of the `cosine_transform` of an image of `shape`, in cycles per unit of
    `spacing`.
    """
    ky, kx = (torch.arange(n, device=device) / (2 * n * spacing) for n in shape)
    return torch.hypot(ky[:, None], kx)


def _cosine_along_columns(image: Tensor) -> Tensor:
    """The transform along the first axis by a complex one of the same length (Makhoul, IEEE Trans.
    Acoust. Speech Signal Process. 28, 27 (1980)).
    """
    reordered = torch.cat((image[::2], image[1::2].flip(0)))
    turned = torch.fft.fft(reordered, dim=0) * _quarter_turns(len(image), image.device)
    return turned.real


def _image_along_columns(spectrum: Tensor) -> Tensor:
    """What `_cosine_along_columns` gives `spectrum` of."""
    n = len(spectrum)
    from_end = torch.cat((torch.zeros_like(spectrum[:1]), spectrum[1:].flip(0)))
    turned = torch.complex(spectrum, -from_end)
    scale = _quarter_turns(n, spectrum.device)
    reordered = torch.fft.ifft(turned / scale, dim=0).real
    half = (n + 1) // 2
    image = torch.empty_like(spectrum)
    image[::2] = reordered[:half]
    image[1::2] = reordered[half:].flip(0)
    return image


def _quarter_turns(n: int, device: Device) -> Tensor:
    """What makes an orthonormal cosine transform of the reordered complex one, [n, 1]."""
    number = torch.arange(n, device=device)
    length = torch.full((n,), math.sqrt(2 / n), device=device)
    length[0] = math.sqrt(1 / n)
    return torch.polar(length, -math.pi / (2 * n) * number)[:, None]


def next_fast_size(n: int) -> int:
    """The smallest even size >= n whose prime factors are 2, 3, 5 and 7 (fast in every FFT
    library).
    """
    n = max(2, n + n % 2)
    while _without_small_primes(n) != 1:
        n += 2
    return n


def _without_small_primes(n: int) -> int:
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n


def ring_index(
    shape: Shape,
    rings: int,
    device: Device | None = None,
) -> Tensor:
    """Ring of each ``rfft2`` term of an image of `shape`, [y, x], of `rings` equally wide ones from
    0 to Nyquist (0.5 cycles/pixel); the corners' numbers go on.
    """
    k = radial_frequency(shape, device=device)
    return (k / NYQUIST * rings).long()


def conjugate_counts(width: int, device: Device | None = None) -> Tensor:
    """How many terms of the complete Fourier plane each column of the ``rfft2`` of an image of
    `width` columns stands for, [x]: two, but one in the first and, where `width` is even, the last.
    """
    columns = width // 2 + 1
    counts = torch.full((columns,), 2.0, device=device)
    counts[0] = 1.0
    if width % 2 == 0:
        counts[-1] = 1.0
    return counts


def ring_sum(
    values: Tensor,
    ring: Tensor,
    rings: int | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Sums of a real quantity over the Fourier terms of each ring, or of any numbered cells.

    Parameters
    ----------
    values
        [..., *terms], one value a term.
    ring
        [*terms], from 0: number of each term's ring. Terms numbered `rings` or more are left out.
    rings
        How many there are; by default one more than the largest number.
    dtype
        What is added up in; by default that of `values`.

    Returns
    -------
    Tensor
        [..., ring].
    """
    stack = values.shape[: values.dim() - ring.dim()]
    number = ring.flatten()
    if rings is None:
        rings = int(number.max()) + 1
    else:
        number = number.clamp(max=rings)  # one more ring takes what is left out
    terms = values.reshape(*stack, len(number))
    if dtype is not None:
        terms = terms.to(dtype)
    sums = terms.new_zeros(*stack, rings + 1)
    sums = sums.index_add_(-1, number, terms)
    return sums[..., :rings]


def ring_count(ring: Tensor, rings: int | None = None) -> Tensor:
    """How many terms each ring has, [ring], as integers; parameters are those of `ring_sum`."""
    number = ring.flatten()
    if rings is None:
        return torch.bincount(number)
    counts = torch.bincount(number.clamp(max=rings), minlength=rings + 1)
    return counts[:rings]


def ring_mean(
    values: Tensor,
    ring: Tensor,
    rings: int | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Means over the terms of each ring, [..., ring], 0 where a ring has none; parameters are those
    of `ring_sum`.
    """
    total = ring_sum(values, ring, rings, dtype=dtype)
    terms = ring_count(ring, rings)
    return total / terms.clamp(min=1)


def radial_mean(values: Tensor, shape: Shape, rings: int) -> Tensor:
    """Mean of a real quantity over `rings` equally wide rings from 0 to Nyquist (0.5 cycles/pixel),
    every term of the complete Fourier plane counting alike.

    Parameters
    ----------
    values
        [..., y, x] on the ``rfft2`` grid of an image of `shape`.
    shape
        (y, x) of the image.
    rings
        How many rings.

    Returns
    -------
    Tensor
        [..., ring], float32; rings without a term are 0.
    """
    ring = ring_index(shape, rings, values.device)
    counts = conjugate_counts(shape[1], values.device).double()
    total = ring_sum(values * counts, ring, rings)
    terms = ring_sum(counts.expand(ring.shape), ring, rings)
    return (total / terms.clamp(min=1)).float()
