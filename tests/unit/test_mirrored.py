"""Images that go on as their mirror images: transforms and resampling (`dstnet.core.fourier`)."""

import pytest
import torch

from dstnet.core import fourier
from dstnet.core.fourier import (
    cosine_frequency,
    cosine_transform,
    inverse_cosine_transform,
    mirrored,
    resample,
    resample_mirrored,
)

SHAPES = [(7, 10), (64, 45), (1, 3)]


def white(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def four(image):
    """An image and its mirror images."""
    wide = torch.cat((image, image.flip(1)), 1)
    return torch.cat((wide, wide.flip(0)))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_transform_of_processors_and_of_other_devices(shape):
    image = white(shape)
    spectrum = cosine_transform(image)
    along = fourier._cosine_along_columns
    back = fourier._image_along_columns
    torch.testing.assert_close(along(along(image).T).T, spectrum, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inverse_cosine_transform(spectrum), image, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back(back(spectrum).T).T, image, rtol=1e-5, atol=1e-5)


def test_a_filter_acts_as_on_the_image_and_its_mirror_images():
    image = white((40, 54))
    k = cosine_frequency((40, 54), 2.0)
    found = inverse_cosine_transform(torch.exp(-((8 * k) ** 2)) * cosine_transform(image))
    whole = four(image)
    k = fourier.radial_frequency((80, 108), 2.0)
    expected = fourier.apply_transfer(whole, torch.exp(-((8 * k) ** 2)))[:40, :54]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_white_noise_is_white_in_it():
    power = cosine_transform(white((256, 300))).square()
    k = cosine_frequency((256, 300))
    for low in (0.0, 0.1, 0.2, 0.3, 0.4):
        ring = power[(k >= low) & (k < low + 0.1)]
        assert float(ring.mean()) == pytest.approx(1, abs=5 * (2 / len(ring)) ** 0.5)


@pytest.mark.parametrize("new_shape", [(26, 51), (12, 30), (20, 90)])
def test_resampling_is_that_of_the_image_and_its_mirror_images(new_shape):
    image = white((20, 30))
    expected = resample(four(image), (2 * new_shape[0], 2 * new_shape[1]))
    height, width = new_shape
    found = resample_mirrored(image, new_shape)
    torch.testing.assert_close(found, expected[:height, :width], rtol=1e-4, atol=1e-5)
    assert resample_mirrored(image, (20, 30)) is image


def test_what_is_dark_at_one_edge_leaves_the_opposite_one_as_it_is():
    image = white((200, 100))
    dark = image.clone()
    dark[:30] -= 60
    for new_shape in ((333, 166), (120, 60)):
        change = resample_mirrored(dark, new_shape) - resample_mirrored(image, new_shape)
        assert float(change[-new_shape[0] // 4 :].abs().max()) < 0.2  # periodically: 20
        assert float(change[-new_shape[0] // 4 :].mean().abs()) < 1e-3


def test_a_margin_is_the_mirror_image_of_both_edges():
    image = white((20, 30))
    wide = mirrored(image, 7)
    assert wide.shape[0] >= 34 and wide.shape[1] >= 44
    assert torch.equal(wide[:20, :30], image)
    assert torch.equal(wide[20:27, :30], image[13:].flip(0))
    assert torch.equal(wide[-7:, :30], image[:7].flip(0))
    assert torch.equal(wide[:20, 30:37], image[:, 23:].flip(1))
    assert mirrored(image, 200).isfinite().all()
