"""What is taken out of an image, seams and checkerboards."""

import math

import pytest
import torch

from dstnet.core.fourier import apply_transfer, radial_frequency
from dstnet.metrics.oracle import gaussian_filtered
from dstnet.metrics.residual_spectrum import particles_left, taken_out, unevenness
from dstnet.metrics.seams import checkerboard_ratio, seam_ratio

SHAPE = (512, 448)


def noise(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def particles():
    y, x = torch.arange(SHAPE[0])[:, None], torch.arange(SHAPE[1])
    spots = (y % 64 - 32.0) ** 2 + (x % 64 - 32.0) ** 2
    return -(spots < 12**2).float()


def test_a_perfect_method_takes_out_noise_alone():
    """Rings of white noise are even within sqrt(3.8 / terms), a mean of the 31 rings; particles
    show within 5 standard errors.
    """
    clean, total = particles(), particles() + noise(0)
    residual = taken_out(total, 30 * clean + 5)
    assert residual is not None
    assert unevenness(residual) < 0.1
    assert particles_left(residual, clean < 0) < 5 / math.sqrt(SHAPE[0] * SHAPE[1])


def test_what_trivial_images_take_out():
    """Of the sum nothing; of a constant image the sum; of one that is too smooth the particles'
    edges. None of them is as good as the truth.
    """
    clean, total = particles(), particles() + noise(0)
    assert taken_out(total, 3 * total - 7) is None
    perfect = taken_out(total, clean)
    constant = taken_out(total, torch.ones(SHAPE))
    smooth = taken_out(total, gaussian_filtered(total, 12.0))
    assert perfect is not None and constant is not None and smooth is not None
    shown = particles_left(perfect, clean < 0)
    assert particles_left(constant, clean < 0) > 30 * shown
    assert particles_left(smooth, clean < 0) > 30 * shown
    assert unevenness(constant) > 5 * unevenness(perfect)


def test_power_of_known_unevenness():
    """Twice the power in half of the rings: a third."""
    stronger = 1 + (2**0.5 - 1) * (radial_frequency(SHAPE) < 0.25)
    assert unevenness(apply_transfer(noise(0), stronger)) == pytest.approx(1 / 3, abs=0.04)


# --- Seams
# --------------------------------------------------------------------------------------------------


def test_images_without_seams():
    for image in (noise(0), particles() + noise(0), gaussian_filtered(noise(0), 3.0)):
        assert seam_ratio(image, ([128, 256], [200])) == pytest.approx(1, abs=0.12)
    expected = 1 + 0.76 * math.sqrt(2 * math.log(2 * 480) / 480)
    assert seam_ratio(noise(0)) == pytest.approx(expected, abs=0.05)
    assert seam_ratio(torch.ones(SHAPE)) == 1
    assert seam_ratio(torch.ones(SHAPE), ([9], [9])) == 1


@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_a_seam_is_found_wherever_it_is(sigma):
    """A step along one line, a fifth of what neighbours differ by, raises nothing; as much as that
    raises the line by about 0.4.
    """
    image = gaussian_filtered(noise(0), sigma)
    usual = float(image.diff(dim=0).std())
    stepped = image.clone()
    stepped[200:] += 1.5 * usual
    for ratio in (seam_ratio(stepped), seam_ratio(stepped, ([200], []))):
        assert ratio > 1.5
    assert seam_ratio(5 * stepped - 100) == pytest.approx(seam_ratio(stepped), rel=1e-3)
    assert seam_ratio(stepped.T) == pytest.approx(seam_ratio(stepped), rel=1e-6)
    assert seam_ratio(stepped, ([100], [100])) == pytest.approx(1, abs=0.2)


# --- Checkerboards
# --------------------------------------------------------------------------------------------------


def test_images_without_a_pattern():
    for seed in range(3):
        for sigma in (0.0, 0.7, 3.0):
            image = gaussian_filtered(noise(seed), sigma)
            assert 0.7 < checkerboard_ratio(image) < 1.25
    assert checkerboard_ratio(torch.ones(SHAPE)) == 1
    assert checkerboard_ratio(gaussian_filtered(noise(3), 6.0) * 30 + noise(0)) < 1.25


@pytest.mark.parametrize("period", [2, 4, 8])
def test_a_pattern_is_found(period):
    """Also one that comes and goes with what the image shows, as a network's does."""
    y, x = torch.arange(SHAPE[0])[:, None], torch.arange(SHAPE[1])
    pattern = ((y % period < period // 2) ^ (x % period < period // 2)).float() - 0.5
    even = noise(0) + 0.4 * pattern
    modulated = noise(0) + 0.6 * pattern * gaussian_filtered(noise(1), 8.0) * 28
    for image in (even, modulated, 100 * even + 5):
        assert checkerboard_ratio(image) > 1.25
