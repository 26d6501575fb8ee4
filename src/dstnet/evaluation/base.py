"""Where the parts of an evaluation meet: what is evaluated on, the methods, and the measures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from dstnet.alignment import AlignedMovie, Grouping, half_movie
from dstnet.core.shapes import Image
from dstnet.errors import BadInputError
from dstnet.motion import Motion
from dstnet.movie import Movie

Part = Literal["all", "even", "odd", "noise", "shuffled", "ice", "erased"]
Need = Literal["", "truth", "annotation", "halves", "noise", "shuffled", "ice"]


class DoesNotFitError(BadInputError):
    """A method cannot work on such a scene, by its nature: a single image where it needs frames, a
    half where there are only results of the whole. It has no score there, and nothing failed.
    """


@dataclass(frozen=True)
class Truth:
    """What is known of a simulated movie, on the grid of the movie, at the first frame's position.

    Attributes
    ----------
    clean
        Contrast of the particles after the CTF, [y, x], no noise, particles dark.
    phase
        Projected phase of the particles in rad, [y, x], bright; None where it is not known.
    label
        Which particle covers a pixel, [y, x], int32: 0 none; None where it is not known.
    motion
        True motion of the frames; None where it is not known.
    centres_px
        [particle, 2] (y, x) in pixels; none where they are not known.
    diameter_angstrom
        Of the particles, largest where they differ; None where it is not known.
    """

    clean: Image
    phase: Image | None = None
    label: torch.Tensor | None = None
    motion: Motion | None = None
    centres_px: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    diameter_angstrom: float | None = None


@dataclass(frozen=True)
class Annotation:
    """Particles that people marked on a micrograph.

    Attributes
    ----------
    centres_px
        [particle, 2] (y, x) in pixels of the movie.
    diameter_angstrom
        Of the particles.
    notes
        What the user should know, a line each: picks that were scaled, a few outside of the field.
    """

    centres_px: np.ndarray
    diameter_angstrom: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A movie or image to evaluate on; it travels to the workers, so its functions are picklable.

    Attributes
    ----------
    name
        Of its file, without ending; unique in its data set.
    dataset
        Its group in tables: the name of its folder, unique in a run.
    path
        The file of the movie as the camera wrote it.
    digest
        Of all files that it is made of: a rerun works anew on what has changed.
    open
        Gives the movie, corrected for gain and defects.
    truth, annotation
        Give what is known of it, the annotation of the movie as it was opened; None: nothing is.
        What does not fit the movie raises BadInputError, and is left out.
    gain_path, defects_path
        Of the camera's references, for other programs; None: there are none.
    ice
        Gives a movie like it without particles; None: there is none.
    """

    name: str
    dataset: str
    path: Path
    digest: str
    open: Callable[[], Movie]
    truth: Callable[[], Truth] | None = None
    annotation: Callable[[Movie], Annotation] | None = None
    gain_path: Path | None = None
    defects_path: Path | None = None
    ice: Callable[[], Movie] | None = None


@dataclass(frozen=True, eq=False)  # each is itself: hashable though it holds arrays
class Scene:
    """A subject at work: aligned once for all methods.

    Attributes
    ----------
    subject
        What it is of.
    aligned
        The movie, aligned, with the groups that the methods asked for.
    truth
        What is known of it; None: nothing. Only methods that say so (`needs_truth`) may look.
    folder
        For files of other programs; empty at first, removed afterwards.
    groupings
        The groups of frames that the methods want of a movie.
    part
        "all" frames of the subject's file; else a half or a control, which only `aligned` holds.
    """

    subject: Subject
    aligned: AlignedMovie
    truth: Truth | None
    folder: Path
    groupings: Callable[[Movie], tuple[Grouping, ...]] = lambda movie: ()
    part: Part = "all"

    @cached_property
    def even(self) -> "Scene | None":
        """Of every other frame, the first among them; None for a single image."""
        return self._half("even", 0)

    @cached_property
    def odd(self) -> "Scene | None":
        """Of the other frames; None for a single image."""
        return self._half("odd", 1)

    def _half(self, part: Part, first: int) -> "Scene | None":
        movie = self.aligned.movie
        if len(movie) < 2:
            return None
        groupings = self.groupings(movie.subset(range(first, len(movie), 2)))
        return replace(
            self, aligned=half_movie(self.aligned, first, groupings=groupings), part=part
        )


