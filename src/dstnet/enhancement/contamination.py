"""What is far darker than particles (ice crystals, film, dirt) is taken out before the network, and put back after it.

Averaged over more than 100 Å an image of particles is nearly flat: the transfer function passes next to nothing there. What absorbs or
scatters out of the aperture is not, so it stands out of such averages by many deviations. It is replaced by ice: the average around it,
with white noise. So neither the network nor what judges its output by ring powers sees it, however deep it is.
"""

import math

import torch
from scipy.ndimage import binary_propagation
from torch import Tensor

from dstnet.core.fourier import radial_frequency
from dstnet.core.shapes import Image, Stack
from dstnet.movie.band import reflected
from dstnet.movie.normalise import NOISE_BAND

AVERAGED_ANGSTROM = 60.0  # sigma of the average that is judged
# Deviations below the background: where something begins, and how far it reaches. Of 14 real fields without dirt none has more than 8,
# a disc of 270 Å radius and one deviation of the image's depth has 23.
SEED, GROWN = 9.0, 4.0
BLOCK, TRIMMED, ROUNDS = 16, 2.5, 8  # of the background's fit: pixels of a block, deviations beyond which one is left out
BROADENED_ANGSTROM = 60.0  # around it, for its soft edge
AROUND_ANGSTROM = 200.0  # sigma of the average of what lies around, that replaces it
BACK_ANGSTROM = 10.0  # sigma of what is put back


def dark_mask(total: Image, pixel_size_angstrom: float) -> Tensor | None:
    """Where an image is far darker than particles make it, bool [y, x]; None where it is nowhere.

    Parameters
    ----------
    total
        In any unit.
    pixel_size_angstrom
        Of it.
    """
    smooth = _blurred(total, AVERAGED_ANGSTROM / pixel_size_angstrom)
    smooth = smooth - _background(smooth)
    below = -smooth / (1.4826 * smooth.abs().median()).clamp(min=1e-30)
    seeds = below > SEED
    if not bool(seeds.any()):
        return None
    grown = torch.from_numpy(binary_propagation(seeds.numpy(), mask=(below > GROWN).numpy()))
    reach = 2 * math.ceil(BROADENED_ANGSTROM / pixel_size_angstrom) + 1
    wide = torch.nn.functional.max_pool2d(grown.float()[None, None], (reach, 1), stride=1, padding=(reach // 2, 0))
    return torch.nn.functional.max_pool2d(wide, (1, reach), stride=1, padding=(0, reach // 2))[0, 0] > 0


def level_outside(image: Image, mask: Tensor) -> tuple[float, float]:
    """Mean and noise (`dstnet.movie.normalise`) of an image outside the mask: the edge of what is dark would count as noise."""
    k = radial_frequency((image.shape[0], image.shape[1]))
    band = (k > NOISE_BAND[0]) & (k < NOISE_BAND[1])
    fine = torch.fft.irfft2(torch.fft.rfft2(image) * band, s=image.shape)
    # Deviations by their median: the edge's ringing reaches beyond the mask.
    level = 1.4826 * float(fine[~mask].abs().median()) / math.sqrt(math.pi * (NOISE_BAND[1] ** 2 - NOISE_BAND[0] ** 2))
    return float(image[~mask].mean()), max(level, 1e-30)


def replaced(images: Stack, mask: Tensor, pixel_size_angstrom: float, seed: int = 0) -> Stack:
    """Images with ice where the mask is: what is around it on average, and white noise of their own level."""
    random = torch.Generator().manual_seed(seed)
    sigma = AROUND_ANGSTROM / pixel_size_angstrom
    free = (~mask).float()
    weight = _blurred(free, sigma).clamp(min=1e-3)
    out = torch.empty_like(images)
    for i, image in enumerate(images):
        mean, noise = level_outside(image, mask)
        around = mean + _blurred((image - mean) * free, sigma) / weight
        out[i] = torch.where(mask, around + noise * torch.randn(image.shape, generator=random), image)
    return out


def put_back(image: Image, total: Image, mask: Tensor, pixel_size_angstrom: float) -> Image:
    """An enhanced image with what the sum shows where the mask is, smoothed, and nothing changed elsewhere.

    Parameters
    ----------
    image, total
        In one unit, on one grid.
    mask
        On a grid of its own over the same field.
    pixel_size_angstrom
        Of the images.
    """
    there = torch.nn.functional.interpolate(mask[None, None].float(), image.shape, mode="bilinear")[0, 0] > 0.5
    return torch.where(there, _blurred(total, BACK_ANGSTROM / pixel_size_angstrom), image)


def _background(image: Image) -> Image:
    """A polynomial of second degree through what is no dirt: illumination and thickness of the ice."""
    size = [max(1, n // BLOCK) for n in image.shape]
    blocks = torch.nn.functional.adaptive_avg_pool2d(image[None, None], size)[0, 0]
    terms, values = _polynomial(blocks.shape).reshape(-1, 6), blocks.reshape(-1, 1)
    weight = torch.ones_like(values)
    found = torch.zeros(6, 1)
    for _ in range(ROUNDS):
        found = torch.linalg.lstsq(terms * weight, values * weight).solution
        off = (values - terms @ found).abs()
        weight = (off < TRIMMED * 1.4826 * off.median() + 1e-30).float()
    return (_polynomial(image.shape) @ found)[..., 0]


def _polynomial(shape: torch.Size) -> Tensor:
    """1, x, y, x^2, y^2 and x y, [y, x, 6], at the middles of cells that divide -1 to 1."""
    y, x = ((torch.arange(n) + 0.5) * (2 / n) - 1 for n in shape)
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((torch.ones_like(x), x, y, x * x, y * y, x * y), -1)


def _blurred(image: Image, sigma: float) -> Image:
    """By a Gaussian, reflected at the borders."""
    whole = (2 * image.shape[0], 2 * image.shape[1])
    transfer = torch.exp(-2 * (math.pi * sigma * radial_frequency(whole)).square())
    return torch.fft.irfft2(torch.fft.rfft2(reflected(image)) * transfer, s=whole)[: image.shape[0], : image.shape[1]]
