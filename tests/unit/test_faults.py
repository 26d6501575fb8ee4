"""Crops with what happens to people's sums (`dstnet.training.faults`), and variants of shapes."""

import numpy as np
import pytest
import torch

from dstnet.core.fourier import radial_frequency
from dstnet.core.randomness import stream
from dstnet.errors import SettingsError
from dstnet.movie.band import NoiseBand
from dstnet.specimen.species import ProjectionBank
from dstnet.structure import phantom
from dstnet.structure.variants import cut, filament, in_belt, variants
from dstnet.training.crop_conditions import StreamSettings, plan_batch
from dstnet.training.faults import NO_FAULTS, Faults, FaultSettings, draw_faults
from dstnet.training.simulated_crops import simulated_batch

PIXEL = 2.0
SHAPE = (128, 128)


def counts(frames: int = 3) -> torch.Tensor:
    return torch.poisson(torch.full((frames, *SHAPE), 40.0), generator=stream(1, "counts"))


def power_between(image: torch.Tensor, coarse_angstrom: float, fine_angstrom: float) -> float:
    """Mean power of an image's terms, of white noise its variance."""
    k = radial_frequency(SHAPE, PIXEL)
    spectrum = torch.fft.rfft2(image - image.mean(), norm="ortho")
    inside = (k > 1 / coarse_angstrom) & (k < 1 / fine_angstrom)
    return float(spectrum[inside].abs().square().mean())


def species() -> list[ProjectionBank]:
    x = (torch.arange(64.0) - 32) * 2
    patch = 0.3 * torch.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * 14.0**2))
    return [ProjectionBank("blob", 40.0, torch.eye(3)[None], patch[None].half())]


def test_without_faults_nothing_changes():
    assert draw_faults(FaultSettings(), stream(0, "any")) == NO_FAULTS
    given = counts()
    assert NO_FAULTS.limit(NO_FAULTS.add_to(given, PIXEL, stream(0, "any")), PIXEL, 0) is given


def test_coloured_noise_is_added_where_detail_is_coarse():
    given = counts(1)
    faults = Faults(coloured_power=4.0, coloured_angstrom=50.0, coloured_slope=4.0)
    worse = faults.add_to(given, PIXEL, stream(0, "noise"))[0]
    assert power_between(worse, 1000, 100) / power_between(given[0], 1000, 100) > 3
    assert power_between(worse, 10, 4.2) == pytest.approx(power_between(given[0], 10, 4.2), rel=0.1)


@pytest.mark.parametrize("fall", [0.0, 3000.0])
def test_a_limited_crop_is_white_and_its_signal_ends_with_the_band(fall):
    """Whatever the filter, if it is judged rightly."""
    band = NoiseBand(fall, 0.1)
    faults = Faults(band=band, taken_for=band)
    image = faults.limit(counts(1), PIXEL, 5)[0]
    inside = power_between(image, 60, 14)
    assert power_between(image, 8, 4.2) == pytest.approx(inside, rel=0.15)
    signal = torch.randn(SHAPE, generator=stream(2, "signal"))
    left = faults.limit_signal(signal, PIXEL)
    assert power_between(left, 60, 14) == pytest.approx(power_between(signal, 60, 14), rel=0.02)
    assert power_between(left, 9, 4.2) < 1e-2


def test_crops_may_have_faults_and_are_then_learnt_with_what_is_left():
    always = FaultSettings(share=1, limited=1, low_passed=0, pixel_angstrom=(5.0, 5.01))
    ranges = StreamSettings(crop=128, groups=2, single=1.0, empty=0.0, faults=always)
    plan = plan_batch(ranges, species(), 1, 3, 0)[0]
    assert plan.faults.band is not None
    batch = simulated_batch(ranges, species(), batch=1, seed=3, index=0)
    assert batch.frames.shape == (1, 1, 128, 128)  # of one group
    target = batch.targets["micrograph"][0]
    assert power_between(target, 9, 4.2) < 1e-3 * power_between(target, 200, 20)
    plain = ranges.model_copy(update={"faults": FaultSettings()})
    without = simulated_batch(plain, species(), batch=1, seed=3, index=0)
    torch.testing.assert_close(batch.targets["particles"], without.targets["particles"])


def test_windows_of_raw_frames_have_no_faults():
    with pytest.raises(SettingsError, match="leave faults out"):
        StreamSettings.checked({"window": 5, "aligned": False, "faults": {"share": 0.5}}, "test")


def test_variants_are_in_belts_cut_and_strung():
    atoms = phantom(3)
    rng = np.random.default_rng(0)
    belt = in_belt(atoms, rng)
    added = len(belt) - len(atoms)
    assert added > 0.05 * len(atoms) and (belt.elements == 6).sum() >= added
    assert np.abs(belt.positions_angstrom.mean(0)).max() < 0.01
    part = cut(atoms, rng)
    assert 0.2 * len(atoms) < len(part) < 0.9 * len(atoms)
    long = filament(part, rng)
    assert long.diameter_angstrom > 1.3 * part.diameter_angstrom
    names = [one.name.rsplit("-", 1)[1] for one in variants([phantom(i) for i in (1, 3, 5)], 0)]
    assert names == ["belt", "cut", "belt"]
    again = variants([atoms], 0)[0]
    np.testing.assert_array_equal(
        variants([atoms], 0)[0].positions_angstrom, again.positions_angstrom
    )
