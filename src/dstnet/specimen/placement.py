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

    def __init__(self, largest_radius: float, gap: float):
        self.gap, self.cell = gap, 2 * largest_radius + gap
        self.all: list[tuple[float, float, float]] = []
        self._cells: dict[tuple[int, int], list[tuple[float, float, float]]] = {}

    def _home(self, y: float, x: float) -> tuple[int, int]:
        return math.floor(y / self.cell), math.floor(x / self.cell)

    def free(self, y: float, x: float, radius: float) -> bool:
        """Whether a disc there keeps the gap to all others."""
        if self.cell <= 0:
            return True
        row, column = self._home(y, x)
        for i in (row - 1, row, row + 1):
            for j in (column - 1, column, column + 1):
                for other_y, other_x, other_radius in self._cells.get((i, j), ()):
                    if math.hypot(other_y - y, other_x - x) < other_radius + radius + self.gap:
                        return False
        return True

    def room(self, extent: tuple[float, float], smallest_radius: float) -> tuple[np.ndarray, float]:
        """Corners (y, x) of the squares in which a disc may still be placed, and their side: all
        but those wholly too near a disc.
        """
        side = max(smallest_radius / 4, 1.0)
        rows, columns = (math.ceil(e / side) for e in extent)
        taken = np.zeros((rows, columns), bool)
        for y, x, radius in self.all:
            # From the centre of a square none of whose points lies as far as the least distance.
            reach = (radius + smallest_radius + self.gap) / side - math.sqrt(0.5)
            if reach <= 0:
                continue
            cy, cx = y / side - 0.5, x / side - 0.5
            y0, y1 = max(0, math.ceil(cy - reach)), min(rows, math.floor(cy + reach) + 1)
            x0, x1 = max(0, math.ceil(cx - reach)), min(columns, math.floor(cx + reach) + 1)
            taken[y0:y1, x0:x1] |= (np.arange(y0, y1)[:, None] - cy) ** 2 + (
                np.arange(x0, x1)[None, :] - cx
            ) ** 2 < reach**2
        return np.argwhere(~taken) * side, side

    def add(self, y: float, x: float, radius: float) -> None:
        self.all.append((y, x, radius))
        if self.cell > 0:
            self._cells.setdefault(self._home(y, x), []).append((y, x, radius))


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
        self.extent, self.pixel, self.settings = extent, pixel, settings
        self.allowed = None if allowed is None else allowed.cpu()
        self.thickness = None if thickness is None else thickness.cpu()
        self.shape = (round(extent[0] / pixel), round(extent[1] / pixel))
        for name, map_ in (("allowed", self.allowed), ("thickness_angstrom", self.thickness)):
            if map_ is not None and tuple(map_.shape) != self.shape:
                raise ValueError(f"{name} has shape {tuple(map_.shape)}, the field {self.shape}")
        self.places = None if self.allowed is None else self.allowed.flatten().nonzero()[:, 0].int()
        share = 1.0 if self.places is None else len(self.places) / (self.shape[0] * self.shape[1])
        self.area_angstrom2 = share * extent[0] * extent[1]

    def anywhere(self, u: float, v: float, generator: torch.Generator) -> tuple[float, float]:
        """A centre (y, x) in Å on an allowed pixel, from uniform `u` and `v`, or, within a mask,
        from the generator.
        """
        if self.places is None:
            return self.snapped(u * self.extent[0], v * self.extent[1])
        row, column = divmod(
            int(self.places[int(torch.randint(len(self.places), (1,), generator=generator))]),
            self.shape[1],
        )
        return row * self.pixel, column * self.pixel

    def snapped(self, y: float, x: float) -> tuple[float, float]:
        """The nearest pixel's centre in Å: patches are added without interpolation."""
        return round(y / self.pixel) * self.pixel, round(x / self.pixel) * self.pixel

    def holds(self, y: float, x: float) -> bool:
        """Whether a centre may lie there."""
        row, column = round(y / self.pixel), round(x / self.pixel)
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            return False
        return self.allowed is None or bool(self.allowed[row, column])

    def holds_any(self, corners: np.ndarray, side: float) -> np.ndarray:
        """Whether a centre may lie at a corner or the middle of each square, bool ``[n]``."""
        if self.allowed is None:
            return np.ones(len(corners), bool)
        allowed, last = self.allowed.numpy(), np.array(self.shape) - 1
        found = np.zeros(len(corners), bool)
        for step in ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)):
            row, column = np.minimum(
                np.rint((corners + np.array(step) * side) / self.pixel).astype(int), last
            ).T
            found |= allowed[row, column]
        return found

    def slack(self, y: float, x: float, radius: float) -> float:
        """How far in Å from the ice's middle a particle can lie there; 0 where the ice is thinner
        than it.
        """
        thickness = self.settings.ice_thickness_angstrom
        if self.thickness is not None:
            rows, columns = self.shape
            thickness = float(
                self.thickness[
                    min(round(y / self.pixel), rows - 1), min(round(x / self.pixel), columns - 1)
                ]
            )
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
    for one in species:
        if 2 * one.radius_angstrom > min(extent_angstrom):
            raise SettingsError(
                f"{one.name} is {2 * one.radius_angstrom:.0f} Å wide, the padded field"
                f" {min(extent_angstrom):.0f} Å; make the field (shape x pixel size) larger"
            )
    gap, radii = settings.gap_angstrom, [one.radius_angstrom for one in species]
    with_gaps = (
        settings.coverage
        * sum(max(0.0, r + gap / 2) ** 2 for r in radii)
        / sum(r**2 for r in radii)
    )
    if with_gaps > JAMMING * UNEQUAL_DISCS:
        raise SettingsError(
            f"a coverage of {settings.coverage} with {gap} Å between particles cannot be reached:"
            f" with their gaps they would cover {with_gaps:.2f}, and random discs jam at {JAMMING};"
            " lower coverage or gap_angstrom"
        )
    field = _Field(extent_angstrom, pixel_size_angstrom, settings, allowed, thickness_angstrom)
    if field.places is not None and len(field.places) == 0:
        return
    discs = _Discs(max(radii), gap)
    yield from _aggregates(species, settings, field, discs, generator)
    yield from _singles(species, settings, field, discs, generator)


