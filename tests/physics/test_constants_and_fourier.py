"""Constants against first principles, the one FFT convention, and the named random streams."""

import math

import physics_checks as checks
import pytest
import scipy.constants as si
import torch

from dstnet.core import constants
from dstnet.core.fourier import (
    conjugate_counts,
    crop_spectrum,
    frequencies,
    next_fast_size,
    radial_frequency,
    radial_mean,
    resample,
    ring_count,
    ring_index,
    ring_mean,
    ring_sum,
    shift_phase,
)
from dstnet.core.randomness import stream

# --- Constants
# --------------------------------------------------------------------------------------------------


def test_wavelength_is_relativistic():
    checks.check_wavelength()


def test_interaction_constant_is_relativistic():
    checks.check_interaction_constant()


def test_mott_constant_from_h_m0_and_e():
    """h^2 / (2 pi m0 e), in V m^2; written with seven digits, CODATA releases differ by some
    1e-9.
    """
    assert math.isclose(
        constants.MOTT_VOLT_ANGSTROM2, si.h**2 / (2 * math.pi * si.m_e * si.e) * 1e20, rel_tol=1e-6
    )


def test_base_constants():
    kev = 1e3 * si.e
    assert math.isclose(
        constants.ELECTRON_REST_ENERGY_KEV, si.m_e * si.c**2 / kev, rel_tol=1e-8
    )  # CODATA releases differ by 1e-9
    assert math.isclose(
        constants.PLANCK_TIMES_C_KEV_ANGSTROM, si.h * si.c / kev * 1e10, rel_tol=1e-9
    )  # exact, ten digits


# --- Fourier
# --------------------------------------------------------------------------------------------------

EVEN_AND_ODD = [(48, 64), (49, 64), (48, 65), (49, 65)]


def band_limited(shape, k_max, seed=0):
    """Noise without frequencies (per pixel, of either axis) of or above `k_max`, around a mean of
    2.
    """
    spectrum = torch.fft.rfft2(
        torch.randn(shape, generator=stream(seed, "image"), dtype=torch.float64)
    )
    ky, kx = frequencies(shape)
    spectrum = spectrum * ((ky.abs() < k_max) & (kx.abs() < k_max))
    return torch.fft.irfft2(spectrum, s=shape) + 2


def test_shift_moves_by_dy_dx_and_keeps_the_total():
    checks.check_shift()


@pytest.mark.parametrize("shape", EVEN_AND_ODD)
def test_shift_by_whole_pixels_is_a_roll(shape):
    image = torch.randn(shape, generator=stream(1, "roll"))
    moved = torch.fft.irfft2(torch.fft.rfft2(image) * shift_phase(shape, (3, -7)), s=shape)
    torch.testing.assert_close(
        moved, torch.roll(image, (3, -7), (0, 1)), atol=1e-4, rtol=0
    )  # phases reach 2 pi 3.5: float32 leaves 2e-6 rad


