"""The recipe that turns structures into movies, and its writer."""

from dstnet.simulation.shot import Shot, SimulationSettings
from dstnet.simulation.writer import MovieRecord, write_shot

__all__ = ["MovieRecord", "Shot", "SimulationSettings", "write_shot"]
