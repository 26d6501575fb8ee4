"""Where particles lie in the field and in the ice."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dstnet.core.shapes import Image
from dstnet.errors import SettingsError
from dstnet.specimen.discs import Disc, Discs, Room
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
        height, width = extent
        self.extent = extent
        self.pixel = pixel
        self.settings = settings
        self.allowed = None if allowed is None else allowed.cpu()
        self.thickness = None if thickness is None else thickness.cpu()
        self.shape = (round(height / pixel), round(width / pixel))
        self._check_shape("allowed", self.allowed)
        self._check_shape("thickness_angstrom", self.thickness)
        self.places: Tensor | None = None  # allowed pixels, numbered row by row
        allowed_part = 1.0
        if self.allowed is not None:
            self.places = self.allowed.flatten().nonzero()[:, 0].int()
            allowed_part = len(self.places) / (self.shape[0] * self.shape[1])
        self.area_angstrom2 = allowed_part * extent[0] * extent[1]

    def _check_shape(self, name: str, image: Tensor | None) -> None:
        if image is not None and tuple(image.shape) != self.shape:
            raise ValueError(f"{name} has shape {tuple(image.shape)}, the field {self.shape}")

    def anywhere(self, u: float, v: float, generator: torch.Generator) -> tuple[float, float]:
        """A centre (y, x) in Å on an allowed pixel, from uniform `u` and `v`, or, within a mask,
        from the generator.
        """
        if self.places is None:
            return self.snapped(u * self.extent[0], v * self.extent[1])
        number = self.places[_random_index(len(self.places), generator)]
        row, column = divmod(int(number), self.shape[1])
        return row * self.pixel, column * self.pixel

    def snapped(self, y: float, x: float) -> tuple[float, float]:
        """The nearest pixel's centre in Å: patches are added without interpolation."""
        row = round(y / self.pixel)
        column = round(x / self.pixel)
        return row * self.pixel, column * self.pixel

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
    placer = _Placer(species, field, generator)
    yield from placer.aggregates()
    yield from placer.singles()


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
    if not area:
        raise SettingsError(
            f"{species[0].name} has no width: all its atoms lie at one point; give a molecule of"
            " several"
        )
    area_with_gaps = sum(max(0.0, kind.radius_angstrom + gap / 2) ** 2 for kind in species)
    with_gaps = settings.coverage * area_with_gaps / area
    if with_gaps > JAMMING * UNEQUAL_DISCS:
        raise SettingsError(
            f"a coverage of {settings.coverage} with {gap} Å between particles cannot be reached:"
            f" with their gaps they would cover {with_gaps:.2f}, and random discs jam at {JAMMING};"
            " lower coverage or gap_angstrom"
        )


def _random_index(count: int, generator: torch.Generator) -> int:
    """A whole number from 0 to `count` - 1, each equally likely."""
    return int(torch.randint(count, (1,), generator=generator))


