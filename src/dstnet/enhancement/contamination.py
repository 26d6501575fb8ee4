"""What is far darker than particles (ice crystals, film, dirt) is taken out before the network, and
put back after it.

Averaged over some hundred Angstrom an image of particles is nearly flat: the transfer function
passes next to nothing there. What absorbs or scatters out of the aperture is not, so it stands out
of such averages. It is replaced by ice: what lies around it, with white noise. So neither the
network nor what judges its output by ring powers sees it, however deep it is.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from dstnet.core.fourier import cosine_frequency, cosine_transform, inverse_cosine_transform
from dstnet.core.randomness import stream
from dstnet.core.shapes import Image, Shape, Stack
from dstnet.movie.normalise import noise_level

BLOCK_ANGSTROM = 12.0  # means over such squares are all that is looked at
# rms of the Gaussian mean in which something begins; what is smaller has to be deeper
SEED_ANGSTROM = 120.0
# Below the ice, in deviations of a pixel of so many Angstrom
SEED_DEPTH = 0.3
NOISE_PIXEL_ANGSTROM = 2.0
# So small a thing may be a large virus, and has to be so much deeper. (A phase plate makes
# ribosomes as deep: with one, this is not to be used.)
LARGE_DIAMETER_ANGSTROM = 600.0
SMALL_DEPTH = 2.0
SEED_DEVIATIONS = 9.0  # and in deviations of these means over ice
# The same of the mean that says how far it reaches.
GROWN_ANGSTROM = 60.0
GROWN_DEVIATIONS = 4.0
GROWN_DEPTH = 0.1
# How deep things count at most, in the same unit as `SEED_DEPTH`, when it is said how far they
# reach, and from where on that is to half of their depth: the mean reaches beyond their edge.
MOST_DEPTH = 1.0
DEEP = 0.7
BROADENED_ANGSTROM = 36.0  # around it, for its soft edge
# Ice is what is brightest, if it is as much as this part of the field.
LEAST_ICE = 0.4
# rms of the Gaussian mean that the background is fitted to: a wider one would make a slope of an
# edge, which the fit would follow down.
FITTED_ANGSTROM = 24.0
TRIMMED_DEVIATIONS = 2.5  # from the fit
# Terms of the polynomial that each round fits: a plane would lie down on an edge, half of the
# ice above it, if it were the first.
TERMS_OF_ROUNDS = (1, 1, 1, 3, 3, 3, 3, 3, 6, 6, 6, 6)
AROUND_ANGSTROM = 200.0  # rms of the Gaussian mean of what lies around, that replaces it
SHOWN_ANGSTROM = 10.0  # rms of the Gaussian mean that is put back
# Of the enhanced image, how far the deepest of it is put below the mean: less than particles are.
SHOWN_DEVIATIONS = 1.0
_OF_MEDIAN = 1.4826  # the deviation of a normal distribution over the median of its absolute values


@dataclass(frozen=True)
class DarkRegions:
    """Where an image is far darker than particles make it.

    Attributes
    ----------
    mask
        bool, [y, x].
    pixel_size_angstrom
        Of it.
    """

    mask: Tensor
    pixel_size_angstrom: float

    @property
    def share(self) -> float:
        """Of the field, from 0 to 1."""
        return float(self.mask.float().mean())

    def note(self) -> str:
        """What the user should know."""
        return (
            f"{self.share:.1%} of the field is far darker than particles (crystals, film or dirt):"
            " it is shown as a shadow, and nothing was looked for there"
        )

    def replaced(self, images: Stack, seed: int = 0) -> Stack:
        """Images [image, y, x] with ice in place of the regions: the mean of what lies around, with
        white noise of each image's own level from `seed`.

        Raises
        ------
        BadInputError
            If there is no noise outside them (`dstnet.movie.normalise`).
        """
        random = stream(seed, "ice in place of what is dark")
        results = torch.empty_like(images)
        for image, result in zip(images, results, strict=True):
            smooth = torch.where(self.mask, self._around(image), image)
            noise = noise_level(smooth) / math.sqrt(1 - self.share)
            white = torch.randn(image.shape, generator=random, device="cpu").to(image.device)
            result.copy_(torch.where(self.mask, smooth + noise * white, image))
        return results

    def _around(self, image: Image) -> Image:
        """A Gaussian mean of what lies outside, at every pixel."""
        step = _block(self.pixel_size_angstrom)
        free = (~self.mask).float()
        weight = _block_means(free, step)
        level = float((image * free).sum() / free.sum())
        weighted = _block_means((image - level) * free, step)
        sigma = AROUND_ANGSTROM / (self.pixel_size_angstrom * step)
        values = _blurred(weighted, sigma) / np.maximum(_blurred(weight, sigma), 1e-3)
        height, width = image.shape
        small = torch.from_numpy(values)[None, None]
        whole = (values.shape[0] * step, values.shape[1] * step)
        large = F.interpolate(small, whole, mode="bilinear")[0, 0, :height, :width]
        return level + large.to(image.device)

    def put_back(self, image: Image, total: Image, pixel_size_angstrom: float) -> Image:
        """An enhanced image with a shadow of what the sum shows where the regions are, and nothing
        changed elsewhere.

        Whoever looks for particles, by eye or not, scales an image by its darkest parts, and picks
        them first.

        Parameters
        ----------
        image, total
            In one unit, on one grid over the field of the regions.
        pixel_size_angstrom
            Of that grid.
        """
        shape = (image.shape[0], image.shape[1])
        k = cosine_frequency(shape, pixel_size_angstrom, image.device)
        transfer = torch.exp(-2 * (math.pi * SHOWN_ANGSTROM * k).square())
        smooth = inverse_cosine_transform(transfer * cosine_transform(total))
        is_dark = self.on_grid(shape)
        free = image[~is_dark]
        depth = (free.mean() - smooth[is_dark].min()).clamp(min=1e-12)
        scale = (SHOWN_DEVIATIONS * free.std() / depth).clamp(max=1)
        return torch.where(is_dark, free.mean() + scale * (smooth - free.mean()), image)

    def on_grid(self, shape: Shape) -> Tensor:
        """The mask on a grid of `shape` over the same field."""
        return F.interpolate(self.mask[None, None].float(), shape)[0, 0] > 0


def dark_regions(total: Image, pixel_size_angstrom: float) -> DarkRegions | None:
    """Where an image is far darker than particles make it; None where it is nowhere.

    Parameters
    ----------
    total
        In any unit.
    pixel_size_angstrom
        Of it.
    """
    step = _block(pixel_size_angstrom)
    blocks = _block_means(total, step)
    block_angstrom = step * pixel_size_angstrom
    # White noise has the deviation of larger pixels times their size.
    every = max(1, step // 2)
    pixels = total[::every, ::every].cpu().numpy()
    scale = pixel_size_angstrom / NOISE_PIXEL_ANGSTROM
    coarse = _blurred(blocks, FITTED_ANGSTROM / block_angstrom)
    for is_ice_brightest in (True, False):
        background = _background(coarse, is_ice_brightest)
        noise = scale * _deviation_above(pixels - _resized(background, pixels.shape))
        mask = _dark_blocks(blocks - background, noise, block_angstrom)
        if mask.mean() <= 1 - LEAST_ICE:
            break
    else:
        return None
    if not mask.any():
        return None
    height, width = total.shape
    large = np.repeat(np.repeat(mask, step, 0), step, 1)[:height, :width]
    on_device = torch.from_numpy(np.ascontiguousarray(large)).to(total.device)
    return DarkRegions(on_device, pixel_size_angstrom)


def _dark_blocks(blocks: np.ndarray, noise: float, block_angstrom: float) -> np.ndarray:
    """Which blocks, their background taken out, belong to something dark; bool, [y, x].

    `noise` is that of a pixel of `NOISE_PIXEL_ANGSTROM`.
    """
    seen = _blurred(blocks, SEED_ANGSTROM / block_angstrom)
    seeds = seen < -max(SEED_DEPTH * noise, SEED_DEVIATIONS * _deviation_above(seen))
    if not seeds.any():
        return seeds
    limited = np.maximum(blocks, -MOST_DEPTH * noise)
    finer = _blurred(limited, GROWN_ANGSTROM / block_angstrom)
    least = -max(GROWN_DEPTH * noise, GROWN_DEVIATIONS * _deviation_above(finer))
    grown = finer < least
    regions = np.zeros(grown.shape, np.int32)
    ndimage.label(grown, output=regions)
    numbers = np.arange(regions.max() + 1)
    area = ndimage.sum_labels(grown, regions, numbers) * block_angstrom**2
    is_large = area > math.pi / 4 * LARGE_DIAMETER_ANGSTROM**2
    unlimited = _blurred(blocks, GROWN_ANGSTROM / block_angstrom)
    is_deep = ndimage.minimum(unlimited, regions, numbers) < -SMALL_DEPTH * noise
    has_seed = ndimage.maximum(seeds, regions, numbers)
    is_dark = (is_large | is_deep) & has_seed
    is_dark[0] = False  # what is no region
    deepest = ndimage.minimum(finer, regions, numbers)
    edge = np.where(deepest < -DEEP * noise, np.minimum(deepest / 2, least), least)
    found = is_dark[regions] & (finer < edge[regions])
    reach = 2 * math.ceil(BROADENED_ANGSTROM / block_angstrom) + 1
    return ndimage.maximum_filter(found, reach)


def _deviation_above(values: np.ndarray) -> float:
    """The deviation of values about zero, from those above it: what is dark is below."""
    above = values[values > 0]
    return _OF_MEDIAN * float(np.median(above)) if above.size else 0.0


def _background(image: np.ndarray, is_ice_brightest: bool) -> np.ndarray:
    """A polynomial of second degree through the ice: illumination and thickness.

    Parameters
    ----------
    image
        Means, [y, x].
    is_ice_brightest
        Begin with the brightest, however little of the field it is; otherwise with all.
    """
    terms = _polynomial(image.shape)
    values = image.reshape(-1)
    of_ice = np.ones(len(values), bool)
    fit = np.zeros_like(values)
    for number, count in enumerate(TERMS_OF_ROUNDS):
        used = terms[:, :count]
        coefficients, *_ = np.linalg.lstsq(used[of_ice], values[of_ice], rcond=None)
        fit = used @ coefficients
        off = values - fit
        if is_ice_brightest:
            limit = TRIMMED_DEVIATIONS * _deviation_above(off) if number > 1 else 0.0
            chosen = off > -limit
        else:
            chosen = np.abs(off) < TRIMMED_DEVIATIONS * _OF_MEDIAN * np.median(np.abs(off))
        if chosen.sum() < terms.shape[1]:
            break
        of_ice = chosen
    return fit.reshape(image.shape).astype(np.float32)


def _polynomial(shape: tuple[int, ...]) -> np.ndarray:
    """1, x, y, x^2, y^2 and x y, [pixel, 6], x and y from -1 to 1 over the field."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    y, x = np.meshgrid(y, x, indexing="ij")
    terms = (np.ones_like(x), x, y, x * x, y * y, x * y)
    return np.stack(terms, -1).reshape(-1, len(terms))


def _block(pixel_size_angstrom: float) -> int:
    """Side of the blocks in pixels."""
    return max(1, round(BLOCK_ANGSTROM / pixel_size_angstrom))


def _block_means(image: Image, step: int) -> np.ndarray:
    """Means over squares of `step` pixels; the last ones may be smaller."""
    means = F.avg_pool2d(image[None, None], step, ceil_mode=True, count_include_pad=False)
    return means[0, 0].cpu().numpy()


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """By a Gaussian, going on as the mirror image."""
    return ndimage.gaussian_filter(image, sigma, mode="reflect")


def _resized(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    small = torch.from_numpy(image)[None, None]
    return F.interpolate(small, shape, mode="bilinear")[0, 0].numpy()
