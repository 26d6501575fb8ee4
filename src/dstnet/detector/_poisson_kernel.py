"""The compiled Poisson sampler. Only `poisson.py` imports this file, and late: numba takes half a
second to load.

Every pixel's random number is a hash of (seed, block, place in the block), so it depends on no
other pixel and on no thread.
"""

import math
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from dstnet.core.compiled import compiled

# pixels that share one length of the table; its five working arrays stay in the first-level cache
BLOCK = 1024
HIGHEST_TABLED_RATE = 24.0  # above, rejection is cheaper and float32 tables lose digits
TAIL = 1e-3  # below this chance a pixel leaves the table for the double-precision path

_F = np.float32  # numba's float() leaves a float32 as it is; np.float64() does not
_U = np.uint32
_W = np.uint64
_ZERO = _F(0)
_HALF = _F(0.5)
_ONE = _F(1)
_LOG2E = _F(1.4426950408889634)
# Cody & Waite's split of ln 2.
_LN2_HIGH = _F(0.693359375)
_LN2_LOW = _F(-2.12194440e-4)
# Of Weyl's sequence of counters: 2^64 and 2^32 over the golden ratio.
_STEP_64 = _W(0x9E3779B97F4A7C15)
_STEP_32 = _U(0x9E3779B1)
# MurmurHash3's multipliers.
_MURMUR_A = _U(0x85EBCA6B)
_MURMUR_B = _U(0xC2B2AE35)


@numba.njit(nogil=True)
def _mix64(x):
    """Bijective scrambling of 64 bits (Stafford's variant 13 of MurmurHash3's finaliser, as in
    SplitMix64; Steele et al. 2014).
    """
    x = (x ^ (x >> _W(30))) * _W(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _W(27))) * _W(0x94D049BB133111EB)
    return x ^ (x >> _W(31))


def _scrambler(typing, x, shift, factor):
    """(x ^ x >> shift) * factor in 32 bits; numba's own integers would widen to 64, and a vector
    hold half as many.
    """

    def build(context, builder, signature, arguments):
        x, shift, factor = arguments
        return builder.mul(builder.xor(x, builder.lshr(x, shift)), factor)

    return types.uint32(types.uint32, types.uint32, types.uint32), build


_scramble: Any = intrinsic(_scrambler)


@numba.njit(nogil=True)
def _uniform(state):
    """A double in (0, 1) from a counter."""
    bits = _mix64(state) >> _W(11)
    return (np.float64(bits) + 0.5) * 2.0**-53


@numba.njit(nogil=True)
def _tail(rate, least, state):
    """A count given that it is `least` or more, by inversion in double precision; for rates under
    about 700.
    """
    # Chances relative to that of `least` itself, which may be too small for a double.
    p = 1.0
    total = 0.0
    k = least
    while p > 1e-18 * total:
        total += p
        k += 1
        p *= rate / k
    left = _uniform(state) * total
    p = 1.0
    k = least
    while left >= p and p > 0.0:
        left -= p
        k += 1
        p *= rate / k
    return k


@numba.njit(nogil=True)
def _rejection(rate, state):
    """PTRS, transformed rejection with squeeze, for rates of 10 and more (Hörmann, Insurance: Math.
    Econ. 12, 39, 1993).
    """
    b = 0.931 + 2.53 * math.sqrt(rate)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    squeeze = 0.9277 - 3.6224 / (b - 2.0)
    log_rate = math.log(rate)
    while True:
        u = _uniform(state) - 0.5
        v = _uniform(state + _W(1))
        state += _W(2)
        margin = 0.5 - abs(u)
        width = 2.0 * a / margin + b
        k = math.floor(width * u + rate + 0.43)
        if margin >= 0.07 and v <= squeeze:
            return k
        if k < 0 or (margin < 0.013 and v > margin):
            continue
        log_chance = k * log_rate - rate - math.lgamma(k + 1.0)
        hat = a / (margin * margin) + b
        if math.log(v * inverse_alpha / hat) <= log_chance:
            return k


@numba.njit(nogil=True)
def _table_length(rate):
    """The least multiple of 4 with P(N >= length) < TAIL."""
    p = math.exp(-rate)
    above = 1.0 - p
    k = 1
    while above >= TAIL or k % 4:
        p *= rate / k
        above -= p
        k += 1
    return k


@numba.njit(nogil=True)
def _allowed_rates(rates, rate, highest_rate):
    """Fill `rate` with allowed rates of a block; the highest of them."""
    bits = rate.view(np.int32)
    for i in range(rates.size):
        value = rates[i]
        value = value if value > _ZERO else _ZERO  # NaN compares false
        rate[i] = value if value < highest_rate else highest_rate
    # Bits of positive floats sort as they do; unlike a maximum of floats, one of integers is
    # vectorised.
    highest_bits = 0
    for i in range(rates.size):
        highest_bits = max(highest_bits, bits[i])
    return np.int32(highest_bits).view(np.float32)


