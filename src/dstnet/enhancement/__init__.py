"""From a real movie to enhanced frames and micrograph: one movie, or many files."""

from dstnet.enhancement.files import Summary, enhance_files
from dstnet.enhancement.restorer import Enhanced, NetworkRestorer, Restorer
from dstnet.enhancement.settings import EnhancementSettings

__all__ = ["Enhanced", "EnhancementSettings", "NetworkRestorer", "Restorer", "Summary", "enhance_files"]
