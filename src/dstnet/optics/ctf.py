"""The weak-phase contrast transfer function.

chi(k) = pi lambda dz k^2 - pi/2 Cs lambda^3 k^4, underfocus dz positive (Rohou & Grigorieff 2015,
eq. 2-5, with their sign of sin absorbed so that underfocused protein, whose phase is positive,
comes out dark).

Signs follow from the forward wave exp(+2 pi i z / lambda), which gains phase where the potential is
positive and loses pi lambda z k^2 over a free distance z. An underfocused lens looks at a plane dz
nearer the source than the specimen, so it gives that phase back: the lens multiplies the scattered
wave by exp(+i chi). Spectra are those of ``torch.fft`` (exp(-2 pi i k x) forwards).

Beam tilt. A beam that travels along tau (rad, in the image plane's axes) instead of along the lens'
axis puts the unscattered wave at tau / lambda, and a term k sees chi(k + tau / lambda) - chi(tau /
lambda). Of that, what is odd in k and of its third power comes from Cs alone: -pi/2 Cs lambda^3 4
k^2 (k tau / lambda), so the spectrum of the image is multiplied by exp(-i 2 pi Cs lambda^2 k^2 (k
tau)), as coma (Glaeser et al. 2011). The other terms are a shift of the whole image, and even ones
of order Cs tau^2 (27 Angstrom of defocus for 1 mrad and 2.7 mm), which belong to the measured
shift, defocus and astigmatism. RELION's rlnBeamTiltX and rlnBeamTiltY are this tau in mrad, with
this sign: it multiplies data by exp(+i 2 pi Cs lambda^2 k^2 (k tau)) to undo the coma.
"""

import math

import torch
from pydantic import Field
from torch import Tensor

from dstnet.core.constants import electron_wavelength_angstrom
from dstnet.core.devices import Device
from dstnet.core.fourier import frequencies
from dstnet.core.settings import Settings
from dstnet.core.shapes import Shape


class OpticsSettings(Settings):
    """Microscope settings. Spreads are rms, not full widths."""

    voltage_kv: float = Field(default=300.0, ge=50, le=1300)
    cs_mm: float = Field(default=2.7, ge=0, description="spherical aberration")
    cc_mm: float = Field(default=2.7, ge=0, description="chromatic aberration")
    amplitude_contrast: float = Field(default=0.07, ge=0, le=1)
    defocus_angstrom: float = Field(
        default=15000.0, description="mean underfocus of the field's middle plane"
    )
    astigmatism_angstrom: float = Field(
        default=200.0, ge=0, description="major minus minor underfocus"
    )
    astigmatism_angle_deg: float = Field(
        default=30.0, description="of the major axis, from x towards y"
    )
    phase_plate_deg: float = Field(
        default=0.0,
        description="phase given to the scattered wave; 90 makes contrast without defocus",
    )
    beam_tilt_x_mrad: float = Field(
        default=0.0,
        ge=-50,
        le=50,
        description=(
            "x of the direction in which the beam travels, against the lens' axis; rlnBeamTiltX"
        ),
    )
    beam_tilt_y_mrad: float = Field(
        default=0.0, ge=-50, le=50, description="y of the same; rlnBeamTiltY"
    )
    energy_spread_ev: float = Field(
        default=0.3,
        ge=0,
        description="rms of the source; 0.7 eV full width of a Schottky emitter is 0.3 rms",
    )
    voltage_instability_ppm: float = Field(
        default=0.07, ge=0, description="rms of the high tension"
    )
    current_instability_ppm: float = Field(
        default=0.1, ge=0, description="rms of the objective lens current"
    )
    divergence_mrad: float = Field(
        default=0.02, ge=0, description="semi-angle of illumination, where a Gaussian falls to 1/e"
    )
    b_factor_angstrom2: float = Field(
        default=20.0,
        ge=0,
        description="what no other envelope explains: amplitude x exp(-B k^2 / 4)",
    )
    energy_filter: bool = Field(
        default=True,
        description=(
            "electrons that lost energy are removed, so counts fall with thickness; else they stay,"
            " without contrast"
        ),
    )


