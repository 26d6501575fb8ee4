"""The contrast transfer function and multislice: zeros, signs, astigmatism, coma, closed forms, and
envelopes against the averages that they stand for.
"""

import math

import physics_checks as checks
import pytest
import torch
from physics_checks import NO_ENVELOPE, blob_image

from dstnet.core.constants import electron_wavelength_angstrom
from dstnet.core.randomness import stream
from dstnet.errors import BadInputError
from dstnet.optics.ctf import (
    OpticsSettings,
    contrast_transfer,
    delocalisation_angstrom,
    envelope,
    wave_transfer,
)
from dstnet.optics.multislice import multislice_intensity, propagator


@pytest.mark.parametrize("voltage", [100.0, 200.0, 300.0])
@pytest.mark.parametrize(
    ("defocus", "plate", "amplitude"),
    [(12000.0, 0.0, 0.07), (6000.0, 90.0, 0.1), (20000.0, 0.0, 0.0)],
)
def test_zeros_lie_where_chi_is_a_multiple_of_pi(voltage, defocus, plate, amplitude):
    """pi L dz q - pi/2 Cs L^3 q^2 + asin A + plate = n pi, solved for q = k^2; a zero lies between
    the two samples around it.
    """
    changes = {
        "voltage_kv": voltage,
        "defocus_angstrom": defocus,
        "phase_plate_deg": plate,
        "amplitude_contrast": amplitude,
    }
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
    overfocused = NO_ENVELOPE.model_copy(
        update={"defocus_angstrom": -12000.0, "amplitude_contrast": 0.0}
    )
    assert bool((contrast_transfer((2, 512), 2.0, overfocused)[0, 1:60] > 0).all())


@pytest.mark.parametrize("amplitude", [0.0, 0.07, 0.1, 1.0])
def test_zero_frequency_is_amplitude_contrast(amplitude):
    optics = OpticsSettings(amplitude_contrast=amplitude)
    assert float(contrast_transfer((32, 32), 1.0, optics)[0, 0]) == pytest.approx(
        -2 * amplitude, abs=1e-6
    )


@pytest.mark.parametrize(
    ("angle", "major", "minor"),
    # (ky, kx) steps of the grid along the major axis, `angle` from x towards y, and along the minor
    # one
    [
        (0.0, (0, 1), (1, 0)),
        (45.0, (1, 1), (-1, 1)),
        (math.degrees(math.atan2(1, 2)), (1, 2), (-2, 1)),
        (180 - math.degrees(math.atan2(1, 2)), (-1, 2), (2, 1)),
        (90.0, (1, 0), (0, 1)),
    ],
)
def test_astigmatism_is_u_along_the_major_axis_and_v_along_the_minor(angle, major, minor):
    size = 256
    astigmatic = NO_ENVELOPE.model_copy(
        update={"astigmatism_angstrom": 3000.0, "astigmatism_angle_deg": angle}
    )
    transfer = contrast_transfer((size, size), 2.0, astigmatic)
    steps = torch.arange(1, 60)
    for (sy, sx), defocus in ((major, 13500.0), (minor, 10500.0)):
        expected = contrast_transfer((size, size), 2.0, NO_ENVELOPE, defocus)
        # chi reaches 60 rad: float32 leaves 1e-4 in the sine
        torch.testing.assert_close(
            transfer[sy * steps % size, sx * steps],
            expected[sy * steps % size, sx * steps],
            atol=3e-4,
            rtol=0,
        )
    # Half way between the axes it is the mean.
    if angle == 0.0:
        expected = contrast_transfer((size, size), 2.0, NO_ENVELOPE)
        torch.testing.assert_close(
            transfer[steps, steps], expected[steps, steps], atol=3e-4, rtol=0
        )


