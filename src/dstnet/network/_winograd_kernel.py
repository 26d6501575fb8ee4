"""The compiled loops of `winograd.py`, which alone imports this file, and late: numba takes half a second to load.

Images lie in memory as [y, x, channel], flat; channels go by eights (`dstnet.core.vector`), so their number is a multiple of eight.
"""

# pyright: reportCallIssue=false
# numba supplies the first argument of `load`, `store` and their like.

import numpy as np
from numba import njit

from dstnet.core.compiled import compiled
from dstnet.core.vector import eight, exponential, larger, load, store

_F = np.float32


@njit
def _forward(d0, d1, d2, d3, d4, d5, d6, d7):
    """B^T of Lavin & Gray's notation, for the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity."""
    a, b = d2 + d6 - _F(4.25) * d4, d1 + d5 - _F(4.25) * d3
    p, q = d6 + _F(0.25) * d2 - _F(1.25) * d4, _F(0.5) * d1 - _F(2.5) * d3 + _F(2) * d5
    r, s = d6 + _F(4) * d2 - _F(5) * d4, _F(2) * d1 - _F(2.5) * d3 + _F(0.5) * d5
    return d0 - d6 + _F(5.25) * (d4 - d2), a + b, a - b, p + q, p - q, r + s, r - s, d7 - d1 + _F(5.25) * (d3 - d5)


@njit
def _back(m0, m1, m2, m3, m4, m5, m6, m7):
    """A^T, for the same points."""
    p, q, r, s, u, v = m1 + m2, m1 - m2, m3 + m4, m3 - m4, m5 + m6, m5 - m6
    return (
        m0 + p + r + u,
        q + _F(2) * s + _F(0.5) * v,
        p + _F(4) * r + _F(0.25) * u,
        q + _F(8) * s + _F(0.125) * v,
        p + _F(16) * r + _F(0.0625) * u,
        q + _F(32) * s + _F(0.03125) * v + m7,
    )


