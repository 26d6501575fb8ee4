"""How specimens move: one representation, planted, estimated or imported; warps; damage."""

from dstnet.motion.motion import Motion
from dstnet.motion.relion import RelionMovie

__all__ = ["Motion", "RelionMovie"]
