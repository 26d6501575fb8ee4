"""How well weights predict frames that they were not given, on crops kept apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.core.fourier import conjugate_counts
from dstnet.core.shapes import Image
from dstnet.metrics.spectral import RingPowers, ring_powers
from dstnet.network.blocks import MovieNetwork
from dstnet.training.finetune.checkerboard import checkerboard
from dstnet.training.finetune.crops import MovieCrops
from dstnet.training.finetune.pairs import halves, make_pair
from dstnet.training.objectives import outputs_for, rings_with_corners

RINGS = 120  # of a crop's spectrum, from 0 to Nyquist


@dataclass(frozen=True)
class HeldOutScore:
    """How well the enhanced image of one part of the held-out frames predicts the other part.

    Attributes
    ----------
    sums
        [direction, term, crop, ring]: of Re(a b*), |a|^2 and |b|^2, a the spectrum of what is
        predicted and b that of the other part.
    checkerboard
        [2, period]: see `dstnet.training.finetune.checkerboard`.
    """

    sums: Tensor
    checkerboard: Tensor

    @property
    def crops(self) -> int:
        """How many crops it is of."""
        return self.sums.shape[2]

    def agreement(self, weight: Tensor, without: int | None = None) -> Tensor:
        """[direction]: correlation with the other part, rings weighted; that is noise-to-noise
        distance at the best scale.

        A change of contrast alone is no gain, so the scale is left out of it.

        Parameters
        ----------
        weight
            [ring].
        without
            A crop to leave out.
        """
        cross, own, other = self._kept(without) @ weight.double()
        return RingPowers(cross, own, other).correlation()

    def ring_correlation(self, band: Tensor, without: int | None = None) -> Tensor:
        """[direction]: Fourier ring correlation, mean over the rings in `band`; `without` leaves a
        crop out.
        """
        cross, own, other = self._kept(without)[..., band]
        return RingPowers(cross, own, other).correlation().mean(-1)

    def _kept(self, without: int | None) -> Tensor:
        """[term, direction, ring]: sums over crops."""
        kept = [i for i in range(self.crops) if i != without]
        return self.sums[:, :, kept].sum(2).transpose(0, 1)


def score(
    network: MovieNetwork,
    movies: Sequence[MovieCrops],
    most_groups: int,
    device: torch.device,
) -> HeldOutScore:
    """Score weights on all crops of `movies`: halves of the groups, either predicting the other."""
    sums = []
    images = []
    for direction in (0, 1):
        for movie in movies:
            inputs = halves(movie)[direction]
            for crop in range(len(movie)):
                pair = make_pair(movie, crop, inputs, most_groups)
                with torch.no_grad():
                    image = outputs_for(network, pair.to(device))[0].cpu()
                images.append(image)
                sums.append(_ring_sums(image * pair.signal_ratio, pair.target))
    smallest = min(image.shape[-1] for image in images)
    corners = torch.stack([image[:smallest, :smallest] for image in images])
    by_direction = torch.stack(sums).unflatten(0, (2, -1)).transpose(1, 2)
    return HeldOutScore(by_direction, checkerboard(corners, network.stride))


def _ring_sums(image: Image, other: Image) -> Tensor:
    """[term, ring]: see `HeldOutScore.sums`."""
    side = image.shape[-1]
    powers = ring_powers(
        torch.fft.rfft2(image, norm="ortho"),
        torch.fft.rfft2(other, norm="ortho"),
        rings_with_corners(side, RINGS),
        RINGS,
        weight=conjugate_counts(side),
        dtype=torch.float64,
    )
    return torch.stack((powers.cross, powers.own, powers.other))
