"""The compiled reader of EER's event codes. Only `eer.py` imports this file, and late: numba takes
half a second to load.

imagecodecs reads these codes too (the tests compare with it), but takes a stream that ends early
for a complete one, and needs four times as long on the finer grids.
"""

import numba
import numpy as np


@numba.njit(nogil=True)
def add_events(
    stream: np.ndarray,
    counts: np.ndarray,
    up_sampling_bits: int,
    skip_bits: int,
    x_bits: int,
    y_bits: int,
) -> bool:
    """Add one to `counts` at every event of a raw frame; True where the codes end exactly behind
    the last pixel, as a complete frame's do.

    A code is, least significant bit first, the number of empty pixels passed over (all ones: that
    many, and no event), then the event's place in its pixel in x and in y, as two's complement from
    the pixel's centre (Guo et al. 2020, IUCrJ 7, 860).

    Parameters
    ----------
    stream
        uint8, the frame's bytes and three more, whatever they are: codes are read from three bytes
        at a time.
    counts
        Integers ``[y, x]`` on the up-sampled grid; changed.
    up_sampling_bits
        0, 1 or 2: the grid has 1, 2 or 4 places a pixel and side.
    skip_bits, x_bits, y_bits
        The parts of a code.
    """
    width = counts.shape[1] >> up_sampling_bits
    height = counts.shape[0] >> up_sampling_bits
    pixels = height * width
    bits = (stream.size - 3) * 8
    skip_mask, x_mask, y_mask = (1 << skip_bits) - 1, (1 << x_bits) - 1, (1 << y_bits) - 1
    x_sign, y_sign = (1 << x_bits) >> 1, (1 << y_bits) >> 1
    x_drop, y_drop = x_bits - up_sampling_bits, y_bits - up_sampling_bits
    event_bits = x_bits + y_bits
    position, pixel, row, row_end = 0, 0, 0, width
    while pixel < pixels:
        if position + skip_bits > bits:
            return False
        byte = position >> 3
        # At most 16 bits are asked for, from any bit of the first byte on: three bytes hold them.
        word = (
            np.uint32(stream[byte])
            | np.uint32(stream[byte + 1]) << 8
            | np.uint32(stream[byte + 2]) << 16
        ) >> (position & 7)
        skip = word & skip_mask
        pixel += skip
        position += skip_bits
        if skip == skip_mask:
            continue
        if pixel >= pixels:
            break
        if position + event_bits > bits:
            return False
        position += event_bits
        x = ((word >> skip_bits) & x_mask) ^ x_sign
        y = ((word >> (skip_bits + x_bits)) & y_mask) ^ y_sign
        while pixel >= row_end:
            row += 1
            row_end += width
        column = pixel - (row_end - width)
        counts[
            (row << up_sampling_bits) | (y >> y_drop), (column << up_sampling_bits) | (x >> x_drop)
        ] += 1
        pixel += 1
    return pixel == pixels
