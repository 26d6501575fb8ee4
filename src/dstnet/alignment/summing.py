"""Sums of a movie's frames with the motion taken out."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.alignment.global_motion import Progress, checked_frame
from dstnet.core.fourier import crop_spectrum, radial_frequency, shift_phase
from dstnet.core.shapes import Image, Stack, Trajectory
from dstnet.errors import BadInputError, SettingsError
from dstnet.motion.exposure_filter import critical_exposure, middle_exposures
from dstnet.movie import Movie


@dataclass(frozen=True)
class AlignedMovie:
    """A movie after motion correction: its sums on the movie's grid, and groups of its frames on a working grid.

    Attributes
    ----------
    total
        Sum of all frames, on the movie's grid, in the movie's unit.
    dose_weighted
        Sum with each frequency weighted by the signal that damage has left in each frame, scaled so that white noise in the frames stays
        white, of the variance it has in `total`, and the lowest frequencies equal those of `total`. None where the exposure is unknown.
    fractions
        Sums over contiguous, nearly equal groups of frames, resampled to the working grid, [fraction, y, x]. The resampling keeps
        intensities: a value is counts per pixel of the *movie*, so the mean over a fraction equals that of its frames' sum.
    fraction_frames
        Number of frames in each fraction.
    fraction_exposure_e_per_a2
        Accumulated exposure of the specimen at the middle of each fraction; None where the exposure is unknown.
    working_pixel_angstrom
        Sampling of `fractions`: mean over the two axes, which differ by the rounding of their sizes.
    shifts_angstrom
        The motion taken out, [frame, 2], (y, x).
    pixel_size_angstrom
        Sampling of `total` and `dose_weighted`.
    margin_px
        Rows at top and bottom, and columns at left and right, (y, x) in pixels of the movie, that not all frames saw; there, frames are
        continued by reflection.
    """

    total: Image
    dose_weighted: Image | None
    fractions: Stack
    fraction_frames: tuple[int, ...]
    fraction_exposure_e_per_a2: tuple[float, ...] | None
    working_pixel_angstrom: float
    shifts_angstrom: Trajectory
    pixel_size_angstrom: float
    margin_px: tuple[int, int]


def accumulate(
    movie: Movie,
    shifts_angstrom: Trajectory,
    *,
    working_pixel_angstrom: float,
    max_fractions: int,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> AlignedMovie:
    """Undo the motion of each frame and sum: plain, dose-weighted, and in fractions on a coarser grid.

    Whole pixels are moved by indexing (the border continued by reflection, so that nothing wraps from the opposite edge), the rest by a
    Fourier phase. Each frame is read once; memory holds a few full-size spectra, whatever the number of frames.

    Parameters
    ----------
    movie
        The movie.
    shifts_angstrom
        u_t, [frame, 2] in Angstrom, (y, x): frame_t(x) = clean(x - u_t).
    working_pixel_angstrom
        Wanted sampling of the fractions; each axis gets the nearest even size. Not finer than the movie: then its own grid is kept.
    max_fractions
        Most fractions; a movie of fewer frames gets one fraction a frame.
    progress
        Called after each frame read, as (frames done, frames in all).
    device
        Where the arithmetic is done and the result lies.

    Raises
    ------
    BadInputError
        If the shifts are not one finite pair a frame, or a frame is constant, holds NaN or infinity, or cannot be read.
    SettingsError
        If the working pixel or the number of fractions is not positive.

    References
    ----------
    Dose weighting: Grant & Grigorieff, eLife 4:e06980 (2015), eq. 9.
    """
    n, shape, pixel = len(movie), movie.shape, movie.pixel_size_angstrom
    if tuple(shifts_angstrom.shape) != (n, 2) or not bool(torch.isfinite(shifts_angstrom).all()):
        raise BadInputError(
            f"{movie.name}: shifts of shape {tuple(shifts_angstrom.shape)} are not one finite (y, x) for each of {n} frames"
        )
    if not working_pixel_angstrom > 0 or max_fractions < 1:
        raise SettingsError(
            f"working pixel {working_pixel_angstrom} Å and {max_fractions} fractions were asked for; give a positive size and at least 1"
        )
    small = (_working_size(shape[0], pixel, working_pixel_angstrom), _working_size(shape[1], pixel, working_pixel_angstrom))
    counts = [n // min(n, max_fractions) + (i < n % min(n, max_fractions)) for i in range(min(n, max_fractions))]
    ends = torch.tensor(counts).cumsum(0).tolist()
    fractions = torch.empty(len(counts), *small, device=device)
    total = torch.zeros(shape[0], shape[1] // 2 + 1, dtype=torch.complex64, device=device)
    group = torch.zeros(small[0], small[1] // 2 + 1, dtype=torch.complex64, device=device)
    weighting = None if movie.exposure_e_per_a2 is None else _DoseWeighting(movie, movie.exposure_e_per_a2, device)
    shifts_px = (shifts_angstrom / pixel).tolist()
    done = 0
    for i, (dy, dx) in enumerate(shifts_px):
        whole = (round(dy), round(dx))
        spectrum = torch.fft.rfft2(_moved(checked_frame(movie, i, device), whole))
        spectrum *= shift_phase(shape, (whole[0] - dy, whole[1] - dx), device)
        total += spectrum
        group += spectrum if small == shape else crop_spectrum(spectrum, shape, small)
        if weighting is not None:
            weighting.add(spectrum, i)
        if i + 1 == ends[done]:
            fractions[done] = torch.fft.irfft2(group, s=small)
            group.zero_()
            done += 1
        if progress is not None:
            progress(i + 1, n)
    exposures = None
    if movie.exposure_e_per_a2 is not None:
        exposures = tuple(
            movie.pre_exposure_e_per_a2 + movie.exposure_e_per_a2 * (end - count / 2) for end, count in zip(ends, counts, strict=True)
        )
    return AlignedMovie(
        total=torch.fft.irfft2(total, s=shape),
        dose_weighted=None if weighting is None else torch.fft.irfft2(weighting.result(), s=shape),
        fractions=fractions,
        fraction_frames=tuple(counts),
        fraction_exposure_e_per_a2=exposures,
        working_pixel_angstrom=pixel * 0.5 * (shape[0] / small[0] + shape[1] / small[1]),
        shifts_angstrom=shifts_angstrom.clone(),
        pixel_size_angstrom=pixel,
        margin_px=(math.ceil(max(abs(dy) for dy, _ in shifts_px)), math.ceil(max(abs(dx) for _, dx in shifts_px))),
    )


class _DoseWeighting:
    """Accumulates sum(w F) and sum(w^2) over frames.

    The result sum(w F) / sqrt(sum(w^2) / n) keeps white noise white. A factor common to all frames' weights at a frequency cancels in it,
    so weights are taken relative to the first frame: the sums never underflow, however large the exposure before it.
    """

    def __init__(self, movie: Movie, exposure_e_per_a2: float, device: torch.device | str) -> None:
        exposures = middle_exposures(len(movie), exposure_e_per_a2)
        self.exposures = [e - exposures[0] for e in exposures]
        k = radial_frequency(movie.shape, movie.pixel_size_angstrom, device)
        self.decay = 0.5 / critical_exposure(k, movie.voltage_kv)  # kept, because a power of every frequency costs more than an FFT
        self.total = torch.zeros(k.shape, dtype=torch.complex64, device=device)
        self.squares = torch.zeros_like(k)

    def add(self, spectrum: Tensor, index: int) -> None:
        """Add frame `index`; its `spectrum` is used up."""
        weight = torch.exp(self.decay * -self.exposures[index])
        self.squares += weight.square()
        self.total += spectrum.mul_(weight)

    def result(self) -> Tensor:
        return self.total / (self.squares / len(self.exposures)).sqrt_()


def _working_size(size: int, pixel: float, working_pixel: float) -> int:
    """Pixels along an axis at the working sampling: even, at least 2, and no more than there are."""
    if pixel >= working_pixel:
        return size
    return min(size, max(2, 2 * round(size * pixel / working_pixel / 2)))


def _moved(frame: Image, whole: tuple[int, int]) -> Image:
    """The frame with content displaced by `whole` pixels (y, x) moved back: out(x) = frame(x + whole), reflected at the borders."""
    for axis, shift in enumerate(whole):
        if shift:
            size = frame.shape[axis]
            index = (torch.arange(size, device=frame.device) + shift) % (2 * size)
            frame = frame.index_select(axis, torch.minimum(index, 2 * size - 1 - index))
    return frame