class _Placer:
    """Draws particles, of each species equally often, and places them in a field."""

    def __init__(
        self, species: Sequence[Species], field: _Field, generator: torch.Generator
    ) -> None:
        self.species = species
        self.field = field
        self.settings = field.settings
        self.generator = generator
        radii = [kind.radius_angstrom for kind in species]
        self.smallest_radius = min(radii)
        self.discs = Discs(max(radii), self.settings.gap_angstrom)

    def _index(self, count: int) -> int:
        return _random_index(count, self.generator)

    def _uniform(self, count: int) -> list[float]:
        return torch.rand(count, generator=self.generator).tolist()

    def _happens(self, chance: float) -> bool:
        """Whether something of that chance happens; draws nothing where it cannot."""
        return chance > 0 and float(torch.rand(1, generator=self.generator)) < chance

    def _any_species(self) -> Species:
        return self.species[self._index(len(self.species))]

    def singles(self) -> Iterator[tuple[Particle, Tensor]]:
        """Particles one by one until the coverage is reached or no more fit."""
        area_to_cover = self.settings.coverage * self.field.area_angstrom2
        covered = 0.0
        misses = 0
        room: Room | None = None
        while covered < area_to_cover and misses < MISSES:
            if misses and misses % SEARCH_AFTER == 0:
                room = self._room()
                if len(room.corners) == 0:
                    return
            kind = self._any_species()
            u, v, w = self._uniform(3)
            y, x = self._candidate(kind.radius_angstrom, u, v, room)
            disc = Disc(y, x, kind.radius_angstrom)
            if not (self.field.holds(y, x) and self.discs.free(disc)):
                misses += 1
                continue
            misses = 0
            self.discs.add(disc)
            covered += math.pi * disc.radius**2
            yield self._particle(kind, disc, 2 * w - 1)

    def _room(self) -> Room:
        """What the discs and the field leave."""
        room = self.discs.room(self.field.extent, self.smallest_radius)
        is_allowed = self.field.holds_any(room.corners, room.side)
        return Room(room.corners[is_allowed], room.side)

    def _candidate(
        self, radius: float, u: float, v: float, room: Room | None
    ) -> tuple[float, float]:
        """A centre (y, x) to try for a disc, from uniform `u` and `v`: by chance beside an earlier
        disc, else in the room that is left, or anywhere where that is not known.
        """
        if self.discs.all and self._happens(self.settings.clustering):
            other = self.discs.all[self._index(len(self.discs.all))]
            touching = max(0.0, other.radius + radius + self.settings.gap_angstrom)
            # A pixel more, as snapping to pixels could bring them nearer than the gap.
            return self._away(other, touching + self.field.pixel, u)
        if room is not None:
            corner = room.corners[self._index(len(room.corners))]
            y, x = corner.tolist()
            return self.field.snapped(y + u * room.side, x + v * room.side)
        return self.field.anywhere(u, v, self.generator)

    def _away(self, disc: Disc, apart: float, turns: float) -> tuple[float, float]:
        """The pixel's centre nearest to a place so far from a disc's, in a direction in turns."""
        angle = 2 * math.pi * turns
        y = disc.y + apart * math.sin(angle)
        x = disc.x + apart * math.cos(angle)
        return self.field.snapped(y, x)

    def aggregates(self) -> Iterator[tuple[Particle, Tensor]]:
        """Lumps in which every particle overlaps an earlier one."""
        per_um2 = self.settings.aggregates_per_um2
        if per_um2 == 0:
            return
        expected = torch.tensor([per_um2 * self.field.area_angstrom2 * 1e-8])
        count = int(torch.poisson(expected, generator=self.generator))
        fewest, most = AGGREGATE_SIZES
        for _ in range(count):
            members: list[Disc] = []
            for _ in range(fewest + self._index(most - fewest + 1)):
                kind = self._any_species()
                centre = self._beside(members, kind.radius_angstrom)
                if centre is None:  # the hole's edge leaves no room
                    break
                disc = Disc(*centre, kind.radius_angstrom)
                members.append(disc)
                (w,) = self._uniform(1)
                yield self._particle(kind, disc, 2 * w - 1)
            for member in members:
                self.discs.add(member)

    def _beside(self, members: list[Disc], radius: float) -> tuple[float, float] | None:
        """A centre from which a particle overlaps one of `members`, or any centre for the first;
        None where 100 tries find none.
        """
        if not members:
            u, v = self._uniform(2)
            return self.field.anywhere(u, v, self.generator)
        for _ in range(100):
            turns, part, which = self._uniform(3)
            other = members[int(which * len(members))]
            apart = (0.3 + 0.5 * part) * (other.radius + radius)
            y, x = self._away(other, apart, turns)
            if self.field.holds(y, x):
                return y, x
        return None

    def _particle(self, kind: Species, disc: Disc, height: float) -> tuple[Particle, Tensor]:
        """A particle on its disc, at `height` -1 to 1 of the way from the ice's middle to its
        surface or, by chance, at a surface itself; and its phase patch.
        """
        if self._happens(self.settings.at_interface):
            height = math.copysign(1.0, height)
        rotation, patch = kind.draw(self.generator)
        height_angstrom = height * self.field.slack(disc.y, disc.x, disc.radius)
        return Particle(kind.name, disc.y, disc.x, height_angstrom, rotation), patch
