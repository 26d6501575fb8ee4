"""A camera's references on the grid of a movie's frames: gain, dark and listed defects."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dstnet.core.shapes import Shape
from dstnet.correction.settings import CorrectionSettings
from dstnet.errors import BadInputError
from dstnet.movie import Movie

_EER_SUFFIXES = (".eer", ".ecc")


@dataclass(frozen=True)
class FittedReferences:
    """References of a camera on the grid of some movies' frames.

    Attributes
    ----------
    gain
        What (raw - dark) is multiplied with, float32 [y, x]; None: nothing.
    dark
        What is subtracted before, float32 [y, x]; None: nothing.
    listed
        Pixels that are bad by the list of defects or the gain, bool [y, x].
    is_inverted
        Whether `gain` is one over the gain that was given.
    """

    gain: np.ndarray | None
    dark: np.ndarray | None
    listed: np.ndarray
    is_inverted: bool

    def corrected(self, mean: np.ndarray) -> np.ndarray:
        """A mean of raw frames [y, x] with dark and gain taken out."""
        if self.dark is not None:
            mean = mean - self.dark
        if self.gain is not None:
            mean = mean * self.gain
        return mean


@dataclass(frozen=True)
class CameraReferences:
    """References of a camera, as they were given; `fit` brings them to a movie's grid.

    Attributes
    ----------
    gain
        [y, x]; 0 marks a defect. Of the frames' size, or a half or a quarter of it.
    dark
        [y, x], of such a size too.
    defects
        In the movie's pixels: a map bool [y, x], or rectangles int [n, 4] of (x, y, width, height).
    gain_name, dark_name, defects_name
        What messages call them. The gain's suffix also says whether it is one of an EER camera.
    """

    gain: np.ndarray | None = None
    dark: np.ndarray | None = None
    defects: np.ndarray | None = None
    gain_name: str = "gain"
    dark_name: str = "dark"
    defects_name: str = "defects"

    def inverts_gain(self, movie: Movie, settings: CorrectionSettings) -> bool:
        """Whether frames of `movie` are divided by the gain."""
        if settings.gain_invert is not None:
            return settings.gain_invert
        return inverts_unless_told(movie.name, self.gain_name)

    def fit(self, movie: Movie, settings: CorrectionSettings) -> FittedReferences:
        """Turn the references as the settings say, and bring them to the movie's grid.

        Raises
        ------
        BadInputError
            If one does not fit the frames.
        """
        gain = _oriented(self.gain, self.gain_name, movie, settings)
        dark = _oriented(self.dark, self.dark_name, movie, settings)
        is_inverted = self.inverts_gain(movie, settings)
        if gain is not None and is_inverted:
            gain = inverted(gain)
        listed = self._listed(movie)
        if gain is not None:
            listed |= gain == 0
        return FittedReferences(gain, dark, listed, is_inverted)

    def _listed(self, movie: Movie) -> np.ndarray:
        if self.defects is None:
            return np.zeros(movie.shape, bool)
        if self.defects.dtype == bool:
            return on_grid(self.defects, movie.shape, movie.name, self.defects_name).copy()
        height, width = movie.shape
        listed = np.zeros(movie.shape, bool)
        for x, y, across, down in self.defects.tolist():
            right = x + across
            bottom = y + down
            is_beside = x >= width or right <= 0
            is_above_or_below = y >= height or bottom <= 0
            if is_beside or is_above_or_below:
                raise BadInputError(
                    f"{movie.name} has frames of {height} x {width} pixels (rows x columns), but"
                    f" {self.defects_name} a defect at column {x}, row {y}; give the defects of"
                    " this camera, in the pixels of its movies"
                )
            top = max(y, 0)
            left = max(x, 0)
            listed[top:bottom, left:right] = True
        return listed


def inverts_unless_told(movie_name: str, gain_name: str) -> bool:
    """Whether frames are divided by a gain where no option says: the gain that EPU writes of an EER
    camera as MRC is what they are divided by; its .gain file is multiplied with (RELION,
    renderEER.h).
    """
    movie_suffix = Path(movie_name).suffix.lower()
    gain_suffix = Path(gain_name).suffix.lower()
    return movie_suffix in _EER_SUFFIXES and gain_suffix != ".gain"


def _oriented(
    reference: np.ndarray | None, name: str, movie: Movie, settings: CorrectionSettings
) -> np.ndarray | None:
    if reference is None:
        return None
    oriented = orient(reference, settings)
    placed = on_grid(oriented, movie.shape, movie.name, name)
    return np.ascontiguousarray(placed, np.float32)


def orient(reference: np.ndarray, settings: CorrectionSettings) -> np.ndarray:
    """`reference` [y, x] transposed, rotated and flipped as the settings say; a view."""
    if settings.gain_transpose:
        reference = reference.T
    reference = np.rot90(reference, -(settings.gain_rotate // 90))
    if settings.gain_flip == "up-down":
        return reference[::-1]
    if settings.gain_flip == "left-right":
        return reference[:, ::-1]
    return reference


def inverted(gain: np.ndarray) -> np.ndarray:
    """1 / gain with the mean of `gain` taken out; 0, which marks a defect, stays 0."""
    alive = gain > 0
    mean = gain[alive].mean(dtype=np.float64)
    inverse = np.zeros(gain.shape, np.float32)
    return np.divide(mean, gain, out=inverse, where=alive, casting="unsafe")


def on_grid(reference: np.ndarray, shape: Shape, movie: str, name: str) -> np.ndarray:
    """`reference` [y, x] repeated 1, 2 or 4 times along both axes to `shape`.

    Parameters and errors are those of `grid_factor`.
    """
    factor = grid_factor(reference.shape, shape, movie, name)
    if factor == 1:
        return reference
    rows = reference.repeat(factor, 0)
    return rows.repeat(factor, 1)


def grid_factor(reference_shape: tuple[int, ...], shape: Shape, movie: str, name: str) -> int:
    """How often a reference is repeated along both axes to fill a frame: 1, 2 or 4 times.

    Parameters
    ----------
    reference_shape
        (y, x) of the reference.
    shape
        (y, x) of a frame.
    movie, name
        Of the movie and the reference, for messages.

    Raises
    ------
    BadInputError
        If no such factor fits.
    """
    height, width = reference_shape
    for factor in (1, 2, 4):
        if shape == (height * factor, width * factor):
            return factor
    frame_height, frame_width = shape
    is_multiple = height % frame_height == 0 and width % frame_width == 0
    remedy = "give the reference of this camera and read-out mode"
    if shape == (width, height):
        remedy = "rotate it by 90 degrees (dstnet gain check says how)"
    elif height > frame_height and is_multiple:
        binning = height // frame_height
        remedy = f"give the reference of binned frames, or bin this one by {binning}"
    raise BadInputError(
        f"{movie} has frames of {frame_height} x {frame_width} pixels (rows x columns), but {name}"
        f" has {height} x {width}; {remedy}"
    )
