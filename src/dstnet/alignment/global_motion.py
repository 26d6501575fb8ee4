"""The motion of the field as a whole, one displacement a frame, by maximum likelihood in Fourier
space.

Model: the spectrum of frame t is F_t(k) = S(k) exp(-2 pi i k.u_t) + noise, with a specimen S that
moves by u_t. Each frame is read once; only a disc of low frequencies is kept of it. Then, from
groups of frames down to single frames, every group is aligned with the sum of all the others, each
frequency weighted by the signal and noise found in the movie itself, first by the peak of the whole
correlation map, then by Gauss-Newton steps on its exact Fourier series, which have no interpolation
error.

What stays on the detector would pull every shift to zero. So pixels further from the frame's mean
than 10 standard deviations are clipped; pixels whose mean over the movie sticks out of their
neighbourhood (hot, dead, columns) have their excess subtracted, which is linear and so can be done
after the frames have been read; and the axes kx = 0 and ky = 0, where faulty rows and columns and
the frame's edges lie, are left out. What a gain reference leaves behind, a few per cent from pixel
to pixel, is then too weak to matter.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dstnet.alignment.local_motion import Patches, finest_frequency, refine_by_patches
from dstnet.alignment.movie_motion import MovieMotion
from dstnet.alignment.settings import AlignmentSettings
from dstnet.alignment.spectral_snr import ring_mean, ring_numbers, signal_and_noise
from dstnet.core.fourier import next_fast_size
from dstnet.core.shapes import Image, Trajectory
from dstnet.errors import BadInputError
from dstnet.movie import Movie

Progress = Callable[[int, int], None]  # (frames done, frames in all)

_CLIP_SIGMAS = 10.0
_OUTLIER_SIGMAS = 7.0  # of a mean over frames; noise takes one pixel in 4e11 by mistake
_SIGNIFICANT_PEAK = 6.0  # standard deviations; noise alone passes it once in 1e9 positions
_FIRST_GROUPS = 6
_SAMPLE_PIXELS = 1 << 20
_TAPER = 1 / 16  # part of each side of the frame


def estimate_global_motion(
    movie: Movie,
    settings: AlignmentSettings,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> Trajectory:
    """Displacement of the specimen in each frame, from the frames alone.

    Parameters
    ----------
    movie
        The movie; each frame is read once.
    settings
        How to estimate.
    progress
        Called after each frame read, as (frames done, frames in all).
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
    return estimate_motion(movie, settings.model_copy(update={"patches": 0}), progress, device)[
        0
    ].shifts_angstrom


