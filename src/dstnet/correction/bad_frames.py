"""Frames that went wrong: constant, repeated, not finite, oddly bright or dark."""

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import median_filter

from dstnet.core.progress import progress
from dstnet.movie import Exposure, FrameStack

BEAM_OFF = 0.1  # of the usual mean: no exposure, so none is counted

# The standard deviation of a normal distribution is this many times the median distance from its
# median.
_SIGMA_OF_MEDIAN_DISTANCE = 1.4826
_LEAST_FRAMES = 4  # fewer have no usual mean
_NEIGHBOURS = 9
_HOTTEST = 1e30
_NONE = np.empty(0, np.intp)


@dataclass
class BadFrames:
    """What a look through frames found to be wrong.

    Attributes
    ----------
    reasons
        What is wrong with each bad frame, by its number from 0, in order.
    unexposed
        Those of them in which no electron arrived.
    notes
        For reports.
    """

    reasons: dict[int, str] = field(default_factory=dict)
    unexposed: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


class FrameScan:
    """One look through frames: their mean image, and what is wrong with single ones.

    Parameters
    ----------
    frames
        The stack.
    numbers
        Of the frames to look at, from 0.
    listed
        Pixels known to be bad, bool [y, x], not all: what they hold says nothing of a frame.

    Attributes
    ----------
    numbers
        As given.
    count
        Number of frames that the mean is of.
    mean
        Mean of the frames without a fault of their own, float32 [y, x]; of no meaning in listed
        pixels.
    never_finite
        Other pixels (flat indices) that are NaN or infinite in each of several frames.

    Raises
    ------
    BadInputError
        If a frame cannot be read.
    """

    def __init__(self, frames: FrameStack, numbers: Sequence[int], listed: np.ndarray) -> None:
        self.numbers = list(numbers)
        self._never_finite: np.ndarray | None = None
        self._listed = np.flatnonzero(listed)
        self._good = int(listed.argmin())  # one that is not listed
        self._faults: dict[int, str] = {}
        self._means: dict[int, float] = {}
        self._unexposed: set[int] = set()
        self._seen: dict[tuple[int, float], int] = {}
        total = np.zeros(frames.shape[1:], np.float32)
        for done, number in enumerate(self.numbers):
            progress("checking, frame", done, len(self.numbers))
            frame = self._without_listed(frames[number])
            # The listed pixels hold one good pixel's value each: their share is taken out again.
            all_pixels = float(frame.sum(dtype=np.float64))
            listed_pixels = self._listed.size * float(frame.flat[self._good])
            mean = (all_pixels - listed_pixels) / (frame.size - self._listed.size)
            fault = self._fault(number, frame, mean)
            if fault is not None:
                self._faults[number] = fault
                continue
            self._means[number] = mean
            with np.errstate(over="ignore", invalid="ignore"):  # pixels of 1e38
                total += frame
        self.count = len(self._means)
        with np.errstate(invalid="ignore"):
            is_finite = np.isfinite(total.sum(dtype=np.float64))
        if not is_finite:
            total = np.nan_to_num(total, posinf=_HOTTEST, neginf=-_HOTTEST)
        self.mean = total / max(self.count, 1)
        self.never_finite = _NONE
        if self._never_finite is not None and len(self.numbers) > 1:
            self.never_finite = self._never_finite

    def _without_listed(self, frame: np.ndarray) -> np.ndarray:
        """A frame whose listed pixels are as good ones are."""
        if not self._listed.size:
            return np.ascontiguousarray(frame)
        frame = np.array(frame, order="C")
        flat = frame.reshape(-1)
        flat[self._listed] = flat[self._good]
        return frame

    def _fault(self, number: int, frame: np.ndarray, mean: float) -> str | None:
        """What is wrong with a frame, by itself or beside those before it."""
        if not np.isfinite(mean):
            is_broken = ~np.isfinite(frame)
            self._keep_never_finite(np.flatnonzero(is_broken))
            return f"{int(is_broken.sum())} pixels NaN or infinite"
        if _is_constant(frame):
            self._unexposed.add(number)  # no electron arrived, in any pixel
            return f"all pixels {frame[0, 0]}"
        self._keep_never_finite(_NONE)
        key = (zlib.crc32(frame.data), mean)
        if key in self._seen:
            return f"the same as frame {self._seen[key] + 1}"
        self._seen[key] = number
        return None

    def _keep_never_finite(self, broken: np.ndarray) -> None:
        """Of what was never finite before, what is not in this frame either."""
        if self._never_finite is not None:
            broken = np.intersect1d(self._never_finite, broken, assume_unique=True)
        self._never_finite = broken

    def bad_frames(self, dark_level: float, allowed: tuple[float, float]) -> BadFrames:
        """What is wrong, with the means of all frames at hand.

        Parameters
        ----------
        dark_level
            Mean of a frame without beam.
        allowed
            Least and greatest mean of a good frame over that of the others.
        """
        bad = BadFrames(dict(self._faults), set(self._unexposed))
        odd, unexposed = self._odd_means(dark_level, allowed)
        if len(odd) * 2 > self.count:
            bad.notes.append(
                f"the exposure differs widely over frames ({len(odd)} of {self.count} oddly"
                " bright or dark): none left out for it"
            )
        else:
            bad.reasons |= odd
            bad.unexposed |= unexposed
        bad.reasons = dict(sorted(bad.reasons.items()))
        if bad.reasons:
            listed = [f"{number + 1} ({reason})" for number, reason in bad.reasons.items()]
            bad.notes.append(
                f"{len(listed)} of {len(self.numbers)} frames left out: {', '.join(listed)}"
            )
        return bad

    def _odd_means(
        self, dark_level: float, allowed: tuple[float, float]
    ) -> tuple[dict[int, str], set[int]]:
        """Frames whose mean is not that of a good one, and those of them without exposure."""
        raw_means = np.array(list(self._means.values()))
        means = raw_means - dark_level
        if means.size < _LEAST_FRAMES:
            return {}, set()
        usual = float(np.median(means))
        distances = np.abs(means - usual)
        distance = float(np.median(distances))
        error = _SIGMA_OF_MEDIAN_DISTANCE * distance / np.sqrt(means.size)
        # Frames brought to mean zero, or an offset that swamps them, say nothing about exposure by
        # their mean.
        if usual <= 3 * error or usual <= 0:
            return {}, set()
        # A ramp of the exposure moves the neighbours with it.
        near = median_filter(means, _NEIGHBOURS, mode="nearest")
        odd: dict[int, str] = {}
        unexposed: set[int] = set()
        least, most = allowed
        for number, mean, around in zip(self._means, means, near, strict=True):
            of_usual = mean / usual
            of_near = np.inf
            if around > 0:
                of_near = mean / around
            is_unexposed = of_usual < BEAM_OFF
            is_dark = max(of_usual, of_near) < least
            is_bright = min(of_usual, of_near) > most
            if is_unexposed:
                unexposed.add(number)
            if is_unexposed or is_dark or is_bright:
                odd[number] = f"mean {of_usual:.3g} of the median frame's"
        return odd, unexposed


def _is_constant(frame: np.ndarray) -> bool:
    """Whether all pixels of a frame [y, x] are the same."""
    first = frame[0, 0]
    row_is_constant = (frame[0] == first).all()
    if not row_is_constant:  # one row tells nearly always
        return False
    return bool((frame == first).all())


def exposure_of_kept(
    kept: Collection[int], exposure: Exposure, unexposed: Collection[int]
) -> Exposure:
    """The exposure of the frames kept, where some of those left out exposed nothing.

    Parameters
    ----------
    kept
        Numbers of the frames that stay.
    exposure
        Of all frames, as if each had been exposed.
    unexposed
        Numbers of the frames in which no electron arrived.
    """
    remaining = set(kept)
    own: list[float] = []
    starts: list[float] = []
    missing = 0.0
    pairs = zip(exposure.frame_e_per_a2, exposure.start_e_per_a2, strict=True)
    for number, (frame, start) in enumerate(pairs):
        if number in remaining:
            own.append(frame)
            starts.append(start - missing)
        elif number in unexposed:
            missing += frame
    return Exposure(tuple(own), tuple(starts))
