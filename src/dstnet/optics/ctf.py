"""The weak-phase contrast transfer function.

chi(k) = pi lambda dz k^2 - pi/2 Cs lambda^3 k^4, underfocus dz positive (Rohou & Grigorieff 2015, eq. 2-5, with their sign of sin absorbed
so that underfocused protein, whose phase is positive, comes out dark).
"""

import math

import torch
from pydantic import Field
from torch import Tensor

from dstnet.core.constants import electron_wavelength_angstrom
from dstnet.core.fourier import frequencies
from dstnet.core.settings import Settings


class OpticsSettings(Settings):
    """Microscope settings. Spreads are rms, not full widths."""

    voltage_kv: float = Field(default=300.0, ge=50, le=1300)
    cs_mm: float = Field(default=2.7, ge=0)
    cc_mm: float = Field(default=2.7, ge=0)
    amplitude_contrast: float = Field(default=0.07, ge=0, le=1)
    defocus_angstrom: float = Field(default=15000.0, description="mean underfocus of the field's middle plane")
    astigmatism_angstrom: float = Field(default=200.0, ge=0, description="major minus minor underfocus")
    astigmatism_angle_deg: float = Field(default=30.0, description="of the major axis, from x towards y")
    phase_plate_deg: float = 0.0
    energy_spread_ev: float = Field(default=0.3, ge=0, description="rms of the source; 0.7 eV full width of a Schottky emitter is 0.3 rms")
    voltage_instability_ppm: float = Field(default=0.07, ge=0, description="rms of the high tension")
    current_instability_ppm: float = Field(default=0.1, ge=0, description="rms of the objective lens current")
    divergence_mrad: float = Field(default=0.02, ge=0, description="semi-angle of illumination")
    b_factor_angstrom2: float = Field(default=20.0, ge=0, description="what no other envelope explains: amplitude x exp(-B k^2 / 4)")


def contrast_transfer(
    shape: tuple[int, int], pixel_size_angstrom: float, optics: OpticsSettings, defocus_angstrom: float | None = None
) -> Tensor:
    """Multiplier from projected phase to image contrast (I - 1) on the ``rfft2`` grid: -2 sin(chi + asin A) x envelopes.

    Parameters
    ----------
    shape, pixel_size_angstrom
        The image grid.
    optics
        Microscope settings.
    defocus_angstrom
        Mean underfocus to use in place of the settings' (a particle's own).
    """
    wavelength = electron_wavelength_angstrom(optics.voltage_kv)
    cs = optics.cs_mm * 1e7
    mean = optics.defocus_angstrom if defocus_angstrom is None else defocus_angstrom
    ky, kx = frequencies(shape, pixel_size_angstrom)
    k2 = ky * ky + kx * kx
    defocus: Tensor | float = mean
    if optics.astigmatism_angstrom:
        # cos 2(theta - a) k^2 without an arctangent: k^2 cos 2theta = kx^2 - ky^2, k^2 sin 2theta = 2 kx ky
        a = 2 * math.radians(optics.astigmatism_angle_deg)
        elongation = ((kx * kx - ky * ky) * math.cos(a) + 2 * kx * ky * math.sin(a)) / k2.clamp(min=1e-12)
        defocus = mean + optics.astigmatism_angstrom / 2 * elongation
    chi = math.pi * wavelength * k2 * (defocus - 0.5 * cs * wavelength**2 * k2)
    chi = chi + math.asin(optics.amplitude_contrast) + math.radians(optics.phase_plate_deg)
    return -2 * torch.sin(chi) * envelope(k2, optics, mean)


def envelope(k2: Tensor, optics: OpticsSettings, defocus_angstrom: float) -> Tensor:
    """Amplitude kept at squared frequency `k2` (1/Angstrom^2): spatial and temporal coherence, and the B-factor.

    exp[-(pi alpha/lambda)^2 (Cs lambda^3 k^3 - lambda dz k)^2] x exp[-(pi lambda delta k^2)^2 / 2] x exp[-B k^2 / 4],
    delta = Cc sqrt((dE/E)^2 + (2 dI/I)^2 + (dV/V)^2) (Reimer & Kohl 2008, ch. 6.4).
    """
    wavelength = electron_wavelength_angstrom(optics.voltage_kv)
    focal_spread = (
        optics.cc_mm
        * 1e7
        * math.hypot(
            optics.energy_spread_ev / (optics.voltage_kv * 1e3),
            2e-6 * optics.current_instability_ppm,
            1e-6 * optics.voltage_instability_ppm,
        )
    )
    aberration_slope = optics.cs_mm * 1e7 * wavelength**3 * k2 - wavelength * defocus_angstrom  # times k
    exponent = (math.pi * optics.divergence_mrad * 1e-3 / wavelength) ** 2 * aberration_slope**2 * k2
    exponent = exponent + 0.5 * (math.pi * wavelength * focal_spread * k2) ** 2 + optics.b_factor_angstrom2 * k2 / 4
    return torch.exp(-exponent)


def delocalisation_angstrom(optics: OpticsSettings, pixel_size_angstrom: float) -> float:
    """How far the finest detail is spread at most by defocus, lambda dz k at Nyquist: the margin that a field of view needs."""
    return electron_wavelength_angstrom(optics.voltage_kv) * abs(optics.defocus_angstrom) * 0.5 / pixel_size_angstrom
