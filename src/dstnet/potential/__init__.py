"""Potentials: atoms in ice become a 3D potential, and its projected phase in any orientation."""

from dstnet.potential.potential import Potential, PotentialSettings, build_potential
from dstnet.potential.projection import Projector, random_rotation

__all__ = ["Potential", "PotentialSettings", "Projector", "build_potential", "random_rotation"]