def test_a_defocus_of_ones_own_wins_over_the_settings():
    optics = OpticsSettings()
    same = optics.model_copy(update={"defocus_angstrom": 9000.0})
    torch.testing.assert_close(
        contrast_transfer((64, 64), 1.0, optics, 9000.0), contrast_transfer((64, 64), 1.0, same)
    )
    assert not torch.allclose(
        contrast_transfer((64, 64), 1.0, optics), contrast_transfer((64, 64), 1.0, same)
    )
    # Zero is a defocus, not "none given".
    zero = optics.model_copy(update={"defocus_angstrom": 0.0})
    torch.testing.assert_close(
        contrast_transfer((64, 64), 1.0, optics, 0.0), contrast_transfer((64, 64), 1.0, zero)
    )


# --- Envelopes
# --------------------------------------------------------------------------------------------------

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
    assert float(k[kept.argmax()]) == pytest.approx(
        math.sqrt(dz / (2.7e7 * wavelength**2)), abs=1e-4
    )


def test_temporal_envelope_is_the_average_over_an_rms_spread():
    checks.check_temporal_envelope()


def test_spreads_add_in_squares_and_the_lens_counts_twice():
    """A lens' focal length goes as 1 / I^2, so 1 ppm of current spreads the focus as 2 ppm of
    energy, 0.6 eV of 300 keV.
    """
    k2 = torch.linspace(0, 0.25, 50)

    def kept(**changes):
        return envelope(k2, NO_ENVELOPE.model_copy(update=changes), 12000.0)

    torch.testing.assert_close(kept(current_instability_ppm=1.0), kept(energy_spread_ev=0.6))
    torch.testing.assert_close(kept(voltage_instability_ppm=1.0), kept(energy_spread_ev=0.3))
    torch.testing.assert_close(
        kept(energy_spread_ev=0.9, current_instability_ppm=2.0), kept(energy_spread_ev=1.5)
    )


def test_envelopes_are_those_of_the_defocus_in_each_direction():
    """Transfer with poor illumination over transfer with none: along the major axis U counts, along
    the minor one V.
    """
    coherent = NO_ENVELOPE.model_copy(
        update={
            "astigmatism_angstrom": 6000.0,
            "astigmatism_angle_deg": 0.0,
            "amplitude_contrast": 0.5,
        }
    )
    optics = coherent.model_copy(update=PARTS["spatial"])
    without, ratio = (contrast_transfer((256, 256), 2.0, o, 13000.0) for o in (coherent, optics))
    ratio = ratio / without
    k = torch.arange(2, 90) / 512
    for line, sine, defocus in (
        (ratio[0, 2:90], without[0, 2:90], 16000.0),
        (ratio[2:90, 0], without[2:90, 0], 10000.0),
    ):
        sure = sine.abs() > 0.1  # elsewhere the quotient is one of rounding
        assert int(sure.sum()) > 60
        torch.testing.assert_close(
            line[sure], envelope(k * k, optics, defocus)[sure], atol=1e-4, rtol=0
        )


def test_b_factor_follows_its_definition():
    kept = envelope(
        torch.tensor([0.04, 0.25]),
        NO_ENVELOPE.model_copy(update={"b_factor_angstrom2": 40.0}),
        12000.0,
    )
    torch.testing.assert_close(kept, torch.exp(-40.0 * torch.tensor([0.04, 0.25]) / 4))


