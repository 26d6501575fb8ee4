"""The files of a simulated movie's truths, all of them, by one table of images and one list."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike
from torch import Tensor

from dstnet.dataset.movie_facts import FACTS_ENDING
from dstnet.simulation import MovieSimulator


@dataclass(frozen=True)
class TruthImage:
    """A true image of a movie, ``truth/NAME_{name}.mrc``.

    Attributes
    ----------
    name
        That it is asked for by.
    label
        In the file's header.
    image
        What gives it, [y, x].
    dtype
        In the file.
    """

    name: str
    label: str
    image: Callable[[MovieSimulator], Tensor]
    dtype: DTypeLike = np.float32

    @property
    def ending(self) -> str:
        """Of its file."""
        return f"{self.name}.mrc"


TRUTH_IMAGES = (
    TruthImage(
        "phase",
        "projected phase of the particles, rad",
        lambda simulator: simulator.truth.phase,
    ),
    TruthImage(
        "clean",
        "contrast of the particles after the CTF, no noise",
        lambda simulator: simulator.truth.clean,
    ),
    TruthImage(
        "ice",
        "projected phase of ice, film, frost in the first frame, rad",
        lambda simulator: simulator.ice_phase(),
    ),
    TruthImage(
        "thickness",
        "ice thickness, Angstrom",
        lambda simulator: simulator.truth.thickness_angstrom,
    ),
    TruthImage(
        "label",
        "which particle covers a pixel, row of the particle table from 1",
        lambda simulator: simulator.truth.label,
        np.uint16,
    ),
)
MOTION_ENDING = "motion.json"
# As RELION writes them
TABLES = ("motion", "ctf", "particles")
EXPECTED_ENDING = "expected.mrcs"  # the noise-free frames, written where asked for


def truth_endings(expected: bool = False) -> list[str]:
    """Endings of all truth files of a complete movie, with or without the noise-free frames."""
    endings = [image.ending for image in TRUTH_IMAGES]
    endings.append(MOTION_ENDING)
    endings += [f"{table}.star" for table in TABLES]
    endings.append(FACTS_ENDING)
    if expected:
        endings.append(EXPECTED_ENDING)
    return endings
