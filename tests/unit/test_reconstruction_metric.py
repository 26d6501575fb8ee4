"""Maps of particles of known poses, and what their shell correlations say."""

import numpy as np
import pytest
import torch

from dstnet.core.randomness import stream
from dstnet.metrics.reconstruction import (
    FourierVolume,
    Slice,
    promised_correlation,
    resolution_angstrom,
    shell_correlation,
    soft_ball,
    whitened,
)
from dstnet.optics.ctf import OpticsSettings, contrast_transfer
from dstnet.potential import Projector, build_potential, random_rotation
from dstnet.structure import phantom

PIXEL, BOX = 5.0, 44
OPTICS = OpticsSettings(b_factor_angstrom2=0)


COUNT = 250


@pytest.fixture(scope="module")
def views():
    """Poses of particles, the terms of their projections, and transfers."""
    projector = Projector(build_potential(phantom(25), PIXEL), 300.0)
    poses = stream(1, "poses")
    rotations = torch.stack([random_rotation(poses) for _ in range(COUNT)])
    small = projector.phases(rotations)
    start = BOX // 2 - projector.size // 2
    inside = slice(start, start + projector.size)
    whole = torch.zeros(COUNT, BOX, BOX)
    whole[:, inside, inside] = small
    plane = Slice(BOX)
    transfers = [
        contrast_transfer((BOX, BOX), PIXEL, OPTICS, defocus).numpy()[plane.kept]
        for defocus in (9000.0, 13000.0)
    ]
    return [
        (plane.terms(image), transfers[number // 2 % 2], rotation)
        for number, (image, rotation) in enumerate(
            zip(whole.numpy(), rotations.numpy(), strict=True)
        )
    ]


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    volume = build_potential(phantom(25), PIXEL).volume
    margin = BOX // 2 - len(volume) // 2
    return np.pad(volume, (margin, BOX - len(volume) - margin))


def half_maps(views, noise: float, signal: float = 1.0):
    """Maps of both halves and of all, within a ball."""
    random = np.random.default_rng(1)
    halves = FourierVolume(BOX), FourierVolume(BOX)
    for number, (terms, transfer, rotation) in enumerate(views):
        own = Slice(BOX).terms(random.normal(size=(BOX, BOX)))
        halves[number % 2].insert(signal * transfer * terms + noise * own, transfer, rotation)
    ball = soft_ball(BOX, 11.0, 3.0)
    both = FourierVolume.joined(halves, (1, 1))
    return *(half.volume() * ball for half in halves), both.volume() * ball


def test_clean_projections_give_back_their_volume(views, truth):
    one, other, both = half_maps(views, noise=0.0)
    last = int(0.8 * BOX / 2)
    assert (shell_correlation(both, truth)[: last + 1] > 0.99).all()
    assert (shell_correlation(one, other)[: last + 1] > 0.97).all()


def test_half_maps_of_noise_share_nothing(views, truth):
    one, other, both = half_maps(views, noise=1.0, signal=0.0)
    # Terms that the mask leaves independent: about one in eight of a shell's.
    assert abs(shell_correlation(one, other)[6:].mean()) < 0.1
    assert abs(shell_correlation(both, truth)[6:].mean()) < 0.1


def test_half_maps_of_particles_in_noise_promise_what_the_truth_confirms(views, truth):
    one, other, both = half_maps(views, noise=0.12)
    promised = promised_correlation(shell_correlation(one, other))
    kept = shell_correlation(both, truth)
    assert 0.2 < kept.min() < 0.95
    # A shell has some tens of terms that the mask leaves independent.
    assert abs((promised - kept)[4:].mean()) < 0.1


def test_a_shared_error_is_promised_and_not_confirmed():
    random = np.random.default_rng(0)
    signal, shared = random.normal(size=(2, 32, 32, 32))
    own = random.normal(size=(2, 32, 32, 32))
    one, other = signal + shared + own
    promised = promised_correlation(shell_correlation(one, other))[6:].mean()
    confirmed = shell_correlation(one + other, signal)[6:].mean()
    # Of variance 1 + 1 + 1/2 one is the signal's.
    assert promised == pytest.approx(np.sqrt(2 / 2.5), abs=0.02)
    assert confirmed == pytest.approx(np.sqrt(1 / 2.5), abs=0.02)


def test_coarse_detail_does_not_fill_fine_shells_of_whitened_maps():
    random = np.random.default_rng(0)
    size = 48
    k = np.fft.fftfreq(size)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)

    def falling(volume):
        spectrum = np.fft.fftn(volume) * np.exp(-((radius / 0.1) ** 2))
        return np.fft.ifftn(spectrum).real.astype(np.float32)

    ball = soft_ball(size, 8.0, 2.0)
    coarse = np.fft.fftn(random.normal(size=(size,) * 3)) * (radius < 0.1)
    shared = falling(np.fft.ifftn(coarse).real)
    halves = [shared + 0.1 * falling(random.normal(size=(size,) * 3)) for _ in range(2)]
    fine = slice(14, None)
    masked = shell_correlation(*(half * ball for half in halves))
    assert masked[fine].min() > 0.5  # of the mask's edge
    white = whitened(halves, halves[0] + halves[1])
    assert abs(shell_correlation(*(half * ball for half in white))[fine].mean()) < 0.15


def test_resolution_is_where_a_curve_first_falls():
    curve = np.array([1, 1, 1, 0.9, 0.7, 0.3, 0.1, 0.6])
    assert resolution_angstrom(curve, 0.5, 100.0) == pytest.approx(100 / 4.5)
    assert resolution_angstrom(curve, 0.05, 100.0) == pytest.approx(100 / 7)
    assert resolution_angstrom(curve, 0.95, 100.0) == pytest.approx(100 / 3)
    assert promised_correlation(np.array([0.143, -0.2, 1.0])) == pytest.approx(
        [0.5, 0, 1], abs=1e-3
    )


def test_images_counted_twice_weigh_twice():
    random = np.random.default_rng(0)
    plane = Slice(16)
    terms = plane.terms(random.normal(size=(16, 16)))
    transfer = np.ones(len(plane.plane))
    once, twice = FourierVolume(16), FourierVolume(16)
    once.insert(terms, transfer, np.eye(3))
    for _ in range(2):
        twice.insert(terms, transfer, np.eye(3))
    joined = FourierVolume.joined([once], [2.0])
    np.testing.assert_allclose(joined.volume(), twice.volume(), rtol=1e-5, atol=1e-7)
