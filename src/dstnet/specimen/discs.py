"""Discs in a field, and the room that they leave."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Disc(NamedTuple):
    """What a particle takes of the field: its centre and radius in Å."""

    y: float
    x: float
    radius: float


class Room(NamedTuple):
    """Squares of one size in which a disc may still be placed."""

    corners: np.ndarray  # (n, 2) as (y, x), in Å
    side: float  # in Å


class Discs:
    """The discs placed so far, found by the cells of a grid as wide as the farthest that two of
    them can conflict.
    """

    def __init__(self, largest_radius: float, gap: float) -> None:
        self.gap = gap
        self.cell = 2 * largest_radius + gap
        self.all: list[Disc] = []
        self._cells: dict[tuple[int, int], list[Disc]] = {}

    def _home(self, y: float, x: float) -> tuple[int, int]:
        return math.floor(y / self.cell), math.floor(x / self.cell)

    def free(self, disc: Disc) -> bool:
        """Whether a disc keeps the gap to all others."""
        if self.cell <= 0:
            return True
        for other in self._neighbours(disc):
            distance = math.hypot(other.y - disc.y, other.x - disc.x)
            if distance < other.radius + disc.radius + self.gap:
                return False
        return True

    def _neighbours(self, disc: Disc) -> Iterator[Disc]:
        """The discs in the cell of a place and in those around it."""
        row, column = self._home(disc.y, disc.x)
        for i in (row - 1, row, row + 1):
            for j in (column - 1, column, column + 1):
                yield from self._cells.get((i, j), ())

    def room(self, extent: tuple[float, float], smallest_radius: float) -> Room:
        """Where a disc of `smallest_radius` may still be placed in a field of `extent` (y, x): all
        squares but those that lie entirely too near a disc.
        """
        side = max(smallest_radius / 4, 1.0)
        rows, columns = (math.ceil(length / side) for length in extent)
        is_taken = np.zeros((rows, columns), bool)
        for disc in self.all:
            # From the centre of a square none of whose points lies as far as the least distance.
            least_distance = disc.radius + smallest_radius + self.gap
            reach = least_distance / side - math.sqrt(0.5)
            if reach <= 0:
                continue
            middle_y = disc.y / side - 0.5
            middle_x = disc.x / side - 0.5
            near_y, dy = _reached(middle_y, reach, rows)
            near_x, dx = _reached(middle_x, reach, columns)
            squared_distance = dy[:, None] ** 2 + dx**2
            is_taken[near_y, near_x] |= squared_distance < reach**2
        return Room(np.argwhere(~is_taken) * side, side)

    def add(self, disc: Disc) -> None:
        """Take a disc's place."""
        self.all.append(disc)
        if self.cell > 0:
            home = self._home(disc.y, disc.x)
            self._cells.setdefault(home, []).append(disc)


def _reached(middle: float, reach: float, count: int) -> tuple[slice, np.ndarray]:
    """The squares along an axis whose centres lie within `reach` of a place, and how far."""
    first = max(0, math.ceil(middle - reach))
    last = min(count - 1, math.floor(middle + reach))
    number = np.arange(first, last + 1)
    return slice(first, last + 1), number - middle
