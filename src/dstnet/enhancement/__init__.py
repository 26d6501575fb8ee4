"""From a real movie to enhanced frames and micrograph: one movie, or many files."""

from dstnet.enhancement.files import Job, Summary, run_files
from dstnet.enhancement.restorer import Enhanced, NetworkRestorer, Restorer
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.enhancement.window import WindowRestorer, restorer_of

__all__ = [
    "Enhanced",
    "EnhancementSettings",
    "Job",
    "NetworkRestorer",
    "Restorer",
    "Summary",
    "WindowRestorer",
    "restorer_of",
    "run_files",
]
