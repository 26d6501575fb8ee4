"""A camera's references as RELION wants them: a gain that it multiplies with, on the movie's own
grid, and a list of defects; the files are written where the user's cannot be applied as they are.

RELION (motion correction and Polish, version 3.1 and later) reads MRC and TIFF gains with the rows
that movies of those formats have, as we do. For EER movies it upsamples the gain itself, multiplies
with a ``.gain`` file, and divides by any other. It knows no dark.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import tifffile

from dstnet.correction import CorrectedFrames, Corrections
from dstnet.correction.references import FittedReferences
from dstnet.errors import BadInputError
from dstnet.io import MrcFrames, atomic_path, ensure_writable_folder, write_mrc, write_tiff
from dstnet.io.reference import read_gain
from dstnet.io.star import star_holds
from dstnet.movie import Movie
from dstnet.pipeline.micrographs_star import as_relion_finds

FOLDER = "references"

_DIGEST_LENGTH = 16
_MULTIPLIED_SUFFIX = ".gain"
_TIFF_SUFFIXES = (".tif", ".tiff", _MULTIPLIED_SUFFIX)
# Gains are single-precision numbers; a mean of many, taken in another order, differs by more than
# one rounding.
_SAME_GAIN = 1e-5


@dataclass(frozen=True)
class RelionReferences:
    """What RELION's STAR file of a movie says of the camera.

    Attributes
    ----------
    gain
        File of the gain; None: the frames need none.
    defects
        File of the listed defects and of the pixels where the gain is 0; None: there are none.
    hot_pixels
        Pixels that are bad in this movie beside those, int [pixel, 2], (y, x).
    """

    gain: Path | None = None
    defects: Path | None = None
    hot_pixels: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.intp))

    def written(self, folder: Path) -> dict[str, Path]:
        """Of the files, those that lie in a run's folder, by their kind."""
        files = {"gain": self.gain, "defects": self.defects}
        ours = folder / FOLDER
        return {kind: path for kind, path in files.items() if path and path.parent == ours}


class ReferenceWriter:
    """Finds or writes the references of movies that come one after the other; those of one camera
    are written once.
    """

    def __init__(self) -> None:
        self._last: tuple[tuple, FittedReferences, RelionReferences] | None = None

    def references(
        self,
        folder: Path,
        given_gain: Path | None,
        corrections: Corrections | None,
        raw: Movie,
        corrected: Movie,
    ) -> RelionReferences:
        """The references of a movie, as RELION is to apply them.

        Parameters
        ----------
        folder
            The run's; its ``references`` get what is written. Names and bytes depend on the
            references alone, so that workers, shards and reruns share the files.
        given_gain
            The user's file of the gain.
        corrections
            Of the movie; None: it is taken as it is.
        raw, corrected
            The movie before and after them.

        Raises
        ------
        OutputError
            If a file cannot be written.
        BadInputError
            If the gain's file cannot be read any more, or another file has the name of one of ours.
        """
        if corrections is None:
            return RelionReferences()
        fitted = corrections.fitted(raw)
        files = self._files(folder, given_gain, fitted, is_eer=raw.eer_up_sampling is not None)
        if not isinstance(corrected.frames, CorrectedFrames):
            return files
        replaced = corrected.frames.replaced_pixels
        found = replaced[~fitted.listed.reshape(-1)[replaced]]
        places = np.divmod(found, raw.shape[1])
        return replace(files, hot_pixels=np.stack(places, axis=1))

    def _files(
        self, folder: Path, given_gain: Path | None, fitted: FittedReferences, *, is_eer: bool
    ) -> RelionReferences:
        """The files for movies whose frames `fitted` corrects."""
        key = (folder, given_gain, is_eer)
        if self._last is not None and self._last[0] == key and self._last[1] is fitted:
            return self._last[2]
        gain = None
        if fitted.gain is not None:
            gain = given_gain
            if gain is None or not _relion_applies(gain, fitted.gain, is_eer):
                gain = _written_gain(folder / FOLDER, fitted.gain, is_eer)
        defects = None
        if fitted.listed.any():
            defects = _written_defects(folder / FOLDER, fitted.listed)
        files = RelionReferences(gain, defects)
        self._last = (key, fitted, files)
        return files


