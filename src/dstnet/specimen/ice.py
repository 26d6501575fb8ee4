"""What lies around the particles: ice and its thickness, frost, ice crystals, and the support film
with its hole.
"""

import math
from dataclasses import dataclass

import gemmi
import torch
from torch import Tensor

from dstnet.core.constants import ELECTRON_REST_ENERGY_KEV, MOTT_VOLT_ANGSTROM2
from dstnet.core.fourier import radial_frequency
from dstnet.core.randomness import stream
from dstnet.core.shapes import Image
from dstnet.potential import random_rotation
from dstnet.specimen.settings import SpecimenSettings

# mean square displacement of a water per e-/Å2 at 300 kV, McMullan, Vinothkumar & Henderson 2015
ICE_MSD_ANGSTROM2_PER_E = 1.1
ICE_POTENTIAL_VOLT = 3.5  # mean inner potential of ice, Harscher & Lichte 1998
CARBON_POTENTIAL_VOLT = (
    9.09  # of amorphous carbon of 1.75 g/cm3, Wanner et al., Ultramicroscopy 106, 341 (2006)
)
CARBON_ATOMS_PER_ANGSTROM3 = 1.75 * 0.602214 / 12.011
# At 300 kV within 10 mrad, by the formula of Malis, Cheng & Egerton, J. Electron Microsc. Tech. 8,
# 193 (1988).
CARBON_MEAN_FREE_PATH_ANGSTROM = 1870.0
FILM_EDGE_ANGSTROM = (
    40.0  # over which the film rises from nothing to its thickness at the hole's edge
)
# Hexagonal ice: a and c in Å and the oxygens' z of P6_3/mmc, 4f (Goto, Hondoh & Mae, J. Chem. Phys.
# 93, 1412 (1990)).
ICE_A_ANGSTROM, ICE_C_ANGSTROM, ICE_OXYGEN_Z = 4.511, 7.346, 0.06226
# Spacings 3.91, 3.67, 3.45, 2.67 and 2.26 Å; cubic ice has the second and the last.
ICE_REFLECTIONS = ((1, 0, 0), (0, 0, 2), (1, 0, 1), (1, 0, 2), (1, 1, 0))
FAINTEST_FRINGES = 0.05  # of those that lie wholly across the beam; fainter ones are left out


@dataclass(frozen=True, eq=False)
class Layers:
    """What surrounds the particles and does not change over the frames.

    Attributes
    ----------
    thickness_angstrom
        Of the ice, ``[y, x]``.
    film_angstrom
        Thickness of the support film, ``[y, x]``; None where there is none at all.
    static_phase
        Projected phase in rad of film, frost and ice crystals, ``[y, x]``.
    hole
        Where there is no film, bool ``[y, x]``: particles lie there only. None where there is no
        hole.
    """

    thickness_angstrom: Image
    film_angstrom: Image | None
    static_phase: Image
    hole: Tensor | None


