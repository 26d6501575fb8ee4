"""What is far darker than particles (`dstnet.enhancement.contamination`)."""

import pytest
import torch

from dstnet.enhancement.contamination import dark_mask, put_back, replaced

PIXEL = 2.0


def field(seed=0):
    """Noise with soft dark blobs as particles are, on a slope of illumination."""
    random = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(512.0), torch.arange(512.0), indexing="ij")
    image = torch.randn(512, 512, generator=random) + 0.001 * x
    for cy, cx in (torch.rand(40, 2, generator=random) * 512).tolist():
        r2 = (y - cy) ** 2 + (x - cx) ** 2
        image -= 0.6 * (torch.exp(-r2 / 2 / 20**2) - 0.5 * torch.exp(-r2 / 4 / 20**2))  # no contrast on average, as underfocus has it
    return image, y, x


def test_a_field_of_particles_has_nothing_dark():
    assert dark_mask(field()[0], PIXEL) is None


@pytest.mark.parametrize("depth", [1.5, 8.0, 60.0])
def test_a_disc_is_found_whole_and_replaced_by_ice(depth):
    image, y, x = field()
    distance = torch.hypot(y - 200, x - 300)
    disc = distance < 60
    dark = image - depth * disc
    mask = dark_mask(dark, PIXEL)
    assert mask is not None and bool(mask[disc].all())
    assert not bool(mask[distance > 60 + 400 / PIXEL].any())
    clean = replaced(dark[None], mask, PIXEL)[0]
    assert torch.equal(clean[~mask], dark[~mask])
    assert float(clean[mask].std()) == pytest.approx(float(image.std()), rel=0.15)
    assert abs(float(clean[mask].mean() - image[~mask].mean())) < 0.15


def test_what_was_taken_out_is_put_back_in_its_place_alone():
    image, y, x = field()
    dark = image - 8 * (torch.hypot(y - 200, x - 300) < 60)
    mask = dark_mask(dark, PIXEL)
    assert mask is not None
    out = put_back(torch.zeros_like(dark), dark, mask, PIXEL)
    assert float(out[200, 300]) < -7
    assert not bool(out[~mask].any())
