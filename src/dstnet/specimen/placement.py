"""Where particles lie in the field and in the ice."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dstnet.core.shapes import Image
from dstnet.errors import SettingsError
from dstnet.specimen.settings import JAMMING, SpecimenSettings
from dstnet.specimen.species import Species

MISSES = 500  # in a row, after which the ice counts as full
SEARCH_AFTER = 50  # misses in a row, after which only places are tried that are not plainly taken
AGGREGATE_SIZES = 5, 30
# discs of unequal sizes, and the free edge of a small field, hold so much more than JAMMING
UNEQUAL_DISCS = 1.1


@dataclass(frozen=True)
class Particle:
    """One particle: centre from pixel [0, 0], height above the ice's middle towards the source,
    rotation r' = R r with r = (x, y, z).
    """

    species: str
    y_angstrom: float
    x_angstrom: float
    height_angstrom: float
    rotation: Tensor


class _Discs:
    """The discs placed so far, found by the cells of a grid as wide as the farthest that two of
    them can conflict.
    """

    def __init__(self, largest_radius: float, gap: float) -> None:
        self.gap = gap
        self.cell = 2 * largest_radius + gap
        self.all: list[tuple[float, float, float]] = []
        self._cells: dict[tuple[int, int], list[tuple[float, float, float]]] = {}

    def _home(self, y: float, x: float) -> tuple[int, int]:
        return math.floor(y / self.cell), math.floor(x / self.cell)

    def free(self, y: float, x: float, radius: float) -> bool:
        """Whether a disc there keeps the gap to all others."""
        if self.cell <= 0:
            return True
        for other_y, other_x, other_radius in self._neighbours(y, x):
            if math.hypot(other_y - y, other_x - x) < other_radius + radius + self.gap:
                return False
        return True

    def _neighbours(self, y: float, x: float) -> Iterator[tuple[float, float, float]]:
        """The discs in the cell of a place and in those around it."""
        row, column = self._home(y, x)
        for i in (row - 1, row, row + 1):
            for j in (column - 1, column, column + 1):
                yield from self._cells.get((i, j), ())

    def room(self, extent: tuple[float, float], smallest_radius: float) -> tuple[np.ndarray, float]:
        """Corners (y, x) of the squares in which a disc may still be placed, and their side: all
        but those that lie entirely too near a disc.
        """
        side = max(smallest_radius / 4, 1.0)
        rows, columns = (math.ceil(length / side) for length in extent)
        taken = np.zeros((rows, columns), bool)
        for y, x, radius in self.all:
            # From the centre of a square none of whose points lies as far as the least distance.
            reach = (radius + smallest_radius + self.gap) / side - math.sqrt(0.5)
            if reach <= 0:
                continue
            middle_y = y / side - 0.5
            middle_x = x / side - 0.5
            near_y = _reached(middle_y, reach, rows)
            near_x = _reached(middle_x, reach, columns)
            dy = np.arange(near_y.start, near_y.stop) - middle_y
            dx = np.arange(near_x.start, near_x.stop) - middle_x
            taken[near_y, near_x] |= dy[:, None] ** 2 + dx[None, :] ** 2 < reach**2
        return np.argwhere(~taken) * side, side

    def add(self, y: float, x: float, radius: float) -> None:
        self.all.append((y, x, radius))
        if self.cell > 0:
            self._cells.setdefault(self._home(y, x), []).append((y, x, radius))


def _reached(middle: float, reach: float, count: int) -> slice:
    """The squares along an axis whose centres lie within `reach` of a place."""
    return slice(max(0, math.ceil(middle - reach)), min(count, math.floor(middle + reach) + 1))


class _Field:
    """The field's pixels, which of them may hold a centre, and the ice there."""

    def __init__(
        self,
        extent: tuple[float, float],
        pixel: float,
        settings: SpecimenSettings,
        allowed: Tensor | None,
        thickness: Image | None,
    ):
        self.extent = extent
        self.pixel = pixel
        self.settings = settings
        self.allowed = None if allowed is None else allowed.cpu()
        self.thickness = None if thickness is None else thickness.cpu()
        self.shape = (round(extent[0] / pixel), round(extent[1] / pixel))
        self._check_shape("allowed", self.allowed)
        self._check_shape("thickness_angstrom", self.thickness)
        self.places: Tensor | None = None  # allowed pixels, numbered row by row
        share = 1.0
        if self.allowed is not None:
            self.places = self.allowed.flatten().nonzero()[:, 0].int()
            share = len(self.places) / (self.shape[0] * self.shape[1])
        self.area_angstrom2 = share * extent[0] * extent[1]

    def _check_shape(self, name: str, image: Tensor | None) -> None:
        if image is not None and tuple(image.shape) != self.shape:
            raise ValueError(f"{name} has shape {tuple(image.shape)}, the field {self.shape}")

    def anywhere(self, u: float, v: float, generator: torch.Generator) -> tuple[float, float]:
        """A centre (y, x) in Å on an allowed pixel, from uniform `u` and `v`, or, within a mask,
        from the generator.
        """
        if self.places is None:
            return self.snapped(u * self.extent[0], v * self.extent[1])
        place = self.places[_random_index(len(self.places), generator)]
        row, column = divmod(int(place), self.shape[1])
        return row * self.pixel, column * self.pixel

    def snapped(self, y: float, x: float) -> tuple[float, float]:
        """The nearest pixel's centre in Å: patches are added without interpolation."""
        return round(y / self.pixel) * self.pixel, round(x / self.pixel) * self.pixel

    def holds(self, y: float, x: float) -> bool:
        """Whether a centre may lie there."""
        row = round(y / self.pixel)
        column = round(x / self.pixel)
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            return False
        return self.allowed is None or bool(self.allowed[row, column])

    def holds_any(self, corners: np.ndarray, side: float) -> np.ndarray:
        """Whether a centre may lie at a corner or the middle of each square, bool ``[n]``."""
        if self.allowed is None:
            return np.ones(len(corners), bool)
        allowed = self.allowed.numpy()
        last = np.array(self.shape) - 1
        found = np.zeros(len(corners), bool)
        for step in ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)):
            points = (corners + np.array(step) * side) / self.pixel
            row, column = np.minimum(np.rint(points).astype(int), last).T
            found |= allowed[row, column]
        return found

    def slack(self, y: float, x: float, radius: float) -> float:
        """How far in Å from the ice's middle a particle can lie there; 0 where the ice is thinner
        than it.
        """
        thickness = self.settings.ice_thickness_angstrom
        if self.thickness is not None:
            row = min(round(y / self.pixel), self.shape[0] - 1)
            column = min(round(x / self.pixel), self.shape[1] - 1)
            thickness = float(self.thickness[row, column])
        return max(0.0, thickness / 2 - radius)


