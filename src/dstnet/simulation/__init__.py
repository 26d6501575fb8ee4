"""The recipe that turns structures into movies with every truth."""

from dstnet.simulation.movie_simulator import MovieSimulator
from dstnet.simulation.settings import SimulationSettings
from dstnet.simulation.truth import Particle, Truth

__all__ = ["MovieSimulator", "Particle", "SimulationSettings", "Truth"]
