"""Motion: its size and its means, the direction in which content moves, and the blur within a frame."""

import math

import physics_checks as checks
import pytest
import torch
from physics_checks import STILL, blob_image, centre_of_mass

from dstnet.core.fourier import shift_phase
from dstnet.core.randomness import stream
from dstnet.motion.field import MotionSettings, blur_of_path, draw_motion, local_displacement, warp


def drawn(settings=None, frames=20, exposure=2.0, pre=0.0, seed=0):
    return draw_motion(settings or MotionSettings(), frames, exposure, pre, stream(seed, "motion"))


def test_shapes_and_means():
    trajectory, path, local = drawn()
    assert trajectory.shape == path.shape == (20, 2)
    assert local.shape == (20, 2, 5)
    # Rounding of a few Å in float32.
    assert float(trajectory.mean(0).abs().max()) < 1e-5
    assert float(local.mean(0).abs().max()) < 1e-5


@pytest.mark.parametrize(("exposure", "published"), [(0.5, 2.1), (1.5, 0.67), (3.5, 0.22), (8.5, 0.13)])
def test_burst_is_as_fast_as_published(exposure, published):
    """Å per frame of 0.33 e-/Å2 around `exposure`, of the defaults.

    One law burst / (N + onset) stands for four published speeds: 3 * 0.33 / (N + 0.1) is within 25 % of each. The turning of the track
    adds sqrt(1 + 0.4^2) - 1 = 8 % at most in the median, steady drift of 0.016 Å in a random direction up to 12 % of the slowest.
    """
    speeds = torch.stack([torch.linalg.vector_norm(drawn(frames=1, exposure=0.33, pre=exposure - 0.165, seed=s)[1]) for s in range(40)])
    assert float(speeds.median()) == pytest.approx(published, rel=0.4)


def test_the_track_passes_through_the_frames():
    """Without jitter, frames lie at the middle of their paths, and each path starts where the last one ended."""
    trajectory, path, _ = drawn(MotionSettings(jitter_angstrom=0))
    torch.testing.assert_close(trajectory[1:] - trajectory[:-1], 0.5 * (path[1:] + path[:-1]), atol=1e-5, rtol=0)


def test_each_part_does_what_its_setting_says():
    trajectory, path, local = drawn(STILL)
    assert not trajectory.any()
    assert not path.any()
    assert not local.any()
    trajectory, path, _ = drawn(STILL.model_copy(update={"drift_angstrom_per_e": 0.2}))
    torch.testing.assert_close(torch.linalg.vector_norm(path, dim=1), torch.full((20,), 0.4))
    trajectory, path, _ = drawn(STILL.model_copy(update={"jitter_angstrom": 0.3}), frames=2000)
    assert not path.any()
    # 2000 normals an axis: their rms is known to 1 / sqrt(4000) of itself.
    torch.testing.assert_close(trajectory.std(0), torch.full((2,), 0.3), rtol=5 / math.sqrt(4000), atol=0)


def test_pre_exposure_is_the_end_of_the_burst():
    early, late = (torch.linalg.vector_norm(drawn(pre=pre)[1][0]) for pre in (0.0, 20.0))
    assert float(late) < 0.1 * float(early)


def mean_over_field(values):
    """Integral over [-1, 1]^2 / 4 by the trapezoid rule."""
    n = values.shape[-1]
    weight = torch.ones(n)
    weight[0] = weight[-1] = 0.5
    return torch.einsum("...yx,y,x->...", values, weight, weight) / (n - 1) ** 2


@pytest.mark.parametrize("seed", range(3))
def test_local_motion_has_mean_zero_and_the_rms_that_is_set(seed):
    local = drawn(MotionSettings(local_angstrom=0.7), seed=seed)[2]
    fields = torch.stack([local_displacement(c, (201, 201)) for c in local])
    # The rule's error for x^2 is h^2 / 6 = 2e-5, for x^4 four times that, with h = 0.01 and coefficients of order one.
    assert float(mean_over_field(fields).abs().max()) < 2e-4
    assert float(mean_over_field(fields.square()).mean().sqrt()) == pytest.approx(0.7, rel=1e-3)


def test_local_basis_is_what_the_truth_says():
    """(x, y, x^2 - 1/3, y^2 - 1/3, x y), x and y from -1 to 1."""
    for index, formula in enumerate(
        (lambda y, x: x, lambda y, x: y, lambda y, x: x * x - 1 / 3, lambda y, x: y * y - 1 / 3, lambda y, x: x * y)
    ):
        coefficients = torch.zeros(2, 5)
        coefficients[1, index] = 2.0
        got = local_displacement(coefficients, (5, 9))
        assert not got[0].any()
        for j, i in ((0, 0), (4, 0), (0, 8), (3, 1)):
            assert float(got[1, j, i]) == pytest.approx(2 * formula(-1 + j / 2, -1 + i / 4), abs=1e-6)


