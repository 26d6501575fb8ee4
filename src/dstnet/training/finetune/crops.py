"""What weights are fine-tuned on: crops of the user's movies, in groups of frames that are dealt to
the network's input and its target.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dstnet.alignment import AlignedMovie, FrameGroups, Grouping, align
from dstnet.core.devices import Device
from dstnet.core.randomness import stream
from dstnet.core.shapes import Stack
from dstnet.errors import BadInputError
from dstnet.movie import Exposure, Movie
from dstnet.movie.normalise import noise_level
from dstnet.network.weights import ModelCard
from dstnet.training.finetune.settings import FinetuneSettings

_SMALLEST_CROP = 64


@dataclass(frozen=True)
class MovieCrops:
    """Crops of one aligned movie, in groups of neighbouring frames.

    Attributes
    ----------
    name
        Of the movie.
    images
        [crop, group, y, x], half precision: mean zero and unit noise over the field.
    noise
        [group]: the noise's deviation, in one unit for all groups. Signal goes with exposure and so
        does shot noise's variance: `noise` squared is each group's share of the signal, whatever
        the groups' exposures.
    exposure
        Of each group; None where unknown.
    """

    name: str
    images: Tensor
    noise: Tensor
    exposure: Exposure | None

    def __len__(self) -> int:
        """How many crops."""
        return len(self.images)

    @property
    def groups(self) -> int:
        """How many groups of frames."""
        return len(self.noise)

    def subset(self, crops: Sequence[int]) -> "MovieCrops":
        """The same movie with these crops alone."""
        return replace(self, images=self.images[list(crops)])


def extract_crops(
    movie: Movie,
    card: ModelCard,
    stride: int,
    settings: FinetuneSettings,
    device: Device = "cpu",
) -> MovieCrops:
    """Align a movie and take crops that do not overlap, spread at random over the field.

    Parameters
    ----------
    movie
        Corrected, not aligned.
    card
        Of the weights: their pixel size, and half the number of groups.
    stride
        Of the network: a crop's side is a multiple of it.
    settings
        Of the run.
    device
        Where the movie is aligned.

    Raises
    ------
    BadInputError
        If the movie has one frame, a field smaller than 64 working pixels, or cannot be used at
        all.
    """
    if len(movie) < 2:
        raise BadInputError(
            f"{movie.name} is a single image: fine-tuning compares frames with frames; give the"
            " movie it was summed from, 2 frames or more"
        )
    most_groups = min(len(movie), 2 * card.groups)
    grouping = Grouping(card.working_pixel_angstrom, most_groups)
    aligned = align(movie, settings.alignment, groupings=[grouping], device=device)
    groups = aligned.groups[grouping]
    images, noise = _with_unit_noise(groups, movie.name)
    corners, side = _draw_corners(aligned, groups, stride, settings)
    crops = [images[:, y : y + side, x : x + side] for y, x in corners]
    return MovieCrops(movie.name, torch.stack(crops).half(), noise, groups.exposure)


def _with_unit_noise(groups: FrameGroups, name: str) -> tuple[Stack, Tensor]:
    """Groups with mean zero and unit noise, and the noise that each had."""
    images = groups.images.cpu()
    levels = []
    for number, image in enumerate(images, 1):
        levels.append(noise_level(image, f"{name}: frames of group {number}"))
    noise = torch.tensor(levels)
    centred = images - images.mean((1, 2), keepdim=True)
    return centred / noise[:, None, None], noise


def _draw_corners(
    aligned: AlignedMovie, groups: FrameGroups, stride: int, settings: FinetuneSettings
) -> tuple[list[tuple[int, int]], int]:
    """First pixels (y, x) of the crops, and their side, in pixels of the groups."""
    name = aligned.movie.name
    height, width = groups.images.shape[1:]
    scale = aligned.pixel_size_angstrom / groups.pixel_size_angstrom
    top, left = (math.ceil(margin * scale) for margin in aligned.margin_px)
    rows_inside = height - 2 * top
    columns_inside = width - 2 * left
    side = min(settings.crop, rows_inside, columns_inside)
    side -= side % stride
    if side < _SMALLEST_CROP:
        raise BadInputError(
            f"{name}: {width} x {height} pixels of {groups.pixel_size_angstrom:.2f} Å leave no"
            f" crop of {_SMALLEST_CROP} within its motion; give complete fields"
        )
    rows = _starts(rows_inside, side, top)
    columns = _starts(columns_inside, side, left)
    corners = list(itertools.product(rows, columns))
    order = _shuffled(len(corners), stream(settings.seed, "crops", name))
    return [corners[i] for i in order[: settings.crops_per_movie]], side


def _shuffled(count: int, generator: torch.Generator) -> list[int]:
    return torch.randperm(count, generator=generator).tolist()


def _starts(length: int, side: int, margin: int) -> list[int]:
    """Starts of as many tiles of `side` as fit into `length` pixels behind `margin`, evenly
    spread.
    """
    count = length // side
    free = length - count * side
    gaps = [free * (2 * i + 1) // (2 * count) for i in range(count)]
    return [margin + gap + i * side for i, gap in enumerate(gaps)]


def split_crops(
    movies: Sequence[MovieCrops], settings: FinetuneSettings
) -> tuple[list[MovieCrops], list[MovieCrops]]:
    """Movies to learn from and to judge by; of a single movie, some of its crops.

    Raises
    ------
    BadInputError
        If fewer than two crops would be left to judge by.
    """
    several = len(movies) > 1
    units = len(movies) if several else len(movies[0])
    fewest = 1 if several else 2
    kept = max(fewest, round(settings.held_out * units))
    kept = min(kept, units - 1)
    order = _shuffled(units, stream(settings.seed, "held out"))
    judged = sorted(order[:kept])
    learnt = sorted(order[kept:])
    if several:
        judge = [movies[i] for i in judged]
        learn = [movies[i] for i in learnt]
    else:
        judge = [movies[0].subset(judged)]
        learn = [movies[0].subset(learnt)]
    if sum(len(movie) for movie in judge) < 2:
        found = sum(len(movie) for movie in movies)
        side = movies[0].images.shape[-1]
        raise BadInputError(
            f"only {found} crops of {side} pixels come of {len(movies)} movies: with fewer than two"
            " to judge by, chance cannot be told from gain; give more movies or complete fields, or"
            " a smaller crop in the settings"
        )
    return learn, judge
