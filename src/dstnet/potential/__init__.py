"""Potentials: atoms in ice, or an EM map, become a 3D potential, and its projected phase in any
orientation.
"""

from dstnet.potential.belt import Belt, BeltSettings, radius_with_belt
from dstnet.potential.from_map import MAP_SUFFIXES, MapSettings, potential_from_map
from dstnet.potential.potential import Potential, PotentialSettings, build_potential
from dstnet.potential.projection import Projector, random_rotation, rotation_of_angles

__all__ = [
    "MAP_SUFFIXES",
    "Belt",
    "BeltSettings",
    "MapSettings",
    "Potential",
    "PotentialSettings",
    "Projector",
    "build_potential",
    "potential_from_map",
    "radius_with_belt",
    "random_rotation",
    "rotation_of_angles",
]
