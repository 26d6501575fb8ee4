"""What a fine-tuning on movies is given; all of it is recorded with the run."""

from pydantic import Field

from dstnet.alignment import AlignmentSettings
from dstnet.core.randomness import Seed
from dstnet.core.settings import Settings
from dstnet.network.blocks import MovieNetwork
from dstnet.network.weights import DEFAULT_MODEL


class FinetuneSettings(Settings):
    """How weights are fine-tuned on movies."""

    model: str = Field(
        default=DEFAULT_MODEL,
        description="weights to start from: a released name, or a .safetensors file with its card",
    )
    seed: Seed = 0
    crop: int = Field(
        default=256,
        ge=64,
        description="side of a crop in working pixels; smaller fields give smaller ones",
    )
    crops_per_movie: int = Field(default=16, ge=1)
    held_out: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="part of the movies (of one movie: of its crops) to judge by",
    )
    steps: int = Field(default=200, ge=1, description="most optimiser steps")
    batch: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=3e-5, gt=0)
    warm_up: int = Field(default=10, ge=0, description="steps of linear rise")
    average: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="decay of the averaged copy that is judged and released",
    )
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    frozen: tuple[str, ...] | None = Field(
        default=None,
        description=(
            "layers, by the beginning of their parameters' names, that stay as they are; None:"
            " those that the network names itself, of dstnet reconstructor.leave"
        ),
    )
    anchor: float = Field(
        default=1.0,
        ge=0,
        description="weight of the distance of all outputs from those of the starting weights",
    )
    whitening: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description=(
            "rings count as 1 / power of the starting output to this exponent; 0: all frequencies"
            " alike"
        ),
    )
    check_every: int = Field(
        default=20, ge=1, description="steps between judgements on what is held out"
    )
    patience: int = Field(
        default=3, ge=1, description="judgements without a new best after which the run stops"
    )
    certainty: float = Field(
        default=2.0,
        ge=0,
        description="standard errors by which what is released must be better than the start",
    )
    checkerboard: float = Field(
        default=5e-4,
        gt=0,
        description=(
            "the run stops where patterns of the network's strides take so much more of the"
            " output's energy than at the start (and stand out half as much again); the default is"
            " a pattern of 2 % of the output's deviation"
        ),
    )
    alignment: AlignmentSettings = AlignmentSettings()

    def frozen_of(self, network: MovieNetwork) -> tuple[str, ...]:
        """What stays as it is in this network."""
        return network.keeps_in_finetuning if self.frozen is None else self.frozen
