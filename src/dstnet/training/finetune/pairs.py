"""Pairs of independent sums of a movie's groups of frames: one is the network's input, the other
what its answer is compared with.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from dstnet.network.inputs import exposure_inputs
from dstnet.training.batch import NoisyPair, orient
from dstnet.training.finetune.crops import MovieCrops


def make_pair(
    movie: MovieCrops, crop: int, inputs: Sequence[int], most_groups: int, symmetry: int = 0
) -> NoisyPair:
    """A pair whose input is the sum of some groups, and those groups, and whose target is the sum
    of all others.

    Parameters
    ----------
    movie
        Of which movie.
    crop
        Which of its crops.
    inputs
        Groups of the input, ascending; neither none nor all.
    most_groups
        Most groups that the network is given: more are summed to so many.
    symmetry
        0 to 7: which of the square's symmetries the images are shown in.
    """
    images = orient(movie.images[crop].float(), symmetry)
    images = images * movie.noise[:, None, None]  # in the unit that all groups share

    def summed(groups: Sequence[int]) -> tuple[Tensor, float]:
        """Their sum with unit noise, and the noise that it had."""
        chosen = list(groups)
        noise = float(movie.noise[chosen].square().sum().sqrt())
        return images[chosen].sum(0) / noise, noise

    rest = [i for i in range(movie.groups) if i not in inputs]
    parts = _parts(inputs, most_groups)
    frames = [summed(part)[0] for part in parts]
    total, noise = summed(inputs)
    target, target_noise = summed(rest)
    exposure = None
    if movie.exposure is not None:
        exposure = movie.exposure.grouped(parts)
    return NoisyPair(
        frames=torch.stack(frames)[None],
        total=total[None],
        exposure=exposure_inputs(exposure, len(parts))[None],
        target=target,
        signal_ratio=target_noise / noise,
    )


def _parts(groups: Sequence[int], most: int) -> list[list[int]]:
    """Groups in at most so many contiguous, nearly equal parts."""
    count = min(most, len(groups))
    ends = [i * len(groups) // count for i in range(count + 1)]
    return [list(groups[start:end]) for start, end in itertools.pairwise(ends)]


def halves(movie: MovieCrops) -> tuple[list[int], list[int]]:
    """Every other group, from the first and from the second on."""
    groups = range(movie.groups)
    return list(groups[::2]), list(groups[1::2])


def sample_example(
    movies: Sequence[MovieCrops], most_groups: int, generator: torch.Generator
) -> NoisyPair:
    """A pair at random, of any crop and symmetry, its groups dealt to input and target at random.

    The part of more exposure is the input: what is learnt of a few frames is bought with what the
    complete movie shows.
    """

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    places = [(movie, crop) for movie in movies for crop in range(len(movie))]
    movie, crop = places[draw(0, len(places))]
    count = draw(1, movie.groups)
    order = torch.randperm(movie.groups, generator=generator).tolist()
    inputs = sorted(order[:count])
    rest = sorted(order[count:])
    share = movie.noise.square()
    if share[inputs].sum() < share[rest].sum():
        inputs = rest
    symmetry = draw(0, 8)
    if symmetry >= 4:
        symmetry = 11 - symmetry  # mirror images are numbered the other way, so that runs repeat
    return make_pair(movie, crop, inputs, most_groups, symmetry)
