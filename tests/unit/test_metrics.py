"""Errors of images, motions and expected errors against a truth."""

import math

import numpy as np
import pytest
import torch

from dstnet.core.fourier import apply_transfer, radial_frequency, shift_phase
from dstnet.metrics.image import (
    best_shift,
    correlation,
    low_passed,
    peak_signal_to_noise_db,
    residual_after_best_shift,
    residual_energy,
    residual_energy_to,
)
from dstnet.metrics.motion import motion_error
from dstnet.metrics.oracle import best_gaussian, gaussian_filtered, oracle_wiener
from dstnet.metrics.uncertainty import ErrorClass, error_classes, error_ratio, fit_calibration
from dstnet.motion import Motion

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


def test_peak_signal_to_noise_of_known_images():
    """Truth from 0 to 2 and noise of a tenth of that range that is orthogonal to it: 20 dB, at any
    scale and offset of the image.
    """
    truth = torch.tensor([[0.0, 2.0, 0.0, 2.0]])
    other = 0.2 * torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    # least squares scale the image down by 1 / (1 + 0.04), and its error by as much
    expected = 20 + 10 * math.log10(1 + 0.04)
    for image in (truth + other, -7 * (truth + other) + 3):
        assert peak_signal_to_noise_db(image, truth) == pytest.approx(expected, abs=1e-4)
    assert peak_signal_to_noise_db(truth, truth) == math.inf
    assert peak_signal_to_noise_db(truth, torch.ones(1, 4)) == -math.inf
    # An image that says nothing leaves the truth's own variance, 1, of a range of 2.
    nothing = peak_signal_to_noise_db(torch.ones(1, 4), truth)
    assert nothing == pytest.approx(10 * math.log10(4))


@pytest.mark.parametrize("scale", [1.0, -50.0])
def test_residual_energy_of_what_is_coarser(scale):
    """Noise beyond a fifth of the sampling rate does no harm up to there; a truth that is missed
    below it does.
    """
    truth = noise(256, 240)
    k = radial_frequency((256, 240))
    fine = apply_transfer(noise(256, 240, seed=1), (k > 0.25).float())
    image = scale * (truth + 3 * fine) + 7
    assert residual_energy_to(image, truth, 2.0, 10.0, 24) < 0.02
    assert residual_energy_to(image, truth, 2.0, 4.0) > 0.5
    missing = apply_transfer(truth, (k > 0.2).float())
    assert residual_energy_to(missing, truth, 2.0, 10.0) > 0.95
    expected = (0.2 / 0.5) ** 2  # of a disc up to Nyquist
    assert residual_energy_to(missing, truth, 2.0, 4.0) == pytest.approx(expected, abs=0.02)


def test_no_residual_beyond_nyquist():
    truth = noise(64, 64)
    assert math.isnan(residual_energy_to(truth, truth, 5.36, 10.0))
    assert residual_energy_to(truth, truth, 5.0, 10.0) == pytest.approx(0, abs=1e-6)


def test_edges_do_not_leak_into_what_is_coarser():
    """A slope, which ends in a step where an image is continued periodically, is itself after its
    fine part is taken out.
    """
    slope = torch.linspace(-1, 1, 256)[:, None] + torch.zeros(256, 240)
    left = low_passed(slope, 1.0, 20.0) - slope
    assert float(left.abs().max()) < 0.02


# --- Filters that know the truth
# --------------------------------------------------------------------------------------------------


def test_gaussian_of_a_blob_is_a_wider_blob():
    """Variances add, the total stays."""
    y, x = torch.arange(128)[:, None] - 64.0, torch.arange(160)[None, :] - 80.0
    r2 = y * y + x * x
    blob = torch.exp(-r2 / (2 * 4.0**2)) / 4.0**2
    wider = torch.exp(-r2 / (2 * (4.0**2 + 3.0**2))) / (4.0**2 + 3.0**2)
    found = gaussian_filtered(blob, 3.0)
    torch.testing.assert_close(found, wider - wider.mean(), atol=1e-5, rtol=0)