def contrast_transfer(
    shape: Shape,
    pixel_size_angstrom: float,
    optics: OpticsSettings,
    defocus_angstrom: float | None = None,
    device: Device | None = None,
) -> Tensor:
    """Multiplier from projected phase to image contrast (I - 1) on the ``rfft2`` grid: -2 sin(chi +
    asin A) x envelopes x coma.

    Parameters
    ----------
    shape
        (y, x) of the image in pixels.
    pixel_size_angstrom
        Of the image.
    optics
        Microscope settings.
    defocus_angstrom
        Mean underfocus to use in place of the settings' (a particle's own).
    device
        Where to make it.

    Returns
    -------
    Tensor
        float32 ``[y, kx]``, or complex64 where the beam is tilted.
    """
    ky, kx = frequencies(shape, pixel_size_angstrom, device)
    chi, kept = _even_part(ky, kx, optics, defocus_angstrom)
    lag = math.asin(optics.amplitude_contrast)
    transfer = -2 * torch.sin(chi + lag) * kept
    coma = _coma(ky, kx, optics)
    if coma is None:
        return transfer
    return torch.polar(torch.ones_like(coma), coma) * transfer


def wave_transfer(
    shape: Shape,
    pixel_size_angstrom: float,
    optics: OpticsSettings,
    defocus_angstrom: float | None = None,
    device: Device | None = None,
) -> Tensor:
    """What the lens does to the scattered wave, exp(i chi) x envelopes x coma: complex64 on the
    full ``fft2`` grid.

    The counterpart of `contrast_transfer`, with the same parameters: a scattered wave i phi exp(i
    asin A) that passes through it has, with its conjugate, the contrast phi x `contrast_transfer`.
    """
    ky, kx = wave_frequencies(shape, pixel_size_angstrom, device)
    chi, kept = _even_part(ky, kx, optics, defocus_angstrom)
    coma = _coma(ky, kx, optics)
    if coma is not None:
        chi = chi + coma
    return torch.polar(kept, chi)


def wave_frequencies(
    shape: Shape, pixel_size_angstrom: float, device: Device | None = None
) -> tuple[Tensor, Tensor]:
    """ky ``[y, 1]`` and kx ``[1, x]`` in 1/Angstrom of the full ``fft2`` grid of waves on `shape`
    (y, x).
    """
    ky = torch.fft.fftfreq(shape[0], d=pixel_size_angstrom, device=device)
    kx = torch.fft.fftfreq(shape[1], d=pixel_size_angstrom, device=device)
    return ky[:, None], kx[None, :]


def _even_part(
    ky: Tensor, kx: Tensor, optics: OpticsSettings, defocus_angstrom: float | None
) -> tuple[Tensor, Tensor]:
    """chi in rad, phase plate included, and the amplitude that the envelopes leave, at frequencies
    in 1/Angstrom.
    """
    wavelength = electron_wavelength_angstrom(optics.voltage_kv)
    cs = optics.cs_mm * 1e7
    k2 = ky * ky + kx * kx
    defocus: Tensor | float = optics.defocus_angstrom
    if defocus_angstrom is not None:
        defocus = defocus_angstrom
    if optics.astigmatism_angstrom:
        elongation = _elongation(ky, kx, k2, optics.astigmatism_angle_deg)
        defocus = defocus + optics.astigmatism_angstrom / 2 * elongation
    spherical = 0.5 * cs * wavelength**2 * k2
    phase_plate = math.radians(optics.phase_plate_deg)
    chi = math.pi * wavelength * k2 * (defocus - spherical) + phase_plate
    return chi, envelope(k2, optics, defocus)


