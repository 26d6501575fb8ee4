"""Alignment: planted motions come back, with their sign and axes; sums keep counts and whiteness; bad movies are named."""

import math

import numpy as np
import pytest
import torch

from dstnet.alignment import AlignmentSettings, accumulate, estimate_global_motion
from dstnet.core.fourier import radial_frequency, resample, shift_phase
from dstnet.errors import BadInputError, SettingsError
from dstnet.movie import Movie

SETTINGS = AlignmentSettings()


def blobs(shape, contrast=0.1, seed=0):
    """A smooth random scene of mean 0 and rms `contrast`, band-passed to details of some 8 to 60 pixels, where frames hold their signal."""
    generator = torch.Generator().manual_seed(seed)
    k = radial_frequency(shape)
    band = torch.exp(-((k / 0.08) ** 2)) - torch.exp(-((k / 0.015) ** 2))
    scene = torch.fft.irfft2(torch.fft.rfft2(torch.randn(shape, generator=generator)) * band, s=shape)
    return scene * (contrast / scene.std())


def planted(frames, seed=1):
    """A burst that settles, a drift and jitter, in pixels; mean zero."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(frames).float()
    u = torch.stack((6 * torch.exp(-t / 3) + 0.05 * t, -4 * torch.exp(-t / 4) - 0.15 * t), 1) + 0.3 * torch.randn(
        frames, 2, generator=generator
    )
    return u - u.mean(0)


def moved(scene, shift):
    return torch.fft.irfft2(torch.fft.rfft2(scene) * shift_phase(tuple(scene.shape), tuple(shift.tolist())), s=scene.shape)


def poisson_movie(scene, shifts_px, rate, pixel=1.0, seed=2, **known):
    generator = torch.Generator().manual_seed(seed)
    frames = [torch.poisson((rate * (1 + moved(scene, u))).clamp(min=0), generator=generator).numpy() for u in shifts_px]
    return Movie(np.stack(frames), pixel, **known)


def expected_error(scene, rate, frames):
    """Cramer-Rao bound in pixels, rms of an axis: of a frame against a reference of all frames, for white noise of variance `rate`.

    The information on a shift is sum (2 pi k)^2 |S|^2 / N over the image, half of it an axis; S/(S + N/n) of it survives the noise in the
    reference. Only frequencies that the aligner keeps (6 Angstrom at 1 Angstrom/pixel) count.
    """
    power = (rate * torch.fft.fft2(scene)).abs().square() / scene.numel()
    k = torch.hypot(torch.fft.fftfreq(scene.shape[0])[:, None], torch.fft.fftfreq(scene.shape[1])[None, :])
    information = 0.5 * ((2 * math.pi * k) ** 2 * power / rate * power / (power + rate / frames))[k < 1 / 6].sum()
    return float(information**-0.5)


@pytest.mark.parametrize(
    ("shape", "frames", "rate"),
    [((512, 512), 20, 1.0), ((400, 384), 50, 0.2), ((639, 617), 7, 1.0), ((512, 512), 2, 1.0), ((384, 384), 3, 2.0)],
)
def test_planted_motion_is_recovered(shape, frames, rate):
    scene, truth = blobs(shape), planted(frames)
    found = estimate_global_motion(poisson_movie(scene, truth, rate), SETTINGS)
    # 1.5 x the bound: the taper hides an eighth of each axis, and the spectrum's weights are themselves estimated.
    # With 2(n - 1) numbers, the rms has a relative standard error of 1/(2 sqrt(n - 1)), taken five times.
    allowed = 1.5 * expected_error(scene, rate, frames) * (1 + 5 / (2 * math.sqrt(frames - 1)))
    assert float((found - truth).square().mean().sqrt()) < allowed
    assert float(found.mean(0).abs().max()) < 1e-5


def test_better_than_the_aim_at_1024():
    """RELION 3.1 leaves 0.086 pixels on a movie like this one."""
    truth = planted(20)
    found = estimate_global_motion(poisson_movie(blobs((1024, 1024)), truth, 1.0), SETTINGS)
    assert float((found - truth).square().mean().sqrt()) < 0.06


def test_sign_and_axes():
    """One bright off-centre object that goes 3 rows down and 5 columns left: u changes by (+3, -5) pixels; in Angstrom, (y, x)."""
    y, x = np.mgrid[:96, :128]
    places = ((40, 70), (43, 65))
    object_at = [np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 32) for cy, cx in places]
    generator = np.random.default_rng(0)
    frames = generator.poisson([20 + 20 * image for image in object_at])
    found = estimate_global_motion(Movie(frames, 1.5), SETTINGS)
    # Cramer-Rao: squared slopes sum to 20^2 pi/2 over a noise of 20 in each frame: 0.25 pixels between them, half of it a frame; 5 times
    assert torch.allclose(found, 1.5 * torch.tensor([[-1.5, 2.5], [1.5, -2.5]]), atol=1.5 * 5 * 0.5 * 0.25)
    noise_free = Movie(np.stack(object_at), 1.5)
    total = accumulate(noise_free, 1.5 * torch.tensor([[-1.0, 2.0], [2.0, -3.0]]), working_pixel_angstrom=1.5, max_fractions=1).total
    assert divmod(int(total.argmax()), 128) == (41, 68)  # both brought to the reference: 40 + 1 = 43 - 2, 70 - 2 = 65 + 3
    assert float(total.max()) == pytest.approx(2.0, abs=1e-3)


def test_pixel_size_scales_the_result():
    truth = planted(6)
    movie = poisson_movie(blobs((512, 512)), truth, 2.0, pixel=0.5)
    found = estimate_global_motion(movie, SETTINGS)
    assert torch.allclose(found, 0.5 * truth, atol=0.5 * 0.25)


def test_bad_pixels_and_gain_residue_do_not_hold_the_motion_back():
    scene, truth = blobs((512, 512)), planted(20)
    movie = poisson_movie(scene, truth, 1.0)
    clean = (estimate_global_motion(movie, SETTINGS) - truth).square().mean().sqrt()
    generator = np.random.default_rng(3)
    frames = movie.frames * (1 + 0.03 * generator.standard_normal((512, 512)).astype(np.float32))
    hot = generator.integers(0, 512, (2, 100))
    frames[:, hot[0], hot[1]] += generator.poisson(300, (20, 100))
    frames[:, :, 171] = 0
    frames[5, 100, 100] = 60000  # a cosmic ray
    found = estimate_global_motion(Movie(frames, 1.0), SETTINGS)
    # A peak held at zero would leave the planted motion, 10 times the error of the clean movie.
    assert float((found - truth).square().mean().sqrt()) < 1.3 * float(clean)


def test_noise_alone_is_not_aligned_to_itself():
    movie = poisson_movie(torch.zeros(256, 256), torch.zeros(20, 2), 1.0)
    assert float(estimate_global_motion(movie, SETTINGS).abs().max()) == 0


def test_smoothness_prior_smooths_weak_movies():
    t = torch.arange(30).float()
    truth = torch.stack((0.1 * t, -0.05 * t), 1)
    truth -= truth.mean(0)
    movie = poisson_movie(blobs((192, 192), 0.05), truth, 0.5)
    error = [
        float((estimate_global_motion(movie, AlignmentSettings(acceleration_angstrom=a)) - truth).square().mean()) for a in (None, 0.02)
    ]
    assert error[1] < 0.5 * error[0]


def test_max_shift_and_resolution_are_obeyed():
    scene = blobs((256, 256))
    truth = torch.tensor([[-8.0, 0.0], [8.0, 0.0]])
    movie = poisson_movie(scene, truth, 5.0)
    assert torch.allclose(estimate_global_motion(movie, SETTINGS), truth, atol=0.2)
    assert float(estimate_global_motion(movie, AlignmentSettings(max_shift_angstrom=3.0)).norm(dim=1).max()) < 6
    coarse = estimate_global_motion(movie, AlignmentSettings(resolution_angstrom=15.0, max_coefficients=256))
    assert torch.allclose(coarse, truth, atol=0.8)


def test_progress_input_untouched_and_repeatable():
    movie = poisson_movie(blobs((64, 64)), planted(4), 5.0, exposure_e_per_a2=1.0)
    before = movie.frames.copy()
    calls = []
    first = estimate_global_motion(movie, SETTINGS, lambda done, of: calls.append((done, of)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert torch.equal(first, estimate_global_motion(movie, SETTINGS))
    kept = first.clone()
    accumulate(movie, first, working_pixel_angstrom=2.0, max_fractions=2, progress=lambda done, of: calls.append((done, of)))
    assert calls[4:] == calls[:4]
    assert np.array_equal(before, movie.frames)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("shape", [(32, 32), (33, 45)])
def test_tiny_frames(shape):
    frames = np.random.default_rng(0).poisson(3.0, (5, *shape)).astype(np.float32)
    found = estimate_global_motion(Movie(frames, 1.0), SETTINGS)
    assert found.shape == (5, 2)
    assert bool(torch.isfinite(found).all())


def test_single_frame():
    movie = Movie(np.random.default_rng(0).poisson(1.0, (1, 40, 41)), 1.0, exposure_e_per_a2=30.0, pre_exposure_e_per_a2=2.0)
    shifts = estimate_global_motion(movie, SETTINGS)
    assert torch.equal(shifts, torch.zeros(1, 2))
    aligned = accumulate(movie, shifts, working_pixel_angstrom=1.0, max_fractions=10)
    frame = movie.frame(0)
    for image in (aligned.total, aligned.dose_weighted, aligned.fractions[0]):
        assert torch.allclose(image, frame, atol=1e-5)
    assert aligned.fraction_frames == (1,)
    assert aligned.fraction_exposure_e_per_a2 == (17.0,)
    assert aligned.margin_px == (0, 0)


@pytest.mark.parametrize("value", [0, 7])
def test_constant_frame_is_named(value):
    frames = np.random.default_rng(0).poisson(1.0, (4, 32, 32))
    frames[2] = value
    movie = Movie(frames, 1.0, name="x.tif")
    with pytest.raises(BadInputError, match=rf"frame 3 of x\.tif is constant \(all {value}\)"):
        estimate_global_motion(movie, SETTINGS)
    with pytest.raises(BadInputError, match="frame 3"):
        accumulate(movie, torch.zeros(4, 2), working_pixel_angstrom=1.0, max_fractions=1)
    with pytest.raises(BadInputError, match="frame 1"):
        estimate_global_motion(Movie(frames[2:3], 1.0), SETTINGS)


def test_too_small_to_align():
    with pytest.raises(BadInputError, match="too few"):
        estimate_global_motion(Movie(np.random.default_rng(0).poisson(1.0, (2, 4, 4)), 1.0), SETTINGS)


def test_sum_of_moved_frames_is_the_unmoved_sum():
    """The same scene, moved and still: sums agree within Poisson noise inside the margin, and the mean count is kept."""
    scene, truth = blobs((201, 190)), 4 * planted(12)
    movie = poisson_movie(scene, truth, 2.0)
    aligned = accumulate(movie, truth, working_pixel_angstrom=1.0, max_fractions=3)
    y, x = aligned.margin_px
    inside = (slice(y, 201 - y), slice(x, 190 - x))
    assert (y, x) == tuple(math.ceil(float(truth[:, a].abs().max())) for a in (0, 1))
    difference = (aligned.total - 24 * (1 + scene))[inside]
    # Variance 24 counts; an image of m pixels gives its variance within 5 sqrt(2/m), and its mean within 5 sqrt(24/m).
    m = difference.numel()
    assert float(difference.var()) == pytest.approx(24, rel=5 * math.sqrt(2 / m) + 0.02)  # scene clipping and border: below 2 %
    assert abs(float(difference.mean())) < 5 * math.sqrt(24 / m)
    assert torch.allclose(aligned.fractions.sum(0), aligned.total, atol=1e-3)


def test_parts_of_a_pixel_are_undone_too():
    """Without noise, frames moved by fractions of a pixel add up to the scene; a shift left over by 0.1 pixel would show 2 % of its rms."""
    scene = blobs((128, 140), contrast=1.0)
    truth = torch.tensor([[0.4, -0.3], [-1.6, 2.4], [1.2, -2.1]])
    movie = Movie(torch.stack([moved(scene, u) for u in truth]).numpy(), 1.0)
    total = accumulate(movie, truth, working_pixel_angstrom=1.0, max_fractions=1).total
    error = (total / 3 - scene)[16:-16, 16:-16]  # border: reflection is not the scene's continuation
    assert float(error.std()) < 0.01


def test_nothing_wraps_from_the_opposite_edge():
    frames = np.zeros((2, 64, 64), np.float32)
    frames[:, :4] = 100
    frames[0] += np.arange(64)[None] * 1e-3  # not constant
    total = accumulate(Movie(frames, 1.0), torch.tensor([[6.0, 0], [-6.0, 0]]), working_pixel_angstrom=1.0, max_fractions=1).total
    assert float(total[40:].abs().max()) < 1


def test_fractions():
    frames = np.random.default_rng(0).poisson(3.0, (10, 117, 90))
    movie = Movie(frames, 0.8, exposure_e_per_a2=1.5, pre_exposure_e_per_a2=2.0)
    shifts = torch.zeros(10, 2)
    aligned = accumulate(movie, shifts, working_pixel_angstrom=1.6, max_fractions=4)
    assert aligned.fractions.shape == (4, 58, 44)  # 58.5 and 45 pixels: the nearest even sizes
    assert aligned.fractions.dtype == torch.float32
    assert aligned.fraction_frames == (3, 3, 2, 2)
    assert aligned.fraction_exposure_e_per_a2 == pytest.approx((4.25, 8.75, 12.5, 15.5))
    assert aligned.working_pixel_angstrom == pytest.approx(0.8 * (117 / 58 + 90 / 44) / 2)
    assert torch.allclose(aligned.fractions[1], resample(torch.from_numpy(frames[3:6].sum(0)).float(), (58, 44)), atol=1e-4)
    assert aligned.fractions.mean((1, 2)).tolist() == pytest.approx(
        [frames[a:b].sum(0).mean() for a, b in ((0, 3), (3, 6), (6, 8), (8, 10))]
    )
    native = accumulate(movie, shifts, working_pixel_angstrom=0.5, max_fractions=99)
    assert native.fractions.shape == (10, 117, 90)
    assert native.working_pixel_angstrom == pytest.approx(0.8)
    assert torch.allclose(native.fractions, torch.from_numpy(frames).float(), atol=1e-4)


def test_dose_weighting_keeps_white_noise_white_and_low_frequencies():
    generator = np.random.default_rng(0)
    movie = Movie(generator.poisson(1.0, (30, 256, 256)), 1.0, exposure_e_per_a2=2.0, pre_exposure_e_per_a2=5000.0)
    aligned = accumulate(movie, torch.zeros(30, 2), working_pixel_angstrom=1.0, max_fractions=1)
    k = radial_frequency((256, 256))
    power = torch.fft.rfft2(aligned.dose_weighted).abs().square() / 256**2
    for low, high in ((0.02, 0.1), (0.1, 0.2), (0.2, 0.35), (0.35, 0.5)):
        ring = power[(k > low) & (k <= high)]
        assert float(ring.mean()) == pytest.approx(30, rel=5 / math.sqrt(ring.numel()))
    assert float(aligned.dose_weighted.mean()) == pytest.approx(float(aligned.total.mean()), rel=1e-5)
    # At half Nyquist (4 Angstrom, N_e 5.3) a sum over 60 e-/A2 is carried by the first frames: the weights must differ from plain ones.
    assert float((aligned.dose_weighted - aligned.total).std()) > 0.5 * math.sqrt(30)


def test_dose_weighting_needs_an_exposure():
    movie = Movie(np.random.default_rng(0).poisson(1.0, (3, 32, 32)), 1.0)
    aligned = accumulate(movie, torch.zeros(3, 2), working_pixel_angstrom=2.0, max_fractions=2)
    assert aligned.dose_weighted is None
    assert aligned.fraction_exposure_e_per_a2 is None


def test_bad_arguments():
    movie = Movie(np.random.default_rng(0).poisson(1.0, (3, 32, 32)), 1.0)
    with pytest.raises(BadInputError, match=r"shifts of shape \(2, 2\)"):
        accumulate(movie, torch.zeros(2, 2), working_pixel_angstrom=2.0, max_fractions=2)
    with pytest.raises(BadInputError, match="not one finite"):
        accumulate(movie, torch.full((3, 2), math.nan), working_pixel_angstrom=2.0, max_fractions=2)
    with pytest.raises(SettingsError, match="at least 1"):
        accumulate(movie, torch.zeros(3, 2), working_pixel_angstrom=2.0, max_fractions=0)
