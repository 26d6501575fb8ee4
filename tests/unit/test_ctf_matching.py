"""The output is matched to the transfer function's zeros and maxima where the sum shows its rings,
and left alone where it does not.
"""

import pytest
import tiny
import torch

from dstnet.core.fourier import apply_transfer, radial_frequency
from dstnet.core.randomness import stream
from dstnet.enhancement import EnhancementSettings, NetworkRestorer
from dstnet.enhancement.ctf_matching import transfer_match
from dstnet.metrics.image import residual_energy
from dstnet.movie import Movie
from dstnet.optics.ctf import OpticsSettings, contrast_transfer

SHAPE, PIXEL = (400, 360), 2.0
THERE = torch.zeros(SHAPE)  # where matter is
THERE[100:300, 90:270] = 1.0
OPTICS = OpticsSettings(defocus_angstrom=9000, b_factor_angstrom2=80)


def noise(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=stream(seed, "noise"))


def specimen(seed: int) -> torch.Tensor:
    """A quarter of a field of noise-like matter, seen through the transfer function."""
    return apply_transfer(noise(seed) * THERE, 0.6 * contrast_transfer(SHAPE, PIXEL, OPTICS))


def smooth_filter(image: torch.Tensor) -> torch.Tensor:
    """What a network does that knows where matter is and how fine it is, but not where the transfer
    function has its zeros.
    """
    return apply_transfer(
        image * THERE, 0.5 * torch.exp(-(radial_frequency(SHAPE, PIXEL) * 5).square())
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_blurred_estimate_comes_closer_to_the_truth(seed):
    truth = specimen(seed)
    total = truth + noise(seed + 50)
    estimate = smooth_filter(total)
    match = transfer_match(total, estimate, PIXEL)
    assert match is not None
    transfer = match.transfer(SHAPE)
    assert float(transfer.min()) > 0.04 and float(transfer.max()) < 2
    assert residual_energy(match(estimate), truth) < residual_energy(estimate, truth) - 0.03


def test_zeros_are_emptied_and_maxima_raised():
    total = specimen(0) + noise(50)
    match = transfer_match(total, smooth_filter(total), PIXEL)
    assert match is not None
    k = radial_frequency(SHAPE, PIXEL)
    band = (k > 1 / 16) & (k < 1 / 8)
    # Of one B-factor and no spherical aberration to speak of, the square's own size says where its
    # zeros are.
    share = (
        contrast_transfer(
            SHAPE, PIXEL, OPTICS.model_copy(update={"b_factor_angstrom2": 0.0})
        ).square()
        / 4
    )
    transfer = match.transfer(SHAPE)
    assert float(transfer[band & (share < 0.05)].mean()) < 0.5
    assert float(transfer[band & (share > 0.9)].mean()) > 1.2


def test_coarse_detail_before_the_first_maximum_is_hardly_changed():
    total = specimen(0) + noise(50)
    match = transfer_match(total, smooth_filter(total), PIXEL)
    assert match is not None
    coarse = radial_frequency(SHAPE, PIXEL) < 1 / 60
    assert float((match.transfer(SHAPE)[coarse] - 1).abs().max()) < 0.15


def test_everything_lies_where_the_images_do():
    """What is left to torch's default, here a device that holds no numbers, cannot be used."""
    total = specimen(0) + noise(50)
    estimate = smooth_filter(total)
    expected = transfer_match(total, estimate, PIXEL)
    assert expected is not None
    with torch.device("meta"):
        found = transfer_match(total, estimate, PIXEL)
        assert found is not None
        filtered = found(estimate)
    assert torch.equal(filtered, expected(estimate))


def test_where_no_rings_are_nothing_is_done():
    assert transfer_match(noise(0), smooth_filter(noise(0)), PIXEL) is None


def test_the_setting_turns_it_off(model):
    total = (specimen(0) + noise(50)) * 10 + 100
    movie = Movie(total[None].numpy(), PIXEL, "here.mrc")
    values = {"model": str(model), "evidence": False}
    on, off = (
        tiny.restore(
            NetworkRestorer(EnhancementSettings.checked({**values, "ctf": ctf}, "test")),
            movie,
            "frames",
        )
        for ctf in (True, False)
    )
    assert not torch.equal(on.micrograph, off.micrograph)
    unit = (total - total.mean()) / 10
    match = transfer_match(unit, (off.micrograph - 100) / 10, PIXEL)
    assert match is not None
    # The restorer measures mean and noise itself, so to a twentieth.
    pairs = ((off.micrograph, on.micrograph), (off.frames[0], on.frames[0]))
    for before, changed in pairs:
        before, changed = before - before.mean(), changed - changed.mean()
        torch.testing.assert_close(changed, match(before), rtol=0, atol=0.05 * float(before.std()))