@numba.njit(nogil=True)
def _fill_by_rejection(rate, out, start, seed):
    """Counts of a block with high rates, each drawn on its own."""
    for i in range(out.size):
        place = _W(start + i)
        state = _mix64(seed + place * _STEP_64)
        expected = np.float64(rate[i])
        if expected >= 10.0:
            out[i] = _F(_rejection(expected, state))
        elif expected > 0.0:
            out[i] = _F(_tail(expected, 0, state))
        else:
            out[i] = _ZERO


@numba.njit(nogil=True)
def _fill_uniform(uniform, n, key):
    """Uniform numbers in (0, 1) by a 32-bit hash of a pixel's place in its block."""
    key_a = _U(key & _W(0xFFFFFFFF))
    key_b = _U(key >> _W(32))
    for i in range(n):
        x = _U(_U(i) * _STEP_32 + key_a)
        x = _scramble(x, _U(16), _MURMUR_A)
        x = _scramble(x, _U(13), _MURMUR_B)
        x = _U(x + key_b)
        x = _scramble(x, _U(16), _MURMUR_A)
        x = _scramble(x, _U(15), _MURMUR_B)
        x = _scramble(x, _U(16), _U(1))
        bits = np.int32(x >> _U(1))
        uniform[i] = (_F(bits) + _HALF) * _F(2.0**-31)


@numba.njit(nogil=True)
def _fill_first_chances(rate, chance, above, n):
    """P(N = 0) = exp(-rate) and P(N > 0), the latter kept exact for small rates, where exp(-rate)
    would round to 1.

    exp(-t) = 1 - t (1 - t/2 (1 - t/3 ...)) for |t| <= ln(2)/2, to t^8: what is left out is under
    3e-10.
    """
    for i in range(n):
        halvings = np.int32(rate[i] * _LOG2E + _HALF)
        whole = _F(halvings)
        t = rate[i] - whole * _LN2_HIGH
        t = t - whole * _LN2_LOW
        q = _ONE - t * _F(1 / 8)
        q = _ONE - t * _F(1 / 7) * q
        q = _ONE - t * _F(1 / 6) * q
        q = _ONE - t * _F(1 / 5) * q
        q = _ONE - t * _F(1 / 4) * q
        q = _ONE - t * _F(1 / 3) * q
        q = _ONE - t * _F(1 / 2) * q
        fallen = t * q  # 1 - exp(-t)
        exponent = np.int32((np.int32(127) - halvings) << np.int32(23))
        power = exponent.view(np.float32)  # 2^-halvings
        above[i] = power * fallen + (_ONE - power)
        chance[i] = power * (_ONE - fallen)


@numba.njit(nogil=True)
def _count_chances(rate, chance, above, uniform, out, length):
    """Count for each pixel the k below `length` with P(N > k) above its uniform number.

    Comparing the uniform with it, small at the tail, keeps the digits that a cumulative chance near
    1 loses.
    """
    for i in range(out.size):
        out[i] = _ZERO
    for k in range(1, length + 1, 4):
        a = _F(1.0 / k)
        b = _F(1.0 / (k + 1))
        c = _F(1.0 / (k + 2))
        d = _F(1.0 / (k + 3))
        for i in range(out.size):
            u = uniform[i]
            lam = rate[i]
            p = chance[i]
            over = above[i]
            count = _ONE if u < over else _ZERO
            p = p * lam * a
            over -= p
            count += _ONE if u < over else _ZERO
            p = p * lam * b
            over -= p
            count += _ONE if u < over else _ZERO
            p = p * lam * c
            over -= p
            count += _ONE if u < over else _ZERO
            p = p * lam * d
            over -= p
            chance[i] = p
            above[i] = over
            out[i] += count


def _fill(rates, counts, first, last, seed_table, seed_tail, highest_rate):
    rate = np.empty(BLOCK, np.float32)
    chance = np.empty(BLOCK, np.float32)
    above = np.empty(BLOCK, np.float32)
    uniform = np.empty(BLOCK, np.float32)
    for block in range(first, last):
        start = block * BLOCK
        n = min(BLOCK, rates.size - start)
        out = counts[start : start + n]
        highest = _allowed_rates(rates[start : start + n], rate, highest_rate)
        if highest > _F(HIGHEST_TABLED_RATE):
            _fill_by_rejection(rate, out, start, seed_tail)
            continue
        key = _mix64(seed_table + _W(block) * _STEP_64)
        _fill_uniform(uniform, n, key)
        _fill_first_chances(rate, chance, above, n)
        length = _table_length(np.float64(highest))
        _count_chances(rate, chance, above, uniform, out, length)
        for i in range(n):
            is_beyond_table = out[i] == _F(length)
            if is_beyond_table:
                place = _W(start + i)
                state = _mix64(seed_tail + place * _STEP_64)
                expected = np.float64(rate[i])
                out[i] = _F(_tail(expected, length, state))


fill = compiled(_fill, "void(float32[::1], float32[::1], int64, int64, uint64, uint64, float32)")
