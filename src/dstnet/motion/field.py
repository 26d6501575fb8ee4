"""Motion of the specimen: one representation for planted truth and for estimates.

u_t(x) is the displacement in Angstrom, (y, x), of specimen content in frame t: frame_t(x) = clean(x - u_t(x)). It is a trajectory of the
whole field plus a local polynomial in (x, y, x^2 - 1/3, y^2 - 1/3, x y), with x and y running from -1 to 1 over the field, so that the
local part has mean zero over the field.
"""

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from dstnet.core.fourier import frequencies
from dstnet.core.settings import Settings
from dstnet.core.shapes import Image, Stack, Trajectory


class MotionSettings(Settings):
    """Beam-induced motion and stage drift."""

    burst_angstrom: float = Field(
        default=3.0,
        ge=0,
        description="early burst: speed burst/N at exposure N; 3 Å fits the 2.1, 0.67, 0.22, 0.13 Å per 0.33 e-/Å2 of gold grids",
    )
    burst_onset_e_per_a2: float = Field(default=0.1, gt=0, description="the burst's speed stops growing below this exposure")
    drift_angstrom_per_e: float = Field(default=0.05, ge=0, description="steady drift per e-/Å2")
    jitter_angstrom: float = Field(default=0.1, ge=0, description="rms of each frame's independent displacement per axis")
    local_angstrom: float = Field(default=0.5, ge=0, description="rms of local motion over the field and the frames after the first")


def draw_motion(
    settings: MotionSettings, frames: int, exposure_e_per_a2: float, pre_exposure_e_per_a2: float, generator: torch.Generator
) -> tuple[Trajectory, Trajectory, Stack]:
    """A random motion of `frames` frames of `exposure_e_per_a2` each.

    Returns
    -------
    trajectory
        Mean displacement of each frame, (y, x) in Angstrom, mean over frames zero.
    path
        Displacement within each frame (end minus start), for its blur.
    local
        Coefficients of the local polynomial, [frame, 2, 5] in Angstrom, mean over frames zero.
    """
    edges = pre_exposure_e_per_a2 + exposure_e_per_a2 * torch.arange(frames + 1, dtype=torch.float32)
    burst = settings.burst_angstrom * torch.log1p(edges / settings.burst_onset_e_per_a2)
    angles = 2 * math.pi * torch.rand(2, generator=generator)
    bend = torch.randn(1, generator=generator) * 0.4  # the burst turns a little, as tracks of real movies do
    direction = angles[0] + bend * burst / burst[-1].clamp(min=1e-6)
    at_edges = burst[:, None] * torch.stack((torch.sin(direction), torch.cos(direction)), 1)
    at_edges = at_edges + settings.drift_angstrom_per_e * edges[:, None] * torch.stack((torch.sin(angles[1]), torch.cos(angles[1])))
    trajectory = 0.5 * (at_edges[1:] + at_edges[:-1]) + settings.jitter_angstrom * torch.randn(frames, 2, generator=generator)
    path = at_edges[1:] - at_edges[:-1]
    # Local doming settles as the burst does, each coefficient along its own mixture of an early and a late course.
    middle = 0.5 * (edges[1:] + edges[:-1])
    courses = torch.stack((1 - torch.exp(-middle / 4), middle / edges[-1]), 1)  # [frame, 2]
    mixture = torch.randn(2, 2, 5, generator=generator)
    local = torch.einsum("fc,cak->fak", courses, mixture)
    local = local - local.mean(0)
    rms = (local.square() * _POLYNOMIAL_POWER).sum(-1).mean().sqrt()
    local = local * (settings.local_angstrom / rms.clamp(min=1e-6)) if frames > 1 else torch.zeros_like(local)
    return trajectory - trajectory.mean(0), path, local


# Mean square over [-1, 1]^2 of x, y, x^2 - 1/3, y^2 - 1/3, x y
_POLYNOMIAL_POWER = torch.tensor([1 / 3, 1 / 3, 4 / 45, 4 / 45, 1 / 9])


def local_displacement(coefficients: Tensor, shape: tuple[int, int], grow: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Local motion on a pixel grid, [2, y, x] in Angstrom, from one frame's [2, 5] coefficients.

    `grow` = (y, x): how many times larger the grid is than the field that the polynomial is defined over (padding around a field).
    """
    y = torch.linspace(-grow[0], grow[0], shape[0])[:, None].expand(shape)
    x = torch.linspace(-grow[1], grow[1], shape[1])[None, :].expand(shape)
    basis = torch.stack((x, y, x * x - 1 / 3, y * y - 1 / 3, x * y))
    return torch.einsum("ak,kyx->ayx", coefficients, basis)


def warp(image: Image, displacement_px: Tensor) -> Image:
    """Move an image's content by a field [2, y, x] in pixels, (y, x): out(x) = image(x - u(x)), bicubic, borders repeated."""
    height, width = image.shape
    y = torch.arange(height)[:, None] - displacement_px[0]
    x = torch.arange(width)[None, :] - displacement_px[1]
    grid = torch.stack((2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1), -1)
    return F.grid_sample(image[None, None], grid[None], mode="bicubic", padding_mode="border", align_corners=True)[0, 0]


def blur_of_path(shape: tuple[int, int], pixel_size_angstrom: float, path_angstrom: Tensor) -> Tensor:
    """Amplitude kept while the specimen moves evenly along `path_angstrom` (y, x) during a frame: sinc(k . d) on the ``rfft2`` grid."""
    ky, kx = frequencies(shape, pixel_size_angstrom)
    return torch.sinc(ky * path_angstrom[0] + kx * path_angstrom[1])
