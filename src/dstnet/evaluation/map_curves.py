"""Half maps of particles, and their correlations with each other and with the truth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dstnet.evaluation.erased_summary import Estimate
from dstnet.metrics.reconstruction import (
    HALF_MAPS_LEVEL,
    TRUTH_LEVEL,
    FourierVolume,
    promised_correlation,
    resolution_angstrom,
    shell_correlation,
    soft_ball,
    whitened,
)

BLOCKS = 6  # of each half, left out in turn for intervals
STUDENT = 2.571  # 95 % of Student's t, of one degree of freedom less than blocks
BIAS_FROM_ANGSTROM = 30.0  # coarser shells are few terms
EDGE_ANGSTROM = 12.0  # of the mask
ROOM_ANGSTROM = 4.0  # between particle and mask


class Gathered:
    """Particles gathered in two halves of some blocks each, taking turns.

    Parameters
    ----------
    size
        Edge of boxes and map in pixels.
    """

    def __init__(self, size: int) -> None:
        self.halves = tuple([FourierVolume(size) for _ in range(BLOCKS)] for _ in range(2))
        self.particles = 0

    def insert(self, terms: np.ndarray, transfer: np.ndarray, rotation: np.ndarray) -> None:
        """Add an image, see `FourierVolume.insert`."""
        block, half = divmod(self.particles, 2)
        self.halves[half][block % BLOCKS].insert(terms, transfer, rotation)
        self.particles += 1


@dataclass(frozen=True)
class MapCurves:
    """How far the map of one method can be believed.

    Attributes
    ----------
    method, particles
        Of which, and of how many particles.
    frequency
        Of each shell, 1/Å.
    half_maps
        Correlation of the half maps, [shell].
    promised
        What correlation with the truth that promises, [shell].
    confirmed
        Correlation of the whole map with the truth, [shell].
    promised_angstrom
        Resolution by the half maps, at 0.143.
    confirmed_angstrom
        Resolution by the truth, at 0.5: the same where halves share nothing but the truth.
    bias
        Mean of what is promised less what is confirmed, over shells from 30 Å to the resolution
        promised by the half maps, where they are believed. 0 is honest, above 0 they promise too
        much.
    """

    method: str
    particles: int
    frequency: tuple[float, ...]
    half_maps: tuple[float, ...]
    promised: tuple[float, ...]
    confirmed: tuple[float, ...]
    promised_angstrom: Estimate
    confirmed_angstrom: Estimate
    bias: Estimate


def map_curves(
    method: str,
    gathered: Gathered,
    truth: np.ndarray,
    pixel_size_angstrom: float,
    radius_angstrom: float,
) -> MapCurves:
    """The curves of a method's map, whitened, within a soft ball around the particle.

    Parameters
    ----------
    method
        Its name.
    gathered
        Its particles.
    truth
        The true map, [z, y, x].
    pixel_size_angstrom
        Of both.
    radius_angstrom
        Of the particle.
    """
    judge = _Judge(truth, pixel_size_angstrom, radius_angstrom)
    ones = np.ones(BLOCKS)
    half_maps, confirmed = judge.correlations(gathered, [ones, ones])
    figures = judge.figures(half_maps, confirmed)
    without = []
    for block in range(BLOCKS):
        times = np.ones(BLOCKS)
        times[block] = 0
        without.append(judge.figures(*judge.correlations(gathered, [times, times])))
    # Jackknife (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, 11.1): drawing blocks
    # with replacement would make maps of fewer particles.
    variance = (BLOCKS - 1) * np.var(without, axis=0)
    errors = STUDENT * np.sqrt(variance)
    estimates = [
        Estimate(figure, figure - error, figure + error)
        for figure, error in zip(figures, errors.tolist(), strict=True)
    ]
    shells = np.arange(len(half_maps)) / judge.box_angstrom
    return MapCurves(
        method,
        gathered.particles,
        tuple(shells.tolist()),
        tuple(half_maps.tolist()),
        tuple(promised_correlation(half_maps).tolist()),
        tuple(confirmed.tolist()),
        *estimates,
    )


class _Judge:
    """A true map and the mask around it."""

    def __init__(self, truth: np.ndarray, pixel_size_angstrom: float, radius: float) -> None:
        size = len(truth)
        self.box_angstrom = size * pixel_size_angstrom
        radius_px = (radius + ROOM_ANGSTROM) / pixel_size_angstrom
        self.ball = soft_ball(size, radius_px, EDGE_ANGSTROM / pixel_size_angstrom)
        (white,) = whitened([truth], truth)
        self.truth = white * self.ball
        self.first = math.ceil(self.box_angstrom / BIAS_FROM_ANGSTROM)

    def correlations(
        self, gathered: Gathered, times: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the half maps with each other, and of the whole with the truth; `times` says how often
        each block of each half counts.
        """
        halves = [
            FourierVolume.joined(blocks, counts.tolist())
            for blocks, counts in zip(gathered.halves, times, strict=True)
        ]
        whole = FourierVolume.joined(halves, (1.0, 1.0))
        volumes = [part.volume() for part in (*halves, whole)]
        one, other, both = (map_ * self.ball for map_ in whitened(volumes, volumes[-1]))
        return shell_correlation(one, other), shell_correlation(both, self.truth)

    def figures(self, half_maps: np.ndarray, confirmed: np.ndarray) -> tuple[float, float, float]:
        """Resolution promised, resolution confirmed, bias."""
        gap = promised_correlation(half_maps) - confirmed
        promised = resolution_angstrom(half_maps, HALF_MAPS_LEVEL, self.box_angstrom)
        last = max(self.first, int(self.box_angstrom / promised))
        return (
            promised,
            resolution_angstrom(confirmed, TRUTH_LEVEL, self.box_angstrom),
            float(gap[self.first : last + 1].mean()),
        )
