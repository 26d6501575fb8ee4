"""Alignment: planted motions come back, with their sign and axes; sums keep counts and whiteness;
bad movies are named.
"""

import math

import numpy as np
import pytest
import torch

from dstnet.alignment import (
    AlignmentSettings,
    FrameGroups,
    Grouping,
    accumulate,
    align,
    estimate_global_motion,
    half_movie,
)
from dstnet.core.fourier import radial_frequency, resample, shift_phase
from dstnet.core.progress import Step, watching, working_on
from dstnet.errors import BadInputError, SettingsError
from dstnet.metrics.image import correlation
from dstnet.metrics.motion import motion_error
from dstnet.motion import Motion
from dstnet.motion.exposure_filter import damage_amplitude
from dstnet.motion.warp import warp_local, warp_prefilter
from dstnet.movie import Exposure, Movie

SETTINGS = AlignmentSettings()


def blobs(shape, contrast=0.1, seed=0):
    """A smooth random scene of mean 0 and rms `contrast`, band-passed to details of some 8 to 60
    pixels, where frames hold their signal.
    """
    generator = torch.Generator().manual_seed(seed)
    k = radial_frequency(shape)
    band = torch.exp(-((k / 0.08) ** 2)) - torch.exp(-((k / 0.015) ** 2))
    scene = torch.fft.irfft2(
        torch.fft.rfft2(torch.randn(shape, generator=generator)) * band, s=shape
    )
    return scene * (contrast / scene.std())


