"""Settings of an evaluation."""

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from dstnet.alignment import AlignmentSettings
from dstnet.core.randomness import Seed
from dstnet.core.settings import Settings
from dstnet.version import __version__


class EvaluationSettings(Settings):
    """What is compared, and how."""

    methods: tuple[str, ...] = Field(
        default=(),
        description="names of methods; none: all that need nothing installed and fit the movies",
    )
    external: dict[str, str] = Field(
        default={}, description="results of other programs on disk, FOLDER:SUFFIX by name"
    )
    janni: Path | None = Field(default=None, description="JANNI's published weights, .h5")
    topaz: str | None = Field(default=None, description="Topaz's program")
    topaz_options: str = Field(default="", description="further options of topaz denoise")
    relion: str | None = Field(default=None, description="RELION's motion correction")
    program_seconds: float = Field(
        default=3600.0, gt=0, description="that another program may take for an image or movie"
    )
    measures: tuple[str, ...] = Field(default=(), description="names of measures; none: all")
    reference: str = Field(
        default="sum", description="the method that all others are compared with"
    )
    controls: bool = Field(
        default=False, description="whether methods are also given movies without particles"
    )
    border_px: int = Field(default=48, ge=0, description="left out at each side of all images")
    resamples: int = Field(
        default=10000, ge=100, description="of the movies, for the intervals of means (bootstrap)"
    )
    seed: Seed = Field(default=0, description="of controls and resamples")
    alignment: AlignmentSettings = AlignmentSettings()

    @field_validator("alignment")
    @classmethod
    def _is_on_the_grid_of_truths(cls, alignment: AlignmentSettings) -> AlignmentSettings:
        if alignment.bin != 1:
            raise ValueError("truths and picks lie on the movie's own grid; bin must be 1")
        return alignment

    @property
    def shared(self) -> dict[str, Any]:
        """What decides all scores besides movies, methods and measures, as plain values."""
        return {
            "version": __version__,
            "border_px": self.border_px,
            "alignment": self.alignment.model_dump(mode="json"),
            "seed": self.seed,
        }
