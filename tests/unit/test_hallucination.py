"""Controls without particles, and the power of what is drawn there."""

import numpy as np
import pytest
import torch

from dstnet.metrics.hallucination import noise_only, relative_power, shuffled
from dstnet.movie import Exposure, Movie

FRAMES, SHAPE = 6, (48, 64)


def movie():
    random = np.random.default_rng(0)
    scene = 5 + 3 * np.sin(np.arange(SHAPE[1]) / 4)
    frames = random.poisson(scene, (FRAMES, *SHAPE)).astype(np.uint16)
    return Movie(frames, 1.5, "m", Exposure.uniform(FRAMES, 2.0), 200.0)


def test_noise_only_is_shot_noise_of_the_mean_with_all_else_as_it_was():
    """Counts have variance = mean; of n counts the mean is known to sqrt(m / n), the variance to
    about m sqrt((2 + 1 / m) / n).
    """
    original, mean = movie(), 3.0
    control = noise_only(original, mean, np.random.default_rng(1))
    counts = control.stack()
    n = counts.numel()
    assert float(counts.mean()) == pytest.approx(mean, abs=5 * (mean / n) ** 0.5)
    error = mean * ((2 + 1 / mean) / n) ** 0.5
    assert float(counts.var()) == pytest.approx(mean, abs=5 * error)
    assert control.exposure == original.exposure
    assert control.voltage_kv == original.voltage_kv
    assert control.pixel_size_angstrom == original.pixel_size_angstrom
    assert counts.shape == original.stack().shape


def test_noise_shares_nothing_between_frames():
    counts = noise_only(movie(), 3.0, np.random.default_rng(1)).stack().flatten(1)
    correlation = torch.corrcoef(counts) - torch.eye(FRAMES)
    assert float(correlation.abs().max()) < 5 / counts.shape[1] ** 0.5


def test_shuffled_frames_keep_their_values_and_nothing_else():
    original = movie()
    control = shuffled(original, np.random.default_rng(1))
    before, after = original.stack().flatten(1), control.stack().flatten(1)
    assert torch.equal(before.sort(1).values, after.sort(1).values)
    # The scene is in all frames alike: 0.47 of a pixel's variance; none of it is left.
    limit = 5 / before.shape[1] ** 0.5
    both = torch.corrcoef(torch.cat((before, after))) - torch.eye(2 * FRAMES)
    assert float(both[:FRAMES, :FRAMES].max()) > 4 * limit
    assert float(both[FRAMES:].abs().max()) < limit
    assert control.exposure == original.exposure


def test_the_movie_itself_stays():
    original = movie()
    copy = original.stack()
    shuffled(original, np.random.default_rng(1))
    noise_only(original, 3.0, np.random.default_rng(1))
    assert torch.equal(original.stack(), copy)


def test_relative_power_of_known_images():
    image = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    total = torch.full((2, 2), 10.0)
    assert relative_power(torch.zeros(2, 2), total, image, total) == 0
    assert relative_power(image, total, image, total) == 1
    assert relative_power(0.5 * image, total, image, total) == pytest.approx(0.25)
    # A field that lets half as much through has half the contrast in counts, and as much of it.
    assert relative_power(0.5 * image, 0.5 * total, image, total) == pytest.approx(1)