def planted(frames, seed=1):
    """A burst that settles, a drift and jitter, in pixels; mean zero."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(frames).float()
    u = torch.stack(
        (6 * torch.exp(-t / 3) + 0.05 * t, -4 * torch.exp(-t / 4) - 0.15 * t), 1
    ) + 0.3 * torch.randn(frames, 2, generator=generator)
    return u - u.mean(0)


def moved(scene, shift):
    return torch.fft.irfft2(
        torch.fft.rfft2(scene) * shift_phase(tuple(scene.shape), tuple(shift.tolist())),
        s=scene.shape,
    )


def poisson_movie(scene, shifts_px, rate, pixel=1.0, seed=2, **known):
    generator = torch.Generator().manual_seed(seed)
    frames = [
        torch.poisson((rate * (1 + moved(scene, u))).clamp(min=0), generator=generator).numpy()
        for u in shifts_px
    ]
    return Movie(np.stack(frames), pixel, **known)


def groups_of(aligned) -> FrameGroups:
    """The one set of groups that was asked for."""
    (groups,) = aligned.groups.values()
    return groups


def expected_error(scene, rate, frames):
    """Cramer-Rao bound in pixels, rms of an axis: of a frame against a reference of all frames, for
    white noise of variance `rate`.

    The information on a shift is sum (2 pi k)^2 |S|^2 / N over the image, half of it an axis; S/(S
    + N/n) of it survives the noise in the reference. Only frequencies that the aligner keeps (6
    Angstrom at 1 Angstrom/pixel) count.
    """
    power = (rate * torch.fft.fft2(scene)).abs().square() / scene.numel()
    k = torch.hypot(
        torch.fft.fftfreq(scene.shape[0])[:, None], torch.fft.fftfreq(scene.shape[1])[None, :]
    )
    information = (
        0.5
        * ((2 * math.pi * k) ** 2 * power / rate * power / (power + rate / frames))[k < 1 / 6].sum()
    )
    return float(information**-0.5)


@pytest.mark.parametrize(
    ("shape", "frames", "rate"),
    [
        ((512, 512), 20, 1.0),
        ((400, 384), 50, 0.2),
        ((639, 617), 7, 1.0),
        ((512, 512), 2, 1.0),
        ((384, 384), 3, 2.0),
    ],
)
def test_planted_motion_is_recovered(shape, frames, rate):
    scene, truth = blobs(shape), planted(frames)
    found = estimate_global_motion(poisson_movie(scene, truth, rate), SETTINGS)
    # 1.5 x the bound: the taper hides an eighth of each axis, and the spectrum's weights are
    # themselves estimated. With 2(n - 1) numbers, the rms has a relative standard error of 1/(2
    # sqrt(n - 1)), taken five times.
    allowed = 1.5 * expected_error(scene, rate, frames) * (1 + 5 / (2 * math.sqrt(frames - 1)))
    assert float((found - truth).square().mean().sqrt()) < allowed
    assert float(found.mean(0).abs().max()) < 1e-5


def test_better_than_the_aim_at_1024():
    """RELION 3.1 leaves 0.086 pixels on a movie like this one."""
    truth = planted(20)
    found = estimate_global_motion(poisson_movie(blobs((1024, 1024)), truth, 1.0), SETTINGS)
    assert float((found - truth).square().mean().sqrt()) < 0.06


def test_sign_and_axes():
    """One bright off-centre object that goes 3 rows down and 5 columns left: u changes by (+3, -5)
    pixels; in Angstrom, (y, x).
    """
    y, x = np.mgrid[:96, :128]
    places = ((40, 70), (43, 65))
    object_at = [np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 32) for cy, cx in places]
    generator = np.random.default_rng(0)
    frames = generator.poisson([20 + 20 * image for image in object_at])
    found = estimate_global_motion(Movie(frames, 1.5), SETTINGS)
    # Cramer-Rao: squared slopes sum to 20^2 pi/2 over a noise of 20 in each frame: 0.25 pixels
    # between them, half of it a frame; 5 times
    assert torch.allclose(
        found, 1.5 * torch.tensor([[-1.5, 2.5], [1.5, -2.5]]), atol=1.5 * 5 * 0.5 * 0.25
    )
    noise_free = Movie(np.stack(object_at), 1.5)
    total = accumulate(
        noise_free,
        1.5 * torch.tensor([[-1.0, 2.0], [2.0, -3.0]]),
        groupings=[Grouping(1.5, 1)],
    ).total
    assert divmod(int(total.argmax()), 128) == (
        41,
        68,
    )  # both brought to the reference: 40 + 1 = 43 - 2, 70 - 2 = 65 + 3
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
        float(
            (estimate_global_motion(movie, AlignmentSettings(acceleration_angstrom=a)) - truth)
            .square()
            .mean()
        )
        for a in (None, 0.02)
    ]
    assert error[1] < 0.5 * error[0]


def test_max_shift_and_resolution_are_obeyed():
    scene = blobs((256, 256))
    truth = torch.tensor([[-8.0, 0.0], [8.0, 0.0]])
    movie = poisson_movie(scene, truth, 5.0)
    assert torch.allclose(estimate_global_motion(movie, SETTINGS), truth, atol=0.2)
    assert (
        float(
            estimate_global_motion(movie, AlignmentSettings(max_shift_angstrom=3.0))
            .norm(dim=1)
            .max()
        )
        < 6
    )
    coarse = estimate_global_motion(
        movie, AlignmentSettings(resolution_angstrom=15.0, max_coefficients=256)
    )
    assert torch.allclose(coarse, truth, atol=0.8)


def test_input_untouched_and_repeatable():
    movie = poisson_movie(blobs((64, 64)), planted(4), 5.0, exposure=Exposure.uniform(4, 1.0))
    before = movie.frames.copy()
    first = estimate_global_motion(movie, SETTINGS)
    assert torch.equal(first, estimate_global_motion(movie, SETTINGS))
    kept = first.clone()
    accumulate(movie, first, groupings=[Grouping(2.0, 2)])
    assert np.array_equal(before, movie.frames)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("shape", [(32, 32), (33, 45)])
def test_tiny_frames(shape):
    frames = np.random.default_rng(0).poisson(3.0, (5, *shape)).astype(np.float32)
    found = estimate_global_motion(Movie(frames, 1.0), SETTINGS)
    assert found.shape == (5, 2)
    assert bool(torch.isfinite(found).all())


def test_single_frame():
    movie = Movie(
        np.random.default_rng(0).poisson(1.0, (1, 40, 41)),
        1.0,
        exposure=Exposure.uniform(1, 30.0, 2.0),
    )
    shifts = estimate_global_motion(movie, SETTINGS)
    assert torch.equal(shifts, torch.zeros(1, 2))
    aligned = accumulate(movie, shifts, groupings=[Grouping(1.0, 10)])
    frame = movie.frame(0)
    groups = groups_of(aligned)
    for image in (aligned.total, aligned.dose_weighted, groups.images[0]):
        assert torch.allclose(image, frame, atol=1e-5)
    assert groups.frame_counts == (1,)
    assert groups.exposure.accumulated_e_per_a2 == (17.0,)
    assert aligned.margin_px == (0, 0)


@pytest.mark.parametrize("value", [0, 7])
def test_constant_frame_is_named(value):
    frames = np.random.default_rng(0).poisson(1.0, (4, 32, 32))
    frames[2] = value
    movie = Movie(frames, 1.0, name="x.tif")
    with pytest.raises(BadInputError, match=rf"frame 3 of x\.tif is constant \(all {value}\)"):
        estimate_global_motion(movie, SETTINGS)
    with pytest.raises(BadInputError, match="frame 3"):
        accumulate(movie, torch.zeros(4, 2), groupings=[Grouping(1.0, 1)])
    with pytest.raises(BadInputError, match="frame 1"):
        estimate_global_motion(Movie(frames[2:3], 1.0), SETTINGS)


def test_too_small_to_align():
    with pytest.raises(BadInputError, match="too few"):
        estimate_global_motion(
            Movie(np.random.default_rng(0).poisson(1.0, (2, 4, 4)), 1.0), SETTINGS
        )


def test_sum_of_moved_frames_is_the_unmoved_sum():
    """The same scene, moved and still: sums agree within Poisson noise inside the margin, and the
    mean count is kept.
    """
    scene, truth = blobs((201, 190)), 4 * planted(12)
    movie = poisson_movie(scene, truth, 2.0)
    aligned = accumulate(movie, truth, groupings=[Grouping(1.0, 3)])
    y, x = aligned.margin_px
    inside = (slice(y, 201 - y), slice(x, 190 - x))
    assert (y, x) == tuple(math.ceil(float(truth[:, a].abs().max())) for a in (0, 1))
    difference = (aligned.total - 24 * (1 + scene))[inside]
    # Variance 24 counts; an image of m pixels gives its variance within 5 sqrt(2/m), and its mean
    # within 5 sqrt(24/m).
    m = difference.numel()
    assert float(difference.var()) == pytest.approx(
        24, rel=5 * math.sqrt(2 / m) + 0.02
    )  # scene clipping and border: below 2 %
    assert abs(float(difference.mean())) < 5 * math.sqrt(24 / m)
    assert torch.allclose(groups_of(aligned).images.sum(0), aligned.total, atol=1e-3)


def test_parts_of_a_pixel_are_undone_too():
    """Without noise, frames moved by parts of a pixel add up to the scene; a shift left over by
    0.1 pixel would show 2 % of its rms.
    """
    scene = blobs((128, 140), contrast=1.0)
    truth = torch.tensor([[0.4, -0.3], [-1.6, 2.4], [1.2, -2.1]])
    movie = Movie(torch.stack([moved(scene, u) for u in truth]).numpy(), 1.0)
    total = accumulate(movie, truth, groupings=[Grouping(1.0, 1)]).total
    error = (total / 3 - scene)[
        16:-16, 16:-16
    ]  # border: reflection is not the scene's continuation
    assert float(error.std()) < 0.01


def test_nothing_wraps_from_the_opposite_edge():
    frames = np.zeros((2, 64, 64), np.float32)
    frames[:, :4] = 100
    frames[0] += np.arange(64)[None] * 1e-3  # not constant
    total = accumulate(
        Movie(frames, 1.0),
        torch.tensor([[6.0, 0], [-6.0, 0]]),
        groupings=[Grouping(1.0, 1)],
    ).total
    assert float(total[40:].abs().max()) < 1


def test_groups_of_frames():
    frames = np.random.default_rng(0).poisson(3.0, (10, 117, 90))
    movie = Movie(frames, 0.8, exposure=Exposure.uniform(10, 1.5, 2.0))
    shifts = torch.zeros(10, 2)
    aligned = accumulate(movie, shifts, groupings=[Grouping(1.6, 4)])
    groups = groups_of(aligned)
    assert groups.images.shape == (4, 58, 44)  # 58.5 and 45 pixels: the nearest even sizes
    assert groups.images.dtype == torch.float32
    assert groups.frame_counts == (3, 3, 2, 2)
    assert groups.exposure.accumulated_e_per_a2 == pytest.approx((4.25, 8.75, 12.5, 15.5))
    assert groups.pixel_size_angstrom == pytest.approx(0.8 * (117 / 58 + 90 / 44) / 2)
    assert torch.allclose(
        groups.images[1],
        resample(torch.from_numpy(frames[3:6].sum(0)).float(), (58, 44)),
        atol=1e-4,
    )
    assert groups.images.mean((1, 2)).tolist() == pytest.approx(
        [frames[a:b].sum(0).mean() for a, b in ((0, 3), (3, 6), (6, 8), (8, 10))]
    )
    native = groups_of(accumulate(movie, shifts, groupings=[Grouping(0.5, 99)]))
    assert native.images.shape == (10, 117, 90)
    assert native.pixel_size_angstrom == pytest.approx(0.8)
    assert torch.allclose(native.images, torch.from_numpy(frames).float(), atol=1e-4)


def test_dose_weighting_keeps_white_noise_white_and_low_frequencies():
    generator = np.random.default_rng(0)
    movie = Movie(
        generator.poisson(1.0, (30, 256, 256)),
        1.0,
        exposure=Exposure.uniform(30, 2.0, 5000.0),
    )
    aligned = accumulate(movie, torch.zeros(30, 2), groupings=[Grouping(1.0, 1)])
    k = radial_frequency((256, 256))
    power = torch.fft.rfft2(aligned.dose_weighted).abs().square() / 256**2
    for low, high in ((0.02, 0.1), (0.1, 0.2), (0.2, 0.35), (0.35, 0.5)):
        ring = power[(k > low) & (k <= high)]
        assert float(ring.mean()) == pytest.approx(30, rel=5 / math.sqrt(ring.numel()))
    assert float(aligned.dose_weighted.mean()) == pytest.approx(
        float(aligned.total.mean()), rel=1e-5
    )
    # At half Nyquist (4 Angstrom, N_e 5.3) a sum over 60 e-/A2 is carried by the first frames: the
    # weights must differ from plain ones.
    assert float((aligned.dose_weighted - aligned.total).std()) > 0.5 * math.sqrt(30)


# Exposures that differ from frame to frame; what lies between the frames of the last has been seen.
UNEVEN = Exposure((0.5, 3.0, 1.0, 2.5, 0.7), (1.0, 1.5, 4.5, 7.5, 12.0))


def weighted_directly(spectra, exposure, pixel=1.0, voltage_kv=300.0):
    """sum(w F) / sqrt(sum(w^2 N) / sum(N)), w the amplitude left at each frame's middle: written
    out, in double precision.
    """
    shape = (spectra.shape[1], 2 * (spectra.shape[2] - 1))
    k = radial_frequency(shape, pixel).double()
    total, squares = torch.zeros_like(spectra[0]), torch.zeros_like(k)
    for spectrum, middle, own in zip(
        spectra, exposure.accumulated_e_per_a2, exposure.frame_e_per_a2, strict=True
    ):
        weight = damage_amplitude(k, middle, voltage_kv)
        total += weight * spectrum
        squares += weight**2 * own
    return total / (squares / exposure.total_e_per_a2).sqrt()


@pytest.mark.parametrize(
    "exposure",
    [
        UNEVEN,
        Exposure.uniform(5, 1.2, 3.0),
        Exposure.uniform(10, 1.2, 3.0).subset(range(1, 10, 2)),
        Exposure.uniform(90, 1.2, 3.0).subset([0, 1, 40, 41, 89]),
    ],
    ids=["uneven", "uniform", "every other frame", "gaps"],
)
def test_dose_weighting_is_the_direct_sum(exposure):
    frames = np.random.default_rng(0).poisson(3.0, (5, 64, 64))
    movie = Movie(frames, 1.0, exposure=exposure)
    found = accumulate(movie, torch.zeros(5, 2)).dose_weighted
    spectra = torch.fft.rfft2(torch.from_numpy(frames).double())
    expected = torch.fft.irfft2(weighted_directly(spectra, exposure))
    # The sum's rms is sqrt(15); float32 rounds a spectrum of mean 15 * 64^2 counts.
    assert torch.allclose(found.double(), expected, atol=2e-4)
    assert float((found.double() - torch.from_numpy(frames.sum(0))).std()) > 0.1


def test_uneven_exposures_keep_white_noise_white():
    """Frames whose noise has the variance that their exposure gives it."""
    generator = np.random.default_rng(0)
    rates = np.array(UNEVEN.frame_e_per_a2)[:, None, None]
    movie = Movie(generator.poisson(20 * rates, (5, 256, 256)), 1.0, exposure=UNEVEN)
    aligned = accumulate(movie, torch.zeros(5, 2))
    variance = 20 * UNEVEN.total_e_per_a2
    k = radial_frequency((256, 256))
    power = torch.fft.rfft2(aligned.dose_weighted).abs().square() / 256**2
    for low, high in ((0.02, 0.1), (0.1, 0.2), (0.2, 0.35), (0.35, 0.5)):
        ring = power[(k > low) & (k <= high)]
        assert float(ring.mean()) == pytest.approx(variance, rel=5 / math.sqrt(ring.numel()))


@pytest.mark.parametrize("first", [0, 1])
def test_a_half_is_weighted_by_what_its_frames_had_seen(first):
    """Frames of the other half have exposed the specimen as well."""
    frames = np.random.default_rng(1).poisson(3.0, (7, 64, 64))
    whole = Movie(frames, 1.0, exposure=Exposure.uniform(7, 2.0, 1.0))
    grouping = Grouping(2.0, 2)
    aligned = accumulate(whole, torch.zeros(7, 2), groupings=[grouping])
    half = half_movie(aligned, first)
    assert half.movie.frame_numbers == tuple(range(first, 7, 2))
    exposure = whole.exposure.subset(range(first, 7, 2))
    assert half.movie.exposure == exposure
    assert exposure.accumulated_e_per_a2 == tuple(2.0 + 2.0 * n for n in range(first, 7, 2))
    spectra = torch.fft.rfft2(torch.from_numpy(frames[first::2]).double())
    expected = torch.fft.irfft2(weighted_directly(spectra, exposure))
    assert torch.allclose(half.dose_weighted.double(), expected, atol=2e-4)
    groups = half.groups[grouping]
    middles = exposure.accumulated_e_per_a2
    counts = groups.frame_counts
    assert groups.exposure.accumulated_e_per_a2 == pytest.approx(
        (np.mean(middles[: counts[0]]), np.mean(middles[counts[0] :]))
    )
    assert torch.equal(half_movie(aligned, first, groupings=()).total, half.total)


def test_halves_have_the_motion_and_binning_of_the_whole():
    movie = poisson_movie(blobs((96, 90)), torch.zeros(5, 2), 5.0)
    settings = AlignmentSettings(bin=1.5)
    whole = align(movie, settings, halves=True, motion=Motion(planted(5), local_course(5, 1.0)))
    for first, total in ((0, whole.even), (1, whole.odd)):
        half = half_movie(whole, first)
        assert torch.allclose(half.total, total, atol=1e-3)
        assert half.pixel_size_angstrom == whole.pixel_size_angstrom
        assert torch.equal(
            half.motion.global_shift_angstrom, whole.motion.global_shift_angstrom[first::2]
        )


def test_dose_weighting_needs_an_exposure():
    movie = Movie(np.random.default_rng(0).poisson(1.0, (3, 32, 32)), 1.0)
    aligned = accumulate(movie, torch.zeros(3, 2), groupings=[Grouping(2.0, 2)])
    assert aligned.dose_weighted is None
    assert groups_of(aligned).exposure is None


def test_bad_arguments():
    movie = Movie(np.random.default_rng(0).poisson(1.0, (3, 32, 32)), 1.0)
    with pytest.raises(BadInputError, match=r"shifts of shape \(2, 2\)"):
        accumulate(movie, torch.zeros(2, 2), groupings=[Grouping(2.0, 2)])
    with pytest.raises(BadInputError, match="not one finite"):
        accumulate(movie, torch.full((3, 2), math.nan), groupings=[Grouping(2.0, 2)])
    with pytest.raises(SettingsError, match="at least 1"):
        accumulate(movie, torch.zeros(3, 2), groupings=[Grouping(2.0, 0)])


def bent(scene, motion, pixel):
    """The frames that a scene makes under a motion, continued periodically; without noise."""
    filtered = torch.fft.irfft2(
        torch.fft.rfft2(scene) * warp_prefilter(tuple(scene.shape)), s=scene.shape
    )
    return [
        warp_local(filtered, c / pixel, shift_px=tuple((s / pixel).tolist()))
        for s, c in zip(
            motion.global_shift_angstrom, motion.local_coefficients_angstrom, strict=True
        )
    ]


def local_course(frames, rms, seed=5):
    """Local motion of no symmetry, cubic in time, mean zero over frames."""
    z = torch.linspace(-1, 1, frames)
    courses = torch.stack((z, z**2 - 1 / 3, z**3), 1)
    c = torch.einsum(
        "fj,jak->fak", courses, torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(seed))
    )
    c -= c.mean(0)
    return c * (
        rms
        / float(
            (c.square() * torch.tensor([1 / 3, 1 / 3, 4 / 45, 4 / 45, 1 / 9])).sum(-1).mean().sqrt()
        )
    )


def test_local_motion_is_undone():
    """With the shift inside the field's polynomial: 30 pixels of drift over a slope of 0.02 would
    leave half a pixel otherwise.
    """
    scene = blobs((256, 300), contrast=1.0)
    local = torch.zeros(2, 2, 5)
    local[0] = torch.tensor([[2.0, -1.0, 1.0, 0.5, -1.5], [-1.0, 2.5, 0.5, -1.0, 1.0]])
    local[1] = -local[0]
    motion = Motion(torch.tensor([[20.4, -13.3], [-20.4, 13.3]]), local)
    movie = Movie(torch.stack(bent(scene, motion, 1.0)).numpy(), 1.0)
    inner = (slice(32, -32), slice(32, -32))
    scene = scene[inner]

    def left(m):
        return float((accumulate(movie, m).total[inner] / 2 - scene).std())

    # The inverse is right to first order: |u| up to 5 px times a slope of 0.04, with opposite signs
    # in the two frames, leaves 0.1 to 0.2 px where the field is worst; a shift by 0.1 px shows 2 %
    # of the scene's rms (see above).
    assert left(motion) < 0.03
    assert left(Motion.of_shifts(motion.global_shift_angstrom)) > 0.2
    assert left(Motion(motion.global_shift_angstrom, -local)) > 0.4
    assert left(Motion(motion.global_shift_angstrom, local.flip(1))) > 0.2


def test_local_motion_is_found_and_its_sum_is_better():
    # 640 pixels of 1 Å: three patches a side
    scene, frames = blobs((640, 640), 0.15), 12
    truth = Motion(planted(frames), local_course(frames, 0.8))
    generator = torch.Generator().manual_seed(2)
    counts = [
        torch.poisson((2 * (1 + f)).clamp(min=0), generator=generator).numpy()
        for f in bent(scene, truth, 1.0)
    ]
    movie = Movie(np.stack(counts), 1.0)
    found = align(movie, SETTINGS)
    error = motion_error(found.motion, truth, 1.0)
    assert error.local_px < 0.1 and error.global_px < 0.06
    assert "3 x 3 patches" in found.notes[0]
    without = align(movie, SETTINGS.model_copy(update={"patches": 0}))
    assert not without.motion.is_local
    assert without.notes == ()
    inner = (slice(24, -24), slice(24, -24))

    first = bent(scene, truth, 1.0)[0]  # where sums lie

    def likeness(total):
        return correlation(total[inner], first[inner])

    assert likeness(found.total) > likeness(without.total) + 0.01


def test_no_local_motion_where_there_is_none_or_nothing_to_tell_it_from():
    still, empty = Motion.of_shifts(planted(10)), Motion.of_shifts(torch.zeros(10, 2))
    movie = poisson_movie(blobs((640, 640), 0.05), still.global_shift_angstrom, 1.0)
    found = align(movie, SETTINGS)
    assert not found.motion.is_local
    assert "left at zero" in found.notes[0]
    noise = align(poisson_movie(torch.zeros(640, 640), empty.global_shift_angstrom, 1.0), SETTINGS)
    assert float(noise.motion.global_shift_angstrom.abs().max()) == 0
    assert "no signal" in noise.notes[0]
    small = align(poisson_movie(blobs((256, 256)), still.global_shift_angstrom, 1.0), SETTINGS)
    assert "too small a field" in small.notes[0]


def test_given_motion_is_taken_and_nothing_estimated():
    movie = poisson_movie(blobs((96, 96)), torch.zeros(4, 2), 5.0)
    given = Motion(planted(4), local_course(4, 0.3))
    steps = []
    with watching(steps.append), working_on("a movie"):
        aligned = align(movie, SETTINGS, motion=given)
    from_first = given.from_first_frame((95.0, 95.0))
    assert torch.equal(aligned.motion.global_shift_angstrom, from_first.global_shift_angstrom)
    assert torch.equal(
        aligned.motion.local_coefficients_angstrom, from_first.local_coefficients_angstrom
    )
    assert not aligned.motion.global_shift_angstrom[0].any()
    again = align(movie, SETTINGS, motion=from_first)
    torch.testing.assert_close(again.total, aligned.total, atol=1e-3, rtol=0)
    summing = [Step("a movie", "summing, frame", i, 4) for i in (1, 2, 3, 4)]
    assert steps == [Step("a movie", "beginning"), *summing, Step("a movie", None)]
    assert not aligned.groups
    with pytest.raises(BadInputError, match="local motion of shape"):
        align(movie, SETTINGS, motion=Motion(given.global_shift_angstrom, torch.zeros(3, 2, 5)))
    steps.clear()
    with watching(steps.append):
        align(movie, SETTINGS)
    assert [step.done for step in steps] == [1, 2, 3, 4, 1, 2, 3, 4]
    assert [step.doing for step in steps[3:5]] == ["looking for motion, frame", "summing, frame"]


@pytest.mark.parametrize("local", [0.0, 0.4])
def test_halves_are_the_odd_and_even_frames_counted_from_one(local):
    movie = poisson_movie(blobs((96, 90)), torch.zeros(5, 2), 5.0)
    aligned = align(
        movie, SETTINGS, halves=True, motion=Motion(planted(5), local * local_course(5, 1.0))
    )
    assert torch.allclose(aligned.even + aligned.odd, aligned.total, atol=1e-3)
    assert float(aligned.even.mean() / aligned.total.mean()) == pytest.approx(3 / 5, rel=0.02)
    still = align(movie, SETTINGS, halves=True, motion=Motion.of_shifts(torch.zeros(5, 2)))
    assert torch.allclose(still.even, torch.from_numpy(movie.frames[[0, 2, 4]].sum(0)), atol=1e-3)
    assert align(movie, SETTINGS, motion=Motion.of_shifts(torch.zeros(5, 2))).even is None


@pytest.mark.parametrize("local", [0.0, 0.4])
def test_binned_sums_are_fourier_crops_of_the_whole_ones(local):
    movie = poisson_movie(
        blobs((120, 90)), torch.zeros(4, 2), 5.0, exposure=Exposure.uniform(4, 2.0)
    )
    motion = Motion(planted(4), local * local_course(4, 1.0))
    whole = align(movie, SETTINGS, halves=True, motion=motion, groupings=[Grouping(2.0, 8)])
    binned = align(
        movie, AlignmentSettings(bin=1.5), halves=True, motion=motion, groupings=[Grouping(2.0, 8)]
    )
    for name in ("total", "dose_weighted", "even", "odd"):
        assert torch.allclose(
            getattr(binned, name), resample(getattr(whole, name), (80, 60)), atol=1e-3
        )
    assert torch.allclose(groups_of(binned).images, groups_of(whole).images, atol=1e-4)
    assert binned.pixel_size_angstrom == pytest.approx(1.5)


def test_path_lengths():
    shifts = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0], [3.0, 7.0], [3.0, 10.0]])
    motion = Motion.of_shifts(shifts - shifts.mean(0))
    assert motion.path_lengths_angstrom() == (pytest.approx(11.0), None, None)
    # Up to frame 4 / 1.3 = 3, from the first
    assert motion.path_lengths_angstrom(Exposure.uniform(5, 1.3)) == tuple(
        pytest.approx(v) for v in (11.0, 6.0, 5.0)
    )
    assert motion.path_lengths_angstrom(Exposure.uniform(5, 1.3, 10.0)) == tuple(
        pytest.approx(v) for v in (11.0, 0.0, 11.0)
    )


def test_patches_are_none_or_enough():
    with pytest.raises(ValueError, match="3 patches a side"):
        AlignmentSettings(patches=2)


def test_undoing_local_motion_leaves_white_noise_nearly_white():
    """Up to 0.35 cycles per pixel wholly; above, interpolation loses some, and adds none where
    displacements change as slowly as in movies: here by up to a pixel in 130, of the last frame
    against the first.
    """
    movie = poisson_movie(torch.zeros(256, 256), torch.zeros(8, 2), 4.0)
    total = align(movie, SETTINGS, motion=Motion(planted(8), local_course(8, 0.06))).total
    power = torch.fft.rfft2(total).abs().square() / 256**2
    k = radial_frequency((256, 256))
    for low, high, least in (
        (0.02, 0.2, 1.0),
        (0.2, 0.35, 1.0),
        (0.35, 0.45, 0.93),
        (0.45, 0.7, 0.5),
    ):
        ring = power[(k > low) & (k <= high)]
        error = (
            5 / math.sqrt(ring.numel()) + 0.01
        )  # the border's reflected pixels are counted twice
        assert least - error < float(ring.mean()) / 32 < 1 + error
