"""Which band of frequencies an image has noise in, and the image brought to white noise over the
whole band of a method's grid.

People have sums that were binned, low-passed or saved as pictures. Where such an image holds
nothing, `dstnet.movie.normalise` would measure rounding as its noise: a picture low-passed to 40 Å
shows particles of seventy times that. So the edge of the band that holds noise is looked for. The
image is put on the method's grid, and what lies beyond the edge filled with white noise of the
level just inside it. A low-passed image is divided by its filter first, a Gaussian.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dstnet.core.fourier import (
    NYQUIST,
    cosine_frequency,
    cosine_transform,
    inverse_cosine_transform,
    resample_mirrored,
    ring_count,
    ring_index,
    ring_mean,
)
from dstnet.core.randomness import stream
from dstnet.core.shapes import Image, Shape, Stack
from dstnet.errors import BadInputError

RINGS = 200
# Of the finest frequency: where a low-passed image holds rounding alone.
FLOOR_BAND = 0.8, 0.97
# Where images hold most.
CEILING_ANGSTROM = 150.0, 20.0
# Sums as cameras give them have at most some hundred times the white noise's power in that band;
# low-passed ones a million times.
LOW_PASSED = 300.0
STANDS_OUT = 100.0
# What a low-passed image has at so coarse a detail is taken for so many times its noise.
COARSE_ANGSTROM = 120.0
COARSE_OVER_NOISE = 10.0
# A band that ends at coarser detail shows no particle, and its end is not that of noise.
# (Pictures of beta-galactosidase, low-passed by their makers, end at 37 Angstrom.)
COARSEST_EDGE_ANGSTROM = 100.0
# Of the method's Nyquist frequency; grids that end beyond it are not worth another.
NEARLY_ALL = 0.9
# Of the edge: over so much of it the image gives way to noise.
TRANSITION = 0.1
LEVEL_BAND = 0.8, 0.94  # of the edge: whose power the noise gets


@dataclass(frozen=True)
class NoiseBand:
    """Where an image holds noise, if not over the whole band of a method's grid.

    Attributes
    ----------
    fall_angstrom2
        b of the filter's power, exp(-b k^2), that was applied to the image.
    edge_per_angstrom
        The frequency from which on it holds none.
    """

    fall_angstrom2: float
    edge_per_angstrom: float

    @property
    def finest_angstrom(self) -> float:
        """The finest detail that is wholly the image's own."""
        return 1 / (self.edge_per_angstrom * (1 - TRANSITION / 2))

    def filtered(self, image: Image, pixel_size_angstrom: float) -> Image:
        """A white image as it would look in this band."""
        transfer = self.transfer(_frequency(image, pixel_size_angstrom))
        return inverse_cosine_transform(transfer * cosine_transform(image))

    def transfer(self, k: Tensor) -> Tensor:
        """What `filtered` multiplies detail of `k` per Angstrom by."""
        return self._filter(k) * self._inside(k)

    def flattening(self, k: Tensor) -> Tensor:
        """What `whitened` multiplies detail of `k` per Angstrom by, before it fills."""
        return torch.sin(0.5 * math.pi * self._inside(k)) / self._filter(k)

    def whitened(
        self, images: Stack, shape: Shape, pixel_size_angstrom: float, seed: int = 0
    ) -> Stack:
        """Images [image, y, x] of this band on a grid of `shape`, with its filter undone, and with
        white noise beyond its edge.

        Parameters
        ----------
        images
            In any unit.
        shape, pixel_size_angstrom
            Of the result.
        seed
            Of the noise, which differs from image to image.
        """
        device = images.device
        k = cosine_frequency(shape, pixel_size_angstrom, device)
        flattening = self.flattening(k)
        filling = torch.cos(0.5 * math.pi * self._inside(k))
        low, high = (part * self.edge_per_angstrom for part in LEVEL_BAND)
        is_level = (k > low) & (k < high)
        random = stream(seed, "noise beyond the band")
        whitened = torch.empty(len(images), *shape, device=device)
        for image, out in zip(images, whitened, strict=True):
            spectrum = cosine_transform(resample_mirrored(image, shape)) * flattening
            level = spectrum[is_level].square().mean().sqrt()
            noise = torch.randn(shape, generator=random, device="cpu").to(device)
            spectrum += level * filling * noise
            out.copy_(inverse_cosine_transform(spectrum))
        return whitened

    def _filter(self, k: Tensor) -> Tensor:
        inside = k.clamp(max=self.edge_per_angstrom)
        return torch.exp(-0.5 * self.fall_angstrom2 * inside.square())

    def _inside(self, k: Tensor) -> Tensor:
        """1 within the band, 0 beyond it."""
        to_edge = (self.edge_per_angstrom - k) / (TRANSITION * self.edge_per_angstrom)
        return (0.5 + to_edge).clamp(0, 1)


