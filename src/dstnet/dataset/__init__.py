"""Simulated movies on disk: their layout, and how many are planned and made."""

from dstnet.dataset.simulated_movie import MovieRecord, write_shot

__all__ = ["MovieRecord", "write_shot"]
