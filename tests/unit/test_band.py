"""The band in which an image has noise (`dstnet.movie.band`), and what is done about images that were filtered."""

import math

import pytest
import torch

from dstnet.core.fourier import multiplied, radial_frequency, resample
from dstnet.movie.band import noise_band, refiltered, whitened
from dstnet.movie.normalise import normalised


def noise(shape=(512, 512), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pixel", [1.0, 1.5, 2.0])
def test_unfiltered_noise_is_left_as_it_is(pixel):
    assert noise_band(noise(), pixel).plain


def test_coarse_pixels_end_at_their_nyquist_and_are_filled_with_white_noise():
    image = noise((256, 256))
    band = noise_band(image, 5.0)
    assert not band.plain and band.fall_angstrom2 == 0
    assert 0.9 * 0.1 < band.edge_per_angstrom <= 0.1
    out = whitened(image[None], 5.0, band, 2.0)[0]
    assert out.shape == (640, 640)
    power = torch.fft.rfft2(out).abs().square() / out.numel()
    k = radial_frequency((640, 640), 2.0)
    inside, outside = (float(power[(k > low) & (k < high)].mean()) for low, high in ((0.02, 0.08), (0.12, 0.24)))
    assert outside == pytest.approx(inside, rel=0.03)


def test_a_low_passed_image_gets_back_what_its_filter_took_and_is_filtered_again():
    sigma = 18.0  # Å
    k = radial_frequency((768, 768), 2.0)
    scene = multiplied(noise((768, 768)), (1 + 9 * torch.exp(-((k * 120) ** 2) / 2)).sqrt())
    soft = multiplied(scene, torch.exp(-2 * (math.pi * sigma * k) ** 2)) + 1e-4 * noise((768, 768), 1)
    band = noise_band(soft, 2.0)
    assert not band.plain
    # within a third of 4 pi^2 sigma^2: how much of the fall is particles' is not known
    assert band.fall_angstrom2 == pytest.approx(4 * math.pi**2 * sigma**2, rel=0.34)
    flat = whitened(soft[None], 2.0, band, 2.0)
    total = normalised(flat)[1]
    assert float(total.std()) < 3  # 0.7.0: hundreds
    again = refiltered(flat[0], 2.0, band)
    inside = (k > 1 / 200) & (k < 0.7 * band.edge_per_angstrom)
    a, b = (torch.fft.rfft2(x)[inside] for x in (again, soft))
    assert float((a - b).abs().square().mean() / b.abs().square().mean()) < 0.02


def test_particles_and_rings_are_not_taken_for_a_filter():
    k = radial_frequency((768, 768), 2.0)
    strong = multiplied(noise((768, 768)), (1 + 100 * torch.exp(-((k * 60) ** 2) / 2)).sqrt())
    assert noise_band(strong, 2.0).plain
    assert noise_band(resample(strong, (384, 384)), 4.0).fall_angstrom2 == 0
