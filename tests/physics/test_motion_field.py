"""Motion: its size and its means, the direction in which content moves, the blur within a frame,
RELION's form of it.
"""

import math

import numpy as np
import pytest
import starfile
import torch
from physics_checks import STILL, blob_image

from dstnet.core.fourier import radial_frequency, shift_phase
from dstnet.core.randomness import stream
from dstnet.errors import BadInputError
from dstnet.motion import Motion
from dstnet.motion import warp as warping
from dstnet.motion.local_field import cubic_courses, local_basis, local_displacement
from dstnet.motion.relion import RelionMovie, from_relion, to_relion
from dstnet.motion.simulated_motion import (
    MotionSettings,
    SimulatedMotion,
    blur_of_path,
    draw_motion,
)
from dstnet.motion.warp import kernel_polynomials, warp_local, warp_prefilter

FIELD = (4000.0, 4000.0)


def drawn(settings=None, frames=20, exposure=2.0, pre=0.0, seed=0, field=FIELD) -> SimulatedMotion:
    return draw_motion(
        settings or MotionSettings(), frames, exposure, pre, field, stream(seed, "motion")
    )


def displacement_at(motion: Motion, frame: int, points_px, shape: tuple[int, int]):
    """Displacement u in Angstrom, [point, 2], of frame `frame` at `points_px` [point, 2], (y, x) in
    pixels of a field of `shape`.
    """
    y, x = (2 * points_px[:, axis] / (shape[axis] - 1) - 1 for axis in (0, 1))
    coefficients = motion.local_coefficients_angstrom[frame].to(x)
    local = torch.einsum("ak,kp->pa", coefficients, local_basis(y, x))
    return motion.global_shift_angstrom[frame].to(x) + local


EVERYTHING = MotionSettings(jumps_per_movie=2, walk_angstrom_per_e=0.2, height_drift_angstrom=100)


def test_shapes_and_reference():
    motion = drawn(EVERYTHING)
    assert list(motion.parts) == ["burst", "drift", "jitter", "jumps"]
    assert motion.path_angstrom.shape == motion.motion.global_shift_angstrom.shape == (20, 2)
    assert motion.local_coefficients_angstrom.shape == (20, 2, 5)
    assert motion.height_drift_angstrom.shape == (20,)
    for values in (
        *motion.parts.values(),
        motion.motion.global_shift_angstrom,
        motion.local_coefficients_angstrom,
    ):
        assert not values[0].any() and values[1:].any()
    # Rounding of some 10 Å in float32
    # Rounding of some 10 Å in float32
    assert float(motion.height_drift_angstrom.mean().abs()) < 1e-4
    torch.testing.assert_close(motion.motion.global_shift_angstrom, sum(motion.parts.values()))


@pytest.mark.parametrize(
    ("exposure", "published"), [(0.5, 2.1), (1.5, 0.67), (3.5, 0.22), (8.5, 0.13)]
)
def test_burst_is_as_fast_as_published(exposure, published):
    """Å per frame of 0.33 e-/Å2 around `exposure`, of the defaults.

    One law burst / (N + onset) stands for four published speeds: 3 * 0.33 / (N + 0.1) is within 25
    % of each. The turning of the track adds sqrt(1 + 0.4^2) - 1 = 8 % at most in the median, steady
    drift of 0.016 Å in a random direction up to 12 % of the slowest.
    """
    paths = [
        drawn(frames=1, exposure=0.33, pre=exposure - 0.165, seed=s).path_angstrom
        for s in range(40)
    ]
    assert float(torch.linalg.vector_norm(torch.stack(paths), dim=-1).median()) == pytest.approx(
        published, rel=0.4
    )


def test_the_track_passes_through_the_frames():
    """Without jitter, frames lie at the middle of their paths, and each path starts where the last
    one ended.
    """
    motion = drawn(MotionSettings(jitter_angstrom=0))
    trajectory, path = motion.motion.global_shift_angstrom, motion.path_angstrom
    torch.testing.assert_close(
        trajectory[1:] - trajectory[:-1], 0.5 * (path[1:] + path[:-1]), atol=1e-5, rtol=0
    )