@pytest.mark.parametrize(
    "changes",
    [
        {"defocus_angstrom": 15000.0},
        {"defocus_angstrom": -8000.0},
        {"defocus_angstrom": 12000.0, "astigmatism_angstrom": 3000.0},
        {"defocus_angstrom": 300.0, "voltage_kv": 100.0},
        {
            "defocus_angstrom": 300.0,
            "voltage_kv": 100.0,
            "beam_tilt_x_mrad": 3.0,
            "beam_tilt_y_mrad": -4.0,
        },
    ],
)
@pytest.mark.parametrize("pixel", [1.0, 2.0])
def test_delocalisation_is_how_far_the_point_image_reaches(changes, pixel):
    """The largest group delay |grad chi| / 2 pi up to Nyquist, of chi written out here."""
    optics = NO_ENVELOPE.model_copy(update=changes)
    wavelength, cs = electron_wavelength_angstrom(optics.voltage_kv), 2.7e7
    radius = torch.linspace(0.01, 0.5 / pixel, 200, dtype=torch.float64)[:, None]
    angle = torch.linspace(0, 2 * math.pi, 73, dtype=torch.float64)[None, :]
    kx = (radius * torch.cos(angle)).requires_grad_()
    ky = (radius * torch.sin(angle)).requires_grad_()
    k2 = kx**2 + ky**2
    turned = 2 * (torch.atan2(ky, kx) - math.radians(optics.astigmatism_angle_deg))
    defocus = optics.defocus_angstrom + optics.astigmatism_angstrom / 2 * torch.cos(turned)
    along = (kx * optics.beam_tilt_x_mrad + ky * optics.beam_tilt_y_mrad) * 1e-3
    chi = (
        math.pi * wavelength * defocus * k2
        - math.pi / 2 * cs * wavelength**3 * k2**2
        - 2 * math.pi * cs * wavelength**2 * k2 * along
    )
    chi.sum().backward()
    assert kx.grad is not None
    assert ky.grad is not None
    reach = float(torch.hypot(kx.grad, ky.grad).max()) / (2 * math.pi)
    # A bound: Cs takes off up to a third here where it opposes the defocus. 1e-3 for the axes
    # missed between the angles.
    assert reach * 0.999 <= delocalisation_angstrom(optics, pixel) <= 1.5 * reach


# --- Beam tilt
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voltage", [100.0, 200.0, 300.0])
def test_coma_is_the_odd_cubic_part_of_the_aberration_about_a_tilted_beam(voltage):
    """chi(k + q) - chi(q), q = tau / lambda the direction of the beam; its odd part less what is
    linear in k, which shifts the image.
    """
    tilted = NO_ENVELOPE.model_copy(
        update={"voltage_kv": voltage, "beam_tilt_x_mrad": 0.8, "beam_tilt_y_mrad": -0.5}
    )
    plain = tilted.model_copy(update={"beam_tilt_x_mrad": 0.0, "beam_tilt_y_mrad": 0.0})
    shape, pixel = (64, 48), 1.0
    with_tilt, without = (
        contrast_transfer(shape, pixel, tilted),
        contrast_transfer(shape, pixel, plain),
    )
    assert with_tilt.dtype == torch.complex64
    assert without.dtype == torch.float32

    wavelength, cs, dz = electron_wavelength_angstrom(voltage), 2.7e7, 12000.0
    ky = torch.fft.fftfreq(64, dtype=torch.float64)[:, None]
    kx = torch.fft.rfftfreq(48, dtype=torch.float64)[None, :]
    qy, qx = -0.5e-3 / wavelength, 0.8e-3 / wavelength

    def chi(y, x):
        k2 = y * y + x * x
        return math.pi * wavelength * dz * k2 - math.pi / 2 * cs * wavelength**3 * k2**2

    odd = (chi(ky + qy, kx + qx) - chi(-ky + qy, -kx + qx)) / 2
    slope = 2 * math.pi * wavelength * (dz - cs * wavelength**2 * (qy * qy + qx * qx))
    expected = odd - slope * (qy * ky + qx * kx)
    assert float(expected.abs().max()) > 2
    # chi reaches 280 rad: float32 leaves 1e-4 in the sine.
    torch.testing.assert_close(
        with_tilt, (torch.exp(1j * expected) * without).to(torch.complex64), atol=3e-4, rtol=0
    )