def _elongation(ky: Tensor, kx: Tensor, k2: Tensor, angle_deg: float) -> Tensor:
    """cos 2(theta - a) at frequencies of direction theta, from x towards y, with a the angle of
    astigmatism's major axis.
    """
    # Without an arctangent: k^2 cos 2theta = kx^2 - ky^2, k^2 sin 2theta = 2 kx ky.
    double_angle = 2 * math.radians(angle_deg)
    straight = (kx * kx - ky * ky) * math.cos(double_angle)
    oblique = 2 * kx * ky * math.sin(double_angle)
    return (straight + oblique) / k2.clamp(min=1e-12)


def _coma(ky: Tensor, kx: Tensor, optics: OpticsSettings) -> Tensor | None:
    """The odd phase in rad by which a tilted beam turns the image's Fourier terms; None without
    tilt.
    """
    if not (optics.beam_tilt_x_mrad or optics.beam_tilt_y_mrad):
        return None
    wavelength = electron_wavelength_angstrom(optics.voltage_kv)
    tilt_x = optics.beam_tilt_x_mrad * 1e-3
    tilt_y = optics.beam_tilt_y_mrad * 1e-3
    k2 = ky * ky + kx * kx
    along_tilt = kx * tilt_x + ky * tilt_y
    return -2 * math.pi * optics.cs_mm * 1e7 * wavelength**2 * k2 * along_tilt


def envelope(k2: Tensor, optics: OpticsSettings, defocus_angstrom: Tensor | float) -> Tensor:
    """Amplitude kept at squared frequency `k2` (1/Angstrom^2): spatial and temporal coherence, and
    the B-factor.

    `defocus_angstrom` is the underfocus, of each `k2` where it is a tensor. Of the slope of chi,
    the part along k counts; what astigmatism and coma have across it changes the exponent by about
    (astigmatism / 2 defocus)^2 of itself.

    exp[-(pi alpha/lambda)^2 (Cs lambda^3 k^3 - lambda dz k)^2] x exp[-(pi lambda delta k^2)^2 / 2]
    x exp[-B k^2 / 4], delta = Cc sqrt((dE/E)^2 + (2 dI/I)^2 + (dV/V)^2) (Reimer & Kohl 2008, ch.
    6.4).
    """
    wavelength = electron_wavelength_angstrom(optics.voltage_kv)
    cs = optics.cs_mm * 1e7
    relative_spread = math.hypot(
        optics.energy_spread_ev / (optics.voltage_kv * 1e3),
        2e-6 * optics.current_instability_ppm,
        1e-6 * optics.voltage_instability_ppm,
    )
    focal_spread = optics.cc_mm * 1e7 * relative_spread
    divergence = math.pi * optics.divergence_mrad * 1e-3 / wavelength
    slope_over_k = cs * wavelength**3 * k2 - wavelength * defocus_angstrom
    spatial = divergence**2 * slope_over_k**2 * k2
    temporal = 0.5 * (math.pi * wavelength * focal_spread * k2) ** 2
    other = optics.b_factor_angstrom2 * k2 / 4
    return torch.exp(-(spatial + temporal + other))


def delocalisation_angstrom(optics: OpticsSettings, pixel_size_angstrom: float) -> float:
    """How far the finest detail is spread at most, |grad chi| / 2 pi up to Nyquist: the margin that
    a field of view needs.

    lambda dz k of the larger defocus, or Cs lambda^3 k^3 less that of the smaller where Cs
    outweighs it; to which coma adds 3 Cs lambda^2 k^2 |tau|.
    """
    k = 0.5 / pixel_size_angstrom
    cs = optics.cs_mm * 1e7
    angle = electron_wavelength_angstrom(optics.voltage_kv) * k
    half_astigmatism = optics.astigmatism_angstrom / 2
    by_defocus = angle * (abs(optics.defocus_angstrom) + half_astigmatism)
    by_cs = cs * angle**3 - angle * (optics.defocus_angstrom - half_astigmatism)
    tilt = 1e-3 * math.hypot(optics.beam_tilt_x_mrad, optics.beam_tilt_y_mrad)
    by_coma = 3 * cs * angle**2 * tilt
    return max(by_defocus, by_cs) + by_coma
