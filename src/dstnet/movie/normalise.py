"""One intensity scale for every camera, unit and exposure: noise of standard deviation one per
working pixel.

Counts, gains and 8-bit scalings differ from file to file, so the noise is measured in the image
itself: near the grid's Nyquist frequency a cryo-EM image holds next to no signal, and shot noise is
flat.
"""

import torch
from torch import Tensor

from dstnet.core.fourier import radial_frequency
from dstnet.core.shapes import Image, Shape
from dstnet.errors import BadInputError

# In cycles per pixel; 5.6 to 4.2 Å at 2 Å/px, short of the ice ring at 3.7 Å
NOISE_BAND = (0.36, 0.48)
# Of the spread of all pixels; a noise below it is rounding.
_LEAST_NOISE = 1e-4


def noise_level(image: Image, name: str = "image", band: Tensor | None = None) -> float:
    """Standard deviation of the white noise whose power density is that of `image` in `NOISE_BAND`.

    Parameters
    ----------
    image
        Any units.
    name
        For messages.
    band
        `noise_band` of the image's shape and device, where it is at hand.

    Raises
    ------
    BadInputError
        If there is no noise at those frequencies: the image is constant, or was filtered or
        up-sampled before.
    """
    height, width = image.shape
    if band is None:
        band = noise_band((height, width), image.device)
    spectrum = torch.fft.rfft2(image - image.mean())
    in_band = spectrum.flatten()[band]
    power = in_band.abs().square().double()
    density = power.mean() / (height * width)
    noise = float(density) ** 0.5
    spread = float(image.std())
    if not spread > 0 or noise < _LEAST_NOISE * spread:
        raise BadInputError(
            f"{name} holds no noise between {NOISE_BAND[0]} and {NOISE_BAND[1]} cycles/pixel"
            " (constant, or low-pass filtered before); give unfiltered frames, or pass the"
            " --pixel-size at which they were taken"
        )
    return noise


def noise_band(shape: Shape, device: torch.device) -> Tensor:
    """Which terms of the ``rfft2`` of images of `shape`, flattened, lie in `NOISE_BAND`."""
    low, high = NOISE_BAND
    k = radial_frequency(shape, device=device).flatten()
    is_inside = (k > low) & (k < high)
    return is_inside.nonzero()[:, 0]


def noise_scales(frames: Tensor, name: str = "movie") -> tuple[Tensor, Tensor, float, float]:
    """How frames [frame, y, x] and their sum are brought to mean zero and unit noise.

    Parameters
    ----------
    frames
        In any unit.
    name
        Of the movie, for errors.

    Returns
    -------
    scales
        [frame, 2]: mean and noise of each frame.
    total
        [y, x]: their sum with mean zero and unit noise.
    mean, noise
        Of the sum, in input units: sum = mean + noise * total.

    Raises
    ------
    BadInputError
        As `noise_level`.
    """
    count, height, width = frames.shape
    band = noise_band((height, width), frames.device)
    scales = frames.new_empty(count, 2)
    for i, frame in enumerate(frames):
        group = f"{name}: group {i + 1}"
        scales[i, 0] = frame.mean()
        scales[i, 1] = noise_level(frame, group, band)
    total = frames.sum(0)
    mean = float(total.mean())
    noise = noise_level(total, name, band)
    unit_total = (total - mean) / noise
    return scales, unit_total, mean, noise


def normalised(frames: Tensor, name: str = "movie") -> tuple[Tensor, Tensor, float, float]:
    """Frames [frame, y, x] and their sum, each with mean zero and unit noise.

    Parameters and errors are those of `noise_scales`; so is what is returned, but for the frames
    themselves in place of their scales.
    """
    scales, total, mean, noise = noise_scales(frames, name)
    unit_frames = apply_scales(frames, scales)
    return unit_frames, total, mean, noise


def unit_noise(image: Image, name: str = "image") -> tuple[Image, float, float]:
    """An image with mean zero and unit noise, and its mean and noise in input units.

    Parameters
    ----------
    image
        [y, x], in any unit.
    name
        For errors.

    Raises
    ------
    BadInputError
        As `noise_level`.
    """
    mean = float(image.mean())
    noise = noise_level(image, name)
    unit_image = (image - mean) / noise
    return unit_image, mean, noise


def apply_scales(frames: Tensor, scales: Tensor) -> Tensor:
    """Frames [frame, y, x] with the mean and noise that `noise_scales` found taken out."""
    mean = scales[:, 0, None, None]
    noise = scales[:, 1, None, None]
    return (frames - mean) / noise