def test_each_part_does_what_its_setting_says():
    still = drawn(STILL)
    for values in (
        still.motion.global_shift_angstrom,
        still.path_angstrom,
        still.local_coefficients_angstrom,
        still.height_drift_angstrom,
    ):
        assert not values.any()
    drift = drawn(STILL.model_copy(update={"drift_angstrom_per_e": 0.2}))
    torch.testing.assert_close(
        torch.linalg.vector_norm(drift.path_angstrom, dim=1), torch.full((20,), 0.4)
    )
    assert torch.equal(drift.motion.global_shift_angstrom, drift.parts["drift"])
    jitter = drawn(STILL.model_copy(update={"jitter_angstrom": 0.3}), frames=2000)
    assert not jitter.path_angstrom.any()
    # 2000 normals an axis: their rms is known to 1 / sqrt(4000) of itself.
    torch.testing.assert_close(
        jitter.parts["jitter"].std(0), torch.full((2,), 0.3), rtol=5 / math.sqrt(4000), atol=0
    )


def test_a_part_turned_off_leaves_the_others_as_they_are():
    whole = drawn(EVERYTHING)
    for off in (
        "burst_angstrom",
        "drift_angstrom_per_e",
        "jitter_angstrom",
        "jumps_per_movie",
        "local_angstrom",
        "walk_angstrom_per_e",
    ):
        without = drawn(EVERYTHING.model_copy(update={off: 0.0}))
        for name, part in whole.parts.items():
            assert torch.equal(without.parts[name], part) == (
                not off.startswith(name.rstrip("s"))
            ), (off, name)
        assert torch.equal(
            without.local_coefficients_angstrom, whole.local_coefficients_angstrom
        ) == (off[:5] not in ("local", "walk_"))


def test_jumps_are_steps_between_frames_of_the_number_and_length_set():
    settings = STILL.model_copy(update={"jumps_per_movie": 3.0, "jump_angstrom": 8.0})
    steps = []
    for seed in range(300):
        motion = drawn(settings, frames=400, seed=seed)
        assert not motion.path_angstrom.any()  # a jump blurs nothing
        step = torch.linalg.vector_norm(torch.diff(motion.parts["jumps"], dim=0), dim=1)
        steps.append(step[step > 1e-4])
    # 900 jumps: their number is known to 1 / sqrt(900); those that share one of 399 gaps are 1.1 %
    # at most. The mean square of a length of two normals has the relative error 1 / sqrt(900).
    assert sum(len(s) for s in steps) / 300 == pytest.approx(3, rel=0.011 + 5 / 30)
    assert float(torch.cat(steps).square().mean().sqrt()) == pytest.approx(8, rel=0.011 + 2.5 / 30)
    # Of two frames, the Poisson probability of no jump between them is exp(-1); 400 movies know it
    # to 0.024.
    still = [
        not drawn(settings.model_copy(update={"jumps_per_movie": 1.0}), frames=2, seed=s)
        .parts["jumps"]
        .any()
        for s in range(400)
    ]
    assert sum(still) / 400 == pytest.approx(math.exp(-1), abs=5 * 0.024)
    assert not drawn(settings, frames=1).motion.global_shift_angstrom.any()


def test_height_drifts_with_the_burst():
    """From one end of the exposure to the other it changes by what is set, as fast as the burst:
    log(1 + N / onset).
    """
    height = drawn(
        STILL.model_copy(update={"height_drift_angstrom": 200.0}), frames=30, exposure=1.0, pre=2.0
    ).height_drift_angstrom
    edges = np.log1p((2.0 + np.arange(31)) / 0.1)
    expected = 200 * (edges[1:] + edges[:-1]) / 2 / (edges[-1] - edges[0])
    np.testing.assert_allclose(height.numpy(), expected - expected.mean(), atol=1e-3)
    assert (
        float(
            drawn(STILL.model_copy(update={"height_drift_angstrom": -200.0})).height_drift_angstrom[
                0
            ]
        )
        > 0
    )


def test_pre_exposure_is_the_end_of_the_burst():
    early, late = (torch.linalg.vector_norm(drawn(pre=pre).path_angstrom[0]) for pre in (0.0, 20.0))
    assert float(late) < 0.1 * float(early)


# --- Local motion
# --------------------------------------------------------------------------------------------------


def mean_over_field(values):
    """Integral over [-1, 1]^2 / 4 by the trapezoid rule."""
    n = values.shape[-1]
    weight = torch.ones(n)
    weight[0] = weight[-1] = 0.5
    return torch.einsum("...yx,y,x->...", values, weight, weight) / (n - 1) ** 2


