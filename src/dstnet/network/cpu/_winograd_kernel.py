"""The compiled loops of `winograd.py`, which alone imports this file, and late: numba takes half a
second to load.

Images lie in memory as [y, x, channel], flat; channels go by eights (`dstnet.network.cpu.simd`), so
their number is a multiple of eight.
"""

# pyright: reportCallIssue=false
# numba supplies the first argument of `load`, `store` and their like.

import numpy as np
from numba import njit

from dstnet.core.compiled import compiled
from dstnet.network.cpu.simd import eight, exponential, larger, load, store

_F = np.float32


@njit
def _read(array, i, step):
    return (
        load(array, i),
        load(array, i + step),
        load(array, i + 2 * step),
        load(array, i + 3 * step),
        load(array, i + 4 * step),
        load(array, i + 5 * step),
        load(array, i + 6 * step),
        load(array, i + 7 * step),
    )


@njit
def _write(array, i, step, values):
    for n in range(len(values)):
        store(array, i + n * step, values[n])


@njit
def _forward(d):
    """B^T of Lavin & Gray's notation, for the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity."""
    d0, d1, d2, d3, d4, d5, d6, d7 = d
    a, b = d2 + d6 - _F(4.25) * d4, d1 + d5 - _F(4.25) * d3
    p, q = d6 + _F(0.25) * d2 - _F(1.25) * d4, _F(0.5) * d1 - _F(2.5) * d3 + _F(2) * d5
    r, s = d6 + _F(4) * d2 - _F(5) * d4, _F(2) * d1 - _F(2.5) * d3 + _F(0.5) * d5
    return (
        d0 - d6 + _F(5.25) * (d4 - d2),
        a + b,
        a - b,
        p + q,
        p - q,
        r + s,
        r - s,
        d7 - d1 + _F(5.25) * (d3 - d5),
    )


@njit
def _back(m):
    """A^T, for the same points."""
    m0, m1, m2, m3, m4, m5, m6, m7 = m
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
    """B^T d B of one row of tiles, each of 8 x 8 pixels, which overlap by two; beyond the image's
    sides are zeros.

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
                source, start, line, step = (
                    image,
                    (top * width + left) * channels + c,
                    width * channels,
                    channels,
                )
            else:
                for y in range(8):
                    for x in range(8):
                        seen = 0 <= top + y < height and 0 <= left + x < width
                        i = ((top + y) * width + left + x) * channels + c
                        store(patch, 64 * y + 8 * x, load(image, i) if seen else eight(_F(0)))
                source, start, line, step = patch, 0, 64, 8
            for x in range(8):
                _write(half, 8 * x, 64, _forward(_read(source, start + x * step, line)))
            for y in range(8):
                _write(
                    tiles,
                    first + t * place + c + 8 * y * plane,
                    plane,
                    _forward(_read(half, 64 * y, 8)),
                )


def _out_of(products, first, plane, bias, slope, added, out, height, width, channels, row):
    """A^T m A of one row of tiles, plus the bias; values below zero times `slope` (0 to 1); plus
    what is `added`.

    products
        [8 x 8, tile, channel], flat: `plane` numbers for each of the 64; the row of tiles begins at
        `first`.
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
                _write(
                    half,
                    8 * x,
                    64,
                    _back(_read(products, first + t * channels + c + x * plane, 8 * plane)),
                )
            b = load(bias, c)
            for y in range(min(6, height - row)):
                _write(line, 0, 8, _back(_read(half, 64 * y, 8)))
                o = ((row + y) * width + 6 * t) * channels + c
                for x in range(min(6, width - 6 * t)):
                    value = load(line, 8 * x) + b
                    value = larger(value, below * value)
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
    """Adds to the sums over frames of attention's weighted values, and of the weights exp(4
    tanh(logit / 4)).

    mixed
        [pixel, values' and then logits' channels], flat.
    value, weight
        [pixel, channel], flat; changed, of pixels from `start` on.
    """
    for pixel in range(mixed.size // (2 * channels)):
        i, o = 2 * pixel * channels, (start + pixel) * channels
        for c in range(0, channels, 8):
            w = exponential(
                _F(4) - _F(8) / (exponential(_F(0.5) * load(mixed, i + channels + c)) + _F(1))
            )
            store(weight, o + c, load(weight, o + c) + w)
            store(value, o + c, load(value, o + c) + w * load(mixed, i + c))


_FLAT = "f4[::1]"
into = compiled(_into, f"void({_FLAT}, i8, i8, i8, i8, {_FLAT}, i8, i8, i8)")
out_of = compiled(_out_of, f"void({_FLAT}, i8, i8, {_FLAT}, f4, {_FLAT}, {_FLAT}, i8, i8, i8, i8)")
gate = compiled(_gate, f"void({', '.join([_FLAT] * 3)}, i8, i8)")
attend = compiled(_attend, f"void({', '.join([_FLAT] * 3)}, i8, i8)")
