"""Counts are Poisson at any rate, and depend on the seed and the pixel alone."""

import importlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from dstnet.core.randomness import stream
from dstnet.detector.poisson import poisson


def chi_square(counts: np.ndarray, rate: float) -> float:
    """Chance of counts as far from the Poisson distribution; classes at either end are joined until
    10 are expected.
    """
    n = counts.size
    observed = np.bincount(counts.astype(np.int64))
    expected = n * stats.poisson.pmf(np.arange(len(observed)), rate)
    first = int(np.argmax(np.cumsum(expected) >= 10))
    last = (
        len(expected)
        - 1
        - int(
            np.argmax(
                np.cumsum(expected[::-1]) + n * stats.poisson.sf(len(expected) - 1, rate) >= 10
            )
        )
    )
    o = np.array([observed[: first + 1].sum(), *observed[first + 1 : last], observed[last:].sum()])
    e = np.array(
        [
            expected[: first + 1].sum(),
            *expected[first + 1 : last],
            n * stats.poisson.sf(last - 1, rate),
        ]
    )
    return float(stats.chi2.sf((np.square(o - e) / e).sum(), len(o) - 1))


RATES = [0.01, 0.3, 1.0, 5.0, 15.0, 23.9, 24.1, 60.0, 1000.0]  # 24: where rejection takes over


@pytest.mark.parametrize("rate", RATES)
def test_counts_are_poisson(rate):
    """A million counts a seed: five standard errors of a normal, as a chance, is 6e-7."""
    for seed in (1, 2):
        counts = poisson(torch.full((1000, 1000), rate), stream(seed, "chi", rate)).numpy()
        assert chi_square(counts.ravel(), rate) > 6e-7
        assert abs(counts.mean(dtype=np.float64) - rate) < 5 * math.sqrt(rate / counts.size)
    # A tail of 1e-4 of these: its number, itself Poisson
    top = int(stats.poisson.isf(1e-4, rate))
    expected = counts.size * float(stats.poisson.sf(top, rate))
    assert abs(int((counts > top).sum()) - expected) < 5 * math.sqrt(expected) + 3


def test_the_chi_square_can_fail():
    """It tells one in two hundred counts gone astray."""
    counts = poisson(torch.full((1000, 1000), 1.0), stream(1)).numpy().ravel()
    assert chi_square(counts, 1.0) > 6e-7
    counts[::200] += 1
    assert chi_square(counts, 1.0) < 6e-7


def test_rates_may_differ_from_pixel_to_pixel():
    """Of rates 0 to 40, in and out of one block: (count - rate) / sqrt(rate) has mean 0 and
    variance 1 in each of ten classes.
    """
    rate = torch.rand(1 << 20, generator=stream(4)) * 40
    counts = poisson(rate, stream(5))
    z = ((counts - rate) / rate.clamp(min=1e-9).sqrt()).double()
    for low in range(0, 40, 4):
        part = z[(rate >= max(low, 0.01)) & (rate < low + 4)]
        n = part.numel()
        assert abs(float(part.mean())) < 5 / math.sqrt(n)
        # fourth moment of z: 3 + 1/rate, whose mean over the class is log(high / low) / 4 at most
        fourth = 2 + math.log((low + 4) / max(low, 0.01)) / 4
        assert abs(float(part.var()) - 1) < 5 * math.sqrt(fourth / n)
    smooth = torch.linspace(0, 2, 1 << 20)
    assert abs(float((poisson(smooth, stream(6)) - smooth).double().mean())) < 5 * math.sqrt(
        1 / (1 << 20)
    )


def test_neighbours_and_seeds_are_independent():
    """Correlations of a million unrelated pairs lie within 5 / 1000: with near and far pixels, with
    the next block, with other seeds.
    """
    a = poisson(torch.full((1024, 1024), 0.5), stream(1)).flatten() - 0.5
    n = a.numel()
    for lag in (1, 2, 3, 4, 16, 64, 1023, 1024, 1025, 2048, 65536):
        assert abs(float((a[lag:] * a[:-lag]).double().mean())) / 0.5 < 5 / math.sqrt(n - lag)
    for seed in (2, 3, 1 << 40):
        b = poisson(torch.full((1024, 1024), 0.5), stream(seed)).flatten() - 0.5
        assert abs(float((a * b).double().mean())) / 0.5 < 5 / math.sqrt(n)
    # White in every direction: the largest of n / 2 exponentially distributed powers passes log(n /
    # 2) + 15 once in 3 million.
    power = torch.fft.rfft2(a.reshape(1024, 1024)).abs().square().flatten()[1:] / (0.5 * n)
    assert float(power.max()) < math.log(n / 2) + 15
    # No place in a block or row is preferred.
    for means in (a.reshape(-1, 1024).mean(0), a.reshape(-1, 1024).mean(1)):
        assert float(means.abs().max()) < 6 * math.sqrt(0.5 / 1024)


def test_consecutive_draws_differ():
    random = stream(1)
    rate = torch.full((64, 64), 3.0)
    assert not torch.equal(poisson(rate, random), poisson(rate, random))


@pytest.mark.parametrize("rate", [1.0, 60.0])
def test_counts_do_not_depend_on_threads(rate):
    rates = torch.full((1024, 1040), rate)
    threads = torch.get_num_threads()
    try:
        drawn = []
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            drawn.append(poisson(rates, stream(9)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])


def test_a_pixels_count_depends_on_no_other_pixels_rate():
    rates = torch.full((5000,), 1.0)
    others = rates.clone()
    others[1::2] = 1.5
    assert torch.equal(poisson(rates, stream(1))[::2], poisson(others, stream(1))[::2])


@pytest.mark.parametrize("rate", [1e5, 1e7])
def test_high_rates(rate):
    counts = poisson(torch.full((300, 300), rate), stream(1)).double()
    n = counts.numel()
    assert abs(float(counts.mean()) - rate) < 5 * math.sqrt(rate / n)
    assert abs(float(counts.var()) / rate - 1) < 5 * math.sqrt(2 / n)


def test_odd_rates():
    rates = torch.tensor([0.0, -3.0, math.nan, 1e-30, math.inf, 3e7])
    counts = poisson(rates, stream(1))
    assert counts[:4].tolist() == [0, 0, 0, 0]
    assert bool(((counts[4:] / 2**24 - 1).abs() < 6 / 2**12).all())  # capped
    assert not poisson(torch.zeros(3000), stream(1)).any()
    for shape in ((), (0,), (0, 4), (3, 5, 7)):
        assert poisson(torch.ones(shape), stream(1)).shape == shape
    strided = torch.arange(6000.0).reshape(60, 100)
    assert torch.equal(poisson(strided.T, stream(1)), poisson(strided.T.contiguous(), stream(1)))
    assert torch.equal(poisson(strided.double(), stream(1)), poisson(strided, stream(1)))


def test_the_compiler_is_loaded_late():
    """It takes half a second, which no command that simulates nothing should wait for."""
    code = "import sys, dstnet.detector.camera; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_sampler_works_where_compiled_code_cannot_be_kept(monkeypatch):
    from numba.core import caching

    from dstnet.detector import _poisson_kernel as kernel

    rates = torch.full((3000,), 2.0)
    kept = poisson(rates, stream(1))
    monkeypatch.setattr(caching.FunctionCache._impl_class, "_locator_classes", [])
    importlib.reload(kernel)
    assert torch.equal(poisson(rates, stream(1)), kept)
    monkeypatch.undo()
    importlib.reload(kernel)
