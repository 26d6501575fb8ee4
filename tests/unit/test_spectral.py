"""What images share ring by ring: known answers, and noise that shares nothing."""

import math

import pytest
import torch

from dstnet.core.fourier import apply_transfer, radial_frequency, ring_count, ring_index
from dstnet.metrics.spectral import (
    RingPowers,
    band_correlation,
    ring_correlation,
    ring_powers,
    ring_signal_to_noise,
)

RINGS = 16
SHAPES = [(128, 128), (127, 161)]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def standard_errors(shape):
    """Of a ring's correlation of unrelated noise: 1 / sqrt(its independent complex terms), of which
    the half plane of ``rfft2`` holds nearly all once.
    """
    return ring_count(ring_index(shape, RINGS), RINGS).rsqrt()


@pytest.mark.parametrize("shape", SHAPES)
def test_correlation_with_itself_is_one_whatever_the_scale_and_mean(shape):
    image = noise(*shape)
    assert torch.allclose(ring_correlation(image, 3 * image - 7, RINGS), torch.ones(RINGS))
    assert torch.allclose(ring_correlation(image, -0.1 * image, RINGS), -torch.ones(RINGS))


@pytest.mark.parametrize("shape", SHAPES)
def test_unrelated_noise_has_no_correlation(shape):
    correlation = ring_correlation(noise(*shape), noise(*shape, seed=1), RINGS)
    assert bool((correlation.abs() < 5 * standard_errors(shape)).all())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("signal", [0.5, 1.0, 2.0])
def test_correlation_of_halves_with_a_common_signal(shape, signal):
    """s / (s + 1) for signal of power s in noise of power 1 (a correlation's own error is no larger
    than that of noise), and twice s for the sum of the halves.
    """
    common = math.sqrt(signal) * noise(*shape)
    halves = common + noise(*shape, seed=1), common + noise(*shape, seed=2)
    expected, error = signal / (signal + 1), 5 * standard_errors(shape)
    assert bool(((ring_correlation(*halves, RINGS) - expected).abs() < error).all())
    ratio = ring_signal_to_noise(*halves, RINGS)
    slope = 2 / (1 - expected) ** 2  # of 2 c / (1 - c)
    fine = RINGS // 2  # finer rings are known well enough for the slope to hold
    assert bool(((ratio - 2 * signal).abs()[fine:] < 1.5 * slope * error[fine:]).all())


def test_signal_to_noise_of_nothing_in_common_is_next_to_nothing():
    shape = SHAPES[0]
    ratio = ring_signal_to_noise(noise(*shape), noise(*shape, seed=1), RINGS)
    limit = 5 * standard_errors(shape)
    assert bool((ratio >= 0).all())
    assert bool((ratio <= 2 * limit / (1 - limit).clamp(min=1e-6)).all())


