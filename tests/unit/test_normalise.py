"""The intensity scale: unit noise whatever the camera's gain and offset."""

import math

import pytest
import torch

from dstnet.core.fourier import radial_frequency, resample
from dstnet.errors import BadInputError
from dstnet.movie.normalise import NOISE_BAND, noise_level, normalised


def white(*shape, sigma=1.0, seed=0):
    return sigma * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(shape):
    """Standard error of the noise level: each of the n coefficients of a half plane has a power of
    relative deviation one.
    """
    n = math.pi * (NOISE_BAND[1] ** 2 - NOISE_BAND[0] ** 2) / 2 * shape[0] * shape[1]
    return 0.5 / math.sqrt(n)


@pytest.mark.parametrize("shape", [(256, 256), (255, 131), (64, 300), (32, 32)])
@pytest.mark.parametrize("sigma", [1e-3, 1.0, 700.0])
def test_level_of_white_noise(shape, sigma):
    assert noise_level(white(*shape, sigma=sigma) + 10 * sigma) == pytest.approx(
        sigma, rel=5 * relative_error(shape)
    )


def test_level_of_counts():
    counts = torch.poisson(torch.full((256, 256), 3.0), generator=torch.Generator().manual_seed(1))
    assert noise_level(counts) == pytest.approx(math.sqrt(3), rel=5 * relative_error((256, 256)))


def test_signal_does_not_count():
    """Something large and smooth, 20 times the noise in amplitude, changes nothing: it holds no
    power in the band.
    """
    noise = white(128, 128)
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    blob = 20 * torch.exp(-((y - 60) ** 2 + (x - 70) ** 2) / (2 * 6**2))
    assert noise_level(noise + blob) == pytest.approx(noise_level(noise), rel=1e-4)


def test_unit_noise_for_groups_and_total():
    scale = torch.tensor([0.3, 5.0, 90.0])[:, None, None]
    frames, total, mean, noise = normalised(white(3, 128, 96) * scale + 100)
    for image in (*frames, total):
        assert noise_level(image) == pytest.approx(1, rel=1e-4)
        assert abs(float(image.mean())) < 1e-4
    assert mean == pytest.approx(300, rel=5 * 90 / 300 / 110)
    assert noise == pytest.approx(float((scale**2).sum().sqrt()), rel=5 * relative_error((128, 96)))


@pytest.mark.parametrize(
    ("gain", "offset"), [(1.0, 0.0), (37.5, 0.0), (0.004, -3.0), (255.0, 8000.0), (1e-6, 1e-4)]
)
def test_any_gain_and_offset_gives_the_same(gain, offset):
    movie = torch.poisson(torch.full((3, 96, 80), 12.0), generator=torch.Generator().manual_seed(2))
    frames, total, mean, noise = normalised(movie)
    other_frames, other_total, other_mean, other_noise = normalised(movie * gain + offset)
    # float32 keeps 6e-8 of the largest value: of gain x counts + offset, seen in units of the
    # noise, gain x sqrt(12)
    rounding = 8 * 6e-8 * (30 * gain + abs(offset)) / (gain * 3.4)
    torch.testing.assert_close(other_frames, frames, rtol=1e-4, atol=rounding)
    torch.testing.assert_close(other_total, total, rtol=1e-4, atol=3 * rounding)
    assert other_mean == pytest.approx(mean * gain + 3 * offset, rel=1e-5)
    assert other_noise == pytest.approx(noise * gain, rel=1e-4)


def test_sum_comes_back():
    movie = white(4, 64, 64, sigma=3) + 50
    _, total, mean, noise = normalised(movie)
    torch.testing.assert_close(mean + noise * total, movie.sum(0))


def low_passed(limit):
    noise = white(128, 128)
    return torch.fft.irfft2(
        torch.fft.rfft2(noise) * (radial_frequency((128, 128)) < limit), s=noise.shape
    )


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(64, 64),
        torch.full((64, 64), 7.3),
        low_passed(0.3),
        resample(white(64, 64), (128, 128)),
        torch.linspace(0, 1, 128)[:, None].expand(128, 128) * 0 + low_passed(0.1) + 100,
    ],
    ids=["zero", "constant", "low-passed", "up-sampled", "smooth on an offset"],
)
def test_no_noise_is_refused(image):
    with pytest.raises(BadInputError, match=r"a\.mrc holds no noise .*--pixel-size") as caught:
        noise_level(image, "a.mrc")
    assert "\n" not in str(caught.value)


def test_the_group_without_noise_is_named():
    movie = white(3, 64, 64)
    movie[1] = 4
    with pytest.raises(BadInputError, match=r"a\.mrc: group 2"):
        normalised(movie, "a.mrc")


def test_argument_stays_as_it_was():
    movie = white(2, 64, 64) + 5
    copy = movie.clone()
    frames, total, _, _ = normalised(movie)
    frames += 1
    total += 1
    noise_level(movie[0])
    assert torch.equal(movie, copy)
