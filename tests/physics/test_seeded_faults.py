"""Proof that the checks bite: each passes on the honest code, and fails once a known mistake is
planted in it.
"""

import math

import physics_checks as checks
import pytest
import torch

from dstnet.core import constants, fourier
from dstnet.detector import camera
from dstnet.motion import warp
from dstnet.optics import ctf
from dstnet.simulation import MovieSimulator
from dstnet.simulation import movie_simulator as recipe
from dstnet.specimen import ice, patches

# --- Faults: each plants one mistake through `plant(module, name, value)`, wherever the name is
# used ------------------------------------


def shift_sign(plant):
    honest = fourier.shift_phase
    for module in (fourier, recipe):
        plant(
            module,
            "shift_phase",
            lambda shape, shift, device=None: honest(shape, (-shift[0], -shift[1]), device),
        )


def shift_axes_swapped(plant):
    honest = fourier.shift_phase
    for module in (fourier, recipe):
        plant(
            module,
            "shift_phase",
            lambda shape, shift, device=None: honest(shape, (shift[1], shift[0]), device),
        )


def warp_sign(plant):
    honest = warp.warp_local
    for module in (warp, recipe):
        plant(module, "warp_local", lambda image, u, *window: honest(image, -u, *window))


def warp_axes_swapped(plant):
    honest = warp.warp_local
    for module in (warp, recipe):
        plant(module, "warp_local", lambda image, u, *window: honest(image, u.flip(0), *window))


def wavelength_without_relativity(plant):
    def wavelength(voltage_kv):
        return constants.PLANCK_TIMES_C_KEV_ANGSTROM / math.sqrt(
            2 * voltage_kv * constants.ELECTRON_REST_ENERGY_KEV
        )

    for module in (constants, ctf):
        plant(module, "electron_wavelength_angstrom", wavelength)


def interaction_without_gamma(plant):
    def sigma(voltage_kv):
        return constants.electron_wavelength_angstrom(voltage_kv) / constants.MOTT_VOLT_ANGSTROM2

    plant(constants, "interaction_constant_rad_per_volt_angstrom", sigma)


def defocus_sign(plant):
    honest = ctf.contrast_transfer

    def transfer(shape, pixel, optics, defocus=None, device=None):
        return honest(
            shape, pixel, optics, -(optics.defocus_angstrom if defocus is None else defocus), device
        )

    plant(ctf, "contrast_transfer", transfer)


def envelope_adds_defocus(plant):
    honest = ctf.envelope
    plant(ctf, "envelope", lambda k2, optics, defocus: honest(k2, optics, -defocus))


def full_width_taken_for_rms(plant):
    honest = ctf.envelope

    def envelope(k2, optics, defocus):
        return honest(
            k2,
            optics.model_copy(update={"energy_spread_ev": 2.355 * optics.energy_spread_ev}),
            defocus,
        )

    plant(ctf, "envelope", envelope)


def damage_omitted(plant):
    plant(recipe, "damage_amplitude", lambda k, exposure, voltage: torch.ones_like(k))


def damage_of_power_taken_for_amplitude(plant):
    honest = recipe.damage_amplitude
    plant(recipe, "damage_amplitude", lambda k, exposure, voltage: honest(k, 2 * exposure, voltage))


def damage_at_the_end_of_the_frame(plant):
    honest = MovieSimulator.damage

    def damage(self, frame):
        s = self.settings
        later = s.model_copy(
            update={"pre_exposure_e_per_a2": s.pre_exposure_e_per_a2 + s.exposure_e_per_a2 / 2}
        )
        self.settings = later
        try:
            return honest(self, frame)
        finally:
            self.settings = s

    plant(MovieSimulator, "damage", damage)


def damage_after_the_counts(plant):
    honest, filter_of = camera.Camera.detect, recipe.damage_amplitude

    def detect(self, expected, generator):
        counts = honest(self, expected, generator)
        shape = (counts.shape[0], counts.shape[1])
        return torch.fft.irfft2(
            torch.fft.rfft2(counts) * filter_of(fourier.radial_frequency(shape), 30.0, 300.0),
            s=shape,
        )

    plant(camera.Camera, "detect", detect)


def mtf_squared(plant):
    honest = camera.mtf

    def squared(shape, settings, device=None):
        values = honest(shape, settings, device)
        return None if values is None else values**2

    plant(camera, "mtf", squared)


def mtf_on_a_scale_of_zero_to_one(plant):
    honest = camera.mtf

    def stretched(shape, settings, device=None):
        k0 = settings.mtf_half_frequency
        return honest(
            shape,
            settings.model_copy(update={"mtf_half_frequency": None if k0 is None else 2 * k0}),
            device,
        )

    plant(camera, "mtf", stretched)


def ice_without_the_root(plant):
    honest = ice.ice_amplitude
    plant(
        ice,
        "ice_amplitude",
        lambda shape, pixel, settings: honest(shape, pixel, settings).square() * pixel,
    )


def ice_grows_with_thickness_not_its_root(plant):
    honest = ice.ice_amplitude

    def amplitude(shape, pixel, settings):
        return honest(shape, pixel, settings) * math.sqrt(settings.ice_thickness_angstrom / 300)

    plant(ice, "ice_amplitude", amplitude)


