"""Radiation damage: the published numbers, the limits, and the exposure at which a frame is
counted.
"""

import math

import pytest
import torch

from dstnet.motion.exposure_filter import (
    B_FACTOR_ANGSTROM2_PER_E,
    b_factor_amplitude,
    critical_exposure,
    damage_amplitude,
)
from dstnet.movie import Exposure


@pytest.mark.parametrize(
    ("resolution", "expected"), [(10.0, 14.1), (5.0, 6.4), (4.0, 5.3), (3.0, 4.3)]
)
def test_critical_exposure_at_300_kv(resolution, expected):
    assert float(critical_exposure(torch.tensor(1 / resolution), 300)) == pytest.approx(
        expected, abs=0.05
    )  # printed to one decimal


@pytest.mark.parametrize(
    ("voltage", "factor"), [(300, 1.0), (200, 0.8), (100, 0.53), (150, 0.665), (400, 1.0)]
)
def test_critical_exposure_scales_with_voltage(voltage, factor):
    k = torch.tensor([0.05, 0.3])
    assert torch.allclose(critical_exposure(k, voltage), factor * critical_exposure(k, 300))


def test_amplitude_at_the_critical_exposure():
    k = torch.tensor([0.1, 0.25])
    for k_, n_e in zip(k, critical_exposure(k, 200), strict=True):
        assert float(damage_amplitude(k_, float(n_e), 200)) == pytest.approx(
            math.exp(-0.5), rel=1e-5
        )


def test_no_exposure_and_zero_frequency_keep_everything():
    k = torch.linspace(0, 0.5, 20)
    assert torch.equal(damage_amplitude(k, 0.0, 300), torch.ones(20))
    assert float(damage_amplitude(k, 1e4, 300)[0]) == 1


def test_exposures_multiply():
    k = torch.linspace(0, 0.4, 9)
    assert torch.allclose(
        damage_amplitude(k, 7.0, 300), damage_amplitude(k, 3.0, 300) * damage_amplitude(k, 4.0, 300)
    )


def test_middle_of_a_frame_is_its_mean_decay():
    """exp(-x) over a frame of width h: its mean differs from its middle by the factor
    sinh(h/2)/(h/2) = 1 + h^2/24.
    """
    k = torch.tensor(1 / 3.0)
    (exposure,) = Exposure.uniform(1, 4.0).accumulated_e_per_a2
    middle = damage_amplitude(k, exposure, 300)
    over = torch.stack(
        [damage_amplitude(k, float(n), 300) for n in torch.linspace(0, 4, 2001)]
    ).mean()
    h = 4.0 / (2 * float(critical_exposure(k, 300)))
    assert float(over / middle) - 1 == pytest.approx(h**2 / 24, rel=0.02)
    assert Exposure.uniform(3, 2.0, 5.0).accumulated_e_per_a2 == (6.0, 8.0, 10.0)


def test_growing_b_factor_is_a_debye_waller_factor():
    """As a B-factor of B N on the structure: exp(-B N / (4 d^2)), written out here for d = 4 Å
    after 10 e-/A^2.
    """
    left = b_factor_amplitude(torch.tensor([0.0, 0.25]), 10.0)
    assert float(left[0]) == 1
    assert float(left[1]) == pytest.approx(math.exp(-4 * 10 / (4 * 16)), rel=1e-6)
    assert float(b_factor_amplitude(torch.tensor(0.25), 10.0, 2.0)) == pytest.approx(
        math.exp(-2 * 10 / 64), rel=1e-6
    )
    assert B_FACTOR_ANGSTROM2_PER_E == 4  # published
    # A Gaussian fall in k with rms displacement sqrt(B N / (8 pi^2)): at 10 e-/A^2, 0.71 Å.
    k = torch.linspace(0, 0.4, 9)
    assert torch.allclose(
        b_factor_amplitude(k, 10.0), torch.exp(-2 * math.pi**2 * k**2 * (40 / (8 * math.pi**2)))
    )


def test_the_two_models_agree_near_3_angstrom_and_part_at_low_resolution():
    """As the module says: 4 / (4 * 9) against 1 / (2 * 4.3) per e-/A^2 at 3 Å; at 10 Å 0.01 against
    1 / (2 * 14.1).
    """
    fine, coarse = torch.tensor(1 / 3.0), torch.tensor(0.1)
    assert float(
        b_factor_amplitude(fine, 1.0).log() / damage_amplitude(fine, 1.0, 300).log()
    ) == pytest.approx(1, abs=0.06)
    assert float(b_factor_amplitude(coarse, 30.0)) == pytest.approx(0.74, abs=0.005)
    assert float(damage_amplitude(coarse, 30.0, 300)) == pytest.approx(0.345, abs=0.005)