def place(
    species: Sequence[Species],
    settings: SpecimenSettings,
    extent_angstrom: tuple[float, float],
    pixel_size_angstrom: float,
    generator: torch.Generator,
    allowed: Tensor | None = None,
    thickness_angstrom: Image | None = None,
) -> Iterator[tuple[Particle, Tensor]]:
    """Particles at random (random sequential addition), each with its phase patch; aggregates come
    first.

    Discs, of the particles' radii, keep `settings.gap_angstrom` between them; only the members of
    one aggregate overlap freely. Centres lie on pixels, so that a patch is added without
    interpolation. Heights are uniform within the ice that holds the particle, or at one of its
    surfaces. Where the ice is full before the coverage is reached (500 misses in a row), placing
    ends there.

    Parameters
    ----------
    species
        What is placed, each equally often.
    settings
        The specimen.
    extent_angstrom
        The field (y, x); its pixels are ``round(extent / pixel)``.
    pixel_size_angstrom
        Of the field and of the species' patches.
    generator
        Of places, heights and poses.
    allowed
        Where centres may lie, bool ``[y, x]``; None is everywhere. The coverage is that of this
        area.
    thickness_angstrom
        The ice's thickness ``[y, x]``; None is `settings.ice_thickness_angstrom` everywhere.

    Raises
    ------
    SettingsError
        Before anything is drawn, if a species' disc is larger than the field, or discs with their
        gaps can never cover so much.
    """
    if not species or not settings.populated:
        return
    _check_possible(species, settings, extent_angstrom)
    field = _Field(extent_angstrom, pixel_size_angstrom, settings, allowed, thickness_angstrom)
    if field.places is not None and len(field.places) == 0:
        return
    largest = max(kind.radius_angstrom for kind in species)
    discs = _Discs(largest, settings.gap_angstrom)
    yield from _aggregates(species, settings, field, discs, generator)
    yield from _singles(species, settings, field, discs, generator)


def _check_possible(
    species: Sequence[Species], settings: SpecimenSettings, extent_angstrom: tuple[float, float]
) -> None:
    narrowest = min(extent_angstrom)
    for kind in species:
        if 2 * kind.radius_angstrom > narrowest:
            raise SettingsError(
                f"{kind.name} is {2 * kind.radius_angstrom:.0f} Å wide, the padded field"
                f" {narrowest:.0f} Å; make the field (shape x pixel size) larger"
            )
    gap = settings.gap_angstrom
    area = sum(kind.radius_angstrom**2 for kind in species)
    area_with_gaps = sum(max(0.0, kind.radius_angstrom + gap / 2) ** 2 for kind in species)
    with_gaps = settings.coverage * area_with_gaps / area
    if with_gaps > JAMMING * UNEQUAL_DISCS:
        raise SettingsError(
            f"a coverage of {settings.coverage} with {gap} Å between particles cannot be reached:"
            f" with their gaps they would cover {with_gaps:.2f}, and random discs jam at {JAMMING};"
            " lower coverage or gap_angstrom"
        )