def draw_layers(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    settings: SpecimenSettings,
    volts_to_rad: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> Layers:
    """The layers of one field.

    Parameters
    ----------
    shape
        (y, x) in pixels, margins included.
    pixel_size_angstrom
        Of that field.
    settings
        The specimen.
    volts_to_rad
        Phase per projected potential, rad/(V Å).
    seed
        Of the movie. The streams "thickness", "film", "contamination" and "crystals" are drawn
        from.
    device
        Where the layers are made.
    """
    hole = (
        None
        if settings.hole_diameter_angstrom is None
        else _distance_to_edge(shape, pixel_size_angstrom, settings, seed, device)
    )
    phase = contamination(
        shape, pixel_size_angstrom, settings, volts_to_rad, stream(seed, "contamination")
    ).to(device)
    _add_crystals(phase, pixel_size_angstrom, settings, volts_to_rad, stream(seed, "crystals"))
    film = None
    if settings.film_thickness_angstrom > 0:
        covered = (
            torch.ones(shape, device=device)
            if hole is None
            else (0.5 - hole / FILM_EDGE_ANGSTROM).clamp(0, 1)
        )
        film = covered * settings.film_thickness_angstrom
        phase += film * (CARBON_POTENTIAL_VOLT * volts_to_rad)
        phase += covered * _carbon_noise(
            shape, pixel_size_angstrom, settings, volts_to_rad, stream(seed, "film", "noise")
        ).to(device)
    return Layers(
        thickness_map(shape, settings, stream(seed, "thickness"), hole, device),
        film,
        phase,
        None if hole is None else hole > FILM_EDGE_ANGSTROM / 2,
    )


def thickness_map(
    shape: tuple[int, int],
    settings: SpecimenSettings,
    generator: torch.Generator,
    distance_to_edge: Image | None = None,
    device: torch.device | str = "cpu",
) -> Image:
    """Thickness of the ice in Å ``[y, x]``: a tilted, bent layer and, within a hole, a meniscus
    that thickens as the square of the distance from the middle. Over the film around a hole the ice
    is as thick as at its edge.

    `distance_to_edge` is in Å, positive within the hole.
    """
    y = torch.linspace(-1, 1, shape[0], device=device)[:, None]
    x = torch.linspace(-1, 1, shape[1], device=device)[None, :]
    a, b, c = (
        torch.randn(3, generator=generator) * settings.thickness_gradient / math.sqrt(2)
    ).tolist()
    thickness = settings.ice_thickness_angstrom * (
        1 + a * x + b * y + 0.5 * c * (x * x + y * y - 2 / 3)
    ).clamp(min=0.2)
    if distance_to_edge is None or settings.hole_diameter_angstrom is None:
        return thickness
    outward = (1 - distance_to_edge / (settings.hole_diameter_angstrom / 2)).clamp(0, 1)
    return thickness * (1 + settings.meniscus * outward**2)


def _distance_to_edge(
    shape: tuple[int, int],
    pixel: float,
    settings: SpecimenSettings,
    seed: int,
    device: torch.device | str,
) -> Image:
    """Distance in Å of each pixel to the hole's edge, positive inside.

    The field's middle lies in the hole, and the edge passes it at 0.1 to 0.3 of the field's shorter
    side, so that it is in view.
    """
    assert settings.hole_diameter_angstrom is not None
    radius = settings.hole_diameter_angstrom / 2
    u, v = torch.rand(2, generator=stream(seed, "film", "hole")).tolist()
    beyond = radius - min(
        radius, (0.1 + 0.2 * u) * min(shape) * pixel
    )  # from the field's middle to the hole's
    y = (torch.arange(shape[0], device=device) - shape[0] / 2) * pixel - beyond * math.sin(
        2 * math.pi * v
    )
    x = (torch.arange(shape[1], device=device) - shape[1] / 2) * pixel - beyond * math.cos(
        2 * math.pi * v
    )
    return radius - torch.hypot(y[:, None], x[None, :])


def transmitted(
    thickness_angstrom: Image,
    settings: SpecimenSettings,
    voltage_kv: float,
    film_angstrom: Image | None = None,
) -> Image:
    """Part of the electrons that pass the specimen without energy loss, and so the energy filter:
    exp(-thickness / mean free path).

    Mean free paths grow with voltage as the electrons' speed squared, the inverse of the inelastic
    cross-section but for a logarithm that changes by a few per cent (Reimer & Kohl 2008, section
    5.2). The exposure stated for a movie is what falls on the specimen, so nothing is normalised.
    """
    slower = _speed_squared(voltage_kv) / _speed_squared(300.0)
    paths = thickness_angstrom / settings.inelastic_mean_free_path_angstrom
    if film_angstrom is not None:
        paths = paths + film_angstrom / CARBON_MEAN_FREE_PATH_ANGSTROM
    return torch.exp(-paths / slower)


def _speed_squared(voltage_kv: float) -> float:
    """(v / c)^2 of the beam's electrons."""
    return 1 - 1 / (1 + voltage_kv / ELECTRON_REST_ENERGY_KEV) ** 2


# --- Ice
# --------------------------------------------------------------------------------------------------


def ice_amplitude(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    settings: SpecimenSettings,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Amplitude by which to multiply the ``rfft2`` of unit white noise to get the ice's projected
    phase in rad.

    Power: an electron form factor squared, falling as (1 + (k / 0.25)^2)^-2, times a structure
    factor of amorphous ice: a low compressibility floor of 0.15 and rings at 3.7, 2.2 and 1.8 Å.
    Scaled so that 300 Å of ice give 0.05 rad rms at 1 Å/px (up to 0.5 / Å in both axes), growing as
    the root of thickness.
    """

    def power(k: Tensor) -> Tensor:
        structure = 0.15 + sum(
            height * torch.exp(-0.5 * ((k - 1 / ring) / width) ** 2)
            for ring, width, height in ((3.7, 0.03, 2.0), (2.2, 0.04, 0.8), (1.8, 0.04, 0.8))
        )
        return structure / (1 + (k / 0.25) ** 2) ** 2

    reference = radial_frequency((512, 512), 1.0)
    weight = torch.full((257,), 2.0)  # columns of the half plane that stand for two
    weight[0] = weight[-1] = 1.0
    # in double: the order of a sum, and so its last bits, depend on the number of threads
    mean = float((power(reference) * weight).double().sum().float() / 512**2)
    # white noise of unit variance per pixel at 1 Å has unit power per Å^2; at another pixel size
    # its density is pixel^2
    scale = 0.05**2 / mean * settings.ice_thickness_angstrom / 300 * settings.ice_noise**2
    return (
        torch.sqrt(power(radial_frequency(shape, pixel_size_angstrom, device)) * scale)
        / pixel_size_angstrom
    )


def ice_memory(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    exposure_e_per_a2: float,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Correlation of the ice's Fourier terms after `exposure_e_per_a2`: exp(-2 pi^2 k^2 msd_axis),
    msd_axis a third of the whole.
    """
    k2 = radial_frequency(shape, pixel_size_angstrom, device) ** 2
    return torch.exp(-2 * math.pi**2 * k2 * ICE_MSD_ANGSTROM2_PER_E / 3 * exposure_e_per_a2)


class IceNoise:
    """The ice's projected phase as it moves, in Fourier space: each term is an AR(1) process, the
    Brownian motion of the water.

    Parameters
    ----------
    shape
        (y, x) of the field in pixels.
    pixel_size_angstrom
        Of that field.
    settings
        Thickness and strength of the ice.
    generator
        Of the noise, on `device`. What it draws differs between kinds of device, but never with the
        number of threads.
    device
        Where the noise is made.

    Attributes
    ----------
    amplitude
        See `ice_amplitude`.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_angstrom: float,
        settings: SpecimenSettings,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ):
        self.shape, self.pixel_size_angstrom = shape, pixel_size_angstrom
        self.amplitude = ice_amplitude(shape, pixel_size_angstrom, settings, device)
        self._random = generator
        self._fresh = torch.empty(self.amplitude.shape, dtype=torch.complex64, device=device)
        self._state: Tensor | None = None
        self._exposure: float | None = None
        self._memory = self._innovation = self.amplitude

    def step(self, exposure_e_per_a2: float) -> Tensor:
        """The ``rfft2`` of the ice's phase in rad after `exposure_e_per_a2` more than at the last
        call; the first call draws it.

        The tensor returned, complex64 ``[y, x // 2 + 1]``, is the process' own: read it before the
        next call, and do not write to it.
        """
        white = _white_noise(self._fresh, self.shape, self._random)
        if self._state is None:
            self._state = white * self.amplitude
            return self._state
        if exposure_e_per_a2 != self._exposure:
            self._exposure = exposure_e_per_a2
            self._memory = ice_memory(
                self.shape, self.pixel_size_angstrom, exposure_e_per_a2, self.amplitude.device
            )
            self._innovation = (1 - self._memory**2).sqrt_().mul_(self.amplitude)
        # As pairs of reals: complex times real would be worked out as complex times complex.
        state = torch.view_as_real(self._state)
        state.mul_(self._memory[..., None]).addcmul_(
            torch.view_as_real(white), self._innovation[..., None]
        )
        return self._state


def _white_noise(out: Tensor, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Fill `out` with the ``rfft2`` of white noise of unit variance on an image of `shape`, drawn
    straight in Fourier space.

    Real and imaginary parts are uniform numbers: every pixel is a sum over all Fourier terms, and
    in an AR(1) process over frames as well, so the image is Gaussian by the central limit theorem,
    and only variances matter.
    """
    pairs = torch.view_as_real(out)
    # rfft2 of unit white noise has variance N a term, N / 2 a part; a uniform number from -a to a
    # has a^2 / 3.
    bound = math.sqrt(1.5 * shape[0] * shape[1])
    pairs.uniform_(-bound, bound, generator=generator)
    for column in {0, shape[1] // 2} if shape[1] % 2 == 0 else {0}:
        # These stand for themselves and must be conjugate at -ky. The root keeps the variance,
        # doubled by the sum.
        line = out[:, column]
        out[:, column] = (line + line.flip(0).roll(1).conj()) / math.sqrt(2)
    return out


# --- What lies on the ice and in it
# --------------------------------------------------------------------------------------------------


def _count(per_um2: float, shape: tuple[int, int], pixel: float, generator: torch.Generator) -> int:
    """A Poisson number of things in a field."""
    return int(
        torch.poisson(
            torch.tensor([per_um2 * shape[0] * shape[1] * pixel**2 * 1e-8]), generator=generator
        )
    )


def _window(centre: float, reach: float, size: int) -> tuple[int, int]:
    """The pixels of an axis within `reach` of `centre`, as a range."""
    return max(0, math.floor(centre - reach)), min(size, math.ceil(centre + reach) + 1)


def contamination(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    settings: SpecimenSettings,
    volts_to_rad: float,
    generator: torch.Generator,
) -> Image:
    """Projected phase in rad of frost particles: rounded caps of ice, 60 to 500 Å in radius, with a
    rough surface.
    """
    phase = torch.zeros(shape)
    for _ in range(_count(settings.contaminants_per_um2, shape, pixel_size_angstrom, generator)):
        u = torch.rand(6, generator=generator)
        radius = 60 * (500 / 60) ** float(u[0]) / pixel_size_angstrom
        middle = (float(u[1] * shape[0]), float(u[2] * shape[1]))
        (y0, y1), (x0, x1) = (
            _window(m, 1.4 * radius, size) for m, size in zip(middle, shape, strict=True)
        )
        y = (torch.arange(y0, y1) - middle[0])[:, None]
        x = (torch.arange(x0, x1) - middle[1])[None, :]
        angle = torch.atan2(y, x)
        lobes = (
            1 + 0.25 * torch.sin(2 * angle + 6.3 * u[3]) + 0.15 * torch.sin(5 * angle + 6.3 * u[4])
        )
        cap = (1 - (y * y + x * x) / (radius * lobes) ** 2).clamp(min=0).sqrt()
        phase[y0:y1, x0:x1] += (
            cap
            * (0.3 + 0.7 * u[5])
            * min(radius * pixel_size_angstrom, 200)
            * ICE_POTENTIAL_VOLT
            * volts_to_rad
        )
    return phase


def _ice_fourier_terms() -> tuple[Tensor, Tensor]:
    """Reciprocal vectors (x, y, z) in 1/Å of one of each Friedel pair of the `ICE_REFLECTIONS`, and
    the potential's terms there in V.

    V_g = MOTT / cell * sum f(g) exp(2 pi i g r) over the oxygens (Peng et al. 1996); the hydrogens,
    which are disordered, are left out.
    """
    z = ICE_OXYGEN_Z
    oxygens = torch.tensor(
        [[1 / 3, 2 / 3, z], [2 / 3, 1 / 3, z + 0.5], [2 / 3, 1 / 3, -z], [1 / 3, 2 / 3, 0.5 - z]]
    )
    cell = ICE_A_ANGSTROM**2 * ICE_C_ANGSTROM * math.sqrt(3) / 2
    reciprocal = torch.tensor(
        [
            [1 / ICE_A_ANGSTROM, 1 / (math.sqrt(3) * ICE_A_ANGSTROM), 0],
            [0, 2 / (math.sqrt(3) * ICE_A_ANGSTROM), 0],
            [0, 0, 1 / ICE_C_ANGSTROM],
        ]
    )
    indices = set()
    for h, k, level in ICE_REFLECTIONS:
        # Sixfold about c: (h, k) -> (-k, h + k); both signs of l; and the mirror image of (h, k),
        # which is (k, h).
        for a, b in ((h, k), (k, h)):
            for _ in range(6):
                a, b = -b, a + b
                indices |= {max((a, b, sign * level), (-a, -b, -sign * level)) for sign in (1, -1)}
    hkl = torch.tensor(sorted(indices), dtype=torch.float32)
    g = hkl @ reciprocal
    table = gemmi.Element("O").c4322
    k2 = g.square().sum(dim=1, keepdim=True)
    factor = (torch.tensor(table.a) * torch.exp(-torch.tensor(table.b) * k2 / 4)).sum(dim=1)
    angle = 2 * math.pi * hkl @ oxygens.T
    return g, torch.polar(
        factor * MOTT_VOLT_ANGSTROM2 / cell, torch.zeros_like(factor)
    ) * torch.polar(torch.ones_like(angle), angle).sum(dim=1)


def _add_crystals(
    phase: Image,
    pixel: float,
    settings: SpecimenSettings,
    volts_to_rad: float,
    generator: torch.Generator,
) -> None:
    """Add the Bragg fringes of patches of hexagonal ice, 100 to 600 Å in radius, randomly oriented
    and thinning out towards their rims.

    A crystal of thickness t about the ice's middle projects each term of its potential, V_g, as 2
    |V_g| cos(2 pi g r + its phase) times sin(pi g_z t) / (pi g_z): strong fringes where g lies
    across the beam, next to nothing elsewhere. Fringes finer than the pixels can hold, and the
    faintest, are left out. The mean potential is that of the ice in which the crystal lies.
    """
    shape = (phase.shape[0], phase.shape[1])
    reciprocal, terms = _ice_fourier_terms()
    for _ in range(_count(settings.crystals_per_um2, shape, pixel, generator)):
        u = torch.rand(4, generator=generator).tolist()
        g = reciprocal @ random_rotation(generator).T
        radius = 100 * 6 ** u[0] / pixel
        middle = (u[1] * shape[0], u[2] * shape[1])
        (y0, y1), (x0, x1) = (
            _window(m, radius, size) for m, size in zip(middle, shape, strict=True)
        )
        y = (torch.arange(y0, y1, device=phase.device) - middle[0])[:, None]
        x = (torch.arange(x0, x1, device=phase.device) - middle[1])[None, :]
        largest = min(settings.ice_thickness_angstrom, 2 * radius * pixel) * (0.3 + 0.7 * u[3])
        thickness = largest * (1 - (y * y + x * x) / radius**2).clamp(min=0).sqrt()
        for (gx, gy, gz), term in zip(g.tolist(), terms.tolist(), strict=True):
            if (
                max(abs(gx), abs(gy)) * pixel >= 0.5
                or math.pi * abs(gz) * largest * FAINTEST_FRINGES > 1
            ):
                continue
            depth = thickness * torch.sinc(gz * thickness)
            fringes = torch.cos(
                2 * math.pi * pixel * (gx * x + gy * y) + math.atan2(term.imag, term.real)
            )
            phase[y0:y1, x0:x1] += (2 * abs(term) * volts_to_rad) * depth * fringes


def _carbon_noise(
    shape: tuple[int, int],
    pixel: float,
    settings: SpecimenSettings,
    volts_to_rad: float,
    generator: torch.Generator,
) -> Image:
    """Structure of a film of amorphous carbon about its mean, phase in rad ``[y, x]``, as of atoms
    placed independently of each other.

    Power per Å^2: atoms per Å^2 times the square of one atom's projected phase, sigma MOTT f(k), by
    Peng et al. 1996. True films are correlated: below 0.5 / Å their power is this within a factor
    of about two.
    """
    table = gemmi.Element("C").c4322
    k2 = radial_frequency(shape, pixel) ** 2
    factor = torch.zeros_like(k2)
    for a, b in zip(table.a, table.b, strict=True):
        factor += a * torch.exp(-b * k2 / 4)
    atoms = CARBON_ATOMS_PER_ANGSTROM3 * settings.film_thickness_angstrom
    factor *= math.sqrt(atoms) * volts_to_rad * MOTT_VOLT_ANGSTROM2 / pixel
    white = _white_noise(torch.empty(k2.shape, dtype=torch.complex64), shape, generator)
    white *= factor
    white[0, 0] = 0  # the mean is that of the film
    return torch.fft.irfft2(white, s=shape)
