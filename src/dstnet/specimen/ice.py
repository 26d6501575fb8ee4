"""The ice: its thickness, and the structure of the water as it moves."""

import math

import torch
from torch import Tensor

from dstnet.core.devices import Device
from dstnet.core.fourier import radial_frequency
from dstnet.core.shapes import Image, Shape
from dstnet.specimen.field import SpecimenField
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.white_noise import fill_white_noise

# Mean square displacement of a water per e-/Å2 at 300 kV, McMullan, Vinothkumar & Henderson 2015.
ICE_MSD_ANGSTROM2_PER_E = 1.1
# Of amorphous ice: spacing in Å, width in 1/Å and height of the structure factor's rings, over the
# floor that its low compressibility leaves.
RINGS = ((3.7, 0.03, 2.0), (2.2, 0.04, 0.8), (1.8, 0.04, 0.8))
FLOOR = 0.15
FORM_FACTOR_PER_ANGSTROM = 0.25  # where the form factor has fallen to a half
# Strength: so much at the reference thickness and 1 Å/px.
REFERENCE_RAD = 0.05
REFERENCE_THICKNESS_ANGSTROM = 300


def thickness_map(
    field: SpecimenField, generator: torch.Generator, distance_to_edge: Image | None = None
) -> Image:
    """Thickness of the ice in Å ``[y, x]``: a tilted, bent layer and, within a hole, a meniscus
    that thickens as the square of the distance from the middle. Over the film around a hole the ice
    is as thick as at its edge.

    Parameters
    ----------
    field
        Where the ice lies.
    generator
        On the CPU.
    distance_to_edge
        Of each pixel to a hole's edge in Å, positive inside, ``[y, x]``; None without a hole.
    """
    settings = field.settings
    height, width = field.shape
    y = torch.linspace(-1, 1, height, device=field.device)[:, None]
    x = torch.linspace(-1, 1, width, device=field.device)[None, :]
    random = torch.randn(3, generator=generator)
    gradients = random * settings.thickness_gradient / math.sqrt(2)
    slope_x, slope_y, bend = gradients.tolist()
    bowl = x * x + y * y - 2 / 3  # mean zero over the field
    tilted = 1 + slope_x * x + slope_y * y
    relative = tilted + 0.5 * bend * bowl
    thickness = settings.ice_thickness_angstrom * relative.clamp(min=0.2)
    if distance_to_edge is None or settings.hole_diameter_angstrom is None:
        return thickness
    radius = settings.hole_diameter_angstrom / 2
    outward = (1 - distance_to_edge / radius).clamp(0, 1)
    return thickness * (1 + settings.meniscus * outward**2)


def _relative_power(k: Tensor) -> Tensor:
    """The ice's power at `k` in 1/Å, in a unit of its own."""
    rings = torch.zeros_like(k)
    for spacing, width, height in RINGS:
        from_ring = (k - 1 / spacing) / width
        rings += height * torch.exp(-0.5 * from_ring**2)
    structure_factor = FLOOR + rings
    inverse_form_factor = 1 + (k / FORM_FACTOR_PER_ANGSTROM) ** 2
    return structure_factor / inverse_form_factor**2


def ice_amplitude(
    shape: Shape,
    pixel_size_angstrom: float,
    settings: SpecimenSettings,
    device: Device = "cpu",
) -> Tensor:
    """Amplitude by which to multiply the ``rfft2`` of unit white noise to get the ice's projected
    phase in rad.

    Power: an electron form factor squared, falling as (1 + (k / 0.25)^2)^-2, times a structure
    factor of amorphous ice: a low compressibility floor of 0.15 and rings at 3.7, 2.2 and 1.8 Å.
    Scaled so that 300 Å of ice give 0.05 rad rms at 1 Å/px (up to 0.5 / Å in both axes), growing as
    the root of thickness.

    Parameters
    ----------
    shape
        (y, x) of the field in pixels.
    pixel_size_angstrom
        Of that field.
    settings
        Thickness and strength of the ice.
    device
        Where the amplitude is made.
    """
    thickness = settings.ice_thickness_angstrom
    scale = REFERENCE_RAD**2 / _mean_reference_power() * thickness / REFERENCE_THICKNESS_ANGSTROM
    scale = scale * settings.ice_noise**2
    # White noise of unit variance per pixel at 1 Å has unit power per Å^2; at another pixel size
    # its density is pixel^2.
    k = radial_frequency(shape, pixel_size_angstrom, device)
    return torch.sqrt(_relative_power(k) * scale) / pixel_size_angstrom


