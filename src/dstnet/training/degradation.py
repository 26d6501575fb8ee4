"""What happens to images between the camera and here: coloured noise, filters and coarse pixels, illumination, dark things on the film.

The simulator makes clean exposures; this turns a crop into what people have, in units of the noise and together with its truths. Bands
that an image has no noise in are filled as enhancement fills them (`dstnet.movie.band.fill_band`).
"""

import math

import torch
from pydantic import Field
from torch import Tensor

from dstnet.core.fourier import radial_frequency
from dstnet.core.settings import Settings
from dstnet.core.shapes import Image, Stack
from dstnet.movie.normalise import NOISE_BAND


class DegradationSettings(Settings):
    """How often crops are given which fault; 0 is never. Pairs are (lowest, highest)."""

    coloured: float = Field(default=0.0, ge=0, le=1, description="part of crops with noise that grows towards coarse detail")
    coloured_power: tuple[float, float] = Field(default=(0.1, 6.0), description="of it at the coarsest, over the white noise's")
    fixed_pattern: float = Field(default=0.2, ge=0, le=1, description="part of those in which it is the same in all frames")
    illumination: float = Field(default=0.0, ge=0, le=1, description="part of crops with a gradient wider than the crop")
    tinted: float = Field(default=0.0, ge=0, le=1, description="part of crops whose signal and noise were filtered by a smooth transfer")
    limited: float = Field(default=0.0, ge=0, le=1, description="part of crops of coarse pixels or low-passed, the rest of the band filled")
    low_passed: float = Field(default=0.35, ge=0, le=1, description="part of those that were low-passed, to detail of 20 to 50 Å")
    dark: float = Field(default=0.0, ge=0, le=1, description="part of crops with something far darker than protein")


class Fields:
    """A crop's images while they are changed: frames [f, y, x], total and truths [y, x], all in units of the total's noise but the frames,
    which have noise one each."""

    def __init__(self, frames: Stack, total: Image, truths: dict[str, Image]):
        self.frames, self.total, self.truths = frames, total, truths

    def add(self, each: Stack) -> None:
        """Add something to each frame, and its share to the total."""
        self.frames = self.frames + each
        self.total = self.total + each.sum(0) / math.sqrt(len(each))

    def filter(self, transfer: Tensor, truths: tuple[str, ...]) -> None:
        shape = (self.total.shape[0], self.total.shape[1])

        def passed(image: Tensor) -> Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(image) * transfer, s=shape)

        self.frames, self.total = passed(self.frames), passed(self.total)
        for name in truths:
            self.truths[name] = passed(self.truths[name])

    def divide(self, noise: float, names: tuple[str, ...]) -> None:
        self.frames, self.total = self.frames / noise, self.total / noise
        for name in names:
            self.truths[name] = self.truths[name] / noise


IMAGES = ("target", "contrast", "frame_target")  # in units of noise; all but where particles are
SHOWN = ("target", "frame_target")  # what passes through the filters that the image passed through


def degrade(fields: Fields, s: DegradationSettings, pixel: float, generator: torch.Generator) -> None:
    """Give a crop its faults, in place."""
    shape, device = (fields.total.shape[0], fields.total.shape[1]), fields.total.device
    k = radial_frequency(shape, pixel, device)
    u = torch.rand(32, generator=generator).tolist()
    count = len(fields.frames)

    def log_uniform(low: float, high: float, at: float) -> float:
        return low * (high / low) ** at

    def white(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).to(device)

    if u[0] < s.dark:
        _darken(fields, pixel, generator)
    if u[1] < s.coloured:
        power = log_uniform(*s.coloured_power, u[2])
        spectrum = power / (1 + (k * log_uniform(15, 150, u[3])) ** (1.5 + 2.5 * u[4]))
        noise = torch.fft.irfft2(torch.fft.rfft2(white(count, *shape)) * spectrum.sqrt(), s=shape)
        if u[5] < s.fixed_pattern:
            noise = (noise[:1] * 0.5 / math.sqrt(count)).expand(count, -1, -1)
        fields.add(noise)
    if u[6] < s.illumination:
        y = torch.linspace(-1, 1, shape[0], device=device)[:, None]
        x = torch.linspace(-1, 1, shape[1], device=device)[None]
        a, b, c, d = (torch.randn(4, generator=generator) * log_uniform(0.05, 2.0, u[7])).tolist()
        ramp = a * y + b * x + c * (y * y - 1 / 3) + d * x * y
        fields.add((ramp / math.sqrt(count)).expand(count, -1, -1))
    if u[8] < s.tinted:
        tilt = 1 + (1.2 * u[9] - 0.4) * torch.exp(-((k * log_uniform(8, 60, u[10])) ** 2))
        fields.filter(tilt, SHOWN)
    if u[11] < s.limited:
        if u[12] < s.low_passed:
            edge, width = 1 / log_uniform(18, 55, u[13]), 0.15
        else:
            edge, width = (0.40 + 0.1 * u[14]) / log_uniform(2.2, 6.5, u[13]), 0.03
        _limit(fields, k, edge, edge * width, white)


