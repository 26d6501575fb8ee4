"""Ice that does not belong there: particles of it on the surface, crystals of it in the ice."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import gemmi
import torch
from torch import Tensor

from dstnet.core.constants import MOTT_VOLT_ANGSTROM2
from dstnet.core.devices import Device
from dstnet.core.shapes import Image, Shape
from dstnet.potential import random_rotation
from dstnet.specimen.field import SpecimenField

ICE_POTENTIAL_VOLT = 3.5  # mean inner potential of ice, Harscher & Lichte 1998
# Of particles on the surface.
SMALLEST_RADIUS_ANGSTROM = 60
LARGEST_RADIUS_ANGSTROM = 500
HIGHEST_ANGSTROM = 200
# Of crystals.
SMALLEST_CRYSTAL_ANGSTROM = 100
CRYSTAL_RADII_RATIO = 6  # of the largest to the smallest
# Hexagonal ice: a and c in Å and the oxygens' z of P6_3/mmc, 4f (Goto, Hondoh & Mae, J. Chem. Phys.
# 93, 1412 (1990)).
ICE_A_ANGSTROM = 4.511
ICE_C_ANGSTROM = 7.346
ICE_OXYGEN_Z = 0.06226
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
        shape: Shape,
        device: Device = "cpu",
    ) -> "_Patch":
        """What lies within `reach` pixels of the place `middle` (y, x) in a field of `shape`."""
        rows = _reached(middle[0], reach, shape[0])
        columns = _reached(middle[1], reach, shape[1])
        y = torch.arange(rows.start, rows.stop, device=device) - middle[0]
        x = torch.arange(columns.start, columns.stop, device=device) - middle[1]
        return cls((rows, columns), y[:, None], x[None, :])

    @property
    def squared_distance(self) -> Tensor:
        """From the place in pixels², ``[y, x]``."""
        return self.y * self.y + self.x * self.x


def _reached(centre: float, reach: float, size: int) -> slice:
    """The pixels along an axis within `reach` of `centre`."""
    first = math.floor(centre - reach)
    last = math.ceil(centre + reach)
    return slice(max(0, first), min(size, last + 1))


def draw_contamination(field: SpecimenField, generator: torch.Generator) -> Image:
    """Projected phase in rad of ice contamination: rounded caps of ice, 60 to 500 Å in radius, with
    a rough surface.

    Parameters
    ----------
    field
        Where it lies.
    generator
        On the CPU.

    Returns
    -------
    Image
        ``[y, x]``, on the field's device.
    """
    phase = torch.zeros(field.shape)
    pixel = field.pixel_size_angstrom
    height, width = field.shape
    ratio = LARGEST_RADIUS_ANGSTROM / SMALLEST_RADIUS_ANGSTROM
    for _ in range(field.poisson_count(field.settings.contaminants_per_um2, generator)):
        u_radius, u_y, u_x, *u_lobes, u_height = torch.rand(6, generator=generator)
        radius = SMALLEST_RADIUS_ANGSTROM * ratio ** float(u_radius) / pixel
        middle = (float(u_y * height), float(u_x * width))
        patch = _Patch.around(middle, 1.4 * radius, field.shape)
        cap = _cap(patch, radius, u_lobes)
        highest = min(radius * pixel, HIGHEST_ANGSTROM)
        thickness = cap * (0.3 + 0.7 * u_height) * highest
        phase[patch.inside] += thickness * ICE_POTENTIAL_VOLT * field.volts_to_rad
    return phase.to(field.device)


def _cap(patch: _Patch, radius: float, turns: Sequence[Tensor]) -> Tensor:
    """Profile, from 1 at its top to 0, of a cap of about `radius` pixels, ``[y, x]``; its rim has
    two and five lobes, each turned at random.
    """
    angle = torch.atan2(patch.y, patch.x)
    two_lobes = 0.25 * torch.sin(2 * angle + 6.3 * turns[0])
    five_lobes = 0.15 * torch.sin(5 * angle + 6.3 * turns[1])
    rim = radius * (1 + two_lobes + five_lobes)
    return _dome(patch, rim)


def _dome(patch: _Patch, radius: Tensor | float) -> Tensor:
    """The upper half of an ellipsoid, 1 at its top and 0 from `radius` pixels on, ``[y, x]``."""
    relative_squared = patch.squared_distance / radius**2
    return (1 - relative_squared).clamp(min=0).sqrt()


def add_crystals(phase: Image, field: SpecimenField, generator: torch.Generator) -> None:
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
    field
        Where they lie.
    generator
        On the CPU.
    """
    pixel = field.pixel_size_angstrom
    height, width = field.shape
    reciprocal, terms = _ice_fourier_terms()
    for _ in range(field.poisson_count(field.settings.crystals_per_um2, generator)):
        u_radius, u_y, u_x, u_thickness = torch.rand(4, generator=generator).tolist()
        vectors = reciprocal @ random_rotation(generator).T
        radius = SMALLEST_CRYSTAL_ANGSTROM * CRYSTAL_RADII_RATIO**u_radius / pixel
        middle = (u_y * height, u_x * width)
        patch = _Patch.around(middle, radius, field.shape, phase.device)
        room = min(field.settings.ice_thickness_angstrom, 2 * radius * pixel)
        thickest = room * (0.3 + 0.7 * u_thickness)
        thickness = thickest * _dome(patch, radius)
        for vector, term in zip(vectors.tolist(), terms.tolist(), strict=True):
            if _is_seen(vector, thickest, pixel):
                strength = 2 * abs(term) * field.volts_to_rad
                depth = thickness * torch.sinc(vector[2] * thickness)
                wave = _wave(patch, vector, term, pixel)
                phase[patch.inside] += strength * depth * wave