@pytest.mark.parametrize(("tilt_y", "tilt_x"), [(1.0, 0.0), (0.0, -2.0), (0.6, 0.8)])
def test_coma_moves_a_points_image_the_way_the_beam_travels(tilt_y, tilt_x):
    """An image's energy is centred at the mean over its power of -grad(phase) / 2 pi, 2 Cs lambda^2
    mean(k^2) tau for coma.
    """
    optics = NO_ENVELOPE.model_copy(
        update={
            "defocus_angstrom": 0.0,
            "b_factor_angstrom2": 100.0,
            "beam_tilt_x_mrad": tilt_x,
            "beam_tilt_y_mrad": tilt_y,
        }
    )
    shape, pixel = (128, 128), 1.0
    transfer = contrast_transfer(shape, pixel, optics)
    ky, kx = torch.fft.fftfreq(128)[:, None], torch.fft.fftfreq(128)[None, :]
    power = contrast_transfer(
        shape, pixel, optics.model_copy(update={"beam_tilt_x_mrad": 0.0, "beam_tilt_y_mrad": 0.0})
    ).square()
    k2 = ky**2 + kx[:, :65].abs() ** 2
    weight = torch.full_like(power, 2.0)
    weight[:, 0] = weight[:, -1] = 1.0
    reach = (
        2
        * 2.7e7
        * electron_wavelength_angstrom(300) ** 2
        * float((k2 * power * weight).sum() / (power * weight).sum())
    )
    centred = torch.fft.irfft2(transfer, s=shape).roll((64, 64), (0, 1)).square()
    y, x = checks.centre_of_mass(centred)
    # B leaves 1e-5 of the power at Nyquist, where the grid knows no sign of k.
    assert reach > 0.05
    assert y - 64 == pytest.approx(reach * tilt_y * 1e-3, abs=0.01 * reach * 1e-3)
    assert x - 64 == pytest.approx(reach * tilt_x * 1e-3, abs=0.01 * reach * 1e-3)


@pytest.mark.parametrize("voltage", [100.0, 300.0])
@pytest.mark.parametrize("tilt", [0.0, 1.5])
def test_the_scattered_wave_and_its_conjugate_make_the_contrast(voltage, tilt):
    """F[s + conj s](k) = S(k) + conj S(-k), S = i exp(i asin A) x what the lens does to a wave."""
    optics = OpticsSettings(
        voltage_kv=voltage,
        beam_tilt_y_mrad=tilt,
        astigmatism_angstrom=2000,
        phase_plate_deg=20,
        amplitude_contrast=0.1,
    )
    shape = (32, 45)  # no Nyquist column, whose k is its own negative
    wave = 1j * complex(math.sqrt(1 - 0.01), 0.1) * wave_transfer(shape, 1.2, optics, 9000.0)
    both = wave + wave.flip(0, 1).roll((1, 1), (0, 1)).conj()
    expected = contrast_transfer(shape, 1.2, optics, 9000.0)
    rows = torch.arange(32) != 16
    torch.testing.assert_close(
        both[rows, :23], expected.to(torch.complex64)[rows], atol=3e-4, rtol=0
    )


# --- Propagation
# --------------------------------------------------------------------------------------------------


def test_propagation_composes_and_keeps_every_amplitude():
    shape, pixel = (40, 33), 1.1
    one, two, both = (propagator(shape, pixel, d, 200.0) for d in (130.0, -50.0, 80.0))
    torch.testing.assert_close(one * two, both, atol=2e-6, rtol=0)  # phases to 3 rad
    torch.testing.assert_close(one.abs(), torch.ones(shape), atol=3e-7, rtol=0)
    assert torch.equal(
        propagator(shape, pixel, 0.0, 200.0), torch.ones(shape, dtype=torch.complex64)
    )
    wave = torch.randn(shape, generator=stream(1, "wave"), dtype=torch.complex64)
    on = torch.fft.ifft2(torch.fft.fft2(wave) * one)
    assert float((on.abs() - wave.abs()).abs().max()) > 0.1
    # Parseval: as many electrons after as before, to float32.
    assert float(on.abs().square().sum()) == pytest.approx(
        float(wave.abs().square().sum()), rel=1e-5
    )