@pytest.mark.parametrize("seed", range(3))
def test_doming_has_mean_zero_and_the_rms_that_is_set(seed):
    """Mean zero over the field; the rms is about the mean over frames."""
    local = drawn(MotionSettings(local_angstrom=0.7), seed=seed).local_coefficients_angstrom
    local = local - local.mean(0)
    fields = torch.stack([local_displacement(c, (201, 201)) for c in local])
    # The rule's error for x^2 is h^2 / 6 = 2e-5, for x^4 four times that, with h = 0.01 and
    # coefficients of order one.
    assert float(mean_over_field(fields).abs().max()) < 2e-4
    assert float(mean_over_field(fields.square()).mean().sqrt()) == pytest.approx(0.7, rel=1e-3)


def test_doming_is_a_cubic_polynomial_of_the_frame_number():
    """Fourth differences of a cubic vanish; those of the Gaussian process, a random walk, do
    not.
    """
    local = drawn(MotionSettings(local_angstrom=2.0), frames=40).local_coefficients_angstrom
    assert float(torch.diff(local, n=3, dim=0).abs().max()) > 1e-5
    assert (
        float(torch.diff(local.double(), n=4, dim=0).abs().max()) < 16 * 3e-7
    )  # 2^4 roundings of up to 4 Å in float32
    walk = drawn(
        STILL.model_copy(update={"walk_angstrom_per_e": 0.2}), frames=40
    ).local_coefficients_angstrom
    assert float(torch.diff(walk, n=4, dim=0).abs().max()) > 0.01
    torch.testing.assert_close(cubic_courses(local), local - local.mean(0), atol=1e-6, rtol=0)
    walk = walk - walk.mean(0)
    left = torch.linalg.vector_norm(cubic_courses(walk) - walk)
    assert left < 0.7 * torch.linalg.vector_norm(walk)


def test_gaussian_process_has_the_covariance_of_its_prior():
    """Against the joint density of all velocities at all places and steps, written down and
    inverted as a whole.

    Three steps, an acceleration tight enough to matter. 1000 draws of two axes: a covariance is
    known to sqrt(2 / 2000) = 3.2 % of the geometric mean of its variances at most.
    """
    settings = STILL.model_copy(
        update={
            "walk_angstrom_per_e": 0.3,
            "walk_distance_angstrom": 2000.0,
            "walk_acceleration_angstrom_per_e": 0.2,
        }
    )
    field = (3000.0, 2000.0)
    # Frames of 1 e-/Å2: their middles are half a step apart from the steps' ends.
    got = []
    for seed in range(1000):
        local = drawn(
            settings, frames=3, exposure=1.0, seed=seed, field=field
        ).local_coefficients_angstrom
        early, late = (local[1:] - local[:-1]).unbind(0)
        got.append(torch.cat((late + early, late - early), 1))  # [axis, 2 * 5]
    got = np.cov(torch.cat(got).double().numpy().T)
    nodes = (np.arange(11) + 0.5) * 2 / 11 - 1
    y, x = (a.ravel() for a in np.meshgrid(nodes, nodes, indexing="ij"))
    distance = np.hypot((y[:, None] - y) * 1500, (x[:, None] - x) * 1000)
    change = np.diff(np.eye(3), axis=0)
    precision = (
        np.kron(np.eye(3), np.linalg.inv(0.3**2 * np.exp(-distance / 2000)))
        + np.kron(change.T @ change, np.eye(121)) / 0.2**2
    )
    project = np.linalg.pinv(
        np.stack([np.ones(121), x, y, x * x - 1 / 3, y * y - 1 / 3, x * y], 1)
    )[1:]
    # From the middle of one step to that of the next: half of each
    early, late = np.array([0.5, 0.5, 0]), np.array([0, 0.5, 0.5])
    between = np.kron(np.stack((late + early, late - early)), project)
    expected = between @ np.linalg.inv(precision) @ between.T
    scale = np.sqrt(np.diag(expected))
    assert np.abs((got - expected) / np.outer(scale, scale)).max() < 5 * 0.032
    assert (
        expected[5, 5] < 0.2 * expected[0, 0]
    )  # the acceleration ties the steps together; independent ones had 2 / 6
    assert (
        np.abs(expected[0, 0] / expected[1, 1] - 1) > 0.3
    )  # the field is longer in y: x and y are told apart


