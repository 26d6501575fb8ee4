"""Motion of the specimen: one representation for planted truth and for estimates.

u_t(x) is the displacement in Angstrom, (y, x), of specimen content in frame t: frame_t(x) = clean(x
- u_t(x)). It is a shift of the whole field, the sum of its parts, plus a local polynomial in (x, y,
x^2 - 1/3, y^2 - 1/3, x y), with x and y running from -1 to 1 between the centres of the field's
outermost pixels, so that the local part has mean zero over the field. Over the frames, every part
has mean zero: the reference is the mean position.
"""

import math
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from dstnet.core.fourier import frequencies
from dstnet.core.settings import Settings
from dstnet.core.shapes import Stack, Trajectory


class MotionSettings(Settings):
    """Beam-induced motion and stage drift."""

    burst_angstrom: float = Field(
        default=3.0,
        ge=0,
        description=(
            "early burst: speed burst/N at exposure N; 3 Å fits the 2.1, 0.67, 0.22, 0.13 Å per"
            " 0.33 e-/Å2 of gold grids"
        ),
    )
    burst_onset_e_per_a2: float = Field(
        default=0.1, gt=0, description="the burst's speed stops growing below this exposure"
    )
    drift_angstrom_per_e: float = Field(default=0.05, ge=0, description="steady drift per e-/Å2")
    jitter_angstrom: float = Field(
        default=0.1, ge=0, description="rms of each frame's independent displacement per axis"
    )
    jumps_per_movie: float = Field(
        default=0.0, ge=0, description="mean number of sudden stage jumps, each between two frames"
    )
    jump_angstrom: float = Field(default=5.0, ge=0, description="rms length of a stage jump")
    local_angstrom: float = Field(
        default=0.5,
        ge=0,
        description=(
            "rms of doming over the field and the frames after the first; its course is cubic in"
            " the frame number"
        ),
    )
    walk_angstrom_per_e: float = Field(
        default=0.0,
        ge=0,
        description=(
            "rms velocity per e-/Å2 and axis of local motion as a Gaussian process, which comes on"
            " top of doming; 0.2 Å is usual (Zivanov et al. 2019)"
        ),
    )
    walk_distance_angstrom: float = Field(
        default=5000.0, gt=0, description="distance at which the process' velocities agree by 1/e"
    )
    walk_acceleration_angstrom_per_e: float = Field(
        default=2.0,
        gt=0,
        description=(
            "rms change of the process' velocity from one e-/Å2 to the next that its prior allows"
        ),
    )
    height_drift_angstrom: float = Field(
        default=0.0,
        description=(
            "change of the film's height over the movie, along the burst's course; positive towards"
            " the source"
        ),
    )


@dataclass(frozen=True)
class Motion:
    """The motion of one movie.

    Attributes
    ----------
    parts
        What makes up the shift of the whole field, by name ("burst", "drift", "jitter", "jumps"):
        [frame, 2] in Angstrom, (y, x), mean over frames zero.
    path_angstrom
        Displacement within each frame, end minus start, by burst and drift; for its blur.
    local_coefficients_angstrom
        [frame, 2, 5]: coefficients of (x, y, x^2 - 1/3, y^2 - 1/3, x y) for y and x, mean over
        frames zero.
    height_drift_angstrom
        [frame]: height of the film against its mean, positive towards the source, where underfocus
        is less by as much.
    """

    parts: dict[str, Trajectory]
    path_angstrom: Trajectory
    local_coefficients_angstrom: Stack
    height_drift_angstrom: Tensor

    @property
    def global_shift_angstrom(self) -> Trajectory:
        """Shift of the whole field in each frame, [frame, 2]: the sum of the parts."""
        return torch.stack(list(self.parts.values())).sum(0)


