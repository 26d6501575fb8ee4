"""Sums of a movie's frames with the motion taken out."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.alignment.global_motion import Progress, checked_frame, estimate_motion
from dstnet.alignment.movie_motion import MovieMotion
from dstnet.alignment.settings import AlignmentSettings
from dstnet.core.fourier import crop_spectrum, frequencies, scale_, shift_phase
from dstnet.core.shapes import Image, Stack, Trajectory
from dstnet.errors import BadInputError, SettingsError
from dstnet.motion.exposure_filter import critical_exposure, middle_exposures
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
        Sum with each frequency weighted by the signal that damage has left in each frame, scaled so that white noise in the frames stays
        white, of the variance it has in `total`, and the lowest frequencies equal those of `total`. None where the exposure is unknown.
    even, odd
        Plain sums of every other frame, counted from 0 as RELION does: `even` has the first, the third and so on. None where not asked for.
    fractions
        Sums over contiguous, nearly equal groups of frames, resampled to the working grid, [fraction, y, x]. The resampling keeps
        intensities: a value is counts per pixel of the *movie*, so the mean over a fraction equals that of its frames' sum. No fraction
        where no working pixel was given.
    fraction_frames
        Number of frames in each fraction.
    fraction_exposure_e_per_a2
        Accumulated exposure of the specimen at the middle of each fraction; None where the exposure is unknown.
    working_pixel_angstrom
        Sampling of `fractions`: mean over the two axes, which differ by the rounding of their sizes.
    motion
        The motion taken out.
    pixel_size_angstrom
        Sampling of the sums: mean over the two axes.
    margin_px
        Rows at top and bottom, and columns at left and right, (y, x) in pixels of the sums, that not all frames saw; there, frames are
        continued by reflection, and periodically over the reach of the local motion.
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

    Frames are read twice, once where `motion` is given. Memory holds a few images and, while the motion is estimated, the low frequencies
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
        If a frame is constant, holds NaN or infinity, cannot be read, or is too small to align; or if `motion` does not fit the movie.
    SettingsError
        If the working pixel or the number of fractions is not positive.
    """
    n = len(movie)
    notes: list[str] = []
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
    """Undo the motion of each frame and sum: plain, dose-weighted, and in fractions on a coarser grid.

    Whole pixels are moved by indexing (the border continued by reflection, so that nothing wraps from the opposite edge), the rest by a
    Fourier phase, which keeps white noise white. Local motion is then undone by
    `warp_local`, which keeps detail of up to 0.4 cycles per pixel and loses up to 15 % at 0.45, halfway between pixels. Each frame is read
    once; memory holds a few full-size spectra, whatever the number of frames.

    Parameters are those of `align`, with the motion given, or the shifts of the whole field alone, and `binning` as in the settings.

    Raises
    ------
    BadInputError
        If the motion is not one finite set a frame, or a frame is constant, holds NaN or infinity, or cannot be read.
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
            f"working pixel {working_pixel_angstrom} Å and {max_fractions} fractions were asked for; give a positive size and at least 1"
        )
    small = shape if working_pixel_angstrom is None else _coarser(shape, working_pixel_angstrom / pixel)
    out = _coarser(shape, binning)
    groups = 0 if working_pixel_angstrom is None else min(n, max_fractions)
    counts = [n // groups + (i < n % groups) for i in range(groups)]
    ends = torch.tensor(counts, dtype=torch.long).cumsum(0).tolist()
    prefilter = warp_prefilter(shape, device) if motion.is_local else None

    fractions = torch.empty(groups, *small, device=device)
    total = torch.zeros(out[0], out[1] // 2 + 1, dtype=torch.complex64, device=device)
    even = torch.zeros_like(total) if halves else None
    group = torch.zeros(small[0], small[1] // 2 + 1, dtype=torch.complex64, device=device)
    weighting = None if movie.exposure_e_per_a2 is None else _DoseWeighting(movie, movie.exposure_e_per_a2, out, device)
    done = 0
    for i in range(n):
        spectrum = _still(checked_frame(movie, i, device), motion, i, pixel, prefilter)
        if groups:
            group += spectrum if small == shape else crop_spectrum(spectrum, shape, small)
            if i + 1 == ends[done]:
                fractions[done] = torch.fft.irfft2(group, s=small)
                group.zero_()
                done += 1
        if out != shape:
            spectrum = crop_spectrum(spectrum, shape, out)
        total += spectrum
        if even is not None and i % 2 == 0:
            even += spectrum
        if weighting is not None:
            weighting.add(spectrum, i)
        if progress is not None:
            progress(i + 1, n)
    exposures = None
    if movie.exposure_e_per_a2 is not None:
        exposures = tuple(
            movie.pre_exposure_e_per_a2 + movie.exposure_e_per_a2 * (end - count / 2) for end, count in zip(ends, counts, strict=True)
        )
    reach = torch.stack([_reach(motion, i) for i in range(n)]).amax(0) / pixel
    return AlignedMovie(
        total=torch.fft.irfft2(total, s=out),
        dose_weighted=None if weighting is None else torch.fft.irfft2(weighting.result(), s=out),
        even=None if even is None else torch.fft.irfft2(even, s=out),
        odd=None if even is None else torch.fft.irfft2(total - even, s=out),
        fractions=fractions,
        fraction_frames=tuple(counts),
        fraction_exposure_e_per_a2=exposures,
        working_pixel_angstrom=pixel * 0.5 * (shape[0] / small[0] + shape[1] / small[1]),
        motion=motion,
        pixel_size_angstrom=pixel * 0.5 * (shape[0] / out[0] + shape[1] / out[1]),
        margin_px=(math.ceil(float(reach[0]) * out[0] / shape[0]), math.ceil(float(reach[1]) * out[1] / shape[1])),
        notes=notes,
    )


def _checked(motion: MovieMotion | Trajectory, movie: Movie, device: torch.device | str) -> MovieMotion:
    """A copy of the motion on the device, if it fits the movie."""
    if isinstance(motion, Tensor):
        motion = MovieMotion.of_shifts(motion)
    n, shifts, local = len(movie), motion.shifts_angstrom, motion.local_coefficients_angstrom
    if tuple(shifts.shape) != (n, 2) or not bool(torch.isfinite(shifts).all()):
        raise BadInputError(f"{movie.name}: shifts of shape {tuple(shifts.shape)} are not one finite (y, x) for each of {n} frames")
    if tuple(local.shape) != (n, 2, 5) or not bool(torch.isfinite(local).all()):
        raise BadInputError(f"{movie.name}: local motion of shape {tuple(local.shape)} is not finite [2, 5] for each of {n} frames")
    return MovieMotion(shifts.to(device, torch.float32, copy=True), local.to(device, torch.float32, copy=True))


def _reach(motion: MovieMotion, frame: int) -> Tensor:
    """A bound on the displacement within a frame, [2] in the motion's unit: no term of the polynomial exceeds 1."""
    return motion.shifts_angstrom[frame].abs() + motion.local_coefficients_angstrom[frame].abs().sum(1)