@pytest.mark.parametrize("voltage", [100.0, 300.0])
def test_a_wave_that_converges_is_focused_downstream(voltage):
    """A wave of waist s, bent by exp(-i pi r^2 / lambda f), is lambda f / 4 pi s wide (rms) after
    f, and spreads upstream.
    """
    focal, waist = 6000.0, 8.0
    wavelength = electron_wavelength_angstrom(voltage)
    r2 = ((torch.arange(256) - 128).float() * 1.0).square()
    r2 = r2[:, None] + r2[None, :]
    wave = torch.polar(torch.exp(-r2 / (4 * waist**2)), -math.pi * r2 / (wavelength * focal))
    for distance, expected in ((focal, wavelength * focal / (4 * math.pi * waist)), (-focal, None)):
        intensity = (
            torch.fft.ifft2(torch.fft.fft2(wave) * propagator((256, 256), 1.0, distance, voltage))
            .abs()
            .square()
        )
        width = math.sqrt(float((intensity * r2).sum() / intensity.sum()) / 2)
        if expected is None:
            assert width > 1.9 * waist
        else:
            assert width == pytest.approx(expected, rel=1e-3)


# --- Multislice
# --------------------------------------------------------------------------------------------------

SHAPE, PIXEL = (64, 80), 1.5
LENSLESS = NO_ENVELOPE.model_copy(
    update={"cs_mm": 0.0, "amplitude_contrast": 0.0, "defocus_angstrom": 0.0}
)


def slab_phases(count: int, shape=SHAPE, peak=1.0) -> list[torch.Tensor]:
    """Random smooth phases, in rad, different in each slab; below half of Nyquist, so that a few
    orders of them stay in band.
    """
    ky, kx = torch.fft.fftfreq(shape[0])[:, None], torch.fft.rfftfreq(shape[1])[None, :]
    smooth = torch.exp(-(ky**2 + kx**2) / (2 * 0.06**2)) * (ky**2 + kx**2 < 0.25**2)
    made = [
        torch.fft.irfft2(
            torch.fft.rfft2(torch.randn(shape, generator=stream(i, "slab"))) * smooth, s=shape
        )
        for i in range(count)
    ]
    return [peak * phase / phase.abs().max() for phase in made]


def weak_phase_contrast(slabs, pixel, optics) -> torch.Tensor:
    shape = slabs[0][1].shape
    return sum(
        torch.fft.irfft2(
            torch.fft.rfft2(phase)
            * contrast_transfer(shape, pixel, optics, optics.defocus_angstrom - height),
            s=shape,
        )
        for height, phase in slabs
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"voltage_kv": 100.0},
        {"voltage_kv": 200.0},
        {"voltage_kv": 300.0},
        {"defocus_angstrom": -9000.0},
        {"cs_mm": 0.0},
        {"amplitude_contrast": 0.0},
        {"amplitude_contrast": 1.0},
        {"astigmatism_angstrom": 3000.0},
        {"phase_plate_deg": 90.0},
        {"beam_tilt_x_mrad": 2.0, "beam_tilt_y_mrad": -3.0},
        {"energy_spread_ev": 2.0, "divergence_mrad": 0.2},
        {"energy_spread_ev": 0.0, "divergence_mrad": 0.0, "b_factor_angstrom2": 0.0},
        {"b_factor_angstrom2": 200.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [SHAPE, (63, 45)])
def test_the_weak_phase_error_falls_as_the_phase_squared(changes, shape):
    """What is left out are products of two phases: half the phase, a quarter of the intensity's
    error. Slabs at several heights.
    """
    optics = OpticsSettings(**changes)
    heights, errors = (400.0, 150.0, -300.0), []
    for peak in (0.02, 0.01):
        slabs = list(zip(heights, slab_phases(3, shape, peak), strict=True))
        linear = weak_phase_contrast(slabs, PIXEL, optics)
        error = (multislice_intensity(slabs, PIXEL, optics) - 1 - linear).square().mean().sqrt()
        errors.append(float(error))
        # Three slabs' phases add up to less than 3 x peak.
        assert float(error) < (3 * peak) ** 2
        assert float(linear.abs().max()) > 0.1 * peak
    # The next order is the phase, 0.02, times this one, and mostly out of step with it; rounding,
    # 6e-8, is 0.5 % of the smaller error.
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)