def _any(species: Sequence[Species], generator: torch.Generator) -> Species:
    return species[int(torch.randint(len(species), (1,), generator=generator))]


def _singles(
    species: Sequence[Species],
    settings: SpecimenSettings,
    field: _Field,
    discs: _Discs,
    generator: torch.Generator,
) -> Iterator[tuple[Particle, Tensor]]:
    """Particles one by one until the coverage is reached or no more fit."""
    wanted = settings.coverage * field.area_angstrom2
    smallest = min(one.radius_angstrom for one in species)
    covered, misses = 0.0, 0
    room: np.ndarray | None = None
    side = 0.0
    while covered < wanted and misses < MISSES:
        if misses and misses % SEARCH_AFTER == 0:
            room, side = discs.room(field.extent, smallest)
            room = room[field.holds_any(room, side)]
            if len(room) == 0:
                return
        one = _any(species, generator)
        u, v, w = torch.rand(3, generator=generator).tolist()
        if (
            settings.clustering > 0
            and discs.all
            and float(torch.rand(1, generator=generator)) < settings.clustering
        ):
            y, x, radius = discs.all[int(torch.randint(len(discs.all), (1,), generator=generator))]
            # a pixel more, as snapping to pixels could bring them nearer than the gap
            apart = max(0.0, radius + one.radius_angstrom + settings.gap_angstrom) + field.pixel
            y, x = field.snapped(
                y + apart * math.sin(2 * math.pi * u), x + apart * math.cos(2 * math.pi * u)
            )
        elif room is not None:
            y, x = room[int(torch.randint(len(room), (1,), generator=generator))].tolist()
            y, x = field.snapped(y + u * side, x + v * side)
        else:
            y, x = field.anywhere(u, v, generator)
        if not (field.holds(y, x) and discs.free(y, x, one.radius_angstrom)):
            misses += 1
            continue
        misses = 0
        discs.add(y, x, one.radius_angstrom)
        covered += math.pi * one.radius_angstrom**2
        yield _particle(one, y, x, 2 * w - 1, settings, field, generator)


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
        for _ in range(low + int(torch.randint(high - low + 1, (1,), generator=generator))):
            one = _any(species, generator)
            place = _beside(members, one.radius_angstrom, field, generator)
            if place is None:  # the hole's edge leaves no room
                break
            members.append((*place, one.radius_angstrom))
            yield _particle(
                one,
                *place,
                2 * float(torch.rand(1, generator=generator)) - 1,
                settings,
                field,
                generator,
            )
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
        y, x, other = members[int(which * len(members))]
        apart = (0.3 + 0.5 * part) * (other + radius)
        y, x = field.snapped(
            y + apart * math.sin(2 * math.pi * angle), x + apart * math.cos(2 * math.pi * angle)
        )
        if field.holds(y, x):
            return y, x
    return None


def _particle(
    one: Species,
    y: float,
    x: float,
    height: float,
    settings: SpecimenSettings,
    field: _Field,
    generator: torch.Generator,
) -> tuple[Particle, Tensor]:
    """A particle at (y, x), at `height` -1 to 1 of the way from the ice's middle to its surface or,
    by chance, at a surface itself.
    """
    if (
        settings.at_interface > 0
        and float(torch.rand(1, generator=generator)) < settings.at_interface
    ):
        height = math.copysign(1.0, height)
    rotation, patch = one.draw(generator)
    return (
        Particle(one.name, y, x, height * field.slack(y, x, one.radius_angstrom), rotation),
        patch,
    )


def overlap(
    shape: tuple[int, ...], size: int, centre: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a patch of `size` pixels, its centre at [n // 2, n // 2], lies on a canvas of `shape`
    around the pixel `centre`: that part of the canvas, and of the patch. Both empty where they do
    not meet.
    """
    on_canvas, of_patch = [], []
    for extent, middle in zip(shape, centre, strict=True):
        start = middle - size // 2
        first, last = max(start, 0), max(0, min(start + size, extent))
        on_canvas.append(slice(first, max(first, last)))
        of_patch.append(slice(first - start, max(first, last) - start))
    return (on_canvas[0], on_canvas[1]), (of_patch[0], of_patch[1])


def add_patch(canvas: Tensor, patch: Tensor, centre: tuple[int, int]) -> None:
    """Add a patch to `canvas` around the pixel `centre` (see `overlap`), cut at the canvas'
    edges.
    """
    there, part = overlap(canvas.shape, patch.shape[0], centre)
    canvas[there] += patch[part]


FOOTPRINT_PART = 0.15  # of the smoothed phase's maximum


def footprint(patch: Tensor) -> Tensor:
    """Pixels that a particle covers, bool ``[n, n]``: where its phase, smoothed over 5 x 5 pixels,
    is above 0.15 of its maximum.

    The smoothing closes the gaps between atoms; the level lies well above the ringing around them.
    """
    smooth = torch.nn.functional.avg_pool2d(patch[None, None], 5, stride=1, padding=2)[0, 0]
    return smooth > FOOTPRINT_PART * smooth.max()
