"""What training minimises."""

import math

import pytest
import torch

from dstnet.core.fourier import radial_frequency
from dstnet.errors import SettingsError
from dstnet.training import losses
from dstnet.training.losses import (
    error_likelihood,
    focal_frequency_loss,
    image_loss,
    pixel_loss,
    ring_correlation_loss,
)

RINGS = 16


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_squared_ratio_known_values():
    target = torch.ones(1, 1, 8, 8) * 2  # power 4
    assert float(pixel_loss(target, target, 0.1)) == 0
    assert float(pixel_loss(torch.zeros_like(target), target, 0.1)) == pytest.approx(
        math.log1p(4 / 4.1)
    )
    assert float(pixel_loss(target + 1, target, 0.1)) == pytest.approx(math.log1p(1 / 4.1))
    empty = torch.zeros_like(target)
    assert float(pixel_loss(target, empty, 0.1)) == pytest.approx(math.log1p(4 / 0.1))
    assert float(pixel_loss(empty, empty, 0.1)) == 0


def test_squared_ratio_is_a_mean_over_fields():
    """Each field by its own power: a faint one weighs as much as a strong one."""
    strong, faint = noise(1, 1, 16, 16), 0.01 * noise(1, 1, 16, 16)
    assert float(
        pixel_loss(torch.cat((0 * strong, 0 * faint)), torch.cat((strong, faint)), 1e-9)
    ) == pytest.approx(math.log(2), rel=1e-4)
    both = pixel_loss(torch.cat((2 * strong, faint)), torch.cat((strong, faint)), 1e-9)
    assert float(both) == pytest.approx(math.log(2) / 2, rel=1e-4)


# By hand: power (9 + 16 + 0 + 0) / 4 = 6.25, with a floor of 2.75 a scale of 3; errors 3, 0, -3, 0
# are 1, 0, -1, 0 in its units.
HAND_TARGET = torch.tensor([[3.0, 4.0], [0.0, 0.0]])[None, None]
HAND_OUTPUT = torch.tensor([[6.0, 4.0], [-3.0, 0.0]])[None, None]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("squared_ratio", math.log(1.5)),
        ("l2", 0.5),
        ("l1", 0.5),
        ("charbonnier", 0.5 * math.sqrt(1 + 1e-6) + 0.5 * 1e-3),
    ],
)
def test_pixel_losses_by_hand(kind, expected):
    assert float(pixel_loss(HAND_OUTPUT, HAND_TARGET, 2.75, kind)) == pytest.approx(
        expected, rel=1e-6
    )


@pytest.mark.parametrize("kind", ["squared_ratio", "l2", "l1", "charbonnier"])
def test_pixel_losses_are_of_one_scale(kind):
    """An output of nothing costs 0.6 to 1.1, whatever the target's power: one learning rate does
    for all.
    """
    for scale in (0.05, 1.0, 20.0):
        target = scale * noise(2, 1, 64, 64)
        found = float(pixel_loss(torch.zeros_like(target), target, 1e-6, kind))
        # log 2, 1, and the mean of |normal| = sqrt(2 / pi), each within 5 standard errors of a mean
        # over 8192 pixels
        expected = {
            "squared_ratio": math.log(2),
            "l2": 1.0,
            "l1": math.sqrt(2 / math.pi),
            "charbonnier": math.sqrt(2 / math.pi),
        }[kind]
        assert found == pytest.approx(expected, abs=5 / math.sqrt(8192))


def test_an_unknown_pixel_loss_is_refused():
    with pytest.raises(SettingsError, match=r"'l3'.*squared_ratio, l1, l2, charbonnier"):
        pixel_loss(HAND_OUTPUT, HAND_TARGET, 1.0, "l3")  # pyright: ignore


def test_focal_frequency_loss_by_hand():
    """A difference of 3, 1; 0, 0 has the orthonormal terms (4, 2, 4, 2) / 2: weights 1, 1/2, 1, 1/2
    and powers 4, 1, 4, 1.
    """
    target = noise(1, 1, 2, 2)
    output = target + torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    by_hand = (1 * 4 + 0.5 * 1 + 1 * 4 + 0.5 * 1) / 4
    assert float(focal_frequency_loss(output, target)) == pytest.approx(by_hand, rel=1e-5)


