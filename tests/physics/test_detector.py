"""Cameras: flat beams have the statistics of counting, or the noise colour of integrating, and the right dose."""

import math

import physics_checks as checks
import pytest
import torch

from dstnet.core.fourier import radial_frequency
from dstnet.core.randomness import stream
from dstnet.detector.camera import DetectorSettings, detect, mtf

SHAPE = (256, 320)
N = SHAPE[0] * SHAPE[1]


def flat(level, **settings):
    return detect(torch.full(SHAPE, level), DetectorSettings(**settings), stream(1, "flat"))


@pytest.mark.parametrize("level", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("efficiency", [0.5, 1.0])
def test_counts_of_a_flat_beam_are_poisson(level, efficiency):
    """Mean m known to sqrt(m / n); variance, of fourth moment m + 3 m^2, to sqrt((m + 2 m^2) / n); correlations to 1 / sqrt(n)."""
    counts = flat(level, quantum_efficiency=efficiency)
    m = level * efficiency
    assert abs(float(counts.double().mean()) - m) < 5 * math.sqrt(m / N)
    assert abs(float(counts.double().var()) - m) < 5 * math.sqrt((m + 2 * m * m) / N)
    centred = counts - m
    for a, b in ((centred[1:], centred[:-1]), (centred[:, 1:], centred[:, :-1]), (centred[1:, 1:], centred[:-1, :-1])):
        assert abs(float((a * b).mean())) / m < 5 / math.sqrt(a.numel())
    assert torch.equal(counts, counts.round())
    assert float(counts.min()) >= 0


def test_noise_of_a_counting_camera_is_white():
    power, error = checks.rings(flat(3.0), 16)
    assert bool(((power / (3 * 0.85) - 1).abs() < 5 * error).all())


def test_noise_of_an_integrating_camera_follows_mtf_squared():
    checks.check_integrating_noise()


def test_a_perfect_integrating_camera_counts():
    common = {"mtf_half_frequency": None, "quantum_efficiency": 0.7}
    assert torch.equal(flat(3.0, mode="integrating", **common), flat(3.0, mode="counting", **common))


def test_no_beam_no_counts():
    assert not flat(0.0).any()
    assert not detect(torch.full((32, 32), -0.1), DetectorSettings(), stream(1)).any()  # a contrast below -1 is no beam either


def test_expectation_is_left_alone_and_the_stream_decides():
    expected = torch.full((64, 64), 2.0)
    before = expected.clone()
    first = detect(expected, DetectorSettings(), stream(1, "a"))
    assert torch.equal(expected, before)
    assert torch.equal(first, detect(expected, DetectorSettings(), stream(1, "a")))
    assert not torch.equal(first, detect(expected, DetectorSettings(), stream(1, "b")))


# --- MTF ---------------------------------------------------------------------------------------------------------------------------


def test_mtf_is_one_half_where_it_says():
    values = mtf((100, 100), DetectorSettings(mtf_half_frequency=0.3, mtf_power=2.5))
    assert float(values[0, 0]) == 1
    assert float(values[0, 30]) == pytest.approx(0.5)
    assert float(values[30, 0]) == pytest.approx(0.5)
    assert mtf((100, 100), DetectorSettings(mtf_half_frequency=None)) is None


def test_default_is_near_a_k3():
    """0.89 and 0.64 at half Nyquist and Nyquist, 300 kV."""
    values = mtf((100, 100), DetectorSettings())
    assert float(values[0, 25]) == pytest.approx(0.89, abs=0.02)
    assert float(values[0, 50]) == pytest.approx(0.64, abs=0.03)


def test_binned_frames_see_the_inner_part_of_the_curve():
    fine, binned = mtf((200, 200), DetectorSettings()), mtf((100, 100), DetectorSettings(binning=2.0))
    torch.testing.assert_close(binned[:50, :50], fine[:50, :50])


def test_power_sets_the_fall():
    k = radial_frequency((64, 64))
    for power in (1.0, 4.0):
        torch.testing.assert_close(mtf((64, 64), DetectorSettings(mtf_power=power)), 1 / (1 + (k / 0.7) ** power))


# --- Through a whole shot ----------------------------------------------------------------------------------------------------------


def test_dose_is_right_at_any_pixel_size():
    checks.check_dose_at_any_pixel_size()


def test_signal_of_a_counting_camera_is_blurred_once():
    checks.check_counting_shot_follows_mtf()
