"""Rings of an image and its truth: known correlations, resolutions, and equivalent exposures."""

import math

import pytest
import torch

from dstnet.core.fourier import apply_transfer, radial_frequency
from dstnet.metrics.exposure import MOST, exposure_by_correlation, exposure_by_residual
from dstnet.metrics.oracle import gaussian_filtered
from dstnet.metrics.rings import (
    SHORT_TAPER,
    compared,
    correlation_area,
    resolution_angstrom,
    signal_to_noise,
    tapered,
)

SHAPE, PIXEL = (768, 640), 1.5
SLOPE_ANGSTROM = 18.0  # power of the truth falls by e^-2 where k is 1 / SLOPE_ANGSTROM


def noise(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def truth(with_ctf=False):
    """A random field whose signal-to-noise ratio in unit noise is 8 exp(-2 k SLOPE)."""
    k = radial_frequency(SHAPE, PIXEL)
    amplitude = 8**0.5 * torch.exp(-k * SLOPE_ANGSTROM)
    if with_ctf:
        amplitude = amplitude * torch.sin(math.pi * 0.02 * 12000 * k**2 + 0.1) * 2**0.5
    return apply_transfer(noise(0), amplitude)


def area_of(image, clean):
    return correlation_area(compared(image, clean, PIXEL))


def test_perfect_and_unrelated_images():
    clean = truth()
    assert area_of(-3 * clean + 7, -clean) == pytest.approx(1, abs=1e-5)
    assert area_of(-clean, clean) == pytest.approx(-1, abs=1e-5)
    assert area_of(torch.ones(SHAPE), clean) == pytest.approx(0, abs=1e-9)
    rings = compared(noise(5), clean, PIXEL)
    inside = rings.band()
    errors = rings.terms.rsqrt()[inside]
    assert abs(correlation_area(rings)) < 5 * float(errors.square().sum().sqrt()) / len(errors)
    assert bool((rings.correlation[inside].abs() < 5 * errors).all())


@pytest.mark.parametrize("times", [0.5, 1.0, 3.0])
def test_correlation_is_that_of_the_ratio_of_signal_to_noise(times):
    """c = sqrt(s / (s + 1)) with s the ratio, in every ring within 5 standard errors."""
    clean = truth()
    rings = compared(times**0.5 * clean + noise(1), clean, PIXEL)
    ratio = times * 8 * torch.exp(-2 * rings.frequency * SLOPE_ANGSTROM)
    expected = (ratio / (1 + ratio)).sqrt()
    fine = rings.terms > 30
    assert bool(((rings.correlation - expected).abs() < 5 * rings.terms.rsqrt())[fine].all())
    assert signal_to_noise(torch.tensor([0.6, -0.6])).tolist() == pytest.approx([0.5625, -0.5625])


@pytest.mark.parametrize("with_ctf", [False, True])
def test_resolution_is_where_the_correlation_falls(with_ctf):
    """8 exp(-2 k SLOPE) is 1 / 3, where c = 0.5, at k = ln(24) / (2 SLOPE). Zeros of the transfer
    function before it are not taken for it.
    """
    clean = truth(with_ctf)
    rings = compared(clean + noise(1), clean, PIXEL)
    expected = 2 * SLOPE_ANGSTROM / math.log(24)
    assert resolution_angstrom(rings, 0.5) == pytest.approx(expected, rel=0.08)
    assert resolution_angstrom(rings, 0.143) < 0.75 * expected


def test_resolution_of_images_that_say_all_or_nothing():
    clean = truth()
    assert resolution_angstrom(compared(clean, clean, PIXEL), 0.5) == pytest.approx(2 * PIXEL)
    for nothing in (torch.ones(SHAPE), -clean):
        assert resolution_angstrom(compared(nothing, clean, PIXEL), 0.5) == 200


def test_no_filter_of_rings_changes_the_area():
    clean = truth()
    image = clean + noise(1)
    # Where a Gaussian has left less than single precision can hold, nothing is known any more.
    assert area_of(gaussian_filtered(image, 1.0), clean) == pytest.approx(
        area_of(image, clean), abs=0.01
    )


def test_the_edge_does_not_leak():
    """A slope across the field that both images share is a step where it is continued: without a
    taper its rings are as like each other as the steps, with it they are as unlike as the noise.
    """
    slope = torch.linspace(-30, 30, SHAPE[0])[:, None]
    fine = compared(noise(1) + slope, noise(2) + slope, PIXEL)
    inside = fine.frequency > 1 / 20
    assert abs(float(fine.correlation[inside].mean())) < 0.02
    image = tapered(noise(1) + slope)
    assert float(image[0].abs().max()) == 0 and float(image[:, -1].abs().max()) == 0


# --- Equivalent exposure
# --------------------------------------------------------------------------------------------------


def summed(clean, frames, seed=10):
    """Sum of so many frames, each with noise of variance 4."""
    return frames * clean + 2 * frames**0.5 * noise(seed + frames)


@pytest.mark.parametrize("with_ctf", [False, True])
@pytest.mark.parametrize("times", [0.5, 1.0, 2.0, 4.0])
def test_sums_of_more_frames_are_worth_as_much_exposure(times, with_ctf):
    clean = truth(with_ctf)
    total = compared(summed(clean, 8), clean, PIXEL, taper=SHORT_TAPER)
    more = compared(summed(clean, int(8 * times)), clean, PIXEL, taper=SHORT_TAPER)
    assert exposure_by_correlation(more, total) == pytest.approx(times, rel=0.1)
    # Without a filter the noise beyond the signal counts in a residual, so it is filtered.
    k = radial_frequency(SHAPE, PIXEL)
    ratio = 8 * torch.exp(-2 * k * SLOPE_ANGSTROM) * 8 * times / 4
    filtered = apply_transfer(summed(clean, int(8 * times)), ratio / (1 + ratio))
    if not with_ctf:
        rings = compared(filtered, clean, PIXEL, taper=SHORT_TAPER)
        assert exposure_by_residual(rings, total) == pytest.approx(times, rel=0.1)


def test_exposure_of_trivial_images():
    """The sum is worth its exposure; smoothing adds nothing to the area, and too much of it takes
    from the residual; a constant is worth nothing, the truth all that is told apart.
    """
    clean = truth()
    image = summed(clean, 8)
    total = compared(image, clean, PIXEL)
    worth = {}
    for name, other in {
        "sum": image,
        "smooth": gaussian_filtered(image, 1.0),
        "too smooth": gaussian_filtered(image, 8.0),
        "constant": torch.ones(SHAPE),
        "inverted": -image,
        "truth": clean,
    }.items():
        rings = compared(other, clean, PIXEL)
        worth[name] = exposure_by_correlation(rings, total), exposure_by_residual(rings, total)
    assert worth["sum"][0] == pytest.approx(1, abs=1e-3) and worth["sum"][1] < 1
    assert worth["smooth"][0] == pytest.approx(1, abs=0.1)
    assert worth["sum"][1] < worth["smooth"][1] < 1.05
    assert worth["too smooth"][1] < worth["smooth"][1]
    assert worth["constant"] == worth["inverted"] == (0, 0)
    assert worth["truth"] == (MOST, MOST)


@pytest.mark.parametrize("taper", [0.0, SHORT_TAPER, 1.0])
def test_chance_is_as_large_as_the_independent_terms_say(taper):
    """Mean square correlation of unrelated noise over 1 / terms: 1 in wide bands (about ten
    independent ones of each pair), and no more in single rings.
    """
    pairs = [compared(noise(a), noise(a + 100), PIXEL, taper=taper) for a in range(8)]
    shape = pairs[0].terms > 30
    of_bands = torch.cat(
        [r.pooled().correlation()[shape].square() * r.summed_around(r.terms)[shape] for r in pairs]
    )
    of_rings = torch.cat([r.correlation[shape].square() * r.terms[shape] for r in pairs])
    assert float(of_bands.mean()) == pytest.approx(1, abs=5 * (2 / 80) ** 0.5)
    assert 0.4 < float(of_rings.mean()) < 1.1
