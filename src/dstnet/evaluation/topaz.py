"""Topaz-Denoise with its published weights (Bepler et al. 2020, doi:10.1038/s41467-020-18952-1), as
a program that the user has; GPL, so never a part of this.
"""

import shutil
from dataclasses import dataclass
from typing import Any

import torch

from dstnet.alignment import Grouping
from dstnet.evaluation.base import Made, Scene
from dstnet.evaluation.processes import run_program, version_of
from dstnet.evaluation.results import read_result
from dstnet.evaluation.sources import Source
from dstnet.io import write_mrc
from dstnet.movie import Movie

USUAL_NAME = "topaz"


@dataclass(frozen=True)
class TopazCandidate:
    """``topaz denoise`` of a sum.

    Attributes
    ----------
    name
        As in tables.
    program
        Its path.
    source
        Which sum it is given.
    seconds_allowed
        For an image.
    options
        Beyond its defaults.
    """

    name: str
    program: str
    source: Source
    seconds_allowed: float
    options: str = ""
    needs_truth: bool = False

    def groupings(self, movie: Movie) -> tuple[Grouping, ...]:
        """None."""
        return ()

    def describe(self) -> dict[str, Any]:
        """See `Candidate`."""
        version = version_of(self.program)
        described = {"program": self.program, "version": version, **self.source.describe()}
        return {**described, "options": self.options} if self.options else described

    def __call__(self, scene: Scene) -> Made:
        """See `Candidate`.

        Raises
        ------
        BadInputError
            If a program fails, or writes no image of this size.
        """
        image, notes = self.source(scene)
        folder = scene.folder / f"{self.name}-{scene.part}"
        folder.mkdir()
        pixel = scene.aligned.pixel_size_angstrom
        name = scene.aligned.movie.name
        try:
            write_mrc(folder / "sum.mrc", image, pixel, "sum")
            own = _arguments(scene.aligned.total.device)
            command = [self.program, "denoise", "sum.mrc", *own, *self.options.split()]
            peak = run_program("topaz", command, folder, name, self.seconds_allowed)
            denoised = read_result(
                folder / "denoised" / "sum.mrc", scene.aligned.shape, "topaz", name
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Made({"micrograph": denoised}, notes, peak_bytes=peak)


def _arguments(device: torch.device) -> list[str]:
    number = str(device.index or 0) if device.type == "cuda" else "-1"
    threads = str(torch.get_num_threads())
    return ["--output", "denoised", "--device", number, "--num-threads", threads]
