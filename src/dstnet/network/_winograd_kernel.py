"""The compiled transforms of Winograd's convolution. Only `winograd.py` imports this file, and late: numba takes half a second to load.

Channels come last, in groups of eight: inner loops over a number that the compiler knows are what it turns into vector instructions, three
times as fast as over one that it does not know.
"""

import numpy as np

from dstnet.core.compiled import compiled

_F = np.float32


def _into(image, out, row, groups):
    """B^T d B of one row of tiles, each of 6 x 6 pixels that overlap by two.

    image
        [y, x and channel group, 8], zero beyond its sides; rows and columns multiples of 4.
    out
        [36, tile and channel group, 8], changed.
    row
        That of the image at which the tiles' inner 4 x 4 begin.
    groups
        How many of eight channels a pixel has.
    """
    height, length = image.shape[0], image.shape[1]
    columns = np.zeros((6, length + 2 * groups, 8), _F)
    rows, top = image, row - 1
    if top < 0 or top + 6 > height:
        rows = np.zeros((6, length, 8), _F)
        for j in range(max(0, -top), min(6, height - top)):
            for i in range(length):
                for c in range(8):
                    rows[j, i, c] = image[top + j, i, c]
        top = 0
    for i in range(length):
        for c in range(8):
            d0, d1, d2 = rows[top, i, c], rows[top + 1, i, c], rows[top + 2, i, c]
            d3, d4, d5 = rows[top + 3, i, c], rows[top + 4, i, c], rows[top + 5, i, c]
            p, q, r, s = d4 - _F(4) * d2, d3 - _F(4) * d1, d4 - d2, _F(2) * (d3 - d1)
            columns[0, groups + i, c] = _F(4) * d0 - _F(5) * d2 + d4
            columns[1, groups + i, c] = p + q
            columns[2, groups + i, c] = p - q
            columns[3, groups + i, c] = r + s
            columns[4, groups + i, c] = r - s
            columns[5, groups + i, c] = _F(4) * d1 - _F(5) * d3 + d5
    for j in range(6):
        k = 6 * j
        for t in range(length // (4 * groups)):
            for g in range(groups):
                i, o = 4 * t * groups + g, t * groups + g
                for c in range(8):
                    d0, d1, d2 = columns[j, i, c], columns[j, i + groups, c], columns[j, i + 2 * groups, c]
                    d3, d4, d5 = columns[j, i + 3 * groups, c], columns[j, i + 4 * groups, c], columns[j, i + 5 * groups, c]
                    p, q, r, s = d4 - _F(4) * d2, d3 - _F(4) * d1, d4 - d2, _F(2) * (d3 - d1)
                    out[k, o, c] = _F(4) * d0 - _F(5) * d2 + d4
                    out[k + 1, o, c] = p + q
                    out[k + 2, o, c] = p - q
                    out[k + 3, o, c] = r + s
                    out[k + 4, o, c] = r - s
                    out[k + 5, o, c] = _F(4) * d1 - _F(5) * d3 + d5


def _out_of(products, bias, added, out, row, slope):
    """A^T m A of one row of tiles, plus the bias; values below zero times `slope`; plus what is `added`.

    products
        [36, tile and channel group, 8].
    bias
        [channel group, 8].
    added
        As `out`, or with no row: nothing.
    out
        [y, x and channel group, 8], changed from `row` on.
    """
    groups, length = bias.shape[0], out.shape[1] // 4
    half = np.empty((24, length, 8), _F)
    for j in range(6):
        for i in range(length):
            for c in range(8):
                m0, m1, m2 = products[j, i, c], products[6 + j, i, c], products[12 + j, i, c]
                m3, m4, m5 = products[18 + j, i, c], products[24 + j, i, c], products[30 + j, i, c]
                p, q, r, s = m1 + m2, m1 - m2, m3 + m4, m3 - m4
                half[j, i, c] = m0 + p + r
                half[6 + j, i, c] = q + _F(2) * s
                half[12 + j, i, c] = p + _F(4) * r
                half[18 + j, i, c] = q + _F(8) * s + m5
    same, turned = _F(0.5) * (_F(1) + slope), _F(0.5) * (_F(1) - slope)  # of z and |z|: no branch
    for j in range(4):
        y, k = row + j, 6 * j
        for t in range(length // groups):
            for g in range(groups):
                i, o = t * groups + g, 4 * t * groups + g
                for c in range(8):
                    m0, m1, m2 = half[k, i, c], half[k + 1, i, c], half[k + 2, i, c]
                    m3, m4, m5 = half[k + 3, i, c], half[k + 4, i, c], half[k + 5, i, c]
                    p, q, r, s, b = m1 + m2, m1 - m2, m3 + m4, m3 - m4, bias[g, c]
                    z0, z1, z2, z3 = m0 + p + r + b, q + _F(2) * s + b, p + _F(4) * r + b, q + _F(8) * s + m5 + b
                    out[y, o, c] = same * z0 + turned * abs(z0)
                    out[y, o + groups, c] = same * z1 + turned * abs(z1)
                    out[y, o + 2 * groups, c] = same * z2 + turned * abs(z2)
                    out[y, o + 3 * groups, c] = same * z3 + turned * abs(z3)
        if added.shape[0]:
            for i in range(out.shape[1]):
                for c in range(8):
                    out[y, i, c] += added[y, i, c]


_OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy"}
into = compiled(_into, "void(f4[:,:,::1], f4[:,:,::1], i8, i8)", **_OPTIONS)
out_of = compiled(_out_of, "void(f4[:,:,::1], f4[:,::1], f4[:,:,::1], f4[:,:,::1], i8, f4)", **_OPTIONS)
