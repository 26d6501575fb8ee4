"""Settings of one simulated movie."""

from typing import Literal

from pydantic import Field

from dstnet.core.settings import Settings
from dstnet.core.shapes import Shape
from dstnet.detector.settings import DetectorSettings
from dstnet.motion.simulated_motion import MotionSettings
from dstnet.movie import Exposure
from dstnet.optics.ctf import OpticsSettings
from dstnet.specimen.settings import SpecimenSettings


class SimulationSettings(Settings):
    """Everything about one synthetic movie but its species and its seed."""

    shape: Shape = Field(default=(1024, 1024), description="(y, x) in pixels")
    pixel_size_angstrom: float = Field(default=1.06, gt=0, le=20)
    frames: int = Field(default=24, ge=1)
    exposure_e_per_a2: float = Field(
        default=2.0, gt=0, description="of one frame, incident on the specimen"
    )
    pre_exposure_e_per_a2: float = Field(default=0.0, ge=0)
    damage: Literal["grant_grigorieff", "b_factor"] | None = Field(
        default="grant_grigorieff",
        description=(
            "exposure-dependent loss of detail: by critical exposures, by a B-factor, or none"
        ),
    )
    imaging: Literal["weak_phase", "multislice"] = Field(
        default="weak_phase",
        description=(
            "linear in the phase, or with multiple scattering and propagation through the ice"
        ),
    )
    slab_angstrom: float = Field(
        default=100.0,
        gt=0,
        description="particles within such a slab share one defocus; at most d^2 / (4 lambda)",
    )
    specimen: SpecimenSettings = SpecimenSettings()
    optics: OpticsSettings = OpticsSettings()
    motion: MotionSettings = MotionSettings()
    detector: DetectorSettings = DetectorSettings()

    @property
    def exposure(self) -> Exposure:
        """Exposure of each frame."""
        return Exposure.uniform(self.frames, self.exposure_e_per_a2, self.pre_exposure_e_per_a2)

    @classmethod
    def unwrapped(cls, values: dict) -> dict:
        """Settings as such, or those in the record of a written movie
        (`dstnet.dataset.MovieRecord`).
        """
        return values["settings"] if {"seed", "species", "settings"} <= values.keys() else values
