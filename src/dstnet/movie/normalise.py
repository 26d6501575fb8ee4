"""One intensity scale for every camera, unit and exposure: noise of standard deviation one per
working pixel.

Counts, gains and 8-bit scalings differ from file to file, so the noise is measured in the image
itself: near the grid's Nyquist frequency a cryo-EM image holds next to no signal, and shot noise is
flat.
"""

import torch
from torch import Tensor

from dstnet.core.fourier import radial_frequency
from dstnet.core.shapes import Image
from dstnet.errors import BadInputError

NOISE_BAND = (
    0.36,
    0.48,
)  # cycles per pixel; 5.6 to 4.2 Å at 2 Å/px, short of the ice ring at 3.7 Å


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
    band = noise_band((height, width), image.device) if band is None else band
    power = torch.fft.rfft2(image - image.mean()).flatten()[band].abs().square().double().mean() / (
        height * width
    )
    # The spread of all pixels is the yardstick: 1e-4 of it is rounding, not noise.
    spread = float(image.std())
    if not spread > 0 or float(power) ** 0.5 < 1e-4 * spread:
        raise BadInputError(
            f"{name} holds no noise between {NOISE_BAND[0]} and {NOISE_BAND[1]} cycles/pixel"
            " (constant, or low-pass filtered before); give unfiltered frames, or pass the"
            " --pixel-size at which they were taken"
        )
    return float(power) ** 0.5


def noise_band(shape: tuple[int, int], device: torch.device) -> Tensor:
    """Which terms of the ``rfft2`` of images of `shape`, flattened, lie in `NOISE_BAND`."""
    k = radial_frequency(shape, device=device).flatten()
    return ((k > NOISE_BAND[0]) & (k < NOISE_BAND[1])).nonzero()[:, 0]


def normalised(
    fractions: Tensor, name: str = "movie", out: Tensor | None = None
) -> tuple[Tensor, Tensor, float, float]:
    """Fractions [fraction, y, x] and their sum, each with mean zero and unit noise.

    Parameters
    ----------
    fractions
        In any unit.
    name
        Of the movie, for errors.
    out
        Where the fractions so brought are put, which may be `fractions` itself; None: a new tensor.

    Returns
    -------
    fractions, total
        [fraction, y, x] and [y, x].
    mean, noise
        Of the sum, in input units: sum = mean + noise * total.

    Raises
    ------
    BadInputError
        As `noise_level`.
    """
    total, band = (
        fractions.sum(0),
        noise_band((fractions.shape[1], fractions.shape[2]), fractions.device),
    )
    unit = torch.empty_like(fractions) if out is None else out
    for i, fraction in enumerate(fractions):
        unit[i] = (fraction - fraction.mean()) / noise_level(
            fraction, f"{name}: fraction {i + 1}", band
        )
    mean, noise = float(total.mean()), noise_level(total, name, band)
    return unit, (total - mean) / noise, mean, noise