def test_a_slab_at_the_plane_of_focus_has_no_phase_contrast():
    """An underfocus of 800 Å looks at the plane 800 Å nearer the source: a pure phase there, strong
    or weak, is not seen.
    """
    optics = LENSLESS.model_copy(update={"defocus_angstrom": 800.0})
    (phase,) = slab_phases(1)
    # Of exp(i phi), phi below a quarter of a cycle/pixel and mostly below 0.12, only the third and
    # higher powers reach past Nyquist and are cut: 1e-5.
    torch.testing.assert_close(
        multislice_intensity([(800.0, phase)], PIXEL, optics), torch.ones(SHAPE), atol=1e-4, rtol=0
    )
    for height in (0.0, -800.0):
        assert float((multislice_intensity([(height, phase)], PIXEL, optics) - 1).abs().max()) > 0.1


@pytest.mark.parametrize(("height", "bright"), [(800.0, True), (-800.0, False)])
def test_positive_phase_focuses_the_beam_downstream(height, bright):
    """Seen in the plane of height 0: a blob of potential above it has drawn electrons together
    there; one below it seems to lack them.
    """
    phase = 0.4 * blob_image((32, 40), SHAPE, sigma=5.0)
    centre = float(multislice_intensity([(height, phase)], PIXEL, LENSLESS)[32, 40])
    assert centre > 1.02 if bright else centre < 0.98


@pytest.mark.parametrize("voltage", [100.0, 300.0])
def test_two_gratings_scatter_twice_in_the_order_of_the_beam(voltage):
    """Slabs a cos(2 pi p x) at h1 above b cos(2 pi q x) at h2. At p + q, to order ab, the intensity
    holds what was scattered by both, -ab/4 exp(-i pi L (h1 - h2) p^2) exp(i pi L (dz - h2) (p +
    q)^2) and its conjugate, and the product of the two single waves.
    """
    a = b = 0.05
    upper, lower, dz, n = 700.0, -200.0, 900.0, 80
    optics = LENSLESS.model_copy(update={"defocus_angstrom": dz, "voltage_kv": voltage})
    x = torch.arange(n)
    first, second = (2 * math.pi * m / n * x for m in (9, 14))
    p, q = 9 / (n * PIXEL), 14 / (n * PIXEL)

    def image(a, b):
        slabs = [
            (upper, (a * torch.cos(first)).expand(4, n)),
            (lower, (b * torch.cos(second)).expand(4, n)),
        ]
        return multislice_intensity(slabs, PIXEL, optics)[0].double()

    mixed = image(a, b) - image(a, 0) - image(0, b) + image(0, 0)
    got = torch.fft.rfft(mixed)[9 + 14] / n
    turn = math.pi * electron_wavelength_angstrom(voltage)
    twice = -a * b / 2 * math.cos(turn * ((dz - lower) * (p + q) ** 2 - (upper - lower) * p**2))
    cross = a * b / 2 * math.cos(turn * ((dz - upper) * p**2 - (dz - lower) * q**2))
    swapped = -a * b / 2 * math.cos(turn * ((dz - lower) * (p + q) ** 2 - (upper - lower) * q**2))
    assert abs(twice - swapped) > 0.1 * a * b
    # The next terms at this frequency, a^3 b and a b^3, are 0.05^2 of these.
    assert float(got.real) == pytest.approx(twice + cross, abs=0.01 * a * b)
    assert abs(float(got.imag)) < 0.01 * a * b


