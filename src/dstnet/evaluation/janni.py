"""JANNI with its published weights (Wagner & Raunser 2020; MIT licence), for comparison.

Its network, a U-Net of the kind of Lehtinen et al. (2018, arXiv:1803.04189), is written anew here
from the names and shapes of the layers in the file of weights: no program of JANNI's is needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dstnet.alignment import Grouping
from dstnet.core.devices import Device
from dstnet.core.regular_files import file_sha256
from dstnet.core.shapes import Image
from dstnet.enhancement.tiling import blend_tiles
from dstnet.errors import BadInputError, SettingsError, WeightsError
from dstnet.evaluation.base import Made, Scene
from dstnet.evaluation.sources import Source
from dstnet.movie import Movie

TILE_PX = 1024  # the patches that the published weights name
OVERLAP_PX = 96
_STRIDE = 32
_CLIP = 3.0  # standard deviations of the image
_SLOPE = 0.1
_DEPTHS = (5, 4, 3, 2)
# Of a layer's kernel [y, x, from, to]
_FIRST_LAYER, _FIRST_SHAPE = "enc_conv0", (3, 3, 1, 48)
_LAYERS = (
    *(f"enc_conv{number}" for number in range(7)),
    *(f"dec_conv{depth}{letter}" for depth in _DEPTHS for letter in ("", "b")),
    "dec_conv1a",
    "dec_conv1b",
    "conv2d_1",
)

Layers = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class JanniCandidate:
    """JANNI's network on a sum.

    Attributes
    ----------
    name
        As in tables.
    weights
        Its file of weights, in Keras' HDF5.
    source
        Which sum it is given.
    """

    name: str
    weights: Path
    source: Source
    needs_truth: bool = False

    def groupings(self, movie: Movie) -> tuple[Grouping, ...]:
        """None."""
        return ()

    def describe(self) -> dict[str, Any]:
        """See `Candidate`."""
        digest = file_sha256(self.weights)
        return {"weights": self.weights.name, "weights_sha256": digest, **self.source.describe()}

    def __call__(self, scene: Scene) -> Made:
        """See `Candidate`.

        Raises
        ------
        BadInputError
            If the sum is constant, or RELION fails.
        SettingsError, WeightsError
            As `read_janni_weights`.
        """
        image, notes = self.source(scene)
        layers = read_janni_weights(self.weights)
        device = scene.aligned.total.device
        return Made({"micrograph": janni(image, layers, scene.aligned.movie.name, device)}, notes)


@lru_cache(maxsize=2)
def read_janni_weights(path: Path) -> Layers:
    """Kernels [to, from, y, x] and biases of JANNI's layers, by their names.

    Raises
    ------
    SettingsError
        If h5py is not installed.
    WeightsError
        If the file is no HDF5 file, or does not hold these layers.
    """
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SettingsError(
            "JANNI's weights are read by h5py, which is not installed; pip install dstnet[peers]"
        ) from None
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    try:
        with h5py.File(path, "r") as file:
            for name in _LAYERS:
                kernel = torch.from_numpy(np.asarray(file[f"{name}/{name}/kernel:0"]))
                bias = torch.from_numpy(np.asarray(file[f"{name}/{name}/bias:0"]))
                layers[name] = kernel.float().permute(3, 2, 0, 1).contiguous(), bias.float()
                if name == _FIRST_LAYER and tuple(kernel.shape) != _FIRST_SHAPE:
                    raise ValueError(f"{name} is {tuple(kernel.shape)}, not {_FIRST_SHAPE}")
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} holds no weights of JANNI's ({why}); give its published general model, .h5"
        ) from None
    return layers


def janni(image: Image, layers: Layers, name: str = "image", device: Device = "cpu") -> Image:
    """An image through JANNI's network.

    The network is given the image with mean zero and standard deviation one, clipped at three of
    these; its output is scaled back.

    Parameters
    ----------
    image
        [y, x], any units.
    layers
        Of `read_janni_weights`.
    name
        For messages.
    device
        Where the network runs.

    Raises
    ------
    BadInputError
        If the image is constant.
    """
    mean = image.mean()
    spread = image.std()
    if not spread > 0:
        raise BadInputError(f"{name}: the sum is constant; JANNI has nothing to work on")
    scaled = ((image - mean) / spread).clamp(-_CLIP, _CLIP).to(device)
    placed = {layer: (k.to(device), b.to(device)) for layer, (k, b) in layers.items()}
    with torch.inference_mode():
        output = blend_tiles(
            lambda tiles, _: _network(tiles[None], placed)[0],
            scaled[None],
            scaled,
            outputs=1,
            tile=TILE_PX,
            overlap=OVERLAP_PX,
            stride=_STRIDE,
        )[0]
    return output.cpu() * spread + mean


def _network(image: Tensor, layers: Layers) -> Tensor:
    """[image, 1, y, x] to the same."""

    def convolved(x: Tensor, name: str) -> Tensor:
        kernel, bias = layers[name]
        return F.conv2d(x, kernel, bias, padding=1)

    def active(x: Tensor, name: str) -> Tensor:
        return F.leaky_relu(convolved(x, name), _SLOPE)

    def joined(x: Tensor, skipped: Tensor) -> Tensor:
        finer = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return torch.cat((finer, skipped), 1)

    skipped = [image]
    x = active(image, "enc_conv0")
    for number in range(1, 6):
        x = F.max_pool2d(active(x, f"enc_conv{number}"), 2)
        skipped.append(x)
    x = active(x, "enc_conv6")
    for depth in _DEPTHS:
        x = joined(x, skipped[depth - 1])
        x = active(active(x, f"dec_conv{depth}"), f"dec_conv{depth}b")
    x = joined(x, image)
    x = active(active(x, "dec_conv1a"), "dec_conv1b")
    return convolved(x, "conv2d_1")
