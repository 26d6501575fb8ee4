"""Simulated movies on disk: the one reader and writer of their layout, which of them a network may
learn from, and how many are planned and made.
"""

from dstnet.dataset.manifest import read_dataset
from dstnet.dataset.record import MovieRecord
from dstnet.dataset.simulated_movie import SimulatedMovie
from dstnet.dataset.splits import NEVER_TRAINED, split_movies, split_structures

__all__ = [
    "NEVER_TRAINED",
    "MovieRecord",
    "SimulatedMovie",
    "read_dataset",
    "split_movies",
    "split_structures",
]
