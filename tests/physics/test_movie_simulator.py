"""The whole recipe: what a shot promises about its frames and its truths."""

import math

import numpy as np
import physics_checks as checks
import pytest
import torch
from physics_checks import (
    BARE_ICE,
    CENTRAL_SEED,
    EMPTY,
    NEAR_FOCUS,
    ONE_PARTICLE,
    STILL,
    Blob,
    lively,
    quiet,
    relative_rms,
)
from scipy import ndimage

from dstnet.core.fourier import radial_frequency
from dstnet.core.randomness import stream
from dstnet.detector.settings import DetectorSettings
from dstnet.errors import SettingsError
from dstnet.motion.local_field import local_displacement
from dstnet.motion.simulated_motion import MotionSettings
from dstnet.movie import Exposure
from dstnet.optics.ctf import contrast_transfer
from dstnet.simulation import MovieSimulator
from dstnet.specimen.ice import ice_amplitude, ice_memory
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectionBank


def expected_stack(settings, species=None, seed=6):
    return torch.stack(
        list(
            MovieSimulator(
                settings, [Blob()] if species is None else species, seed
            ).expected_frames()
        )
    )


# --- Seeds and settings
# --------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes_other_seed_not():
    a, b, c = (MovieSimulator(lively(), [Blob()], seed) for seed in (3, 3, 4))
    assert a.movie().frames.tobytes() == b.movie().frames.tobytes()
    assert torch.equal(a.truth.phase, b.truth.phase)
    assert torch.equal(a.truth.clean, b.truth.clean)
    assert torch.equal(a.truth.motion.global_shift_angstrom, b.truth.motion.global_shift_angstrom)
    assert [(p.y_angstrom, p.x_angstrom) for p in a.truth.particles] == [
        (p.y_angstrom, p.x_angstrom) for p in b.truth.particles
    ]
    assert a.movie().frames.tobytes() != c.movie().frames.tobytes()
    # Asking twice, or for the truths in between, draws nothing anew.
    a.clean_frame(1)
    assert a.movie().frames.tobytes() == b.movie().frames.tobytes()