def draw_motion(
    settings: MotionSettings,
    frames: int,
    exposure_e_per_a2: float,
    pre_exposure_e_per_a2: float,
    field_angstrom: tuple[float, float],
    generator: torch.Generator,
) -> Motion:
    """A random motion of `frames` frames of `exposure_e_per_a2` each, over a field of
    `field_angstrom` (y, x).

    Each part has a stream of its own, so that turning one on or off leaves the others as they are.
    """
    names = ("burst", "drift", "jitter", "jumps", "doming", "walk")
    seeds = torch.randint(2**62, (len(names),), generator=generator).tolist()
    streams = {
        name: torch.Generator().manual_seed(seed) for name, seed in zip(names, seeds, strict=True)
    }
    edges = pre_exposure_e_per_a2 + exposure_e_per_a2 * torch.arange(
        frames + 1, dtype=torch.float32
    )

    course = torch.log1p(edges / settings.burst_onset_e_per_a2)
    burst = settings.burst_angstrom * course
    bend = 0.4 * torch.randn(
        1, generator=streams["burst"]
    )  # the burst turns a little, as tracks of real movies do
    angle = 2 * math.pi * torch.rand(1, generator=streams["burst"]) + bend * course / course[-1]
    burst = burst[:, None] * torch.stack((torch.sin(angle), torch.cos(angle)), 1)
    angle = 2 * math.pi * torch.rand(1, generator=streams["drift"])
    drift = (
        settings.drift_angstrom_per_e
        * edges[:, None]
        * torch.cat((torch.sin(angle), torch.cos(angle)))
    )
    parts = {
        "burst": 0.5 * (burst[1:] + burst[:-1]),
        "drift": 0.5 * (drift[1:] + drift[:-1]),
        "jitter": settings.jitter_angstrom * torch.randn(frames, 2, generator=streams["jitter"]),
        "jumps": _jumps(settings, frames, streams["jumps"]),
    }
    local = _doming(settings, edges, streams["doming"]) + _walk(
        settings, edges, field_angstrom, streams["walk"]
    )
    height = (
        settings.height_drift_angstrom * (course[1:] + course[:-1]) / (2 * (course[-1] - course[0]))
    )
    return Motion(
        {name: part - part.mean(0) for name, part in parts.items()},
        burst[1:] - burst[:-1] + drift[1:] - drift[:-1],
        local - local.mean(0),
        height - height.mean(),
    )


def _jumps(settings: MotionSettings, frames: int, generator: torch.Generator) -> Trajectory:
    number = (
        int(torch.poisson(torch.tensor(settings.jumps_per_movie), generator=generator))
        if frames > 1
        else 0
    )
    before = torch.randint(1, max(frames, 2), (number,), generator=generator)
    vector = settings.jump_angstrom / math.sqrt(2) * torch.randn(number, 2, generator=generator)
    return torch.zeros(frames, 2).index_add_(0, before, vector).cumsum(0)


# Mean square over [-1, 1]^2 of x, y, x^2 - 1/3, y^2 - 1/3, x y
_POLYNOMIAL_POWER = torch.tensor([1 / 3, 1 / 3, 4 / 45, 4 / 45, 1 / 9])


def _doming(settings: MotionSettings, edges: Tensor, generator: torch.Generator) -> Stack:
    """Each coefficient follows a mixture of its own of an early course, which settles as the burst
    does, and a late one.
    """
    middle = 0.5 * (edges[1:] + edges[:-1])
    courses = torch.stack((1 - torch.exp(-middle / 4), middle / edges[-1]), 1)  # [frame, 2]
    local = torch.einsum("fc,cak->fak", courses, torch.randn(2, 2, 5, generator=generator))
    if len(middle) == 1:
        return torch.zeros_like(local)
    local = cubic_courses(local)
    rms = (local.square() * _POLYNOMIAL_POWER).sum(-1).mean().sqrt()
    return local * (settings.local_angstrom / rms)


