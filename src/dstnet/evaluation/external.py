"""Results of any other program, found on disk.

Whether such an image shows the field as the sum does is seen by correlating both: programs count
rows from either end, and some turn or mirror what they write.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from dstnet.alignment import Grouping
from dstnet.core.fourier import radial_frequency, resample
from dstnet.core.shapes import Image, Shape
from dstnet.errors import BadInputError, SettingsError
from dstnet.evaluation.base import DoesNotFitError, Made, Scene
from dstnet.evaluation.results import read_image
from dstnet.movie import Movie

_MOST_SHIFT_ANGSTROM = 100.0  # of where a program puts its sums
_BAND_ANGSTROM = 200.0, 15.0  # where any enhanced image shows the field
_LEAST_PEAK = 6.0  # deviations of the correlation elsewhere: noise stays below
_UPRIGHT_SHARE = 0.8  # of the highest peak; a symmetric field is upright
_SUFFIXES = (".mrc", ".mrcs", ".tif", ".tiff")

# Each brings an image found in that orientation back to the sum's.
ORIENTATIONS = {
    "as the sum": (0, False),
    "turned by a quarter": (1, False),
    "turned by a half": (2, False),
    "turned by three quarters": (3, False),
    "upside down": (0, True),
    "mirrored and turned by a quarter": (1, True),
    "mirrored left to right": (2, True),
    "mirrored and turned by three quarters": (3, True),
}


@dataclass(frozen=True)
class ExternalCandidate:
    """Images that another program made: ``FOLDER/NAME`` and an ending for each subject.

    Attributes
    ----------
    name
        As in tables.
    folder
        Where they lie; folders below it are searched too.
    ending
        What follows the subject's name; without a suffix, that of any image format.
    """

    name: str
    folder: Path
    ending: str
    needs_truth: bool = False

    def groupings(self, movie: Movie) -> tuple[Grouping, ...]:
        """None."""
        return ()

    def describe(self) -> dict[str, Any]:
        """See `Candidate`; the files' sizes and times stand for their contents."""
        files = sorted(self.folder.rglob(f"*{_globbed(self.ending)}*"))
        states = [(str(file), *_state(file)) for file in files if file.is_file()]
        digest = sha256(repr(states).encode()).hexdigest()[:16]
        return {"folder": str(self.folder), "ending": self.ending, "files": digest}

    def __call__(self, scene: Scene) -> Made:
        """See `Candidate`.

        Raises
        ------
        BadInputError
            If there is no image of this subject, or it does not show the sum's field.
        """
        if scene.part != "all":
            raise DoesNotFitError(f"{self.name} was made of the whole movie alone")
        path = self._path(scene.subject.name)
        image, notes = as_the_sum(
            read_image(path), scene.aligned.total.cpu(), scene.aligned.pixel_size_angstrom, path
        )
        return Made({"micrograph": image}, notes)

    def _path(self, subject: str) -> Path:
        has_suffix = self.ending.lower().endswith(_SUFFIXES)
        wanted = [subject + self.ending + suffix for suffix in ([""] if has_suffix else _SUFFIXES)]
        found = [self.folder / name for name in wanted if (self.folder / name).is_file()]
        if not found:
            found = [path for name in wanted for path in sorted(self.folder.rglob(_globbed(name)))]
        if not found:
            raise BadInputError(f"{self.name}: {self.folder / wanted[0]} is not there")
        if len(found) > 1:
            raise BadInputError(
                f"{self.name}: both {found[0]} and {found[1]} may be that of {subject}; take one"
                " away, or name the folder that holds it"
            )
        return found[0]


def external_candidate(name: str, place: str) -> ExternalCandidate:
    """What ``--external NAME=FOLDER:SUFFIX`` means; without ``:SUFFIX``, files are called as the
    movies are.

    Raises
    ------
    SettingsError
        If there is no such folder.
    """
    folder, _, ending = place.rpartition(":")
    if not folder or "/" in ending:
        folder, ending = place, ""
    if not Path(folder).is_dir():
        raise SettingsError(
            f"--external {name}={place}: {folder} is no folder; give NAME=FOLDER:SUFFIX, as"
            f" {name}=results:_denoised.mrc"
        )
    return ExternalCandidate(name, Path(folder), ending)