def test_the_movie_says_how_it_was_taken():
    settings = lively(exposure_e_per_a2=1.25, pre_exposure_e_per_a2=2.0)
    movie = MovieSimulator(settings, [Blob()], 0).movie("a name")
    assert (len(movie), movie.shape, movie.name) == (2, (64, 80), "a name")
    assert (movie.pixel_size_angstrom, movie.voltage_kv) == (1.5, 300.0)
    assert movie.exposure == Exposure((1.25, 1.25), (2.0, 3.25))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        (None, {"damage": None}),
        (None, {"exposure_e_per_a2": 2.5}),
        (None, {"pre_exposure_e_per_a2": 4.0}),
        (None, {"pixel_size_angstrom": 1.4}),
        (None, {"slab_angstrom": 20.0}),
        (None, {"damage": "b_factor"}),
        (None, {"imaging": "multislice"}),
        ("specimen", {"coverage": 0.0}),
        ("specimen", {"gap_angstrom": 9.0}),
        ("specimen", {"clustering": 1.0}),
        ("specimen", {"aggregates_per_um2": 20000.0}),
        ("specimen", {"at_interface": 1.0}),
        ("specimen", {"crystals_per_um2": 20000.0}),
        ("specimen", {"film_thickness_angstrom": 100.0}),
        ("specimen", {"film_thickness_angstrom": 100.0, "hole_diameter_angstrom": 10000.0}),
        ("specimen", {"ice_thickness_angstrom": 900.0}),
        ("specimen", {"ice_noise": 0.0}),
        ("specimen", {"thickness_gradient": 0.0}),
        ("specimen", {"inelastic_mean_free_path_angstrom": 2000.0}),
        ("specimen", {"contaminants_per_um2": 0.0}),
        ("optics", {"voltage_kv": 200.0}),
        ("optics", {"cs_mm": 0.01}),
        ("optics", {"cc_mm": 30.0}),
        ("optics", {"amplitude_contrast": 0.1}),
        ("optics", {"defocus_angstrom": 4500.0}),
        ("optics", {"astigmatism_angstrom": 0.0}),
        ("optics", {"astigmatism_angle_deg": 80.0}),
        ("optics", {"phase_plate_deg": 90.0}),
        ("optics", {"energy_spread_ev": 3.0}),
        ("optics", {"voltage_instability_ppm": 10.0}),
        ("optics", {"current_instability_ppm": 10.0}),
        ("optics", {"divergence_mrad": 0.5}),
        ("optics", {"b_factor_angstrom2": 0.0}),
        ("optics", {"beam_tilt_x_mrad": 2.0}),
        ("optics", {"beam_tilt_y_mrad": 2.0}),
        ("optics", {"energy_filter": False}),
        ("motion", {"burst_angstrom": 0.0}),
        ("motion", {"burst_onset_e_per_a2": 1.0}),
        ("motion", {"drift_angstrom_per_e": 0.0}),
        ("motion", {"jitter_angstrom": 0.0}),
        ("motion", {"local_angstrom": 0.0}),
        ("motion", {"jumps_per_movie": 9.0}),
        ("motion", {"walk_angstrom_per_e": 0.5}),
        ("motion", {"height_drift_angstrom": 300.0}),
        ("detector", {"mode": "integrating"}),
        ("detector", {"mtf_half_frequency": None}),
        ("detector", {"mtf_power": 1.0}),
        ("detector", {"binning": 2.0}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_no_setting_is_accepted_and_ignored(part, change):
    """Before Poisson, so that a difference is the setting's own."""
    settings = lively()
    changed = (
        lively(**change)
        if part is None
        else lively(**{part: getattr(settings, part).model_copy(update=change)})
    )
    a, b = expected_stack(settings), expected_stack(changed)
    assert float((a - b).abs().max()) > 1e-5 * float(a.mean())  # well above rounding


@pytest.mark.parametrize(
    "change",
    [{"quantum_efficiency": 0.5}, {"mtf_half_frequency": None}, {"mtf_half_frequency": 0.2}],
)
def test_settings_of_an_integrating_camera_matter(change):
    camera = DetectorSettings(mode="integrating")
    a, b = (
        next(iter(MovieSimulator(lively(detector=d), [Blob()], 6).frames()))
        for d in (camera, camera.model_copy(update=change))
    )
    assert not torch.allclose(a, b)


def test_integrating_cameras_blur_once():
    """The expectation of an integrating camera is sharp; the blur comes with the counts."""
    camera = DetectorSettings(mode="integrating")
    assert torch.equal(
        expected_stack(lively(detector=camera)),
        expected_stack(lively(detector=camera.model_copy(update={"mtf_half_frequency": None}))),
    )


def test_wrong_settings_are_refused():
    with pytest.raises(SettingsError, match="no species"):
        MovieSimulator(quiet(), [], 0)
    with pytest.raises(SettingsError, match="too small"):
        MovieSimulator(quiet(shape=(16, 64)), [Blob()], 0)
    with pytest.raises(SettingsError, match=r"wide.*larger"):
        MovieSimulator(quiet(), [Blob(radius_angstrom=500.0)], 0)


def test_an_empty_field_needs_no_species():
    shot = MovieSimulator(quiet(specimen=EMPTY, exposure_e_per_a2=2.0), [], 0)
    assert not shot.truth.phase.any()
    assert not shot.truth.clean.any()
    assert shot.truth.particles == ()
    torch.testing.assert_close(next(iter(shot.expected_frames())), torch.full((96, 128), 2.0))


def test_species_and_settings_are_left_alone():
    blob, settings = Blob(), lively()
    before, described = blob.patch.clone(), settings.to_yaml()
    MovieSimulator(settings, [blob], 1).movie()
    assert torch.equal(blob.patch, before)
    assert settings.to_yaml() == described


def test_frames_cannot_change_the_truth():
    shot = MovieSimulator(lively(), [Blob()], 1)
    before = shot.truth.clean.clone(), shot.truth.motion.global_shift_angstrom.clone()
    for frame in shot.frames():
        frame.zero_()
    shot.clean_frame(0).zero_()
    assert torch.equal(shot.truth.clean, before[0])
    assert torch.equal(shot.truth.motion.global_shift_angstrom, before[1])


# --- Particles
# --------------------------------------------------------------------------------------------------


def test_phase_lies_where_particles_are_said_to_be():
    checks.check_particles_lie_where_they_are_said()


def test_the_central_seed_is_central():
    (p,) = MovieSimulator(quiet(specimen=ONE_PARTICLE), [Blob()], CENTRAL_SEED).truth.particles
    assert math.hypot(p.y_angstrom - 48, p.x_angstrom - 64) < 16


def test_all_phase_belongs_to_listed_particles():
    """Blobs whose patches lie within the field hold all phase there but what reaches in over the
    edge.
    """
    shot = MovieSimulator(
        quiet(shape=(256, 256), specimen=BARE_ICE.model_copy(update={"coverage": 0.3})), [Blob()], 1
    )
    missing = shot.truth.phase.clone()
    for p in shot.truth.particles:
        y, x = round(p.y_angstrom), round(p.x_angstrom)
        missing[max(0, y - 16) : y + 17, max(0, x - 16) : x + 17] = 0
    assert len(shot.truth.particles) > 20
    assert not missing[16:-16, 16:-16].any()


def test_particles_keep_their_distance_and_the_ice_holds_them():
    specimen = BARE_ICE.model_copy(
        update={"coverage": 0.3, "gap_angstrom": 5.0, "ice_thickness_angstrom": 200.0}
    )
    particles = MovieSimulator(
        quiet(shape=(256, 256), specimen=specimen), [Blob()], 2
    ).truth.particles
    for i, a in enumerate(particles):
        assert abs(a.height_angstrom) <= 100 - 12
        for b in particles[:i]:
            assert (
                math.hypot(a.y_angstrom - b.y_angstrom, a.x_angstrom - b.x_angstrom)
                >= 2 * 12 + 5 - 1e-3
            )
    assert (
        max(abs(p.height_angstrom) for p in particles) > 44
    )  # uniform: of 40 particles one is beyond half way but once in 2^40


def test_coverage_is_reached():
    """Discs' area over the padded field's; the last particle may overshoot it. Counted in the
    field: five standard errors of Poisson.
    """
    specimen = BARE_ICE.model_copy(update={"coverage": 0.2})
    count = sum(
        len(
            MovieSimulator(
                quiet(shape=(384, 384), specimen=specimen), [Blob()], seed
            ).truth.particles
        )
        for seed in range(3)
    )
    expected = 3 * 0.2 * 384**2 / (math.pi * 12**2)
    assert abs(count - expected) < 5 * math.sqrt(expected)


def test_species_share_the_field():
    species = [Blob(name="a"), Blob(name="b")]
    names = [p.species for p in MovieSimulator(quiet(shape=(384, 384)), species, 0).truth.particles]
    # Each is a fair coin: the difference of their numbers has the standard deviation sqrt(n).
    assert abs(names.count("a") - names.count("b")) < 5 * math.sqrt(len(names))


def test_protein_is_dark_and_thickness_of_phase_counts():
    shot, strong = (
        MovieSimulator(quiet(specimen=ONE_PARTICLE), [Blob(peak=peak)], CENTRAL_SEED)
        for peak in (0.1, 0.2)
    )
    (p,) = shot.truth.particles
    y, x = round(p.y_angstrom), round(p.x_angstrom)
    assert float(shot.truth.clean[y, x]) < 0
    assert divmod(int(shot.truth.clean.argmin()), 128) == (y, x)
    torch.testing.assert_close(strong.truth.clean, 2 * shot.truth.clean, atol=1e-6, rtol=1e-4)


def test_higher_particles_are_less_underfocused():
    """Defocus dz - h, h towards the source, within half a slab."""
    thick = ONE_PARTICLE.model_copy(update={"ice_thickness_angstrom": 6000.0})
    settings = quiet(shape=(160, 160), specimen=thick, slab_angstrom=1.0)
    seed = next(
        s
        for s in range(1000)
        if any(
            abs(p.height_angstrom) > 800
            and max(abs(p.y_angstrom - 80), abs(p.x_angstrom - 80)) < 24
            for p in MovieSimulator(settings, [Blob(1.0)], s).truth.particles
        )
    )
    truth = MovieSimulator(settings, [Blob(1.0)], seed).truth
    spectrum = torch.fft.rfft2(truth.phase)
    height = truth.particles[0].height_angstrom

    def made_with(defocus):
        return torch.fft.irfft2(
            spectrum * contrast_transfer((160, 160), 1.0, NEAR_FOCUS, defocus), s=(160, 160)
        )

    # A slab of 1 Å: chi is off by pi lambda 0.5 k^2 < 0.01 rad; fringes of 2800 Å underfocus reach
    # 28 Å at most.
    assert relative_rms(made_with(2000 - height), truth.clean) < 0.01
    assert relative_rms(made_with(2000 + height), truth.clean) > 0.2


@pytest.mark.parametrize("seed", range(4))
def test_banked_poses_stay_centred(seed):
    """Flips and quarter turns of an even patch go about pixel n // 2, and there are eight of
    them.
    """
    lopsided = Blob(1.5).patch + 0.5 * torch.roll(Blob(1.5).patch, (3, 7), (0, 1))
    bank = ProjectionBank("banked", 12.0, torch.eye(3)[None], lopsided[None])
    generator = stream(seed, "bank")
    seen = {
        tuple(
            map(
                int,
                np.unravel_index(
                    int((bank.draw(generator)[1] - Blob(1.5).patch).argmax()), (32, 32)
                ),
            )
        )
        for _ in range(100)
    }
    # One of eight is missed in 100 draws but once in 8 (7/8)^100, 1e-5.
    assert seen == {(16 + y, 16 + x) for a, b in ((3, 7), (7, 3)) for y in (a, -a) for x in (b, -b)}


# --- Motion
# --------------------------------------------------------------------------------------------------


def test_without_motion_every_frame_is_the_truth():
    shot = MovieSimulator(quiet(frames=3), [Blob()], 1)
    assert float(shot.truth.clean.abs().max()) > 0.01
    for t in range(3):
        torch.testing.assert_close(shot.clean_frame(t), shot.truth.clean, atol=1e-6, rtol=0)


def test_frames_move_by_plus_the_global_shift():
    checks.check_frames_move_by_the_truth()


def test_expected_frames_move_with_the_clean_ones():
    """What the camera sees is 1 + the clean frame, but for the blur within a frame, here of at most
    0.4 Å.
    """
    motion = MotionSettings(
        burst_angstrom=0, drift_angstrom_per_e=0.4, jitter_angstrom=1.0, local_angstrom=0.5
    )
    shot = MovieSimulator(
        quiet(frames=3, motion=motion, damage="grant_grigorieff", exposure_e_per_a2=1.0),
        [Blob()],
        5,
    )
    for t, expected in enumerate(shot.expected_frames()):
        # sinc(k d) at the blob's k of 1 / (2 pi 3 px) is 1 - (pi k d)^2 / 6 = 0.999; twice that k
        # still 0.997.
        assert relative_rms(expected - 1, shot.clean_frame(t)) < 0.01


def test_local_motion_is_the_truths_polynomial():
    """Against spline interpolation of the truth; bicubic may misplace by 0.05 pixels, of blobs 3
    pixels wide some 2 %.
    """
    motion = STILL.model_copy(update={"local_angstrom": 3.0})
    shot = MovieSimulator(quiet(frames=3, motion=motion, exposure_e_per_a2=2.0), [Blob()], 3)
    y, x = np.mgrid[:96, :128]
    inner = (slice(16, -16), slice(16, -16))
    largest = 0.0
    for t in range(3):
        u = local_displacement(shot.truth.motion.local_coefficients_angstrom[t], (96, 128)).numpy()
        moved = ndimage.map_coordinates(
            shot.truth.clean.numpy().astype(np.float64),
            (y - u[0], x - u[1]),
            order=5,
            mode="nearest",
        )
        assert relative_rms(shot.clean_frame(t)[inner], torch.from_numpy(moved)[inner]) < 0.03
        largest = max(
            largest, relative_rms(shot.truth.clean[inner], torch.from_numpy(moved)[inner])
        )
    assert largest > 0.2  # there was motion to be wrong about


# --- Damage, ice
# --------------------------------------------------------------------------------------------------


def test_damage_is_the_exposure_filter():
    checks.check_damage_is_the_exposure_filter()


def test_damage_never_touches_the_noise():
    checks.check_damage_spares_the_noise()


def test_the_truth_is_undamaged():
    a, b = (
        MovieSimulator(quiet(damage=d, pre_exposure_e_per_a2=20.0), [Blob()], 1)
        for d in ("grant_grigorieff", None)
    )
    assert torch.equal(a.truth.clean, b.truth.clean)
    torch.testing.assert_close(b.clean_frame(0), b.truth.clean, atol=1e-6, rtol=0)
    assert relative_rms(a.clean_frame(0), a.truth.clean) > 0.1


def test_damage_leaves_the_ice_alone():
    """Water is already a liquid of single molecules to the beam; its memory is another matter."""
    iced = SpecimenSettings(coverage=0)
    a, b = (
        expected_stack(quiet(damage=d, pre_exposure_e_per_a2=20.0, specimen=iced), [])
        for d in ("grant_grigorieff", None)
    )
    assert torch.equal(a, b)


def test_ice_strength():
    checks.check_ice_strength()


@pytest.mark.parametrize("pixel", [0.5, 1.0, 2.0])
def test_ice_is_the_same_at_any_pixel_size(pixel):
    """Power density in rad^2 Å^2 at 10 Å, the power of a term over the field's area, does not
    depend on sampling.
    """
    size = round(512 / pixel)
    amplitude = ice_amplitude((size, size), pixel, SpecimenSettings())
    density = float(amplitude[0, 51]) ** 2 * pixel**2  # unit white noise has density pixel^2
    reference = float(ice_amplitude((512, 512), 1.0, SpecimenSettings())[0, 51]) ** 2
    assert density == pytest.approx(reference, rel=1e-4)


def test_ice_has_its_ring_near_3_7_angstrom():
    """The ring is 0.03 / Å wide and stands on a falling slope, which draws its top to lower
    frequency by less than that width.
    """
    amplitude = ice_amplitude((1024, 1024), 0.8, SpecimenSettings())[0]
    k = torch.fft.rfftfreq(1024, 0.8)
    beyond = k > 0.1
    assert abs(float(k[beyond][amplitude[beyond].argmax()]) - 1 / 3.7) < 0.03
    ring, before = (
        amplitude[(k > 0.25) & (k < 0.28)].mean(),
        amplitude[(k > 0.1) & (k < 0.15)].mean(),
    )
    assert float(ring) > 1.5 * float(before)
    # The one at 2.2 Å, too, stands out of the line between its sides.
    at = [float(amplitude[(k - 1 / d).abs().argmin()]) for d in (2.8, 2.2)]
    assert at[1] > at[0]


@pytest.mark.parametrize(("resolution", "expected"), [(3.7, 0.59), (10.0, 0.93), (20.0, 0.98)])
def test_ice_remembers_as_published(resolution, expected):
    memory = ice_memory((2000, 2000), 1.0, 1.0)[0]
    assert float(memory[round(2000 / resolution)]) == pytest.approx(
        expected, abs=0.005
    )  # printed to two digits
    assert float(ice_memory((2000, 2000), 1.0, 3.0)[0, round(2000 / resolution)]) == pytest.approx(
        expected**3, abs=0.015
    )


def test_ice_of_frames_is_correlated_as_it_should():
    """Correlation of frame t with frame t + n over a ring; of m complex terms it is known to (1 -
    rho^2) / sqrt(m / 2).
    """
    settings = quiet(
        shape=(256, 256),
        frames=4,
        exposure_e_per_a2=1.0,
        specimen=SpecimenSettings(coverage=0, thickness_gradient=0),
    )
    spectra = torch.fft.rfft2(expected_stack(settings, []) - 1)
    k = radial_frequency((256, 256))
    for resolution in (3.7, 10.0, 20.0):
        ring = (k - 1 / resolution).abs() < 0.01
        memory = math.exp(-2 * math.pi**2 / resolution**2 * 1.1 / 3)
        for n in (1, 3):
            a, b = spectra[0][ring], spectra[n][ring]
            got = float(
                (a * b.conj()).real.sum() / (a.abs().square().sum() * b.abs().square().sum()).sqrt()
            )
            error = (1 - memory ** (2 * n)) / math.sqrt(int(ring.sum()) / 2)
            # The ring's width changes k by 3.7 % at 3.7 Å and 20 % at 20 Å, to both sides; the
            # edges of the field mix neighbours.
            assert abs(got - memory**n) < 5 * error + 0.02, (resolution, n)
    # It keeps its strength over the frames.
    powers = spectra.abs().square().mean((1, 2))
    assert float(powers.max() / powers.min()) < 1.2


@pytest.mark.parametrize("thickness", [200.0, 800.0])
def test_ice_takes_electrons_as_its_thickness_says(thickness):
    """With the energy filter; without it they arrive, but carry no contrast."""
    specimen = EMPTY.model_copy(
        update={"ice_thickness_angstrom": thickness, "inelastic_mean_free_path_angstrom": 3400.0}
    )
    left = math.exp(-thickness / 3400)
    filtered = expected_stack(quiet(specimen=specimen, exposure_e_per_a2=3.0), [])
    torch.testing.assert_close(filtered, torch.full_like(filtered, 3.0 * left))
    unfiltered = NEAR_FOCUS.model_copy(update={"energy_filter": False})
    assert torch.equal(
        expected_stack(quiet(specimen=specimen, optics=unfiltered, exposure_e_per_a2=3.0), []),
        torch.full((1, 96, 128), 3.0),
    )
    particles = specimen.model_copy(update={"coverage": 0.2})
    a, b = (
        expected_stack(
            quiet(specimen=particles, optics=o, exposure_e_per_a2=3.0), [Blob()], CENTRAL_SEED
        )
        for o in (NEAR_FOCUS, unfiltered)
    )
    torch.testing.assert_close(b - 3.0, a - 3.0 * left, atol=1e-5, rtol=1e-4)


def test_thicker_ice_is_darker_where_it_is_thicker():
    bent = EMPTY.model_copy(
        update={"thickness_gradient": 0.5, "inelastic_mean_free_path_angstrom": 3400.0}
    )
    shot = MovieSimulator(quiet(specimen=bent, exposure_e_per_a2=3.0), [], 1)
    (frame,) = shot.expected_frames()
    assert float(shot.truth.thickness_angstrom.std()) > 20
    torch.testing.assert_close(frame, 3.0 * torch.exp(-shot.truth.thickness_angstrom / 3400))


# --- Counts
# --------------------------------------------------------------------------------------------------


def test_frames_average_to_one_plus_clean():
    """Residuals of the mean of n frames of m counts a pixel have the variance 1 / (m n), known to
    sqrt(2 / pixels) of itself.
    """
    exposure, frames = 20000.0, 10
    shot = MovieSimulator(quiet(frames=frames, exposure_e_per_a2=exposure), [Blob()], 1)
    mean = torch.stack(list(shot.frames())).double().mean(0) / exposure
    residual = mean - (1 + shot.truth.clean.double())
    chi2 = float((residual.square() / (1 + shot.truth.clean.double())).mean()) * exposure * frames
    assert abs(chi2 - 1) < 5 * math.sqrt(2 / residual.numel())
    assert float(residual.std()) < 0.2 * float(shot.truth.clean.std())


def test_mean_counts_of_everything_together():
    """Dose x pixel^2 x what passes the ice x efficiency; the mean of what scatters is a 1e-3 of it,
    besides five standard errors.
    """
    settings = lively(
        frames=4, detector=DetectorSettings(quantum_efficiency=0.85), specimen=SpecimenSettings()
    )
    shot = MovieSimulator(settings, [Blob(peak=0.05)], 2)
    frames = shot.movie().frames
    expected = 2.0 * 1.5**2 * 0.85 * float(torch.exp(-shot.truth.thickness_angstrom / 3400).mean())
    assert (
        abs(float(frames.mean(dtype=np.float64)) - expected)
        < 5 * math.sqrt(expected / frames.size) + 2e-3 * expected
    )


# --- Truths beside the picture
# --------------------------------------------------------------------------------------------------


def test_labels_lie_on_their_particles():
    shot = MovieSimulator(
        quiet(shape=(256, 256), specimen=BARE_ICE.model_copy(update={"coverage": 0.3})), [Blob()], 1
    )
    label = shot.truth.label
    assert label.dtype == torch.int32
    assert set(label.unique().tolist()) >= set(range(len(shot.truth.particles) + 1))
    for n, p in enumerate(shot.truth.particles, 1):
        y, x = round(p.y_angstrom), round(p.x_angstrom)
        assert int(label[y, x]) == n
        if min(y, x, 255 - y, 255 - x) > 16:
            # Above 0.15 of the top: a disc of sigma sqrt(2 ln(1 / 0.15)) = 1.95 sigma, a little
            # more for the smoothing.
            area = int((label == n).sum())
            assert math.pi * (1.95 * 3) ** 2 * 0.9 < area < math.pi * (2.3 * 3) ** 2


def test_of_overlapping_particles_the_later_is_labelled():
    crowded = BARE_ICE.model_copy(update={"coverage": 0.9, "gap_angstrom": -18.0})
    shot = MovieSimulator(quiet(shape=(128, 128), specimen=crowded), [Blob()], 1)
    last = shot.truth.particles[-1]
    assert int(shot.truth.label[round(last.y_angstrom), round(last.x_angstrom)]) == len(
        shot.truth.particles
    )


def test_the_ice_alone_is_what_the_first_frame_holds():
    """Imaged by the CTF, the ice that is told is the contrast of a field without particles."""
    settings = quiet(
        frames=2,
        specimen=SpecimenSettings(coverage=0, thickness_gradient=0, contaminants_per_um2=20000.0),
    )
    shot = MovieSimulator(settings, [], 5)
    seen = next(iter(shot.expected_frames()))
    phase = shot.ice_phase()
    transfer = contrast_transfer((96, 128), 1.0, settings.optics)
    imaged = torch.fft.irfft2(torch.fft.rfft2(phase) * transfer, s=(96, 128))
    contrast = seen / seen.mean() - 1
    inner = (slice(24, -24), slice(24, -24))  # beyond the reach of what lies outside
    a, b = imaged[inner] - imaged[inner].mean(), contrast[inner] - contrast[inner].mean()
    assert float((a * b).sum() / (a.norm() * b.norm())) > 0.98
    assert torch.equal(shot.ice_phase(), phase)  # asking draws nothing anew


def test_the_film_rises_and_its_particles_see_less_underfocus():
    """Half a movie's rise above its mean height is that much less underfocus: the frame is that of
    another defocus setting.
    """
    rising = STILL.model_copy(update={"height_drift_angstrom": 800.0})
    plain = {"frames": 2, "specimen": ONE_PARTICLE, "exposure_e_per_a2": 1.0}
    moving = MovieSimulator(
        quiet(
            **plain,
            motion=rising,
            optics=NEAR_FOCUS.model_copy(update={"defocus_angstrom": 3000.0}),
        ),
        [Blob(1.5)],
        CENTRAL_SEED,
    )
    height = float(moving.truth.height_drift_angstrom[1])
    assert height > 100
    optics = NEAR_FOCUS.model_copy(update={"defocus_angstrom": 3000.0 - height})
    still = MovieSimulator(quiet(**plain, optics=optics), [Blob(1.5)], CENTRAL_SEED)
    inner = (slice(16, -16), slice(16, -16))  # the two are padded by different margins
    (y, x), (v, u) = (
        (round(q) for q in (p.y_angstrom, p.x_angstrom))
        for p in (moving.truth.particles[0], still.truth.particles[0])
    )
    shifted = torch.roll(still.clean_frame(1), (y - v, x - u), (0, 1))
    assert relative_rms(moving.clean_frame(1)[inner], shifted[inner]) < 0.02
    assert relative_rms(moving.clean_frame(0)[inner], shifted[inner]) > 0.1


def test_weak_phase_is_the_limit_of_multislice():
    """Halving the phase quarters the difference of the two images, second order as it is."""
    errors = []
    for peak in (0.08, 0.04):
        linear, exact = (
            MovieSimulator(
                quiet(
                    imaging=imaging,
                    specimen=BARE_ICE.model_copy(update={"ice_thickness_angstrom": 600.0}),
                ),
                [Blob(2.0, peak=peak)],
                3,
            )
            for imaging in ("weak_phase", "multislice")
        )
        assert torch.equal(linear.truth.phase, exact.truth.phase)
        errors.append(float((linear.truth.clean - exact.truth.clean).norm()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[0] < 0.2 * float(linear.truth.clean.norm())


def test_multislice_images_ice_and_damage_too():
    settings = lively(imaging="multislice", frames=2, motion=STILL)
    exact, linear = (
        expected_stack(settings),
        expected_stack(settings.model_copy(update={"imaging": "weak_phase"})),
    )
    a, b = ((s - s.mean()).flatten() for s in (exact, linear))
    assert float((a * b).sum() / (a.norm() * b.norm())) > 0.9
    assert not torch.allclose(exact[0], exact[1], atol=1e-4)


def test_the_number_of_threads_changes_no_bit():
    threads, made = torch.get_num_threads(), []
    camera = DetectorSettings(gain_variation=0.03, dead_pixels_ppm=200, hot_pixels_ppm=200)
    settings = lively(
        shape=(300, 340),
        detector=camera,
        specimen=SpecimenSettings(coverage=0.3, contaminants_per_um2=3000),
    )
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            shot = MovieSimulator(settings, [Blob()], 4)
            made.append(
                (
                    shot.movie().frames.tobytes(),
                    shot.truth.clean.numpy().tobytes(),
                    shot.ice_phase().numpy().tobytes(),
                )
            )
    finally:
        torch.set_num_threads(threads)
    assert made[0] == made[1] == made[2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_makes_the_same_expectation():
    """Noise differs between kinds of device; everything that is not drawn there must agree to
    rounding.
    """
    settings = quiet(frames=2, motion=MotionSettings())
    here, there = (MovieSimulator(settings, [Blob()], 3, device) for device in ("cpu", "cuda"))
    for a, b in zip(here.expected_frames(), there.expected_frames(), strict=True):
        torch.testing.assert_close(a, b.cpu(), atol=1e-4, rtol=1e-4)
    assert next(iter(there.frames())).device.type == "cuda"