def patch_centred_at_half_of_n_minus_one(plant):
    def add_patch(canvas, patch, centre):
        n = patch.shape[0]
        top, left = centre[0] - (n - 1) // 2, centre[1] - (n - 1) // 2
        y0, y1, x0, x1 = (
            max(top, 0),
            min(top + n, canvas.shape[0]),
            max(left, 0),
            min(left + n, canvas.shape[1]),
        )
        if y0 < y1 and x0 < x1:
            canvas[y0:y1, x0:x1] += patch[y0 - top : y1 - top, x0 - left : x1 - left]

    for module in (patches, recipe):
        plant(module, "add_patch", add_patch)


def patch_half_a_pixel_off(plant):
    honest, shift = patches.add_patch, fourier.shift_phase

    def add_patch(canvas, patch, centre):
        shape = (patch.shape[0], patch.shape[1])
        honest(
            canvas,
            torch.fft.irfft2(torch.fft.rfft2(patch) * shift(shape, (0.5, 0.5)), s=shape),
            centre,
        )

    for module in (patches, recipe):
        plant(module, "add_patch", add_patch)


def truth_one_frame_late(plant):
    honest = MovieSimulator._moved
    plant(
        MovieSimulator,
        "_moved",
        lambda self, spectrum, frame: honest(self, spectrum, max(0, frame - 1)),
    )


def margin_forgotten_in_coordinates(plant):
    honest = MovieSimulator._crop

    def crop(self, image):
        return honest(self, torch.roll(image, (-1, -1), (-2, -1)))

    plant(MovieSimulator, "_crop", crop)


def dose_per_pixel_not_per_area(plant):
    honest = MovieSimulator.expected_frames

    def expected_frames(self):
        for frame in honest(self):
            yield frame / self.settings.pixel_size_angstrom**2

    plant(MovieSimulator, "expected_frames", expected_frames)


def efficiency_applied_twice(plant):
    honest = camera.Camera.detect
    plant(
        camera.Camera,
        "detect",
        lambda self, expected, generator: honest(
            self, expected * self.settings.quantum_efficiency, generator
        ),
    )


FAULTS = [
    (shift_sign, checks.check_shift),
    (shift_sign, checks.check_frames_move_by_the_truth),
    (shift_axes_swapped, checks.check_shift),
    (shift_axes_swapped, checks.check_frames_move_by_the_truth),
    (warp_sign, checks.check_warp),
    (warp_axes_swapped, checks.check_warp),
    (wavelength_without_relativity, checks.check_wavelength),
    (interaction_without_gamma, checks.check_interaction_constant),
    (defocus_sign, checks.check_underfocus_is_dark),
    (envelope_adds_defocus, checks.check_spatial_envelope),
    (full_width_taken_for_rms, checks.check_temporal_envelope),
    (damage_omitted, checks.check_damage_is_the_exposure_filter),
    (damage_of_power_taken_for_amplitude, checks.check_damage_is_the_exposure_filter),
    (damage_at_the_end_of_the_frame, checks.check_damage_is_the_exposure_filter),
    (damage_after_the_counts, checks.check_damage_spares_the_noise),
    (mtf_squared, checks.check_integrating_noise),
    (mtf_squared, checks.check_counting_shot_follows_mtf),
    (mtf_on_a_scale_of_zero_to_one, checks.check_integrating_noise),
    (mtf_on_a_scale_of_zero_to_one, checks.check_counting_shot_follows_mtf),
    (ice_without_the_root, checks.check_ice_strength),
    (ice_grows_with_thickness_not_its_root, checks.check_ice_strength),
    (patch_centred_at_half_of_n_minus_one, checks.check_patch_lands_on_its_pixel),
    (patch_centred_at_half_of_n_minus_one, checks.check_particles_lie_where_they_are_said),
    (patch_half_a_pixel_off, checks.check_patch_lands_on_its_pixel),
    (patch_half_a_pixel_off, checks.check_particles_lie_where_they_are_said),
    (margin_forgotten_in_coordinates, checks.check_particles_lie_where_they_are_said),
    (truth_one_frame_late, checks.check_frames_move_by_the_truth),
    (dose_per_pixel_not_per_area, checks.check_dose_at_any_pixel_size),
    (efficiency_applied_twice, checks.check_dose_at_any_pixel_size),
]


@pytest.mark.parametrize(
    "check",
    [getattr(checks, name) for name in dir(checks) if name.startswith("check_")],
    ids=lambda c: c.__name__,
)
def test_the_honest_code_passes(check):
    check()


@pytest.mark.parametrize(
    ("fault", "check"), FAULTS, ids=lambda f: f.__name__.removeprefix("check_")
)
def test_the_fault_is_caught(fault, check, monkeypatch):
    fault(monkeypatch.setattr)
    with pytest.raises(AssertionError):
        check()


def test_every_check_has_caught_a_fault():
    assert {check for _, check in FAULTS} == {
        getattr(checks, name) for name in dir(checks) if name.startswith("check_")
    }
