"""The motion of the field as a whole, one displacement a frame, by maximum likelihood in Fourier
space.

Model: the spectrum of frame t is F_t(k) = S(k) exp(-2 pi i k.u_t) + noise, with a specimen S that
moves by u_t. Each frame is read once (`dstnet.alignment.reading`); only a disc of low frequencies
is kept of it (`dstnet.alignment.band`). Then, from groups of frames down to single frames, every
group is aligned with the sum of all the others, each frequency weighted by the signal and noise
found in the movie itself, first by the peak of the complete correlation map, then by Gauss-Newton
steps on its exact Fourier series, which have no interpolation error (`dstnet.alignment.aligner`).
"""

import torch
from torch import Tensor

from dstnet.alignment.aligner import Aligner
from dstnet.alignment.band import Band, finest_frequency
from dstnet.alignment.local_motion import refine_by_patches
from dstnet.alignment.patches import Patches
from dstnet.alignment.reading import checked_frame, read_terms
from dstnet.alignment.settings import AlignmentSettings
from dstnet.core.devices import Device
from dstnet.core.shapes import Trajectory
from dstnet.motion import Motion
from dstnet.movie import Movie

_FIRST_GROUPS = 6
# A frame can be no further from the mean position than this part of the field: beyond it too little
# is common to the frames.
_FURTHEST = 0.25


def estimate_global_motion(
    movie: Movie,
    settings: AlignmentSettings,
    device: Device = "cpu",
) -> Trajectory:
    """Displacement of the specimen in each frame, from the frames alone.

    Parameters
    ----------
    movie
        The movie; each frame is read once.
    settings
        How to estimate.
    device
        Where the arithmetic is done.

    Returns
    -------
    Trajectory
        u_t, [frame, 2] in Angstrom, (y, x), on `device`; mean over frames zero. frame_t(x) =
        clean(x - u_t). Zeros for a single frame, and for a movie in which nothing correlates
        between frames.

    Raises
    ------
    BadInputError
        If a frame is constant, holds NaN or infinity, cannot be read, or is too small to align.
    """
    global_only = settings.model_copy(update={"patches": 0})
    motion, _ = estimate_motion(movie, global_only, device)
    return motion.global_shift_angstrom


def estimate_motion(
    movie: Movie,
    settings: AlignmentSettings,
    device: Device = "cpu",
) -> tuple[Motion, list[str]]:
    """Global and, where the frames hold enough to find it, local motion; and what the user should
    know of the latter.

    Parameters, errors and what a movie without signal gets are those of `estimate_global_motion`;
    each frame is read once.

    Raises
    ------
    BadInputError
        As `estimate_global_motion`.
    """
    n = len(movie)
    if n == 1:
        checked_frame(movie, 0)
        return Motion.of_shifts(torch.zeros(1, 2, device=device)), []
    band = Band.of(movie, settings, device)
    patches = _patches(movie, band, settings)
    spectra, patch_spectra = read_terms(movie, band, patches)
    shifts = _aligned(spectra, band, settings)
    del spectra
    if patches is None or patch_spectra is None:
        notes = []
        if settings.patches:
            notes.append(
                "local motion left at zero: too few frames, or too small a field for 3 x 3 patches"
            )
        return Motion.of_shifts(shifts), notes
    refined, note = refine_by_patches(
        patch_spectra, patches, shifts, settings.acceleration_angstrom
    )
    # Without local motion, patches know more of the shifts only where they were given finer detail
    # than the field as a whole.
    is_finer = patches.k.norm(dim=1).max() > 1.05 * band.k.norm(dim=1).max()
    if refined.is_local or is_finer:
        return refined, [note]
    return Motion.of_shifts(shifts), [note]


def _patches(movie: Movie, band: Band, settings: AlignmentSettings) -> Patches | None:
    """The patches that local motion is found from; None: it is not looked for."""
    if not settings.patches:
        return None
    pixel = movie.pixel_size_angstrom
    return Patches.of(
        band.shape,
        pixel * band.binning,
        len(movie),
        settings.patches,
        finest_frequency(pixel, settings.resolution_angstrom),
        1 / settings.lowest_resolution_angstrom,
        band.k.device,
    )


def _aligned(spectra: Tensor, band: Band, settings: AlignmentSettings) -> Trajectory:
    """Shifts found from spectra [frame, term], which are used up."""
    aligner = Aligner(spectra, band, settings)
    limit = min(settings.max_shift_angstrom, _FURTHEST * min(band.field))
    radius = limit
    for size in _group_sizes(len(spectra)):
        aligner.align_groups(size, radius, limit)
        radius = max(radius / 2, min(limit, 4 * band.step))
    return aligner.shifts


def _group_sizes(frames: int) -> list[int]:
    """Frames in a group, from the first grouping to single frames."""
    sizes = []
    size = frames // _FIRST_GROUPS
    while size > 1:
        sizes.append(size)
        size //= 2
    return [*sizes, 1]
