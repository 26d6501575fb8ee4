"""What a camera leaves in raw frames, taken out: dark and gain reference, defects, frames that went
wrong.

A corrected frame is (raw - dark) * gain, with bad pixels mended. Frames are corrected when they are
asked for, one at a time.
"""

import dataclasses
import operator
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.ndimage import median_filter, uniform_filter

from dstnet.core.settings import Settings
from dstnet.errors import BadInputError
from dstnet.movie.movie import FrameStack, Movie

Flip = Literal["up-down", "left-right"]
Rotation = Literal[0, 90, 180, 270]

DETECTION_FRAMES = (
    16  # looked at for hot and dead pixels where frames need not be looked through anyway
)
BEAM_OFF = 0.1  # of the usual mean: no exposure, so none is counted
_EER_SUFFIXES = (".eer", ".ecc")
# of the choice of neighbours; any number, the same for ever, so that a movie gives the same bytes
# again
_SEED = 20240117


class CorrectionSettings(Settings):
    """How references are turned, and what is looked for in the frames.

    The references' turns come in this order: transposed, rotated, flipped. Rows count as this
    package reads them (of a TIFF from its last stored row, as RELION does), y is the row. Rotating
    by 90 takes pixel (y, x) of a reference of `height` rows to (x, height - 1 - y):
    counter-clockwise where row 0 is drawn at the bottom, clockwise where it is drawn at the top. It
    is MotionCor's RotGain 1 and RELION's gain_rot 1; up-down is their flip 1, left-right their flip
    2.
    """

    gain_transpose: bool = Field(
        default=False, description="swap rows and columns of gain and dark"
    )
    gain_rotate: Rotation = Field(
        default=0, description="degrees that gain and dark are rotated by, see above"
    )
    gain_flip: Flip | None = Field(
        default=None,
        description="reverse the order of rows (up-down) or columns (left-right) of gain and dark",
    )
    gain_invert: bool | None = Field(
        default=None,
        description=(
            "divide by the gain; None: only EER movies with a gain that is no .gain file, as RELION"
            " does"
        ),
    )
    find_defects: bool = Field(
        default=True,
        description="find hot and dead pixels in the frames; those listed are mended in any case",
    )
    defect_sigmas: float = Field(
        default=6.0,
        gt=3,
        description="how far from its neighbours a pixel's mean is bad; 6: one in 10^9 by chance",
    )
    max_found_fraction: float = Field(
        default=0.01,
        gt=0,
        le=0.2,
        description="if more pixels look bad, something else is wrong: none is mended",
    )
    drop_bad_frames: bool = Field(
        default=True,
        description="leave out frames that are constant, repeated, not finite or oddly bright",
    )
    frame_mean_range: tuple[float, float] = Field(
        default=(0.5, 2.0), description="mean of a good frame over that of the others"
    )


