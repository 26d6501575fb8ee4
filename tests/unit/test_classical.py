"""Methods without weights: sums as they are, and linear filters that do what their formulas say."""

import numpy as np
import pytest
import tiny
import torch

from dstnet.alignment import AlignedMovie
from dstnet.core.fourier import (
    apply_transfer,
    cosine_frequency,
    cosine_transform,
    radial_frequency,
)
from dstnet.enhancement import EnhancementSettings, make_restorer
from dstnet.errors import BadInputError, SettingsError
from dstnet.motion import Motion
from dstnet.movie import Exposure, Movie

PIXEL = 2.0


def aligned_movie(each: float | None = 2.0, count: int = 6) -> AlignedMovie:
    exposure = None if each is None else Exposure.uniform(count, each)
    movie = Movie(tiny.make_frames(count, (96, 90)), PIXEL, "here.tif", exposure)
    restorer = make_restorer(EnhancementSettings(model="sum"))
    return tiny.align_for(restorer, movie, Motion.of_shifts(torch.zeros(count, 2)))


def micrograph(model: str, aligned: AlignedMovie) -> torch.Tensor:
    return make_restorer(EnhancementSettings(model=model))(aligned).micrograph


def test_sums_are_the_alignments():
    aligned = aligned_movie()
    assert aligned.dose_weighted is not None
    assert torch.equal(micrograph("sum", aligned), aligned.total)
    assert torch.equal(micrograph("dose-weighted-sum", aligned), aligned.dose_weighted)
    assert not torch.equal(aligned.total, aligned.dose_weighted)


@pytest.mark.parametrize("model", ["dose-weighted-sum", "gaussian", "wiener"])
def test_without_exposure_they_are_of_the_plain_sum(model):
    aligned = aligned_movie(each=None)
    assert aligned.dose_weighted is None
    out = micrograph(model, aligned)
    assert out.shape == aligned.shape
    assert float(out.mean()) == pytest.approx(float(aligned.total.mean()), rel=1e-5)


@pytest.mark.parametrize("resolution", [15.0, 20.0, 40.5])
def test_the_gaussian_keeps_1_over_e_at_its_resolution(resolution):
    aligned = aligned_movie()
    out = micrograph(f"gaussian:{resolution:g}", aligned)
    k = cosine_frequency(aligned.shape, PIXEL)
    before = cosine_transform(aligned.dose_weighted)
    passed = (cosine_transform(out) / before).abs()
    near = ((k * resolution - 1).abs() < 0.05) & (before.abs() > 1)
    assert near.sum() >= 4
    expected = torch.exp(-((k * resolution) ** 2))
    torch.testing.assert_close(passed[near], expected[near], rtol=2e-3, atol=0)
    assert float(passed[near].mean()) == pytest.approx(np.exp(-1), abs=0.05)


def test_the_gaussian_is_of_20_angstrom_where_nothing_is_said():
    aligned = aligned_movie()
    assert torch.equal(micrograph("gaussian", aligned), micrograph("gaussian:20", aligned))


@pytest.mark.parametrize("argument", ["0", "-3", "many", "1e400", "nan", "5:5"])
def test_a_resolution_that_is_none_is_refused(argument):
    with pytest.raises(SettingsError, match=f"{argument}.* is no resolution in Å"):
        make_restorer(EnhancementSettings(model=f"gaussian:{argument}"))


def test_the_wiener_filter_suppresses_noise_and_keeps_what_stands_out():
    """Of noise alone next to nothing is left; of a strong signal nearly all, in the sum's units."""
    generator = torch.Generator().manual_seed(1)
    shape = (192, 180)
    noise = torch.randn(shape, generator=generator)
    k = radial_frequency(shape)
    signal = apply_transfer(torch.randn(shape, generator=generator), (k < 0.1).float())
    signal = 3 * signal / signal.std()
    for total, kept in ((noise, 0.05), (noise + signal, 1.0)):
        frames = (1000 + 10 * total)[None].numpy()
        movie = Movie(frames, PIXEL, "here.mrc")
        restorer = make_restorer(EnhancementSettings(model="wiener"))
        out = tiny.restore(restorer, movie, motion=Motion.of_shifts(torch.zeros(1, 2))).micrograph
        assert float(out.mean()) == pytest.approx(1000, abs=1)
        power = float(out.var()) / 100
        if kept < 1:
            assert power < kept
        else:
            assert power == pytest.approx(9.0, rel=0.1)
            error = (out - out.mean()) / 10 - (signal - signal.mean())
            # The signal goes on periodically, so that its edge is not sharp to a filter that takes
            # what is beyond the borders for mirror images.
            assert float(error.square().mean()) < 0.08


def test_a_sum_without_noise_has_no_wiener_filter():
    aligned = aligned_movie(each=None)
    y = torch.linspace(0, 1, 96)[:, None].expand(96, 90)
    aligned.total.copy_(apply_transfer(y, (radial_frequency((96, 90)) < 0.1).float()))
    with pytest.raises(BadInputError, match=r"here\.tif holds no noise"):
        micrograph("wiener", aligned)
