"""What a training run, and an adaptation to a user's movies, is told; all of it is recorded with the run."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dstnet.alignment import AlignmentSettings
from dstnet.core.settings import Settings
from dstnet.network.weights import DEFAULT_MODEL
from dstnet.training.losses import PixelLoss
from dstnet.training.stream import StreamSettings


class TrainingSettings(Settings):
    """One training run."""

    architecture: str = "dstnet"
    start_from: str | None = Field(
        default=None, description="weights to begin with, a released name or a file; what they lack in layers and channels begins as new"
    )
    network: dict = Field(default_factory=dict, description="settings of the architecture that differ from its defaults")
    stream: StreamSettings = StreamSettings()
    held_out: tuple[str, ...] = Field(default=(), description="structures, by file name, that are only validated on")
    phantoms: int = Field(default=24, ge=0, description="structures made by formula to train on beside those given, every fourth a cage")
    variants: bool = Field(
        default=False, description="train on complexes in micelles, cut ones and filaments too, one made of each structure and phantom"
    )
    poses: int = Field(default=64, ge=1, description="projections of each structure kept for training")
    recorded: float = Field(
        default=0.5, ge=0, le=1, description="part of the batches that come from data sets on disk where structures are given beside them"
    )
    seed: int = 0
    steps: int = Field(default=6000, ge=1)
    batch: int = Field(default=3, ge=1, description="crops of one number of fractions that the network sees at once")
    batches: int = Field(default=1, ge=1, description="batches that make one step, dealt to the processes: a multiple of their number")
    learning_rate: float = Field(default=8e-4, gt=0)
    warm_up: int = Field(default=200, ge=0, description="steps of linear rise; then the schedule")
    schedule: Literal["cosine", "constant", "plateau"] = Field(
        default="cosine", description="half a cosine to nothing; no change; or a halving whenever `plateau` validations brought no progress"
    )
    plateau: int = Field(default=4, ge=1, description="see schedule")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="validations without a smaller residual on held-out structures after which training stops; "
        "the best averaged weights, not the last, are then released",
    )
    weight_decay: float = Field(default=1e-4, ge=0)
    average: float = Field(default=0.999, ge=0, lt=1, description="decay of the averaged copy that is released")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    pixel_loss: PixelLoss = Field(default="squared_ratio", description="see losses.pixel_loss")
    power_floor: float = Field(default=5e-4, gt=0, description="see losses.pixel_loss, in units of the noise's power")
    contrast_floor: float = Field(default=0.02, gt=0, description="the same for contrast without the CTF")
    contrast_weight: float = Field(default=0.3, ge=0, description="weight of the contrast without the CTF, where the network gives it")
    uncertainty_weight: float = Field(
        default=0.05, ge=0, description="weight of the expected error's likelihood, where the network gives it"
    )
    particles_weight: float = Field(
        default=0.4, ge=0, description="weight of the cross entropy of where particles are, where the network gives it"
    )
    ring_weight: float = Field(default=1.0, ge=0, description="weight of the ring correlation loss")
    focal_weight: float = Field(default=0.0, ge=0, description="weight of the focal frequency loss")
    frame_weight: float = Field(default=0.15, ge=0, description="weight, and part of the steps, of a single frame's own target")
    rings: int = Field(default=48, ge=4)
    checkpoint_every: int = Field(default=250, ge=1, description="steps from one validation and checkpoint to the next")
    validate_batches: int = Field(default=10, ge=0)
    workers: int | None = Field(
        default=None,
        ge=0,
        description="processes that simulate on CPUs; 0 simulates between steps on the device itself; None: 1, or 0 on a GPU",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.validate_batches and (self.patience or self.schedule == "plateau"):
            raise ValueError("patience and the plateau schedule watch the validation; give validate_batches of 1 or more")
        return self


class AdaptSettings(Settings):
    """How weights are fine-tuned on movies."""

    model: str = Field(default=DEFAULT_MODEL, description="weights to start from: a released name, or a .safetensors file with its card")
    seed: int = 0
    crop: int = Field(default=256, ge=64, description="side of a crop in working pixels; smaller fields give smaller ones")
    crops_per_movie: int = Field(default=16, ge=1)
    held_out: float = Field(default=0.25, gt=0, lt=1, description="part of the movies (of one movie: of its crops) to judge by")
    steps: int = Field(default=200, ge=1, description="most optimiser steps")
    batch: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=3e-5, gt=0)
    warm_up: int = Field(default=10, ge=0, description="steps of linear rise")
    average: float = Field(default=0.9, ge=0, lt=1, description="decay of the averaged copy that is judged and released")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    frozen: tuple[str, ...] = Field(
        default=("reconstructor.leave",),
        description="layers, by the beginning of their parameters' names, that stay as they are; a sub-pixel shuffle's own layer, whose "
        "phases would else drift apart, is where most of a checkerboard comes from",
    )
    anchor: float = Field(default=1.0, ge=0, description="weight of the distance of all outputs from those of the starting weights")
    whitening: float = Field(
        default=0.5, ge=0, le=1, description="rings count as 1 / power of the starting output to this exponent; 0: all frequencies alike"
    )
    check_every: int = Field(default=20, ge=1, description="steps between judgements on what is held out")
    patience: int = Field(default=3, ge=1, description="judgements without a new best after which the run stops")
    certainty: float = Field(default=2.0, ge=0, description="standard errors by which what is released must be better than the start")
    checkerboard: float = Field(
        default=5e-4,
        gt=0,
        description="the run stops where patterns of the network's strides take so much more of the output's energy than at the start (and "
        "stand out half as much again); the default is a pattern of 2 % of the output's deviation",
    )
    alignment: AlignmentSettings = AlignmentSettings()
