"""References that are wrong for the frames they are applied to are noticed on a few frames."""

from dataclasses import dataclass

import numpy as np

from dstnet.core.shapes import Shape
from dstnet.correction.corrections import Corrections
from dstnet.correction.reference_fit import (
    CERTAIN,
    ReferenceFit,
    central,
    fit_dark,
    fit_gain,
    is_same_turn,
)
from dstnet.correction.references import orient
from dstnet.correction.settings import CorrectionSettings
from dstnet.errors import BadInputError
from dstnet.movie import Movie

_MOST_FRAMES = 8
_MOST_PIXELS = 1 << 26  # four frames of 4096 x 4096: a second or less of reading
_MOST_MOVIES = 3
# Where another way is the right one, the frames hold the pattern that it predicts, less what noise
# of the reference takes; symmetries and streaks that references share with frames hold little.
_LEAST_SLOPE = 0.4
# Frames that hold less of a reference's pattern are not the ones it is for. Said of darks that
# would be a good part of the frames' pattern, and of gains where frames are no whole numbers:
# gains of few electrons are mostly noise, which no frame holds.
_LEAST_OWN_SLOPE = 0.2
_LEAST_SHARE = 0.2
_FAR_BETTER = 0.75  # the used way's correlation over the other's is below this
_BEYOND_DOUBT = 2 * CERTAIN  # standard errors between them, or so much between correlations
_PLAIN_DIFFERENCE = 0.25
_USUAL_MEAN = (0.5, 2.0)  # of a gain that frames are multiplied with
_MOST_OF_FRAMES = 1.5  # of frames' mean can be a dark's, whatever drifts


@dataclass(frozen=True)
class Doubt:
    """What speaks against a reference.

    Attributes
    ----------
    message
        What was found, in which file, and what to do.
    is_certain
        Whether the frames leave no doubt, so that the reference must not be applied.
    """

    message: str
    is_certain: bool = False


