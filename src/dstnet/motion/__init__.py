"""How specimens move: one representation, planted, estimated or imported; warps; damage."""

from dstnet.motion.motion import Motion

__all__ = ["Motion"]
