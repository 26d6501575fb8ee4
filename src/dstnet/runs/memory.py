"""Memory of this process: the most that it held, and what the C library does with what is freed."""

import ctypes
import resource
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # <malloc.h> of the GNU C library
_TOP_PAD_BYTES = 64 << 20


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def keep_freed_memory() -> bool:
    """Keep the memory of freed images for the next ones, for the life of this process; False where
    the C library cannot be told so.

    The GNU C library gives large blocks back to the system at once, which clears every page anew
    for the next image: a quarter of the CPU time of aligning a 4096 x 4096 movie. The price is that
    memory stays near its peak.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return all(
        [
            mallopt(_M_MMAP_MAX, 0) == 1,
            mallopt(_M_TRIM_THRESHOLD, -1) == 1,
            mallopt(_M_TOP_PAD, _TOP_PAD_BYTES) == 1,
        ]
    )
