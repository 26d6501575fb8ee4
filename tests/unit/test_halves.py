"""Enhanced half against the raw other half: known correlations and transfers."""

import math

import pytest
import torch

from dstnet.core.fourier import apply_transfer, radial_frequency
from dstnet.metrics.halves import (
    amplitude_transfer,
    gain_over_raw,
    shell_correlation,
    signal_transfer,
)
from dstnet.metrics.oracle import gaussian_filtered
from dstnet.metrics.rings import compared

SHAPE, PIXEL = (512, 480), 2.0


def noise(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def halves(ratio=1.0):
    """Two of them, signal to noise `ratio` at all frequencies."""
    signal = ratio**0.5 * noise(0)
    return signal + noise(1), signal + noise(2)


def gain(image, own, other):
    raw = compared(own, other, PIXEL)
    found = shell_correlation(image, other, PIXEL)
    return gain_over_raw(found, shell_correlation(own, other, PIXEL), raw)


def test_halves_correlate_as_their_signal_says():
    own, other = halves(0.25)
    assert shell_correlation(own, other, PIXEL) == pytest.approx(0.2, abs=0.03)
    assert shell_correlation(own, other.roll((3, -7), (0, 1)), PIXEL) == pytest.approx(
        shell_correlation(own, other, PIXEL), abs=1e-5
    )
    # Unrelated: the best of 21 x 21 shifts of what errs by 0.01 a ring and mean.
    assert abs(shell_correlation(noise(3), other, PIXEL)) < 0.08
    assert shell_correlation(torch.ones(SHAPE), other, PIXEL) == 0


def test_what_trivial_images_gain():
    """Smoothing, scale and mean gain nothing, a constant nothing at all; the method that knows the
    signal gains sqrt((1 + s) / s).
    """
    own, other = halves(0.25)
    assert gain(own, own, other) == pytest.approx(1)
    assert gain(40 * own - 7, own, other) == pytest.approx(1, abs=1e-4)
    assert gain(gaussian_filtered(own, 4.0), own, other) == pytest.approx(1, abs=1e-3)
    assert gain(torch.ones(SHAPE), own, other) == 0
    assert gain(-own, own, other) < 0.2
    assert gain(noise(0), own, other) == pytest.approx(math.sqrt(5), rel=0.1)
    assert math.isnan(gain(own, noise(3), other))


def test_transfer_of_a_gaussian_is_the_gaussian():
    own, other = halves(4.0)
    image = gaussian_filtered(own, 1.0)
    whole = compared(image, own, PIXEL)
    k = whole.frequency * PIXEL
    expected = torch.exp(-2 * (math.pi * k) ** 2)
    found = amplitude_transfer(whole)
    of_signal = signal_transfer(compared(image, other, PIXEL), compared(own, other, PIXEL))
    shown = whole.band(150, 25)
    for transfer in (found, of_signal):
        scaled = transfer * float(expected[shown].mean())
        inside = (k > 0.02) & (k < 0.4)
        assert float((scaled - expected)[inside].abs().max()) < 0.06
    assert float(amplitude_transfer(compared(torch.ones(SHAPE), own, PIXEL)).abs().max()) == 0


def test_noise_that_is_taken_out_is_no_signal_lost():
    """Half of the noise taken away beyond 20 Angstrom: less amplitude, the same signal."""
    own, other = halves(1.0)
    fine = (radial_frequency(SHAPE, PIXEL) > 1 / 20).float()
    image = own - 0.7 * apply_transfer(noise(1), fine)
    whole = compared(image, own, PIXEL)
    inside = whole.frequency > 1 / 17
    of_signal = signal_transfer(compared(image, other, PIXEL), compared(own, other, PIXEL))
    expected = math.sqrt((1 + 0.3**2) / 2)
    assert float(amplitude_transfer(whole)[inside].mean()) == pytest.approx(expected, abs=0.03)
    assert float(of_signal[inside].mean()) == pytest.approx(1, abs=0.03)


def test_signal_transfer_is_not_known_where_halves_share_nothing():
    own, other = noise(1), noise(2)
    rings = compared(own, other, PIXEL)
    assert float(signal_transfer(rings, rings).isnan().float().mean()) > 0.9
