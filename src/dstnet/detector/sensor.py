"""What is uneven and what is broken about a camera's sensor, drawn from the camera's seed."""

import torch
from torch import Tensor

from dstnet.core.randomness import stream
from dstnet.core.shapes import Image, Shape
from dstnet.detector.settings import DetectorSettings
from dstnet.errors import SettingsError

# How uneven a sensor is, beyond the spread from pixel to pixel that the settings give. Values of
# our own, after gain references.
TILE_SPREAD = 0.02  # rms sensitivity of a tile (a stitched exposure, or an amplifier's share)
SEAM_SENSITIVITY = 1.05  # of the two pixel rows that meet at a seam, which are a little larger
# rms over the four quarters of a pixel: super-resolution finds events in some quarters more often
SUBPIXEL_SPREAD = 0.03
# A hot pixel's electrons over (1 + the frame's mean), log-uniform over pixels.
HOT_RANGE = (10.0, 1000.0)
# Four standard deviations either side: a gain is never negative, whatever is drawn.
MOST_DEVIATIONS = 4.0
LEAST_SENSITIVITY = 0.1


class Sensor:
    """Gain and defects of one camera, on its written pixels.

    Parameters
    ----------
    settings
        The camera.
    shape
        (y, x) of a written frame.

    Attributes
    ----------
    is_dead
        True where dead, bool [y, x].
    is_defect
        True where dead or hot, bool [y, x].

    Raises
    ------
    SettingsError
        If there are as many dead columns as the sensor has, or more.
    """

    def __init__(self, settings: DetectorSettings, shape: Shape) -> None:
        self.settings = settings
        self.shape = shape
        # What belongs to a physical pixel is shared by the written ones within it
        # (super-resolution).
        self._rows = self._physical_index(shape[0])
        self._columns = self._physical_index(shape[1])
        rows = int(self._rows[-1]) + 1
        columns = int(self._columns[-1]) + 1
        self._size = (rows, columns)
        if settings.dead_columns >= columns:
            raise SettingsError(
                f"dead_columns {settings.dead_columns} leave nothing of a camera of {columns}"
                " columns; give fewer"
            )
        dead_columns = _distinct(columns, settings.dead_columns, self._stream("columns"))
        self._dead_columns = sorted(dead_columns.tolist())
        # What is dead so far: a pixel has one defect at most.
        is_dead = torch.zeros(self._size, dtype=torch.bool)
        is_dead[:, self._dead_columns] = True
        self._dead = self._draw_pixels("dead", settings.dead_pixels_ppm, is_dead)
        is_dead.view(-1)[self._dead] = True
        self._hot = self._draw_pixels("hot", settings.hot_pixels_ppm, is_dead)
        is_defect = is_dead.clone()
        is_defect.view(-1)[self._hot] = True
        self.is_dead = self._expand(is_dead)
        self.is_defect = self._expand(is_defect)

    def _stream(self, name: str) -> torch.Generator:
        # Each kind of unevenness and defect has a stream of its own, so that a camera with more
        # defects keeps those of one with fewer.
        return stream(self.settings.camera_seed, name)

    def _physical_index(self, written: int) -> Tensor:
        """Which physical row or column each written one lies in."""
        share = min(1.0, self.settings.binning)
        physical = torch.arange(written) * share
        return physical.floor().long()

    def _expand(self, of_sensor: Tensor) -> Tensor:
        """Values of physical pixels on the written ones."""
        return of_sensor[self._rows[:, None], self._columns[None, :]]

    def _draw_pixels(self, kind: str, ppm: float, is_dead: Tensor) -> Tensor:
        """Places of defects of a kind among the sensor's pixels, in order."""
        total = is_dead.numel()
        number = round(ppm * 1e-6 * total)
        places = _distinct(total, number, self._stream(kind))
        # What is dead already is neither dead twice nor hot.
        is_alive = ~is_dead.flatten()[places]
        alive = places[is_alive]
        return alive.sort().values

    @property
    def is_uneven(self) -> bool:
        """Whether pixels differ in their sensitivity, defects apart."""
        return self.settings.gain_variation > 0 or self.settings.gain_tiles is not None

    def gain(self) -> Image | None:
        """What raw values are multiplied with to correct them, mean 1 over pixels that live, 0
        where dead; None where it would be 1 throughout.

        Raises
        ------
        SettingsError
            If the sensor has more tiles than the field has room for.
        """
        if not self.is_uneven and not bool(self.is_dead.any()):
            return None
        gain = torch.ones(self.shape)
        if self.is_uneven:
            gain = 1 / self._sensitivity()
        gain = torch.where(self.is_dead, 0.0, gain)
        living = (~self.is_dead).sum()
        mean = gain.double().sum() / living
        return gain / mean.float()

    def _sensitivity(self) -> Image:
        """Of each written pixel, defects apart."""
        settings = self.settings
        deviation = _clamped_normal(self._size, self._stream("gain"))
        sensitivity = 1 + settings.gain_variation * deviation
        if settings.gain_tiles is not None:
            self._apply_tiles(sensitivity, settings.gain_tiles)
        sensitivity = self._expand(sensitivity.clamp(min=LEAST_SENSITIVITY))
        if settings.binning < 1:
            sensitivity = sensitivity * self._quarters()
        return sensitivity

    def _quarters(self) -> Image:
        """Sensitivity of the quarter of its pixel that each written one is."""
        deviation = _clamped_normal((2, 2), self._stream("quarters"))
        quarters = 1 + SUBPIXEL_SPREAD * deviation
        y = self._quarter_index(self.shape[0])
        x = self._quarter_index(self.shape[1])
        return quarters[y[:, None], x[None, :]]

    def _apply_tiles(self, sensitivity: Tensor, tiles: tuple[int, int]) -> None:
        """Make tiles unlike, and their seams visible, in place."""
        height, width = self._size
        down, across = tiles
        if down > height // 2 or across > width // 2:
            raise SettingsError(
                f"no room for {tiles} gain_tiles on a camera of {self._size} pixels; give fewer"
            )
        deviation = torch.randn(tiles, generator=self._stream("tiles"))
        level = 1 + TILE_SPREAD * deviation
        tile_y = torch.arange(height) * down // height
        tile_x = torch.arange(width) * across // width
        sensitivity *= level[tile_y[:, None], tile_x[None, :]]
        sensitivity *= _seams(tile_y)[:, None]
        sensitivity *= _seams(tile_x)

    def _quarter_index(self, written: int) -> Tensor:
        """Which half of its physical pixel each written row or column is."""
        halves = torch.arange(written) * self.settings.binning * 2
        return halves.floor().long() % 2

    def hot_pixels(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Rows, columns and excess of hot written pixels; None if there are none."""
        if not len(self._hot):
            return None
        low, high = HOT_RANGE
        uniform = torch.rand(len(self._hot), generator=self._stream("heat"))
        log_uniform = low * (high / low) ** uniform
        excess = torch.zeros(self._size)
        excess.view(-1)[self._hot] = log_uniform
        written = self._expand(excess)
        y, x = torch.nonzero(written, as_tuple=True)
        return y, x, written[y, x]

    def defect_list(self) -> list[tuple[int, int, int, int]]:
        """Dead columns, dead and hot pixels as rectangles (x, y, width, height) in written pixels
        from 0: a line each in defect files.
        """
        rectangles = []
        for column in self._dead_columns:
            x, width = _span(self._columns, column)
            rectangles.append((x, 0, width, self.shape[0]))
        places = sorted(self._dead.tolist() + self._hot.tolist())
        for place in places:
            row, column = divmod(place, self._size[1])
            y, height = _span(self._rows, row)
            x, width = _span(self._columns, column)
            rectangles.append((x, y, width, height))
        return rectangles


def _distinct(total: int, number: int, generator: torch.Generator) -> Tensor:
    """Distinct numbers below `total`: the places of the largest of as many random numbers."""
    if not number:  # spare a large camera without defects its random numbers
        return torch.empty(0, dtype=torch.long)
    random = torch.rand(total, generator=generator)
    return random.topk(number).indices


def _clamped_normal(shape: Shape, generator: torch.Generator) -> Tensor:
    normal = torch.randn(shape, generator=generator)
    return normal.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)


def _seams(tile: Tensor) -> Tensor:
    """Sensitivity of rows or columns whose tiles are numbered: more on either side of a seam."""
    is_last = tile[1:] != tile[:-1]
    last_of_tile = torch.nonzero(is_last)[:, 0]
    sensitivity = torch.ones(len(tile))
    sensitivity[last_of_tile] = SEAM_SENSITIVITY
    sensitivity[last_of_tile + 1] = SEAM_SENSITIVITY
    return sensitivity


def _span(index: Tensor, place: int) -> tuple[int, int]:
    """First written row or column of a physical one, and how many it has."""
    bounds = torch.tensor([place, place + 1])
    first, end = torch.searchsorted(index, bounds).tolist()
    return first, end - first
