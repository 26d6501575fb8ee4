"""The trusted linear part: nothing on noise, the filtered image where the network gave nothing, its own output where it gave all."""

import torch

from dstnet.core.fourier import radial_frequency
from dstnet.core.randomness import stream
from dstnet.enhancement.evidence import fading

SHAPE = (384, 360)


def noise(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=stream(seed, "noise"))


def signal(rms: float) -> torch.Tensor:
    """Detail between 100 and 20 Å at 2 Å/px."""
    k = radial_frequency(SHAPE, 2.0)
    band = torch.fft.irfft2(torch.fft.rfft2(noise(99)) * ((k > 1 / 100) & (k < 1 / 20)), s=SHAPE)
    return band * (rms / band.std())


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_pure_noise_adds_next_to_nothing():
    # One of 120 rings may pass the significance by chance; it holds below 1 % of the power, and its transfer is below 0.1 squared.
    for seed in range(5):
        added = fading(noise(seed), torch.zeros(SHAPE), 2.0)
        assert float(added.square().mean()) < 1e-3


def test_what_the_network_gave_nothing_of_is_shown_filtered():
    truth = signal(0.3)
    total = truth + noise(0)
    added = fading(total, torch.zeros(SHAPE), 2.0)
    assert correlation(added, truth) > correlation(total, truth) + 0.2
    # a power of 0.09 in the 2 % of terms that the band holds is a signal-to-noise ratio of about 4 there: the filter keeps 0.8 of it
    assert 0.65 < float((added * truth).sum() / truth.square().sum()) < 0.95


def test_what_the_network_made_up_goes_where_it_explains_nothing():
    truth, invented = signal(0.3), 0.01 * noise(7)
    total = truth + noise(0)
    faded = invented + fading(total, invented, 2.0)
    linear = fading(total, torch.zeros(SHAPE), 2.0)
    assert correlation(faded, linear) > 0.99


def test_an_output_that_explains_the_signal_stays_as_it_is():
    truth = signal(0.3)
    assert not fading(truth + noise(0), truth, 2.0).any() or float(fading(truth + noise(0), truth, 2.0).std()) < 1e-3 * float(truth.std())


def test_the_share_left_governs_how_far_it_fades():
    truth = signal(0.3)
    total = truth + noise(0)
    powers = [float(fading(total, given * truth, 2.0).square().mean()) for given in (0.0, 0.3, 0.6, 0.9)]
    assert powers == sorted(powers, reverse=True) and powers[0] > 10 * powers[3]


def test_slow_gradients_alone_are_no_signal_and_arguments_stay_as_they_are():
    ramp = 3 * torch.cos(2 * torch.pi * torch.arange(SHAPE[0]) / SHAPE[0])[:, None].expand(SHAPE)  # period 768 Å
    total, enhanced = noise(0) + ramp, torch.zeros(SHAPE)
    before = total.clone()
    assert float((fading(total, enhanced, 2.0) * ramp).mean()) < 1e-3 * float(ramp.square().mean())
    assert torch.equal(total, before) and not enhanced.any()
