"""Sums of a movie's frames with the motion taken out."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.alignment.global_motion import Progress, checked_frame, estimate_motion
from dstnet.alignment.movie_motion import MovieMotion
from dstnet.alignment.settings import AlignmentSettings
from dstnet.core.fourier import crop_spectrum, frequencies, irfft2, scale_, shift_factors
from dstnet.core.shapes import Image, Stack, Trajectory
from dstnet.errors import BadInputError, SettingsError
from dstnet.motion.exposure_filter import critical_exposure
from dstnet.motion.warp import warp_local, warp_prefilter
from dstnet.movie import Movie


@dataclass(frozen=True)
class AlignedMovie:
    """A movie after motion correction: its sums, and groups of its frames on a working grid.

    Attributes
    ----------
    total
        Sum of all frames, in the movie's unit (intensity per pixel of the *movie*, binned or not).
    dose_weighted
        Sum with each frequency weighted by the signal that damage has left in each frame, scaled so
        that white noise in the frames stays white, of the variance it has in `total`, and the
        lowest frequencies equal those of `total`. None where the exposure is unknown.
    even, odd
        Plain sums of every other frame, counted from 0 as RELION does: `even` has the first, the
        third and so on. None where not asked for.
    fractions
        Sums over contiguous, nearly equal groups of frames, resampled to the working grid,
        [fraction, y, x]. The resampling keeps intensities: a value is counts per pixel of the
        *movie*, so the mean over a fraction equals that of its frames' sum. No fraction where no
        working pixel was given.
    fraction_frames
        Number of frames in each fraction.
    fraction_exposure_e_per_a2
        Accumulated exposure of the specimen at the middle of each fraction; None where the exposure
        is unknown.
    working_pixel_angstrom
        Sampling of `fractions`: mean over the two axes, which differ by the rounding of their
        sizes.
    motion
        The motion taken out.
    pixel_size_angstrom
        Sampling of the sums: mean over the two axes.
    margin_px
        Rows at top and bottom, and columns at left and right, (y, x) in pixels of the sums, that
        not all frames saw; there, frames are continued by reflection, and periodically over the
        reach of the local motion.
    notes
        What the user should know of the estimation.
    """

    total: Image
    dose_weighted: Image | None
    even: Image | None
    odd: Image | None
    fractions: Stack
    fraction_frames: tuple[int, ...]
    fraction_exposure_e_per_a2: tuple[float, ...] | None
    working_pixel_angstrom: float
    motion: MovieMotion
    pixel_size_angstrom: float
    margin_px: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def shifts_angstrom(self) -> Trajectory:
        """Shift of the whole field in each frame, [frame, 2], (y, x)."""
        return self.motion.shifts_angstrom


def align(
    movie: Movie,
    settings: AlignmentSettings,
    *,
    working_pixel_angstrom: float | None = None,
    max_fractions: int = 8,
    halves: bool = False,
    motion: MovieMotion | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> AlignedMovie:
    """Estimate the motion of a movie, take it out and sum.

    Frames are read twice, once where `motion` is given or none is to be found (settings:
    pre_aligned). Memory holds a few images and, while the motion is estimated, the low frequencies
    of all frames (settings: max_coefficients).

    Parameters
    ----------
    movie
        The movie.
    settings
        How to estimate, and the binning of the sums.
    working_pixel_angstrom
        Wanted sampling of the fractions; None: none are made.
    max_fractions
        Most fractions; a movie of fewer frames gets one fraction a frame.
    halves
        Whether to make the even and the odd sum too.
    motion
        Motion found elsewhere: nothing is estimated.
    device
        Where the arithmetic is done and the result lies.
    progress
        Called after each frame read, as (frames done, frames in all), over both readings.

    Raises
    ------
    BadInputError
        If a frame is constant, holds NaN or infinity, cannot be read, or is too small to align; or
        if `motion` does not fit the movie.
    SettingsError
        If the working pixel or the number of fractions is not positive.
    """
    n = len(movie)
    notes: list[str] = []
    if motion is None and settings.pre_aligned:
        motion = MovieMotion.of_shifts(torch.zeros(n, 2))
    steps = n if motion is not None else 2 * n

    def later(done: int, _: int) -> None:
        if progress is not None:
            progress(done + steps - n, steps)

    def earlier(done: int, _: int) -> None:
        if progress is not None:
            progress(done, steps)

    if motion is None:
        motion, notes = estimate_motion(movie, settings, earlier, device)
    return accumulate(
        movie,
        motion,
        working_pixel_angstrom=working_pixel_angstrom,
        max_fractions=max_fractions,
        halves=halves,
        binning=settings.bin,
        progress=later,
        device=device,
        notes=tuple(notes),
    )


def accumulate(
    movie: Movie,
    motion: MovieMotion | Trajectory,
    *,
    working_pixel_angstrom: float | None,
    max_fractions: int,
    halves: bool = False,
    binning: float = 1.0,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
    notes: tuple[str, ...] = (),
) -> AlignedMovie:
    """Undo the motion of each frame and sum: plain, dose-weighted, and in fractions on a coarser
    grid.

    Whole pixels are moved by indexing (the border continued by reflection, so that nothing wraps
    from the opposite edge), the rest by a Fourier phase, which keeps white noise white; or, where
    there is local motion, together with it by `warp_local`, which keeps detail of up to 0.4 cycles
    per pixel and loses up to 15 % at 0.45, halfway between pixels. Each frame is read once; memory
    holds a few full-size spectra, whatever the number of frames.

    Parameters are those of `align`, with the motion given, or the shifts of the whole field alone,
    and `binning` as in the settings.

    Raises
    ------
    BadInputError
        If the motion is not one finite set a frame, or a frame is constant, holds NaN or infinity,
        or cannot be read.
    SettingsError
        If the working pixel or the number of fractions is not positive.

    References
    ----------
    Dose weighting: Grant & Grigorieff, eLife 4:e06980 (2015), eq. 9.
    """
    n, shape, pixel = len(movie), movie.shape, movie.pixel_size_angstrom
    motion = _checked(motion, movie, device)
    if (working_pixel_angstrom is not None and not working_pixel_angstrom > 0) or max_fractions < 1:
        raise SettingsError(
            f"working pixel {working_pixel_angstrom} Å and {max_fractions} fractions were asked"
            " for; give a positive size and at least 1"
        )
    small = (
        shape if working_pixel_angstrom is None else _coarser(shape, working_pixel_angstrom / pixel)
    )
    out = _coarser(shape, binning)
    groups = 0 if working_pixel_angstrom is None else min(n, max_fractions)
    counts = [n // groups + (i < n % groups) for i in range(groups)]
    ends = torch.tensor(counts, dtype=torch.long).cumsum(0).tolist()
    undamped = warp_prefilter(shape, device) if motion.is_local else None

    fractions = torch.empty(groups, *small, device=device)
    total = torch.zeros(shape[0], shape[1] // 2 + 1, dtype=torch.complex64, device=device)
    even = torch.zeros_like(total) if halves else None
    before = torch.zeros(
        (), device=device
    )  # the total on the working grid at the end of the last fraction
    weighting = (
        None
        if movie.exposure_e_per_a2 is None
        else _DoseWeighting(movie, movie.exposure_e_per_a2, out, device)
    )
    done = 0
    for i in range(n):
        spectrum = _still(checked_frame(movie, i, device), motion, i, pixel, undamped)
        total += spectrum
        if even is not None and i % 2 == 0:
            even += spectrum
        if weighting is not None:
            weighting.add(spectrum if out == shape else crop_spectrum(spectrum, shape, out))
        if groups and i + 1 == ends[done]:
            now = total.clone() if small == shape else crop_spectrum(total, shape, small)
            fractions[done] = irfft2(now - before, small)
            before, done = now, done + 1
        if progress is not None:
            progress(i + 1, n)
    exposures = None
    if movie.exposure_e_per_a2 is not None:
        exposures = tuple(
            movie.pre_exposure_e_per_a2 + movie.exposure_e_per_a2 * (end - count / 2)
            for end, count in zip(ends, counts, strict=True)
        )
    if out != shape:
        total, even = (
            crop_spectrum(total, shape, out),
            (even if even is None else crop_spectrum(even, shape, out)),
        )
    reach = torch.stack([_reach(motion, i) for i in range(n)]).amax(0) / pixel
    return AlignedMovie(
        total=irfft2(total, out),
        dose_weighted=None if weighting is None else irfft2(weighting.result(), out),
        even=None if even is None else irfft2(even, out),
        odd=None if even is None else irfft2(total - even, out),
        fractions=fractions,
        fraction_frames=tuple(counts),
        fraction_exposure_e_per_a2=exposures,
        working_pixel_angstrom=pixel * 0.5 * (shape[0] / small[0] + shape[1] / small[1]),
        motion=motion,
        pixel_size_angstrom=pixel * 0.5 * (shape[0] / out[0] + shape[1] / out[1]),
        margin_px=(
            math.ceil(float(reach[0]) * out[0] / shape[0]),
            math.ceil(float(reach[1]) * out[1] / shape[1]),
        ),
        notes=notes,
    )


def _checked(
    motion: MovieMotion | Trajectory, movie: Movie, device: torch.device | str
) -> MovieMotion:
    """A copy of the motion on the device, if it fits the movie."""
    if isinstance(motion, Tensor):
        motion = MovieMotion.of_shifts(motion)
    n, shifts, local = len(movie), motion.shifts_angstrom, motion.local_coefficients_angstrom
    if tuple(shifts.shape) != (n, 2) or not bool(torch.isfinite(shifts).all()):
        raise BadInputError(
            f"{movie.name}: shifts of shape {tuple(shifts.shape)} are not one finite (y, x) for"
            f" each of {n} frames"
        )
    if tuple(local.shape) != (n, 2, 5) or not bool(torch.isfinite(local).all()):
        raise BadInputError(
            f"{movie.name}: local motion of shape {tuple(local.shape)} is not finite [2, 5] for"
            f" each of {n} frames"
        )
    return MovieMotion(
        shifts.to(device, torch.float32, copy=True), local.to(device, torch.float32, copy=True)
    )


def _reach(motion: MovieMotion, frame: int) -> Tensor:
    """A bound on the displacement within a frame, [2] in the motion's unit: no term of the
    polynomial exceeds 1.
    """
    return motion.shifts_angstrom[frame].abs() + motion.local_coefficients_angstrom[
        frame
    ].abs().sum(1)


def _still(
    frame: Image, motion: MovieMotion, index: int, pixel: float, undamped: Tensor | None
) -> Tensor:
    """Spectrum of a frame with its motion taken out; `undamped` is `warp_prefilter`'s where there
    is local motion.
    """
    shape = (frame.shape[0], frame.shape[1])
    c = (
        motion.coefficients_where_seen(index, ((shape[0] - 1) * pixel, (shape[1] - 1) * pixel))
        .double()
        .cpu()
        / pixel
    )
    dy, dx = c[:, 5].tolist()
    whole = (round(dy), round(dx))
    part = (whole[0] - dy, whole[1] - dx)
    moved = _moved(frame, whole)
    if undamped is None:
        spectrum = torch.fft.rfft2(moved)
        for axis, factor in enumerate(shift_factors(shape, part, frame.device)):
            if part[axis]:
                spectrum.mul_(factor)
        return spectrum
    # Content displaced by u is brought back by out(x) = image(x + u(x)): the field with the other
    # sign. What the kernel damps is restored after it, which the field's small gradient allows:
    # before it, every frame would need two more transforms.
    return scale_(torch.fft.rfft2(warp_local(moved, -c[:, :5], shift_px=part)), undamped)


# exponent: what decayed so far has no weight, and the square of its inverse is still a number
_MOST_DECAY = 40.0


class _DoseWeighting:
    """Accumulates sum(w F) over frames, added in order.

    The result sum(w F) / sqrt(sum(w^2) / n) keeps white noise white. A factor common to all frames'
    weights at a frequency cancels in it. Weights fall by the same factor q from frame to frame, so
    that the sum so far over q, plus the next frame, is all there is to do: weights relative to the
    latest frame, whatever the exposure before the first.
    """

    def __init__(
        self,
        movie: Movie,
        exposure_e_per_a2: float,
        shape: tuple[int, int],
        device: torch.device | str,
    ) -> None:
        self.frames = len(movie)
        ky, kx = (
            f / movie.pixel_size_angstrom * (n / size)
            for f, n, size in zip(frequencies(shape, 1.0, device), shape, movie.shape, strict=True)
        )
        decay = (
            0.5 * exposure_e_per_a2 / critical_exposure(torch.hypot(ky, kx), movie.voltage_kv)
        )  # -ln(q)
        self.decay = decay.clamp_(max=_MOST_DECAY / self.frames)
        self.total = torch.zeros(*decay.shape, 2, device=device)  # (real, imaginary)
        # Over complex numbers this is spread out to pairs: to do so anew for every frame takes
        # twice as long as all the rest.
        self.growth = decay.exp()[..., None].expand(-1, -1, 2).contiguous()

    def add(self, spectrum: Tensor) -> None:
        """Add the next frame."""
        torch.addcmul(torch.view_as_real(spectrum), self.total, self.growth, out=self.total)

    def result(self) -> Tensor:
        n = self.frames
        # With weights relative to the last frame's, sum(w^2) = sum over j of q^-2j, j < n: (q^-2n -
        # 1) / (q^-2 - 1).
        squares = torch.where(
            self.decay > 0, torch.expm1(2 * n * self.decay) / torch.expm1(2 * self.decay), n
        )
        return torch.view_as_complex(self.total.div_((squares / n).sqrt_()[..., None]))


def _coarser(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Pixels of a grid `factor` times as coarse: each axis even, at least 2; the shape itself for a
    factor of 1 or less.
    """
    if factor <= 1:
        return shape
    return (
        min(shape[0], max(2, 2 * round(shape[0] / factor / 2))),
        min(shape[1], max(2, 2 * round(shape[1] / factor / 2))),
    )


def _moved(frame: Image, whole: tuple[int, int]) -> Image:
    """The frame with content displaced by `whole` pixels (y, x) moved back: out(x) = frame(x +
    whole), reflected at the borders.
    """
    for axis, shift in enumerate(whole):
        if shift:
            size = frame.shape[axis]
            index = (torch.arange(size, device=frame.device) + shift) % (2 * size)
            index = torch.minimum(index, 2 * size - 1 - index)
            kept = max(0, size - abs(shift))
            start, edge = (0, kept) if shift > 0 else (size - kept, 0)
            moved = torch.empty_like(frame)
            # What is only moved is copied in one piece: picking rows or columns one by one takes
            # several times as long.
            moved.narrow(axis, start, kept).copy_(frame.narrow(axis, size - kept - start, kept))
            moved.narrow(axis, edge, size - kept).copy_(
                frame.index_select(axis, index[edge : edge + size - kept])
            )
            frame = moved
    return frame