def test_gaussian_process_does_not_depend_on_the_frames():
    settings = STILL.model_copy(update={"walk_angstrom_per_e": 0.2})
    coarse, fine = (
        drawn(settings, frames=n, exposure=20 / n).local_coefficients_angstrom for n in (20, 60)
    )
    middle = fine[1::3]  # every third frame's middle is that of a coarse frame
    torch.testing.assert_close(middle - middle[0], coarse - coarse[0], atol=1e-5, rtol=0)


def test_local_basis_is_what_the_truth_says():
    """(x, y, x^2 - 1/3, y^2 - 1/3, x y), x and y from -1 to 1."""
    for index, formula in enumerate(
        (
            lambda y, x: x,
            lambda y, x: y,
            lambda y, x: x * x - 1 / 3,
            lambda y, x: y * y - 1 / 3,
            lambda y, x: x * y,
        )
    ):
        coefficients = torch.zeros(2, 5)
        coefficients[1, index] = 2.0
        got = local_displacement(coefficients, (5, 9))
        assert not got[0].any()
        for j, i in ((0, 0), (4, 0), (0, 8), (3, 1)):
            assert float(got[1, j, i]) == pytest.approx(
                2 * formula(-1 + j / 2, -1 + i / 4), abs=1e-6
            )


def test_displacement_at_points_is_the_whole_motion():
    motion, shape = drawn(), (50, 70)
    points = torch.tensor([[0.0, 0.0], [49.0, 69.0], [12.0, 60.0]])
    for frame in (0, 11):
        local = local_displacement(motion.local_coefficients_angstrom[frame], shape)
        expected = (
            torch.stack([local[:, int(y), int(x)] for y, x in points])
            + motion.motion.global_shift_angstrom[frame]
        )
        torch.testing.assert_close(
            displacement_at(motion.motion, frame, points, shape), expected, atol=1e-5, rtol=0
        )
    between = displacement_at(motion.motion, 0, torch.tensor([[0.5, 0.0]]), shape)[
        0
    ]  # within a pixel the field is all but linear
    ends = displacement_at(motion.motion, 0, torch.tensor([[0.0, 0.0], [1.0, 0.0]]), shape)
    torch.testing.assert_close(between, ends.mean(0), atol=1e-3, rtol=0)


# --- Warping
# --------------------------------------------------------------------------------------------------


def filtered(image):
    """What `warp_local` takes."""
    shape = tuple(image.shape)
    return torch.fft.irfft2(torch.fft.rfft2(image) * warp_prefilter(shape), s=shape)


def smooth_noise(shape, seed=0, highest=0.4):
    spectrum = torch.fft.rfft2(torch.randn(shape, generator=stream(seed, "noise"))) * (
        radial_frequency(shape) < highest
    )
    image = torch.fft.irfft2(spectrum, s=shape)
    return image / image.std()


def response(k: float, offsets: torch.Tensor) -> torch.Tensor:
    """What becomes of a wave of `k` cycles per pixel along x at each sub-pixel shift: complex, 1
    were it perfect.
    """
    n = 400  # k n is a whole number: the wave is periodic
    wave = 2 * math.pi * k * torch.arange(n, dtype=torch.float64)
    got = []
    for offset in offsets.tolist():
        parts = [
            warp_local(
                filtered(f(wave).float()[None].expand(8, n)),
                torch.zeros(2, 5),
                shift_px=(0.0, offset),
            )
            for f in (torch.cos, torch.sin)
        ]
        moved = torch.complex(*(p[0].double() for p in parts))
        got.append(
            (moved * torch.polar(torch.ones(n, dtype=torch.float64), -wave)).mean()
            * np.exp(2j * math.pi * k * offset)
        )
    return torch.stack(got)