def test_correlation_is_of_the_rings_that_share():
    """Noise added below a quarter of the sampling rate only: those rings fall, the others do
    not.
    """
    shape = (128, 128)
    image = noise(*shape)
    low = (radial_frequency(shape) < 0.25).float()
    other = image + 3 * apply_transfer(noise(*shape, seed=1), low)
    correlation = ring_correlation(image, other, RINGS)
    assert float(correlation[: RINGS // 2].max()) < 0.6  # 1 / sqrt(10) and its error
    assert torch.allclose(correlation[RINGS // 2 :], torch.ones(RINGS // 2))


def test_both_halves_of_the_plane_count():
    shape = (32, 41)
    a, b = noise(*shape), noise(*shape, seed=1) + noise(*shape)
    x, y = (torch.fft.fft2((i - i.mean()).double()) for i in (a, b))
    k = torch.hypot(torch.fft.fftfreq(shape[0])[:, None], torch.fft.fftfreq(shape[1])[None, :])
    found = ring_correlation(a, b, 8)
    for number in range(8):
        inside = (k / 0.5 * 8).long() == number
        cross = (x * y.conj()).real[inside].sum()
        power = x.abs().square()[inside].sum() * y.abs().square()[inside].sum()
        assert float(found[number]) == pytest.approx(float(cross / power.sqrt()), abs=1e-5)


def test_stacks_are_taken_image_by_image():
    a, b = noise(3, 64, 64), noise(3, 64, 64, seed=1)
    each = torch.stack([ring_correlation(x, y, 8) for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(ring_correlation(a, b, 8), each)


def test_an_empty_image_correlates_with_nothing():
    image = noise(64, 64)
    assert torch.equal(ring_correlation(image, torch.ones(64, 64), 8), torch.zeros(8))
    assert torch.equal(ring_signal_to_noise(torch.ones(64, 64), image, 8), torch.zeros(8))


def test_ring_powers_of_known_values():
    a, b = torch.tensor([3 + 4j, 1j, 2.0, 7.0]), torch.tensor([1.0, 1j, 2j, 7.0])
    ring, weight = torch.tensor([0, 0, 1, 2]), torch.tensor([2.0, 1.0, 1.0, 1.0])
    powers = ring_powers(a, b, ring, 2, weight=weight)
    assert powers.cross.tolist() == [7.0, 0.0]
    assert powers.own.tolist() == [51.0, 4.0]
    assert powers.other.tolist() == [3.0, 4.0]
    assert powers.correlation().tolist() == pytest.approx([7 / math.sqrt(153), 0.0])
    assert powers.transfer().tolist() == pytest.approx([7 / 51, 0.0])


def test_transfer_is_the_best_filter_of_rings():
    """Of a signal of power s in unit noise it is s / (s + 1) in every ring."""
    shape = (256, 256)
    truth = 2 * noise(*shape)
    spectra = [torch.fft.rfft2(image) for image in (truth + noise(*shape, seed=1), truth)]
    transfer = ring_powers(*spectra, ring_index(shape, RINGS), RINGS).transfer()
    error = 5 * ring_count(ring_index(shape, RINGS), RINGS).rsqrt()
    assert bool(((transfer - 0.8).abs() < error).all())


def test_added_power_keeps_gradients_finite():
    zero = torch.zeros(4, requires_grad=True)
    powers = RingPowers(zero * 1.0, zero.square(), torch.ones(4))
    powers.correlation(added=1e-12).sum().backward()
    assert bool(torch.isfinite(zero.grad).all())


def test_band_correlation_is_of_the_band_alone():
    shape, pixel = (192, 200), 2.0
    image = noise(*shape)
    k = radial_frequency(shape, pixel)
    inside = ((k > 1 / 60) & (k < 1 / 10)).float()
    beyond = apply_transfer(5 * noise(*shape, seed=1), 1 - inside)
    assert band_correlation(image, image + beyond, pixel, 60, 10) == pytest.approx(1, abs=1e-5)
    assert band_correlation(image, image + beyond, pixel, 8, 5) < 0.5
    within = apply_transfer(5 * noise(*shape, seed=1), inside)
    assert band_correlation(image, image + within, pixel, 60, 10) < 0.5
    assert band_correlation(image, image + within, pixel, 8, 5) == pytest.approx(1, abs=1e-5)


def test_band_correlation_of_unrelated_noise():
    """A mean over 32 rings of some hundred terms each: none beyond 5 / sqrt(of all terms), were
    rings equally sure; the coarse ones are less so, for which a factor of two is allowed.
    """
    shape, pixel = (192, 192), 2.0
    k = radial_frequency(shape, pixel)
    terms = int(((k > 1 / 60) & (k < 1 / 10)).sum())
    found = band_correlation(noise(*shape), noise(*shape, seed=1), pixel, 60, 10)
    assert abs(found) < 2 * 5 / math.sqrt(terms)


def test_arguments_stay():
    a, b = noise(64, 64), noise(64, 64, seed=1)
    copies = a.clone(), b.clone()
    ring_correlation(a, b, 8)
    band_correlation(a, b, 2.0, 60, 10)
    assert torch.equal(a, copies[0])
    assert torch.equal(b, copies[1])