@dataclass(frozen=True)
class Made:
    """What a method made of a scene.

    Attributes
    ----------
    images
        By output ("micrograph" first; "contrast", "particles"), [y, x], float32 on the CPU, on the
        grid of the scene's sums.
    notes
        What the user should know, a line each.
    motion
        As the method itself found it; None: it has none of its own.
    peak_bytes
        Of memory, of a process of its own; None: it had none.
    """

    images: Mapping[str, Image]
    notes: tuple[str, ...] = ()
    motion: Motion | None = None
    peak_bytes: int | None = None


class Candidate(Protocol):
    """A method under evaluation; picklable, and light until it is called."""

    @property
    def name(self) -> str:
        """As in tables and files: "dstnet-3", "gaussian:20", "relion+topaz", ..."""
        ...

    @property
    def needs_truth(self) -> bool:
        """Whether it is told what no user knows; it is left out where there is no truth."""
        ...

    def groupings(self, movie: Movie) -> tuple[Grouping, ...]:
        """What it wants of the alignment."""
        ...

    def describe(self) -> dict[str, Any]:
        """What goes on record, and decides whether earlier scores hold: version, digest of weights,
        command.
        """
        ...

    def __call__(self, scene: Scene) -> Made:
        """Enhance.

        Raises
        ------
        DoesNotFitError
            If it is not meant for such scenes.
        DstnetError
            If it fails on this scene; others go on.
        """
        ...


@dataclass(frozen=True)
class Half:
    """An enhanced half of a movie and both raw ones.

    Attributes
    ----------
    image
        What the method made of the even frames, [y, x].
    own
        Their plain sum.
    other
        The plain sum of the odd frames, whose noise is independent.
    """

    image: Image
    own: Image
    other: Image


@dataclass(frozen=True)
class Control:
    """What a method made of a movie without particles, [y, x], and that movie's plain sum."""

    image: Image
    total: Image


@dataclass(frozen=True, eq=False)  # each is itself: hashable though it holds arrays
class Evaluated:
    """One output of one method on one scene, as a measure is given it.

    Attributes
    ----------
    scene
        What it was made of.
    method, output
        Names.
    image
        [y, x], on the grid of the scene's sums.
    target
        The truth of this output (clean contrast, or minus the phase), already moved to where
        `image` has it; None where there is none.
    annotation
        Particles that people marked, or the true ones of a simulated movie; None: not known.
    half
        None where there is none.
    controls
        By their name: "noise", "shuffled", "ice"; those that were asked for.
    made
        All that the method made.
    border_px
        Left out at each side.
    """

    scene: Scene
    method: str
    output: str
    image: Image
    target: Image | None
    annotation: Annotation | None
    half: Half | None
    controls: Mapping[Part, Control]
    made: Made
    border_px: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """The pixels that count."""
        inside = slice(self.border_px, -self.border_px or None)
        return inside, inside


@dataclass(frozen=True)
class Curve:
    """A measure that is not one number.

    Attributes
    ----------
    x, y
        Of equal length; what x is, the measure says (`x_unit`).
    """

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class ScoredPicks:
    """Picks of a field, the surest first, for a threshold that other fields decide.

    Attributes
    ----------
    scores
        Of each pick.
    hits
        Whether it is on a particle.
    centres
        Particles in the field.
    """

    scores: tuple[float, ...]
    hits: tuple[bool, ...]
    centres: int


@dataclass(frozen=True)
class Measure:
    """A metric, as a row of the table of them.

    Attributes
    ----------
    name
        "residual", "frc-area", ...
    label
        As tables and axes call it.
    unit
        "", "dB", "Å", ...
    better
        "higher", "lower", or "" where neither is.
    source
        The paper, or "this package".
    needs
        What must be known of the subject; "" for nothing.
    function
        Not finite: not known. Raises DstnetError where the image cannot be scored.
    of
        Outputs that it applies to.
    x_label
        Of a curve's x, with its unit.
    """

    name: str
    label: str
    unit: str
    better: Literal["higher", "lower", ""]
    source: str
    needs: Need
    function: Callable[[Evaluated], float | Curve | ScoredPicks]
    of: tuple[str, ...] = ("micrograph",)
    x_label: str = ""
