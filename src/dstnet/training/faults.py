"""What happens to images between the camera and their user, done to simulated crops: noise that
grows towards coarse detail, illumination, and sums that were binned or low-passed.

What a binned or low-passed image holds no noise in is filled as enhancement fills it
(`dstnet.movie.band`), so that a network learns from what it will be given.
"""

import math
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from dstnet.core.fourier import cosine_frequency, cosine_transform, inverse_cosine_transform
from dstnet.core.settings import Settings
from dstnet.core.shapes import Image, Stack
from dstnet.movie.band import FLOOR_BAND, NoiseBand


class FaultSettings(Settings):
    """How often crops have which fault; by default none has any. Pairs are (lowest, highest)."""

    share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="part of the crops that may have any; the rest have none",
    )
    coloured: float = Field(
        default=0.4, ge=0, le=1, description="with noise that grows towards coarse detail"
    )
    coloured_power: tuple[float, float] = Field(
        default=(0.1, 6.0),
        description="of that noise where it is coarsest, over the shot noise's; log-uniform",
    )
    coloured_angstrom: tuple[float, float] = Field(
        default=(15.0, 150.0), description="detail at which it has fallen to half; log-uniform"
    )
    illumination: float = Field(
        default=0.3, ge=0, le=1, description="lit unevenly, by gradients wider than the crop"
    )
    most_illumination: float = Field(
        default=2.0, ge=0, description="rms of the gradient, in deviations of the shot noise"
    )
    limited: float = Field(
        default=0.5, ge=0, le=1, description="binned or low-passed, and the band filled with noise"
    )
    pixel_angstrom: tuple[float, float] = Field(
        default=(2.2, 6.5), description="to which such are binned; log-uniform"
    )
    low_passed: float = Field(
        default=0.35, ge=0, le=1, description="part of those that were low-passed instead"
    )
    low_pass_angstrom: tuple[float, float] = Field(
        default=(18.0, 55.0), description="where these lose their noise; log-uniform"
    )
    low_pass_power: tuple[float, float] = Field(
        default=(2.0, 7.0),
        description="logarithm of what is left of their noise's power there; 0 is nothing lost",
    )
    misjudged: float = Field(
        default=1.0,
        ge=0,
        description="rms by which that logarithm is misjudged when the filter is undone",
    )


@dataclass(frozen=True)
class Faults:
    """Those of one crop; what is zero or None is not there.

    Attributes
    ----------
    coloured_power, coloured_angstrom, coloured_slope
        Of the noise that grows towards coarse detail: its power where it is coarsest, in units of
        the shot noise's, where it has fallen to half, and how steeply.
    illumination
        Coefficients of y, x, y^2 - 1/3 and x y, from -1 to 1 over the crop, in deviations of the
        shot noise of the sum.
    band
        What the image holds noise in, its filter as it was.
    taken_for
        The same as it is judged when the filter is undone.
    """

    coloured_power: float = 0.0
    coloured_angstrom: float = 50.0
    coloured_slope: float = 2.0
    illumination: tuple[float, ...] = ()
    band: NoiseBand | None = None
    taken_for: NoiseBand | None = None

    def add_to(
        self, counts: Stack, pixel_size_angstrom: float, generator: torch.Generator
    ) -> Stack:
        """Counts [frame, y, x] with coloured noise and uneven illumination."""
        if not self.coloured_power and not self.illumination:
            return counts
        frames, height, width = counts.shape
        deviation = counts.mean().clamp(min=1e-12).sqrt()  # of shot noise in a frame
        if self.coloured_power:
            k = cosine_frequency((height, width), pixel_size_angstrom, counts.device)
            fall = 1 + (k * self.coloured_angstrom) ** self.coloured_slope
            amplitude = (self.coloured_power / fall).sqrt()
            white = torch.randn(counts.shape, generator=generator).to(counts.device)
            noise = torch.stack([inverse_cosine_transform(amplitude * image) for image in white])
            counts = counts + deviation * noise
        if self.illumination:
            a, b, c, d = self.illumination
            y = torch.linspace(-1, 1, height, device=counts.device)[:, None]
            x = torch.linspace(-1, 1, width, device=counts.device)
            ramp = a * y + b * x + c * (y * y - 1 / 3) + d * x * y
            counts = counts + deviation / math.sqrt(frames) * ramp
        return counts

    def limit(self, counts: Stack, pixel_size_angstrom: float, seed: int) -> Stack:
        """Counts [frame, y, x] binned or low-passed, and made white again as enhancement does."""
        if self.band is None or self.taken_for is None:
            return counts
        shape = (counts.shape[1], counts.shape[2])
        passed = torch.stack([self.band.filtered(one, pixel_size_angstrom) for one in counts])
        return self.taken_for.whitened(passed, shape, pixel_size_angstrom, seed)

    def limit_signal(self, image: Image, pixel_size_angstrom: float) -> Image:
        """What `limit` leaves of a signal."""
        if self.band is None or self.taken_for is None:
            return image
        k = cosine_frequency((image.shape[0], image.shape[1]), pixel_size_angstrom, image.device)
        transfer = self._left_of_signal(k)
        return inverse_cosine_transform(transfer * cosine_transform(image))

    def _left_of_signal(self, k: Tensor) -> Tensor:
        assert self.band is not None
        assert self.taken_for is not None
        return self.band.transfer(k) * self.taken_for.flattening(k)


NO_FAULTS = Faults()


def draw_faults(settings: FaultSettings, generator: torch.Generator) -> Faults:
    """The faults of one crop."""
    u = torch.rand(12, generator=generator).tolist()
    normal = torch.randn(5, generator=generator).tolist()
    if u[0] >= settings.share:
        return NO_FAULTS
    coloured_power = 0.0
    if u[1] < settings.coloured:
        coloured_power = _log_uniform(settings.coloured_power, u[2])
    illumination = ()
    if u[3] < settings.illumination:
        illumination = tuple(settings.most_illumination * u[4] * value for value in normal[:4])
    band = None
    taken_for = None
    if u[5] < settings.limited:
        if u[6] < settings.low_passed:
            edge = 1 / _log_uniform(settings.low_pass_angstrom, u[7])
            low, high = settings.low_pass_power
            lost = low + (high - low) * u[8]
            judged = max(0.0, lost + settings.misjudged * normal[4])
            band = NoiseBand(lost / edge**2, edge)
            taken_for = NoiseBand(judged / edge**2, edge)
        else:
            edge = FLOOR_BAND[1] * 0.5 / _log_uniform(settings.pixel_angstrom, u[7])
            band = taken_for = NoiseBand(0.0, edge)
    return Faults(
        coloured_power=coloured_power,
        coloured_angstrom=_log_uniform(settings.coloured_angstrom, u[9]),
        coloured_slope=1.5 + 2.5 * u[10],
        illumination=illumination,
        band=band,
        taken_for=taken_for,
    )


def _log_uniform(between: tuple[float, float], u: float) -> float:
    low, high = between
    return low * (high / low) ** u