def as_the_sum(
    image: Image, total: Image, pixel_size_angstrom: float, path: Path
) -> tuple[Image, tuple[str, ...]]:
    """An image on the grid and in the orientation of a sum of the same field, and what was done.

    Parameters
    ----------
    image
        [y, x], any size that is the sum's or a whole fraction of it.
    total
        The sum.
    pixel_size_angstrom
        Of the sum.
    path
        For messages.

    Raises
    ------
    BadInputError
        If it is of another size, constant, or shows another field.
    """
    if not image.std() > 0:
        raise BadInputError(f"{path} is constant; give an image")
    shape = (total.shape[0], total.shape[1])
    factor = _binning_of(image, shape)
    if factor is None:
        height, width = image.shape
        raise BadInputError(
            f"{path} is {width} x {height} pixels, the sum {shape[1]} x {shape[0]}; give results of"
            " the whole field, of this size or binned by a whole number"
        )
    notes = [] if factor == 1 else [f"binned by {factor}: brought to the grid of the sum"]
    # A grid that just holds the band in which both are compared
    pixel = max(_BAND_ANGSTROM[1] / 2, pixel_size_angstrom * factor)
    small_total = _coarser(total, pixel_size_angstrom / pixel)
    small = _coarser(image, pixel_size_angstrom * factor / pixel)
    peaks = {}
    for label, way in ORIENTATIONS.items():
        turned = _turned_back(small, *way)
        if turned.shape == small_total.shape:
            peaks[label] = _peak(turned, small_total, pixel)
    label = _orientation(peaks, path)
    fine = resample(_turned_back(image, *ORIENTATIONS[label]), shape)
    if label != "as the sum":
        notes.append(f"lay {label}: turned back")
    if peaks[label] < 0:
        notes.append("its contrast was inverted: made dark on bright as the sum")
        fine = -fine
    return fine, tuple(notes)


def _coarser(image: Image, scale: float) -> Image:
    height, width = (round(side * scale) for side in image.shape)
    return resample(image, (height, width))


def _binning_of(image: Image, shape: Shape) -> int | None:
    """By what whole number the image is smaller than the sum, either way up; None: by none."""
    height, width = image.shape
    for a, b in ((height, width), (width, height)):
        factor = shape[0] // a
        if factor >= 1 and (a * factor, b * factor) == shape:
            return factor
    return None


def _orientation(peaks: Mapping[str, float], path: Path) -> str:
    strength = {label: abs(peak) for label, peak in peaks.items()}
    best = max(strength, key=lambda label: strength[label])
    if strength[best] < _LEAST_PEAK:
        raise BadInputError(
            f"{path} does not show the field of the sum, nor turned or mirrored; give the result of"
            " this movie"
        )
    is_upright = strength.get("as the sum", 0.0) >= _UPRIGHT_SHARE * strength[best]
    return "as the sum" if is_upright else best


def _turned_back(image: Image, turns: int, is_mirrored: bool) -> Image:
    turned = torch.rot90(image, -turns, (0, 1))
    return turned.flip(0) if is_mirrored else turned


def _peak(image: Image, total: Image, pixel_size_angstrom: float) -> float:
    """Highest correlation of both at a small shift, in deviations of that at all shifts; negative
    where it is the lowest that stands out.
    """
    shape = (total.shape[0], total.shape[1])
    k = radial_frequency(shape) / pixel_size_angstrom
    coarsest, finest = _BAND_ANGSTROM
    is_inside = (k > 1 / coarsest) & (k < 1 / finest)
    product = torch.fft.rfft2(image) * torch.fft.rfft2(total).conj()
    # Each ring counts by its phases alone: filters leave them, and coarse detail is not all.
    phases = torch.where(is_inside, product / product.abs().clamp(min=1e-30), 0)
    cross = torch.fft.irfft2(phases, s=shape)
    reach = round(_MOST_SHIFT_ANGSTROM / pixel_size_angstrom)
    near = torch.roll(cross, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    near = near / cross.std()
    highest, lowest = float(near.max()), float(near.min())
    return highest if highest >= -lowest else lowest


def _globbed(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
