"""What training minimises."""

import math

import pytest
import torch

from dstnet.core.fourier import radial_frequency
from dstnet.training.losses import ring_correlation_loss, squared_error

RINGS = 16


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_squared_error_known_values():
    target = torch.ones(1, 1, 8, 8) * 2  # power 4
    assert float(squared_error(target, target, 0.1)) == 0
    assert float(squared_error(torch.zeros_like(target), target, 0.1)) == pytest.approx(math.log1p(4 / 4.1))
    assert float(squared_error(target + 1, target, 0.1)) == pytest.approx(math.log1p(1 / 4.1))
    empty = torch.zeros_like(target)
    assert float(squared_error(target, empty, 0.1)) == pytest.approx(math.log1p(4 / 0.1))
    assert float(squared_error(empty, empty, 0.1)) == 0


def test_squared_error_is_a_mean_over_fields():
    """Each field by its own power: a faint one weighs as much as a strong one."""
    strong, faint = noise(1, 1, 16, 16), 0.01 * noise(1, 1, 16, 16)
    assert float(squared_error(torch.cat((0 * strong, 0 * faint)), torch.cat((strong, faint)), 1e-9)) == pytest.approx(
        math.log(2), rel=1e-4
    )
    both = squared_error(torch.cat((2 * strong, faint)), torch.cat((strong, faint)), 1e-9)
    assert float(both) == pytest.approx(math.log(2) / 2, rel=1e-4)


def test_ring_loss_is_zero_for_the_pattern_at_any_amplitude():
    target = noise(2, 1, 64, 48)
    for scale in (1.0, 7.0, 0.03):
        assert float(ring_correlation_loss(scale * target, target, RINGS)) == pytest.approx(0, abs=1e-5)
    assert float(ring_correlation_loss(-target, target, RINGS)) == pytest.approx(2, abs=1e-5)
    assert float(ring_correlation_loss(target + 5, target, RINGS)) == pytest.approx(0, abs=1e-5), "the mean is left out"


def test_rings_without_a_frequency_cost_nothing():
    target = noise(1, 1, 16, 16)
    assert float(ring_correlation_loss(target, target, 48)) == pytest.approx(0, abs=1e-5)


def test_ring_loss_is_one_for_unrelated_noise():
    shape, fields = (128, 128), 4
    found = ring_correlation_loss(noise(fields, 1, *shape), noise(fields, 1, *shape, seed=1), RINGS)
    # A ring of n coefficients correlates by chance with a deviation of at most 1 / sqrt(n); rings are independent.
    k = radial_frequency(shape)
    counts = torch.bincount((k[(k > 0) & (k < 0.5)] / 0.5 * RINGS).long(), minlength=RINGS)
    weight = 1 / (torch.arange(RINGS) + 0.5)
    error = float((weight.square() / counts).sum().sqrt() / weight.sum()) / math.sqrt(fields)
    assert float(found) == pytest.approx(1, abs=5 * error)


def test_ring_loss_weighs_coarse_rings_more():
    target, other = torch.fft.rfft2(noise(1, 1, 64, 64)), torch.fft.rfft2(noise(1, 1, 64, 64, seed=1))
    coarse = radial_frequency((64, 64)) < 0.25
    image = torch.fft.irfft2(target, s=(64, 64))
    coarse_right = torch.fft.irfft2(torch.where(coarse, target, other), s=(64, 64))
    fine_right = torch.fft.irfft2(torch.where(coarse, other, target), s=(64, 64))
    assert ring_correlation_loss(coarse_right, image, RINGS) < ring_correlation_loss(fine_right, image, RINGS)


def test_ring_loss_leaves_empty_targets_out():
    output, target = noise(1, 1, 32, 32), noise(1, 1, 32, 32, seed=1)
    alone = ring_correlation_loss(output, target, RINGS)
    with_empty = ring_correlation_loss(torch.cat((output, output)), torch.cat((target, 0 * target)), RINGS)
    assert float(with_empty) == pytest.approx(float(alone))
    assert float(ring_correlation_loss(output, 1e-3 * target, RINGS)) == 0


@pytest.mark.parametrize("power", [0.0, 1e-3, 1.0])
def test_gradients_are_finite_where_the_output_is_zero(power):
    output = torch.zeros(2, 1, 32, 32, requires_grad=True)
    target = math.sqrt(power) * noise(2, 1, 32, 32)
    loss = squared_error(output, target, 5e-4) + ring_correlation_loss(output, target, RINGS)
    assert torch.isfinite(loss)
    loss.backward()
    assert output.grad is not None and torch.isfinite(output.grad).all()
    assert bool(output.grad.any()) == (power > 0)


def test_descending_both_losses_finds_the_target():
    target = 0.1 * noise(1, 1, 16, 16)
    output = torch.zeros_like(target, requires_grad=True)
    optimizer = torch.optim.Adam([output], lr=0.003)
    first = None
    for _ in range(150):
        loss = squared_error(output, target, 5e-4) + 0.3 * ring_correlation_loss(output, target, 8)
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([output], 1.0)  # as training does: the ring loss is very steep at zero
        optimizer.step()
    assert float(loss.detach()) < 0.1 * first
