"""Rings of a power spectrum are found where they were planted, and nowhere else."""

import math

import pytest
import torch

from dstnet.core.constants import electron_wavelength_angstrom
from dstnet.core.fourier import apply_transfer, radial_frequency
from dstnet.core.randomness import stream
from dstnet.optics.ctf import OpticsSettings, contrast_transfer
from dstnet.optics.thon import LEAST_GAIN, fit_thon_rings

SHAPE, PIXEL = (408, 384), 2.0


def noise(seed: int, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=stream(seed, "noise"))


def ringed(optics: OpticsSettings, strength: float = 0.5, seed: int = 0) -> torch.Tensor:
    """White noise seen through the transfer function, and white noise of power one that is not."""
    return apply_transfer(
        noise(seed), strength / 2 * contrast_transfer(SHAPE, PIXEL, optics)
    ) + noise(seed + 100)


@pytest.mark.parametrize("voltage", [200.0, 300.0])
@pytest.mark.parametrize(
    ("defocus", "astigmatism", "angle"),
    [(6000, 0, 0), (9000, 400, 20), (15000, 700, 80), (24000, 300, 130)],
)
def test_planted_rings_are_found(defocus, astigmatism, angle, voltage):
    planted = OpticsSettings(
        voltage_kv=voltage,
        defocus_angstrom=defocus,
        astigmatism_angstrom=astigmatism,
        astigmatism_angle_deg=angle,
        b_factor_angstrom2=50,
    )
    fit = fit_thon_rings(ringed(planted), PIXEL)
    assert fit is not None
    unit = math.pi * electron_wavelength_angstrom(voltage)  # rad Å2 for each Å of underfocus
    # What spherical aberration takes, some 150 Å at 6 Å and 2.7 mm, is in the mean.
    assert abs(fit.mean_rad_angstrom2 / unit - defocus) < 300
    twice = math.radians(2 * angle)
    assert abs(fit.straight_rad_angstrom2 / unit - astigmatism / 2 * math.cos(twice)) < 180
    assert abs(fit.oblique_rad_angstrom2 / unit - astigmatism / 2 * math.sin(twice)) < 180


def test_the_phase_is_that_of_the_transfer_function():
    planted = OpticsSettings(
        defocus_angstrom=12000,
        astigmatism_angstrom=500,
        astigmatism_angle_deg=60,
        cs_mm=0,
        amplitude_contrast=0.08,
    )
    fit = fit_thon_rings(ringed(planted, 1.0), PIXEL)
    assert fit is not None
    k = radial_frequency(SHAPE, PIXEL)
    band = (k > 1 / 25) & (k < 1 / 8)
    true = contrast_transfer(SHAPE, PIXEL, planted.model_copy(update={"b_factor_angstrom2": 0.0}))[
        band
    ].square()
    found = (2 * torch.sin(fit.phase(SHAPE, PIXEL)[band])).square()
    assert float(torch.corrcoef(torch.stack((true, found)))[0, 1]) > 0.98


def test_no_rings_are_found_in_noise():
    coloured = torch.exp(-(radial_frequency(SHAPE, PIXEL) * 4).square()) + 0.3
    for seed in range(10):
        assert fit_thon_rings(noise(seed), PIXEL) is None
        assert fit_thon_rings(apply_transfer(noise(seed), coloured), PIXEL) is None


def test_faint_rings_are_left_alone_and_clear_ones_certain():
    optics = OpticsSettings(defocus_angstrom=12000)
    assert fit_thon_rings(ringed(optics, 0.05), PIXEL) is None
    fit = fit_thon_rings(ringed(optics, 1.0), PIXEL)
    assert fit is not None and fit.gain > 4 * LEAST_GAIN


@pytest.mark.parametrize("shape", [(160, 160), (128, 96), (16, 16), (7, 200), (2, 2)])
def test_small_images_are_no_trouble(shape):
    for seed in range(8):
        assert fit_thon_rings(noise(seed, shape), PIXEL) is None


def test_coarse_pixels_are_no_trouble():
    assert fit_thon_rings(noise(0), 12.0) is None


def test_frequencies_that_hold_nothing_are_no_trouble():
    fit_thon_rings(
        apply_transfer(noise(0), (radial_frequency(SHAPE, PIXEL) < 1 / 8).float()), PIXEL
    )
    assert fit_thon_rings(torch.ones(SHAPE), PIXEL) is None
