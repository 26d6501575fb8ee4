"""Motion of a movie, real or simulated, estimated from its frames alone, and the sums of the frames
with the motion taken out.
"""

from dstnet.alignment.aligned_movie import AlignedMovie, FrameGroups, Grouping
from dstnet.alignment.frame_sum import accumulate, align, half_movie
from dstnet.alignment.global_motion import estimate_global_motion
from dstnet.alignment.settings import AlignmentSettings
from dstnet.alignment.undo_motion import undo_motion

__all__ = [
    "AlignedMovie",
    "AlignmentSettings",
    "FrameGroups",
    "Grouping",
    "accumulate",
    "align",
    "estimate_global_motion",
    "half_movie",
    "undo_motion",
]
