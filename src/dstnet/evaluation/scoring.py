"""One method on one movie: what it makes of the whole, of a half and of controls, and what the
measures say of it.
"""

import math
import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dstnet.core.shapes import Image
from dstnet.errors import BadInputError, DstnetError
from dstnet.evaluation.base import (
    Annotation,
    Candidate,
    Control,
    Curve,
    DoesNotFitError,
    Evaluated,
    Half,
    Made,
    Measure,
    Part,
    Scene,
    ScoredPicks,
    Truth,
)
from dstnet.evaluation.controls import CONTROLS, Controls
from dstnet.evaluation.records import MethodScores, OutputScores
from dstnet.metrics.image import moved_truth


@dataclass(frozen=True)
class Scorer:
    """Scores methods on one movie.

    Attributes
    ----------
    measures
        Those that are asked for.
    scene
        The movie, aligned with its even and odd sums where it has frames enough.
    annotation
        Its particles; None: not known.
    controls
        Its controls.
    border_px
        Left out at each side.
    """

    measures: Sequence[Measure]
    scene: Scene
    annotation: Annotation | None
    controls: Controls
    border_px: int

    def __call__(self, candidate: Candidate, digest: str) -> tuple[MethodScores, Image | None]:
        """The scores of a method, and its micrograph; None where it has none."""
        names = tuple(sorted(measure.name for measure in self.measures))
        scores = MethodScores(digest=digest, told=candidate.needs_truth, measures=names)
        before = _cpu_seconds()
        try:
            made = _made_of(self.scene, candidate)
        except DoesNotFitError as error:
            return scores.model_copy(update={"notes": (f"left out: {error}",)}), None
        except Exception as error:
            return scores.model_copy(update={"problems": (said(error),)}), None
        seconds = _cpu_seconds() - before
        problems: list[str] = []
        update = {
            "outputs": self._outputs(candidate, made, problems),
            "notes": made.notes,
            "problems": tuple(dict.fromkeys(problems)),
            "cpu_seconds": round(seconds, 2),
            "peak_bytes": made.peak_bytes,
        }
        return scores.model_copy(update=update), made.images["micrograph"]

    def _outputs(
        self, candidate: Candidate, made: Made, problems: list[str]
    ) -> dict[str, OutputScores]:
        """What the measures say of each output; what could not be had is added to `problems`."""
        needs = {measure.needs for measure in self.measures}
        half = None
        if "halves" in needs and self.scene.even is not None:
            half = self._further(candidate, self.scene.even, problems)
        of_controls: dict[Part, tuple[Scene, Made]] = {}
        for part in CONTROLS:
            scene = self._control(part, problems) if part in needs else None
            drawn = None if scene is None else self._further(candidate, scene, problems)
            if scene is not None and drawn is not None:
                of_controls[part] = scene, drawn
        found = {}
        for output, image in made.images.items():
            evaluated = Evaluated(
                scene=self.scene,
                method=candidate.name,
                output=output,
                image=image,
                target=_target(self.scene.truth, output, image),
                annotation=self.annotation,
                half=self._half(half, output),
                controls={
                    part: Control(drawn.images[output], scene.aligned.total)
                    for part, (scene, drawn) in of_controls.items()
                    if output in drawn.images
                },
                made=made,
                border_px=self.border_px,
            )
            found[output] = self._scores(evaluated, problems)
        return found

    def _further(self, candidate: Candidate, scene: Scene, problems: list[str]) -> Made | None:
        """What a method makes of a half or a control; None where it makes nothing."""
        try:
            return _made_of(scene, candidate)
        except DoesNotFitError:
            return None
        except Exception as error:
            problems.append(f"on {scene.part}: {said(error)}")
            return None

    def _control(self, part: Part, problems: list[str]) -> Scene | None:
        try:
            return self.controls(part)
        except DstnetError as error:
            problems.append(f"on {part}: {error}")
            return None

    def _half(self, made: Made | None, output: str) -> Half | None:
        if made is None or output not in made.images:
            return None
        aligned = self.scene.aligned
        assert aligned.even is not None and aligned.odd is not None
        return Half(made.images[output], aligned.even, aligned.odd)

    def _scores(self, evaluated: Evaluated, problems: list[str]) -> OutputScores:
        values: dict[str, float] = {}
        curves: dict[str, Curve] = {}
        picks: dict[str, ScoredPicks] = {}
        for measure in self.measures:
            if evaluated.output not in measure.of or not _is_known(measure, evaluated):
                continue
            try:
                found = measure.function(evaluated)
            except DstnetError as error:
                problems.append(f"{measure.name} of {evaluated.output}: {error}")
                continue
            if isinstance(found, Curve):
                curves[measure.name] = found
            elif isinstance(found, ScoredPicks):
                picks[measure.name] = found
            elif math.isfinite(found):
                values[measure.name] = found
        return OutputScores(values=values, curves=curves, picks=picks)


def _made_of(scene: Scene, candidate: Candidate) -> Made:
    """What a method makes of a scene, fit to be scored.

    Raises
    ------
    BadInputError
        If an image is of another size, not finite, or constant.
    """
    made = candidate(scene)
    for output, image in made.images.items():
        if tuple(image.shape) != scene.aligned.shape:
            raise BadInputError(f"its {output} is {tuple(image.shape)}, not {scene.aligned.shape}")
        if not torch.isfinite(image).all():
            raise BadInputError(f"its {output} holds values that are not finite")
        if not image.std() > 0:
            raise BadInputError(f"its {output} is constant")
    return made


def _target(truth: Truth | None, output: str, image: Image) -> Image | None:
    """The truth of an output, where the image has it."""
    if truth is None:
        return None
    if output == "micrograph":
        return moved_truth(image, truth.clean)
    return None if truth.phase is None else moved_truth(image, -truth.phase)


def _is_known(measure: Measure, evaluated: Evaluated) -> bool:
    """Whether what a measure needs is there."""
    needs = measure.needs
    if needs == "truth":
        return evaluated.target is not None
    if needs == "annotation":
        return evaluated.annotation is not None
    if needs == "halves":
        return evaluated.half is not None
    return needs not in CONTROLS or needs in evaluated.controls


def said(error: Exception) -> str:
    """An error in one line; of a mistake of ours, with its place."""
    text = " ".join(str(error).split())
    if isinstance(error, DstnetError):
        return text
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"out of memory ({text}); give fewer --workers"
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"unexpected {type(error).__name__} at {place}: {text}; please report this"


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