@pytest.mark.parametrize(
    ("k", "amplitude", "pixels"),
    [
        (0.05, 4e-4, 5e-4),
        (0.1, 4e-4, 5e-4),
        (0.2, 5e-4, 5e-4),
        (0.3, 5e-4, 5e-4),
        (0.35, 6e-4, 5e-4),
        (0.4, 0.008, 0.002),
        (0.45, 0.15, 0.03),
    ],
)
def test_warp_keeps_amplitude_and_place_at_every_sub_pixel_shift(k, amplitude, pixels):
    """The goal is 1 % and 0.01 pixels up to 0.3 cycles per pixel; these are the figures of the
    docstring and the curve beyond.
    """
    offsets = torch.linspace(0, 1, 21)
    got = response(k, offsets)
    assert float((got.abs() - 1).abs().max()) < amplitude
    assert float((got.angle() / (2 * math.pi * k)).abs().max()) < pixels
    assert abs(complex(got[0]) - 1) < 1e-4  # whole pixels


def test_warp_of_an_even_field_is_the_fourier_shift():
    """Noise up to 0.3 cycles per pixel: each axis is good to 5e-4 of it in rms."""
    image = smooth_noise((96, 110), highest=0.3)
    for shift in ((2.0, -3.0), (0.5, 0.5), (1.21, -0.79), (-0.33, 4.1)):
        expected = torch.fft.irfft2(
            torch.fft.rfft2(image) * shift_phase((96, 110), shift), s=(96, 110)
        )
        error = warp_local(filtered(image), torch.zeros(2, 5), shift_px=shift) - expected
        assert float(error.square().mean().sqrt()) < 2 * 5e-4


def test_warp_by_whole_pixels_is_exact_and_arguments_stay():
    image = smooth_noise((40, 50))
    source, coefficients = filtered(image), torch.zeros(2, 5)
    before = source.clone(), coefficients.clone()
    moved = warp_local(source, coefficients, shift_px=(2.0, -3.0))
    torch.testing.assert_close(moved, torch.roll(image, (2, -3), (0, 1)), atol=1e-4, rtol=0)
    cropped = warp_local(source, coefficients, (20, 24), (7, 5), (2.0, -3.0))
    assert torch.equal(cropped, moved[7:27, 5:29])
    assert torch.equal(source, before[0])
    assert torch.equal(coefficients, before[1])


def test_warp_moves_content_by_the_local_field():
    """out(x) = image(x - u(x)): a Gaussian's height at x - u, from its formula, u from the truth's
    polynomial; y and x differ.
    """
    shape, padded, offset = (60, 72), (100, 108), (22, 14)
    centre = (48.0, 55.0)
    coefficients = torch.tensor([[1.5, -0.6, 0.9, 0.4, -1.1], [-0.7, 2.0, 0.3, -1.3, 0.8]])
    shift = (0.7, -1.4)
    image = blob_image(centre, padded, 4.0)
    u = local_displacement(coefficients, shape) + torch.tensor(shift)[:, None, None]
    y = torch.arange(60.0)[:, None] + offset[0] - u[0] - centre[0]
    x = torch.arange(72.0)[None, :] + offset[1] - u[1] - centre[1]
    got = warp_local(filtered(image), coefficients, shape, offset, shift)
    # The Gaussian is nil beyond 0.2 cycles per pixel; both axes are good to 5e-4 of it.
    torch.testing.assert_close(got, torch.exp(-(y * y + x * x) / 32), atol=1e-3, rtol=0)


def test_warp_on_any_device_and_on_any_number_of_threads():
    """The compiled kernel and the tensor operations of other devices agree to 1e-5; threads do not
    matter, to the last bit.
    """
    source = filtered(smooth_noise((90, 84)))
    generator = stream(0, "warp")
    for shape, offset, coefficients in (
        ((60, 50), (14, 20), 2 * torch.randn(2, 5, generator=generator)),
        ((90, 84), (0, 0), 8 * torch.randn(2, 5, generator=generator)),  # across all sides
    ):
        got = warp_local(source, coefficients, shape, offset, (0.4, -2.7))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(warping, "_warp_compiled", warping._warp_torch)
            torch.testing.assert_close(
                warp_local(source, coefficients, shape, offset, (0.4, -2.7)),
                got,
                atol=1e-5,
                rtol=1e-5,
            )
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            assert torch.equal(warp_local(source, coefficients, shape, offset, (0.4, -2.7)), got)
        finally:
            torch.set_num_threads(threads)