def test_best_gaussian_is_the_least_of_its_sweep():
    truth = blobs((256, 256))
    image = truth + noise(256, 256)
    found, sigma = best_gaussian(image, truth)
    swept = [
        residual_after_best_shift(gaussian_filtered(image, s), truth) for s in (1.0, 3.0, 12.0)
    ]
    assert found <= min(swept)
    # Of blobs of deviation 4 in white noise, the one of their own width (North 1943) or next to it.
    assert sigma in (3.0, 4.0, 6.0)


def test_oracle_wiener_leaves_what_theory_says():
    """White truth of power s in unit noise: 1 / (1 + s) of its energy, by any filter at all."""
    truth = noise(320, 320)
    for power in (0.25, 1.0, 4.0):
        image = power**0.5 * truth + noise(320, 320, seed=1)
        # The shift's parabola misses by some hundredths of a pixel, and 200 rings are fitted.
        assert oracle_wiener(image, truth) == pytest.approx(1 / (1 + power), abs=0.03)


def test_oracle_wiener_betters_every_gaussian():
    truth = blobs((256, 256))
    image = truth + noise(256, 256)
    assert oracle_wiener(image, truth) < best_gaussian(image, truth)[0]


# --- Motion
# --------------------------------------------------------------------------------------------------


def test_motion_errors_of_known_motions():
    still = Motion.of_shifts(torch.zeros(4, 2))
    assert (
        motion_error(still, still, 2.0).global_px,
        motion_error(still, still, 2.0).local_px,
    ) == (
        0,
        0,
    )
    shifts = torch.tensor([[3.0, -1.0], [-3.0, 1.0], [3.0, 1.0], [-3.0, -1.0]])
    found = motion_error(Motion.of_shifts(shifts), still, 2.0)
    assert found.global_px == pytest.approx(math.sqrt((9 + 1) / 2) / 2)  # both axes, in pixels
    assert found.local_px == 0
    # A slope of 6 Angstrom along x, of y alone: its mean square over nine places is 6^2 * 5 / 12,
    # halved since x has none.
    local = torch.zeros(4, 2, 5)
    local[:2, 0, 0] = 6.0
    local[2:, 0, 0] = -6.0
    found = motion_error(Motion(torch.zeros(4, 2), local), still, 2.0)
    assert found.local_px == pytest.approx(6 * math.sqrt(5 / 12 / 2) / 2, rel=1e-6)
    assert found.global_px == 0


# --- Expected errors
# --------------------------------------------------------------------------------------------------


def test_error_classes_of_known_pixels():
    expected, actual = np.array([4.0, 1.0, 3.0, 2.0]), np.array([-8.0, 2.0, 6.0, -4.0])
    low, high = error_classes(expected, actual, 2)
    assert low == ErrorClass(pytest.approx(math.sqrt(2.5)), pytest.approx(2 * math.sqrt(2.5)))
    assert high == ErrorClass(pytest.approx(math.sqrt(12.5)), pytest.approx(2 * math.sqrt(12.5)))
    assert error_ratio(expected, actual) == pytest.approx(2)


def test_honest_errors_are_calibrated_already():
    """Normal errors of the deviation expected: a line of slope one and factor one, and each class
    right within five standard errors, 1 / sqrt(2 n).
    """
    random = np.random.default_rng(0)
    expected = np.exp(random.uniform(-3, 0, 200_000))
    actual = expected * random.standard_normal(len(expected))
    classes = error_classes(expected, actual, 20)
    error = 5 / math.sqrt(2 * len(expected) / 20)
    assert [c.actual / c.expected for c in classes] == pytest.approx([1.0] * 20, abs=error)
    assert fit_calibration(classes) == pytest.approx((1, 1), abs=error)
    assert error_ratio(expected, actual) == pytest.approx(1, abs=error)


def test_calibration_is_the_law_that_errors_follow():
    classes = [ErrorClass(e, 0.7 * e**1.3) for e in (0.01, 0.02, 0.05, 0.2)]
    assert fit_calibration(classes) == pytest.approx((0.7, 1.3))
