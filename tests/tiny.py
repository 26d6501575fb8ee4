"""What tests of the network and its command share: a network too small to be of use, small movies,
the command in process.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from dstnet.alignment import AlignedMovie, AlignmentSettings, align
from dstnet.cli import main
from dstnet.core.settings import Settings
from dstnet.enhancement import Restored, Restorer
from dstnet.motion import Motion
from dstnet.movie import Movie
from dstnet.network.blocks import MovieNetwork
from dstnet.network.weights import ModelCard, build, save_weights

SETTINGS = {"features": 8, "growth": 4, "dense_layers": 1, "widths": [8, 16], "blocks": [1, 1]}


def make_network(seed: int = 0) -> MovieNetwork:
    """A network of random weights."""
    torch.manual_seed(seed)
    return build("dstnet", SETTINGS).eval()


class MeanNetwork(MovieNetwork):
    """A network that is not ours: the mean of the frames, and no frames of their own."""

    settings_type = Settings
    stride = 2
    outputs = ("micrograph",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, frames, total, exposure):
        """The scaled mean."""
        return self.scale * frames.mean(1, keepdim=True)


def make_card(network: MovieNetwork, **changes) -> ModelCard:
    """A card that fits `network`."""
    values = {
        "name": "tiny",
        "architecture": "dstnet",
        "architecture_settings": network.settings.model_dump(mode="json"),
        "parameters": sum(p.numel() for p in network.parameters()),
        "working_pixel_angstrom": 2.0,
        "groups": 4,
        "valid_pixel_angstrom": (0.5, 2.0),
        "valid_exposure_e_per_a2": (1.0, 80.0),
        "normalisation": "unit noise",
        "training": {"trained_on": {}, "held_out": {}},
    }
    return ModelCard.checked({**values, **changes}, "card")


def save_model(folder: Path, seed: int = 0) -> Path:
    """Random weights with their card as ``folder/tiny.safetensors``."""
    network = make_network(seed)
    save_weights(network, make_card(network), folder / "tiny.safetensors")
    return folder / "tiny.safetensors"


def make_frames(
    count: int = 3, shape: tuple[int, int] = (96, 80), seed: int = 0, mean: float = 20.0
) -> np.ndarray:
    """Poisson counts [frame, y, x] of a field with a dark blob and a bright one that do not
    move.
    """
    y, x = np.mgrid[: shape[0], : shape[1]]
    blob = np.exp(-((y - shape[0] * 0.4) ** 2 + (x - shape[1] * 0.6) ** 2) / 50) - 0.5 * np.exp(
        -((y - shape[0] * 0.7) ** 2 + (x - shape[1] * 0.3) ** 2) / 20
    )
    return (
        np.random.default_rng(seed)
        .poisson(mean * (1 - 0.3 * blob), (count, *shape))
        .astype(np.uint16)
    )


def align_for(restorer: Restorer, movie: Movie, motion: Motion | None = None) -> AlignedMovie:
    """A movie aligned as a method needs it; only global motion is looked for where none is
    given.
    """
    groupings = restorer.needs(movie).groupings
    return align(movie, AlignmentSettings(patches=0), groupings=groupings, motion=motion)


def restore(
    restorer: Restorer, movie: Movie, *outputs: str, motion: Motion | None = None
) -> Restored:
    """The enhanced micrograph of a movie, and other outputs."""
    aligned = align_for(restorer, movie, motion)
    return restorer(aligned, outputs=("micrograph", *outputs))


def dstnet(capsys: pytest.CaptureFixture, *arguments) -> tuple[int, str, str]:
    """Run the command in this process: its exit code, standard output and standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    assert "Traceback" not in out + err
    return code, out, err