def _walk(
    settings: MotionSettings,
    edges: Tensor,
    field_angstrom: tuple[float, float],
    generator: torch.Generator,
) -> Stack:
    """Local motion as the Gaussian process that Bayesian polishing takes for its prior, as far as
    the polynomial holds it.

    With v_i the velocities of a component at all places in step i, their density is exp(-sum_i
    v_i^T K^-1 v_i / 2 - sum_i |v_i - v_i-1|^2 / (2 acceleration^2)), K = velocity^2 exp(-distance /
    walk_distance). Steps are of 1 e-/Å2 whatever the frames, so the motion does not depend on how
    the exposure is cut. What the field has in common is left to the other parts, and what a
    quadratic does not hold is dropped: at the published distance of 5000 Å, 31 % of the variance
    about the mean of a field of 1000 Å and 36 % at 4000 Å.

    References
    ----------
    Zivanov, Nakane & Scheres, IUCrJ 6, 5 (2019).
    """
    middle = 0.5 * (edges[1:] + edges[:-1])
    if settings.walk_angstrom_per_e == 0 or len(middle) == 1:
        return torch.zeros(len(middle), 2, 5)
    nodes = (torch.arange(11, dtype=torch.float64) + 0.5) * (2 / 11) - 1
    y, x = (a.reshape(-1) for a in torch.meshgrid(nodes, nodes, indexing="ij"))
    places = 0.5 * torch.stack((y * field_angstrom[0], x * field_angstrom[1]), 1)
    covariance = settings.walk_angstrom_per_e**2 * torch.exp(
        -torch.cdist(places, places) / settings.walk_distance_angstrom
    )
    projection = torch.linalg.pinv(torch.cat((torch.ones(1, len(x)), _basis(y, x))).T)[
        1:
    ]  # [5, place]
    # Cosines diagonalise the sum over differences, so the courses along them are independent of
    # each other.
    steps = math.ceil(float(edges[-1] - edges[0]))
    j = torch.arange(steps, dtype=torch.float64)
    cosines = (
        torch.cos(math.pi / steps * j[:, None] * (j + 0.5))
        * torch.where(j > 0, math.sqrt(2 / steps), math.sqrt(1 / steps))[:, None]
    )
    stiffness = (
        2 - 2 * torch.cos(math.pi / steps * j)
    ) / settings.walk_acceleration_angstrom_per_e**2
    held = torch.linalg.solve(
        torch.eye(len(x)) + stiffness[:, None, None] * covariance, covariance @ projection.T
    )
    factor = torch.linalg.cholesky(projection @ held)  # [cosine, 5, 5]
    drawn = factor @ torch.randn(steps, 5, 2, generator=generator, dtype=torch.float64)
    place = torch.einsum("js,jka->sak", cosines, drawn).cumsum(0).float()
    place = torch.cat((torch.zeros(1, 2, 5), place))
    after = (middle - edges[0]).clamp(max=steps)
    whole = after.long().clamp(max=steps - 1)
    return place[whole] + (after - whole)[:, None, None] * (place[whole + 1] - place[whole])


def cubic_courses(local_coefficients: Stack) -> Stack:
    """The nearest courses that are cubic polynomials in the frame number (least squares), through
    the first frame's values, mean zero.

    These are what RELION's model of local motion can hold: doming wholly, the Gaussian process of
    published size all but 17 % of its variance.
    """
    frames = len(local_coefficients)
    course = (local_coefficients - local_coefficients[0]).double().flatten(1)
    z = torch.arange(frames, dtype=torch.float64, device=course.device) / max(frames - 1, 1)
    powers = torch.stack((z, z**2, z**3), 1)
    course = (powers @ (torch.linalg.pinv(powers) @ course)).reshape(local_coefficients.shape)
    return (course - course.mean(0)).float()


def local_displacement(coefficients: Tensor, shape: tuple[int, int]) -> Tensor:
    """Local motion on a field's pixels, [2, y, x] in the unit of one frame's [2, 5]
    coefficients.
    """
    y = torch.linspace(-1, 1, shape[0], device=coefficients.device)[:, None].expand(shape)
    x = torch.linspace(-1, 1, shape[1], device=coefficients.device)[None, :].expand(shape)
    return torch.einsum("ak,kyx->ayx", coefficients, _basis(y, x))


def displacement_at(
    motion: Motion, frame: int, points_px: Tensor, shape: tuple[int, int]
) -> Tensor:
    """Displacement u in Angstrom, [point, 2], of frame `frame` at `points_px` [point, 2], (y, x) in
    pixels of a field of `shape`.
    """
    y, x = (2 * points_px[:, i] / (shape[i] - 1) - 1 for i in (0, 1))
    local = torch.einsum("ak,kp->pa", motion.local_coefficients_angstrom[frame].to(x), _basis(y, x))
    return motion.global_shift_angstrom[frame].to(x) + local


def _basis(y: Tensor, x: Tensor) -> Tensor:
    return torch.stack((x, y, x * x - 1 / 3, y * y - 1 / 3, x * y))


def blur_of_path(
    shape: tuple[int, int], pixel_size_angstrom: float, path_angstrom: Tensor, device=None
) -> Tensor:
    """Amplitude kept while the specimen moves evenly along `path_angstrom` (y, x) during a frame:
    sinc(k . d) on the ``rfft2`` grid.
    """
    ky, kx = frequencies(shape, pixel_size_angstrom, device or path_angstrom.device)
    dy, dx = path_angstrom.tolist()
    return torch.sinc(ky * dy + kx * dx)
