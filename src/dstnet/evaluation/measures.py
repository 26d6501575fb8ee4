"""The table of measures: a row each.

`better` says which way is better; what chance, a perfect image and a constant one score stands with
the functions in `dstnet.metrics`.
"""

from collections.abc import Callable
from typing import Literal

from dstnet.evaluation import measure_functions as of
from dstnet.evaluation.base import Curve, Evaluated, Measure, Need, Part, ScoredPicks
from dstnet.metrics.exposure import exposure_by_correlation, exposure_by_residual
from dstnet.metrics.image import correlation, peak_signal_to_noise_db, residual_energy
from dstnet.metrics.rings import correlation_area
from dstnet.metrics.seams import checkerboard_ratio, seam_ratio
from dstnet.metrics.structural_similarity import structural_similarity

ALL = ("micrograph", "contrast", "particles")
SUM_LIKE = ("micrograph",)  # what may be held against the sum, which has the same transfer function
_RINGS = "1/Å"
_WANG = "Wang et al., IEEE Trans. Image Process. 13, 600 (2004)"
_SAXTON = "Saxton & Baumeister, J. Microsc. 127, 127 (1982)"
_ROSENTHAL = "Rosenthal & Henderson, J. Mol. Biol. 333, 721 (2003)"
_UNSER = "Unser et al., Ultramicroscopy 23, 39 (1987)"
_MANNING = "Manning et al., Introduction to Information Retrieval (2008), 8.4"
_RIJSBERGEN = "van Rijsbergen, Information Retrieval (1979)"
_BEPLER = "Bepler et al., Nat. Commun. 11, 5208 (2020)"


def _row(
    name: str,
    label: str,
    better: Literal["higher", "lower", ""],
    function: Callable[[Evaluated], float | Curve | ScoredPicks],
    needs: Need,
    unit: str = "",
    source: str = "this package",
    outputs: tuple[str, ...] = ALL,
    x_label: str = "",
) -> Measure:
    return Measure(name, label, unit, better, source, needs, function, outputs, x_label)


def _control_rows(part: Part, need: Need, label: str) -> tuple[Measure, Measure]:
    """What is drawn in a control: its power over that of particles, and the area marked as
    particles.
    """
    power, area = of.control_power(part), of.control_area(part)
    return (
        _row(f"{part}-power", f"power in {label}", "lower", power, need),
        _row(f"{part}-area", f"area in {label}", "lower", area, need, "%", outputs=("particles",)),
    )


def _truth_rows() -> tuple[Measure, ...]:
    need = "truth"
    residual = of.against_truth(residual_energy)
    psnr = of.against_truth(peak_signal_to_noise_db)
    ssim = of.against_truth(structural_similarity)
    area = of.of_rings(correlation_area)
    by_area = of.exposure(exposure_by_correlation)
    by_residual = of.exposure(exposure_by_residual)
    return (
        _row("residual", "residual energy", "lower", residual, need),
        _row("residual-20", "residual energy to 20 Å", "lower", of.residual_to(20.0), need),
        _row("residual-10", "residual energy to 10 Å", "lower", of.residual_to(10.0), need),
        _row("correlation", "correlation", "higher", of.against_truth(correlation), need),
        _row("psnr", "PSNR", "higher", psnr, need, "dB"),
        _row("ssim", "SSIM", "higher", ssim, need, source=_WANG),
        _row("frc", "FRC", "higher", of.frc, need, source=_SAXTON, x_label=_RINGS),
        _row("frc-area", "FRC area to 4 Å", "higher", area, need, source=_SAXTON),
        _row("frc-0.5", "FRC = 0.5", "lower", of.resolution(0.5), need, "Å", _SAXTON),
        _row("frc-0.143", "FRC = 0.143", "lower", of.resolution(0.143), need, "Å", _ROSENTHAL),
        _row("ssnr", "spectral SNR", "higher", of.ssnr, need, source=_UNSER, x_label=_RINGS),
        _row(
            "exposure-frc",
            "equivalent exposure, FRC area",
            "higher",
            by_area,
            need,
            "times",
            outputs=SUM_LIKE,
        ),
        _row(
            "exposure-residual",
            "equivalent exposure, residual energy",
            "higher",
            by_residual,
            need,
            "times",
            outputs=SUM_LIKE,
        ),
        _row(
            "motion-global",
            "global motion, rms error",
            "lower",
            of.motion("global_px"),
            need,
            "Å",
            outputs=SUM_LIKE,
        ),
        _row(
            "motion-local",
            "local motion, rms error",
            "lower",
            of.motion("local_px"),
            need,
            "Å",
            outputs=SUM_LIKE,
        ),
        _row(
            "residual-particles",
            "particles in what is taken out",
            "lower",
            of.label_in_residual,
            need,
            outputs=SUM_LIKE,
        ),
    )


def _particle_rows() -> tuple[Measure, ...]:
    need = "annotation"
    return (
        _row("ap", "average precision", "higher", of.average_precision, need, source=_MANNING),
        _row("f1", "F1", "higher", of.scored_picks, need, source=_RIJSBERGEN),
        _row("particle-snr", "particle SNR", "higher", of.contrast_of_image, need, "dB", _BEPLER),
        _row(
            "gaussian-snr",
            "particle SNR, nearest Gaussian",
            "",
            of.contrast_of_gaussian,
            need,
            "dB",
            _BEPLER,
        ),
        _row(
            "particle-snr-gain",
            "particle SNR over nearest Gaussian's",
            "higher",
            of.contrast_over_gaussian,
            need,
            "dB",
        ),
    )


def _half_rows() -> tuple[Measure, ...]:
    """Of the micrograph alone: the raw half has its transfer function."""
    rows = (
        ("half-frc", "FRC of enhanced half and raw other", of.half_frc, _SAXTON, _RINGS),
        ("half-shells", "FRC of halves, 150 to 25 Å", of.half_shells, _SAXTON, ""),
        ("half-gain", "FRC of halves over the raw one's", of.half_gain, "this package", ""),
        ("signal-transfer", "signal kept", of.signal_kept, "this package", _RINGS),
    )
    return tuple(
        _row(name, label, "higher", function, "halves", "", source, SUM_LIKE, x_label)
        for name, label, function, source, x_label in rows
    )


def _plain_rows() -> tuple[Measure, ...]:
    return (
        _row("transfer", "amplitude kept", "", of.transfer, "", x_label=_RINGS),
        _row(
            "residual-unevenness",
            "unevenness of what is taken out",
            "lower",
            of.residual_unevenness,
            "",
            outputs=SUM_LIKE,
        ),
        _row("seam", "seams", "lower", of.of_pixels(seam_ratio), ""),
        _row("checkerboard", "checkerboard", "lower", of.of_pixels(checkerboard_ratio), ""),
    )


MEASURES: tuple[Measure, ...] = (
    *_truth_rows(),
    *_particle_rows(),
    *_half_rows(),
    *_plain_rows(),
    *_control_rows("noise", "noise", "pure noise"),
    *_control_rows("shuffled", "shuffled", "shuffled pixels"),
    *_control_rows("ice", "ice", "empty ice"),
)
