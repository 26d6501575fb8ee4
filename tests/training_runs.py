"""What tests of training share: a species that costs nothing, and runs of a tiny network."""

import tiny
import torch

from dstnet.specimen.species import ProjectionBank
from dstnet.training import TrainingSettings
from dstnet.training.crop_conditions import StreamSettings
from dstnet.training.data import Sources
from dstnet.training.trainer import Trainer

RANGES = StreamSettings(crop=64, groups=3, defocus_angstrom=(4000.0, 12000.0))
TRAINED, HELD_OUT = {"blob": "1"}, {"held": "2"}


def species(name="blob", width=8.0):
    """A Gaussian blob, at 2 Å."""
    x = (torch.arange(32.0) - 16) * 2
    patch = 0.3 * torch.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * width**2))
    return ProjectionBank(name, 24.0, torch.eye(3)[None], patch[None].half())


def settings(**changes):
    """Of a run of four steps."""
    values = {
        "network": tiny.SETTINGS,
        "stream": RANGES,
        "batch": 1,
        "steps": 4,
        "warm_up": 1,
        "checkpoint_every": 2,
        "workers": 0,
    }
    return TrainingSettings(
        **{**values, "rings": 8, "frame_weight": 0.5, "validate_batches": 1, **changes}
    )


def start(folder, resume=False, process=None, **changes):
    """A run on one blob, validated on another."""
    folder.mkdir(exist_ok=True)
    return Trainer(
        folder,
        settings(**changes),
        Sources([species()]),
        Sources([species("held", 6.0)]),
        resume=resume,
        process=process,
        trained_names=TRAINED,
        held_out_names=HELD_OUT,
    )
