"""What a step of training minimises: a network's outputs against truths, or against other frames of
the same movie.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from dstnet.core.fourier import conjugate_counts, ring_index
from dstnet.network.blocks import MovieNetwork
from dstnet.network.engine import autocast
from dstnet.network.outputs import OUTPUTS, Output
from dstnet.training.batch import Batch, NoisyPair
from dstnet.training.losses import chance_loss, error_likelihood, image_loss
from dstnet.training.settings import TrainingSettings

Data = TypeVar("Data", contravariant=True)
# Below it, no difference of the expected error counts: the logarithm would make much of it.
_LEAST_ERROR = 1e-6


class Objective(Protocol[Data]):
    """A loss of a network: what a trainer calls with each batch, or pair."""

    def __call__(self, network: nn.Module, data: Data, /) -> Tensor:
        """The loss, to be differentiated by the network's weights; `data` lies on the network's
        device.
        """
        ...


class Supervised:
    """Each output against its truth, by the loss that its row in `dstnet.network.outputs` names.

    Parameters
    ----------
    settings
        Weights, floors, and which loss of pixels.
    outputs
        Names of the network's outputs, in order.
    """

    def __init__(self, settings: TrainingSettings, outputs: Sequence[str]):
        self.settings = settings
        self.outputs = tuple(outputs)

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        """Weighted sum over outputs, and of a frame's own image where the batch asks for it, which
        it may of a network with `gives_frames` only.
        """
        frames_own = {}
        if batch.frame_index is not None:
            frames_own["which"] = batch.frame_index
        with autocast(batch.frames.device):
            images = network(batch.frames, batch.total, batch.exposure, **frames_own).float()
        named = {name: images[:, i : i + 1] for i, name in enumerate(self.outputs)}
        targets = {name: target[:, None] for name, target in batch.targets.items()}
        loss = images.new_zeros(())
        for name in self.outputs:
            weight = self.settings.output_weights[name]
            part = self._output_loss(OUTPUTS[name], named, targets)
            loss = loss + weight * part
        if batch.frame_index is not None:
            frame = images[:, len(self.outputs) :]
            target = batch.frame_target[:, None]
            loss = loss + self._image_loss("micrograph", frame, target)
        return loss

    def _output_loss(
        self, output: Output, images: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> Tensor:
        match output.loss:
            case "image":
                return self._image_loss(output.name, images[output.name], targets[output.name])
            case "error_likelihood":
                expected = images[output.name]
                return error_likelihood(expected, images["micrograph"], targets["micrograph"])
            case "cross_entropy":
                return chance_loss(images[output.name], targets[output.name])

    def _image_loss(self, name: str, image: Tensor, target: Tensor) -> Tensor:
        settings = self.settings
        return image_loss(
            image,
            target,
            settings.output_floors[name],
            kind=settings.pixel_loss,
            ring_weight=settings.ring_weight,
            rings=settings.rings,
            focal_weight=settings.focal_weight,
        )


class NoiseToNoise:
    """The enhanced micrograph against frames that the network was not given.

    Noise-to-noise (Lehtinen et al. 2018): frames that the input does not hold share its signal and
    not its noise, so the squared distance to them has its least expectation at the best estimate of
    the signal.

    Parameters
    ----------
    ring_weight
        [ring]: what each ring of the distance's spectrum counts.
    start
        The network before training: `anchor` times the distance of all outputs from its own is
        added, so that outputs which no frame speaks for stay.
    anchor
        See `start`; 0: none.
    """

    def __init__(self, ring_weight: Tensor, start: MovieNetwork, anchor: float):
        self.ring_weight = ring_weight
        self.start = start
        self.anchor = anchor

    def __call__(self, network: nn.Module, pair: NoisyPair) -> Tensor:
        """Weighted distance in units of the signal's contrast."""
        images = outputs_for(network, pair)
        difference = images[0] * pair.signal_ratio - pair.target
        power = torch.fft.rfft2(difference, norm="ortho").abs().square()
        weight = self._term_weight(images.shape[-1]).to(images.device)
        # In units of the target's noise, targets of many frames would drown those of few; in units
        # of contrast, the reverse.
        loss = (weight * power).sum() / pair.signal_ratio
        if self.anchor:
            loss = self._add_anchor(loss, images, pair)
        return loss

    def _term_weight(self, side: int) -> Tensor:
        """What each term of the ``rfft2`` of a square image counts, [y, x]."""
        ring = rings_with_corners(side, len(self.ring_weight))
        return self.ring_weight[ring] * conjugate_counts(side)

    def _add_anchor(self, loss: Tensor, images: Tensor, pair: NoisyPair) -> Tensor:
        with torch.no_grad():
            before = outputs_for(self.start, pair)
        for name, now, then in zip(self.start.outputs, images, before, strict=True):
            if OUTPUTS[name].unit == "error":
                distance = _distance_of_logarithms(now, then)
            else:
                distance = _relative_distance(now, then)
            loss = loss + self.anchor * distance
        return loss


def _distance_of_logarithms(now: Tensor, then: Tensor) -> Tensor:
    """Of what is positive, over orders of magnitude."""
    now_log = now.clamp(min=_LEAST_ERROR).log()
    then_log = then.clamp(min=_LEAST_ERROR).log()
    return (now_log - then_log).square().mean()


def _relative_distance(now: Tensor, then: Tensor) -> Tensor:
    power = then.square().mean()
    return (now - then).square().mean() / power.clamp(min=1e-8)


@lru_cache(maxsize=8)
def rings_with_corners(side: int, rings: int) -> Tensor:
    """Ring of each term of the ``rfft2`` of a square image, [y, x]; the corners count with the
    last.
    """
    return ring_index((side, side), rings).clamp(max=rings - 1)


def outputs_for(network: nn.Module, pair: NoisyPair) -> Tensor:
    """All outputs of a network for a pair's input, [output, y, x]."""
    with autocast(pair.frames.device):
        images = network(pair.frames, pair.total, pair.exposure)
    return images.float()[0]
