"""What weights are adapted on: crops of the user's movies, in groups of frames that are dealt to
the network's input and its target.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.alignment import align
from dstnet.core.randomness import stream
from dstnet.errors import BadInputError
from dstnet.movie import Movie
from dstnet.movie.normalise import noise_level
from dstnet.network.dstnet import exposure_features
from dstnet.network.weights import ModelCard
from dstnet.training.settings import AdaptSettings


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
    own, middle
        [group]: exposure of the group and accumulated exposure at its middle, e-/A^2; None where
        unknown.
    """

    name: str
    images: Tensor
    noise: Tensor
    own: Tensor | None
    middle: Tensor | None

    def some(self, crops: Sequence[int]) -> "MovieCrops":
        """The same movie with these crops alone."""
        return MovieCrops(self.name, self.images[list(crops)], self.noise, self.own, self.middle)


@dataclass(frozen=True)
class Example:
    """What the network is given, and independent data for its answer.

    Attributes
    ----------
    frames, total, exposure
        The network's input, batch of one.
    target
        [y, x], of the groups that the input does not hold, unit noise.
    ratio
        The signal in `target` over that in `total`, each in units of its own noise.
    """

    frames: Tensor
    total: Tensor
    exposure: Tensor
    target: Tensor
    ratio: float


def cut(
    movie: Movie,
    card: ModelCard,
    stride: int,
    settings: AdaptSettings,
    device: torch.device | str = "cpu",
) -> MovieCrops:
    """Align a movie and cut crops that do not overlap, spread at random over the field.

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
    aligned = align(
        movie,
        settings.alignment,
        working_pixel_angstrom=card.working_pixel_angstrom,
        max_fractions=min(len(movie), 2 * card.fractions),
        device=device,
    )
    groups = aligned.fractions.cpu()
    noise = torch.tensor(
        [noise_level(g, f"{movie.name}: frames of group {i + 1}") for i, g in enumerate(groups)]
    )
    groups = (groups - groups.mean((1, 2), keepdim=True)) / noise[:, None, None]
    scale = aligned.pixel_size_angstrom / aligned.working_pixel_angstrom
    margins = [math.ceil(m * scale) for m in aligned.margin_px]
    inside = [n - 2 * m for n, m in zip(groups.shape[1:], margins, strict=True)]
    side = min(settings.crop, *inside) // stride * stride
    if side < 64:
        raise BadInputError(
            f"{movie.name}: {groups.shape[2]} x {groups.shape[1]} pixels of"
            f" {aligned.working_pixel_angstrom:.2f} Å leave no crop of 64 within its motion; give"
            " whole fields"
        )
    corners = [
        (y, x)
        for y in _starts(inside[0], side, margins[0])
        for x in _starts(inside[1], side, margins[1])
    ]
    order = torch.randperm(
        len(corners), generator=stream(settings.seed, "crops", movie.name)
    ).tolist()
    chosen = [corners[i] for i in order[: settings.crops_per_movie]]
    exposure = movie.exposure_e_per_a2
    return MovieCrops(
        movie.name,
        torch.stack([groups[:, y : y + side, x : x + side] for y, x in chosen]).half(),
        noise,
        None if exposure is None else torch.tensor(aligned.fraction_frames) * exposure,
        (
            None
            if aligned.fraction_exposure_e_per_a2 is None
            else torch.tensor(aligned.fraction_exposure_e_per_a2)
        ),
    )


def _starts(length: int, side: int, margin: int) -> list[int]:
    """Starts of as many tiles of `side` as fit into `length` pixels behind `margin`, evenly
    spread.
    """
    count = length // side
    return [
        margin + (length - count * side) * (2 * i + 1) // (2 * count) + i * side
        for i in range(count)
    ]


def split(
    movies: Sequence[MovieCrops], settings: AdaptSettings
) -> tuple[list[MovieCrops], list[MovieCrops]]:
    """Movies to learn from and to judge by; of a single movie, some of its crops.

    Raises
    ------
    BadInputError
        If fewer than two crops would be left to judge by.
    """
    units = len(movies) if len(movies) > 1 else len(movies[0].images)
    kept = min(units - 1, max(1 if len(movies) > 1 else 2, round(settings.held_out * units)))
    order = torch.randperm(units, generator=stream(settings.seed, "held out")).tolist()
    judge, learn = sorted(order[:kept]), sorted(order[kept:])
    if len(movies) > 1:
        parts = [movies[i] for i in learn], [movies[i] for i in judge]
    else:
        parts = [movies[0].some(learn)], [movies[0].some(judge)]
    if sum(len(m.images) for m in parts[1]) < 2:
        found, side = sum(len(m.images) for m in movies), movies[0].images.shape[-1]
        raise BadInputError(
            f"only {found} crops of {side} pixels come of {len(movies)} movies: with fewer than two"
            " to judge by, chance cannot be told from gain; give more movies or whole fields, or a"
            " smaller crop in the settings"
        )
    return parts


def example(
    movie: MovieCrops, crop: int, given: Sequence[int], fractions: int, turn: int = 0
) -> Example:
    """An example whose input is the sum and fractions of the groups `given`, and whose target is
    the sum of all others.

    Parameters
    ----------
    movie
        Of which movie.
    crop
        Which of its crops.
    given
        Groups of the input, ascending; neither none nor all.
    fractions
        Most fractions of the input.
    turn
        0 to 7: which of the square's symmetries the images are shown in.
    """
    rest = [i for i in range(len(movie.noise)) if i not in given]
    images = movie.images[crop].float()
    if turn >= 4:
        images = images.mT
    images = torch.rot90(images, turn % 4, (1, 2)) * movie.noise[:, None, None]
    count = min(fractions, len(given))
    parts = [
        [given[j] for j in range(i * len(given) // count, (i + 1) * len(given) // count)]
        for i in range(count)
    ]

    def summed(which: Sequence[int]) -> tuple[Tensor, float]:
        noise = float(movie.noise[list(which)].square().sum().sqrt())
        return images[list(which)].sum(0) / noise, noise

    total, noise = summed(given)
    target, target_noise = summed(rest)
    if movie.own is None or movie.middle is None:
        exposure = exposure_features(None, None, count)
    else:
        own = torch.stack([movie.own[p].sum() for p in parts])
        middle = torch.stack([(movie.own[p] * movie.middle[p]).sum() for p in parts]) / own
        exposure = exposure_features(middle, own, count)
    frames = torch.stack([summed(p)[0] for p in parts])
    return Example(frames[None], total[None], exposure[None], target, target_noise / noise)


def halves(movie: MovieCrops) -> tuple[list[int], list[int]]:
    """Every other group, from the first and from the second on."""
    groups = range(len(movie.noise))
    return list(groups[::2]), list(groups[1::2])


def drawn(movies: Sequence[MovieCrops], fractions: int, generator: torch.Generator) -> Example:
    """An example at random, of any crop and turn, its groups dealt to input and target at random.

    The part of more exposure is the input: what is learnt of a few frames is bought with what the
    whole movie shows.
    """
    index = int(torch.randint(sum(len(m.images) for m in movies), (), generator=generator))
    for movie in movies:
        if index < len(movie.images):
            break
        index -= len(movie.images)
    groups = len(movie.noise)
    count = int(torch.randint(1, groups, (), generator=generator))
    order = torch.randperm(groups, generator=generator).tolist()
    given, rest = sorted(order[:count]), sorted(order[count:])
    if movie.noise[given].square().sum() < movie.noise[rest].square().sum():
        given = rest
    return example(movie, index, given, fractions, int(torch.randint(8, (), generator=generator)))