def _limit(fields: Fields, k: Tensor, edge: float, width: float, white) -> None:
    """Keep what is coarser than 1 / `edge` alone, the rest white noise of the power just inside the edge, which becomes the unit."""
    shape = (fields.total.shape[0], fields.total.shape[1])
    kept = (0.5 + (edge - k) / width).clamp(0, 1)
    kept = torch.sin(0.5 * math.pi * kept)  # kept squared and filled squared are one together
    filled = (1 - kept * kept).clamp(min=0).sqrt()
    ring = (k > 0.8 * edge) & (k < 0.97 * edge)

    def level(image: Tensor) -> float:
        power = torch.fft.rfft2(image)[ring].abs().square().mean() / (shape[0] * shape[1])
        return max(float(power), 1e-6) ** 0.5

    count = len(fields.frames)
    whole = level(fields.total)
    each = torch.tensor([level(frame) for frame in fields.frames], device=k.device)[:, None, None]
    noise = torch.fft.rfft2(white(count, *shape))
    spectra = torch.fft.rfft2(fields.frames / each) * kept + noise * filled
    total = torch.fft.rfft2(fields.total / whole) * kept + noise.sum(0) / math.sqrt(count) * filled
    fields.frames, fields.total = torch.fft.irfft2(spectra, s=shape), torch.fft.irfft2(total, s=shape)
    for name in SHOWN:
        fields.truths[name] = torch.fft.irfft2(torch.fft.rfft2(fields.truths[name]) * kept, s=shape)
    for name in IMAGES:
        fields.truths[name] = fields.truths[name] / whole


def _darken(fields: Fields, pixel: float, generator: torch.Generator) -> None:
    """A disc, an edge of film or a lump, far darker than protein: there, nothing is to be found."""
    shape, device, count = fields.total.shape, fields.total.device, len(fields.frames)
    u = torch.rand(12, generator=generator).tolist()
    y = (torch.arange(shape[0], device=device) - u[0] * shape[0])[:, None]
    x = (torch.arange(shape[1], device=device) - u[1] * shape[1])[None]
    if u[2] < 0.35:  # a straight or bent edge that leaves most of the crop free
        angle = 2 * math.pi * u[3]
        towards = math.cos(angle) * (y + (u[0] - 0.5) * shape[0]) + math.sin(angle) * (x + (u[1] - 0.5) * shape[1])
        inside = towards - (0.15 + 0.4 * u[4]) * shape[0] + (2 * u[5] - 1) * 1e-3 * (y * y + x * x)
    else:
        angle = torch.atan2(y, x)
        lobes = 1 + 0.3 * u[6] * torch.sin(2 * angle + 6.3 * u[7]) + 0.15 * u[8] * torch.sin(5 * angle + 6.3 * u[4])
        inside = (40 * 12 ** u[3] / pixel / 1.0) * lobes - torch.hypot(y, x)
    width = 0.7 * 30 ** u[9]
    mask = torch.sigmoid(inside / width)
    depth = 0.5 * 60 ** u[10]
    rough = 1 + 0.15 * torch.nn.functional.interpolate(
        torch.randn(1, 1, 16, 16, generator=generator), size=tuple(shape), mode="bicubic"
    )[0, 0].to(device)
    fields.add((-depth / math.sqrt(count) * mask * rough).expand(count, -1, -1))
    free = (mask < 0.05).float()
    free = 1 - torch.nn.functional.max_pool2d(1 - free[None, None], 5, stride=1, padding=2)[0, 0]
    for name, image in fields.truths.items():
        fields.truths[name] = image * free
