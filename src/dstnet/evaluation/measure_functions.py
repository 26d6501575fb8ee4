"""What each measure looks at of an output, and hands to the functions in `dstnet.metrics`."""

import math
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor

from dstnet.core.shapes import Image
from dstnet.evaluation.base import Curve, Evaluated, Part, Scene, ScoredPicks
from dstnet.metrics.hallucination import relative_power
from dstnet.metrics.halves import (
    amplitude_transfer,
    gain_over_raw,
    shell_correlation,
    signal_transfer,
)
from dstnet.metrics.image import (
    moved_truth,
    residual_energy_to,
)
from dstnet.metrics.motion import motion_error
from dstnet.metrics.oracle import gaussian_filtered
from dstnet.metrics.particle_contrast import nearest_gaussian, particle_contrast_db
from dstnet.metrics.picking import (
    TOLERANCE,
    match_picks,
    precision_of_hits,
)
from dstnet.metrics.residual_spectrum import particles_left, taken_out, unevenness
from dstnet.metrics.rings import (
    SHORT_TAPER,
    Rings,
    compared,
    resolution_angstrom,
    signal_to_noise,
    tapered,
)
from dstnet.picking import pick_blobs

Key = TypeVar("Key", Scene, Evaluated)
Value = TypeVar("Value")

PLAIN_SUM = "sum"  # name of the method
_DEEP = -0.3  # of a `particles` image: darker pixels say that a particle is there


# What several measures share, worked out once


def _once(function: Callable[[Key], Value]) -> Callable[[Key], Value]:
    """Remembers what a function gave of a scene or of an output, as long as that lives."""
    known: WeakKeyDictionary[Key, Value] = WeakKeyDictionary()

    def remembered(key: Key) -> Value:
        if key not in known:
            known[key] = function(key)
        return known[key]

    return remembered


@_once
def _with_truth(e: Evaluated) -> Rings:
    """The image and its truth, ring by ring."""
    assert e.target is not None
    return compared(e.image[e.inside], e.target[e.inside], _pixel(e))


@_once
def _with_truth_for_exposure(e: Evaluated) -> Rings:
    """The same with more independent terms: an exposure is told from small differences."""
    assert e.target is not None
    return compared(e.image[e.inside], e.target[e.inside], _pixel(e), taper=SHORT_TAPER)


@_once
def _clean_at_total(scene: Scene) -> Image:
    """The clean truth where the plain aligned sum has it."""
    assert scene.truth is not None
    return moved_truth(scene.aligned.total, scene.truth.clean)


@_once
def _total_for_exposure(e: Evaluated) -> Rings:
    """The same of the plain aligned sum."""
    total = e.scene.aligned.total
    clean = _clean_at_total(e.scene)
    return compared(total[e.inside], clean[e.inside], _pixel(e), taper=SHORT_TAPER)


@_once
def _with_total(e: Evaluated) -> Rings:
    """The image and the plain aligned sum, ring by ring."""
    return compared(e.image[e.inside], e.scene.aligned.total[e.inside], _pixel(e))


@_once
def _halves(e: Evaluated) -> tuple[Rings, Rings]:
    """The enhanced and the raw half, each with the raw other half, ring by ring."""
    assert e.half is not None
    other = e.half.other[e.inside]
    return (
        compared(e.half.image[e.inside], other, _pixel(e)),
        compared(e.half.own[e.inside], other, _pixel(e)),
    )


@_once
def _taken_out(e: Evaluated) -> Image | None:
    """The sum less the image; None where that is nothing."""
    return taken_out(e.scene.aligned.total[e.inside], e.image[e.inside])


def _pixel(e: Evaluated) -> float:
    return e.scene.aligned.pixel_size_angstrom


def _curve(rings: Rings, values: Tensor) -> Curve:
    """Values by frequency, those that are not known left out."""
    is_known = values.isfinite()
    return Curve(tuple(rings.frequency[is_known].tolist()), tuple(values[is_known].tolist()))


# With a truth


def against_truth(function: Callable[[Image, Image], float]) -> Callable[[Evaluated], float]:
    """A measure of the pixels that count."""

    def measure(e: Evaluated) -> float:
        assert e.target is not None
        return function(e.image[e.inside], e.target[e.inside])

    return measure


def residual_to(finest_angstrom: float) -> Callable[[Evaluated], float]:
    """Residual energy of what is coarser than a resolution."""

    def measure(e: Evaluated) -> float:
        assert e.target is not None
        return residual_energy_to(e.image, e.target, _pixel(e), finest_angstrom, e.border_px)

    return measure


def of_rings(function: Callable[[Rings], float]) -> Callable[[Evaluated], float]:
    """A measure of the rings that image and truth share."""

    return lambda e: function(_with_truth(e))


def resolution(threshold: float) -> Callable[[Evaluated], float]:
    return of_rings(lambda rings: resolution_angstrom(rings, threshold))


