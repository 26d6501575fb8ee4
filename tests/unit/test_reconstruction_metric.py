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
)
from dstnet.optics.ctf import OpticsSettings, contrast_transfer
from dstnet.potential import Projector, build_potential, random_rotation
from dstnet.structure import phantom

PIXEL, BOX = 4.0, 56
OPTICS = OpticsSettings(b_factor_angstrom2=0)


@pytest.fixture(scope="module")
def projector() -> Projector:
    return Projector(build_potential(phantom(25), PIXEL), 300.0)


def truth(projector: Projector) -> np.ndarray:
    volume = build_potential(phantom(25), PIXEL).volume
    margin = BOX // 2 - len(volume) // 2
    return np.pad(volume, (margin, BOX - len(volume) - margin))


def transfer_of(number: int) -> np.ndarray:
    defocus = 9000.0 + 4000 * (number % 2)
    whole = contrast_transfer((BOX, BOX), PIXEL, OPTICS, defocus)
    return whole.numpy()[Slice(BOX).kept]


def half_maps(projector: Projector, count: int, noise: float, signal: float = 1.0):
    random = np.random.default_rng(1)
    poses = stream(1, "poses")
    halves = FourierVolume(BOX), FourierVolume(BOX)
    plane = Slice(BOX)
    for number in range(count):
        rotation = random_rotation(poses)
        phase = torch.zeros(BOX, BOX)
        small = projector.phase(rotation)
        start = BOX // 2 - len(small) // 2
        inside = slice(start, start + len(small))
        phase[inside, inside] = small
        transfer = transfer_of(number // 2)
        terms = signal * transfer * plane.terms(phase.numpy())
        terms = terms + noise * plane.terms(random.normal(size=(BOX, BOX)))
        halves[number % 2].insert(terms, transfer, rotation.numpy())
    ball = soft_ball(BOX, 13.0, 3.0)
    both = FourierVolume.joined(halves, (1, 1))
    return *(half.volume() * ball for half in halves), both.volume() * ball


def test_clean_projections_give_back_their_volume(projector):
    one, other, both = half_maps(projector, 600, noise=0.0)
    last = int(0.8 * BOX / 2)
    assert (shell_correlation(both, truth(projector))[: last + 1] > 0.99).all()
    assert (shell_correlation(one, other)[: last + 1] > 0.98).all()


def test_half_maps_of_noise_share_nothing(projector):
    one, other, both = half_maps(projector, 300, noise=1.0, signal=0.0)
    # Terms that the mask leaves independent: about one in eight of a shell's.
    assert abs(shell_correlation(one, other)[6:].mean()) < 0.1
    assert abs(shell_correlation(both, truth(projector))[6:].mean()) < 0.1


def test_half_maps_of_particles_in_noise_promise_what_the_truth_confirms(projector):
    one, other, both = half_maps(projector, 400, noise=0.4)
    promised = promised_correlation(shell_correlation(one, other))
    kept = shell_correlation(both, truth(projector))
    assert 0.2 < kept.min() < 0.95
    assert abs(promised - kept)[6:].max() < 0.12
    assert abs((promised - kept)[6:].mean()) < 0.03


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