def _into(image, height, width, channels, row, tiles, first, plane, place):
    """B^T d B of one row of tiles, each of 8 x 8 pixels, which overlap by two; beyond the image's sides are zeros.

    image
        Of `height`, `width` and `channels`.
    row
        That of the image at which the tiles' inner 6 x 6 begin.
    tiles
        [8 x 8, tile, channel], flat, changed: `plane` numbers for each of the 64.
    first
        Where in such a plane the row of tiles begins, in its channels the image's.
    place
        From one tile to the next.
    """
    patch, half = np.empty(512, _F), np.empty(512, _F)
    top = row - 1
    for t in range((width + 5) // 6):
        left = 6 * t - 1
        inside = top >= 0 and top + 8 <= height and left >= 0 and left + 8 <= width
        for c in range(0, channels, 8):
            if inside:
                source, start, line, step = image, (top * width + left) * channels + c, width * channels, channels
            else:
                for y in range(8):
                    for x in range(8):
                        seen = 0 <= top + y < height and 0 <= left + x < width
                        i = ((top + y) * width + left + x) * channels + c
                        store(patch, 64 * y + 8 * x, load(image, i) if seen else eight(_F(0)))
                source, start, line, step = patch, 0, 64, 8
            for x in range(8):
                i, o = start + x * step, 8 * x
                m0, m1, m2, m3, m4, m5, m6, m7 = _forward(
                    load(source, i),
                    load(source, i + line),
                    load(source, i + 2 * line),
                    load(source, i + 3 * line),
                    load(source, i + 4 * line),
                    load(source, i + 5 * line),
                    load(source, i + 6 * line),
                    load(source, i + 7 * line),
                )
                store(half, o, m0)
                store(half, o + 64, m1)
                store(half, o + 128, m2)
                store(half, o + 192, m3)
                store(half, o + 256, m4)
                store(half, o + 320, m5)
                store(half, o + 384, m6)
                store(half, o + 448, m7)
            for y in range(8):
                i, o = 64 * y, first + t * place + c + 8 * y * plane
                m0, m1, m2, m3, m4, m5, m6, m7 = _forward(
                    load(half, i),
                    load(half, i + 8),
                    load(half, i + 16),
                    load(half, i + 24),
                    load(half, i + 32),
                    load(half, i + 40),
                    load(half, i + 48),
                    load(half, i + 56),
                )
                store(tiles, o, m0)
                store(tiles, o + plane, m1)
                store(tiles, o + 2 * plane, m2)
                store(tiles, o + 3 * plane, m3)
                store(tiles, o + 4 * plane, m4)
                store(tiles, o + 5 * plane, m5)
                store(tiles, o + 6 * plane, m6)
                store(tiles, o + 7 * plane, m7)


def _out_of(products, first, plane, bias, slope, added, out, height, width, channels, row):
    """A^T m A of one row of tiles, plus the bias; values below zero times `slope` (0 to 1); plus what is `added`.

    products
        [8 x 8, tile, channel], flat: `plane` numbers for each of the 64; the row of tiles begins at `first`.
    added
        As `out`, or empty: nothing.
    out
        Of `height`, `width` and `channels`, changed from `row` on.
    """
    half, line = np.empty(384, _F), np.empty(48, _F)
    below = eight(slope)
    for t in range((width + 5) // 6):
        for c in range(0, channels, 8):
            for x in range(8):
                i, o, step = first + t * channels + c + x * plane, 8 * x, 8 * plane
                m0, m1, m2, m3, m4, m5 = _back(
                    load(products, i),
                    load(products, i + step),
                    load(products, i + 2 * step),
                    load(products, i + 3 * step),
                    load(products, i + 4 * step),
                    load(products, i + 5 * step),
                    load(products, i + 6 * step),
                    load(products, i + 7 * step),
                )
                store(half, o, m0)
                store(half, o + 64, m1)
                store(half, o + 128, m2)
                store(half, o + 192, m3)
                store(half, o + 256, m4)
                store(half, o + 320, m5)
            b = load(bias, c)
            for y in range(min(6, height - row)):
                i = 64 * y
                m0, m1, m2, m3, m4, m5 = _back(
                    load(half, i),
                    load(half, i + 8),
                    load(half, i + 16),
                    load(half, i + 24),
                    load(half, i + 32),
                    load(half, i + 40),
                    load(half, i + 48),
                    load(half, i + 56),
                )
                store(line, 0, larger(m0 + b, below * (m0 + b)))
                store(line, 8, larger(m1 + b, below * (m1 + b)))
                store(line, 16, larger(m2 + b, below * (m2 + b)))
                store(line, 24, larger(m3 + b, below * (m3 + b)))
                store(line, 32, larger(m4 + b, below * (m4 + b)))
                store(line, 40, larger(m5 + b, below * (m5 + b)))
                o = ((row + y) * width + 6 * t) * channels + c
                for x in range(min(6, width - 6 * t)):
                    value = load(line, 8 * x)
                    if added.size:
                        value = value + load(added, o + x * channels)
                    store(out, o + x * channels, value)


def _gate(mixed, state, out, start, channels):
    """The minimal gated unit: out = state + sigmoid(update) * (leaky(candidate) - state).

    mixed
        [pixel, update's and then candidate's channels], flat.
    state, out
        [pixel, channel], flat; of pixels from `start` on.
    """
    for pixel in range(mixed.size // (2 * channels)):
        i, o = 2 * pixel * channels, (start + pixel) * channels
        for c in range(0, channels, 8):
            candidate, before = load(mixed, i + channels + c), load(state, o + c)
            update = _F(1) / (_F(1) + exponential(_F(0) - load(mixed, i + c)))
            store(out, o + c, before + update * (larger(candidate, _F(0.1) * candidate) - before))


def _attend(mixed, value, weight, start, channels):
    """Adds to the sums over frames of attention's weighted values, and of the weights exp(4 tanh(logit / 4)).

    mixed
        [pixel, values' and then logits' channels], flat.
    value, weight
        [pixel, channel], flat; changed, of pixels from `start` on.
    """
    for pixel in range(mixed.size // (2 * channels)):
        i, o = 2 * pixel * channels, (start + pixel) * channels
        for c in range(0, channels, 8):
            w = exponential(_F(4) - _F(8) / (exponential(_F(0.5) * load(mixed, i + channels + c)) + _F(1)))
            store(weight, o + c, load(weight, o + c) + w)
            store(value, o + c, load(value, o + c) + w * load(mixed, i + c))


_FLAT = "f4[::1]"
into = compiled(_into, f"void({_FLAT}, i8, i8, i8, i8, {_FLAT}, i8, i8, i8)")
out_of = compiled(_out_of, f"void({_FLAT}, i8, i8, {_FLAT}, f4, {_FLAT}, {_FLAT}, i8, i8, i8, i8)")
gate = compiled(_gate, f"void({', '.join([_FLAT] * 3)}, i8, i8)")
attend = compiled(_attend, f"void({', '.join([_FLAT] * 3)}, i8, i8)")