def test_focal_frequency_loss_takes_each_images_own_maximum_and_leaves_weights_alone():
    output, target = noise(2, 1, 16, 16).requires_grad_(), noise(2, 1, 16, 16, seed=1)
    uneven, plain = torch.cat((target[:1], 100 * target[1:])), output.detach()
    apart = [float(focal_frequency_loss(plain[i : i + 1], uneven[i : i + 1])) for i in (0, 1)]
    assert float(focal_frequency_loss(plain, uneven)) == pytest.approx(sum(apart) / 2, rel=1e-5)
    # With the weights held the loss is quadratic in the difference: gradient times difference is
    # twice the loss.
    (gradient,) = torch.autograd.grad(focal_frequency_loss(output, target), output)
    product = float((gradient * (plain - target)).sum())
    assert product == pytest.approx(2 * float(focal_frequency_loss(plain, target)), rel=1e-4)


def test_focal_frequency_loss_of_nothing_is_nothing():
    output = noise(1, 1, 8, 8).requires_grad_()
    loss = focal_frequency_loss(output, output.detach())
    loss.backward()
    assert (
        float(loss.detach()) == 0 and output.grad is not None and torch.isfinite(output.grad).all()
    )


def test_the_image_loss_is_the_weighted_sum_of_its_parts():
    output, target = noise(2, 1, 32, 32), 3 * noise(2, 1, 32, 32, seed=1)
    scale = (target.square().mean((-2, -1), keepdim=True) + 0.1).rsqrt()
    parts = (
        pixel_loss(output, target, 0.1, "l1"),
        ring_correlation_loss(output, target, 8),
        focal_frequency_loss(output * scale, target * scale),
    )
    for ring, focal in ((0.0, 0.0), (0.3, 0.0), (0.0, 2.0), (0.3, 2.0)):
        found = image_loss(
            output, target, 0.1, kind="l1", ring_weight=ring, rings=8, focal_weight=focal
        )
        assert float(found) == pytest.approx(
            float(parts[0] + ring * parts[1] + focal * parts[2]), rel=1e-6
        )


def test_error_likelihood_is_least_at_the_true_deviation():
    """Of errors that follow Student's t, as it takes them to."""
    degrees, true, count = losses.TAIL, 0.3, 256**2
    random = torch.Generator().manual_seed(2)
    square = torch.distributions.Chi2(degrees)
    torch.manual_seed(2)
    student = (
        torch.randn(1, 1, 256, 256, generator=random)
        / (square.sample((1, 1, 256, 256)) / degrees).sqrt()
    )
    output = noise(1, 1, 256, 256)
    target = output + true * student * math.sqrt((degrees - 2) / degrees)  # of deviation `true`

    def at(e):
        return float(error_likelihood(torch.full_like(output, e), output, target))

    # The maximum of likelihood has a relative standard error of sqrt((degrees + 3) / (2 degrees
    # n)): 0.4 %.
    error = math.sqrt((degrees + 3) / (2 * degrees * count))
    tried = [true * math.exp(0.5 * error * i) for i in range(-80, 81)]
    assert min(tried, key=at) == pytest.approx(true, rel=5.5 * error)
    # By hand, of one pixel: log e + (degrees + 1) / 2 log(1 + (error / e)^2 / (degrees - 2)).
    one = error_likelihood(
        torch.full((1, 1, 1, 1), 2.0), torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 3.0)
    )
    assert float(one) == pytest.approx(
        math.log(2) + (degrees + 1) / 2 * math.log1p(2.25 / (degrees - 2)), rel=1e-6
    )