def _mean_reference_power() -> float:
    """Mean of the ice's relative power over an image of 1 Å/px, of 512 pixels a side."""
    k = radial_frequency((512, 512), 1.0)
    weight = torch.full((257,), 2.0)  # columns of the half plane that stand for two
    weight[0] = 1.0
    weight[-1] = 1.0
    # In double: the order of a sum, and so its last bits, depend on the number of threads.
    power = (_relative_power(k) * weight).double().sum().float()
    return float(power / 512**2)


def ice_memory(
    shape: Shape,
    pixel_size_angstrom: float,
    exposure_e_per_a2: float,
    device: Device = "cpu",
) -> Tensor:
    """Correlation of the ice's Fourier terms after an exposure: exp(-2 pi^2 k^2 msd_axis),
    msd_axis a third of the mean square displacement in space.

    Parameters
    ----------
    shape, pixel_size_angstrom, device
        As those of `ice_amplitude`.
    exposure_e_per_a2
        From the one to the other.
    """
    k2 = radial_frequency(shape, pixel_size_angstrom, device) ** 2
    decay_per_e = -2 * math.pi**2 * k2 * ICE_MSD_ANGSTROM2_PER_E / 3
    return torch.exp(decay_per_e * exposure_e_per_a2)


class IceNoise:
    """The ice's projected phase as it moves, in Fourier space: each term is an AR(1) process, the
    Brownian motion of the water.

    Parameters
    ----------
    shape, pixel_size_angstrom, settings, device
        As those of `ice_amplitude`.
    generator
        Of the noise, on `device`. What it draws differs between kinds of device, but never with the
        number of threads.

    Attributes
    ----------
    amplitude
        See `ice_amplitude`.
    """

    def __init__(
        self,
        shape: Shape,
        pixel_size_angstrom: float,
        settings: SpecimenSettings,
        generator: torch.Generator,
        device: Device = "cpu",
    ):
        self.shape = shape
        self.pixel_size_angstrom = pixel_size_angstrom
        self.amplitude = ice_amplitude(shape, pixel_size_angstrom, settings, device)
        self._random = generator
        self._fresh = torch.empty(self.amplitude.shape, dtype=torch.complex64, device=device)
        self._state: Tensor | None = None
        self._exposure: float | None = None
        # Set with the exposure.
        self._memory = self.amplitude
        self._innovation = self.amplitude

    def step(self, exposure_e_per_a2: float) -> Tensor:
        """The ``rfft2`` of the ice's phase in rad after `exposure_e_per_a2` more than at the last
        call; the first call draws it.

        The tensor returned, complex64 ``[y, x // 2 + 1]``, is the process' own: read it before the
        next call, and do not write to it.
        """
        white = fill_white_noise(self._fresh, self.shape, self._random)
        if self._state is None:
            self._state = white * self.amplitude
            return self._state
        if exposure_e_per_a2 != self._exposure:
            self._set_exposure(exposure_e_per_a2)
        # As pairs of reals: complex times real would be worked out as complex times complex.
        state = torch.view_as_real(self._state)
        state.mul_(self._memory[..., None])
        state.addcmul_(torch.view_as_real(white), self._innovation[..., None])
        return self._state

    def _set_exposure(self, exposure_e_per_a2: float) -> None:
        """How much is kept, and how much new noise comes, from one call of `step` to the next."""
        self._exposure = exposure_e_per_a2
        self._memory = ice_memory(
            self.shape, self.pixel_size_angstrom, exposure_e_per_a2, self.amplitude.device
        )
        new_part = (1 - self._memory**2).sqrt_()
        self._innovation = new_part.mul_(self.amplitude)
