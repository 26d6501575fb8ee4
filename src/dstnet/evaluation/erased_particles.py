"""What methods draw where a particle was taken away, and how much of it where it is.

A simulated movie has a twin: the same seed, the same noise, without some of its particles. At their
places a method's image of either is fitted by what lies there in truth; the coefficient of the
particle's own projection is how much of it is shown. In the twin it should be nothing.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dstnet.alignment import AlignedMovie, AlignmentSettings, align
from dstnet.core.fourier import apply_transfer, shift_phase
from dstnet.core.shapes import Image
from dstnet.errors import DstnetError
from dstnet.evaluation.base import Candidate, Made, Part, Scene, Subject, Truth
from dstnet.evaluation.twins import Twins
from dstnet.metrics.image import best_shift
from dstnet.metrics.picking import TOLERANCE, match_picks
from dstnet.movie import Movie
from dstnet.picking import Picks, pick_blobs
from dstnet.simulation import SimulationSettings


@dataclass(frozen=True)
class PlacePicks:
    """What the fixed picker finds in the images of a pair of twins.

    Attributes
    ----------
    scores, hits
        Of every pick in the complete movie, the surest first, and whether it is on a particle.
    particles
        In the complete movie.
    at_present, at_erased
        Of the surest pick at each place in the complete movie and in its twin; None: there is none.
    """

    scores: tuple[float, ...]
    hits: tuple[bool, ...]
    particles: int
    at_present: tuple[float | None, ...]
    at_erased: tuple[float | None, ...]

    def at(self, places: slice) -> "PlacePicks":
        """The same with some of the places."""
        return replace(self, at_present=self.at_present[places], at_erased=self.at_erased[places])


@dataclass(frozen=True)
class ErasedScores:
    """What one method shows at the places of a pair of twins.

    Attributes
    ----------
    movie, method, output
        Names.
    structure, diameter_angstrom, exposure_e_per_a2, contrast
        What the particles are, and how hard they are to see.
    present, erased
        Coefficient of the particle's true image at each place, where it is and where it is not, in
        contrast (one over the sum's mean): 1 is the whole particle.
    picks
        At the same places.
    """

    movie: str
    method: str
    output: str
    structure: str
    diameter_angstrom: float
    exposure_e_per_a2: float
    contrast: float
    present: tuple[float, ...]
    erased: tuple[float, ...]
    picks: PlacePicks


def place_coefficients(
    image: Image, missing: Image, rest: Image, centres_px: np.ndarray, radius_px: float
) -> np.ndarray:
    """How much of what is missing an image shows at each place, [place].

    Within a disc around each place the image is fitted by a constant, the true image of all else
    and that of what is missing; the coefficient of the last is given.

    Parameters
    ----------
    image
        [y, x].
    missing, rest
        True images of the erased particles and of all others, [y, x].
    centres_px
        [place, 2] (y, x).
    radius_px
        Of the disc.
    """
    reach = math.ceil(radius_px)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    coefficients = np.empty(len(centres_px))
    values = [a.double().numpy() for a in (missing, rest, image)]
    for number, (row, column) in enumerate(centres_px):
        top, left = round(row) - reach, round(column) - reach
        window = slice(top, top + 2 * reach + 1), slice(left, left + 2 * reach + 1)
        rest_y, rest_x = row - round(row), column - round(column)
        inside = (y - rest_y) ** 2 + (x - rest_x) ** 2 < radius_px**2
        of_missing, of_rest, of_image = (a[window][inside] for a in values)
        terms = np.stack([of_missing, of_rest, np.ones(len(of_missing))], axis=1)
        scale = np.maximum(np.linalg.norm(terms, axis=0), 1e-30)
        fitted = np.linalg.lstsq(terms / scale, of_image, rcond=None)[0]
        coefficients[number] = fitted[0] / scale[0]
    return coefficients


@dataclass(frozen=True)
class _Shown:
    """What a method shows of one of two twins."""

    twins: Twins
    made: Made
    aligned: AlignedMovie
    is_complete: bool

    def coefficients(self, output: str) -> tuple[float, ...]:
        """Of the missing particles, in contrast, at each place."""
        twins = self.twins
        image = self.made.images[output].cpu()
        whole, missing = twins.clean, twins.missing_clean
        if output != "micrograph":
            whole, missing = -twins.phase, -twins.missing_phase
        rest = whole - missing
        shift = best_shift(image, whole if self.is_complete else rest)
        factor = shift_phase((image.shape[0], image.shape[1]), shift)
        found = place_coefficients(
            image / float(self.aligned.total.mean()),
            apply_transfer(missing, factor),
            apply_transfer(rest, factor),
            twins.centres_px + np.array(shift),
            twins.diameter_angstrom / 2 / self.aligned.pixel_size_angstrom,
        )
        return tuple(found.tolist())

    def picks(self, output: str) -> Picks:
        """What the fixed picker finds."""
        diameter_px = self.twins.diameter_angstrom / self.aligned.pixel_size_angstrom
        return pick_blobs(self.made.images[output], diameter_px)


def judge(
    twins: Twins,
    subject: Subject,
    candidates: Sequence[Candidate],
    settings: SimulationSettings,
    alignment: AlignmentSettings | None = None,
) -> tuple[list[ErasedScores], dict[str, str]]:
    """What each method shows of a pair of twins, output by output, and why some could not.

    Parameters
    ----------
    twins
        The movies.
    subject
        The complete movie as methods know it.
    candidates
        The methods.
    settings
        Of the simulated movie.
    alignment
        Of each twin by itself.
    """
    total_exposure = settings.exposure_e_per_a2 * settings.frames
    scores: list[ErasedScores] = []
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="dstnet_") as folder:
        scenes = twin_scenes(twins, subject, candidates, Path(folder), alignment)
        for candidate in candidates:
            try:
                present, erased = (
                    _Shown(twins, candidate(scene), scene.aligned, scene.part == "all")
                    for scene in scenes
                )
            except DstnetError as error:
                failures[candidate.name] = str(error)
                continue
            for output in present.made.images:
                scores.append(
                    ErasedScores(
                        movie=subject.name,
                        method=candidate.name,
                        output=output,
                        structure=twins.structure,
                        diameter_angstrom=twins.diameter_angstrom,
                        exposure_e_per_a2=total_exposure,
                        contrast=settings.specimen.contrast,
                        present=present.coefficients(output),
                        erased=erased.coefficients(output),
                        picks=_place_picks(twins, present.picks(output), erased.picks(output)),
                    )
                )
    return scores, failures


def twin_scenes(
    twins: Twins,
    subject: Subject,
    candidates: Sequence[Candidate],
    folder: Path,
    alignment: AlignmentSettings | None = None,
) -> tuple[Scene, Scene]:
    """The complete movie and its twin, each aligned by itself for all methods.

    Parameters
    ----------
    twins, subject, candidates, alignment
        See `judge`.
    folder
        For files of other programs.
    """
    scenes = []
    parts: tuple[tuple[Part, Movie, Image, Image], ...] = (
        ("all", twins.complete, twins.clean, twins.phase),
        (
            "erased",
            twins.erased,
            twins.clean - twins.missing_clean,
            twins.phase - twins.missing_phase,
        ),
    )
    for part, movie, clean, phase in parts:
        groupings = {g for candidate in candidates for g in candidate.groupings(movie)}
        aligned = align(movie, alignment or AlignmentSettings(), groupings=groupings)
        truth = Truth(
            clean=clean,
            phase=phase,
            motion=twins.motion,
            centres_px=twins.others_px,
            diameter_angstrom=twins.diameter_angstrom,
        )
        own = folder / part
        own.mkdir()
        scenes.append(Scene(subject, aligned, truth, own, part=part))
    complete, erased = scenes
    return complete, erased


def _place_picks(twins: Twins, present: Picks, erased: Picks) -> PlacePicks:
    pixel = twins.complete.pixel_size_angstrom
    tolerance_px = TOLERANCE * twins.diameter_angstrom / pixel
    centres = np.concatenate([twins.centres_px, twins.others_px])
    searched = centres[present.searched(centres)]
    hits = match_picks(present.centres_px, searched, tolerance_px)
    return PlacePicks(
        scores=tuple(present.scores.tolist()),
        hits=tuple(hits.tolist()),
        particles=len(searched),
        at_present=_surest_near(present, twins.centres_px, tolerance_px),
        at_erased=_surest_near(erased, twins.centres_px, tolerance_px),
    )


def _surest_near(
    picks: Picks, places_px: np.ndarray, tolerance_px: float
) -> tuple[float | None, ...]:
    """Score of the surest pick near each place; None where there is none."""
    surest: list[float | None] = []
    for place in places_px:
        away = np.hypot(*(picks.centres_px - place).T)
        near = picks.scores[away < tolerance_px]
        surest.append(float(near.max()) if len(near) else None)
    return tuple(surest)