def test_everything_stays_on_the_device_of_its_input():
    """On PyTorch's device without data, where an operand from anywhere else is an error."""
    meta = torch.device("meta")
    image, coefficients = torch.zeros(60, 64, device=meta), torch.zeros(2, 5)
    assert warp_local(image, coefficients, (40, 40), (8, 8), (0.5, 1.0)).shape == (40, 40)
    for made in (
        warp_local(image, coefficients),
        torch.fft.rfft2(image) * warp_prefilter((60, 64), meta),
        image[:, :33] * blur_of_path((60, 64), 1.0, torch.zeros(2), meta),
        local_displacement(coefficients.to(meta), (60, 64)) + image,
    ):
        assert made.device == meta


def test_warp_kernel_is_a_continuous_partition_of_unity():
    c = kernel_polynomials()

    def phi(x):
        piece = np.minimum(np.abs(x).astype(int), 2)
        return sum(c[piece, j] * (np.abs(x) - piece - 0.5) ** j for j in range(6)) * (
            np.abs(x) <= 3
        )

    x = np.linspace(0, 1, 33)
    np.testing.assert_allclose(sum(phi(x + i) for i in range(-3, 3)), 1, atol=1e-12)
    for edge in (1.0, 2.0, 3.0):
        np.testing.assert_allclose(
            phi(np.array(edge - 1e-9)), phi(np.array(edge + 1e-9)) if edge < 3 else 0, atol=1e-8
        )


# --- Blur and the rest
# --------------------------------------------------------------------------------------------------


def test_blur_is_the_mean_over_the_path():
    path, shape, pixel, steps = torch.tensor([3.0, -5.0]), (32, 48), 1.5, 400
    positions = [(i + 0.5) / steps - 0.5 for i in range(steps)]
    mean = (
        sum(
            shift_phase(shape, (float(path[0]) / pixel * p, float(path[1]) / pixel * p))
            for p in positions
        )
        / steps
    )
    # The middle rule's error is (pi k d / steps)^2 / 6: below 1e-4 even at the corner.
    torch.testing.assert_close(blur_of_path(shape, pixel, path), mean.real, atol=1e-4, rtol=0)


def test_blur_is_a_sinc_with_its_first_zero_at_one_over_the_path():
    blur = blur_of_path((64, 64), 1.0, torch.tensor([8.0, 0.0]))
    row = blur[:, 0]  # along ky, in steps of 1/64
    assert float(row[0]) == 1
    assert bool((row[:8] > 0).all())
    assert float(row[8]) == pytest.approx(0, abs=1e-6)
    assert float(row[4]) == pytest.approx(2 / math.pi, abs=1e-6)
    assert float(row[12]) == pytest.approx(-2 / (3 * math.pi), abs=1e-6)
    assert torch.allclose(blur, row[:, None].expand(64, 33))  # nothing across the path
    assert torch.equal(blur_of_path((64, 64), 1.0, torch.zeros(2)), torch.ones(64, 33))
    assert bool((blur <= 1).all())


def test_a_single_frame_stands_at_the_reference():
    motion = drawn(EVERYTHING, frames=1)
    for values in (
        motion.motion.global_shift_angstrom,
        motion.local_coefficients_angstrom,
        motion.height_drift_angstrom,
    ):
        assert not values.any()
    assert motion.path_angstrom.shape == (1, 2)
    assert (
        float(torch.linalg.vector_norm(motion.path_angstrom)) > 1
    )  # it still moves while it is taken


def test_same_stream_same_motion():
    a, b, c = (drawn(EVERYTHING, seed=seed).motion for seed in (1, 1, 2))
    for same, other in ((b, True), (c, False)):
        assert torch.equal(a.global_shift_angstrom, same.global_shift_angstrom) is other
        assert torch.equal(a.local_coefficients_angstrom, same.local_coefficients_angstrom) is other


# --- RELION's form
# --------------------------------------------------------------------------------------------------

SHAPE, PIXEL = (300, 420), 1.3


def relion_tables(motion, **changes):
    options = {
        "shape": SHAPE,
        "pixel_size_angstrom": PIXEL,
        "movie_name": "m.mrcs",
        "exposure_e_per_a2": 1.0,
        **changes,
    }
    return to_relion(
        motion.motion.global_shift_angstrom,
        motion.local_coefficients_angstrom,
        RelionMovie(**options),
    )


