"""Movies without particles, like a movie: what a method draws there is invented."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from dstnet.alignment import AlignedMovie
from dstnet.evaluation.base import Part, Scene
from dstnet.metrics.hallucination import noise_only, shuffled
from dstnet.movie import Movie

CONTROLS: tuple[Part, ...] = ("noise", "shuffled", "ice")


@dataclass
class Controls:
    """The controls of one movie, each made and aligned when it is first asked for.

    Attributes
    ----------
    scene
        The movie.
    seed
        Of their noise, with the movie's name.
    align
        Aligns them as the movie was.
    """

    scene: Scene
    seed: int
    align: Callable[[Movie], AlignedMovie]
    _made: dict[Part, Scene | None] = field(default_factory=dict)

    def __call__(self, part: Part) -> Scene | None:
        """A control; None where the movie has none of that kind.

        Raises
        ------
        BadInputError
            If it cannot be aligned.
        """
        if part not in self._made:
            movie = self._movie(part)
            self._made[part] = None
            if movie is not None:
                scene = self.scene
                self._made[part] = replace(scene, aligned=self.align(movie), part=part)
        return self._made[part]

    def _movie(self, part: Part) -> Movie | None:
        subject = self.scene.subject
        if part == "ice":
            return None if subject.ice is None else subject.ice()
        movie = self.scene.aligned.movie
        text = f"{self.seed}/{subject.dataset}/{subject.name}/{part}"
        digest = hashlib.sha256(text.encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        if part == "shuffled":
            return shuffled(movie, random)
        mean_counts = float(self.scene.aligned.total.mean()) / len(movie)
        return noise_only(movie, mean_counts, random) if mean_counts > 0 else None
