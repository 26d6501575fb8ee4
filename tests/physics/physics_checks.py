"""Checks that the honest code must pass and a faulty one must fail; `test_seeded_faults.py` proves
that they do.

They reach the code through its modules (`fourier.shift_phase`, not a name of their own), so that a
fault planted there is met.
"""

import math

import numpy as np
import scipy.constants as si
import torch
from scipy import ndimage

from dstnet.core import constants, fourier
from dstnet.core.randomness import stream
from dstnet.detector import camera
from dstnet.detector.settings import DetectorSettings
from dstnet.motion import warp
from dstnet.motion.simulated_motion import MotionSettings
from dstnet.optics import ctf
from dstnet.optics.ctf import OpticsSettings
from dstnet.potential import random_rotation
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen import ice, patches
from dstnet.specimen.settings import SpecimenSettings

# --- A world small enough to compute by hand
# ---------------------------------------------------------------------------------------

STILL = MotionSettings(
    burst_angstrom=0, drift_angstrom_per_e=0, jitter_angstrom=0, local_angstrom=0
)
BARE_ICE = SpecimenSettings(
    ice_noise=0, thickness_gradient=0, inelastic_mean_free_path_angstrom=1e9
)  # nothing but the particles
EMPTY = BARE_ICE.model_copy(update={"coverage": 0.0})
ONE_PARTICLE = BARE_ICE.model_copy(
    update={"coverage": 1e-9}
)  # placing stops as soon as the coverage is passed
PERFECT = DetectorSettings(quantum_efficiency=1, mtf_half_frequency=None)
NEAR_FOCUS = OpticsSettings(
    defocus_angstrom=2000, astigmatism_angstrom=0
)  # so that little padding is needed
NO_ENVELOPE = OpticsSettings(
    defocus_angstrom=12000,
    astigmatism_angstrom=0,
    energy_spread_ev=0,
    voltage_instability_ppm=0,
    current_instability_ppm=0,
    divergence_mrad=0,
    b_factor_angstrom2=0,
)


