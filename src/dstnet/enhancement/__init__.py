"""From an aligned movie to its enhanced micrograph: every method behind one interface."""

from dstnet.enhancement.base import Needs, Restored, Restorer
from dstnet.enhancement.frame_window import WindowRestorer
from dstnet.enhancement.network import NetworkRestorer
from dstnet.enhancement.registry import METHODS, make_restorer
from dstnet.enhancement.settings import EnhancementSettings

__all__ = [
    "METHODS",
    "EnhancementSettings",
    "Needs",
    "NetworkRestorer",
    "Restored",
    "Restorer",
    "WindowRestorer",
    "make_restorer",
]
