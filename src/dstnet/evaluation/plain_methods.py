"""Methods of this package, and what needs no more than a function: sums, marks that are told the
truth, BM3D.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from dstnet.alignment import Grouping, accumulate
from dstnet.alignment.undo_motion import field_of
from dstnet.core.fourier import resample
from dstnet.core.shapes import Image
from dstnet.enhancement.base import Restorer
from dstnet.enhancement.classical import dose_weighted_sum
from dstnet.enhancement.registry import make_restorer
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.errors import BadInputError, SettingsError
from dstnet.evaluation.base import DoesNotFitError, Made, Scene, Truth
from dstnet.metrics.oracle import best_gaussian, gaussian_filtered, oracle_wiener_filtered
from dstnet.motion import Motion
from dstnet.movie import Movie
from dstnet.movie.normalise import unit_noise

OUTPUTS = ("micrograph", "contrast", "particles")  # those that are scored
# Deviations of swept Gaussians, 19 % apart, in pixels: from what leaves all to what leaves blobs.
SWEPT_SIGMAS_PX = tuple(0.5 * 2 ** (step / 4) for step in range(22))


@dataclass(frozen=True)
class RegistryCandidate:
    """A method of `dstnet.enhancement.registry`, by the name that users give it.

    Attributes
    ----------
    name
        As in tables.
    model
        The method, released weights or a file of weights.
    """

    name: str
    model: str
    needs_truth: bool = False

    def groupings(self, movie: Movie) -> tuple[Grouping, ...]:
        """What the method wants of the alignment."""
        return _restorer(self.model).needs(movie).groupings

    def describe(self) -> dict[str, Any]:
        """See `Candidate`."""
        return _restorer(self.model).describe()

    def __call__(self, scene: Scene) -> Made:
        """See `Candidate`; errors are those of `Restorer`."""
        restorer = _restorer(self.model, str(scene.aligned.total.device))
        outputs = [name for name in OUTPUTS if name in restorer.outputs]
        restored = restorer(scene.aligned, outputs=outputs)
        images = {name: restored.images[name].float().cpu() for name in outputs}
        return Made(images, restored.notes)


@lru_cache(maxsize=8)
def _restorer(model: str, device: str = "cpu") -> Restorer:
    return make_restorer(EnhancementSettings(model=model), device)


@dataclass(frozen=True)
class FunctionCandidate:
    """A method that is a function of a scene.

    Attributes
    ----------
    name
        As in tables.
    function
        Gives what is made of a scene.
    needs_truth
        Whether it is told what no user knows.
    package
        That it calls; its version goes on record.
    """

    name: str
    function: Callable[[Scene], Made]
    needs_truth: bool = False
    package: str = ""

    def groupings(self, movie: Movie) -> tuple[Grouping, ...]:
        """None."""
        return ()

    def describe(self) -> dict[str, Any]:
        """See `Candidate`."""
        described = {"method": self.name}
        if self.package:
            described["package"] = f"{self.package} {_version_of(self.package)}"
        return described

    def __call__(self, scene: Scene) -> Made:
        """See `Candidate`; errors are those of the function."""
        return self.function(scene)


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def raw_sum(scene: Scene) -> Made:
    """The frames added where the camera has them."""
    still = torch.zeros(len(scene.aligned.movie), 2)
    return _summed(scene, Motion.of_shifts(still))


def true_motion_sum(scene: Scene) -> Made:
    """The plain sum with the true motion taken out.

    Raises
    ------
    DoesNotFitError
        If the true motion is not known.
    BadInputError
        If it is of another number of frames.
    """
    movie = scene.aligned.movie
    motion = _truth_of(scene).motion
    if motion is None:
        raise DoesNotFitError(f"{movie.name}: its true motion is not known")
    frames = len(motion.global_shift_angstrom)
    if max(movie.frame_numbers) >= frames:
        raise BadInputError(
            f"{movie.name} has {movie.frames_in_file} frames, its true motion is of {frames}"
        )
    field = field_of(movie.shape, movie.pixel_size_angstrom)
    # The first frame of all, also for half of them: halves lie where the movie does.
    return _summed(scene, motion.from_first_frame(field).window(movie.frame_numbers))


def best_gaussian_sum(scene: Scene) -> Made:
    """The dose-weighted sum through the Gaussian that leaves the least residual energy."""
    image = dose_weighted_sum(scene.aligned).cpu()
    _, sigma = best_gaussian(image, _clean(scene), SWEPT_SIGMAS_PX)
    note = f"Gaussian of {sigma * scene.aligned.pixel_size_angstrom:.2f} Å, chosen by the truth"
    return Made({"micrograph": gaussian_filtered(image, sigma)}, (note,))


def true_wiener(scene: Scene) -> Made:
    """The dose-weighted sum through the best filter of rings, which the truth tells."""
    image = dose_weighted_sum(scene.aligned).cpu()
    return Made({"micrograph": oracle_wiener_filtered(image, _clean(scene))})


def block_matched(scene: Scene) -> Made:
    """The dose-weighted sum through BM3D (Dabov et al. 2007, doi:10.1109/TIP.2007.901238), as the
    package bm3d has it, which its licence allows for non-commercial use only. It is told the noise
    that is measured in the sum.

    Raises
    ------
    SettingsError
        If the package is not installed.
    BadInputError
        If the sum is without noise.
    """
    bm3d = import_bm3d()
    image = dose_weighted_sum(scene.aligned).cpu()
    unit, mean, noise = unit_noise(image, scene.aligned.movie.name)
    filtered = torch.from_numpy(bm3d.bm3d(unit.double().numpy(), sigma_psd=1.0))
    note = "package bm3d: for non-commercial use only"
    return Made({"micrograph": filtered.float() * noise + mean}, (note,))


def import_bm3d() -> Any:
    """The package bm3d.

    Raises
    ------
    SettingsError
        If it is not installed.
    """
    try:
        import bm3d  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SettingsError(
            "bm3d is not installed; pip install dstnet[bm3d] (its licence allows non-commercial use"
            " only)"
        ) from None
    return bm3d


def _summed(scene: Scene, motion: Motion) -> Made:
    aligned = scene.aligned
    device = aligned.total.device
    moved = accumulate(aligned.movie, motion.to(device), binning=aligned.binning, device=device)
    return Made({"micrograph": moved.total.cpu()}, motion=motion)


def _truth_of(scene: Scene) -> Truth:
    if scene.truth is None:
        raise BadInputError(f"{scene.aligned.movie.name}: no truth is known of it")
    return scene.truth


def _clean(scene: Scene) -> Image:
    """The truth's contrast on the grid of the sums."""
    return resample(_truth_of(scene).clean, scene.aligned.shape)
