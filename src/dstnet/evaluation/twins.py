"""A simulated movie and the same without some of its particles."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dstnet.core.randomness import stream
from dstnet.core.shapes import Image
from dstnet.dataset import SimulatedMovie
from dstnet.dataset.sources import structures_of
from dstnet.dataset.species_store import SpeciesStore
from dstnet.errors import BadInputError
from dstnet.motion import Motion
from dstnet.movie import Movie
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.species import Species

SHARE = 0.5  # of the particles that are erased
# Besides a particle's own radius: beyond the farthest that truths are moved to an image.
BORDER_PX = 28
# Of the shot noise's variance in a difference of frames: twins share their noise, and differ by the
# particles' contrast alone.
MOST_DIFFERENCE = 0.5


@dataclass(frozen=True, eq=False)
class Twins:
    """A simulated movie and the same without some of its particles.

    Attributes
    ----------
    complete, erased
        The movies.
    clean, phase
        True images of the complete movie, [y, x].
    missing_clean, missing_phase
        Those of the particles that the other lacks.
    centres_px
        Of these, [place, 2] (y, x).
    others_px
        Of the particles in both.
    structure, diameter_angstrom
        What they are, and how large.
    motion
        Of both.
    """

    complete: Movie
    erased: Movie
    clean: Image
    phase: Image
    missing_clean: Image
    missing_phase: Image
    centres_px: np.ndarray
    others_px: np.ndarray
    structure: str
    diameter_angstrom: float
    motion: Motion


def make_twins(
    settings: SimulationSettings,
    species: Species,
    seed: int,
    *,
    name: str = "synthetic",
    complete: Movie | None = None,
    share: float = SHARE,
) -> Twins:
    """A simulated movie of one species with its twin.

    Parameters
    ----------
    settings, species, seed
        Of the movie.
    name
        Of the movie.
    complete
        The movie, as the camera wrote it, where it is there already.
    share
        Of the particles that the twin lacks, chosen by the seed.
    """
    whole = MovieSimulator(settings, [species], seed)
    particles = whole.truth.particles
    order = torch.randperm(len(particles), generator=stream(seed, "erased")).tolist()
    left_out = order[: round(share * len(particles))]
    rest = MovieSimulator(settings, [species], seed, left_out=left_out)
    pixel = settings.pixel_size_angstrom
    places = [(p.y_angstrom / pixel, p.x_angstrom / pixel) for p in particles]
    centres = np.array(places).reshape(-1, 2)
    is_erased = np.isin(np.arange(len(particles)), left_out)
    low = species.radius_angstrom / pixel + BORDER_PX
    high = np.array(settings.shape) - 1 - low
    is_inside = ((centres > low) & (centres < high)).all(1)
    return Twins(
        complete=complete or whole.movie(name),
        erased=rest.movie(f"{name}_erased"),
        clean=whole.truth.clean,
        phase=whole.truth.phase,
        missing_clean=whole.truth.clean - rest.truth.clean,
        missing_phase=whole.truth.phase - rest.truth.phase,
        centres_px=centres[is_erased & is_inside],
        others_px=centres[~is_erased],
        structure=species.name,
        diameter_angstrom=2 * species.radius_angstrom,
        motion=whole.truth.motion,
    )


def twins_of(
    simulated: SimulatedMovie,
    store: SpeciesStore,
    folders: Sequence[Path] = (),
) -> Twins:
    """A movie of a data set with its twin, which is simulated; gain and defects corrected.

    Parameters
    ----------
    simulated
        On disk, of one structure.
    store
        Species that are known already.
    folders
        Where structure files may lie.

    Raises
    ------
    BadInputError
        If its structure is not at hand, it has several, no particle is far enough from the border,
        or this version simulates another movie of the same record.
    """
    record, settings, name = simulated.record, simulated.settings, simulated.name
    if len(record.species) != 1:
        raise BadInputError(
            f"{name} has {len(record.species)} structures; particles are erased from movies of one:"
            " simulate each by itself"
        )
    sources = structures_of(record, folders)
    (species,) = store.species(sources, record.settings_of_species(0), settings)
    raw = simulated.raw_movie()
    twins = make_twins(settings, species, record.seed, name=name, complete=raw)
    on_disk = torch.from_numpy(np.array(simulated.truth("clean")[0]))
    is_same = torch.allclose(on_disk, twins.clean, atol=1e-3)
    if not (is_same and share_noise(raw, twins.erased)):
        raise BadInputError(
            f"{name} was simulated by version {record.version} and comes out otherwise now, so that"
            " no particles can be erased from it; simulate it again"
        )
    if not len(twins.centres_px):
        raise BadInputError(
            f"{name} has no particle to erase far enough from its border; simulate a larger field"
        )
    return replace(
        twins, complete=simulated.corrected(raw), erased=simulated.corrected(twins.erased)
    )


def share_noise(complete: Movie, erased: Movie) -> bool:
    """Whether the first frames of two movies differ by less than shot noise would have it."""
    first, other = complete.frame(0), erased.frame(0)
    independent = float(first.var() + other.var())
    return float((first - other).var()) < MOST_DIFFERENCE * independent
