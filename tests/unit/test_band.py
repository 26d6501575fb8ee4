"""The band in which an image has noise (`dstnet.movie.band`), and what is done about images that
were binned or low-passed.
"""

import math

import pytest
import torch

from dstnet.core.fourier import apply_transfer, radial_frequency, resample
from dstnet.enhancement import EnhancementSettings
from dstnet.enhancement.preparation import prepare
from dstnet.movie.band import noise_band
from dstnet.movie.normalise import normalised

WORKING = 2.0


def noise(shape=(512, 512), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pixel", [1.0, 1.5, 2.0, 2.2])
def test_unfiltered_noise_is_left_as_it_is(pixel):
    assert noise_band(noise(), pixel, WORKING) is None


def test_coarse_pixels_end_at_their_nyquist_and_are_filled_with_white_noise():
    image = noise((256, 256))
    band = noise_band(image, 5.0, WORKING)
    assert band is not None and band.fall_angstrom2 == 0
    assert 0.09 < band.edge_per_angstrom <= 0.1
    assert 10 < band.finest_angstrom < 12
    out = band.whitened(image[None], (640, 640), WORKING)[0]
    power = torch.fft.rfft2(out).abs().square() / out.numel()
    k = radial_frequency((640, 640), WORKING)
    inside, across, outside = (
        float(power[(k > low) & (k < high)].mean())
        for low, high in ((0.02, 0.08), (0.085, 0.105), (0.12, 0.24))
    )
    assert outside == pytest.approx(inside, rel=0.03)
    assert across == pytest.approx(inside, rel=0.06)


def test_noise_differs_from_image_to_image_and_is_the_same_each_time():
    images = torch.stack((noise((128, 128)), noise((128, 128), 1)))
    band = noise_band(images[0], 5.0, WORKING)
    assert band is not None
    first, second = band.whitened(images, (320, 320), WORKING)
    again = band.whitened(images, (320, 320), WORKING)
    assert torch.equal(again, torch.stack((first, second)))
    fine = (radial_frequency((320, 320), WORKING) > 0.12).float()
    a, b = (apply_transfer(image, fine).flatten() for image in (first, second))
    assert abs(float(torch.corrcoef(torch.stack((a, b)))[0, 1])) < 0.02


def test_a_low_passed_image_gets_back_what_its_filter_took_and_is_filtered_again():
    sigma = 18.0  # Å
    shape = (768, 768)
    k = radial_frequency(shape, 2.0)
    scene = apply_transfer(noise(shape), (1 + 9 * torch.exp(-((k * 120) ** 2) / 2)).sqrt())
    low_pass = torch.exp(-2 * (math.pi * sigma * k) ** 2)
    soft = apply_transfer(scene, low_pass) + 1e-4 * noise(shape, 1)
    band = noise_band(soft, 2.0, WORKING)
    assert band is not None
    # within a third of 4 pi^2 sigma^2: how much of the fall is particles' is not known
    assert band.fall_angstrom2 == pytest.approx(4 * math.pi**2 * sigma**2, rel=0.34)
    flat = band.whitened(soft[None], shape, 2.0)
    _, total, _, _ = normalised(flat)
    assert float(total.std()) < 3  # unprepared: hundreds
    again = band.filtered(flat[0], 2.0)
    inside = (k > 1 / 200) & (k < 0.7 * band.edge_per_angstrom)
    a, b = (torch.fft.rfft2(x)[inside] for x in (again, soft))
    assert float((a - b).abs().square().mean() / b.abs().square().mean()) < 0.02


def test_particles_and_rings_are_not_taken_for_a_filter():
    k = radial_frequency((768, 768), 2.0)
    strong = apply_transfer(noise((768, 768)), (1 + 100 * torch.exp(-((k * 60) ** 2) / 2)).sqrt())
    assert noise_band(strong, 2.0, WORKING) is None
    coarse = noise_band(resample(strong, (384, 384)), 4.0, WORKING)
    assert coarse is not None and coarse.fall_angstrom2 == 0


def test_a_binned_sum_is_prepared_on_the_network_s_grid():
    binned = noise((256, 200))
    done = prepare(binned, 5.0, WORKING, EnhancementSettings())
    assert done.shape == (640, 500) and done.pixel_size_angstrom == 2.0
    assert done(binned[None]).shape == (1, 640, 500)
    off = prepare(binned, 5.0, WORKING, EnhancementSettings(fill_band=False))
    assert off.band is None and torch.equal(off(binned[None])[0], binned)


@pytest.mark.parametrize("rms_angstrom", [6.0, 12.0, 20.0, 40.0])
def test_low_passed_noise_has_a_band_however_coarse(rms_angstrom):
    """Pictures that people have were low-passed to some 20 Angstrom by their makers."""
    k = radial_frequency((512, 512), WORKING)
    low_passed = apply_transfer(noise(), torch.exp(-2 * (math.pi * rms_angstrom * k) ** 2))
    band = noise_band(low_passed, WORKING, WORKING)
    assert band is not None and 0.01 < band.edge_per_angstrom < 0.2
