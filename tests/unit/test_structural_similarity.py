"""Structural similarity: known values, and a sum written out window by window."""

import numpy as np
import pytest
import torch

from dstnet.metrics.image import fitted
from dstnet.metrics.structural_similarity import structural_similarity


def noise(seed, shape=(40, 33)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def written_out(image, truth):
    """Equations 6 to 13 of Wang et al. 2004, a window at a time."""
    low, spread = float(truth.min()), float(truth.max() - truth.min())
    a = ((fitted(image, truth) - low) / spread).double().numpy()
    b = ((truth - low) / spread).double().numpy()
    away = np.arange(-5, 6)
    weight = np.exp(-(away[:, None] ** 2 + away**2) / (2 * 1.5**2))
    weight /= weight.sum()
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            m, n = (weight * p).sum(), (weight * q).sum()
            s, t = (weight * (p - m) ** 2).sum(), (weight * (q - n) ** 2).sum()
            c = (weight * (p - m) * (q - n)).sum()
            values.append(
                (2 * m * n + 1e-4) * (2 * c + 9e-4) / ((m * m + n * n + 1e-4) * (s + t + 9e-4))
            )
    return np.mean(values)


def test_it_is_the_mean_over_windows():
    truth = noise(0)
    image = truth + noise(1)
    assert structural_similarity(image, truth) == pytest.approx(written_out(image, truth), abs=1e-6)


def test_it_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    truth = noise(0)
    image = truth + noise(1)
    expected = metrics.structural_similarity(
        ((fitted(image, truth) - truth.min()) / (truth.max() - truth.min())).numpy(),
        ((truth - truth.min()) / (truth.max() - truth.min())).numpy(),
        data_range=1.0,
        gaussian_weights=True,
        use_sample_covariance=False,
    )
    assert structural_similarity(image, truth) == pytest.approx(expected, abs=1e-5)


def test_known_values():
    truth = noise(0)
    assert structural_similarity(truth, truth) == pytest.approx(1)
    assert structural_similarity(-5 * truth + 40, truth) == pytest.approx(1, abs=1e-5)
    assert structural_similarity(noise(1), truth) < 0.1
    assert structural_similarity(truth, torch.ones(40, 33)) == 0


def test_a_constant_image_is_similar_where_the_truth_is_flat():
    """Why it is never to be read alone: a truth of one small particle on an empty field."""
    truth = torch.zeros(64, 64)
    truth[30:34, 30:34] = -1
    constant = structural_similarity(torch.ones(64, 64), truth)
    noisy = structural_similarity(truth + 0.3 * noise(2, (64, 64)), truth)
    assert constant > 0.8 > noisy


def test_least_squares_bring_an_image_to_the_truth():
    truth = noise(0)
    torch.testing.assert_close(fitted(-0.1 * truth + 3, truth), truth, atol=1e-5, rtol=0)
    torch.testing.assert_close(fitted(torch.ones(40, 33), truth), truth.mean() + 0 * truth)
