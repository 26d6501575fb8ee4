"""What is known of movies: truths read from data sets of the simulator and from plain files, and
whether a truth is that of its movie.
"""

import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dstnet.alignment import AlignedMovie
from dstnet.core.fourier import radial_frequency, ring_mean
from dstnet.core.regular_files import open_regular
from dstnet.core.shapes import Image
from dstnet.dataset import SimulatedMovie
from dstnet.dataset.layout import RECORD_ENDING
from dstnet.dataset.truth_files import MOTION_ENDING
from dstnet.errors import BadInputError
from dstnet.evaluation.base import Truth
from dstnet.io import MrcFrames
from dstnet.movie import Movie
from dstnet.simulation import MovieSimulator

# How far a truth may lie from the sum, and how far above chance their correlation must stand there.
SPAN_PX = 24
# Of thirty wrong pairs of simulated movies the highest was 5.1, of six right ones the lowest 21.6.
LEAST_PEAK = 6.0


def simulated_truth(movie: SimulatedMovie) -> Truth:
    """All that a data set knows of its movie.

    Raises
    ------
    BadInputError
        If a file is missing or damaged.
    """
    clean, phase, label = (
        torch.from_numpy(np.array(movie.truth(name)[0], dtype=np.float32))
        for name in ("clean", "phase", "label")
    )
    try:
        table = movie.particles()[["rlnCoordinateY", "rlnCoordinateX"]]
        centres = table.to_numpy(dtype=float)
    except (KeyError, ValueError) as error:
        raise BadInputError(
            f"cannot use the particles of {movie.record_path}: {error}; simulate this movie again"
        ) from None
    pixel = movie.settings.pixel_size_angstrom
    label = label.int()
    return Truth(clean, phase, label, movie.motion(), centres, _diameter(label, pixel))


def _diameter(label: torch.Tensor, pixel_size_angstrom: float) -> float | None:
    """That of a disc as large as the middle particle's outline; None where there is none."""
    areas = torch.bincount(label.flatten())[1:]
    areas = areas[areas > 0]
    if not len(areas):
        return None
    return 2 * float(areas.double().quantile(0.5) / torch.pi) ** 0.5 * pixel_size_angstrom


def without_particles(movie: SimulatedMovie) -> Movie:
    """A simulated movie of the same settings and seed, of ice alone."""
    specimen = movie.settings.specimen.model_copy(update={"coverage": 0.0})
    settings = movie.settings.model_copy(update={"specimen": specimen})
    return MovieSimulator(settings, [], movie.record.seed).movie(f"{movie.name} without particles")


class TruthFolder:
    """Truths of movies that lie elsewhere: a data set of `dstnet simulate`, or NAME_clean.mrc with
    what else there is (NAME_phase.mrc, NAME_label.mrc), or NAME.npz with `clean`.

    Parameters
    ----------
    folder
        Where they are.

    Raises
    ------
    BadInputError
        If there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BadInputError(f"{folder} is no folder of truths; give one to --truth")
        self.folder = folder

    def files(self, name: str) -> list[Path]:
        """The files of a movie's truth; none where there is none."""
        simulated = self.folder / "truth"
        if (simulated / f"{name}_{RECORD_ENDING}").is_file():
            endings = ("clean.mrc", "phase.mrc", "label.mrc", MOTION_ENDING, RECORD_ENDING)
            return [simulated / f"{name}_{ending}" for ending in endings]
        found = [self.folder / f"{name}_{what}.mrc" for what in ("clean", "phase", "label")]
        if found[0].is_file():
            return [path for path in found if path.is_file()]
        archive = self.folder / f"{name}.npz"
        return [archive] if archive.is_file() else []

    def reader(self, name: str) -> "partial[Truth] | None":
        """Reads a movie's truth; None where there is none."""
        files = self.files(name)
        if not files:
            return None
        if files[0].suffix == ".npz":
            return partial(_of_archive, files[0])
        if files[0].parent != self.folder:
            return partial(_of_dataset, self.folder, name)
        return partial(_of_images, {path.stem.removeprefix(f"{name}_"): path for path in files})


def _of_dataset(folder: Path, name: str) -> Truth:
    return simulated_truth(SimulatedMovie.read(folder, name))


def _of_images(files: dict[str, Path]) -> Truth:
    images = {}
    for what, path in files.items():
        images[what] = torch.from_numpy(np.array(MrcFrames(path)[0], dtype=np.float32))
    label = images.get("label")
    return Truth(images["clean"], images.get("phase"), None if label is None else label.int())


def _of_archive(path: Path) -> Truth:
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            clean = np.array(archive["clean"], dtype=np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInputError(
            f"cannot read the truth {path}: {reason}; it must be a .npz file with `clean`, [y, x]"
        ) from None
    if clean.ndim != 2:
        raise BadInputError(f"the truth {path} is {clean.shape}, not [y, x]; write one image")
    return Truth(torch.from_numpy(clean))


def checked_truth(truth: Truth, aligned: AlignedMovie) -> tuple[Truth, str]:
    """A truth that is surely that of the movie, and what was done to it, empty for nothing.

    Images alone, from files of other programs, are also tried with their rows the other way.

    Raises
    ------
    BadInputError
        If its shape is another, or it correlates with the plain sum no better than by chance.
    """
    shape = (truth.clean.shape[0], truth.clean.shape[1])
    if shape != aligned.shape:
        raise BadInputError(
            f"its truth is {shape[0]} x {shape[1]} pixels, the movie {aligned.shape[0]} x"
            f" {aligned.shape[1]}; it is another movie's"
        )
    if not torch.isfinite(truth.clean).all():
        raise BadInputError("its truth holds NaN or infinite pixels; make it again")
    if not truth.clean.std() > 0:
        return truth, ""  # without particles there is nothing that could be wrong
    peak = match_peak(aligned.total, truth.clean)
    if peak >= LEAST_PEAK:
        return truth, ""
    has_places = truth.motion is not None or len(truth.centres_px) > 0
    if not has_places and match_peak(aligned.total, truth.clean.flip(0)) >= LEAST_PEAK:
        return _rows_reversed(truth), "its truth fits with its rows the other way, and is taken so"
    raise BadInputError(
        f"its truth does not show in the plain sum (correlation {peak:.1f} deviations of chance,"
        f" {LEAST_PEAK:g} are needed); it is another movie's, or lies another way"
    )


def _rows_reversed(truth: Truth) -> Truth:
    phase = None if truth.phase is None else truth.phase.flip(0)
    label = None if truth.label is None else truth.label.flip(0)
    return replace(truth, clean=truth.clean.flip(0), phase=phase, label=label)


def match_peak(image: Image, truth: Image) -> float:
    """The highest correlation of an image with a truth near its place, in deviations of that over
    all places; both whitened by the image's spectrum, as the best detector is (North 1943).
    """
    shape = (image.shape[0], image.shape[1])
    spectrum = torch.fft.rfft2((image - image.mean()).double())
    of_truth = torch.fft.rfft2((truth - truth.mean()).double())
    ring = (radial_frequency(shape) * min(shape)).long().clamp(max=min(shape) // 2)
    power = ring_mean(spectrum.abs().square(), ring).clamp(min=1e-30)
    matched = torch.fft.irfft2(spectrum * of_truth.conj() / power[ring], s=shape)
    width = 2 * SPAN_PX + 1
    near = torch.roll(matched, (SPAN_PX, SPAN_PX), (0, 1))[:width, :width]
    return float(near.max() / matched.std().clamp(min=1e-30))