def noise_band(
    image: Image, pixel_size_angstrom: float, working_pixel_angstrom: float
) -> NoiseBand | None:
    """The band that an image holds noise in; None where that is all that a grid of
    `working_pixel_angstrom` has room for.

    Raises
    ------
    BadInputError
        If there is no noise at all.
    """
    k, power = _rings(image, pixel_size_angstrom)
    finest_on_grid = NYQUIST / working_pixel_angstrom
    finest = min(NYQUIST / pixel_size_angstrom, finest_on_grid)
    low, high = (part * finest for part in FLOOR_BAND)
    is_floor = (k > low) & (k < high)
    coarsest, coarse = (1 / size for size in CEILING_ANGSTROM)
    is_coarse = (k > coarsest) & (k < coarse)
    if not (is_floor.any() and is_coarse.any()):
        return None  # a few pixels
    floor = np.median(power[is_floor])
    if power[is_coarse].max() < LOW_PASSED * floor:
        return None if finest >= NEARLY_ALL * finest_on_grid else NoiseBand(0.0, high)
    smooth = np.convolve(np.log(power), np.ones(3) / 3, mode="same")
    is_lost = (smooth < math.log(STANDS_OUT * floor)) & (k > coarsest)
    first_lost = int(np.flatnonzero(is_lost)[0])
    edge = float(k[max(0, first_lost - 1)])
    if edge < 1 / COARSEST_EDGE_ANGSTROM:
        raise BadInputError(
            f"the image holds no noise finer than {1 / edge:.0f} Å (low-pass filtered before, or"
            " computed); give unfiltered frames, or pass the --pixel-size at which they were taken"
        )
    # What the filter took is known but for what particles have in its band, so that much of the
    # difference is left to them.
    at_coarse, at_edge = np.interp([1 / COARSE_ANGSTROM, edge], k, np.log(power))
    fall = at_coarse - math.log(COARSE_OVER_NOISE) - at_edge
    return NoiseBand(max(0.0, float(fall / (edge**2 - COARSE_ANGSTROM**-2))), edge)


def _rings(image: Image, pixel_size_angstrom: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequency and mean power of the rings up to Nyquist that hold any term, under a Hann window:
    a step at the border has power everywhere.
    """
    shape = (image.shape[0], image.shape[1])
    of_rows, of_columns = (torch.hann_window(n, device=image.device) for n in shape)
    tapered = (image - image.mean()) * of_rows[:, None] * of_columns
    power = torch.fft.rfft2(tapered).abs().square()
    ring = ring_index(shape, RINGS, image.device)
    mean = ring_mean(power, ring, RINGS, dtype=torch.float64).cpu().numpy()
    holds_terms = ring_count(ring, RINGS).cpu().numpy() > 0
    k = (np.arange(RINGS) + 0.5) / RINGS * NYQUIST / pixel_size_angstrom
    return k[holds_terms], np.maximum(mean[holds_terms], 1e-30)


def _frequency(image: Image, pixel_size_angstrom: float) -> Tensor:
    shape = (image.shape[0], image.shape[1])
    return cosine_frequency(shape, pixel_size_angstrom, image.device)