def test_a_grown_grid_continues_the_same_polynomial():
    coefficients = torch.randn(2, 5, generator=stream(0, "grow"))
    inner = local_displacement(coefficients, (21, 41))
    outer = local_displacement(coefficients, (41, 61), grow=(2.0, 1.5))
    torch.testing.assert_close(outer[:, 10:31, 10:51], inner, atol=1e-5, rtol=1e-5)


def test_warp_moves_content_by_plus_u():
    checks.check_warp()


def test_warp_takes_the_field_where_the_content_arrives():
    """out(x) = image(x - u(x)): with u = (2 y / h) content from row y0 arrives at y = y0 + u(y)."""
    image = blob_image((30, 40), (80, 80), 3.0)
    u = torch.zeros(2, 80, 80)
    u[0] = 0.2 * torch.arange(80.0)[:, None]
    y, x = divmod(int(warp(image, u).argmax()), 80)
    assert abs(y - 30 / (1 - 0.2)) <= 0.5 + 0.06  # nearest pixel, and what bicubic misplaces
    assert x == 40


@pytest.mark.parametrize("shift", [(2.0, -3.0), (0.5, 0.5), (1.21, -0.79), (-0.33, 4.1)])
def test_warp_of_an_even_field_is_a_shift(shift):
    """Cubic convolution with a = -3/4 misplaces by (2a + 1) t (t - 1)(2t - 1), at most 0.048 pixels an axis (Keys 1981).

    So it is off by 0.048 (|df/dy| + |df/dx|) at most to first order; of second order come 1/8 of the second differences an axis.
    """
    sigma = 5.0
    image = blob_image((45, 50), (96, 96), sigma)
    u = torch.tensor(shift)[:, None, None].expand(2, 96, 96)
    expected = torch.fft.irfft2(torch.fft.rfft2(image) * shift_phase((96, 96), shift), s=(96, 96))
    slope, curvature = math.exp(-0.5) / sigma, 1 / sigma**2
    assert float((warp(image, u) - expected).abs().max()) < 2 * 0.048 * slope + 2 * curvature / 8
    for got, moved, start in zip(centre_of_mass(warp(image, u)), shift, (45, 50), strict=True):
        assert abs(got - start - moved) < 0.05


def test_warp_by_whole_pixels_is_exact_and_arguments_stay():
    image = torch.randn(40, 40, generator=stream(0, "warp"))
    u = torch.zeros(2, 40, 40)
    u[0], u[1] = 2, -3
    before = image.clone(), u.clone()
    torch.testing.assert_close(warp(image, u)[10:30, 10:30], torch.roll(image, (2, -3), (0, 1))[10:30, 10:30], atol=1e-4, rtol=0)
    assert torch.equal(image, before[0])
    assert torch.equal(u, before[1])


def test_blur_is_the_mean_over_the_path():
    path, shape, pixel, steps = torch.tensor([3.0, -5.0]), (32, 48), 1.5, 400
    positions = [(i + 0.5) / steps - 0.5 for i in range(steps)]
    mean = sum(shift_phase(shape, (float(path[0]) / pixel * p, float(path[1]) / pixel * p)) for p in positions) / steps
    # The middle rule's error is (pi k d / steps)^2 / 6: below 1e-4 even at the corner.
    torch.testing.assert_close(blur_of_path(shape, pixel, path), mean.real, atol=1e-4, rtol=0)


def test_blur_is_a_sinc_with_its_first_zero_at_one_over_the_path():
    blur = blur_of_path((64, 64), 1.0, torch.tensor([8.0, 0.0]))
    row = blur[:, 0]  # along ky, in steps of 1/64
    assert float(row[0]) == 1
    assert bool((row[:8] > 0).all())
    assert float(row[8]) == pytest.approx(0, abs=1e-6)
    assert float(row[4]) == pytest.approx(2 / math.pi, abs=1e-6)
    assert float(row[12]) == pytest.approx(-2 / (3 * math.pi), abs=1e-6)
    assert torch.allclose(blur, row[:, None].expand(64, 33))  # nothing across the path
    assert torch.equal(blur_of_path((64, 64), 1.0, torch.zeros(2)), torch.ones(64, 33))
    assert bool((blur <= 1).all())


def test_a_single_frame_stands_at_the_reference():
    trajectory, path, local = drawn(frames=1)
    assert not trajectory.any()
    assert not local.any()
    assert path.shape == (1, 2)
    assert float(torch.linalg.vector_norm(path)) > 1  # it still moves while it is taken


def test_same_stream_same_motion():
    for a, b, c in zip(drawn(seed=1), drawn(seed=1), drawn(seed=2), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