def test_shifts_add_up():
    a, b, both = (shift_phase((48, 64), s) for s in ((0.3, -1.2), (1.1, 0.45), (1.4, -0.75)))
    torch.testing.assert_close(a * b, both, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", EVEN_AND_ODD)
@pytest.mark.parametrize("new", [(30, 40), (31, 41), (64, 96), (65, 99), (30, 99), (65, 40)])
def test_resampling_keeps_the_mean_and_pixel_zero(shape, new):
    """A band-limited image is a function; its samples on the new grid, [0, 0] where it was, are
    those of that function.
    """
    image = band_limited(shape, 0.2)  # representable on all grids: 0.2 * 49 / 30 = 0.33
    got = resample(image, new)
    assert float(got.mean()) == pytest.approx(float(image.mean()), rel=1e-12)
    assert float(got[0, 0]) == pytest.approx(float(image[0, 0]), abs=1e-12)
    # The function itself, summed at pixel [j, i] of the new grid, which lies at (j, i) * old / new.
    spectrum = torch.fft.fft2(image) / image.numel()
    ky, kx = (torch.fft.fftfreq(n, dtype=torch.float64) for n in shape)
    j, i = 17, 23
    wave = torch.exp(
        2j * math.pi * (ky[:, None] * j * shape[0] / new[0] + kx[None, :] * i * shape[1] / new[1])
    )
    assert float(got[j, i]) == pytest.approx(float((spectrum * wave).sum().real), abs=1e-12)


@pytest.mark.parametrize("shape", EVEN_AND_ODD)
@pytest.mark.parametrize("new", [(70, 80), (71, 81), (50, 67)])
def test_up_and_down_again_is_exact(shape, new):
    image = band_limited(shape, 0.5)  # all but the lone Nyquist terms of even axes
    torch.testing.assert_close(resample(resample(image, new), shape), image, atol=1e-12, rtol=0)


def test_resampling_to_the_same_shape_changes_nothing_and_arguments_stay():
    image = band_limited((48, 64), 0.5)
    assert resample(image, (48, 64)) is image
    spectrum = torch.fft.rfft2(image)
    before = spectrum.clone()
    crop_spectrum(spectrum, (48, 64), (30, 80))
    assert torch.equal(spectrum, before)


def test_resampling_works_on_stacks():
    stack = torch.stack([band_limited((48, 64), 0.3, seed) for seed in range(3)])
    torch.testing.assert_close(resample(stack, (40, 50))[1], resample(stack[1], (40, 50)))


def test_frequencies_are_per_unit_of_spacing():
    ky, kx = frequencies((8, 10), 2.0)
    assert ky.shape == (8, 1)
    assert kx.shape == (1, 6)
    assert float(ky[1, 0]) == pytest.approx(1 / 16)
    assert float(kx[0, -1]) == pytest.approx(0.25)  # Nyquist, 1 / (2 spacing)
    assert float(radial_frequency((8, 10), 2.0)[1, 2]) == pytest.approx(math.hypot(1 / 16, 2 / 20))


def test_good_size():
    def is_good(n):
        for p in (2, 3, 5, 7):
            while n % p == 0:
                n //= p
        return n == 1

    for n in range(1, 600):
        got = next_fast_size(n)
        assert got == next(m for m in range(max(n, 2), 2 * n + 3) if m % 2 == 0 and is_good(m))


@pytest.mark.parametrize("shape", [(128, 160), (127, 161)])
def test_radial_mean_of_white_noise_is_flat(shape):
    """|F|^2 / n of unit noise is one in every ring; a ring of m terms, m / 2 of them independent,
    is known to sqrt(2 / m).
    """
    image = torch.randn(shape, generator=stream(2, "white"))
    power = torch.fft.rfft2(image).abs().square() / image.numel()
    mean, error = checks.rings(image, 16)
    assert bool(((mean - 1).abs() < 5 * error).all())
    torch.testing.assert_close(mean[1:], radial_mean(power, shape, 16)[1:])
    assert torch.allclose(
        radial_mean(torch.full_like(power, 3.0), shape, 16), torch.full((16,), 3.0)
    )


@pytest.mark.parametrize("shape", [(32, 40), (33, 41)])
def test_radial_mean_counts_both_halves_of_the_plane(shape):
    image = torch.randn(shape, generator=stream(3, "both halves"))
    full = torch.fft.fft2(image).abs().square()
    k = torch.hypot(torch.fft.fftfreq(shape[0])[:, None], torch.fft.fftfreq(shape[1])[None, :])
    expected = torch.stack([full[(k / 0.5 * 8).long() == i].mean() for i in range(8)])
    torch.testing.assert_close(
        radial_mean(torch.fft.rfft2(image).abs().square(), shape, 8), expected, rtol=1e-4, atol=0
    )


def test_radial_mean_of_a_stack_is_that_of_each_image():
    powers = torch.rand(3, 32, 21, generator=stream(4, "stack"))
    expected = torch.stack([radial_mean(power, (32, 40), 8) for power in powers])
    assert torch.equal(radial_mean(powers, (32, 40), 8), expected)


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_conjugate_counts_make_the_complete_plane(width):
    """By Parseval: the power of the counted half equals that of all of it."""
    image = torch.randn(5, width, generator=stream(5, "plane"), dtype=torch.float64)
    counted = torch.fft.rfft2(image).abs().square() * conjugate_counts(width)
    assert float(counted.sum()) == pytest.approx(float(torch.fft.fft2(image).abs().square().sum()))
    assert float(conjugate_counts(width).sum()) == width


def test_ring_sums_of_known_values():
    values = torch.tensor([[[1.0, 2.0], [4.0, 8.0]], [[16.0, 32.0], [64.0, 128.0]]])
    ring = torch.tensor([[0, 2], [0, 5]])
    expected = torch.tensor([[5.0, 0.0, 2.0], [80.0, 0.0, 32.0]])  # the term of ring 5 is left out
    assert torch.equal(ring_sum(values, ring, 3), expected)
    assert ring_count(ring, 3).tolist() == [2, 0, 1]
    assert torch.equal(ring_mean(values, ring, 3), torch.tensor([[2.5, 0.0, 2.0], [40, 0.0, 32.0]]))
    assert ring_sum(values, ring).shape == (2, 6)  # as many as are numbered
    assert ring_count(ring).tolist() == [2, 0, 1, 0, 0, 1]


def test_ring_sums_add_up_in_the_type_asked_for():
    """One and 2^-30: float32 loses the small one, float64 does not."""
    values, ring = torch.tensor([1.0, 2.0**-30]), torch.zeros(2, dtype=torch.long)
    assert ring_sum(values, ring).tolist() == [1.0]
    assert ring_sum(values, ring, dtype=torch.float64).tolist() == [1.0 + 2.0**-30]


def test_ring_sums_leave_their_arguments_and_pass_gradients():
    values = torch.rand(2, 6, generator=stream(6, "gradient")).requires_grad_()
    ring = torch.tensor([0, 1, 1, 2, 3, 9])
    copies = values.detach().clone(), ring.clone()
    (ring_sum(values, ring, 3) * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert torch.equal(values.grad, torch.tensor([1.0, 10.0, 10.0, 100.0, 0.0, 0.0]).expand(2, 6))
    assert torch.equal(values.detach(), copies[0])
    assert torch.equal(ring, copies[1])


def test_ring_index_reaches_nyquist_and_goes_on_in_the_corners():
    ring = ring_index((64, 64), 8)
    assert int(ring[0, 0]) == 0
    assert int(ring[0, 31]) == 7
    assert int(ring[32, 0]) == 8  # Nyquist itself is beyond the last ring, 7
    assert int(ring.max()) == 11  # 8 * sqrt(2)


# --- Random streams
# --------------------------------------------------------------------------------------------------


def test_streams_are_reproducible_to_the_bit():
    assert torch.equal(
        torch.randn(100, generator=stream(7, "ice")), torch.randn(100, generator=stream(7, "ice"))
    )
    # Written down: a change of the derivation would silently change every published movie.
    assert stream(7, "ice").initial_seed() == 7195364344250521761


def test_streams_of_other_names_or_seeds_are_independent():
    """Correlation of 20,000 pairs of independent normals is 0 within five times 1 /
    sqrt(20,000).
    """
    draws = [
        torch.randn(20000, generator=stream(seed, *names))
        for seed, *names in ((7, "ice"), (8, "ice"), (7, "motion"), (7, "ice", 0), (7, "ice", 1))
    ]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(5)
    assert float(correlation.abs().max()) < 5 / math.sqrt(20000)


def test_drawing_more_from_one_stream_leaves_the_others():
    torch.randn(1000, generator=stream(7, "new stage"))
    torch.manual_seed(0)
    expected = torch.randn(5, generator=stream(7, "ice"))
    torch.manual_seed(1)
    assert torch.equal(torch.randn(5, generator=stream(7, "ice")), expected)
