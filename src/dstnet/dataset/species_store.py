"""The species of a data set: each read once, each made into projections once while it is in use."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dstnet.core.fourier import next_fast_size
from dstnet.potential import Belt, BeltSettings, radius_with_belt
from dstnet.potential.potential import MARGIN_ANGSTROM
from dstnet.simulation import SimulationSettings
from dstnet.specimen.sources import Entry, Source, StandIn, file_source
from dstnet.specimen.species import (
    ProjectedSpecies,
    SpeciesSettings,
    belt_of,
    is_map,
    load_potential,
    load_structure,
)
from dstnet.structure import fetch_structure

OUTLINE_PIXEL_ANGSTROM = 8.0  # a map's size needs no finer one


@dataclass(frozen=True)
class Outline:
    """What is known of a structure before its potential is made."""

    name: str
    diameter_angstrom: float

    def box(self, pixel_size_angstrom: float) -> int:
        """Side in voxels of the box that its potential takes."""
        width_angstrom = self.diameter_angstrom + MARGIN_ANGSTROM
        return next_fast_size(math.ceil(width_angstrom / pixel_size_angstrom))


class SpeciesStore:
    """Species by structure, pixel size and voltage, each built once while it is in use."""

    def __init__(self) -> None:
        self._sources: dict[Source, str] = {}
        self._outlines: dict[tuple[Source, BeltSettings | None], Outline] = {}
        self._species: OrderedDict[
            tuple[Source, SpeciesSettings, float, float], ProjectedSpecies
        ] = OrderedDict()

    def outline(self, structure: Source, species_settings: SpeciesSettings) -> Outline:
        """Name and size of a structure as a command or recipe names it, its belt included.

        Raises
        ------
        BadInputError, SettingsError
            If it cannot be read, fetched, or made, or if it is not known where its belt lies.
        """
        key = (structure, belt_of(structure, species_settings))
        if key not in self._outlines:
            self._outlines[key] = _outline(*key)
        return self._outlines[key]

    def source(self, structure: Source) -> str:
        """What a record says of where a structure comes from: a file's name and a digest of its
        bytes, so that a changed one shows.

        Raises
        ------
        BadInputError
            If it cannot be fetched.
        """
        if structure not in self._sources:
            self._sources[structure] = _source(structure)
        return self._sources[structure]

    def species(
        self,
        structures: Sequence[Source],
        species_settings: SpeciesSettings,
        settings: SimulationSettings,
        device: str = "cpu",
    ) -> list[ProjectedSpecies]:
        """The species of a movie. Those of earlier movies are kept as long as they are no more than
        twice as many.

        Parameters
        ----------
        structures
            As a command or recipe names them.
        species_settings
            How they become potentials and projections.
        settings
            Of the movie.
        device
            Where projections are made.

        Raises
        ------
        BadInputError, SettingsError
            If a structure cannot be read, fetched, or made.
        """
        pixel = settings.pixel_size_angstrom
        voltage = settings.optics.voltage_kv
        keys = [(structure, species_settings, pixel, voltage) for structure in structures]
        for key in keys:
            if key not in self._species:
                self._species[key] = _projected(*key, device)
            self._species.move_to_end(key)
            while len(self._species) > 2 * len(structures):
                self._species.popitem(last=False)
        return [self._species[key] for key in keys]


def _projected(
    structure: Source,
    species_settings: SpeciesSettings,
    pixel_size_angstrom: float,
    voltage_kv: float,
    device: str,
) -> ProjectedSpecies:
    potential = load_potential(
        structure,
        pixel_size_angstrom,
        species_settings.potential,
        species_settings.em_map,
        belt_of(structure, species_settings),
    )
    return ProjectedSpecies.of(potential, voltage_kv, species_settings.poses, device)


def _outline(structure: Source, belt: BeltSettings | None) -> Outline:
    if isinstance(structure, str) and is_map(structure):
        coarse = load_potential(structure, OUTLINE_PIXEL_ANGSTROM)
        return Outline(coarse.name, 2 * coarse.radius_angstrom)
    atoms = load_structure(structure)
    around = None if belt is None else Belt(atoms, belt)
    return Outline(atoms.name, 2 * radius_with_belt(atoms, around))


def _source(structure: Source) -> str:
    if isinstance(structure, Entry | StandIn):
        return structure.source
    kind, _, entry = structure.partition(":")
    if kind == "phantom":
        return structure
    return file_source(fetch_structure(entry) if kind == "pdb" and entry else Path(structure))
