"""The version, where all that records it finds it."""

__version__ = "0.10.0"
