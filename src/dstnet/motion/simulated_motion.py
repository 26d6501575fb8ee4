"""Motion as specimens have it, drawn at random: burst, drift, jitter, jumps and doming.

u_t(x) is the displacement in Angstrom, (y, x), of specimen content in frame t: frame_t(x) = clean(x
- u_t(x)). It is a shift of the whole field, the sum of its parts, plus a local polynomial in (x, y,
x^2 - 1/3, y^2 - 1/3, x y), with x and y running from -1 to 1 between the centres of the field's
outermost pixels, so that the local part has mean zero over the field. Every part is zero in the
first frame: the reference is where that has the specimen, as of sums (decision 19).
"""

import math
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from dstnet.core.fourier import frequencies
from dstnet.core.settings import Settings
from dstnet.core.shapes import Shape, Stack, Trajectory
from dstnet.motion.local_field import TERM_POWER, cubic_courses, local_basis
from dstnet.motion.motion import Motion


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
class SimulatedMotion:
    """The motion of one simulated movie, in its parts.

    Attributes
    ----------
    parts
        What makes up the shift of the whole field, by name ("burst", "drift", "jitter", "jumps"):
        [frame, 2] in Angstrom, (y, x), against the first frame.
    path_angstrom
        Displacement within each frame, end minus start, by burst and drift; for its blur.
    local_coefficients_angstrom
        [frame, 2, 5]: coefficients of (x, y, x^2 - 1/3, y^2 - 1/3, x y) for y and x, against the
        first frame.
    height_drift_angstrom
        [frame]: height of the film against its mean, positive towards the source, where underfocus
        is less by as much.
    """

    parts: dict[str, Trajectory]
    path_angstrom: Trajectory
    local_coefficients_angstrom: Stack
    height_drift_angstrom: Tensor

    @property
    def motion(self) -> Motion:
        """The complete motion: the sum of the parts, and the local motion."""
        shift = torch.stack(list(self.parts.values())).sum(0)
        return Motion(shift, self.local_coefficients_angstrom)


def draw_motion(
    settings: MotionSettings,
    frames: int,
    exposure_e_per_a2: float,
    pre_exposure_e_per_a2: float,
    field_angstrom: tuple[float, float],
    generator: torch.Generator,
) -> SimulatedMotion:
    """A random motion.

    Each part has a stream of its own, so that turning one on or off leaves the others as they are.

    Parameters
    ----------
    settings
        How specimens move.
    frames
        How many there are.
    exposure_e_per_a2, pre_exposure_e_per_a2
        Of each frame, and before the first.
    field_angstrom
        (y, x) of the field.
    generator
        On the CPU.
    """
    streams = _streams(generator)
    number = torch.arange(frames + 1, dtype=torch.float32)
    edges = pre_exposure_e_per_a2 + exposure_e_per_a2 * number
    course = torch.log1p(edges / settings.burst_onset_e_per_a2)
    burst = _burst(settings, course, streams["burst"])
    drift = _drift(settings, edges, streams["drift"])
    jitter = torch.randn(frames, 2, generator=streams["jitter"])
    parts = {
        "burst": 0.5 * (burst[1:] + burst[:-1]),
        "drift": 0.5 * (drift[1:] + drift[:-1]),
        "jitter": settings.jitter_angstrom * jitter,
        "jumps": _jumps(settings, frames, streams["jumps"]),
    }
    doming = _doming(settings, edges, streams["doming"])
    walk = _walk(settings, edges, field_angstrom, streams["walk"])
    local = doming + walk
    path = burst[1:] - burst[:-1] + drift[1:] - drift[:-1]
    twice_middle = course[1:] + course[:-1]
    twice_length = 2 * (course[-1] - course[0])
    height = settings.height_drift_angstrom * twice_middle / twice_length
    return SimulatedMotion(
        parts={name: part - part[0] for name, part in parts.items()},
        path_angstrom=path,
        local_coefficients_angstrom=local - local[0],
        height_drift_angstrom=height - height.mean(),
    )


_PARTS = ("burst", "drift", "jitter", "jumps", "doming", "walk")


def _streams(generator: torch.Generator) -> dict[str, torch.Generator]:
    """A generator for each part."""
    seeds = torch.randint(2**62, (len(_PARTS),), generator=generator).tolist()
    pairs = zip(_PARTS, seeds, strict=True)
    return {name: torch.Generator().manual_seed(seed) for name, seed in pairs}


def _burst(settings: MotionSettings, course: Tensor, generator: torch.Generator) -> Trajectory:
    """Place by the burst at the frames' edges in Angstrom, [edge, 2]."""
    # The burst turns a little, as tracks of real movies do.
    bend = 0.4 * torch.randn(1, generator=generator)
    start = 2 * math.pi * torch.rand(1, generator=generator)
    angle = start + bend * course / course[-1]
    direction = torch.stack((torch.sin(angle), torch.cos(angle)), 1)
    length = settings.burst_angstrom * course
    return length[:, None] * direction