@pytest.mark.parametrize("amplitude", [0.1, 1.0])
def test_absorption_in_focus_is_exponential(amplitude):
    """|exp(i phi exp(i asin A))|^2 = exp(-2 A phi), at any strength: positive phase is dark."""
    optics = LENSLESS.model_copy(update={"amplitude_contrast": amplitude})
    (phase,) = slab_phases(1)
    torch.testing.assert_close(
        multislice_intensity([(0.0, phase)], PIXEL, optics),
        torch.exp(-2 * amplitude * phase),
        atol=1e-3,
        rtol=0,
    )


def test_a_phase_plate_makes_contrast_in_focus():
    """The scattered wave exp(i phi) - 1 is turned by 90 degrees before it meets the beam: dark
    where the phase is positive.
    """
    optics = LENSLESS.model_copy(update={"phase_plate_deg": 90.0})
    (phase,) = slab_phases(1)
    expected = (1 + 1j * (torch.exp(1j * phase) - 1)).abs().square()
    torch.testing.assert_close(
        multislice_intensity([(0.0, phase)], PIXEL, optics), expected, atol=1e-4, rtol=0
    )
    assert float(expected[phase == phase.max()]) < 1


def test_a_phase_object_keeps_all_electrons():
    """Without absorption and envelopes the mean intensity stays 1 through strong slabs, but for the
    little that passes Nyquist.
    """
    optics = NO_ENVELOPE.model_copy(update={"amplitude_contrast": 0.0, "beam_tilt_x_mrad": 1.0})
    slabs = list(zip((300.0, 200.0, 0.0, -250.0), slab_phases(4), strict=True))
    image = multislice_intensity(slabs, PIXEL, optics)
    assert float(image.std()) > 0.3
    assert float(image.mean()) == pytest.approx(1, abs=1e-4)


