"""What an image is worth in exposure: how much longer the camera would have had to look for the
plain aligned sum to be as good.

The model: with m times as many frames as good as these (aligned as well, damaged no more, noise
independent) the sum's signal-to-noise ratio is m times as large in every ring. So its correlation
with the truth, c in the sum as it is, becomes c_m with c_m^2 / (1 - c_m^2) = m c^2 / (1 - c^2). The
sign of c is kept: where there is no signal, chance makes it negative as often as positive, and
neither is taken for signal.
"""

import math
from collections.abc import Callable

import torch
from scipy.optimize import brentq
from torch import Tensor

from dstnet.metrics.rings import Rings, signal_to_noise

MOST = 100.0  # times: what is better is not told apart


def exposure_by_correlation(image: Rings, total: Rings) -> float:
    """Times the exposure that the sum would need to have the image's area under its Fourier ring
    correlation with the truth, over the rings in which the sum shares anything with it that is
    beyond chance. No filter of rings raises it: smoothing earns nothing.

    Parameters
    ----------
    image, total
        Of the image and of the plain aligned sum, both with the truth.

    Returns
    -------
    float
        1 for the sum, 0 for an image that shares nothing with the truth, at most `MOST`; not a
        number where the sum itself shares nothing.
    """
    inside = total.is_beyond_chance() & total.band()
    if not bool(inside.any()):
        return math.nan

    def area(times: float) -> float:
        return float(_correlation_at(total, times)[inside].mean())

    return _times(area, float(image.correlation[inside].mean()))


def exposure_by_residual(image: Rings, total: Rings) -> float:
    """Times the exposure that the sum would need so that the best filter of rings, told by the
    truth, left no more residual energy than the image has. That filter makes 1 of the sum; the sum
    as it is, which is not filtered, and a Gaussian of it have less.

    Parameters and what is returned are those of `exposure_by_correlation`.
    """
    truth = total.powers.other

    def explained(times: float) -> float:
        shared = _correlation_at(total, times)
        return float((truth * shared * shared.abs()).sum() / truth.sum())

    powers = image.powers
    product = float(powers.own.sum() * powers.other.sum())
    cross = float(powers.cross.sum())
    return _times(explained, cross * abs(cross) / product if product > 0 else 0.0)


def _correlation_at(total: Rings, times: float) -> Tensor:
    """The sum's ring correlation with the truth at so many times the exposure."""
    ratio = times * signal_to_noise(total.correlation)
    shared = ratio / (1 + ratio.abs())
    return torch.sign(shared) * shared.abs().sqrt()


def _times(measure: Callable[[float], float], wanted: float) -> float:
    """Where a rising measure of the exposure reaches a value, from 0 to `MOST`."""
    if wanted <= 0:
        return 0.0
    if measure(MOST) <= wanted:
        return MOST
    return float(brentq(lambda times: measure(times) - wanted, 0.0, MOST))  # pyright: ignore[reportArgumentType]
