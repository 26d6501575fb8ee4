"""What a training run is given; all of it is recorded with the run."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dstnet.core.randomness import Seed
from dstnet.core.settings import Settings
from dstnet.network.outputs import OUTPUTS
from dstnet.training.crop_conditions import StreamSettings
from dstnet.training.losses import PixelLoss

# Settings before 0.8 that are an entry of a mapping since: the mapping, and the output's name.
_SINCE_IN_A_MAPPING = {
    "power_floor": ("output_floors", "micrograph"),
    "contrast_floor": ("output_floors", "contrast"),
    "contrast_weight": ("output_weights", "contrast"),
    "uncertainty_weight": ("output_weights", "uncertainty"),
    "particles_weight": ("output_weights", "particles"),
}


class TrainingSettings(Settings):
    """One training run."""

    architecture: str = "dstnet"
    start_from: str | None = Field(
        default=None,
        description=(
            "weights to begin with, a released name or a file; what they lack in layers and"
            " channels begins as new"
        ),
    )
    network: dict = Field(
        default_factory=dict,
        description="settings of the architecture that differ from its defaults",
    )
    stream: StreamSettings = StreamSettings()
    held_out: tuple[str, ...] = Field(
        default=(), description="structures, by file name, that are only validated on"
    )
    phantoms: int = Field(
        default=24,
        ge=0,
        description=(
            "structures made by formula to train on beside those given, every fourth a cage"
        ),
    )
    variants: bool = Field(
        default=False,
        description=(
            "train on a variant of each structure and phantom too: in a belt of detergent or lipid,"
            " cut, or strung to a filament (dstnet.structure.variants)"
        ),
    )
    poses: int = Field(
        default=64, ge=1, description="projections of each structure kept for training"
    )
    recorded: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description=(
            "part of the batches that come from data sets on disk where structures are given beside"
            " them"
        ),
    )
    seed: Seed = 0
    steps: int = Field(default=6000, ge=1)
    batch: int = Field(
        default=3,
        ge=1,
        description="crops of one number of groups of frames that the network sees at once",
    )
    batches: int = Field(
        default=1,
        ge=1,
        description=(
            "batches that make one step, dealt to the processes: a multiple of their number"
        ),
    )
    learning_rate: float = Field(default=8e-4, gt=0)
    warm_up: int = Field(default=200, ge=0, description="steps of linear rise; then the schedule")
    schedule: Literal["cosine", "constant", "plateau"] = Field(
        default="cosine",
        description=(
            "half a cosine to nothing; no change; or a halving whenever `plateau` validations"
            " brought no progress"
        ),
    )
    plateau: int = Field(default=4, ge=1, description="see schedule")
    patience: int | None = Field(
        default=None,
        ge=1,
        description=(
            "validations without a smaller residual on held-out structures after which training"
            " stops; the best averaged weights, not the last, are then released"
        ),
    )
    weight_decay: float = Field(default=1e-4, ge=0)
    average: float = Field(
        default=0.999, ge=0, lt=1, description="decay of the averaged copy that is released"
    )
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    pixel_loss: PixelLoss = Field(default="squared_ratio", description="see losses.pixel_loss")
    output_weights: dict[str, float] = Field(
        default_factory=dict,
        validate_default=True,
        description=(
            "weight of each output's loss, where the network gives it; what is not named has the"
            " weight of its row in dstnet.network.outputs"
        ),
    )
    output_floors: dict[str, float] = Field(
        default_factory=dict,
        validate_default=True,
        description=(
            "see losses.pixel_loss: of each output that is learnt as an image, in units of the"
            " noise's power; what is not named has the floor of its row in dstnet.network.outputs"
        ),
    )
    ring_weight: float = Field(default=1.0, ge=0, description="weight of the ring correlation loss")
    focal_weight: float = Field(default=0.0, ge=0, description="weight of the focal frequency loss")
    frame_weight: float = Field(
        default=0.15,
        ge=0,
        description="weight, and part of the steps, of a single frame's own target",
    )
    rings: int = Field(default=48, ge=4)
    checkpoint_every: int = Field(
        default=250, ge=1, description="steps from one validation and checkpoint to the next"
    )
    validate_batches: int = Field(default=10, ge=0)
    workers: int | None = Field(
        default=None,
        ge=0,
        description=(
            "processes that simulate on CPUs; 0 simulates between steps on the device itself; None:"
            " 1, or 0 on a GPU or where there is one processor"
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _read_older_names(cls, values: Any) -> Any:
        """Settings of runs before 0.8 are read as what they meant."""
        if not isinstance(values, Mapping):
            return values
        kept = {name: v for name, v in values.items() if name not in _SINCE_IN_A_MAPPING}
        for name in values.keys() & _SINCE_IN_A_MAPPING.keys():
            mapping, output = _SINCE_IN_A_MAPPING[name]
            kept[mapping] = {**kept.get(mapping, {}), output: values[name]}
        return kept

    @field_validator("output_weights", mode="after")
    @classmethod
    def _complete_weights(cls, weights: dict[str, float]) -> dict[str, float]:
        if any(weight < 0 for weight in weights.values()):
            raise ValueError("a weight is negative; 0 leaves an output out")
        return _completed(weights, {output.name: output.weight for output in OUTPUTS.values()})

    @field_validator("output_floors", mode="after")
    @classmethod
    def _complete_floors(cls, floors: dict[str, float]) -> dict[str, float]:
        if any(floor <= 0 for floor in floors.values()):
            raise ValueError("a floor is not above 0; without one, empty fields weigh infinitely")
        images = [output for output in OUTPUTS.values() if output.loss == "image"]
        return _completed(floors, {output.name: output.floor for output in images})

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.validate_batches and (self.patience or self.schedule == "plateau"):
            raise ValueError(
                "patience and the plateau schedule watch the validation; give validate_batches of 1"
                " or more"
            )
        return self


def _completed(values: dict[str, float], defaults: dict[str, float]) -> dict[str, float]:
    """Values by an output's name, all of them, in the order of the outputs' table."""
    if unknown := values.keys() - defaults.keys():
        names = ", ".join(defaults)
        raise ValueError(f"{', '.join(sorted(unknown))} cannot be given here; there are {names}")
    return {name: values.get(name, default) for name, default in defaults.items()}