def _relion_applies(path: Path, gain: np.ndarray, is_eer: bool) -> bool:
    """Whether RELION, given a user's file, corrects frames as `gain` does, to a factor of all
    pixels.
    """
    if not star_holds(as_relion_finds(path)):
        return False
    try:
        if not _relion_reads(path, is_eer):
            return False
        read = read_gain(path)
    except (BadInputError, tifffile.TiffFileError):  # a suffix that says another format
        return False
    if is_eer:
        if gain.shape == (2 * read.shape[0], 2 * read.shape[1]):
            read = read.repeat(2, 0).repeat(2, 1)
        if path.suffix != _MULTIPLIED_SUFFIX:
            read = np.divide(1, read, out=np.zeros_like(read), where=read != 0)
    if read.shape != gain.shape:
        return False
    alive = gain > 0
    if not np.array_equal(alive, read > 0):
        return False
    ratio = read[alive] / gain[alive]
    return bool(ratio.max() <= ratio.min() * (1 + _SAME_GAIN))


def _relion_reads(path: Path, is_eer: bool) -> bool:
    """Whether RELION 3.1 takes a file's suffix and its numbers, single precision, for what they
    are.
    """
    suffix = path.suffix
    if suffix.lower() != _MULTIPLIED_SUFFIX:
        suffix = suffix.lower()
    single = np.dtype(np.float32)
    if suffix == ".mrc":
        return MrcFrames(path)[0].dtype == single
    if suffix not in _TIFF_SUFFIXES or (suffix == _MULTIPLIED_SUFFIX and not is_eer):
        return False
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        return page.dtype == single and not page.is_tiled


def _written_gain(folder: Path, gain: np.ndarray, is_eer: bool) -> Path:
    """The file of a gain that frames are multiplied with."""
    if is_eer:
        coarse = gain[::2, ::2]
        # RELION repeats it itself.
        if np.array_equal(coarse.repeat(2, 0).repeat(2, 1), gain):
            gain = np.ascontiguousarray(coarse)
    suffix = _MULTIPLIED_SUFFIX if is_eer else ".mrc"
    path = folder / f"gain_{_digest(gain)}{suffix}"
    if path.is_file():
        _refuse_other(path, lambda: np.array_equal(read_gain(path), gain))
        return path
    ensure_writable_folder(folder)
    if is_eer:
        write_tiff(path, gain[None, ::-1], None)  # which stores the last row first
    else:
        write_mrc(path, gain, 1.0, "dstnet: gain reference, multiply raw frames with it")
    return path


def _written_defects(folder: Path, listed: np.ndarray) -> Path:
    """The list of bad pixels, bool [y, x], as lines of x, y, width and height."""
    path = folder / f"defects_{_digest(listed)}.txt"
    lines = (f"{x} {y} {width} {height}\n" for x, y, width, height in _rectangles(listed))
    text = "".join(lines)
    if path.is_file():
        _refuse_other(path, lambda: path.read_bytes() == text.encode())
        return path
    ensure_writable_folder(folder)
    with atomic_path(path) as temporary:
        temporary.write_text(text)
    return path


def _refuse_other(path: Path, is_ours: Callable[[], bool]) -> None:
    """Refuse a file under the name of one of ours that holds something else."""
    try:
        holds_it = is_ours()
    except (BadInputError, OSError, tifffile.TiffFileError):
        holds_it = False
    if not holds_it:
        raise BadInputError(
            f"{path} does not hold the reference that it is named after; delete it, or choose"
            " another folder"
        )


def _digest(array: np.ndarray) -> str:
    digest = sha256(str(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:_DIGEST_LENGTH]


def _rectangles(mask: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """A mask [y, x] as rectangles (x, y, width, height): the stretches of each row, those alike in
    rows one after the other as one.
    """
    height = len(mask)
    begun: dict[tuple[int, int], int] = {}  # first row of each stretch (start, end)
    for row in range(height + 1):
        stretches = _stretches(mask[row]) if row < height else set()
        for start, end in sorted(begun.keys() - stretches):
            top = begun.pop((start, end))
            yield start, top, end - start, row - top
        for stretch in stretches - begun.keys():
            begun[stretch] = row


def _stretches(row: np.ndarray) -> set[tuple[int, int]]:
    """Start and end of each stretch of a row [x]."""
    if not row.any():
        return set()
    edges = np.flatnonzero(np.diff(row, prepend=False, append=False))
    starts, ends = edges.reshape(-1, 2).T.tolist()
    return set(zip(starts, ends, strict=True))
