"""What a fine-tuning keeps beside its weights: its log and how it ended."""

from pydantic import Field

from dstnet.core.settings import Settings
from dstnet.version import __version__


class GainRecord(Settings):
    """Weights compared with the starting ones on what is held out: a line of the log."""

    step: int
    gain: float = Field(description="of the agreement, relative, mean over both directions")
    gain_error: float = Field(description="its standard error, by leaving out one crop at a time")
    harm: float = Field(
        description=(
            "by how much the worst of either measure in either direction is lower than at the start"
        )
    )
    agreement: tuple[float, ...]
    ring_correlation: tuple[float, ...]
    checkerboard_ratio: tuple[float, ...]
    checkerboard_share: tuple[float, ...]


class StartRecord(Settings):
    """The weights that a run began with."""

    name: str
    sha256: str


class SplitRecord(Settings):
    """Names of movies."""

    learnt_from: tuple[str, ...]
    judged_by: tuple[str, ...]


class OutcomeRecord(Settings):
    """How a run ended, as ``outcome.json`` has it."""

    adapted_from: StartRecord
    movies: SplitRecord
    ended: str
    version: str = __version__
    released: GainRecord | None = Field(
        default=None, description="of the weights that were written; None where none were"
    )
    failures: tuple[str, ...] = Field(default=(), description="of movies that were left out")
