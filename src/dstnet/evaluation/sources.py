"""Which sum a denoiser of sums is given."""

from dataclasses import dataclass
from typing import Any

from dstnet.core.shapes import Image
from dstnet.enhancement.classical import dose_weighted_sum
from dstnet.evaluation.base import Scene
from dstnet.evaluation.processes import version_of
from dstnet.evaluation.relion import relion_corrected


@dataclass(frozen=True)
class Source:
    """The dose-weighted sum (the plain one without exposure) of this package, or RELION's.

    Attributes
    ----------
    relion
        RELION's program; None: this package's sum.
    seconds_allowed
        For RELION's motion correction of a movie.
    """

    relion: str | None = None
    seconds_allowed: float = 3600.0

    def describe(self) -> dict[str, Any]:
        """What goes on record."""
        if self.relion is None:
            return {"of": "dose-weighted sum"}
        version = version_of(self.relion)
        return {"of": "RELION's sum", "relion": self.relion, "relion_version": version}

    def __call__(self, scene: Scene) -> tuple[Image, tuple[str, ...]]:
        """The sum, on the CPU, and notes on it.

        Raises
        ------
        BadInputError
            If RELION fails, or there is a single image.
        """
        if self.relion is None:
            return dose_weighted_sum(scene.aligned).cpu(), ()
        corrected = relion_corrected(scene, self.relion, self.seconds_allowed)
        return corrected.micrograph, corrected.notes()