def _still(frame: Image, motion: MovieMotion, index: int, pixel: float, prefilter: Tensor | None) -> Tensor:
    """Spectrum of a frame with its motion taken out."""
    shape = (frame.shape[0], frame.shape[1])
    c = motion.coefficients_where_seen(index, ((shape[0] - 1) * pixel, (shape[1] - 1) * pixel)).double().cpu() / pixel
    dy, dx = c[:, 5].tolist()
    whole = (round(dy), round(dx))
    spectrum = torch.fft.rfft2(_moved(frame, whole))
    scale_(spectrum, shift_phase(shape, (whole[0] - dy, whole[1] - dx), frame.device))
    if prefilter is None:
        return spectrum
    # Near the Nyquist frequency the prefilter multiplies by 52 an axis, which the kernel takes back: but only of what went through the
    # prefilter. So it comes before the warp, and the image is continued as the prefilter saw it: the local motion, some pixels, wraps.
    image = torch.fft.irfft2(scale_(spectrum, prefilter), s=shape)
    # Content displaced by u is brought back by out(x) = image(x + u(x)): the field with the other sign.
    return torch.fft.rfft2(warp_local(image, -c[:, :5]))


class _DoseWeighting:
    """Accumulates sum(w F) and sum(w^2) over frames.

    The result sum(w F) / sqrt(sum(w^2) / n) keeps white noise white. A factor common to all frames' weights at a frequency cancels in it,
    so weights are taken relative to the first frame: the sums never underflow, however large the exposure before it.
    """

    def __init__(self, movie: Movie, exposure_e_per_a2: float, shape: tuple[int, int], device: torch.device | str) -> None:
        exposures = middle_exposures(len(movie), exposure_e_per_a2)
        self.exposures = [e - exposures[0] for e in exposures]
        ky, kx = (
            f / movie.pixel_size_angstrom * (n / size)
            for f, n, size in zip(frequencies(shape, 1.0, device), shape, movie.shape, strict=True)
        )
        k = torch.hypot(ky, kx)
        self.decay = 0.5 / critical_exposure(k, movie.voltage_kv)  # kept, because a power of every frequency costs more than an FFT
        self.total = torch.zeros(k.shape, dtype=torch.complex64, device=device)
        self.squares = torch.zeros_like(k)

    def add(self, spectrum: Tensor, index: int) -> None:
        """Add frame `index`; its `spectrum` is used up."""
        weight = torch.exp(self.decay * -self.exposures[index])
        self.squares += weight.square()
        self.total += scale_(spectrum, weight)

    def result(self) -> Tensor:
        return self.total / (self.squares / len(self.exposures)).sqrt_()


def _coarser(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Pixels of a grid `factor` times as coarse: each axis even, at least 2; the shape itself for a factor of 1 or less."""
    if factor <= 1:
        return shape
    return (min(shape[0], max(2, 2 * round(shape[0] / factor / 2))), min(shape[1], max(2, 2 * round(shape[1] / factor / 2))))


def _moved(frame: Image, whole: tuple[int, int]) -> Image:
    """The frame with content displaced by `whole` pixels (y, x) moved back: out(x) = frame(x + whole), reflected at the borders."""
    for axis, shift in enumerate(whole):
        if shift:
            size = frame.shape[axis]
            index = (torch.arange(size, device=frame.device) + shift) % (2 * size)
            frame = frame.index_select(axis, torch.minimum(index, 2 * size - 1 - index))
    return frame
