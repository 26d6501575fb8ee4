"""A movie: frames that may still lie in a file, and what is known about how they were taken."""

from dstnet.movie.exposure import Exposure
from dstnet.movie.movie import FrameStack, Movie

__all__ = ["Exposure", "FrameStack", "Movie"]