def test_error_likelihood_bounds_what_one_pixel_pulls():
    """A pixel a thousand deviations off pulls at most as its degrees of freedom, not as its
    square.
    """
    expected = torch.ones(1, 1, 1, 1, requires_grad=True)
    error_likelihood(expected, torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 1e3)).backward()
    assert float(expected.grad) == pytest.approx(-losses.TAIL, rel=1e-3)


def test_error_likelihood_leaves_the_output_alone():
    output, expected = (
        noise(1, 1, 8, 8).requires_grad_(),
        torch.ones(1, 1, 8, 8, requires_grad=True),
    )
    error_likelihood(expected, output, noise(1, 1, 8, 8, seed=1)).backward()
    assert output.grad is None and expected.grad is not None and bool(expected.grad.any())


def test_ring_loss_is_zero_for_the_pattern_at_any_amplitude():
    target = noise(2, 1, 64, 48)
    for scale in (1.0, 7.0, 0.03):
        assert float(ring_correlation_loss(scale * target, target, RINGS)) == pytest.approx(
            0, abs=1e-5
        )
    assert float(ring_correlation_loss(-target, target, RINGS)) == pytest.approx(2, abs=1e-5)
    assert float(ring_correlation_loss(target + 5, target, RINGS)) == pytest.approx(0, abs=1e-5), (
        "the mean is left out"
    )


def test_rings_without_a_frequency_cost_nothing():
    target = noise(1, 1, 16, 16)
    assert float(ring_correlation_loss(target, target, 48)) == pytest.approx(0, abs=1e-5)


def test_ring_loss_is_one_for_unrelated_noise():
    shape, fields = (128, 128), 4
    found = ring_correlation_loss(noise(fields, 1, *shape), noise(fields, 1, *shape, seed=1), RINGS)
    # A ring of n coefficients correlates by chance with a deviation of at most 1 / sqrt(n); rings
    # are independent.
    k = radial_frequency(shape)
    counts = torch.bincount((k[(k > 0) & (k < 0.5)] / 0.5 * RINGS).long(), minlength=RINGS)
    weight = 1 / (torch.arange(RINGS) + 0.5)
    error = float((weight.square() / counts).sum().sqrt() / weight.sum()) / math.sqrt(fields)
    assert float(found) == pytest.approx(1, abs=5 * error)


def test_ring_loss_weighs_coarse_rings_more():
    target, other = (
        torch.fft.rfft2(noise(1, 1, 64, 64)),
        torch.fft.rfft2(noise(1, 1, 64, 64, seed=1)),
    )
    coarse = radial_frequency((64, 64)) < 0.25
    image = torch.fft.irfft2(target, s=(64, 64))
    coarse_right = torch.fft.irfft2(torch.where(coarse, target, other), s=(64, 64))
    fine_right = torch.fft.irfft2(torch.where(coarse, other, target), s=(64, 64))
    assert ring_correlation_loss(coarse_right, image, RINGS) < ring_correlation_loss(
        fine_right, image, RINGS
    )


def test_ring_loss_leaves_empty_targets_out():
    output, target = noise(1, 1, 32, 32), noise(1, 1, 32, 32, seed=1)
    alone = ring_correlation_loss(output, target, RINGS)
    with_empty = ring_correlation_loss(
        torch.cat((output, output)), torch.cat((target, 0 * target)), RINGS
    )
    assert float(with_empty) == pytest.approx(float(alone))
    assert float(ring_correlation_loss(output, 1e-3 * target, RINGS)) == 0


@pytest.mark.parametrize("power", [0.0, 1e-3, 1.0])
def test_gradients_are_finite_where_the_output_is_zero(power):
    output = torch.zeros(2, 1, 32, 32, requires_grad=True)
    target = math.sqrt(power) * noise(2, 1, 32, 32)
    loss = pixel_loss(output, target, 5e-4) + ring_correlation_loss(output, target, RINGS)
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
        loss = pixel_loss(output, target, 5e-4) + 0.3 * ring_correlation_loss(output, target, 8)
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(
            [output], 1.0
        )  # as training does: the ring loss is very steep at zero
        optimizer.step()
    assert float(loss.detach()) < 0.1 * first
