"""Writes EER files, since nothing else does: event codes from the format's definition (Guo et al.
2020), in a BigTIFF.
"""

import struct
from itertools import pairwise
from pathlib import Path

import numpy as np

METADATA = (
    '<metadata><item name="numberOfFrames">{frames}</item><item name="sensorPixelSize.height"'
    ' unit="m">{size:g}</item><item name="sensorPixelSize.width"'
    ' unit="m">{size:g}</item></metadata>'
)


def random_events(rng, sides, chance=0.02):
    """Events of one raw frame on the finest grid, ``[event, (y, x)]`` in quarters of a pixel: at
    most one a pixel, in reading order.
    """
    pixels = np.argwhere(rng.random(sides) < chance)
    return 4 * pixels + rng.integers(0, 4, pixels.shape)


def encode(events, sides, skip_bits=7, x_bits=2, y_bits=2):
    """The codes of one raw frame: pixels skipped, then the place in the pixel, whose sign bit is
    flipped; from the lowest bit on.
    """
    events = np.asarray(events, int).reshape(-1, 2)
    ends = np.append(events[:, 0] // 4 * sides[1] + events[:, 1] // 4, sides[0] * sides[1])
    gaps = np.diff(ends, prepend=-1) - 1
    full = (1 << skip_bits) - 1
    y, x = (events[:, 0] % 4) >> (2 - y_bits), (events[:, 1] % 4) >> (2 - x_bits)
    places = np.append((x ^ (1 << x_bits >> 1)) | (y ^ (1 << y_bits >> 1)) << x_bits, 0)
    # As many codes of nothing but skipped pixels as a gap needs, then the one of its event.
    runs = gaps // full
    last = np.cumsum(runs + 1) - 1
    codes = np.full(last[-1] + 1, full)
    widths = np.full(last[-1] + 1, skip_bits)
    codes[last] = gaps % full | places << skip_bits
    widths[last] += x_bits + y_bits
    starts = np.cumsum(widths) - widths
    bits = np.zeros(starts[-1] + skip_bits, np.uint8)  # behind the last event there is no place
    for bit in range(skip_bits + x_bits + y_bits):
        has = (widths > bit) & (starts + bit < len(bits))
        bits[starts[has] + bit] = codes[has] >> bit & 1
    return np.packbits(bits, bitorder="little").tobytes()


def write_eer(
    path,
    streams,
    sides,
    *,
    compression=65001,
    pixel_size_m=None,
    code_bits=None,
    strips=1,
    sum_first=False,
):
    """Write raw frames, given as their codes."""
    pages = []
    if sum_first:
        pages.append((1, [bytes(sides[0] * sides[1])], []))
    for i, stream in enumerate(streams):
        cuts = np.linspace(0, len(stream), strips + 1).astype(int)
        extra = []
        if i == 0 and pixel_size_m is not None:
            extra.append(
                (65001, 7, METADATA.format(frames=len(streams), size=pixel_size_m).encode())
            )
        for tag, value in zip((65007, 65008, 65009), code_bits or (), strict=False):
            extra.append((tag, 3, struct.pack("<H", value)))
        pages.append((compression, [stream[a:b] for a, b in pairwise(cuts)], extra))
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    link = 8
    for code, parts, extra in pages:
        starts = []
        for part in parts:
            starts.append(len(out))
            out += part
        tags = [
            (256, 4, struct.pack("<I", sides[1])),
            (257, 4, struct.pack("<I", sides[0])),
            (259, 3, struct.pack("<H", code)),
        ]
        tags += [
            (258, 3, struct.pack("<H", 8)),
            (262, 3, struct.pack("<H", 1)),
            (277, 3, struct.pack("<H", 1)),
        ]
        tags += [(278, 4, struct.pack("<I", -(-sides[0] // len(parts))))]
        tags += [
            (273, 16, struct.pack(f"<{len(parts)}Q", *starts)),
            (279, 16, struct.pack(f"<{len(parts)}Q", *map(len, parts))),
        ]
        entries = b""
        for tag, kind, value in sorted([*tags, *extra]):
            count = len(value) // {3: 2, 4: 4, 7: 1, 16: 8}[kind]
            if len(value) > 8:
                value, place = struct.pack("<Q", len(out)), value
                out += place
            entries += struct.pack("<HHQ", tag, kind, count) + value.ljust(8, b"\0")
        struct.pack_into("<Q", out, link, len(out))
        out += struct.pack("<Q", len(tags) + len(extra)) + entries
        link = len(out)
        out += bytes(8)
    Path(path).write_bytes(out)
