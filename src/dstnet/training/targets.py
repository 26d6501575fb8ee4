"""What each output of a network is to show of a crop: one row an output.

A new output is a row of `dstnet.network.outputs` and one of `TARGETS` here; simulated crops and
those of movies on disk both give it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt, find_objects
from torch import Tensor

from dstnet.core.shapes import Image


@dataclass(frozen=True)
class CropTruth:
    """What is true of a crop, where its frames show it.

    Attributes
    ----------
    clean
        [y, x]: undamaged contrast, after the CTF, of all that stays in the specimen: particles,
        debris and ice contamination, but no water.
    phase
        [y, x]: projected phase of protein alone, rad.
    label
        [y, x]: number of the particle that covers each pixel, 0 none; no debris, which nobody wants
        picked.
    mean_over_noise
        Of the sum of the frames, before it was brought to unit noise: the amplitude of a contrast
        of one.
    """

    clean: Image
    phase: Image
    label: Tensor
    mean_over_noise: float

    def window(self, inside: tuple[slice, slice]) -> "CropTruth":
        """The same of a part of the crop."""
        return replace(
            self, clean=self.clean[inside], phase=self.phase[inside], label=self.label[inside]
        )


def _micrograph(truth: CropTruth) -> Image:
    return truth.clean * truth.mean_over_noise


def _contrast(truth: CropTruth) -> Image:
    """What protein would show without the CTF, all of its phase turned into contrast."""
    return truth.phase * (-2 * truth.mean_over_noise)


def _particles(truth: CropTruth) -> Image:
    return particle_distance_map(truth.label).to(truth.clean.device)


# By the output's name: [y, x], images in units of the noise of the sum.
TARGETS: dict[str, Callable[[CropTruth], Image]] = {
    "micrograph": _micrograph,
    "contrast": _contrast,
    "particles": _particles,
}


def make_targets(truth: CropTruth) -> dict[str, Image]:
    """The targets of all outputs that have one, by the output's name."""
    return {name: make(truth) for name, make in TARGETS.items()}


def particle_distance_map(label: Tensor) -> Image:
    """Where particles are: over each a dome, 1 where it is farthest from its edge, 0 there, and
    between particles that touch; float32.

    A pore or cavity within a particle's outline is part of it: a picker looks for its middle.

    Parameters
    ----------
    label
        [y, x], which particle covers each pixel, 0 none (`dstnet.simulation.Truth.label`).
    """
    covered = _without_cavities(label.cpu().numpy())
    interior = (covered > 0) & ~_on_common_edge(covered)
    if interior.all():  # no edge anywhere
        return torch.ones(label.shape)
    depth = np.asarray(distance_transform_edt(interior))
    deepest = np.zeros(int(covered.max()) + 1)
    np.maximum.at(deepest, covered.ravel(), depth.ravel())
    relative = depth / np.maximum(deepest, 1)[covered]
    return torch.from_numpy(relative.astype(np.float32))


def _without_cavities(label: NDArray) -> NDArray:
    """A label whose particles have no holes."""
    filled = label.copy()
    for number, box in enumerate(find_objects(filled), 1):
        if box is None:
            continue
        part = filled[box]
        outline = np.asarray(binary_fill_holes(part == number))
        part[(part == 0) & outline] = number
    return filled


def _on_common_edge(label: NDArray) -> NDArray:
    """Where two particles, or a particle and none, are neighbours: the pixels on both sides."""
    edge = np.zeros(label.shape, dtype=bool)
    across_rows = label[1:] != label[:-1]
    edge[1:] |= across_rows
    edge[:-1] |= across_rows
    across_columns = label[:, 1:] != label[:, :-1]
    edge[:, 1:] |= across_columns
    edge[:, :-1] |= across_columns
    return edge
