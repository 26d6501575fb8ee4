"""Errors of images against a truth."""

import pytest
import torch

from dstnet.core.fourier import shift_phase
from dstnet.metrics.image import best_shift, correlation, residual_after_best_shift, residual_energy

WIDTH = 4.0  # of the blobs, standard deviation in pixels


def blobs(shape=(192, 160)):
    y, x = torch.arange(shape[0])[:, None], torch.arange(shape[1])[None, :]
    spots = ((90, 70, 1.0), (105, 88, -0.7), (70, 95, 0.6))
    return sum(
        a * torch.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * WIDTH**2)) for cy, cx, a in spots
    )


def moved(image, shift):
    return torch.fft.irfft2(
        torch.fft.rfft2(image) * shift_phase(tuple(image.shape), shift), s=image.shape
    )


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_known_values():
    a = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    b = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert correlation(a, a) == pytest.approx(1)
    assert correlation(a, b) == pytest.approx(0)
    assert correlation(a, a + b) == pytest.approx(0.5**0.5)
    assert residual_energy(a + b, a) == pytest.approx(0.5)
    assert correlation(a, torch.ones(2, 2)) == 0 and residual_energy(torch.ones(2, 2), a) == 1


@pytest.mark.parametrize(("scale", "offset"), [(3.0, 0.0), (-0.01, 0.0), (1.0, 100.0), (1e4, -5e3)])
def test_scale_and_offset_are_free(scale, offset):
    truth = blobs()
    image = truth + 0.1 * noise(*truth.shape)
    assert residual_energy(scale * image + offset, truth) == pytest.approx(
        residual_energy(image, truth), abs=1e-5
    )
    assert residual_energy(image, scale * truth) == pytest.approx(
        residual_energy(image, truth), abs=1e-6
    )


def test_residual_is_the_part_of_noise():
    """image = truth + noise of the truth's own power: half of the energy is unexplained, within 5
    standard errors of the correlation.
    """
    truth, other = noise(256, 256), noise(256, 256, seed=1)
    assert residual_energy(truth + other, truth) == pytest.approx(0.5, abs=5 / 256)
    assert residual_energy(other, truth) > 1 - (5 / 256) ** 2


@pytest.mark.parametrize(
    "shift", [(0, 0), (3, 0), (0, -5), (7, -11), (2.3, -4.6), (-0.5, 0.25), (20.4, 19.7)]
)
def test_best_shift_moves_the_truth_onto_the_image(shift):
    truth = blobs()
    # The correlation's peak is a Gaussian of twice the blobs' variance s^2; a parabola through
    # three of its points misses the top by less than 1 / (4 s^2).
    assert best_shift(moved(truth, shift), truth) == pytest.approx(
        shift, abs=1 / (4 * 2 * WIDTH**2)
    )


def test_best_shift_axis_order():
    truth = blobs()
    dy, dx = best_shift(torch.roll(truth, (6, 0), (0, 1)), truth)
    assert dy == pytest.approx(6, abs=0.01) and dx == pytest.approx(0, abs=0.01)


def test_best_shift_stays_within_its_span():
    truth = blobs()
    dy, dx = best_shift(moved(truth, (15, 0)), truth, span=4)
    assert abs(dy) <= 5 and abs(dx) <= 5


@pytest.mark.parametrize("shift", [(0, 0), (4, -9), (2.5, 1.25)])
def test_where_the_alignment_put_the_image_is_no_error(shift):
    truth = blobs()
    image = moved(truth, shift)
    # left over: the shift's error e, at most 1 / (8 WIDTH^2), as e^2 times the mean square gradient
    # over the power, 1 / (2 WIDTH^2) an axis
    assert residual_after_best_shift(image, truth) < 10 * (1 / (8 * WIDTH**2)) ** 2 / WIDTH**2
    assert residual_after_best_shift(image + 50, 3 * truth) < 1e-4
    if shift != (0, 0):
        assert residual_energy(image, truth) > 0.05


def test_noise_explains_nothing_at_any_shift():
    """The best of 49 x 49 shifts of unrelated noise: a correlation below 6 standard errors."""
    truth, image = noise(200, 200), noise(200, 200, seed=3)
    assert residual_after_best_shift(image, truth) > 1 - 36 / 104**2


def test_arguments_stay():
    truth, image = blobs(), moved(blobs(), (1, 2))
    copies = truth.clone(), image.clone()
    residual_after_best_shift(image, truth)
    assert torch.equal(truth, copies[0]) and torch.equal(image, copies[1])
