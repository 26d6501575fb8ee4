"""What is far darker than particles (`dstnet.enhancement.contamination`)."""

import pytest
import torch

from dstnet.enhancement.contamination import dark_regions

PIXEL = 2.0
SIDE = 700
Y, X = torch.meshgrid(torch.arange(SIDE * 1.0), torch.arange(SIDE * 1.0), indexing="ij")


def field(seed=0):
    """Noise with soft dark blobs as particles are, on a slope of illumination."""
    random = torch.Generator().manual_seed(seed)
    image = torch.randn(SIDE, SIDE, generator=random) + 0.001 * X
    for cy, cx in (torch.rand(80, 2, generator=random) * SIDE).tolist():
        r2 = (Y - cy) ** 2 + (X - cx) ** 2
        # No contrast on average, as underfocus has it.
        image -= 0.6 * (torch.exp(-r2 / 2 / 20**2) - 0.5 * torch.exp(-r2 / 4 / 20**2))
    return image


def test_a_field_of_particles_has_nothing_dark():
    assert dark_regions(field(), PIXEL) is None
    assert dark_regions(field() + 1e-5 * (X - 200) ** 2, PIXEL) is None


def test_a_virus_is_none_either():
    distance = torch.hypot(Y - 200, X - 300)
    assert dark_regions(field() - 0.8 * (distance < 100), PIXEL) is None


@pytest.mark.parametrize("depth", [3.0, 8.0, 30.0, 60.0])
def test_a_disc_is_found_whole_whatever_its_depth_and_costs_its_own_place(depth):
    distance = torch.hypot(Y - 200, X - 300) - 100
    image = field()
    dark = image - depth * (distance < 0)
    regions = dark_regions(dark, PIXEL)
    assert regions is not None
    mask = regions.mask
    assert bool(mask[distance < 0].all())
    assert not bool(mask[distance > 100 / PIXEL].any())
    clean = regions.replaced(dark[None])[0]
    assert torch.equal(clean[~mask], dark[~mask])
    assert float(clean[mask].std()) == pytest.approx(float(image.std()), rel=0.1)
    assert abs(float(clean[mask].mean() - image[mask].mean())) < 0.1
    assert f"{regions.share:.1%} of the field" in regions.note()


@pytest.mark.parametrize("part", [0.2, 0.5])
@pytest.mark.parametrize("depth", [2.0, 30.0])
def test_so_is_a_film_s_edge_up_to_half_of_the_field(part, depth):
    distance = X - part * SIDE - 0.2 * (Y - SIDE / 2)
    regions = dark_regions(field() - depth * (distance < 0), PIXEL)
    assert regions is not None
    assert bool(regions.mask[distance < 0].all())
    assert not bool(regions.mask[distance > 100 / PIXEL].any())


def test_noise_differs_from_image_to_image_and_is_the_same_each_time():
    dark = field() - 8 * (torch.hypot(Y - 200, X - 300) < 100)
    regions = dark_regions(dark, PIXEL)
    assert regions is not None
    images = torch.stack((dark, dark))
    first, second = regions.replaced(images)
    assert torch.equal(regions.replaced(images), torch.stack((first, second)))
    assert float((first - second)[regions.mask].std()) == pytest.approx(2**0.5, rel=0.1)


def test_what_was_taken_out_is_put_back_in_its_place_alone():
    dark = field() - 8 * (torch.hypot(Y - 200, X - 300) < 100)
    regions = dark_regions(dark, PIXEL)
    assert regions is not None
    enhanced = torch.where(regions.mask, 5.0, 0.5 * field())
    out = regions.put_back(enhanced, dark, PIXEL)
    free = enhanced[~regions.mask]
    # lighter than particles, however deep it is
    deepest = float(out[regions.mask].min())
    assert deepest == pytest.approx(float(free.mean() - free.std()), rel=1e-3)
    assert float(out[200, 300]) < deepest + 0.5 * float(free.std())
    assert torch.equal(out[~regions.mask], free)
    assert regions.on_grid((350, 350)).shape == (350, 350)
