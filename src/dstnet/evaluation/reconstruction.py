"""Maps made of what methods give, at the particles' true poses: how far their half maps agree, and
how far the map agrees with the truth.

Where two half maps share nothing but the truth, their correlation says how near the map is to it.
What a method draws from what it has learnt is in both halves alike, so that they promise more than
is there: the gap is the bias of whoever refines with enhanced images.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from dstnet.alignment import AlignmentSettings, align
from dstnet.core.fourier import (
    conjugate_counts,
    next_fast_size,
    radial_frequency,
    ring_index,
    shift_phase,
)
from dstnet.core.shapes import Image
from dstnet.dataset import SimulatedMovie
from dstnet.dataset.sources import structures_of
from dstnet.errors import BadInputError, DstnetError
from dstnet.evaluation.base import Candidate, Scene, Subject, Truth
from dstnet.evaluation.map_curves import Gathered
from dstnet.metrics.image import best_shift, moved_truth
from dstnet.metrics.reconstruction import Slice
from dstnet.metrics.spectral import ring_powers
from dstnet.movie import Movie
from dstnet.optics.ctf import contrast_transfer
from dstnet.potential import Potential, rotation_of_angles
from dstnet.specimen.species import load_potential

# Box over diameter: trilinear sharing is true, and delocalised detail within.
BOX_OVER_DIAMETER = 1.75
EDGE = 0.1  # of the box, at each end, over which it falls to zero
CLEAN = "clean images"
MATCHED = " (its own transfer known)"
_RINGS = 60


@dataclass(frozen=True, eq=False)
class Poses:
    """Particles of a movie whose boxes lie within the field, as the simulator placed them.

    Attributes
    ----------
    centres_px
        [particle, 2] (y, x).
    rotations
        [particle, 3, 3], r' = R r.
    transfers
        Contrast transfer of each, at its own height, [particle, term] of `Slice`.
    """

    centres_px: np.ndarray
    rotations: np.ndarray
    transfers: np.ndarray


def box_size(diameter_angstrom: float, pixel_size_angstrom: float) -> int:
    """Edge in pixels of the boxes and the map of a particle."""
    return next_fast_size(round(BOX_OVER_DIAMETER * diameter_angstrom / pixel_size_angstrom))


def true_poses(simulated: SimulatedMovie, size: int) -> Poses:
    """Of a movie's particles, from its truths.

    Parameters
    ----------
    simulated
        On disk.
    size
        Edge of a box in pixels.

    Raises
    ------
    BadInputError
        If the table of particles cannot be read.
    """
    settings = simulated.settings
    table = simulated.particles()
    centres = table[["rlnCoordinateY", "rlnCoordinateX"]].to_numpy(float).reshape(-1, 2)
    low = size // 2 + 2
    is_inside = ((centres > low) & (centres < np.array(settings.shape) - 1 - low)).all(1)
    kept = Slice(size).kept
    rotations, transfers = [], []
    columns = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "dstnetHeight"]
    for rot, tilt, psi, height in table[columns].to_numpy(float)[is_inside].tolist():
        rotations.append(rotation_of_angles(rot, tilt, psi).numpy())
        transfer = contrast_transfer(
            (size, size),
            settings.pixel_size_angstrom,
            settings.optics,
            settings.optics.defocus_angstrom - height,
        )
        transfers.append(transfer.real.numpy()[kept])
    return Poses(centres[is_inside], np.array(rotations), np.array(transfers, np.float32))


def cut_box(image: Image, centre_px: np.ndarray, size: int) -> np.ndarray:
    """A box [y, x] of an image of mean zero, what was at `centre_px` (y, x) at its pixel
    [n // 2, n // 2]; it falls to zero at its edges, so that their steps hide no faint detail.
    """
    row, column = np.rint(centre_px).astype(int)
    top, left = row - size // 2, column - size // 2
    box = image[top : top + size, left : left + size]
    rest_y, rest_x = (centre_px - (row, column)).tolist()
    spectrum = torch.fft.rfft2(box) * shift_phase((size, size), (-rest_y, -rest_x))
    fall = _fall(size)
    return torch.fft.irfft2(spectrum, s=(size, size)).numpy() * fall[:, None] * fall


@lru_cache(maxsize=2)
def _fall(size: int) -> np.ndarray:
    """1 along a box's edge but for its ends, where it falls to 0 as a cosine, [pixel]."""
    from_end = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
    part = np.clip(from_end / (size * EDGE), 0, 1)
    return 0.5 - 0.5 * np.cos(np.pi * part)


def ring_transfer(image: Image, clean: Image, size: int) -> np.ndarray:
    """What an image passes of the truth, ring by ring, on the terms of a box: [term]."""
    shape = (image.shape[0], image.shape[1])
    powers = ring_powers(
        torch.fft.rfft2(clean - clean.mean()),
        torch.fft.rfft2(image - image.mean()),
        ring_index(shape, _RINGS),
        _RINGS,
        weight=conjugate_counts(shape[1]),
        dtype=torch.float64,
    )
    passed = powers.transfer().clamp(min=0).numpy()
    middles = (np.arange(_RINGS) + 0.5) / (2 * _RINGS)
    k = radial_frequency((size, size)).numpy()[Slice(size).kept]
    return np.interp(k, middles, passed)


class _Maps:
    """What is gathered of all methods over the movies."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.gathered: dict[str, Gathered] = {}

    def add(self, method: str, image: Image, poses: Poses, shift, passed=None) -> None:
        """The particles of one image, moved by `shift` (y, x) in pixels."""
        gathered = self.gathered.setdefault(method, Gathered(self.size))
        plane = Slice(self.size)
        centred = image - image.mean()
        rows = zip(poses.centres_px, poses.rotations, poses.transfers, strict=True)
        for centre, rotation, transfer in rows:
            terms = plane.terms(cut_box(centred, centre + np.array(shift), self.size))
            whole = transfer if passed is None else transfer * passed
            gathered.insert(terms, whole, rotation)


def gather(
    movies: Iterable[tuple[SimulatedMovie, Subject]],
    candidates: Sequence[Candidate],
    size: int,
    *,
    alignment: AlignmentSettings | None = None,
    matched: bool = False,
) -> tuple[dict[str, Gathered], list[str]]:
    """The particles of some movies as each method shows them, and of the clean images; and a line
    for each method that failed on a movie, which is then left out of all movies' maps.

    Parameters
    ----------
    movies
        Of one structure and one pixel size.
    candidates
        The methods; of each, the micrograph is taken, whose transfer is that of the microscope.
    size
        Edge of a box in pixels.
    alignment
        Of each movie.
    matched
        Whether maps are also made with what each method passes, ring by ring, multiplied to the
        transfer: it is told by the truth.
    """
    maps = _Maps(size)
    failures: list[str] = []
    for simulated, subject in movies:
        movie = simulated.movie()
        poses = true_poses(simulated, size)
        clean = torch.from_numpy(np.array(simulated.truth("clean")[0])).float()
        maps.add(CLEAN, clean, poses, (0.0, 0.0))
        for name, image in _images(simulated, subject, movie, clean, candidates, alignment):
            if isinstance(image, DstnetError):
                failures.append(f"{simulated.name}: {name}: {image}")
                continue
            shift = best_shift(image, clean)
            maps.add(name, image, poses, shift)
            if matched:
                passed = ring_transfer(image, moved_truth(image, clean), size)
                maps.add(name + MATCHED, image, poses, shift, passed)
    failed = {line.split(": ")[1] for line in failures}
    kept = {n: g for n, g in maps.gathered.items() if n.removesuffix(MATCHED) not in failed}
    return kept, failures


def _images(
    simulated: SimulatedMovie,
    subject: Subject,
    movie: Movie,
    clean: Image,
    candidates: Sequence[Candidate],
    alignment: AlignmentSettings | None,
) -> Iterator[tuple[str, Image | DstnetError]]:
    """What each method makes of a movie, in contrast, or why it could not."""
    groupings = {g for candidate in candidates for g in candidate.groupings(movie)}
    aligned = align(movie, alignment or AlignmentSettings(), groupings=groupings)
    phase = torch.from_numpy(np.array(simulated.truth("phase")[0])).float()
    truth = Truth(clean=clean, phase=phase, motion=simulated.motion())
    mean = float(aligned.total.mean())
    for candidate in candidates:
        with tempfile.TemporaryDirectory(prefix="dstnet_") as folder:
            try:
                made = candidate(Scene(subject, aligned, truth, Path(folder)))
            except DstnetError as error:
                yield candidate.name, error
                continue
        yield candidate.name, made.images["micrograph"].cpu() / mean


def true_map(potential: Potential, size: int) -> np.ndarray:
    """A structure's own map [z, y, x] in a box of `size` voxels."""
    volume = potential.volume
    margin = size // 2 - len(volume) // 2
    if margin < 0:
        return volume[-margin : size - margin, -margin : size - margin, -margin : size - margin]
    return np.pad(volume, (margin, size - len(volume) - margin))


def one_structure(movies: Sequence[SimulatedMovie], folders: Sequence[Path] = ()) -> Potential:
    """The potential of the one structure of some movies.

    Parameters
    ----------
    movies
        On disk.
    folders
        Where structure files may lie.

    Raises
    ------
    BadInputError
        If they are of several structures or pixel sizes, or their beam was tilted, or the structure
        is not at hand.
    """
    first = movies[0]
    pixel = first.settings.pixel_size_angstrom
    for movie in movies:
        optics = movie.settings.optics
        if movie.record.sources != first.record.sources or len(movie.record.species) != 1:
            raise BadInputError(
                f"{movie.name} and {first.name} are not of one structure each and the same: give"
                " movies of one structure for a map"
            )
        if movie.settings.pixel_size_angstrom != pixel:
            raise BadInputError(
                f"{movie.name} and {first.name} differ in pixel size: give movies of one"
            )
        if optics.beam_tilt_x_mrad or optics.beam_tilt_y_mrad:
            raise BadInputError(f"{movie.name} has a tilted beam, which no map here undoes")
    (source,) = structures_of(first.record, folders)
    kinds = first.record.settings_of_species(0)
    return load_potential(source, pixel, kinds.potential, kinds.em_map, kinds.belt)
