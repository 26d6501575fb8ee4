"""The contrast transfer function: zeros, signs, astigmatism, and envelopes against the averages that they stand for."""

import math

import physics_checks as checks
import pytest
import torch
from physics_checks import NO_ENVELOPE

from dstnet.core.constants import electron_wavelength_angstrom
from dstnet.optics.ctf import OpticsSettings, contrast_transfer, delocalisation_angstrom, envelope


@pytest.mark.parametrize("voltage", [100.0, 200.0, 300.0])
@pytest.mark.parametrize(("defocus", "plate", "amplitude"), [(12000.0, 0.0, 0.07), (6000.0, 90.0, 0.1), (20000.0, 0.0, 0.0)])
def test_zeros_lie_where_chi_is_a_multiple_of_pi(voltage, defocus, plate, amplitude):
    """pi L dz q - pi/2 Cs L^3 q^2 + asin A + plate = n pi, solved for q = k^2; a zero lies between the two samples around it."""
    changes = {"voltage_kv": voltage, "defocus_angstrom": defocus, "phase_plate_deg": plate, "amplitude_contrast": amplitude}
    samples, pixel = 4096, 1.25
    transfer = contrast_transfer((2, samples), pixel, NO_ENVELOPE.model_copy(update=changes))[0]
    wavelength, cs = electron_wavelength_angstrom(voltage), 2.7e7
    expected = []
    for n in range(1, 200):
        phase = n - math.asin(amplitude) / math.pi - plate / 180
        discriminant = (wavelength * defocus) ** 2 - 2 * cs * wavelength**3 * phase
        if discriminant < 0:
            break
        k = math.sqrt((wavelength * defocus - math.sqrt(discriminant)) / (cs * wavelength**3))
        if k >= 0.5 / pixel:
            break
        expected.append(math.floor(k * samples * pixel))
    assert len(expected) > 5
    sign = torch.sign(transfer[1:])  # without k = 0, where A = 0 gives no sign
    assert (torch.nonzero(sign[1:] != sign[:-1])[:, 0] + 1).tolist() == expected


def test_underfocused_protein_is_dark():
    checks.check_underfocus_is_dark()
    overfocused = NO_ENVELOPE.model_copy(update={"defocus_angstrom": -12000.0, "amplitude_contrast": 0.0})
    assert bool((contrast_transfer((2, 512), 2.0, overfocused)[0, 1:60] > 0).all())


@pytest.mark.parametrize("amplitude", [0.0, 0.07, 0.1, 1.0])
def test_zero_frequency_is_amplitude_contrast(amplitude):
    optics = OpticsSettings(amplitude_contrast=amplitude)
    assert float(contrast_transfer((32, 32), 1.0, optics)[0, 0]) == pytest.approx(-2 * amplitude, abs=1e-6)


@pytest.mark.parametrize(
    ("angle", "major", "minor"),
    [  # (ky, kx) steps of the grid along the major axis, `angle` from x towards y, and along the minor one
        (0.0, (0, 1), (1, 0)),
        (45.0, (1, 1), (-1, 1)),
        (math.degrees(math.atan2(1, 2)), (1, 2), (-2, 1)),
        (180 - math.degrees(math.atan2(1, 2)), (-1, 2), (2, 1)),
        (90.0, (1, 0), (0, 1)),
    ],
)
def test_astigmatism_is_u_along_the_major_axis_and_v_along_the_minor(angle, major, minor):
    size = 256
    astigmatic = NO_ENVELOPE.model_copy(update={"astigmatism_angstrom": 3000.0, "astigmatism_angle_deg": angle})
    transfer = contrast_transfer((size, size), 2.0, astigmatic)
    steps = torch.arange(1, 60)
    for (sy, sx), defocus in ((major, 13500.0), (minor, 10500.0)):
        expected = contrast_transfer((size, size), 2.0, NO_ENVELOPE, defocus)
        # chi reaches 60 rad: float32 leaves 1e-4 in the sine
        torch.testing.assert_close(transfer[sy * steps % size, sx * steps], expected[sy * steps % size, sx * steps], atol=3e-4, rtol=0)
    # Half way between the axes it is the mean.
    if angle == 0.0:
        expected = contrast_transfer((size, size), 2.0, NO_ENVELOPE)
        torch.testing.assert_close(transfer[steps, steps], expected[steps, steps], atol=3e-4, rtol=0)


