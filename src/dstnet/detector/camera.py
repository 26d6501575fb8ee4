"""A camera: from the electrons expected in each pixel to the numbers it writes, with its gain
reference and its defects.
"""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from dstnet.core.fourier import apply_transfer, radial_frequency
from dstnet.core.randomness import stream
from dstnet.core.settings import Settings
from dstnet.core.shapes import Image
from dstnet.detector.poisson import poisson
from dstnet.errors import BadInputError, SettingsError

# How uneven a sensor is, beyond the spread from pixel to pixel that the settings give. Values of
# our own, after gain references.
TILE_SPREAD = 0.02  # rms sensitivity of a tile (a stitched exposure, or an amplifier's share)
SEAM_SENSITIVITY = 1.05  # of the two pixel rows that meet at a seam, which are a little larger
# rms over the four quarters of a pixel: super-resolution finds events in some quarters more often
SUBPIXEL_SPREAD = 0.03
HOT_RANGE = (
    10.0,
    1000.0,
)  # a hot pixel's electrons over (1 + the frame's mean), log-uniform over pixels

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
        return {**yaml.safe_load((_PRESETS / f"{name}.yaml").read_text()), **own}

    @model_validator(mode="after")
    def _agree(self) -> "DetectorSettings":
        if self.mode == "counting":
            for name in ("deposition_variance", "counts_per_electron", "readout_noise"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} is for integrating cameras; leave it out or set mode: integrating"
                    )
        if self.rate_e_per_px_per_s is not None:
            if self.mode != "counting":
                raise ValueError(
                    "coincidence loss is for counting cameras; leave rate_e_per_px_per_s out or set"
                    " mode: counting"
                )
            if not self.coincidence_area_px:
                raise ValueError(
                    "rate_e_per_px_per_s asks for coincidence loss; give coincidence_area_px (about"
                    " 5) too"
                )
        if self.mode == "integrating" and self.binning < 1:
            raise ValueError(
                "super-resolution (a binning below 1) is for counting cameras; an integrating one"
                " has no events to place"
            )
        if self.gain_tiles is not None and min(self.gain_tiles) < 1:
            raise ValueError(
                "gain_tiles are counted from 1; leave them out for a sensor of one piece"
            )
        if (
            self.bits is not None
            and self.saturation is not None
            and self.saturation >= 2**self.bits
        ):
            raise ValueError(
                f"saturation must fit into {self.bits} bits, at most {2**self.bits - 1}"
            )
        return self


def _mtf_curve(k: Tensor, settings: DetectorSettings) -> Tensor:
    if settings.mtf_half_frequency is None:
        return torch.ones_like(k)
    return 1 / (1 + (k / settings.mtf_half_frequency) ** settings.mtf_power)


def mtf(shape: tuple[int, int], settings: DetectorSettings, device=None) -> Tensor | None:
    """Modulation transfer on the ``rfft2`` grid of `shape` written pixels, or None for a perfect
    camera.
    """
    if settings.mtf_half_frequency is None:
        return None
    return _mtf_curve(radial_frequency(shape, settings.binning, device), settings)


def dqe(k: Tensor, settings: DetectorSettings) -> Tensor:
    """Detective quantum efficiency, SNR^2 out over SNR^2 in, at `k` cycles per physical pixel
    (Nyquist 0.5), whatever the binning.

    Counting: efficiency x MTF^2, since noise is white. Integrating: efficiency / (1 + v), v the
    `deposition_variance`, since noise is blurred with the signal; readout noise, whose share
    depends on the exposure, and coincidence loss are left out. DQE is a ratio of powers. An
    amplitude carries its root: multiplying images by the DQE itself, a known mistake, loses twice
    as much, and a table in fractions of Nyquist read as cycles per pixel is another.
    """
    if settings.mode == "integrating":
        return torch.full_like(k, settings.quantum_efficiency / (1 + settings.deposition_variance))
    return settings.quantum_efficiency * _mtf_curve(k, settings).square()


