"""The two records that travel between stages: a movie, and what a simulator knows about one."""

from dstnet.movie.movie import FrameStack, Movie
from dstnet.movie.truth import Truth

__all__ = ["FrameStack", "Movie", "Truth"]