class Blob:
    """A round Gaussian particle of phase `peak` rad and `sigma` pixels, in a patch of `size`
    pixels; its rotations are random.
    """

    def __init__(
        self,
        sigma: float = 3.0,
        peak: float = 0.3,
        size: int = 32,
        radius_angstrom: float = 12.0,
        name: str = "blob",
    ):
        self.name, self.radius_angstrom = name, radius_angstrom
        r2 = (torch.arange(size) - size // 2).square()
        self.patch = peak * torch.exp(-(r2[:, None] + r2[None, :]) / (2 * sigma**2))

    def draw(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return random_rotation(generator), self.patch


def quiet(**changes) -> SimulationSettings:
    """A perfect camera over a still, undamaged specimen in bare ice, with `changes`."""
    plain = {
        "shape": (96, 128),
        "pixel_size_angstrom": 1.0,
        "frames": 1,
        "damage": None,
        "specimen": BARE_ICE,
        "optics": NEAR_FOCUS,
        "motion": STILL,
        "detector": PERFECT,
    }
    return SimulationSettings(**{**plain, **changes})


def lively(**changes) -> SimulationSettings:
    """Everything on, small."""
    plain = {
        "shape": (64, 80),
        "pixel_size_angstrom": 1.5,
        "frames": 2,
        "optics": OpticsSettings(defocus_angstrom=4000),
        "specimen": SpecimenSettings(coverage=0.3, contaminants_per_um2=30000),
    }
    return SimulationSettings(**{**plain, **changes})


def blob_image(centre: tuple[float, float], shape=(48, 64), sigma=4.0) -> torch.Tensor:
    """A Gaussian of height 1 around `centre` (y, x)."""
    y, x = torch.arange(shape[0])[:, None] - centre[0], torch.arange(shape[1])[None, :] - centre[1]
    return torch.exp(-(y * y + x * x) / (2 * sigma**2))


def centre_of_mass(image: torch.Tensor) -> tuple[float, float]:
    return ndimage.center_of_mass(image.numpy().astype(np.float64))


def relative_rms(got, expected) -> float:
    return float(
        (got - expected).double().square().mean().sqrt() / expected.double().square().mean().sqrt()
    )


def rings(image: torch.Tensor, bins: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean power per ring, in units of one pixel's variance, and its relative standard error for
    noise.

    A Fourier term of noise has an exponentially distributed power (relative spread 1); conjugates
    count once.
    """
    shape = (image.shape[0], image.shape[1])
    power = torch.fft.rfft2(image - image.mean()).abs().square() / image.numel()
    k = torch.hypot(torch.fft.fftfreq(shape[0])[:, None], torch.fft.fftfreq(shape[1])[None, :])
    count = torch.stack([((k / 0.5 * bins).long() == i).sum() for i in range(bins)])
    return fourier.radial_mean(power, shape, bins), (count / 2).rsqrt()


# --- Units and constants
# --------------------------------------------------------------------------------------------------


def check_wavelength():
    for voltage, printed in ((100, 0.037014), (200, 0.025079), (300, 0.019687)):
        energy = voltage * 1e3 * si.e
        momentum = math.sqrt(2 * si.m_e * energy * (1 + energy / (2 * si.m_e * si.c**2)))
        got = constants.electron_wavelength_angstrom(voltage)
        assert math.isclose(
            got, si.h / momentum * 1e10, rel_tol=1e-7
        )  # CODATA releases differ by some 1e-9
        assert abs(got - printed) <= 0.51e-6  # printed to six decimals


def check_interaction_constant():
    for voltage, printed in ((100, 9.244e-4), (200, 7.288e-4), (300, 6.526e-4)):
        gamma = 1 + voltage * 1e3 * si.e / (si.m_e * si.c**2)
        wavelength = constants.electron_wavelength_angstrom(voltage) * 1e-10
        expected = (
            2 * math.pi * gamma * si.m_e * si.e * wavelength / si.h**2 * 1e-10
        )  # per V m, to per V Angstrom
        got = constants.interaction_constant_rad_per_volt_angstrom(voltage)
        assert math.isclose(got, expected, rel_tol=1e-6)  # MOTT is written with seven digits
        assert abs(got - printed) <= 0.51e-7


# --- Shifts and warps
# --------------------------------------------------------------------------------------------------


def check_shift():
    """Content moves by exactly (+dy, +dx), the total stays."""
    image, (dy, dx) = blob_image((20, 25)), (2.25, -5.5)
    moved = torch.fft.irfft2(
        torch.fft.rfft2(image) * fourier.shift_phase((48, 64), (dy, dx)), s=(48, 64)
    )
    assert math.isclose(float(moved.double().sum()), float(image.double().sum()), rel_tol=1e-6)
    # The blob is 4.5 sigma from every edge: what is cut off weighs under 1e-4 of it.
    y, x = centre_of_mass(moved)
    assert abs(y - 22.25) < 2e-3
    assert abs(x - 19.5) < 2e-3


def check_warp():
    """Content moves by +u, (y, x), at the speed that the field has there."""
    image, u = blob_image((20, 40), sigma=3.0), torch.zeros(2, 5)
    u[0, 0], u[1, 1] = (
        8.0,
        -12.0,
    )  # u_y = 8 x, u_x = -12 y, with x and y from -1 to 1 over the field
    sharp = torch.fft.irfft2(torch.fft.rfft2(image) * warp.warp_prefilter((48, 64)), s=(48, 64))
    y, x = centre_of_mass(warp.warp_local(sharp, u))
    # An affine map takes the middle to the middle: where (y, x) - u(y, x) = (20, 40).
    assert abs(y - 8 * (x / 31.5 - 1) - 20) < 0.02
    assert abs(x + 12 * (y / 23.5 - 1) - 40) < 0.02


# --- Optics
# --------------------------------------------------------------------------------------------------


def check_underfocus_is_dark():
    """Between zero frequency and the first zero, chi + asin A lies in (0, pi): contrast is negative
    where phase is positive.
    """
    transfer = ctf.contrast_transfer((2, 512), 2.0, NO_ENVELOPE)[0]
    first_zero = math.sqrt(1 / (constants.electron_wavelength_angstrom(300) * 12000))
    k = torch.fft.rfftfreq(512, 2.0)
    assert bool((transfer[k < 0.9 * first_zero] < 0).all())


def check_spatial_envelope():
    """Illumination from a Gaussian of angles (alpha at 1/e) averages the phase over the slope of
    chi: defocus counts against Cs.
    """
    wavelength, cs, dz, alpha = constants.electron_wavelength_angstrom(300), 2.7e7, 2000.0, 1e-4
    optics = NO_ENVELOPE.model_copy(update={"divergence_mrad": alpha * 1e3})
    k = torch.linspace(0, 0.6, 61, dtype=torch.float64)
    slope = 2 * math.pi * wavelength * dz * k - 2 * math.pi * cs * wavelength**3 * k**3
    node, weight = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
    tilt = node * alpha / math.sqrt(2) / wavelength  # in 1/Angstrom
    expected = (torch.cos(slope[:, None] * tilt) * weight).sum(1) / weight.sum()
    got = ctf.envelope(k * k, optics, dz)
    assert float((got - expected).abs().max()) < 1e-6
    # All tilts agree where the slope vanishes.
    assert math.isclose(
        float(ctf.envelope(torch.tensor(dz / (cs * wavelength**2)), optics, dz)), 1, abs_tol=1e-5
    )


def check_temporal_envelope():
    """Energies with an rms spread dE defocus by Cc dE / E: the phase pi lambda k^2 f averaged over
    that normal spread of f.
    """
    wavelength, spread_ev = constants.electron_wavelength_angstrom(300), 2.0
    optics = NO_ENVELOPE.model_copy(update={"energy_spread_ev": spread_ev})
    k = torch.linspace(0, 0.5, 51, dtype=torch.float64)
    node, weight = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
    focus = 2.7e7 * node * spread_ev / 300e3
    expected = (torch.cos(math.pi * wavelength * k[:, None] ** 2 * focus) * weight).sum(
        1
    ) / weight.sum()
    assert float((ctf.envelope(k * k, optics, 12000.0) - expected).abs().max()) < 1e-6


# --- Camera
# --------------------------------------------------------------------------------------------------


def check_integrating_noise():
    """Counts blurred after they fell: noise power follows MTF^2 (five standard errors), the mean
    stays.
    """
    settings = DetectorSettings(mode="integrating", quantum_efficiency=0.8, mtf_half_frequency=0.3)
    frame = camera.Camera(settings, (256, 320)).detect(
        torch.full((256, 320), 5.0), stream(1, "check")
    )
    power, error = rings(frame, 16)
    k = (torch.arange(16) + 0.5) / 32
    expected = 4.0 / (1 + (k / 0.3) ** 2) ** 2
    # Over a ring 1/32 wide around k, MTF^2 bends by at most 2 % of itself; rings lean to their
    # outer edge by another 2 %.
    assert bool(((power / expected - 1).abs()[1:] < 5 * error[1:] + 0.04).all())
    assert abs(float(frame.mean()) - 4.0) < 5 * math.sqrt(4.0 / frame.numel())


def check_counting_shot_follows_mtf():
    """Of a counting camera the expectation is blurred by the MTF, once."""
    sharp, blurred = (
        MovieSimulator(
            quiet(specimen=ONE_PARTICLE, exposure_e_per_a2=1.0, detector=d),
            [Blob(1.0)],
            CENTRAL_SEED,
        )
        for d in (PERFECT, DetectorSettings(quantum_efficiency=1, mtf_half_frequency=0.4))
    )
    a, b = (torch.fft.rfft2(next(iter(s.expected_frames())) - 1) for s in (sharp, blurred))
    k = fourier.radial_frequency((96, 128))
    band = (k > 0.05) & (k < 0.35)
    ratio = (b / a).real[band]
    # The particle and its fringes (14 Å at most) lie within the field, so the ratio is the MTF
    # itself but for rounding and the point spread's tail exp(-2 pi 0.4 r), 1e-17 from 15 pixels on.
    assert float((ratio * (1 + (k[band] / 0.4) ** 2) - 1).abs().median()) < 1e-3


# --- Specimen
# --------------------------------------------------------------------------------------------------


def check_ice_strength():
    """0.05 rad rms for 300 Å at 1 Å/px, growing as the root of thickness."""
    for thickness, expected in ((300.0, 0.05), (1200.0, 0.1)):
        amplitude = ice.ice_amplitude(
            (256, 256), 1.0, SpecimenSettings(ice_thickness_angstrom=thickness)
        )
        phase = torch.fft.irfft2(
            torch.fft.rfft2(torch.randn(256, 256, generator=stream(3, "ice"))) * amplitude,
            s=(256, 256),
        )
        # 256^2 pixels, correlated over a few: the rms is known to about sqrt(10 / 2 / 256^2) = 0.9
        # %.
        assert math.isclose(float(phase.std()), expected, rel_tol=0.05)


def check_patch_lands_on_its_pixel():
    for size in (16, 17):
        canvas = torch.zeros(64, 80)
        patch = Blob(1.5, size=size).patch
        patches.add_patch(canvas, patch, (20, 50))
        y, x = centre_of_mass(canvas)
        # An even patch has one row more before its centre, at 5 sigma: it weighs under 1e-5.
        assert abs(y - 20) < 1e-3
        assert abs(x - 50) < 1e-3


# --- The whole shot
# --------------------------------------------------------------------------------------------------

# of a one-particle shot of `quiet` settings: puts it near the middle of the field; asserted in
# test_movie_simulator.py
CENTRAL_SEED = 114
DRIFTING = MotionSettings(
    burst_angstrom=2.0, drift_angstrom_per_e=0.5, jitter_angstrom=0.5, local_angstrom=0
)


def check_frames_move_by_the_truth():
    """frame_t(x) = clean(x - u_t): interpolating the truth by splines, another method, gives the
    frames.
    """
    shot = MovieSimulator(
        quiet(frames=4, motion=DRIFTING, specimen=BARE_ICE, exposure_e_per_a2=1.0), [Blob()], 5
    )
    inner = (slice(12, -12), slice(12, -12))
    for t, shift in enumerate(shot.truth.motion.global_shift_angstrom.numpy()):
        assert (np.abs(shift).max() > 0.1) == (t > 0)  # the reference is the first frame
        expected = torch.from_numpy(
            ndimage.shift(
                shot.truth.clean.numpy().astype(np.float64), shift, order=5, mode="nearest"
            )
        )
        # Quintic splines are good to 0.5 % for what varies over the blob's 3 pixels.
        assert relative_rms(shot.clean_frame(t)[inner], expected[inner]) < 0.01, t


def check_particles_lie_where_they_are_said():
    for size in (31, 32):
        shot = MovieSimulator(quiet(), [Blob(size=size)], 3)
        assert len(shot.truth.particles) >= 5
        phase = shot.truth.phase
        for p in shot.truth.particles:
            y, x = round(p.y_angstrom), round(p.x_angstrom)
            if min(y, x, 95 - y, 127 - x) >= 2:
                around = phase[y - 2 : y + 3, x - 2 : x + 3]
                assert around.argmax() == 12
                # Centres are 29 Å apart at least, patches end 16 Å from theirs: nothing else lies
                # here.
                assert torch.equal(around, around.flip(0, 1))
                assert math.isclose(float(around.max()), 0.3, rel_tol=1e-6)


def check_damage_is_the_exposure_filter():
    """Amplitude left is exp(-N / 2 N_e), N at the middle of the frame, written out here from the
    paper.
    """
    common = {
        "frames": 3,
        "exposure_e_per_a2": 4.0,
        "pre_exposure_e_per_a2": 3.0,
        "specimen": ONE_PARTICLE,
    }
    hurt, whole = (
        MovieSimulator(quiet(damage=d, **common), [Blob(1.0)], CENTRAL_SEED)
        for d in ("grant_grigorieff", None)
    )
    k = fourier.radial_frequency((96, 128))
    damaged = list(hurt.expected_frames())
    for t, (a, b) in enumerate(zip(damaged, whole.expected_frames(), strict=True)):
        ratio = torch.fft.rfft2(a / 4 - 1) / torch.fft.rfft2(b / 4 - 1)
        for low, high in ((0.08, 0.12), (0.2, 0.25), (0.3, 0.35)):
            band = (k > low) & (k < high)
            left = torch.exp(-(3.0 + 4.0 * (t + 0.5)) / (2 * (0.245 * k[band] ** -1.665 + 2.81)))
            # The particle, its fringes and all that damage blurs lie within the field: what is left
            # is rounding of 1 + contrast.
            assert float((ratio.real[band] / left - 1).abs().median()) < 1e-3, (t, low)


def check_damage_spares_the_noise():
    """However damaged the specimen, shot noise is white: every ring holds the mean count, within
    five standard errors.
    """
    detector = DetectorSettings(quantum_efficiency=0.8)
    shot = MovieSimulator(
        quiet(
            shape=(192, 192),
            damage="grant_grigorieff",
            pre_exposure_e_per_a2=30.0,
            exposure_e_per_a2=2.0,
            specimen=EMPTY,
            detector=detector,
        ),
        [],
        4,
    )
    frame = next(iter(shot.frames()))
    power, error = rings(frame, 12)
    assert bool(((power / 1.6 - 1).abs() < 5 * error).all())


def check_dose_at_any_pixel_size():
    """Counts per Å2 are exposure times efficiency whatever the pixel, within five standard
    errors.
    """
    for pixel in (0.5, 1.0, 2.0):
        settings = quiet(
            shape=(128, 128),
            pixel_size_angstrom=pixel,
            exposure_e_per_a2=1.5,
            specimen=EMPTY,
            detector=DetectorSettings(quantum_efficiency=0.8),
        )
        frame = next(iter(MovieSimulator(settings, [], 1).frames()))
        area = frame.numel() * pixel**2
        assert abs(float(frame.double().sum()) / area - 1.2) < 5 * math.sqrt(1.2 / area), pixel
