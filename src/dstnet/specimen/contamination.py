"""Ice that does not belong there: particles of it on the surface, crystals of it in the ice."""

import math
from dataclasses import dataclass

import gemmi
import torch
from torch import Tensor

from dstnet.core.constants import MOTT_VOLT_ANGSTROM2
from dstnet.core.shapes import Image
from dstnet.potential import random_rotation
from dstnet.specimen.settings import SpecimenSettings

ICE_POTENTIAL_VOLT = 3.5  # mean inner potential of ice, Harscher & Lichte 1998
SMALLEST_RADIUS_ANGSTROM, LARGEST_RADIUS_ANGSTROM = 60, 500  # of particles on the surface
HIGHEST_ANGSTROM = 200  # of particles on the surface
# Hexagonal ice: a and c in Å and the oxygens' z of P6_3/mmc, 4f (Goto, Hondoh & Mae, J. Chem. Phys.
# 93, 1412 (1990)).
ICE_A_ANGSTROM, ICE_C_ANGSTROM, ICE_OXYGEN_Z = 4.511, 7.346, 0.06226
# Spacings 3.91, 3.67, 3.45, 2.67 and 2.26 Å; cubic ice has the second and the last.
ICE_REFLECTIONS = ((1, 0, 0), (0, 0, 2), (1, 0, 1), (1, 0, 2), (1, 1, 0))
FAINTEST_FRINGES = 0.05  # of those that lie across the beam; fainter ones are left out


@dataclass(frozen=True)
class _Patch:
    """The part of a field within a distance of a place.

    Attributes
    ----------
    inside
        The part, as an index into the field.
    y, x
        Pixels from the place, ``[y, 1]`` and ``[1, x]``.
    """

    inside: tuple[slice, slice]
    y: Tensor
    x: Tensor

    @classmethod
    def around(
        cls,
        middle: tuple[float, float],
        reach: float,
        shape: tuple[int, int],
        device: torch.device | str = "cpu",
    ) -> "_Patch":
        rows = _reached(middle[0], reach, shape[0])
        columns = _reached(middle[1], reach, shape[1])
        y = torch.arange(rows.start, rows.stop, device=device) - middle[0]
        x = torch.arange(columns.start, columns.stop, device=device) - middle[1]
        return cls((rows, columns), y[:, None], x[None, :])

    @property
    def squared_distance(self) -> Tensor:
        return self.y * self.y + self.x * self.x


def _reached(centre: float, reach: float, size: int) -> slice:
    """The pixels of an axis within `reach` of `centre`."""
    return slice(max(0, math.floor(centre - reach)), min(size, math.ceil(centre + reach) + 1))


def _count(per_um2: float, shape: tuple[int, int], pixel: float, generator: torch.Generator) -> int:
    """A Poisson number of things in a field."""
    expected = per_um2 * shape[0] * shape[1] * pixel**2 * 1e-8
    return int(torch.poisson(torch.tensor([expected]), generator=generator))


def draw_contamination(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    settings: SpecimenSettings,
    volts_to_rad: float,
    generator: torch.Generator,
) -> Image:
    """Projected phase in rad of ice contamination: rounded caps of ice, 60 to 500 Å in radius, with
    a rough surface.

    Parameters
    ----------
    shape
        (y, x) in pixels.
    pixel_size_angstrom
        Of that field.
    settings
        The specimen.
    volts_to_rad
        Phase per projected potential, rad/(V Å).
    generator
        On the CPU.
    """
    phase = torch.zeros(shape)
    count = _count(settings.contaminants_per_um2, shape, pixel_size_angstrom, generator)
    ratio = LARGEST_RADIUS_ANGSTROM / SMALLEST_RADIUS_ANGSTROM
    for _ in range(count):
        u = torch.rand(6, generator=generator)
        radius = SMALLEST_RADIUS_ANGSTROM * ratio ** float(u[0]) / pixel_size_angstrom
        middle = (float(u[1] * shape[0]), float(u[2] * shape[1]))
        patch = _Patch.around(middle, 1.4 * radius, shape)
        angle = torch.atan2(patch.y, patch.x)
        lobes = 1 + 0.25 * torch.sin(2 * angle + 6.3 * u[3])
        lobes = lobes + 0.15 * torch.sin(5 * angle + 6.3 * u[4])
        cap = (1 - patch.squared_distance / (radius * lobes) ** 2).clamp(min=0).sqrt()
        height_angstrom = min(radius * pixel_size_angstrom, HIGHEST_ANGSTROM)
        thickness = cap * (0.3 + 0.7 * u[5]) * height_angstrom
        phase[patch.inside] += thickness * ICE_POTENTIAL_VOLT * volts_to_rad
    return phase