def estimate_motion(
    movie: Movie,
    settings: AlignmentSettings,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> tuple[MovieMotion, list[str]]:
    """Global and, where the frames hold enough to tell it, local motion; and what the user should
    know of the latter.

    Parameters, errors and what a movie without signal gets are those of `estimate_global_motion`;
    each frame is read once.
    """
    n = len(movie)
    if n == 1:
        checked_frame(movie, 0)
        return MovieMotion.of_shifts(torch.zeros(1, 2, device=device)), []
    band, patches = _Band.of(movie, settings, device), None
    if settings.patches:
        patches = Patches.of(
            band.shape,
            movie.pixel_size_angstrom * band.binning,
            n,
            settings.patches,
            finest_frequency(movie.pixel_size_angstrom, settings.resolution_angstrom),
            1 / settings.lowest_resolution_angstrom,
            band.k.device,
        )
    spectra, patch_spectra = _read(movie, band, patches, progress)
    aligner = _Aligner(spectra, band, settings)
    sizes = []
    size = n // _FIRST_GROUPS
    while size > 1:
        sizes.append(size)
        size //= 2
    sizes.append(1)
    # A frame can be no further from the mean position than a quarter of the field: beyond it too
    # little is common to the frames.
    limit = min(settings.max_shift_angstrom, 0.25 * min(band.field))
    radius = limit
    for size in sizes:
        aligner.align_groups(size, radius, limit)
        radius = max(radius / 2, min(limit, 4 * band.step))
    motion = MovieMotion.of_shifts(aligner.shifts)
    del spectra, aligner
    if patches is None or patch_spectra is None:
        return motion, (
            ["local motion left at zero: too few frames, or too small a field for 3 x 3 patches"]
            if settings.patches
            else []
        )
    refined, note = refine_by_patches(
        patch_spectra, patches, motion.shifts_angstrom, settings.acceleration_angstrom
    )
    # Without local motion, patches know more of the shifts only where they were given finer detail
    # than the field as a whole.
    finer = patches.k.norm(dim=1).max() > 1.05 * band.k.norm(dim=1).max()
    return (refined if refined.is_local or finer else motion), [note]


def checked_frame(movie: Movie, index: int, device: torch.device | str = "cpu") -> Image:
    """Frame `index` (from 0) as a new float32 tensor on `device`.

    Raises
    ------
    BadInputError
        If the frame is constant, holds NaN or infinity, or cannot be read.
    """
    frame = movie.frame(index)
    low, high = torch.aminmax(frame)
    if low == high:
        raise BadInputError(
            f"frame {index + 1} of {movie.name} is constant (all {low:g}); leave out that frame or"
            " mend the movie"
        )
    return frame.to(device)


@dataclass(frozen=True)
class _Band:
    """The frequencies kept of each frame: a half disc without its axes.

    `binning` pixels are averaged first; `shape` is the binned frame; `rows` and `columns` find the
    kept coefficients in its ``rfft2``; `k` is [coefficient, 2] in 1/Angstrom (y, x); `ring` sorts
    them by |k|; `field` is the frame's size in Angstrom; `step` the spacing of the correlation map,
    whose size is `grid`.
    """

    binning: int
    shape: tuple[int, int]
    rows: Tensor
    columns: Tensor
    k: Tensor
    ring: Tensor
    field: tuple[float, float]
    grid: tuple[int, int]
    step: float
    taper: Image

    @classmethod
    def of(cls, movie: Movie, settings: AlignmentSettings, device: torch.device | str) -> "_Band":
        pixel = movie.pixel_size_angstrom
        height, width = (size * pixel for size in movie.shape)
        # A field of few pixels would hold next to nothing below the wanted resolution: it gets at
        # least 8 periods a side.
        wanted = max(1 / settings.resolution_angstrom, 8 / min(height, width))
        highest = min(
            wanted,
            0.45 / pixel,
            math.sqrt(2 * settings.max_coefficients / (math.pi * height * width)),
        )
        # The binned Nyquist frequency is at least 1.75 times the highest one kept, where averaging
        # costs an eighth of the amplitude.
        finest = (
            max(highest, finest_frequency(pixel, settings.resolution_angstrom))
            if settings.patches
            else highest
        )
        binning = max(1, int(1 / (3.5 * finest * pixel)))
        shape = (movie.shape[0] // binning, movie.shape[1] // binning)
        field = (shape[0] * binning * pixel, shape[1] * binning * pixel)
        reach = (int(highest * field[0]), int(highest * field[1]))
        y = torch.arange(-reach[0], reach[0] + 1, device=device)[:, None]
        x = torch.arange(1, reach[1] + 1, device=device)[None, :]
        radius = torch.hypot(y / field[0], x / field[1])
        keep = (radius <= highest) & (radius >= 1 / settings.lowest_resolution_angstrom) & (y != 0)
        y, x, radius = y.expand_as(keep)[keep], x.expand_as(keep)[keep], radius[keep]
        if len(radius) < 16:
            raise BadInputError(
                f"{movie.name}: frames of {movie.shape} pixels at {pixel} Å hold {len(radius)}"
                " usable frequencies, too few to align; give a larger field, or raise alignment:"
                " lowest_resolution_angstrom in the settings"
            )
        grid = (next_fast_size(2 * reach[0] + 2), next_fast_size(2 * reach[1] + 2))
        return cls(
            binning=binning,
            shape=shape,
            rows=y % shape[0],
            columns=x,
            k=torch.stack((y / field[0], x / field[1]), 1),
            ring=ring_numbers(radius),
            field=field,
            grid=grid,
            step=max(field[0] / grid[0], field[1] / grid[1]),
            taper=_edge(shape[0], device)[:, None] * _edge(shape[1], device)[None, :],
        )

    def binned(self, image: Image) -> Image:
        """A full-size image on the grid of `shape`."""
        if (size := self.binning) == 1:
            return image
        (height, width), starts = self.shape, range(size)
        # Whole rows are added first, which takes a fifth of the time of a pooling.
        rows = sum(
            (image[i : height * size : size] for i in starts[1:]), image[: height * size : size]
        )
        return (
            sum(
                (rows[:, i : width * size : size] for i in starts[1:]),
                rows[:, : width * size : size],
            )
            / size**2
        )

    def coefficients(self, binned: Image) -> Tensor:
        """The kept coefficients of a binned image, its mean taken out and its edges tapered: linear
        in the image.
        """
        return torch.fft.rfft2((binned - binned.mean()) * self.taper)[self.rows, self.columns]

    def phases(self, shift: Tensor) -> Tensor:
        """exp(2 pi i k.u): what takes content displaced by u = `shift`, (y, x) in Angstrom, back to
        the reference.
        """
        return torch.polar(self.taper.new_ones(1), 2 * math.pi * (self.k @ shift))


def _edge(n: int, device: torch.device | str) -> Tensor:
    """1 inside, falling as a raised cosine to 0 over the outer part of each side."""
    distance = (torch.arange(n, device=device) + 0.5) / n
    return 0.5 - 0.5 * torch.cos(
        math.pi * (torch.minimum(distance, 1 - distance) / _TAPER).clamp(max=1)
    )


def _read(
    movie: Movie, band: _Band, patches: Patches | None, progress: Progress | None
) -> tuple[Tensor, Tensor | None]:
    """Kept coefficients of every frame, [frame, coefficient], and of its patches, without what
    sticks to the detector.
    """
    n = len(movie)
    device = band.k.device
    spectra = torch.empty(n, len(band.k), dtype=torch.complex64, device=device)
    of_patches = None
    if patches is not None:
        of_patches = torch.empty(
            n, len(patches.corners), len(patches.k), dtype=torch.complex64, device=device
        )
    total = torch.zeros(movie.shape, device=device)
    variance = torch.zeros((), device=device)
    for i in range(n):
        frame = checked_frame(movie, i, device)
        deviation = _clip_(frame)
        binned = band.binned(frame)
        spectra[i] = band.coefficients(binned)
        if patches is not None and of_patches is not None:
            of_patches[i] = patches.coefficients(binned)
        total += frame
        variance += deviation.square()
        if progress is not None:
            progress(i + 1, n)
    # Of frames with independent noise, the mean deviates by sqrt(sum of variances) / n.
    binned = band.binned(_outliers(total / n, _OUTLIER_SIGMAS * variance.sqrt() / n))
    spectra -= band.coefficients(binned)
    if patches is not None and of_patches is not None:
        of_patches -= patches.coefficients(binned)
    return spectra, of_patches


def _clip_(frame: Image) -> Tensor:
    """Cut what is further from the mean than `_CLIP_SIGMAS` standard deviations, in place; returns
    the standard deviation.

    Both are those of every few rows, a million pixels in all, which tell them to a part in a
    thousand.
    """
    rows = frame[:: max(1, frame.numel() // _SAMPLE_PIXELS)]
    mean = rows.mean()
    rows = rows - mean
    for _ in range(
        3
        # so that one cosmic ray does not lift the limit, and with it all hot pixels, in its frame
        # alone
    ):
        deviation = torch.linalg.vector_norm(rows) / math.sqrt(rows.numel())
        limit = _CLIP_SIGMAS * deviation
        low, high = torch.aminmax(rows)
        if max(-low, high) <= limit:
            break
        rows.clamp_(-limit, limit)
    low, high = torch.aminmax(frame)
    if max(mean - low, high - mean) > limit:
        frame.clamp_(mean - limit, mean + limit)
    return deviation


def _outliers(mean: Image, limit: Tensor) -> Image:
    """What of the movie's mean frame is further than `limit` from the median of its 8 x 8
    neighbourhood; zero at all other pixels.
    """
    size = 8
    height, width = mean.shape
    padded = F.pad(mean[None, None], (0, -width % size, 0, -height % size), mode="replicate")[0, 0]
    rows, columns = padded.shape[0] // size, padded.shape[1] // size
    blocks = (
        padded.reshape(rows, size, columns, size)
        .transpose(1, 2)
        .reshape(rows, columns, size * size)
    )
    residual = blocks - blocks.median(-1, keepdim=True).values
    excess = torch.where(residual.abs() > limit, residual, 0.0)
    return (
        excess.reshape(rows, columns, size, size)
        .transpose(1, 2)
        .reshape(padded.shape)[:height, :width]
    )


class _Aligner:
    """The state of the estimation: spectra with the motion known so far taken out, F_t exp(2 pi i
    k.u_t).
    """

    def __init__(self, spectra: Tensor, band: _Band, settings: AlignmentSettings) -> None:
        self.spectra = spectra
        self.band = band
        self.settings = settings
        self.shifts = torch.zeros(len(spectra), 2, device=spectra.device)
        self.signal_is_known = False

    def align_groups(self, size: int, radius: float, limit: float) -> None:
        """Align groups of `size` neighbouring frames, each within `radius` of where it is and
        `limit` of the mean position (Angstrom).
        """
        n = len(self.spectra)
        if size == 1:
            self._align(
                self.spectra, self.shifts, radius, limit, self.settings.acceleration_angstrom
            )
            return
        groups = torch.arange(n).tensor_split(-(-n // size))
        spectra = torch.stack([self.spectra[g[0] : g[-1] + 1].mean(0) for g in groups])
        before = torch.stack([self.shifts[g[0] : g[-1] + 1].mean(0) for g in groups])
        after = before.clone()
        self._align(spectra, after, radius, limit, None)
        centres = torch.stack([g.float().mean() for g in groups]).to(self.shifts)
        self._move(self.spectra, self.shifts, _interpolate(centres, after - before, n))

    def _align(
        self,
        spectra: Tensor,
        shifts: Tensor,
        radius: float,
        limit: float,
        acceleration: float | None,
    ) -> None:
        """Align `spectra` with each other in place, adding to `shifts` in place: peaks of the
        correlation, then Gauss-Newton.
        """
        power = torch.stack([ring_mean(s.abs().square(), self.band.ring) for s in spectra]).mean(0)
        step = self.band.step
        for _ in range(4):
            delta = self._search(spectra, shifts, power, radius, limit)
            if float(self._move(spectra, shifts, delta)) <= step:
                break
        for _ in range(self.settings.iterations):
            delta = self._newton(spectra, shifts, power, acceleration)
            length = delta.norm(dim=1, keepdim=True).clamp(min=1e-12)
            delta = delta * (step / length).clamp(max=1)  # a correlation peak is about a step wide
            if float(self._move(spectra, shifts, delta)) < self.settings.tolerance_angstrom:
                break

    def _move(self, spectra: Tensor, shifts: Tensor, delta: Tensor) -> Tensor:
        """Take a further displacement out of `spectra`, keeping the mean at zero; returns the
        longest.
        """
        delta = delta - (shifts + delta).mean(0)
        shifts += delta
        for spectrum, d in zip(spectra, delta, strict=True):
            if d.abs().max() > 0:
                spectrum *= self.band.phases(d)
        return delta.norm(dim=1).max()

    def _weights(self, total: Tensor, n: int, power: Tensor) -> tuple[Tensor, Tensor]:
        """Weights that turn conj(sum of others) X into a log likelihood, and what each coefficient
        then adds at the true position.

        With R = w * mean of the others, w the Wiener filter S / (S + N / (n - 1)), the log
        likelihood of X is 2 Re(conj R X) / N.
        """
        ring = self.band.ring
        signal, noise = signal_and_noise(ring_mean(total.abs().square(), ring), n, power, ring)
        wiener = signal / (signal + noise / (n - 1))
        return (2 * wiener / (noise * (n - 1)))[self.band.ring], (2 * wiener * signal / noise)[
            self.band.ring
        ]

    def _search(
        self, spectra: Tensor, shifts: Tensor, power: Tensor, radius: float, limit: float
    ) -> Tensor:
        """Displacement of each spectrum from the sum of the others at the peak of their
        correlation, on the map's grid.
        """
        n, band = len(spectra), self.band
        total = spectra.sum(0)
        first = not self.signal_is_known
        self.signal_is_known = True
        if first:
            k2 = band.k.square().sum(1)
            weights = torch.exp(-0.5 * self.settings.b_factor_angstrom2 * k2) / power[band.ring]
        else:
            weights, _ = self._weights(total, n, power)
        height, width = band.grid
        reach = [
            min(int(radius / band.field[a] * band.grid[a]) + 1, band.grid[a] // 2 - 1)
            for a in (0, 1)
        ]
        ys, xs = (torch.arange(-r, r + 1, device=total.device) for r in reach)
        y = (ys * band.field[0] / height)[:, None]
        x = (xs * band.field[1] / width)[None, :]
        distance2 = y.square() + x.square()
        grid_rows = (band.k[:, 0] * band.field[0]).round().long() % height
        delta = torch.zeros_like(shifts)
        for i, spectrum in enumerate(spectra):
            others = (total - spectrum).conj() * weights
            product = torch.zeros(height, width // 2 + 1, dtype=total.dtype, device=total.device)
            product[grid_rows, band.columns] = others * spectrum
            score = torch.fft.irfft2(product, s=band.grid, norm="forward")[ys % height][
                :, xs % width
            ]
            allowed = (distance2 <= radius**2) & (
                (y + shifts[i, 0]).square() + (x + shifts[i, 1]).square() <= limit**2
            )
            if first:
                deviation = (2 * (others.abs().square() * power[band.ring]).sum()).sqrt()
                score = score / deviation.clamp(min=1e-30)
            else:
                score = (
                    score - 0.5 * distance2 / (radius / 2) ** 2
                )  # weak data stay where the coarser groups put them
            score = torch.where(allowed, score, -math.inf)
            best = score.argmax()
            # A constant map has its first element as its peak; and in the first search noise must
            # not pass for a peak.
            accepted = (
                score.view(-1)[best] >= _SIGNIFICANT_PEAK
                if first
                else score.view(-1)[best] > score[reach[0], reach[1]]
            )
            if accepted:
                delta[i, 0] = y[best // len(xs), 0]
                delta[i, 1] = x[0, best % len(xs)]
        return delta * ((n - 1) / n)  # all move at once, towards the mean of the others

    def _newton(
        self, spectra: Tensor, shifts: Tensor, power: Tensor, acceleration: float | None
    ) -> Tensor:
        """One Gauss-Newton step of all spectra on the log likelihood, with the prior on the second
        differences of the motion.

        The gradient at zero is -2 pi sum k Im(conj R X); a spectrum's own part of R is real there
        and drops out, so that the sum of all serves as the sum of the others.
        """
        n, band = len(spectra), self.band
        total = spectra.sum(0)
        weights, expected = self._weights(total, n, power)
        k = 2 * math.pi * band.k
        # Im(conj T X) = T.real X.imag - T.imag X.real: one real matrix product for all spectra.
        turned = torch.stack((-total.imag, total.real), 1) * weights[:, None]
        gradient = -torch.view_as_real(spectra).reshape(n, -1) @ (
            turned[:, :, None] * k[:, None, :]
        ).reshape(-1, 2)
        gradient = gradient.double() * ((n - 1) / n)
        curvature = ((k * expected[:, None]).T @ k).double()
        curvature = (
            curvature
            + torch.eye(2, dtype=torch.float64, device=k.device)
            / self.settings.max_shift_angstrom**2
        )
        if acceleration is None or n < 3:
            return torch.linalg.solve(curvature, gradient.T).T.to(shifts)
        second = torch.eye(n, dtype=torch.float64, device=k.device).diff(n=2, dim=0) / acceleration
        smooth = second.T @ second
        system = torch.kron(
            torch.eye(n, dtype=torch.float64, device=k.device), curvature
        ) + torch.kron(smooth, torch.eye(2, dtype=torch.float64, device=k.device))
        right = gradient - smooth @ shifts.double()
        return torch.linalg.solve(system, right.reshape(-1)).reshape(n, 2).to(shifts)


def _interpolate(centres: Tensor, values: Tensor, n: int) -> Tensor:
    """Values [group, 2] given at frame numbers `centres`, for frames 0 .. n-1: linear between,
    constant beyond the ends.
    """
    frames = torch.arange(n, device=values.device, dtype=values.dtype).clamp(
        centres[0], centres[-1]
    )
    left = (torch.searchsorted(centres, frames, right=True) - 1).clamp(0, len(centres) - 2)
    part = ((frames - centres[left]) / (centres[left + 1] - centres[left]))[:, None]
    return values[left] * (1 - part) + values[left + 1] * part
