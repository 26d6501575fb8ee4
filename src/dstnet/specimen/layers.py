"""What lies in the beam around the particles and does not change over the frames."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.core.constants import ELECTRON_REST_ENERGY_KEV
from dstnet.core.randomness import stream
from dstnet.core.shapes import Image
from dstnet.specimen.contamination import add_crystals, draw_contamination
from dstnet.specimen.field import SpecimenField
from dstnet.specimen.ice import thickness_map
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.support_film import (
    FILM_EDGE_ANGSTROM,
    distance_to_edge_angstrom,
    draw_film,
)

# At 300 kV within 10 mrad, by the formula of Malis, Cheng & Egerton, J. Electron Microsc. Tech. 8,
# 193 (1988).
CARBON_MEAN_FREE_PATH_ANGSTROM = 1870.0


@dataclass(frozen=True, eq=False)
class Layers:
    """What surrounds the particles and does not change over the frames.

    Attributes
    ----------
    thickness_angstrom
        Of the ice, ``[y, x]``.
    film_angstrom
        Thickness of the support film, ``[y, x]``; None where there is none at all.
    static_phase
        Projected phase in rad of film, ice contamination and ice crystals, ``[y, x]``.
    hole
        Where there is no film, bool ``[y, x]``: particles lie there only. None where there is no
        hole.
    """

    thickness_angstrom: Image
    film_angstrom: Image | None
    static_phase: Image
    hole: Tensor | None


def draw_layers(field: SpecimenField, seed: int) -> Layers:
    """The layers of one field.

    Parameters
    ----------
    field
        Where they lie.
    seed
        Of the movie. The streams "thickness", "film", "contamination" and "crystals" are drawn
        from.
    """
    to_edge = distance_to_edge_angstrom(field, seed)
    phase = draw_contamination(field, stream(seed, "contamination"))
    add_crystals(phase, field, stream(seed, "crystals"))
    film = draw_film(field, seed, to_edge)
    film_thickness = None
    if film is not None:
        phase += film.mean_phase
        phase += film.noise_phase
        film_thickness = film.thickness_angstrom
    hole = None
    if to_edge is not None:
        hole = to_edge > FILM_EDGE_ANGSTROM / 2
    thickness = thickness_map(field, stream(seed, "thickness"), to_edge)
    return Layers(thickness, film_thickness, phase, hole)


def transmitted(
    thickness_angstrom: Image,
    settings: SpecimenSettings,
    voltage_kv: float,
    film_angstrom: Image | None = None,
) -> Image:
    """Part of the electrons that pass the specimen without energy loss, and so the energy filter:
    exp(-thickness / mean free path).

    Mean free paths grow with voltage as the electrons' speed squared, the inverse of the inelastic
    cross-section but for a logarithm that changes by a few per cent (Reimer & Kohl 2008, section
    5.2). The exposure stated for a movie is what falls on the specimen, so nothing is normalised.

    Parameters
    ----------
    thickness_angstrom
        Of the ice, ``[y, x]``.
    settings
        The specimen.
    voltage_kv
        Of the microscope.
    film_angstrom
        Thickness of the support film, ``[y, x]``; None: no film.
    """
    slower = _speed_squared(voltage_kv) / _speed_squared(300.0)
    paths = thickness_angstrom / settings.inelastic_mean_free_path_angstrom
    if film_angstrom is not None:
        paths = paths + film_angstrom / CARBON_MEAN_FREE_PATH_ANGSTROM
    return torch.exp(-paths / slower)


def _speed_squared(voltage_kv: float) -> float:
    """(v / c)^2 of the beam's electrons."""
    return 1 - 1 / (1 + voltage_kv / ELECTRON_REST_ENERGY_KEV) ** 2