def orient(reference: np.ndarray, settings: CorrectionSettings) -> np.ndarray:
    """`reference` [y, x] transposed, rotated and flipped as the settings say; a view."""
    if settings.gain_transpose:
        reference = reference.T
    reference = np.rot90(reference, -(settings.gain_rotate // 90))
    if settings.gain_flip is not None:
        reference = reference[::-1] if settings.gain_flip == "up-down" else reference[:, ::-1]
    return reference


def inverted(gain: np.ndarray) -> np.ndarray:
    """1 / gain with the mean of `gain` taken out; 0, which marks a defect, stays 0."""
    alive = gain > 0
    mean = gain[alive].mean(dtype=np.float64)
    return np.divide(
        mean, gain, out=np.zeros(gain.shape, np.float32), where=alive, casting="unsafe"
    )


class CorrectedFrames:
    """The good frames of a stack, each corrected when asked for.

    Attributes
    ----------
    shape
        (frame, y, x) of what is left.
    kept
        Number of each frame, from 0, among those given.
    notes
        What was done, a line each, for reports.
    """

    def __init__(
        self,
        frames: FrameStack,
        kept: Sequence[int],
        gain: np.ndarray | None,
        dark: np.ndarray | None,
        bad_pixels: np.ndarray | None,
        notes: Sequence[str],
    ) -> None:
        self._frames, self._gain, self._dark = frames, gain, dark
        self.kept, self.notes = tuple(kept), tuple(notes)
        self.shape = (len(self.kept), *frames.shape[1:])
        self._targets, self._sources = (
            _mending_table(bad_pixels) if bad_pixels is not None else (None, None)
        )

    def __len__(self) -> int:
        return self.shape[0]

    def forget(self) -> None:
        """See `Movie.forget`."""
        getattr(self._frames, "forget", lambda: None)()

    def __getitem__(self, index: int, /) -> np.ndarray:
        number = self.kept[operator.index(index)]
        frame = np.asarray(self._frames[number])
        if self._dark is not None:
            frame = np.subtract(frame, self._dark, dtype=np.float32)
            if self._gain is not None:
                frame *= self._gain
        elif self._gain is not None:
            frame = np.multiply(frame, self._gain, dtype=np.float32)
        elif self._targets is None:
            return frame
        else:
            frame = frame.copy()
        if self._targets is not None and self._sources is not None:
            # A generator of its own for each frame: the same in whatever order frames are read,
            # independent between frames.
            pick = np.random.default_rng((_SEED, number)).integers(
                0, self._sources.shape[1], len(self._targets)
            )
            flat = frame.reshape(-1)
            flat[self._targets] = flat[self._sources[np.arange(len(self._targets)), pick]]
        return frame


def notes_on(movie: Movie) -> tuple[str, ...]:
    """What was done to the frames of a movie that `Corrections.applied` returned, a line each."""
    return movie.frames.notes if isinstance(movie.frames, CorrectedFrames) else ()


class Corrections:
    """The corrections of one camera, built once and applied to each movie taken with it.

    Parameters
    ----------
    gain
        Gain reference [y, x], what (raw - dark) is multiplied with; 0 marks a defect. Of the
        frames' size or, for super-resolution and up-sampled movies, a half or a quarter of it.
        None: frames need none.
    dark
        Dark reference [y, x], subtracted before; turned as the gain is.
    defects
        In the movie's pixels, not turned: a map bool [y, x], or rectangles int [n, 4] of (x, y,
        width, height).
    settings
        Turns and thresholds.
    names
        What messages call gain, dark and defects; of files, their paths. The gain's suffix also
        says whether it is one of an EER camera.
    """

    def __init__(
        self,
        gain: np.ndarray | None = None,
        dark: np.ndarray | None = None,
        defects: np.ndarray | None = None,
        settings: CorrectionSettings | None = None,
        names: tuple[str, str, str] = ("gain", "dark", "defects"),
    ) -> None:
        self.settings = settings or CorrectionSettings()
        self._gain, self._dark, self._defects, self._names = gain, dark, defects, names
        self._fitted: dict[
            tuple[tuple[int, int], bool], tuple[np.ndarray | None, np.ndarray | None, np.ndarray]
        ] = {}

    def applied(self, movie: Movie) -> Movie:
        """`movie` with corrected frames; itself where there is nothing to do.

        Reads every frame once if bad frames are to be left out, at most `DETECTION_FRAMES` if only
        bad pixels are looked for, and none otherwise; two images are held meanwhile. Frames of the
        result are float32 with a gain or a dark, else of the type they had; its ``frames`` are
        `CorrectedFrames`, with notes.

        A `Movie` knows one exposure for all frames. What a frame that is left out has exposed is
        therefore counted as before the first frame where at least half of the remaining frames come
        after it, and is not counted otherwise: exact for frames at the start and the end, off by
        that frame's exposure for the smaller part of the others.

        Raises
        ------
        BadInputError
            If a reference does not fit the frames, all frames are bad, or a frame cannot be read: a
            file damaged in its middle cannot be trusted with the rest.
        """
        s = self.settings
        gain, dark, listed = self._fit(movie)
        notes = []
        if gain is not None:
            notes.append(f"gain {self._names[0]}{', inverted' if self._inverts(movie) else ''}")
        kept: Sequence[int] = range(len(movie))
        pre_exposure = movie.pre_exposure_e_per_a2
        bad = listed
        if s.find_defects or s.drop_bad_frames:
            numbers = range(len(movie))
            if not s.drop_bad_frames:
                numbers = np.unique(
                    np.linspace(0, len(movie) - 1, DETECTION_FRAMES).round().astype(int)
                ).tolist()
            scan = _Scan(movie.frames, numbers)
            if s.drop_bad_frames:
                dropped, told = scan.bad_frames(
                    0.0 if dark is None else float(dark.mean(dtype=np.float64)), s.frame_mean_range
                )
                notes += told
                if len(dropped) == len(movie):
                    number, reason = next(iter(dropped.items()))
                    raise BadInputError(
                        f"{movie.name}: all {len(movie)} frames are bad (frame {number + 1}:"
                        f" {reason}); nothing is left of it"
                    )
                kept = [n for n in kept if n not in dropped]
                pre_exposure += _before(kept, [n for n in dropped if n not in scan.unexposed]) * (
                    movie.exposure_e_per_a2 or 0.0
                )
            if s.find_defects and scan.count:
                found, told = self._found(scan.mean, scan.count, gain, dark, listed)
                notes += told
                bad = bad | found
        mends = bool(bad.any())
        if gain is None and dark is None and not mends and len(kept) == len(movie) and not notes:
            return movie
        if bad.mean() > 0.5:
            raise BadInputError(
                f"{movie.name}: {100 * bad.mean():.0f} % of its pixels are listed as defects or"
                " have a gain of 0; check"
                f" {self._names[2] if self._defects is not None else self._names[0]}"
            )
        frames = CorrectedFrames(movie.frames, kept, gain, dark, bad if mends else None, notes)
        return dataclasses.replace(movie, frames=frames, pre_exposure_e_per_a2=pre_exposure)

    def _inverts(self, movie: Movie) -> bool:
        if self.settings.gain_invert is not None:
            return self.settings.gain_invert
        # The gain that EPU writes as MRC is what frames are divided by; its .gain file is
        # multiplied with (RELION, renderEER.h).
        return (
            Path(movie.name).suffix.lower() in _EER_SUFFIXES
            and Path(self._names[0]).suffix.lower() != ".gain"
        )

    def _fit(self, movie: Movie) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
        """Gain, dark and bad pixels on the movie's grid."""
        key = (movie.shape, self._inverts(movie))
        if key not in self._fitted:
            gain, dark = (
                (
                    None
                    if array is None
                    else np.ascontiguousarray(
                        on_grid(orient(array, self.settings), movie.shape, movie.name, name),
                        np.float32,
                    )
                )
                for array, name in zip((self._gain, self._dark), self._names, strict=False)
            )
            if gain is not None and key[1]:
                gain = inverted(gain)
            bad = self._listed(movie)
            if gain is not None:
                bad |= gain == 0
            self._fitted = {
                key: (gain, dark, bad)
            }  # movies of a run are alike; keeping the last is enough
        return self._fitted[key]

    def _listed(self, movie: Movie) -> np.ndarray:
        defects, (height, width) = self._defects, movie.shape
        if defects is None:
            return np.zeros(movie.shape, bool)
        name = self._names[2]
        if defects.dtype == bool:
            return on_grid(defects, movie.shape, movie.name, name).copy()
        bad = np.zeros(movie.shape, bool)
        for x, y, across, down in defects.tolist():
            if x >= width or y >= height or x + across <= 0 or y + down <= 0:
                raise BadInputError(
                    f"{movie.name} has frames of {height} x {width} pixels (rows x columns), but"
                    f" {name} a defect at column {x}, row {y}; give the defects of this camera, in"
                    " the pixels of its movies"
                )
            bad[max(y, 0) : y + down, max(x, 0) : x + across] = True
        return bad

    def _found(
        self,
        mean: np.ndarray,
        frames: int,
        gain: np.ndarray | None,
        dark: np.ndarray | None,
        listed: np.ndarray,
    ) -> tuple[np.ndarray, list[str]]:
        s = self.settings
        if dark is not None:
            mean = mean - dark
        if gain is not None:
            mean = mean * gain
        hot, dead = find_bad_pixels(mean, s.defect_sigmas, listed, frames)
        found = hot | dead
        if found.mean() > s.max_found_fraction:
            share = f"{100 * found.mean():.1f} % of pixels look hot or dead"
            return np.zeros_like(found), [
                f"{share}, too many to believe: none of them mended (is a gain or dark reference"
                " missing?)"
            ]
        return found, (
            [f"{hot.sum()} hot and {dead.sum()} dead pixels found and mended"]
            if found.any()
            else []
        )


def on_grid(reference: np.ndarray, shape: tuple[int, int], movie: str, name: str) -> np.ndarray:
    """`reference` repeated 1, 2 or 4 times along both axes to `shape`.

    Raises
    ------
    BadInputError
        If no such factor fits.
    """
    for factor in (1, 2, 4):
        if (reference.shape[0] * factor, reference.shape[1] * factor) == shape:
            return reference if factor == 1 else reference.repeat(factor, 0).repeat(factor, 1)
    height, width = reference.shape
    remedy = "give the reference of this camera and read-out mode"
    if (width, height) == shape:
        remedy = "rotate it by 90 degrees (dstnet gain check says how)"
    elif height > shape[0] and height % shape[0] == 0 and width % shape[1] == 0:
        remedy = f"give the reference of binned frames, or bin this one by {height // shape[0]}"
    raise BadInputError(
        f"{movie} has frames of {shape[0]} x {shape[1]} pixels (rows x columns), but {name} has"
        f" {height} x {width}; {remedy}"
    )


class _Scan:
    """One look through frames: their mean image, and what is wrong with single ones."""

    def __init__(self, frames: FrameStack, numbers: Sequence[int]) -> None:
        self.numbers = list(numbers)
        self._wrong: dict[int, str] = {}
        self._means: dict[int, float] = {}
        self.unexposed: set[int] = set()
        total = np.zeros(frames.shape[1:], np.float32)
        seen: dict[tuple[int, float], int] = {}
        for number in self.numbers:
            frame = np.ascontiguousarray(frames[number])
            mean = float(frame.mean(dtype=np.float64))
            if not np.isfinite(mean):
                self._wrong[number] = f"{int((~np.isfinite(frame)).sum())} pixels NaN or infinite"
                continue
            if (frame[0] == frame[0, 0]).all() and (frame == frame[0, 0]).all():
                self._wrong[number] = f"all pixels {frame[0, 0]}"
                self.unexposed.add(number)  # no electron arrived, in any pixel
                continue
            key = (zlib.crc32(frame.data), mean)
            if key in seen:
                self._wrong[number] = f"the same as frame {seen[key] + 1}"
                continue
            seen[key] = number
            self._means[number] = mean
            total += frame
        self.count = len(self._means)
        self.mean = total / max(self.count, 1)

    def bad_frames(
        self, dark_level: float, allowed: tuple[float, float]
    ) -> tuple[dict[int, str], list[str]]:
        """What is wrong with each bad frame, by number from 0; and notes."""
        wrong, notes = dict(self._wrong), []
        numbers = np.array(list(self._means), dtype=int)
        means = np.array(list(self._means.values())) - dark_level
        odd: dict[int, str] = {}
        usual = float(np.median(means)) if means.size else 0.0
        # Frames brought to mean zero, or an offset that swamps them, say nothing about exposure by
        # their mean.
        if (
            means.size >= 4
            and usual > 3 * 1.4826 * float(np.median(np.abs(means - usual))) / np.sqrt(means.size)
            and usual > 0
        ):
            near = median_filter(
                means, 9, mode="nearest"
            )  # a ramp of the exposure moves this with it
            for number, mean, around in zip(numbers.tolist(), means, near, strict=True):
                ratios = [mean / usual, mean / around if around > 0 else np.inf]
                if ratios[0] < BEAM_OFF:
                    self.unexposed.add(number)
                if ratios[0] < BEAM_OFF or max(ratios) < allowed[0] or min(ratios) > allowed[1]:
                    odd[number] = f"mean {ratios[0]:.3g} of the median frame's"
            if len(odd) * 2 > means.size:
                notes.append(
                    f"the exposure differs widely over frames ({len(odd)} of {means.size} oddly"
                    " bright or dark): none left out for it"
                )
                self.unexposed -= odd.keys()
                odd = {}
        wrong |= odd
        if wrong:
            told = ", ".join(f"{number + 1} ({wrong[number]})" for number in sorted(wrong))
            notes.append(f"{len(wrong)} of {len(self.numbers)} frames left out: {told}")
        return dict(sorted(wrong.items())), notes


def _before(kept: Sequence[int], dropped: Sequence[int]) -> int:
    """How many of the frames left out are counted as exposure before the first one kept."""
    return sum(2 * sum(n < number for n in kept) <= len(kept) for number in dropped)


# Standard deviation of a normal distribution cut at its 1st and 99th percentile, over that of the
# whole one.
_TRIMMED = 0.9346
_RING = 3  # pixels are compared with those up to this far away: 48 neighbours
_ROWS_AT_ONCE = 64  # so many stay in the processor's cache


def trimmed_mean_std(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, whatever up to 1 % of the values on either side are. Few counts
    are too coarse for medians.
    """
    low, high = np.percentile(values, (1, 99))
    usual = values[(values >= low) & (values <= high)]
    return float(usual.mean(dtype=np.float64)), float(usual.std(dtype=np.float64)) / _TRIMMED


def _box(image: np.ndarray) -> np.ndarray:
    return uniform_filter(image, 2 * _RING + 1, mode="nearest")


def _filled(image: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """`image` with `holes` filled with means of pixels around them."""
    if holes.any():
        targets, sources = _mending_table(holes)
        image = image.copy()
        image.reshape(-1)[targets] = image.reshape(-1)[sources].mean(1)
    return image


def find_bad_pixels(
    mean: np.ndarray, sigmas: float = 6.0, known: np.ndarray | None = None, frames: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Hot and dead pixels in the mean of frames, as two masks [y, x].

    A pixel is bad where it differs by `sigmas` deviations of the noise from the median of its 48
    neighbours, and by 0.6 of that from four fifths of them: at the edge of gold or carbon, and on
    any detail more than a pixel or two wide, more than a fifth of the neighbours are alike. The
    noise is measured in the image, grows as the root of the local mean, and has the longer tail of
    counts. So a dead pixel is found from about 25 electrons in all frames together (40, where
    values are no electron counts). Columns and rows, or parts of 64 pixels and more, are bad where
    their mean is off by half. Not found: spots of more than 3 x 3 pixels, stripes wider than 4,
    pixels stuck at the usual mean, pixels of odd sensitivity within the noise.

    Parameters
    ----------
    mean
        Mean of frames [y, x], corrected.
    sigmas
        Threshold.
    known
        Pixels known to be bad, which are not compared with and not reported again.
    frames
        How many the mean is of: tells whether values are single electrons.
    """
    nothing = np.zeros(mean.shape, bool)
    known = nothing if known is None else known
    if known.mean() > 0.5 or min(mean.shape) < 2 * _RING + 1:
        return nothing, nothing.copy()
    rng = np.random.default_rng(_SEED)
    good = np.flatnonzero(~known)
    sample = good[rng.integers(0, good.size, 50_000)]
    values = mean.reshape(-1)[sample]
    centre, spread = trimmed_mean_std(values)
    clipped = _filled(
        np.clip(mean, centre - 8 * spread, centre + 8 * spread, dtype=np.float32), known
    )
    counts = centre > 0 and float(np.percentile(values, 1)) >= 0
    hot, dead = nothing.copy(), nothing.copy()
    if counts:
        for turn in (lambda a: a, np.transpose):
            bright, dark, piece = _stripes(turn(clipped), spread, sigmas)
            for mask, found in ((hot, bright), (dead, dark)):
                if found.any():
                    mask |= turn(found[piece]) & ~known
        if hot.any() or dead.any():  # or pixels beside stripes would be compared with them
            known = known | hot | dead
            clipped = _filled(clipped, known)
    padded = np.pad(
        np.where(known, clipped, mean) if known.any() else mean, _RING, mode="reflect"
    ).astype(np.float32, copy=False)
    local = _box(clipped)

    usual, low, high = _neighbours(padded, sample)
    noise = trimmed_mean_std(values - usual)[1]
    if not noise > 0:
        return hot, dead
    electrons = (
        counts and 0.7 < noise**2 / centre * frames < 1.5
    )  # else zero may be no true zero, as in scaled images

    def thresholds(around: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if (
            not counts
        ):  # no zero level, so nothing to tell the tail by; events in thin sensors have long ones
            return np.full_like(around, 2 * sigmas * noise), np.full_like(around, sigmas * noise)
        # Quantile of a Poisson distribution to the first order in its skewness (Cornish & Fisher
        # 1938): s sigma + (s^2 - 1) / 6 counts, a count being variance / mean. Up to 1/4 where each
        # electron's signal varies exponentially.
        width, count = (
            sigmas * noise * np.sqrt(np.maximum(around / centre, 0.25)),
            noise**2 / centre,
        )
        # Below, no threshold that zero counts reach by chance: exp(-n) = exp(-s^2 / 2) for n counts
        # expected.
        relief = sigmas**2 / 6 * count if electrons else 0.0
        return width + sigmas**2 / 4 * count, np.maximum(width - relief, sigmas**2 / 2 * count)

    # Thresholds grow with the local mean: most pixels stay within those of none at all, and need
    # none of their own.
    above, below = thresholds(np.zeros(1, np.float32))
    some = []
    for start in range(0, len(mean), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        difference = mean[rows] - local[rows]
        some.append(
            np.flatnonzero((difference > 0.6 * above) | (difference < -0.6 * below))
            + start * mean.shape[1]
        )
    candidates = np.concatenate(some)
    candidates = candidates[~known.reshape(-1)[candidates]]
    around = local.reshape(-1)[candidates]
    difference = mean.reshape(-1)[candidates] - around
    above, below = thresholds(around)
    candidates = candidates[(difference > 0.6 * above) | (difference < -0.6 * below)]
    for chunk in np.array_split(candidates, len(candidates) // 20_000 + 1):
        usual, low, high = _neighbours(padded, chunk)
        above, below = thresholds(usual)
        value = mean.reshape(-1)[chunk]
        hot.reshape(-1)[chunk] = (value - usual > above) & (value - high > above * 0.6)
        dead.reshape(-1)[chunk] = (value - usual < -below) & (value - low < -below * 0.6)
    return hot & ~dead, dead


def _neighbours(
    padded: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median, 1st and 4th quintile of the neighbours of pixels (flat index into the unpadded
    image).
    """
    across = padded.shape[1] - 2 * _RING
    start = (places // across) * padded.shape[1] + places % across
    side = 2 * _RING + 1
    offsets = np.delete(
        (np.arange(side)[:, None] * padded.shape[1] + np.arange(side)).reshape(-1), side * side // 2
    )
    around = np.sort(padded.reshape(-1)[start[:, None] + offsets], axis=1)
    n = around.shape[1]
    return around[:, n // 2], around[:, n // 5], around[:, n - 1 - n // 5]


def _stripes(
    image: np.ndarray, noise: float, sigmas: float, length: int = 64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where columns are too bright and too dark, in pieces of about `length` rows, [piece, x]; and
    the piece of each row.
    """
    starts = np.arange(max(image.shape[0] // length, 1)) * length
    rows = np.append(starts[1:], image.shape[0]) - starts
    pieces = np.add.reduceat(image, starts, axis=0) / rows[:, None].astype(np.float32)
    around = median_filter(pieces, (1, 11), mode="reflect")
    off = np.abs(pieces - around) > np.maximum(
        0.5 * around, sigmas * noise / np.sqrt(rows)[:, None]
    )
    piece = np.minimum(np.arange(image.shape[0]) // length, len(starts) - 1)
    return off & (pieces > around), off & (pieces < around), piece


_CHOICES = 8


def _mending_table(bad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bad pixels [n] and good pixels [n, 8] to fill each from, as flat indices.

    A value drawn at random from a good neighbour, anew in each frame, has the right mean and the
    right noise; a mean of neighbours would leave a smooth spot, which aligns frames on the sensor.
    Neighbours are at most 2 pixels away, in wider defects 4, 8 or 16, and beyond that anywhere:
    nothing is left there to continue.
    """
    height, width = bad.shape
    targets = np.flatnonzero(bad)
    rng = np.random.default_rng(_SEED)
    sources = rng.choice(np.flatnonzero(~bad), (targets.size, _CHOICES))
    left = np.arange(targets.size)
    for radius in (2, 4, 8, 16):
        dy, dx = (o.reshape(-1) for o in np.mgrid[-radius : radius + 1, -radius : radius + 1])
        later = []
        for chunk in np.array_split(left, left.size * dy.size // 2_000_000 + 1):
            y, x = targets[chunk, None] // width + dy, targets[chunk, None] % width + dx
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            usable = inside & ~bad[y.clip(0, height - 1), x.clip(0, width - 1)]
            number = usable.sum(1)
            enough = number >= 4
            # The usable ones first, in random order; then as many as asked for, round and round.
            order = np.argsort(rng.random(usable.shape) + ~usable, axis=1)[enough]
            column = np.arange(_CHOICES) % np.minimum(number[enough], _CHOICES)[:, None]
            pick = np.take_along_axis(order, column, 1)
            sources[chunk[enough]] = np.take_along_axis(
                y[enough], pick, 1
            ) * width + np.take_along_axis(x[enough], pick, 1)
            later.append(chunk[~enough])
        left = np.concatenate(later)
        if not left.size:
            break
    return targets, sources