def relion_shift(tables, frame, y, x):
    """RELION's shift (y, x) in pixels, written out from the description of its file: frame from 1,
    y and x in pixels.
    """
    row = tables["global_shift"].iloc[frame - 1]
    assert row["rlnMicrographFrameNumber"] == frame
    model = tables["local_motion_model"]
    assert list(model["rlnMotionModelCoeffsIdx"]) == list(range(36))
    c = list(model["rlnMotionModelCoeff"])
    z, v, u = frame - 1, y / SHAPE[0] - 0.5, x / SHAPE[1] - 0.5
    terms = [1, u, u * u, v, v * v, u * v]
    local = [
        sum(
            terms[i] * (c[s + 3 * i] * z + c[s + 3 * i + 1] * z**2 + c[s + 3 * i + 2] * z**3)
            for i in range(6)
        )
        for s in (18, 0)
    ]
    return row["rlnMicrographShiftY"] + local[0], row["rlnMicrographShiftX"] + local[1]


def test_relion_tables_hold_the_motion():
    """At any place of the sum, RELION's shift is minus the motion since the first frame, in pixels:
    of what lies there in the first frame, to the local motion times its own slope.
    """
    motion = drawn(MotionSettings(local_angstrom=0.5), frames=30)
    tables = relion_tables(motion)
    for frame, y, x in ((1, 10, 20), (2, 0, 0), (15, 299, 100), (30, 120, 419)):
        point = there = torch.tensor([[float(y), float(x)]])
        for _ in range(4):
            there = point + displacement_at(motion.motion, frame - 1, there, SHAPE) / PIXEL
        moved = (there - point)[0]
        np.testing.assert_allclose(
            relion_shift(tables, frame, y, x),
            (-float(moved[0]), -float(moved[1])),
            atol=0.05,
        )
    general = tables["general"]
    assert (general["rlnImageSizeX"], general["rlnImageSizeY"], general["rlnImageSizeZ"]) == (
        420,
        300,
        30,
    )
    assert general["rlnMotionModelVersion"] == 1


@pytest.mark.parametrize("frames", [1, 2, 30, 200])
def test_motion_survives_a_relion_file(tmp_path, frames):
    motion = drawn(MotionSettings(local_angstrom=1.5), frames=frames)
    starfile.write(relion_tables(motion), tmp_path / "m.star", float_format="%.9g")
    shift, local = from_relion(starfile.read(tmp_path / "m.star"))
    # Taken to where content lies in the sum, a cubic polynomial is nearly one still.
    atol = 1e-5 if frames <= 2 else 0.1
    torch.testing.assert_close(shift, motion.motion.global_shift_angstrom, atol=atol, rtol=0)
    torch.testing.assert_close(local, motion.local_coefficients_angstrom, atol=atol, rtol=0)
    # As RELION has it, it survives to nine digits and the float32 of some Å.
    tables = to_relion(shift, local, RelionMovie(SHAPE, PIXEL, "m.mrcs", 1.0))
    again = from_relion(tables)
    torch.testing.assert_close(again[0], shift, atol=1e-5, rtol=0)
    torch.testing.assert_close(again[1], local, atol=1e-5, rtol=0)


def test_what_is_no_cubic_goes_to_relion_as_the_nearest():
    motion = drawn(STILL.model_copy(update={"walk_angstrom_per_e": 0.2}), frames=30)
    local = from_relion(relion_tables(motion))[1]
    cubic = cubic_courses(motion.local_coefficients_angstrom)
    torch.testing.assert_close(local, cubic - cubic[0], atol=1e-5, rtol=0)


def test_relion_motion_without_local_model_and_what_is_refused():
    tables = relion_tables(drawn(MotionSettings(local_angstrom=0)))
    plain = {
        "general": {**tables["general"], "rlnMotionModelVersion": 0},
        "global_shift": tables["global_shift"],
    }
    shift, local = from_relion(plain)
    assert not local.any()
    planted = drawn(MotionSettings(local_angstrom=0)).motion
    torch.testing.assert_close(shift, planted.global_shift_angstrom, atol=1e-5, rtol=0)
    with pytest.raises(BadInputError, match="version 2"):
        from_relion({**tables, "general": {**tables["general"], "rlnMotionModelVersion": 2}})
    with pytest.raises(BadInputError, match="no local_motion_model"):
        from_relion({name: table for name, table in tables.items() if name != "local_motion_model"})
    with pytest.raises(BadInputError, match="35 coefficients"):
        from_relion({**tables, "local_motion_model": tables["local_motion_model"].iloc[:35]})