def frc(e: Evaluated) -> Curve:
    rings = _with_truth(e)
    return _curve(rings, rings.correlation)


def ssnr(e: Evaluated) -> Curve:
    rings = _with_truth(e)
    return _curve(rings, signal_to_noise(rings.pooled().correlation()))


def exposure(function: Callable[[Rings, Rings], float]) -> Callable[[Evaluated], float]:
    """A measure of what the image and the plain aligned sum share with the truth."""
    return lambda e: function(_with_truth_for_exposure(e), _total_for_exposure(e))


def motion(part: str) -> Callable[[Evaluated], float]:
    """Error of the method's own motion; that of the alignment which others share with the plain sum
    stands with the plain sum.
    """

    def measure(e: Evaluated) -> float:
        truth = e.scene.truth
        if truth is None or truth.motion is None:
            return math.nan
        found = e.made.motion
        if found is None and e.method == PLAIN_SUM:
            found = e.scene.aligned.motion
        if found is None or len(found.global_shift_angstrom) != len(
            truth.motion.global_shift_angstrom
        ):
            return math.nan  # frames were left out
        return getattr(motion_error(found, truth.motion, 1.0), part)  # in pixels of 1 Angstrom

    return measure


# With particles


def _particles(e: Evaluated) -> tuple[np.ndarray, float]:
    """Centres [particle, 2] and diameter in pixels of the image."""
    assert e.annotation is not None
    aligned = e.scene.aligned
    centres = (e.annotation.centres_px + 0.5) / aligned.binning - 0.5
    return centres, e.annotation.diameter_angstrom / aligned.pixel_size_angstrom


@_once
def scored_picks(e: Evaluated) -> ScoredPicks:
    centres, diameter = _particles(e)
    picks = pick_blobs(e.image, diameter)
    looked_for = centres[picks.searched(centres)]
    hits = match_picks(picks.centres_px, looked_for, TOLERANCE * diameter)
    return ScoredPicks(tuple(picks.scores.tolist()), tuple(hits.tolist()), len(looked_for))


def average_precision(e: Evaluated) -> float:
    picks = scored_picks(e)
    return precision_of_hits(np.array(picks.hits, bool), picks.centres)


def _particle_contrast(e: Evaluated, image: Image) -> float:
    centres, diameter = _particles(e)
    return particle_contrast_db(image[e.inside], centres - e.border_px, diameter)


@_once
def contrast_of_image(e: Evaluated) -> float:
    return _particle_contrast(e, e.image)


@_once
def contrast_of_gaussian(e: Evaluated) -> float:
    total = e.scene.aligned.total
    sigma = nearest_gaussian(compared(e.image, total, _pixel(e), taper=0.0), _pixel(e))
    return _particle_contrast(e, gaussian_filtered(total, sigma))


def contrast_over_gaussian(e: Evaluated) -> float:
    return contrast_of_image(e) - contrast_of_gaussian(e)


# Without either


def half_frc(e: Evaluated) -> Curve:
    enhanced, _ = _halves(e)
    return _curve(enhanced, enhanced.correlation)


def _shells(e: Evaluated, image: Image) -> float:
    assert e.half is not None
    return shell_correlation(tapered(image[e.inside]), tapered(e.half.other[e.inside]), _pixel(e))


def half_shells(e: Evaluated) -> float:
    assert e.half is not None
    return _shells(e, e.half.image)


def half_gain(e: Evaluated) -> float:
    assert e.half is not None
    _, raw = _halves(e)
    return gain_over_raw(half_shells(e), _shells(e, e.half.own), raw)


def transfer(e: Evaluated) -> Curve:
    rings = _with_total(e)
    return _curve(rings, amplitude_transfer(rings))


def signal_kept(e: Evaluated) -> Curve:
    enhanced, raw = _halves(e)
    return _curve(enhanced, signal_transfer(enhanced, raw))


def residual_unevenness(e: Evaluated) -> float:
    residual = _taken_out(e)
    return math.nan if residual is None else unevenness(residual)


def label_in_residual(e: Evaluated) -> float:
    truth = e.scene.truth
    residual = _taken_out(e)
    if truth is None or truth.label is None or residual is None:
        return math.nan
    return particles_left(residual, truth.label[e.inside] > 0)


def of_pixels(function: Callable[[Image], float]) -> Callable[[Evaluated], float]:
    return lambda e: function(e.image[e.inside])


def control_power(part: Part) -> Callable[[Evaluated], float]:
    def measure(e: Evaluated) -> float:
        control = e.controls[part]
        return relative_power(
            control.image[e.inside],
            control.total[e.inside],
            e.image[e.inside],
            e.scene.aligned.total[e.inside],
        )

    return measure


def control_area(part: Part) -> Callable[[Evaluated], float]:
    def measure(e: Evaluated) -> float:
        is_deep = e.controls[part].image[e.inside] < _DEEP
        return 100 * float(is_deep.double().mean())

    return measure