def _drift(settings: MotionSettings, edges: Tensor, generator: torch.Generator) -> Trajectory:
    """Place by the drift at the frames' edges in Angstrom, [edge, 2]."""
    angle = 2 * math.pi * torch.rand(1, generator=generator)
    direction = torch.cat((torch.sin(angle), torch.cos(angle)))
    return settings.drift_angstrom_per_e * edges[:, None] * direction


def _jumps(settings: MotionSettings, frames: int, generator: torch.Generator) -> Trajectory:
    """Place by the stage's jumps in each frame in Angstrom, [frame, 2]."""
    number = 0
    if frames > 1:
        mean = torch.tensor(settings.jumps_per_movie)
        number = int(torch.poisson(mean, generator=generator))
    before = torch.randint(1, max(frames, 2), (number,), generator=generator)
    per_axis = settings.jump_angstrom / math.sqrt(2)
    vector = per_axis * torch.randn(number, 2, generator=generator)
    steps = torch.zeros(frames, 2).index_add_(0, before, vector)
    return steps.cumsum(0)


def _doming(settings: MotionSettings, edges: Tensor, generator: torch.Generator) -> Stack:
    """Each coefficient follows a mixture of its own of an early course, which settles as the burst
    does, and a late one.
    """
    middle = 0.5 * (edges[1:] + edges[:-1])
    early = 1 - torch.exp(-middle / 4)
    late = middle / edges[-1]
    courses = torch.stack((early, late), 1)
    mixture = torch.randn(2, 2, 5, generator=generator)
    local = torch.einsum("fc,cak->fak", courses, mixture)
    if len(middle) == 1:
        return torch.zeros_like(local)
    local = cubic_courses(local)
    power = local.square() * torch.tensor(TERM_POWER)
    rms = power.sum(-1).mean().sqrt()
    return local * (settings.local_angstrom / rms)


_PLACES = 11  # a side, at which the process is drawn


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
    covariance, projection = _walk_prior(settings, field_angstrom)
    # Cosines diagonalise the sum over differences, so the courses along them are independent of
    # each other.
    steps = math.ceil(float(edges[-1] - edges[0]))
    cosines, stiffness = _cosines(steps)
    stiffness = stiffness / settings.walk_acceleration_angstrom_per_e**2
    unit = torch.eye(len(covariance))
    system = unit + stiffness[:, None, None] * covariance
    held = torch.linalg.solve(system, covariance @ projection.T)
    factor = torch.linalg.cholesky(projection @ held)  # [cosine, 5, 5]
    white = torch.randn(steps, 5, 2, generator=generator, dtype=torch.float64)
    velocities = torch.einsum("js,jka->sak", cosines, factor @ white)
    moved = velocities.cumsum(0).float()
    place = torch.cat((torch.zeros(1, 2, 5), moved))
    # At the frames' middles, between the ends of the steps.
    exposure = (middle - edges[0]).clamp(max=steps)
    step = exposure.long().clamp(max=steps - 1)
    part = (exposure - step)[:, None, None]
    before = place[step]
    after = place[step + 1]
    return before + part * (after - before)


def _walk_prior(
    settings: MotionSettings, field_angstrom: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Covariance of velocities between places, [place, place]; and what takes values at the places
    to the polynomial's coefficients, [5, place].
    """
    number = torch.arange(_PLACES, dtype=torch.float64)
    nodes = (number + 0.5) * (2 / _PLACES) - 1
    grid_y, grid_x = torch.meshgrid(nodes, nodes, indexing="ij")
    y = grid_y.reshape(-1)
    x = grid_x.reshape(-1)
    height, width = field_angstrom
    places = 0.5 * torch.stack((y * height, x * width), 1)
    distance = torch.cdist(places, places)
    likeness = torch.exp(-distance / settings.walk_distance_angstrom)
    covariance = settings.walk_angstrom_per_e**2 * likeness
    constant = torch.ones(1, len(x))
    basis = torch.cat((constant, local_basis(y, x)))
    to_coefficients = torch.linalg.pinv(basis.T)
    return covariance, to_coefficients[1:]  # without the constant


def _cosines(steps: int) -> tuple[Tensor, Tensor]:
    """Cosines over the steps, [cosine, step], each of length 1; and the sum of squared differences
    from step to step of each, [cosine].
    """
    number = torch.arange(steps, dtype=torch.float64)
    angle = math.pi / steps * number
    waves = torch.cos(angle[:, None] * (number + 0.5))
    # Of two numbers this is in single precision, and the motion of a seed hangs on it.
    height = torch.where(number > 0, math.sqrt(2 / steps), math.sqrt(1 / steps))
    squared_differences = 2 - 2 * torch.cos(angle)
    return waves * height[:, None], squared_differences


def blur_of_path(
    shape: Shape,
    pixel_size_angstrom: float,
    path_angstrom: Tensor,
    device: torch.device | None = None,
) -> Tensor:
    """Amplitude kept while the specimen moves evenly along `path_angstrom` (y, x) during a frame:
    sinc(k . d) on the ``rfft2`` grid of images of `shape` (y, x).
    """
    ky, kx = frequencies(shape, pixel_size_angstrom, device or path_angstrom.device)
    dy, dx = path_angstrom.tolist()
    return torch.sinc(ky * dy + kx * dx)