def test_a_defocus_of_ones_own_wins_over_the_settings():
    optics = OpticsSettings()
    same = optics.model_copy(update={"defocus_angstrom": 9000.0})
    torch.testing.assert_close(contrast_transfer((64, 64), 1.0, optics, 9000.0), contrast_transfer((64, 64), 1.0, same))
    assert not torch.allclose(contrast_transfer((64, 64), 1.0, optics), contrast_transfer((64, 64), 1.0, same))
    # Zero is a defocus, not "none given".
    zero = optics.model_copy(update={"defocus_angstrom": 0.0})
    torch.testing.assert_close(contrast_transfer((64, 64), 1.0, optics, 0.0), contrast_transfer((64, 64), 1.0, zero))


# --- Envelopes ---------------------------------------------------------------------------------------------------------------------

PARTS = {
    "spatial": {"divergence_mrad": 0.1},
    "source": {"energy_spread_ev": 1.0},
    "high tension": {"voltage_instability_ppm": 3.0},
    "lens": {"current_instability_ppm": 2.0},
    "B-factor": {"b_factor_angstrom2": 40.0},
}


@pytest.mark.parametrize("part", PARTS)
def test_every_envelope_only_takes_away(part):
    k2 = torch.linspace(0, 0.25, 500)
    kept = envelope(k2, NO_ENVELOPE.model_copy(update=PARTS[part]), 12000.0)
    assert float(kept[0]) == 1
    assert bool((kept <= 1).all())
    assert float(kept.min()) < 0.99
    assert torch.equal(envelope(k2, NO_ENVELOPE, 12000.0), torch.ones(500))


def test_spatial_envelope_is_the_average_over_illumination_angles():
    checks.check_spatial_envelope()


def test_spatial_envelope_is_kindest_where_the_slope_of_chi_vanishes():
    """Cs L^3 k^3 = L dz k: amplitude rises again up to there, and falls beyond."""
    wavelength, dz = electron_wavelength_angstrom(300), 2000.0
    k = torch.linspace(0.3, 0.6, 3001, dtype=torch.float64)
    kept = envelope(k * k, NO_ENVELOPE.model_copy(update=PARTS["spatial"]), dz)
    assert float(k[kept.argmax()]) == pytest.approx(math.sqrt(dz / (2.7e7 * wavelength**2)), abs=1e-4)


def test_temporal_envelope_is_the_average_over_an_rms_spread():
    checks.check_temporal_envelope()


def test_spreads_add_in_squares_and_the_lens_counts_twice():
    """A lens' focal length goes as 1 / I^2, so 1 ppm of current spreads the focus as 2 ppm of energy, 0.6 eV of 300 keV."""
    k2 = torch.linspace(0, 0.25, 50)

    def kept(**changes):
        return envelope(k2, NO_ENVELOPE.model_copy(update=changes), 12000.0)

    torch.testing.assert_close(kept(current_instability_ppm=1.0), kept(energy_spread_ev=0.6))
    torch.testing.assert_close(kept(voltage_instability_ppm=1.0), kept(energy_spread_ev=0.3))
    torch.testing.assert_close(kept(energy_spread_ev=0.9, current_instability_ppm=2.0), kept(energy_spread_ev=1.5))


def test_b_factor_follows_its_definition():
    kept = envelope(torch.tensor([0.04, 0.25]), NO_ENVELOPE.model_copy(update={"b_factor_angstrom2": 40.0}), 12000.0)
    torch.testing.assert_close(kept, torch.exp(-40.0 * torch.tensor([0.04, 0.25]) / 4))


def test_delocalisation_is_how_far_the_point_image_reaches():
    """Group delay, (dchi/dk) / 2 pi, at Nyquist without Cs."""
    optics = NO_ENVELOPE.model_copy(update={"defocus_angstrom": -8000.0})
    assert delocalisation_angstrom(optics, 2.0) == pytest.approx(electron_wavelength_angstrom(300) * 8000 * 0.25)
