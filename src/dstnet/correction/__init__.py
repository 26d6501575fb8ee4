"""What a camera does to a movie, taken out before the alignment."""

from dstnet.correction.corrections import CorrectedFrames, Corrections
from dstnet.correction.settings import CorrectionSettings

__all__ = ["CorrectedFrames", "CorrectionSettings", "Corrections"]
