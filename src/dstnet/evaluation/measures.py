"""The table of measures (a stand-in until the real one is merged)."""

from dstnet.evaluation.base import Curve, Evaluated, Measure, ScoredPicks
from dstnet.metrics.image import peak_signal_to_noise_db, residual_energy
from dstnet.metrics.picking import TOLERANCE, average_precision, match_picks
from dstnet.metrics.spectral import ring_correlation
from dstnet.picking import pick_blobs

BOTH = ("micrograph", "contrast", "particles")


def _residual(e: Evaluated) -> float:
    assert e.target is not None
    return residual_energy(e.image[e.inside], e.target[e.inside])


def _psnr(e: Evaluated) -> float:
    assert e.target is not None
    return peak_signal_to_noise_db(e.image[e.inside], e.target[e.inside])


def _frc(e: Evaluated) -> Curve:
    assert e.target is not None
    rings = 60
    values = ring_correlation(e.image[e.inside], e.target[e.inside], rings).tolist()
    nyquist = 0.5 / e.scene.aligned.pixel_size_angstrom
    return Curve(tuple((i + 0.5) / rings * nyquist for i in range(rings)), tuple(values))


def _ap(e: Evaluated) -> float:
    assert e.annotation is not None
    diameter = e.annotation.diameter_angstrom / e.scene.aligned.pixel_size_angstrom
    picks = pick_blobs(e.image, diameter)
    centres = e.annotation.centres_px
    looked_for = centres[picks.searched(centres)]
    return average_precision(picks.centres_px, looked_for, TOLERANCE * diameter)


def _f1(e: Evaluated) -> ScoredPicks:
    assert e.annotation is not None
    diameter = e.annotation.diameter_angstrom / e.scene.aligned.pixel_size_angstrom
    picks = pick_blobs(e.image, diameter)
    centres = e.annotation.centres_px
    looked_for = centres[picks.searched(centres)]
    hits = match_picks(picks.centres_px, looked_for, TOLERANCE * diameter)
    return ScoredPicks(tuple(picks.scores.tolist()), tuple(hits.tolist()), len(looked_for))


def _half_frc(e: Evaluated) -> Curve:
    assert e.half is not None
    rings = 60
    values = ring_correlation(e.half.image[e.inside], e.half.other[e.inside], rings).tolist()
    nyquist = 0.5 / e.scene.aligned.pixel_size_angstrom
    return Curve(tuple((i + 0.5) / rings * nyquist for i in range(rings)), tuple(values))


X = "1/Å"
MEASURES: tuple[Measure, ...] = (
    Measure("residual", "residual energy", "", "lower", "here", "truth", _residual, BOTH),
    Measure("psnr", "PSNR", "dB", "higher", "here", "truth", _psnr, BOTH),
    Measure("frc", "FRC to the truth", "", "", "here", "truth", _frc, BOTH, X),
    Measure("ap", "average precision", "", "higher", "here", "annotation", _ap, BOTH),
    Measure("f1", "F1", "", "higher", "here", "annotation", _f1, BOTH),
    Measure("half-frc", "half against raw half", "", "", "here", "halves", _half_frc, x_label=X),
)
