"""From a movie in memory to its enhanced micrograph: every method behind one interface."""

from dstnet.enhancement.frame_window import WindowRestorer, restorer_of
from dstnet.enhancement.network import Enhanced, NetworkRestorer, Restorer
from dstnet.enhancement.settings import EnhancementSettings

__all__ = [
    "Enhanced",
    "EnhancementSettings",
    "NetworkRestorer",
    "Restorer",
    "WindowRestorer",
    "restorer_of",
]
