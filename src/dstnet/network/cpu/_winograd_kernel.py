"""The compiled loops of `winograd.py` and `parts.py`, which alone import this file, and late: numba
takes half a second to load.

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
    # Each pair of points x and -x shares the even and the odd part of its polynomial.
    a = d2 + d6 - 4.25 * d4
    b = d1 + d5 - 4.25 * d3
    p = d6 + 0.25 * d2 - 1.25 * d4
    q = 0.5 * d1 - 2.5 * d3 + 2.0 * d5
    r = d6 + 4.0 * d2 - 5.0 * d4
    s = 2.0 * d1 - 2.5 * d3 + 0.5 * d5
    return (
        d0 - d6 + 5.25 * (d4 - d2),
        a + b,
        a - b,
        p + q,
        p - q,
        r + s,
        r - s,
        d7 - d1 + 5.25 * (d3 - d5),
    )


@njit
def _back(m):
    """A^T, for the same points."""
    m0, m1, m2, m3, m4, m5, m6, m7 = m
    p = m1 + m2
    q = m1 - m2
    r = m3 + m4
    s = m3 - m4
    u = m5 + m6
    v = m5 - m6
    return (
        m0 + p + r + u,
        q + 2.0 * s + 0.5 * v,
        p + 4.0 * r + 0.25 * u,
        q + 8.0 * s + 0.125 * v,
        p + 16.0 * r + 0.0625 * u,
        q + 32.0 * s + 0.03125 * v + m7,
    )


@njit
def _copy_patch(image, height, width, channels, top, left, channel, patch):
    """8 x 8 pixels of eight channels of an image, from a pixel on; zeros beyond its sides."""
    nothing = eight(0.0)
    for y in range(8):
        row = top + y
        for x in range(8):
            column = left + x
            value = nothing
            if 0 <= row < height and 0 <= column < width:
                value = load(image, (row * width + column) * channels + channel)
            store(patch, 64 * y + 8 * x, value)


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
    patch = np.empty(512, _F)
    half = np.empty(512, _F)
    top = row - 1
    for t in range((width + 5) // 6):
        left = 6 * t - 1
        rows_inside = top >= 0 and top + 8 <= height
        columns_inside = left >= 0 and left + 8 <= width
        for c in range(0, channels, 8):
            if rows_inside and columns_inside:
                source = image
                start = (top * width + left) * channels + c
                line = width * channels
                step = channels
            else:
                _copy_patch(image, height, width, channels, top, left, c, patch)
                source = patch
                start = 0
                line = 64
                step = 8
            for x in range(8):
                column = _forward(_read(source, start + x * step, line))
                _write(half, 8 * x, 64, column)
            out = first + t * place + c
            for y in range(8):
                transformed = _forward(_read(half, 64 * y, 8))
                _write(tiles, out + 8 * y * plane, plane, transformed)


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
    half = np.empty(384, _F)
    line = np.empty(48, _F)
    below = eight(slope)
    for t in range((width + 5) // 6):
        for c in range(0, channels, 8):
            start = first + t * channels + c
            for x in range(8):
                column = _back(_read(products, start + x * plane, 8 * plane))
                _write(half, 8 * x, 64, column)
            b = load(bias, c)
            for y in range(min(6, height - row)):
                _write(line, 0, 8, _back(_read(half, 64 * y, 8)))
                o = ((row + y) * width + 6 * t) * channels + c
                for x in range(min(6, width - 6 * t)):
                    value = load(line, 8 * x) + b
                    value = larger(value, below * value)
                    if added.size:
                        value = value + load(added, o)
                    store(out, o, value)
                    o += channels


def _gate(mixed, state, out, start, channels):
    """The minimal gated unit: out = state + sigmoid(update) * (leaky(candidate) - state).

    mixed
        [pixel, update's and then candidate's channels], flat.
    state, out
        [pixel, channel], flat; of pixels from `start` on.
    """
    for pixel in range(mixed.size // (2 * channels)):
        i = 2 * pixel * channels
        o = (start + pixel) * channels
        for _ in range(0, channels, 8):
            logit = load(mixed, i)
            candidate = load(mixed, i + channels)
            leaky = larger(candidate, 0.1 * candidate)
            update = 1.0 / (1.0 + exponential(0.0 - logit))
            before = load(state, o)
            store(out, o, before + update * (leaky - before))
            i += 8
            o += 8


def _attend(mixed, value, weight, start, channels):
    """Adds to the sums over frames of attention's weighted values, and of the weights exp(4
    tanh(logit / 4)).

    mixed
        [pixel, values' and then logits' channels], flat.
    value, weight
        [pixel, channel], flat; changed, of pixels from `start` on.
    """
    for pixel in range(mixed.size // (2 * channels)):
        i = 2 * pixel * channels
        o = (start + pixel) * channels
        for _ in range(0, channels, 8):
            own_value = load(mixed, i)
            logit = load(mixed, i + channels)
            # 4 tanh(x / 4) = 4 - 8 / (exp(x / 2) + 1)
            power = exponential(0.5 * logit)
            own_weight = exponential(4.0 - 8.0 / (power + 1.0))
            store(weight, o, load(weight, o) + own_weight)
            store(value, o, load(value, o) + own_weight * own_value)
            i += 8
            o += 8


_FLAT = "f4[::1]"
into = compiled(_into, f"void({_FLAT}, i8, i8, i8, i8, {_FLAT}, i8, i8, i8)")
out_of = compiled(_out_of, f"void({_FLAT}, i8, i8, {_FLAT}, f4, {_FLAT}, {_FLAT}, i8, i8, i8, i8)")
gate = compiled(_gate, f"void({', '.join([_FLAT] * 3)}, i8, i8)")
attend = compiled(_attend, f"void({', '.join([_FLAT] * 3)}, i8, i8)")
