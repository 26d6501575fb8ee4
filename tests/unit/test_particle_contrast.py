"""Particles against their surroundings: known contrasts, noise alone, and what smoothing makes of
both.
"""

import math

import numpy as np
import pytest
import torch

from dstnet.metrics.oracle import gaussian_filtered
from dstnet.metrics.particle_contrast import nearest_gaussian, particle_contrast_db
from dstnet.metrics.rings import compared

SHAPE, DIAMETER = (400, 360), 30.0
CENTRES = np.array([(y, x) for y in range(40, 380, 64) for x in range(40, 340, 64)], float)


def noise(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def discs():
    y, x = torch.arange(SHAPE[0])[:, None], torch.arange(SHAPE[1])
    image = torch.zeros(SHAPE)
    for cy, cx in CENTRES:
        image[torch.hypot(y - cy, x - cx) <= DIAMETER / 2] = -1
    return image


def contrast(image):
    return particle_contrast_db(image, CENTRES, DIAMETER)


@pytest.mark.parametrize("deviation", [0.1, 0.5, 1.0])
def test_discs_in_noise(deviation):
    """20 log10(contrast / deviation), of any sign, scale and mean; the mean of n = 450 pixels of a
    disc errs by its deviation over sqrt(n).
    """
    image = discs() + deviation * noise(0)
    expected = -20 * math.log10(deviation)
    assert contrast(image) == pytest.approx(expected, abs=0.6)
    assert contrast(-40 * image + 700) == pytest.approx(contrast(image), abs=1e-3)


def test_noise_alone_has_what_chance_gives():
    """The means of n_s and n_b pixels differ by 1 / n_s + 1 / n_b, square mean, and the mean
    logarithm of a squared normal deviate is -1.27 (-5.5 dB).
    """
    found = np.mean([contrast(noise(seed)) for seed in range(20)])
    within, around = math.pi * 12**2, math.pi * (30**2 - 18**2)
    expected = 10 * math.log10(1 / within + 1 / around) - 5.52
    spread = 10 / math.log(10) * math.pi / math.sqrt(2)  # of that logarithm
    assert found == pytest.approx(expected, abs=5 * spread / math.sqrt(20 * len(CENTRES)))


def test_images_without_noise_or_without_particles():
    assert contrast(torch.full(SHAPE, 3.7)) == -40
    assert contrast(1e4 + 0 * noise(0)) == -40
    assert contrast(discs()) == 40
    assert math.isnan(particle_contrast_db(noise(0), np.zeros((0, 2)), DIAMETER))
    beyond = np.array([[2.0, 2.0], [-90.0, 50.0], [500.0, 900.0], [50.0, -3.0]])
    assert math.isnan(particle_contrast_db(noise(0), beyond, DIAMETER))


def test_neighbours_do_not_count_as_surroundings():
    """A bright neighbour in the ring changes nothing once its place is known."""
    image = discs() + 0.1 * noise(0)
    y, x = torch.arange(SHAPE[0])[:, None], torch.arange(SHAPE[1])
    image[torch.hypot(y - 40.0, x - 66.0) <= DIAMETER * 0.6] += 20
    known = np.array([[40.0, 40.0], [40.0, 66.0]])
    first = particle_contrast_db(image, known[:1], DIAMETER)
    both = particle_contrast_db(image, known, DIAMETER)
    assert first < 0 < both


def test_smoothing_raises_it_and_the_nearest_gaussian_as_much():
    """What a Gaussian of the sum has is no gain over the nearest Gaussian of the sum."""
    total = discs() + 2 * noise(1)
    for sigma in (0.0, 1.0, 3.0, 6.0, 20.0):
        image = gaussian_filtered(total, sigma)
        found = nearest_gaussian(compared(5 * image - 3, total, 2.0, taper=0.0), 2.0)
        assert found == pytest.approx(sigma, rel=0.06)
        gain = contrast(image) - contrast(gaussian_filtered(total, found))
        assert gain == pytest.approx(0, abs=0.5)
    assert contrast(gaussian_filtered(total, 3.0)) > contrast(total) + 6
