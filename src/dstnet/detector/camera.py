"""A camera: from the electrons expected in each pixel to the numbers it writes, with its gain
reference and its defects.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dstnet.core.devices import Device
from dstnet.core.fourier import apply_transfer
from dstnet.core.shapes import Image, Shape
from dstnet.detector.mtf import mtf
from dstnet.detector.poisson import poisson
from dstnet.detector.sensor import Sensor
from dstnet.detector.settings import DetectorSettings
from dstnet.errors import BadInputError


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
        shape: Shape,
        device: Device = "cpu",
        mean_electrons: float | None = None,
    ):
        self.settings = settings
        self.shape = (shape[0], shape[1])
        self.device = torch.device(device)
        self.dtype = _written_type(settings, mean_electrons)
        self._top = _highest_value(self.dtype, settings.saturation)

        sensor = Sensor(settings, self.shape)
        self._sensor = sensor
        self.defects: Bool[Tensor, "y x"] | None = None
        if bool(sensor.is_defect.any()):
            self.defects = sensor.is_defect.to(device)
        self.gain: Float[Tensor, "y x"] | None = None
        self._sensitivity: Image | None = None
        gain = sensor.gain()
        if gain is not None:
            self.gain = gain.to(device)
            sensitivity = torch.where(sensor.is_dead, 0.0, 1 / gain)
            self._sensitivity = sensitivity.to(device)
        self._hot: tuple[Tensor, ...] | None = None
        hot = sensor.hot_pixels()
        if hot is not None:
            self._hot = tuple(values.to(device) for values in hot)
        self._blur: Tensor | None = None
        if settings.mode == "integrating":
            self._blur = mtf(self.shape, settings, device)

    def defect_list(self) -> list[tuple[int, int, int, int]]:
        """Dead columns, dead and hot pixels as rectangles (x, y, width, height) in written pixels
        from 0: a line each in defect files.
        """
        return self._sensor.defect_list()

    def spread(self, shape: Shape) -> Tensor | None:
        """What the spectrum of the expected image is multiplied with before counting, on the
        ``rfft2`` grid of `shape` written pixels.

        `shape` may be larger than the camera (padding). None for an integrating camera, which blurs
        in `detect`, and for a perfect one.
        """
        if self.settings.mode != "counting":
            return None
        return mtf(shape, self.settings, self.device)

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
        frame_shape = tuple(expected.shape[-2:])
        if frame_shape != self.shape:
            raise BadInputError(
                f"frames of {frame_shape} pixels for a camera of {self.shape}; build a camera of"
                " that shape"
            )
        rate = expected.clamp(min=0)  # a copy, so it may be changed in place below
        mean = rate.mean(dim=(-2, -1), keepdim=True)
        self._lose_coincident(rate, mean)
        rate *= self.settings.quantum_efficiency
        if self.settings.mode == "counting":
            return self._counted(rate, mean, generator)
        return self._integrated(rate, mean, generator)

    def _lose_coincident(self, rate: Tensor, mean: Tensor) -> None:
        """Take out the electrons that coincidence loses, in place."""
        s = self.settings
        if s.rate_e_per_px_per_s is None:
            return
        crowding = s.coincidence_area_px * s.rate_e_per_px_per_s / s.readout_frames_per_s
        loss_per_electron = -crowding / mean.clamp(min=1e-20)
        rate *= torch.exp(rate * loss_per_electron)

    def _counted(self, rate: Tensor, mean: Tensor, generator: torch.Generator) -> Tensor:
        """What a counting camera writes, from the electrons that it finds; overwrites `rate`."""
        if self._sensitivity is not None:
            rate *= self._sensitivity
        self._heat(rate, mean)
        counts = poisson(rate, generator)  # integers already
        return self._cut(counts)

    def _integrated(self, rate: Tensor, mean: Tensor, generator: torch.Generator) -> Tensor:
        """What an integrating camera writes, from the electrons that it finds."""
        s = self.settings
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
            noise = torch.randn(signal.shape, generator=generator, device=signal.device)
            signal += s.readout_noise * noise
        if self.dtype.kind == "u":
            signal.round_()
        return self._cut(signal)

    def _heat(self, electrons: Tensor, mean: Tensor) -> None:
        """Add what hot pixels leak, in place."""
        if self._hot is not None:
            y, x, excess = self._hot
            electrons[..., y, x] += excess * (1 + mean[..., 0])

    def _cut(self, values: Tensor) -> Tensor:
        """Cut at what a written pixel holds, in place."""
        if self.dtype.kind == "u":
            return values.clamp_(0, self._top)
        if self._top == math.inf:
            return values
        return values.clamp_(max=self._top)


def _highest_value(dtype: np.dtype, saturation: float | None) -> float:
    """What a written pixel holds at most; infinity where nothing cuts it."""
    highest = saturation or math.inf
    if dtype.kind == "u":
        highest = min(highest, float(np.iinfo(dtype).max))
    return highest


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
    with_noise = highest + 10 * math.sqrt(highest) + 10
    if with_noise < 256:
        return np.dtype(np.uint8)
    return np.dtype(np.uint16)


def _deposit(electrons: Tensor, variance: float, generator: torch.Generator) -> Tensor:
    """Sums of as many independent gamma variates of mean 1 and the given variance as there are
    electrons in each pixel.

    The sum over n is a gamma variate of shape a = n / variance. Wilson & Hilferty (PNAS 17, 684,
    1931): its cube root is near normal; with z normal, a (1 - 1/9a + z / 3 sqrt(a))^3, whose mean a
    (1 - (9a)^-3) is corrected here, has its variance to 0.5 % for a of 1 or more.
    """
    ninth = variance / (9 * electrons.clamp(min=1))  # 1 / 9a
    z = torch.randn(electrons.shape, generator=generator, device=electrons.device)
    deviation = z * ninth.sqrt()
    root = 1 - ninth + deviation
    cube = root.clamp(min=0).pow(3)
    mean = 1 - ninth.pow(3)
    return electrons * cube / mean
