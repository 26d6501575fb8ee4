"""The table of methods (a stand-in until the real one is merged)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dstnet.alignment import Grouping, accumulate
from dstnet.enhancement import EnhancementSettings, make_restorer
from dstnet.evaluation.base import Candidate, Made, Scene
from dstnet.evaluation.settings import EvaluationSettings
from dstnet.movie import Movie


@dataclass(frozen=True)
class Own:
    """A method of this package."""

    name: str
    needs_truth: bool = False

    @cached_property
    def restorer(self):
        return make_restorer(EnhancementSettings(model=self.name))

    def groupings(self, movie: Movie) -> tuple[Grouping, ...]:
        return self.restorer.needs(movie).groupings

    def describe(self) -> dict[str, Any]:
        return self.restorer.describe()

    def __call__(self, scene: Scene) -> Made:
        known = [o for o in ("micrograph", "contrast", "particles") if o in self.restorer.outputs]
        restored = self.restorer(scene.aligned, outputs=known)
        images = {name: restored.images[name].float().cpu() for name in known}
        return Made(images, restored.notes)


@dataclass(frozen=True)
class TrueMotionSum:
    """The sum by the true motion."""

    name: str = "true-motion-sum"
    needs_truth: bool = True

    def groupings(self, movie: Movie) -> tuple[Grouping, ...]:
        return ()

    def describe(self) -> dict[str, Any]:
        return {"method": self.name}

    def __call__(self, scene: Scene) -> Made:
        assert scene.truth is not None and scene.truth.motion is not None
        total = accumulate(scene.aligned.movie, scene.truth.motion).total
        return Made({"micrograph": total}, motion=scene.truth.motion)


def make_candidates(settings: EvaluationSettings) -> list[Candidate]:
    """The methods that the settings name.

    Raises
    ------
    DstnetError
        If one cannot be used at all.
    """
    default = ("sum", "dose-weighted-sum", "gaussian:20", "wiener", "dstnet-3", "true-motion-sum")
    names = settings.methods or default
    return [TrueMotionSum() if n == "true-motion-sum" else Own(n) for n in names]
