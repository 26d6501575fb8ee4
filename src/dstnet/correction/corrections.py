"""What a camera leaves in raw frames, taken out: dark and gain reference, defects, frames that went
wrong.

A corrected frame is (raw - dark) * gain, with bad pixels replaced by values of good ones around
them. Frames are corrected when they are asked for, one at a time.
"""

import dataclasses
import operator
from collections.abc import Sequence

import numpy as np

from dstnet.correction.bad_frames import BadFrames, FrameScan, exposure_of_kept
from dstnet.correction.bad_pixels import SEED, find_bad_pixels, replacement_table
from dstnet.correction.references import CameraReferences, FittedReferences
from dstnet.correction.settings import CorrectionSettings
from dstnet.errors import BadInputError
from dstnet.movie import FrameStack, Movie
from dstnet.movie.movie import forget_frames

# Looked at for hot and dead pixels where frames need not be looked through anyway.
DETECTION_FRAMES = 16
# No frame of which more is no number is one with dead pixels.
_MOST_NEVER_FINITE = 0.1


class CorrectedFrames:
    """The good frames of a stack, each corrected when asked for.

    Parameters
    ----------
    frames
        Raw frames.
    kept
        Number of each frame that stays, from 0, among those given.
    gain, dark
        References [y, x] on the frames' grid; None: none.
    bad_pixels
        Pixels to replace, bool [y, x]; None: none.

    Attributes
    ----------
    shape
        (frame, y, x) of what is left.
    kept
        As given.
    """

    def __init__(
        self,
        frames: FrameStack,
        kept: Sequence[int],
        gain: np.ndarray | None,
        dark: np.ndarray | None,
        bad_pixels: np.ndarray | None,
    ) -> None:
        self._frames = frames
        self._gain = gain
        self._dark = dark
        self._replaced: tuple[np.ndarray, np.ndarray] | None = None
        if bad_pixels is not None:
            self._replaced = replacement_table(bad_pixels)
        self.kept = tuple(kept)
        self.shape = (len(self.kept), *frames.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def replaced_pixels(self) -> np.ndarray:
        """Flat indices of the bad pixels, in rising order."""
        return np.empty(0, np.intp) if self._replaced is None else self._replaced[0]

    def forget(self) -> None:
        """See `Movie.forget`."""
        forget_frames(self._frames)

    def __getitem__(self, index: int, /) -> np.ndarray:
        number = self.kept[operator.index(index)]
        raw = np.asarray(self._frames[number])
        frame = self._without_references(raw)
        if self._replaced is None:
            return frame
        if frame is raw:
            frame = frame.copy()
        targets, sources = self._replaced
        count, choices = sources.shape
        # A generator of its own for each frame: the same in whatever order frames are read,
        # independent between frames.
        rng = np.random.default_rng((SEED, number))
        choice = rng.integers(0, choices, count)
        chosen = sources[np.arange(count), choice]
        flat = frame.reshape(-1)
        flat[targets] = flat[chosen]
        return frame

    def _without_references(self, raw: np.ndarray) -> np.ndarray:
        """The frame with dark and gain taken out; itself where there is neither."""
        with np.errstate(invalid="ignore"):  # an infinite dead pixel times 0
            if self._dark is not None:
                frame = np.subtract(raw, self._dark, dtype=np.float32)
                if self._gain is not None:
                    frame *= self._gain
                return frame
            if self._gain is not None:
                return np.multiply(raw, self._gain, dtype=np.float32)
        return raw


class Corrections:
    """The corrections of one camera, built once and applied to each movie taken with it.

    Parameters
    ----------
    gain
        Gain reference [y, x], what (raw - dark) is multiplied with; 0 marks a defect. Of the
        frames' size or, for super-resolution and up-sampled movies, a half or a quarter of it.
        None: frames need none.
    dark
        Dark reference [y, x], subtracted before; oriented as the gain is.
    defects
        In the movie's pixels, not oriented: a map bool [y, x], or rectangles int [n, 4] of (x, y,
        width, height).
    settings
        Turns and thresholds.
    names
        What messages call gain, dark and defects; of files, their paths. The gain's suffix also
        says whether it is one of an EER camera.

    Attributes
    ----------
    references
        As given.
    settings
        As given, or the default.
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
        self.references = CameraReferences(gain, dark, defects, *names)
        self._fitted: dict[tuple[tuple[int, int], bool], FittedReferences] = {}

    def applied(self, movie: Movie) -> Movie:
        """`movie` with corrected frames; itself where there is nothing to do.

        Reads every frame once if bad frames are to be left out, at most `DETECTION_FRAMES` if only
        bad pixels are looked for, and none otherwise; two images are held meanwhile. Frames of the
        result are float32 with a gain or a dark, else of the type they had; its ``frames`` are
        `CorrectedFrames`, its ``notes`` say what was done.

        A frame that is left out has still exposed the specimen: the exposure of those after it
        counts it, unless no electron arrived in it.

        Raises
        ------
        BadInputError
            If a reference does not fit the frames, all frames are bad, or a frame cannot be read: a
            file damaged in its middle cannot be trusted with the rest.
        """
        references = self.fitted(movie)
        notes = []
        if references.gain is not None:
            how = ", inverted" if references.is_inverted else ""
            notes.append(f"gain {self.references.gain_name}{how}")
        bad_pixels = references.listed
        self._check_share(movie, bad_pixels)
        scan = self._scan(movie, bad_pixels)
        if scan is not None and 0 < scan.never_finite.size <= _MOST_NEVER_FINITE * scan.mean.size:
            # What is no number in any frame is a dead pixel that a division left so.
            notes.append(f"{scan.never_finite.size} pixels NaN or infinite in all frames: repaired")
            bad_pixels = bad_pixels.copy()
            bad_pixels.flat[scan.never_finite] = True
            scan = self._scan(movie, bad_pixels)
        bad_frames = self._bad_frames(movie, scan, references, bad_pixels)
        notes += bad_frames.notes
        if scan is not None and self.settings.find_defects and scan.count:
            found, note = self._found(scan, references, bad_pixels)
            notes += note
            bad_pixels = bad_pixels | found
        has_references = references.gain is not None or references.dark is not None
        is_changed = has_references or bool(bad_pixels.any()) or bool(bad_frames.reasons)
        if not is_changed and not notes:
            return movie
        kept = [number for number in range(len(movie)) if number not in bad_frames.reasons]
        exposure = movie.exposure
        if exposure is not None:
            exposure = exposure_of_kept(kept, exposure, bad_frames.unexposed)
        frames = CorrectedFrames(
            movie.frames,
            kept,
            references.gain,
            references.dark,
            bad_pixels if bad_pixels.any() else None,
        )
        return dataclasses.replace(
            movie.subset(kept), frames=frames, exposure=exposure, notes=(*movie.notes, *notes)
        )

    def fitted(self, movie: Movie) -> FittedReferences:
        """The references on the movie's grid; those of the last grid are kept.

        Raises
        ------
        BadInputError
            If one does not fit the frames.
        """
        key = (movie.shape, self.references.inverts_gain(movie, self.settings))
        if key not in self._fitted:
            # Movies of a run are alike; keeping the last is enough.
            self._fitted = {key: self.references.fit(movie, self.settings)}
        return self._fitted[key]

    def _scan(self, movie: Movie, listed: np.ndarray) -> FrameScan | None:
        """A look through the frames that settings ask for; None: through none."""
        if self.settings.drop_bad_frames:
            return FrameScan(movie.frames, range(len(movie)), listed)
        if not self.settings.find_defects:
            return None
        spread = np.linspace(0, len(movie) - 1, DETECTION_FRAMES).round().astype(int)
        return FrameScan(movie.frames, np.unique(spread).tolist(), listed)

    def _bad_frames(
        self,
        movie: Movie,
        scan: FrameScan | None,
        references: FittedReferences,
        listed: np.ndarray,
    ) -> BadFrames:
        if scan is None or not self.settings.drop_bad_frames:
            return BadFrames()
        dark = references.dark
        dark_level = 0.0 if dark is None else float(dark.mean(dtype=np.float64, where=~listed))
        bad = scan.bad_frames(dark_level, self.settings.frame_mean_range)
        if len(bad.reasons) == len(movie):
            number, reason = next(iter(bad.reasons.items()))
            raise BadInputError(
                f"{movie.name}: all {len(movie)} frames are bad (frame {number + 1}: {reason});"
                " nothing is left of it"
            )
        return bad

    def _found(
        self, scan: FrameScan, references: FittedReferences, listed: np.ndarray
    ) -> tuple[np.ndarray, list[str]]:
        """Hot and dead pixels beside the listed ones, bool [y, x], and a note where there are
        any.
        """
        mean = references.corrected(scan.mean)
        hot, dead = find_bad_pixels(mean, self.settings.defect_sigmas, listed, scan.count)
        found = hot | dead
        if not found.any():
            return found, []
        if found.mean() > self.settings.max_found_fraction:
            note = (
                f"{100 * found.mean():.1f} % of pixels look hot or dead, too many to believe: none"
                " of them repaired (is a gain or dark reference missing?)"
            )
            return np.zeros_like(found), [note]
        return found, [f"{hot.sum()} hot and {dead.sum()} dead pixels found and repaired"]

    def _check_share(self, movie: Movie, bad_pixels: np.ndarray) -> None:
        if bad_pixels.mean() <= 0.5:
            return
        references = self.references
        is_listed = references.defects is not None
        name = references.defects_name if is_listed else references.gain_name
        raise BadInputError(
            f"{movie.name}: {100 * bad_pixels.mean():.0f} % of its pixels are listed as defects or"
            f" have a gain of 0; check {name}"
        )
