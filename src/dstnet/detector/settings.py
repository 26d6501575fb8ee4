"""Everything that can be set about the camera."""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from dstnet.core.settings import Settings

_PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Cameras that `DetectorSettings` knows by name."""
    return sorted(path.stem for path in _PRESETS.glob("*.yaml"))


class DetectorSettings(Settings):
    """A camera model.

    Given as numbers, as the name of a preset (``k3``), or as ``preset: k3`` with numbers that win
    over it; settings hold, and record, the resulting numbers only. The MTF is a fit of our own, 1 /
    (1 + (k / k0)^p), k in cycles per physical pixel. A "physical pixel" is one of the sensor's; a
    "written" one, of the movie's, is `binning` times as wide.
    """

    mode: Literal["counting", "integrating"] = "counting"
    quantum_efficiency: float = Field(
        default=0.85,
        gt=0,
        le=1,
        description="detected electrons per incident one (DQE at zero frequency, counting)",
    )
    mtf_half_frequency: float | None = Field(
        default=0.7, gt=0, description="k0: where the MTF is one half; None for a perfect camera"
    )
    mtf_power: float = Field(
        default=2.0,
        gt=0,
        description="p; k0 0.7, p 2 gives 0.89 and 0.66 at half Nyquist and Nyquist, near a K3",
    )
    binning: float = Field(
        default=1.0,
        ge=0.5,
        description="written pixel over physical pixel; 0.5 is super-resolution",
    )

    coincidence_area_px: float = Field(
        default=0.0,
        ge=0,
        description="counting: area blocked by an electron in one readout, physical px",
    )
    rate_e_per_px_per_s: float | None = Field(
        default=None,
        gt=0,
        description=(
            "counting: mean incident electrons per physical px and second; None: no coincidence"
            " loss"
        ),
    )
    readout_frames_per_s: float = Field(
        default=400.0, gt=0, description="counting: readouts in which events are found"
    )

    deposition_variance: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=(
            "integrating: relative variance of an electron's signal; 1 is exponential (DQE(0)"
            " halves)"
        ),
    )
    counts_per_electron: float = Field(
        default=1.0,
        gt=0,
        description="integrating: mean written value (ADU) of a detected electron",
    )
    readout_noise: float = Field(
        default=0.0, ge=0, description="integrating: rms of a written pixel in ADU, white"
    )

    gain_variation: float = Field(
        default=0.0,
        ge=0,
        le=0.2,
        description=(
            "rms relative gain of pixels; with 0 and no tiles the movie is written gain-corrected"
        ),
    )
    gain_tiles: tuple[int, int] | None = Field(
        default=None,
        description=(
            "(rows, columns) of sensor tiles, unlike by 2 % rms and with visible seams; None: one"
            " piece"
        ),
    )
    dead_pixels_ppm: float = Field(
        default=0.0, ge=0, le=1e5, description="pixels that give nothing, parts per million"
    )
    hot_pixels_ppm: float = Field(
        default=0.0,
        ge=0,
        le=1e5,
        description="pixels that give 10 to 1000 times too much, parts per million",
    )
    dead_columns: int = Field(default=0, ge=0)
    camera_seed: int = Field(
        default=0, ge=0, description="decides gain and defects: a camera keeps its own over movies"
    )

    saturation: int | None = Field(
        default=None,
        gt=0,
        description="largest value that a pixel holds; None: what the type holds",
    )
    bits: Literal[8, 16] | None = Field(
        default=None,
        description=(
            "unsigned integers written, values beyond clipped; None: counts as small as is safe,"
            " else float32"
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve_preset(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = {"preset": values}
        if not isinstance(values, dict) or "preset" not in values:
            return values
        own = dict(values)
        name = own.pop("preset")
        if name not in preset_names():
            raise ValueError(f"no detector preset {name!r}; there are {', '.join(preset_names())}")
        preset = yaml.safe_load((_PRESETS / f"{name}.yaml").read_text())
        return {**preset, **own}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.mode == "counting":
            self._check_counting()
        else:
            self._check_integrating()
        if self.gain_tiles is not None and min(self.gain_tiles) < 1:
            raise ValueError(
                "gain_tiles are counted from 1; leave them out for a sensor of one piece"
            )
        if self.bits is not None and self.saturation is not None:
            largest = 2**self.bits - 1
            if self.saturation > largest:
                raise ValueError(f"saturation must fit into {self.bits} bits, at most {largest}")
        return self

    def _check_counting(self) -> None:
        fields = type(self).model_fields
        for name in ("deposition_variance", "counts_per_electron", "readout_noise"):
            if getattr(self, name) != fields[name].default:
                raise ValueError(
                    f"{name} is for integrating cameras; leave it out or set mode: integrating"
                )
        if self.rate_e_per_px_per_s is not None and not self.coincidence_area_px:
            raise ValueError(
                "rate_e_per_px_per_s asks for coincidence loss; give coincidence_area_px (about 5)"
                " too"
            )

    def _check_integrating(self) -> None:
        if self.rate_e_per_px_per_s is not None:
            raise ValueError(
                "coincidence loss is for counting cameras; leave rate_e_per_px_per_s out or set"
                " mode: counting"
            )
        if self.binning < 1:
            raise ValueError(
                "super-resolution (a binning below 1) is for counting cameras; an integrating one"
                " has no events to place"
            )