class ReferenceCheck:
    """Whether gain and dark lie as the frames of some movies say.

    Parameters
    ----------
    corrections
        The references, and how they are applied.

    Attributes
    ----------
    doubts
        What speaks against them, by the movies seen so far.
    is_settled
        Whether more movies would tell no more, or enough were seen.
    frames
        How many were looked at.
    """

    def __init__(self, corrections: Corrections) -> None:
        self._corrections = corrections
        references = corrections.references
        self._shape: Shape | None = None
        self._sum = np.zeros((0, 0), np.float32)
        self.frames = 0
        self._are_whole_numbers = True
        self._movies = 0
        self.doubts: list[Doubt] = []
        has_references = references.gain is not None or references.dark is not None
        self.is_settled = not (has_references and corrections.settings.check_references)

    def look(self, movie: Movie) -> None:
        """Look at a few frames of a raw movie, if that is needed yet.

        Raises
        ------
        BadInputError
            If they cannot be read, or a reference does not fit them at all.
        """
        if self.is_settled or self._shape not in (None, movie.shape):
            return
        height, width = movie.shape
        affordable = max(_MOST_PIXELS // (height * width), 2)
        count = min(len(movie), affordable, _MOST_FRAMES)
        numbers = [(2 * i + 1) * len(movie) // (2 * count) for i in range(count)]
        frames = [central(movie.frames[number], movie.shape) for number in numbers]
        if self._shape is None:
            self._shape = movie.shape
            self._sum = np.zeros(frames[0].shape, np.float32)
        for frame in frames:
            if frame.any():  # or the shutter was closed
                finite = np.nan_to_num(frame, posinf=0, neginf=0)
                self._are_whole_numbers &= bool((finite == np.rint(finite)).all())
                self._sum += finite
                self.frames += 1
        self._movies += 1
        if self.frames:
            self._judge(movie)
        self.is_settled = self.is_settled or self._movies >= _MOST_MOVIES

    def _judge(self, movie: Movie) -> None:
        """What the frames seen so far say, the last of them of `movie`."""
        references = self._corrections.references
        settings = self._corrections.settings
        mean = self._sum / self.frames
        self.doubts = []
        are_clear = []
        if references.dark is not None:
            names = (movie.name, references.dark_name)
            are_clear.append(self._judge_dark(mean, references.dark, names))
            placed = orient(references.dark, settings)
            if placed.shape == movie.shape:
                mean = mean - central(placed, movie.shape)
        if references.gain is not None and not any(doubt.is_certain for doubt in self.doubts):
            names = (movie.name, references.gain_name)
            is_inverted = references.inverts_gain(movie, settings)
            are_clear.append(self._judge_gain(mean, references.gain, names, is_inverted))
        self.is_settled = all(are_clear)

    def _judge_dark(self, mean: np.ndarray, dark: np.ndarray, names: tuple[str, str]) -> bool:
        """Whether it is clear how the dark lies; doubts are kept."""
        level = float(dark.mean(dtype=np.float64))
        usual = float(mean.mean(dtype=np.float64))
        if level > _MOST_OF_FRAMES * max(usual, 0):
            self.doubts.append(
                Doubt(
                    f"the dark {names[1]} has a mean of {level:.4g}, frames of {usual:.4g}: what is"
                    " left of them is negative; give the mean of frames without beam, as long as"
                    " the movie's"
                )
            )
        try:
            fits = fit_dark(mean, dark, names, self._shape)
        except BadInputError:  # no pattern to compare
            return True
        settings = self._corrections.settings.model_copy(update={"gain_invert": None})
        return self._compared("dark", names[1], fits, settings)

    def _judge_gain(
        self, mean: np.ndarray, gain: np.ndarray, names: tuple[str, str], is_inverted: bool
    ) -> bool:
        """Whether it is clear how the gain lies; doubts are kept."""
        level = float(gain.mean(where=gain > 0, dtype=np.float64))
        least, most = _USUAL_MEAN
        if not (is_inverted or least <= level <= most):
            self.doubts.append(
                Doubt(
                    f"the gain {names[1]}, which frames are multiplied with, has a mean of"
                    f" {level:.4g} instead of 1: results are scaled by it; a flat field is to be"
                    " divided by (--gain-invert)"
                )
            )
        try:
            fits = fit_gain(mean, gain, names, self._shape)
        except BadInputError:  # no pattern to compare
            return True
        settings = self._corrections.settings.model_copy(update={"gain_invert": is_inverted})
        return self._compared("gain", names[1], fits, settings)

    def _compared(
        self, kind: str, name: str, fits: list[ReferenceFit], settings: CorrectionSettings
    ) -> bool:
        own = next((fit for fit in fits if is_same_turn(fit.settings, settings)), None)
        if own is None:  # it has not the frames' shape so, which every movie will say
            return True
        others = [fit for fit in fits if fit is not own]
        if own.settings.gain_invert != settings.gain_invert:
            others.append(own)
            own = own.opposite()
        best = max(others, key=lambda fit: fit.correlation)
        margin = _standard_errors(best.parts - own.parts)
        is_better = min(best.standard_errors, _standard_errors(best.parts), margin) > CERTAIN
        is_far = own.parts.sum() < _FAR_BETTER * best.parts.sum()
        if not (is_better and is_far and best.slope > _LEAST_SLOPE):
            if self._is_absent(kind, own):
                self.doubts.append(
                    Doubt(
                        f"the {kind} {name} has a pattern of pixels that the frames do not hold,"
                        " however it is turned: they are corrected already, or it is another"
                        " camera's or mode's; leave it out, or give this camera's"
                    )
                )
                return True
            return own.standard_errors > CERTAIN
        is_plain = best.correlation - own.correlation > _PLAIN_DIFFERENCE
        is_certain = margin > _BEYOND_DOUBT or is_plain
        options = best.options
        if settings.gain_invert and not best.settings.gain_invert:
            options = f"{options} --no-gain-invert".strip()
        both = ""
        if kind == "dark" and self._corrections.references.gain is not None:
            both = " (they turn the gain too: where that lies right, turn the dark's file)"
        self.doubts.append(
            Doubt(
                f"the {kind} {name} is used the wrong way: it fits the frames' own pattern with"
                f" {options or 'no option'}{both}, correlation {best.correlation:.3f} instead of"
                f" {own.correlation:.3f}; change the options, or pass --no-check-references to use"
                " it all the same",
                is_certain,
            )
        )
        return True

    def _is_absent(self, kind: str, fit: ReferenceFit) -> bool:
        """Whether the frames surely hold little of a reference's pattern, as it is used."""
        if fit.slope == 0:
            return False
        error = fit.slope / fit.standard_errors
        share = fit.correlation / fit.slope
        is_told = share > _LEAST_SHARE if kind == "dark" else not self._are_whole_numbers
        return is_told and fit.slope + CERTAIN * error < _LEAST_OWN_SLOPE


def _standard_errors(parts: np.ndarray) -> float:
    """A sum over parts of the field over its standard error, as the parts differ."""
    error = float(parts.std(ddof=1)) * parts.size**0.5
    return float(parts.sum()) / max(error, 1e-30)
