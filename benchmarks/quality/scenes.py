"""What the benchmarks of quality share: simulated movies of one structure, their enhancement, and
how results are printed and kept.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dstnet.alignment import AlignedMovie, AlignmentSettings, align
from dstnet.enhancement import Restored, Restorer
from dstnet.movie import Movie
from dstnet.potential import Projector, build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import Atoms

RESULTS = Path(__file__).resolve().parents[1] / "results"
DEFOCUS_ANGSTROM = (9000.0, 14000.0, 20000.0)


def species_of(atoms: Atoms, settings: SimulationSettings) -> ProjectedSpecies:
    """A structure ready to be placed in movies of such settings."""
    potential = build_potential(atoms, settings.pixel_size_angstrom)
    projector = Projector(potential, settings.optics.voltage_kv)
    return ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector)


def simulator_of(atoms: Atoms, settings: SimulationSettings, seed: int) -> MovieSimulator:
    """The simulator of one movie of one structure."""
    return MovieSimulator(settings, [species_of(atoms, settings)], seed)


def with_optics(settings: SimulationSettings, **changes: float) -> SimulationSettings:
    """The same settings with other optics."""
    optics = settings.optics.model_copy(update=changes)
    return settings.model_copy(update={"optics": optics})


def settings_of(
    base: SimulationSettings, number: int, b_factor_angstrom2: float
) -> SimulationSettings:
    """Settings of movie `number`: defoci take turns."""
    return with_optics(
        base,
        defocus_angstrom=DEFOCUS_ANGSTROM[number % len(DEFOCUS_ANGSTROM)],
        b_factor_angstrom2=b_factor_angstrom2,
    )


def align_for(movie: Movie, *restorers: Restorer) -> AlignedMovie:
    """A movie aligned once for all methods that will look at it."""
    groupings = {g for restorer in restorers for g in restorer.needs(movie).groupings}
    return align(movie, AlignmentSettings(), groupings=groupings)


def enhance(
    movie: Movie, restorer: Restorer, outputs: Collection[str] = ("micrograph",)
) -> tuple[AlignedMovie, Restored]:
    """A movie aligned and enhanced by one method."""
    aligned = align_for(movie, restorer)
    return aligned, restorer(aligned, outputs=outputs)


def print_row(row: Mapping[str, Any], digits: int = 3) -> None:
    """One line, numbers rounded."""
    rounded = {k: round(v, digits) if isinstance(v, float) else v for k, v in row.items()}
    print(json.dumps(rounded), flush=True)


def print_means(mean: Mapping[str, float]) -> None:
    """One line, rounded."""
    print("mean", json.dumps({name: round(value, 3) for name, value in mean.items()}))


def means(rows: Collection[Mapping[str, Any]]) -> dict[str, float]:
    """Mean over rows of everything that is a real number."""
    first = next(iter(rows))
    names = [name for name, value in first.items() if isinstance(value, float)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """A benchmark's results as JSON."""
    path.write_text(json.dumps(record, indent=1) + "\n")
