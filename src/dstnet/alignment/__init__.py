"""Motion of a movie, real or simulated, estimated from its frames alone, and the sums of the frames
with the motion taken out.
"""

from dstnet.alignment.frame_sum import AlignedMovie, accumulate, align
from dstnet.alignment.global_motion import estimate_global_motion
from dstnet.alignment.movie_motion import MovieMotion, accumulated_motion
from dstnet.alignment.settings import AlignmentSettings

__all__ = [
    "AlignedMovie",
    "AlignmentSettings",
    "MovieMotion",
    "accumulate",
    "accumulated_motion",
    "align",
    "estimate_global_motion",
]
