"""What is empty is shown and called empty: grey scales of the report, notes on outputs."""

import numpy as np
import pytest
import torch

from dstnet.enhancement.finishing import empty_notes
from dstnet.report.page import _grey_range

NOISE_SCALE = (100.0, 10.0)  # mean and noise


def drawn(strength, seed=0):
    """An image whose darkest parts are `strength` deep, [y, x]."""
    image = np.zeros((200, 220), np.float32)
    image[50:60, 50:60] = -strength
    return image + 0.01 * np.random.default_rng(seed).standard_normal(image.shape)


def test_contrast_and_particles_have_one_scale_for_all_movies():
    for strength in (0.3, 3.0):
        contrast = 100 + 10 * drawn(strength)
        assert _grey_range(contrast, "contrast", NOISE_SCALE) == (85, 105)
        assert _grey_range(-drawn(strength), "particles", None) == (-0.6, 0)


def test_others_are_stretched_no_further_than_the_noise():
    faint = 100 + 10 * drawn(0.1)
    low, high = _grey_range(faint, "enhanced", NOISE_SCALE)
    assert low == pytest.approx(97, abs=0.1) and high == pytest.approx(103, abs=0.1)
    strong = 100 + 10 * 100 * drawn(0.1)
    low, high = _grey_range(strong, "enhanced", NOISE_SCALE)
    assert low < 80 and high > 110
    assert _grey_range(0.01 * abs(faint), "uncertainty", NOISE_SCALE) == (0, 3)
    low, high = _grey_range(faint, "dose_weighted", None)
    assert low == pytest.approx(float(np.percentile(faint, 0.5)))
    assert high == pytest.approx(float(np.percentile(faint, 99.5)))


def test_each_output_that_shows_nothing_is_said_to():
    outputs = ("micrograph", "contrast", "particles")

    def notes(micrograph, contrast, particles, requested=outputs):
        images = {
            "micrograph": torch.from_numpy(drawn(micrograph)),
            "contrast": torch.from_numpy(drawn(contrast)),
            "particles": torch.from_numpy(-drawn(particles)),
            "uncertainty": torch.from_numpy(drawn(0.0)),
        }
        return empty_notes(images, requested)

    assert notes(1.0, 2.0, 0.9) == []
    assert len(notes(0.1, 0.5, 0.4)) == 3
    assert len(notes(0.1, 0.5, 0.4, ("micrograph", "uncertainty"))) == 1
    assert [note.split(":")[0] for note in notes(1.0, 0.5, 0.9)] == ["contrast without CTF"]