def _random_index(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def _happens(chance: float, generator: torch.Generator) -> bool:
    """Whether something of that chance happens; draws nothing where it cannot."""
    return chance > 0 and float(torch.rand(1, generator=generator)) < chance


def _any(species: Sequence[Species], generator: torch.Generator) -> Species:
    return species[_random_index(len(species), generator)]


def _singles(
    species: Sequence[Species],
    settings: SpecimenSettings,
    field: _Field,
    discs: _Discs,
    generator: torch.Generator,
) -> Iterator[tuple[Particle, Tensor]]:
    """Particles one by one until the coverage is reached or no more fit."""
    area_to_cover = settings.coverage * field.area_angstrom2
    smallest = min(kind.radius_angstrom for kind in species)
    covered = 0.0
    misses = 0
    room: np.ndarray | None = None
    side = 0.0
    while covered < area_to_cover and misses < MISSES:
        if misses and misses % SEARCH_AFTER == 0:
            room, side = discs.room(field.extent, smallest)
            room = room[field.holds_any(room, side)]
            if len(room) == 0:
                return
        kind = _any(species, generator)
        u, v, w = torch.rand(3, generator=generator).tolist()
        if discs.all and _happens(settings.clustering, generator):
            other = discs.all[_random_index(len(discs.all), generator)]
            # a pixel more, as snapping to pixels could bring them nearer than the gap
            apart = max(0.0, other[2] + kind.radius_angstrom + settings.gap_angstrom)
            y, x = _away(field, other, apart + field.pixel, u)
        elif room is not None:
            y, x = room[_random_index(len(room), generator)].tolist()
            y, x = field.snapped(y + u * side, x + v * side)
        else:
            y, x = field.anywhere(u, v, generator)
        if not (field.holds(y, x) and discs.free(y, x, kind.radius_angstrom)):
            misses += 1
            continue
        misses = 0
        discs.add(y, x, kind.radius_angstrom)
        covered += math.pi * kind.radius_angstrom**2
        yield _particle(kind, (y, x), 2 * w - 1, settings, field, generator)


def _away(
    field: _Field, disc: tuple[float, float, float], apart: float, turn: float
) -> tuple[float, float]:
    """The pixel's centre nearest to a place so far from a disc's, in a direction in turns."""
    angle = 2 * math.pi * turn
    return field.snapped(disc[0] + apart * math.sin(angle), disc[1] + apart * math.cos(angle))


def _aggregates(
    species: Sequence[Species],
    settings: SpecimenSettings,
    field: _Field,
    discs: _Discs,
    generator: torch.Generator,
) -> Iterator[tuple[Particle, Tensor]]:
    """Lumps in which every particle overlaps an earlier one."""
    if settings.aggregates_per_um2 == 0:
        return
    expected = torch.tensor([settings.aggregates_per_um2 * field.area_angstrom2 * 1e-8])
    low, high = AGGREGATE_SIZES
    for _ in range(int(torch.poisson(expected, generator=generator))):
        members: list[tuple[float, float, float]] = []
        for _ in range(low + _random_index(high - low + 1, generator)):
            kind = _any(species, generator)
            place = _beside(members, kind.radius_angstrom, field, generator)
            if place is None:  # the hole's edge leaves no room
                break
            members.append((*place, kind.radius_angstrom))
            height = 2 * float(torch.rand(1, generator=generator)) - 1
            yield _particle(kind, place, height, settings, field, generator)
        for member in members:
            discs.add(*member)


def _beside(
    members: list[tuple[float, float, float]],
    radius: float,
    field: _Field,
    generator: torch.Generator,
) -> tuple[float, float] | None:
    """A centre from which a particle overlaps one of `members`, or any centre for the first; None
    where 100 tries find none.
    """
    if not members:
        u, v = torch.rand(2, generator=generator).tolist()
        return field.anywhere(u, v, generator)
    for _ in range(100):
        angle, part, which = torch.rand(3, generator=generator).tolist()
        other = members[int(which * len(members))]
        apart = (0.3 + 0.5 * part) * (other[2] + radius)
        y, x = _away(field, other, apart, angle)
        if field.holds(y, x):
            return y, x
    return None


def _particle(
    kind: Species,
    place: tuple[float, float],
    height: float,
    settings: SpecimenSettings,
    field: _Field,
    generator: torch.Generator,
) -> tuple[Particle, Tensor]:
    """A particle at a place (y, x), at `height` -1 to 1 of the way from the ice's middle to its
    surface or, by chance, at a surface itself.
    """
    if _happens(settings.at_interface, generator):
        height = math.copysign(1.0, height)
    rotation, patch = kind.draw(generator)
    height_angstrom = height * field.slack(*place, kind.radius_angstrom)
    return Particle(kind.name, *place, height_angstrom, rotation), patch