class Camera:
    """One camera, built once and used for every frame.

    Parameters
    ----------
    settings
        The model.
    shape
        (y, x) of a written frame.
    device
        Where frames are.
    mean_electrons
        Incident electrons per written pixel and frame, if known: lets a counting camera write bytes
        where those surely suffice.

    Attributes
    ----------
    gain
        What raw values are multiplied with to correct them (as RELION and MotionCor do), mean 1
        over pixels that live, 0 where dead. None where it would be 1 throughout. The sensitivity is
        its inverse.
    defects
        True where dead or hot; None without defects.
    dtype
        NumPy type that holds a written frame without loss.

    Raises
    ------
    SettingsError
        If the sensor has more tiles or dead columns than the field has room for.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        shape: tuple[int, int],
        device: torch.device | str = "cpu",
        mean_electrons: float | None = None,
    ):
        self.settings, self.shape, self.device = (
            settings,
            (shape[0], shape[1]),
            torch.device(device),
        )
        self.dtype = _written_type(settings, mean_electrons)
        top = float(np.iinfo(self.dtype).max) if self.dtype.kind == "u" else math.inf
        self._top = min(top, settings.saturation or math.inf)

        # What belongs to a physical pixel is shared by the written ones within it
        # (super-resolution).
        share = min(1.0, settings.binning)
        self._rows, self._columns = ((torch.arange(n) * share).floor().long() for n in self.shape)
        sensor = (int(self._rows[-1]) + 1, int(self._columns[-1]) + 1)
        if settings.dead_columns >= sensor[1]:
            raise SettingsError(
                f"dead_columns {settings.dead_columns} leave nothing of a camera of {sensor[1]}"
                " columns; give fewer"
            )
        total = sensor[0] * sensor[1]
        dead, hot = (
            round(ppm * 1e-6 * total) for ppm in (settings.dead_pixels_ppm, settings.hot_pixels_ppm)
        )
        # Picking distinct columns and pixels: the places of the largest of as many random numbers.
        # Each kind has a stream of its own, so that a camera with more defects keeps those of one
        # with fewer.
        columns = (
            torch.rand(sensor[1], generator=stream(settings.camera_seed, "columns"))
            .topk(settings.dead_columns)
            .indices
        )
        self._dead_columns = sorted(columns.tolist())
        self._pixels: dict[str, Tensor] = {}
        is_dead = torch.zeros(sensor, dtype=torch.bool)
        is_dead[:, self._dead_columns] = True
        for kind, number in (("dead", dead), ("hot", hot)):
            if not number:  # spare a large camera without defects its random numbers
                self._pixels[kind] = torch.empty(0, dtype=torch.long)
                continue
            places = (
                torch.rand(total, generator=stream(settings.camera_seed, kind)).topk(number).indices
            )
            places = places[
                ~is_dead.flatten()[places]
            ]  # what is dead already is neither dead twice nor hot
            self._pixels[kind] = places.sort().values
            if kind == "dead":
                is_dead.view(-1)[places] = True
        is_defect = is_dead.clone()
        is_defect.view(-1)[self._pixels["hot"]] = True

        uneven = settings.gain_variation > 0 or settings.gain_tiles is not None
        dead_at = self._expand(is_dead)
        self.defects: Bool[Tensor, "y x"] | None = (
            self._expand(is_defect).to(device) if bool(is_defect.any()) else None
        )
        self.gain: Float[Tensor, "y x"] | None = None
        self._sensitivity: Image | None = None
        if uneven or bool(is_dead.any()):
            gain = 1 / self._uneven_sensitivity(sensor) if uneven else torch.ones(self.shape)
            gain = torch.where(dead_at, 0.0, gain)
            gain = gain / (gain.double().sum() / (~dead_at).sum()).float()
            self.gain = gain.to(device)
            self._sensitivity = torch.where(dead_at, 0.0, 1 / gain).to(device)
        self._hot = self._hot_pixels(sensor)
        self._blur = mtf(self.shape, settings, device) if settings.mode == "integrating" else None

    def _expand(self, of_sensor: Tensor) -> Tensor:
        return of_sensor[self._rows[:, None], self._columns[None, :]]

    def _uneven_sensitivity(self, sensor: tuple[int, int]) -> Image:
        s = self.settings
        # Four sigma either side: a gain is never negative, whatever is drawn.
        sensitivity = 1 + s.gain_variation * torch.randn(
            sensor, generator=stream(s.camera_seed, "gain")
        ).clamp(-4, 4)
        if s.gain_tiles is not None:
            if s.gain_tiles[0] > sensor[0] // 2 or s.gain_tiles[1] > sensor[1] // 2:
                raise SettingsError(
                    f"no room for {s.gain_tiles} gain_tiles on a camera of {sensor} pixels; give"
                    " fewer"
                )
            level = 1 + TILE_SPREAD * torch.randn(
                s.gain_tiles, generator=stream(s.camera_seed, "tiles")
            )
            tile_y, tile_x = (
                torch.arange(n) * tiles // n for n, tiles in zip(sensor, s.gain_tiles, strict=True)
            )
            sensitivity *= level[tile_y[:, None], tile_x[None, :]]
            for axis, tile in ((0, tile_y), (1, tile_x)):
                seam = torch.nonzero(tile[1:] != tile[:-1])[:, 0]
                rows = torch.ones(len(tile))
                rows[seam], rows[seam + 1] = SEAM_SENSITIVITY, SEAM_SENSITIVITY
                sensitivity *= rows[:, None] if axis == 0 else rows
        sensitivity = self._expand(sensitivity.clamp(min=0.1))
        if s.binning < 1:
            quarters = 1 + SUBPIXEL_SPREAD * torch.randn(
                2, 2, generator=stream(s.camera_seed, "quarters")
            ).clamp(-4, 4)
            y, x = ((torch.arange(n) * s.binning * 2).floor().long() % 2 for n in self.shape)
            sensitivity = sensitivity * quarters[y[:, None], x[None, :]]
        return sensitivity

    def _hot_pixels(self, sensor: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor] | None:
        """Rows, columns and excess of hot written pixels."""
        number = len(self._pixels["hot"])
        if not number:
            return None
        low, high = HOT_RANGE
        excess = torch.zeros(sensor)
        excess.view(-1)[self._pixels["hot"]] = low * (high / low) ** torch.rand(
            number, generator=stream(self.settings.camera_seed, "heat")
        )
        written = self._expand(excess)
        y, x = torch.nonzero(written, as_tuple=True)
        return y.to(self.device), x.to(self.device), written[y, x].to(self.device)

    def defect_list(self) -> list[tuple[int, int, int, int]]:
        """Dead columns, dead and hot pixels as rectangles (x, y, width, height) in written pixels
        from 0: a line each in defect files.
        """

        def span(index: Tensor, place: int) -> tuple[int, int]:
            at = torch.searchsorted(index, torch.tensor([place, place + 1])).tolist()
            return at[0], at[1] - at[0]

        rectangles = []
        for column in self._dead_columns:
            x, width = span(self._columns, column)
            rectangles.append((x, 0, width, self.shape[0]))
        across = int(self._columns[-1]) + 1
        for place in sorted(self._pixels["dead"].tolist() + self._pixels["hot"].tolist()):
            (y, height), (x, width) = (
                span(self._rows, place // across),
                span(self._columns, place % across),
            )
            rectangles.append((x, y, width, height))
        return rectangles

    def spread(self, shape: tuple[int, int]) -> Tensor | None:
        """What the spectrum of the expected image is multiplied with before counting, on the
        ``rfft2`` grid of `shape` written pixels.

        `shape` may be larger than the camera (padding). None for an integrating camera, which blurs
        in `detect`, and for a perfect one.
        """
        return mtf(shape, self.settings, self.device) if self.settings.mode == "counting" else None

    def detect(
        self, expected: Float[Tensor, "*frame y x"], generator: torch.Generator
    ) -> Float[Tensor, "*frame y x"]:
        """Written values, float32, of a frame or a stack from the expected incident electrons per
        written pixel.

        Counting: `expected` has the camera's point spread in it (`spread`). Moving each event by a
        random point spread leaves Poisson counts of the spread expectation, so noise is white and
        DQE = efficiency x MTF^2 (McMullan et al. 2009). Electrons that meet another one's area
        within a readout are lost: exp(-area x rate / readouts per second) is kept, the rate
        following the expectation from pixel to pixel (Li et al., J. Struct. Biol. 184, 251, 2013).
        Counts stay Poisson after that thinning: that real losses make counts a little more regular,
        and noise weaker at low frequencies, is neglected.

        Integrating: Poisson electrons; each leaves a gamma-distributed signal of relative variance
        v, 1 being exponential, as a stand-in for the long-tailed energy loss in a thin sensor, so
        that DQE(0) = efficiency / (1 + v) (Swank, J. Appl. Phys. 44, 4199, 1973). The sum is
        blurred by the MTF, noise with signal: the noise power is mean x (1 + v) x MTF^2 x
        counts_per_electron^2, plus readout_noise^2. The blur wraps at the edges, over the few
        pixels of the point spread. Integer types cut negative values to 0.

        Hot pixels get 10 to 1000 times (1 + the frame's mean) electrons more; all is cut at
        `saturation` and what `dtype` holds.

        Parameters
        ----------
        expected
            Below 0 counts as 0. Left as it is.
        generator
            On the same device.

        Raises
        ------
        BadInputError
            If frames have another shape than the camera.
        """
        s = self.settings
        if tuple(expected.shape[-2:]) != self.shape:
            raise BadInputError(
                f"frames of {tuple(expected.shape[-2:])} pixels for a camera of {self.shape}; build"
                " a camera of that shape"
            )
        rate = expected.clamp(min=0)  # a copy, so it may be changed in place below
        mean = rate.mean(dim=(-2, -1), keepdim=True)
        if s.rate_e_per_px_per_s is not None:
            crowding = s.coincidence_area_px * s.rate_e_per_px_per_s / s.readout_frames_per_s
            rate *= torch.exp(rate * (-crowding / mean.clamp(min=1e-20)))
        rate *= s.quantum_efficiency
        if s.mode == "counting":
            if self._sensitivity is not None:
                rate *= self._sensitivity
            self._heat(rate, mean)
            return self._written(poisson(rate, generator))

        signal = poisson(rate, generator)
        if s.deposition_variance:
            signal = _deposit(signal, s.deposition_variance, generator)
        if self._blur is not None:
            signal = apply_transfer(signal, self._blur)
        if self._sensitivity is not None:
            signal *= self._sensitivity
        self._heat(signal, mean)
        signal *= s.counts_per_electron
        if s.readout_noise:
            signal += s.readout_noise * torch.randn(
                signal.shape, generator=generator, device=signal.device
            )
        return self._written(signal)

    def _heat(self, electrons: Tensor, mean: Tensor) -> None:
        """Add what hot pixels leak, in place."""
        if self._hot is not None:
            y, x, excess = self._hot
            electrons[..., y, x] += excess * (1 + mean[..., 0])

    def _written(self, values: Tensor) -> Tensor:
        if self.dtype.kind == "u":
            return (values if self.settings.mode == "counting" else values.round_()).clamp_(
                0, self._top
            )  # counts are whole already
        return values.clamp_(max=self._top) if self._top < math.inf else values


def _written_type(settings: DetectorSettings, mean_electrons: float | None) -> np.dtype:
    if settings.bits is not None:
        return np.dtype(f"uint{settings.bits}")
    if settings.mode == "integrating":
        return np.dtype(np.float32)
    if settings.saturation is not None and settings.saturation < 256:
        return np.dtype(np.uint8)
    if mean_electrons is None:
        return np.dtype(np.uint16)
    # Fringes, uneven ice and gain keep within three times the mean; ten standard errors beyond, no
    # count of any movie lies.
    highest = 3 * mean_electrons * settings.quantum_efficiency
    return np.dtype(np.uint8 if highest + 10 * math.sqrt(highest) + 10 < 256 else np.uint16)


def _deposit(electrons: Tensor, variance: float, generator: torch.Generator) -> Tensor:
    """Sums of as many independent gamma variates of mean 1 and the given variance as there are
    electrons in each pixel.

    The sum over n is a gamma variate of shape a = n / variance. Wilson & Hilferty (PNAS 17, 684,
    1931): its cube root is near normal; with z normal, a (1 - 1/9a + z / 3 sqrt(a))^3, whose mean a
    (1 - (9a)^-3) is corrected here, has its variance to 0.5 % for a of 1 or more.
    """
    ninth = variance / (9 * electrons.clamp(min=1))  # 1 / 9a
    z = torch.randn(electrons.shape, generator=generator, device=electrons.device)
    root = 1 - ninth + z * ninth.sqrt()
    return electrons * root.clamp(min=0).pow(3) / (1 - ninth.pow(3))