def add_crystals(
    phase: Image,
    pixel_size_angstrom: float,
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

    Parameters
    ----------
    phase
        Projected phase in rad, ``[y, x]``; changed in place.
    pixel_size_angstrom
        Of that field.
    settings
        The specimen.
    volts_to_rad
        Phase per projected potential, rad/(V Å).
    generator
        On the CPU.
    """
    shape = (phase.shape[0], phase.shape[1])
    reciprocal, terms = _ice_fourier_terms()
    count = _count(settings.crystals_per_um2, shape, pixel_size_angstrom, generator)
    for _ in range(count):
        u = torch.rand(4, generator=generator).tolist()
        vectors = reciprocal @ random_rotation(generator).T
        radius = 100 * 6 ** u[0] / pixel_size_angstrom
        middle = (u[1] * shape[0], u[2] * shape[1])
        patch = _Patch.around(middle, radius, shape, phase.device)
        across = min(settings.ice_thickness_angstrom, 2 * radius * pixel_size_angstrom)
        largest = across * (0.3 + 0.7 * u[3])
        thickness = largest * (1 - patch.squared_distance / radius**2).clamp(min=0).sqrt()
        for vector, term in zip(vectors.tolist(), terms.tolist(), strict=True):
            if _is_seen(vector, largest, pixel_size_angstrom):
                strength = 2 * abs(term) * volts_to_rad
                depth = thickness * torch.sinc(vector[2] * thickness)
                wave = _wave(patch, vector, term, pixel_size_angstrom)
                phase[patch.inside] += strength * depth * wave


def _is_seen(vector: list[float], thickness_angstrom: float, pixel: float) -> bool:
    """Whether fringes are neither finer than pixels can hold nor among the faintest."""
    gx, gy, gz = vector
    if max(abs(gx), abs(gy)) * pixel >= 0.5:
        return False
    return math.pi * abs(gz) * thickness_angstrom * FAINTEST_FRINGES <= 1


def _wave(patch: _Patch, vector: list[float], term: complex, pixel: float) -> Image:
    """The wave of a term of the potential, from -1 to 1."""
    along = vector[0] * patch.x + vector[1] * patch.y
    return torch.cos(2 * math.pi * pixel * along + math.atan2(term.imag, term.real))


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
    hkl = torch.tensor(_reflection_indices(), dtype=torch.float32)
    vectors = hkl @ reciprocal
    table = gemmi.Element("O").c4322
    k2 = vectors.square().sum(dim=1, keepdim=True)
    factor = (torch.tensor(table.a) * torch.exp(-torch.tensor(table.b) * k2 / 4)).sum(dim=1)
    strength = factor * MOTT_VOLT_ANGSTROM2 / cell
    angle = 2 * math.pi * hkl @ oxygens.T
    interference = torch.polar(torch.ones_like(angle), angle).sum(dim=1)
    return vectors, torch.polar(strength, torch.zeros_like(factor)) * interference


def _reflection_indices() -> list[tuple[int, int, int]]:
    """Indices of one of each Friedel pair of all that are equivalent to the `ICE_REFLECTIONS`."""
    indices: set[tuple[int, int, int]] = set()
    for h, k, level in ICE_REFLECTIONS:
        # Sixfold about c: (h, k) -> (-k, h + k); both signs of l; and the mirror image of (h, k),
        # which is (k, h).
        for a, b in ((h, k), (k, h)):
            for _ in range(6):
                a, b = -b, a + b
                for c in (level, -level):
                    indices.add(max((a, b, c), (-a, -b, -c)))
    return sorted(indices)