def test_multislice_is_the_textbooks():
    """Against the wave itself: transmitted and propagated slab by slab to height 0, then the lens,
    in double precision on a finer grid.
    """
    optics = NO_ENVELOPE.model_copy(
        update={"voltage_kv": 200.0, "astigmatism_angstrom": 1000.0, "beam_tilt_y_mrad": 1.0}
    )
    slabs = list(zip((300.0, 120.0, -80.0), slab_phases(3), strict=True))
    fine = (2 * SHAPE[0], 2 * SHAPE[1])
    wavelength, a = electron_wavelength_angstrom(200.0), math.asin(0.07)
    ky = torch.fft.fftfreq(fine[0], PIXEL / 2, dtype=torch.float64)[:, None]
    kx = torch.fft.fftfreq(fine[1], PIXEL / 2, dtype=torch.float64)[None, :]
    k2 = ky**2 + kx**2
    psi = torch.ones(fine, dtype=torch.complex128)
    for i, (height, phase) in enumerate(slabs):
        spectrum = torch.zeros(fine[0], fine[1] // 2 + 1, dtype=torch.complex128)
        coarse = 4 * torch.fft.rfft2(phase.double())
        spectrum[:32, :40], spectrum[-31:, :40] = coarse[:32, :40], coarse[-31:, :40]
        psi = psi * torch.exp(
            1j * torch.fft.irfft2(spectrum, s=fine) * complex(math.cos(a), math.sin(a))
        )
        down = height - (slabs[i + 1][0] if i + 1 < len(slabs) else 0.0)
        psi = torch.fft.ifft2(
            torch.fft.fft2(psi) * torch.exp(-1j * math.pi * wavelength * down * k2)
        )
    defocus = 12000.0 + 500.0 * torch.cos(2 * (torch.atan2(ky, kx) - math.radians(30)))
    chi = math.pi * wavelength * defocus * k2 - math.pi / 2 * 2.7e7 * wavelength**3 * k2**2
    coma = -2 * math.pi * 2.7e7 * wavelength**2 * k2 * ky * 1e-3
    expected = torch.fft.ifft2(torch.fft.fft2(psi) * torch.exp(1j * (chi + coma))).abs().square()
    got = multislice_intensity(slabs, PIXEL, optics)
    low = k2 < (0.8 * 0.5 / PIXEL) ** 2
    got_spectrum = torch.fft.fft2(got.double() - 1) / got.numel()
    expected_spectrum = torch.fft.fft2(expected - 1) / expected.numel()
    rows, columns = torch.arange(-31, 32), torch.arange(-39, 40)
    keep = low[rows][:, columns]
    difference = (got_spectrum[rows][:, columns] - expected_spectrum[rows][:, columns])[keep]
    # Orders of the phase that pass the image's Nyquist are kept on the finer grid: less than 1e-4
    # of the contrast here.
    assert float(difference.abs().square().sum().sqrt()) < 3e-4 * float(
        expected_spectrum[rows][:, columns][keep].abs().square().sum().sqrt()
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_what_passes_nyquist_does_not_fold_back(axis):
    """A grating of 0.4 cycles/pixel: its square, 0.8, would appear as 0.2."""
    optics = LENSLESS.model_copy(update={"defocus_angstrom": 500.0, "amplitude_contrast": 0.5})
    grating = (0.2 * torch.cos(2 * math.pi * 0.4 * torch.arange(80))).expand(40, 80)
    grating = grating.T if axis == 0 else grating
    for slabs in ([(0.0, grating)], [(60.0, grating), (-60.0, grating)]):
        image = multislice_intensity(slabs, 1.0, optics)
        spectrum = torch.fft.rfft(image[:, 0] if axis == 0 else image[0]).abs() / 80
        assert float(spectrum[32]) > 0.05
        assert float(spectrum[16]) < 1e-6


def test_an_empty_specimen_leaves_the_beam():
    assert torch.equal(
        multislice_intensity([(0.0, torch.zeros(SHAPE))], PIXEL, OpticsSettings()),
        torch.ones(SHAPE),
    )


def test_slabs_are_read_not_written():
    slabs = list(zip((100.0, 0.0), slab_phases(2), strict=True))
    before = [phase.clone() for _, phase in slabs]
    multislice_intensity(slabs, PIXEL, OpticsSettings(beam_tilt_x_mrad=1.0))
    assert all(torch.equal(a, b) for a, (_, b) in zip(before, slabs, strict=True))


@pytest.mark.parametrize(
    ("slabs", "says"),
    [
        ([], "at least one slab"),
        ([(0.0, torch.zeros(SHAPE)), (100.0, torch.zeros(SHAPE))], "order of the beam"),
        ([(100.0, torch.zeros(SHAPE)), (0.0, torch.zeros(64, 64))], "one shape"),
    ],
)
def test_slabs_that_make_no_specimen_are_refused(slabs, says):
    with pytest.raises(BadInputError, match=says):
        multislice_intensity(slabs, PIXEL, OpticsSettings())


@pytest.mark.parametrize("tilt", [0.0, 1.0])
def test_everything_is_made_on_the_device_asked_for(tilt):
    """The meta device holds no numbers and refuses to mix with the CPU."""
    optics = OpticsSettings(beam_tilt_x_mrad=tilt)
    assert contrast_transfer((32, 32), 1.0, optics, device="meta").device.type == "meta"
    slabs = [(50.0, torch.zeros(32, 32, device="meta")), (0.0, torch.zeros(32, 32, device="meta"))]
    assert multislice_intensity(slabs, 1.0, optics).device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_image():
    optics = OpticsSettings(beam_tilt_x_mrad=1.0)
    slabs = list(zip((200.0, 0.0), slab_phases(2), strict=True))
    there = multislice_intensity([(height, phase.cuda()) for height, phase in slabs], PIXEL, optics)
    assert there.device.type == "cuda"
    # chi reaches 100 rad, where float32 is good to 1e-5.
    torch.testing.assert_close(
        there.cpu(), multislice_intensity(slabs, PIXEL, optics), atol=2e-4, rtol=0
    )