def _is_seen(vector: list[float], thickness_angstrom: float, pixel: float) -> bool:
    """Whether fringes are neither finer than pixels can hold nor among the faintest."""
    gx, gy, gz = vector
    finest = max(abs(gx), abs(gy))
    if finest * pixel >= 0.5:
        return False
    return math.pi * abs(gz) * thickness_angstrom * FAINTEST_FRINGES <= 1


def _wave(patch: _Patch, vector: list[float], term: complex, pixel: float) -> Image:
    """The wave of a term of the potential, from -1 to 1."""
    gx, gy, _ = vector
    along = gx * patch.x + gy * patch.y
    phase = math.atan2(term.imag, term.real)
    return torch.cos(2 * math.pi * pixel * along + phase)


def _ice_fourier_terms() -> tuple[Tensor, Tensor]:
    """Reciprocal vectors (x, y, z) in 1/Å of one of each Friedel pair of the `ICE_REFLECTIONS`, and
    the potential's terms there in V.

    V_g = MOTT / cell * sum f(g) exp(2 pi i g r) over the oxygens (Peng et al. 1996); the hydrogens,
    which are disordered, are left out.
    """
    root3 = math.sqrt(3)
    z = ICE_OXYGEN_Z
    positions = [
        [1 / 3, 2 / 3, z],
        [2 / 3, 1 / 3, z + 0.5],
        [2 / 3, 1 / 3, -z],
        [1 / 3, 2 / 3, 0.5 - z],
    ]
    axes = [
        [1 / ICE_A_ANGSTROM, 1 / (root3 * ICE_A_ANGSTROM), 0],
        [0, 2 / (root3 * ICE_A_ANGSTROM), 0],
        [0, 0, 1 / ICE_C_ANGSTROM],
    ]
    cell_angstrom3 = ICE_A_ANGSTROM**2 * ICE_C_ANGSTROM * root3 / 2
    oxygens = torch.tensor(positions)
    hkl = torch.tensor(_reflection_indices(), dtype=torch.float32)
    vectors = hkl @ torch.tensor(axes)
    k2 = vectors.square().sum(dim=1, keepdim=True)
    table = gemmi.Element("O").c4322
    gaussians = torch.tensor(table.a) * torch.exp(-torch.tensor(table.b) * k2 / 4)
    strength = gaussians.sum(dim=1) * MOTT_VOLT_ANGSTROM2 / cell_angstrom3
    angle = 2 * math.pi * hkl @ oxygens.T
    interference = torch.polar(torch.ones_like(angle), angle).sum(dim=1)
    return vectors, torch.polar(strength, torch.zeros_like(strength)) * interference


def _reflection_indices() -> list[tuple[int, int, int]]:
    """Indices of one of each Friedel pair of all that are equivalent to the `ICE_REFLECTIONS`."""
    indices: set[tuple[int, int, int]] = set()
    for h, k, level in ICE_REFLECTIONS:
        # Sixfold about c: (h, k) -> (-k, h + k); both signs of l; and the mirror image of (h, k),
        # which is (k, h).
        for start in ((h, k), (k, h)):
            for a, b in _turned_by_sixths(*start):
                for c in (level, -level):
                    opposite = (-a, -b, -c)
                    indices.add(max((a, b, c), opposite))
    return sorted(indices)


def _turned_by_sixths(h: int, k: int) -> Iterator[tuple[int, int]]:
    """Indices (h, k) at each sixth of a turn about c."""
    for _ in range(6):
        h, k = -k, h + k
        yield h, k
