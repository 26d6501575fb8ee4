"""RELION's own motion correction, as a program that the user has; GPL, so never a part of this.

Version 3.1 and later (Zivanov et al. 2019, doi:10.1107/S205225251801463X). It gets the frames as
all methods do, corrected for gain and defects, as an MRC stack; so its sums lie on the grid of
ours, their rows in the same order, at the position of the first frame.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dstnet.alignment import Grouping
from dstnet.core.shapes import Image, Shape
from dstnet.evaluation.base import Made, Scene
from dstnet.evaluation.processes import check_has_frames, run_program, version_of
from dstnet.evaluation.results import read_result
from dstnet.io import write_mrc
from dstnet.motion import Motion
from dstnet.movie import Movie
from dstnet.pipeline.motion_source import read_tables

USUAL_NAME = "relion_run_motioncorr"
_MOST_PATCHES = 5  # a side, as users ask for
_SMALLEST_PATCH_PX = 340
# RELION fits six terms over the field, which fewer patches do not decide.
_FEWEST_PATCHES = 3
_FOLDER = "corrected"


@dataclass(frozen=True)
class Corrected:
    """What RELION made of a movie.

    Attributes
    ----------
    total
        Plain sum, [y, x].
    dose_weighted
        None where the exposure is not known.
    motion
        As it found it.
    was_at_hand
        Made for another method of the same run.
    peak_bytes
        Of memory that RELION held; None: not known.
    """

    total: Image
    dose_weighted: Image | None
    motion: Motion
    was_at_hand: bool = False
    peak_bytes: int | None = None

    @property
    def micrograph(self) -> Image:
        """What users go on with: the dose-weighted sum; the plain one without exposure."""
        return self.total if self.dose_weighted is None else self.dose_weighted

    def notes(self) -> tuple[str, ...]:
        """What a table's reader should know."""
        if self.was_at_hand:
            return ("RELION's sum was at hand: the time to make it is not in this method's",)
        return ()


@dataclass(frozen=True)
class RelionCandidate:
    """RELION's motion-corrected sum.

    Attributes
    ----------
    name
        As in tables.
    program
        Its path.
    is_weighted
        The dose-weighted sum, not the plain one.
    seconds_allowed
        For a movie.
    """

    name: str
    program: str
    is_weighted: bool
    seconds_allowed: float
    needs_truth: bool = False

    def groupings(self, movie: Movie) -> tuple[Grouping, ...]:
        """None."""
        return ()

    def describe(self) -> dict[str, Any]:
        """See `Candidate`."""
        return {"program": self.program, "version": version_of(self.program)}

    def __call__(self, scene: Scene) -> Made:
        """See `Candidate`.

        Raises
        ------
        BadInputError
            If RELION fails; DoesNotFitError if the scene is a single image.
        """
        corrected = relion_corrected(scene, self.program, self.seconds_allowed)
        image = corrected.micrograph if self.is_weighted else corrected.total
        notes = list(corrected.notes())
        if self.is_weighted and corrected.dose_weighted is None:
            notes.append("exposure not known: RELION's plain sum")
        images = {"micrograph": image}
        return Made(images, tuple(notes), corrected.motion, corrected.peak_bytes)


def patches_a_side(length_px: int) -> int:
    """How many patches a side of a field gets: 5 as users ask for, fewer on small fields; 1 (motion
    of the whole field alone) where they would be too few to fit its local model.
    """
    fitting = min(_MOST_PATCHES, length_px // _SMALLEST_PATCH_PX)
    return fitting if fitting >= _FEWEST_PATCHES else 1


def relion_corrected(scene: Scene, program: str, seconds_allowed: float) -> Corrected:
    """RELION's sums of a scene; made once for all methods that ask for them.

    Raises
    ------
    BadInputError
        If RELION fails; DoesNotFitError if the scene is a single image.
    """
    movie = scene.aligned.movie
    check_has_frames("RELION's motion correction", movie)
    folder = scene.folder / f"relion-{scene.part}"
    done = folder / "done"
    was_at_hand = done.exists()
    peak_bytes = None
    if not was_at_hand:
        folder.mkdir(exist_ok=True)
        frames = folder / "movie.mrcs"
        pixel = movie.pixel_size_angstrom
        images = (movie.frame(index).cpu().numpy() for index in range(len(movie)))
        write_mrc(frames, images, pixel, "corrected frames", stack=True)
        command = [program, *_arguments(movie, scene.aligned.binning)]
        try:
            peak_bytes = run_program("relion", command, folder, movie.name, seconds_allowed)
        finally:
            frames.unlink(missing_ok=True)
        done.touch()
    made = _read(folder / _FOLDER, scene.aligned.shape, movie)
    return replace(made, was_at_hand=was_at_hand, peak_bytes=peak_bytes)


def _arguments(movie: Movie, binning: float) -> list[str]:
    height, width = movie.shape
    values: dict[str, Any] = {
        "--i": "movie.mrcs",
        "--o": f"{_FOLDER}/",
        "--j": torch.get_num_threads(),
        "--angpix": movie.pixel_size_angstrom,
        "--voltage": movie.voltage_kv,
        "--patch_x": patches_a_side(width),
        "--patch_y": patches_a_side(height),
        "--bin_factor": binning,
    }
    flags = ["--use_own"]
    exposure = movie.exposure
    if exposure is not None:
        # It knows one exposure for all frames; between those of a half, others were taken.
        starts = exposure.start_e_per_a2
        first_end = starts[0] + exposure.frame_e_per_a2[0]
        step = (starts[-1] - starts[0]) / (len(starts) - 1)
        values["--dose_per_frame"] = step
        values["--preexposure"] = max(0.0, first_end - step)
        flags += ["--dose_weighting", "--save_noDW"]
    return flags + [str(word) for pair in values.items() for word in pair]


def _read(folder: Path, shape: Shape, movie: Movie) -> Corrected:
    is_weighted = movie.exposure is not None
    total = read_result(folder / f"movie{'_noDW' * is_weighted}.mrc", shape, "RELION", movie.name)
    weighted = None
    if is_weighted:
        weighted = read_result(folder / "movie.mrc", shape, "RELION", movie.name)
    motion = Motion.from_relion(read_tables(folder / "movie.star"), movie.pixel_size_angstrom)
    return Corrected(total, weighted, motion)
