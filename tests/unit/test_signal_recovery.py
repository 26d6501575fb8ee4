"""The trusted linear part: nothing on noise, the filtered image where the network gave nothing, its
own output where it gave all.

And the contrast that is filled by where particles are, and sharpened for pickers.
"""

import pytest
import tiny
import torch

from dstnet.core.fourier import radial_frequency
from dstnet.core.randomness import stream
from dstnet.enhancement import EnhancementSettings, NetworkRestorer
from dstnet.enhancement.signal_recovery import (
    AROUND_DOMES,
    filled,
    linear_part,
    sharpened,
    sharpened_domes,
)
from dstnet.movie import Exposure, Movie
from dstnet.picking import pick_blobs

SHAPE = (384, 360)


def noise(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=stream(seed, "noise"))


def signal(rms: float) -> torch.Tensor:
    """Detail between 100 and 20 Å at 2 Å/px."""
    k = radial_frequency(SHAPE, 2.0)
    band = torch.fft.irfft2(torch.fft.rfft2(noise(99)) * ((k > 1 / 100) & (k < 1 / 20)), s=SHAPE)
    return band * (rms / band.std())


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_pure_noise_adds_next_to_nothing():
    # One of 120 rings may pass the significance by chance; it holds below 1 % of the power, and its
    # transfer is below 0.1 squared.
    for seed in range(5):
        added = linear_part(noise(seed), torch.zeros(SHAPE), 2.0)
        assert float(added.square().mean()) < 1e-3


def test_what_the_network_gave_nothing_of_is_shown_filtered():
    truth = signal(0.3)
    total = truth + noise(0)
    added = linear_part(total, torch.zeros(SHAPE), 2.0)
    assert correlation(added, truth) > correlation(total, truth) + 0.2
    # a power of 0.09 in the 2 % of terms that the band holds is a signal-to-noise ratio of about 4
    # there: the filter keeps 0.8 of it
    assert 0.65 < float((added * truth).sum() / truth.square().sum()) < 0.95


def test_what_the_network_made_up_goes_where_it_explains_nothing():
    truth, invented = signal(0.3), 0.01 * noise(7)
    total = truth + noise(0)
    faded = invented + linear_part(total, invented, 2.0)
    linear = linear_part(total, torch.zeros(SHAPE), 2.0)
    assert correlation(faded, linear) > 0.99


def test_what_is_known_to_be_a_whole_movie_is_not_faded():
    total, own = signal(0.3) + noise(0), 0.01 * noise(7)
    beyond = radial_frequency(SHAPE, 2.0) > 1 / 15  # where nothing is given back

    def kept(exposure: float | None) -> float:
        """The part of the network's own fine detail that the result shows."""
        shown = torch.fft.rfft2(own + linear_part(total, own, 2.0, exposure))[beyond]
        before = torch.fft.rfft2(own)[beyond]
        return float((shown * before.conj()).real.sum() / before.abs().square().sum())

    assert kept(None) < 0.3 and kept(20.0) == kept(None)
    assert kept(30.0) == pytest.approx(1.0, abs=1e-3)


def test_everything_lies_where_the_images_do():
    """What is left to torch's default, here a device that holds no numbers, cannot be used."""
    total, own = signal(0.3) + noise(0), 0.01 * noise(7)
    ring, dome = ring_and_dome()
    expected = linear_part(total, own, 2.0), filled(ring, dome, 2.0)
    with torch.device("meta"):
        found = linear_part(total, own, 2.0), filled(ring, dome, 2.0)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert found[0].any() and found[1].any()


@pytest.mark.parametrize(("each", "whole"), [(None, None), (1.5, 1.5 * 4)])
def test_the_restorer_says_what_exposure_it_is(model, monkeypatch, each, whole):
    asked = []

    def record(total, enhanced, pixel, exposure, **others):
        asked.append(exposure)
        return torch.zeros_like(enhanced)

    monkeypatch.setattr("dstnet.enhancement.finishing.linear_part", record)
    exposure = None if each is None else Exposure.uniform(4, each)
    movie = Movie(tiny.make_frames(4), 2.0, "here.tif", exposure=exposure)
    tiny.restore(NetworkRestorer(EnhancementSettings(model=str(model))), movie)
    assert asked == [whole]


@pytest.mark.parametrize(("scale", "said"), [(0.0, False), (1.0, True)])
def test_a_micrograph_that_is_mostly_the_filtered_sum_is_called_so(model, monkeypatch, scale, said):
    monkeypatch.setattr(
        "dstnet.enhancement.finishing.linear_part", lambda total, *others, **more: scale * total
    )
    restorer = NetworkRestorer(EnhancementSettings(model=str(model)))
    notes = tiny.restore(restorer, Movie(tiny.make_frames(4), 2.0, "here.tif")).notes
    assert (
        any("most of the enhanced micrograph is the filtered sum" in note for note in notes) is said
    )


def test_an_output_that_explains_the_signal_stays_as_it_is():
    truth = signal(0.3)
    assert float(linear_part(truth + noise(0), truth, 2.0).square().mean()) < 1e-4 * float(
        truth.square().mean()
    )


def test_the_share_left_governs_how_far_it_fades():
    truth = signal(0.3)
    total = truth + noise(0)
    powers = [
        float(linear_part(total, given * truth, 2.0).square().mean())
        for given in (0.0, 0.3, 0.6, 0.9)
    ]
    assert powers == sorted(powers, reverse=True) and powers[0] > 10 * powers[3]


def test_slow_gradients_alone_are_no_signal_and_arguments_stay_as_they_are():
    ramp = 3 * torch.cos(2 * torch.pi * torch.arange(SHAPE[0]) / SHAPE[0])[:, None].expand(
        SHAPE
    )  # period 768 Å
    total, enhanced = noise(0) + ramp, torch.zeros(SHAPE)
    before = total.clone()
    assert float((linear_part(total, enhanced, 2.0) * ramp).mean()) < 1e-3 * float(
        ramp.square().mean()
    )
    assert torch.equal(total, before) and not enhanced.any()


def test_what_the_network_is_blind_to_is_given_back_and_the_rest_left():
    """Two bands, of which the network sees one, perfectly: the other comes back, filtered, and the
    seen one stays.
    """
    k = radial_frequency(SHAPE, 2.0)
    seen, blind = (
        torch.fft.irfft2(torch.fft.rfft2(noise(98)) * ((k > low) & (k < high)), s=SHAPE)
        for low, high in ((1 / 30, 1 / 20), (1 / 120, 1 / 70))
    )
    seen, blind = 1.5 * seen / seen.std(), 0.2 * blind / blind.std()
    added = linear_part(seen + blind + noise(0), seen, 2.0)
    assert correlation(added, blind) > 0.8
    assert 0.6 < float((added * blind).sum() / blind.square().sum()) < 1
    assert abs(float((added * seen).sum() / seen.square().sum())) < 0.02


@pytest.mark.parametrize(
    ("coarsest", "finest", "least", "most"),
    [(700.0, 200.0, -0.1, 0.1), (24.0, 12.0, -0.02, 0.02), (50.0, 26.0, 0.08, 0.2)],
)
def test_gradients_and_water_are_not_given_back_but_a_fifth_of_what_is_faint(
    coarsest, finest, least, most
):
    k = radial_frequency(SHAPE, 2.0)
    seen = signal(1.0)
    other = torch.fft.irfft2(
        torch.fft.rfft2(noise(97)) * ((k > 1 / coarsest) & (k < 1 / finest)), s=SHAPE
    )
    other = 0.3 * other / other.std()
    added = linear_part(seen + other + noise(0), seen, 2.0)
    assert least < float((added * other).sum() / other.square().sum()) < most


def ring_and_dome() -> tuple[torch.Tensor, torch.Tensor]:
    """A hollow particle of 60 Å radius at 2 Å/px: its contrast a dark ring, and where it is."""
    y, x = (
        torch.arange(n)[:, None] - n // 2 if i == 0 else torch.arange(n) - n // 2
        for i, n in enumerate(SHAPE)
    )
    radius = 2 * torch.hypot(y.float(), x.float())
    return -((radius > 40) & (radius < 60)).float(), (1 - radius / 60).clamp(min=0)


def test_a_hollow_particle_is_filled_and_keeps_its_detail():
    ring, dome = ring_and_dome()
    contrast = filled(ring, dome, 2.0)
    k = radial_frequency(SHAPE, 2.0)
    fine = (k > 1 / 25).float()

    def detail(image: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(image) * fine, s=SHAPE)

    centre = (SHAPE[0] // 2, SHAPE[1] // 2)
    assert contrast[centre] < 0.3 * contrast.min() < 0, "its middle is dark now"
    assert ring[centre] == 0
    assert correlation(detail(contrast), detail(ring)) > 0.99
    torch.testing.assert_close(filled(3 * ring, dome, 2.0), 3 * contrast, rtol=1e-4, atol=1e-5)


def test_where_particles_do_not_fit_the_contrast_it_is_not_turned_over():
    ring, dome = ring_and_dome()
    bright = filled(
        -ring, dome, 2.0
    )  # protein is dark; a bright one would call for a negative dome
    k = radial_frequency(SHAPE, 2.0)
    coarse = torch.exp(-0.5 * (40 * k) ** 2)
    assert float(
        (torch.fft.irfft2(torch.fft.rfft2(bright) * coarse, s=SHAPE) * dome).sum()
    ) < 0.3 * float((-ring * dome).sum())
    assert not filled(torch.zeros(SHAPE), torch.zeros(SHAPE), 2.0).any()


def test_of_a_binned_sum_what_is_left_of_large_particles_is_given_back_too():
    k = radial_frequency(SHAPE, 2.0)
    coarse = torch.fft.irfft2(torch.fft.rfft2(noise(5)) * ((k > 1 / 350) & (k < 1 / 170)), s=SHAPE)
    coarse *= 0.5 / coarse.std()
    total = coarse + noise(0)
    passed = 0.6 * coarse  # what a network that doubts gives
    as_ever = passed + linear_part(total, passed, 2.0, 50.0)
    of_binned = passed + linear_part(total, passed, 2.0, 50.0, band_filled=True)
    power = coarse.square().sum()
    assert float((as_ever * coarse).sum() / power) < 0.7
    assert float((of_binned * coarse).sum() / power) > 0.9


def test_touching_and_faint_particles_are_parted_for_pickers():
    """Two of 120 Å that overlap, and one of a third of its neighbour's strength."""
    assert found([(0, -19, 1.0), (0, 19, 1.0)], sharpen=False) == 0, "one pick between the two"
    assert found([(0, -19, 1.0), (0, 19, 1.0)], sharpen=True) == 2
    assert found([(0, 0, 1.0), (0, 48, 0.35)], sharpen=False) == 1, "hidden by the ring around it"
    assert found([(0, 0, 1.0), (0, 48, 0.35)], sharpen=True) == 2


def found(particles: list[tuple[int, int, float]], *, sharpen: bool) -> int:
    """How many of some domes, by their rows, columns and heights, a picker finds."""
    y = torch.arange(SHAPE[0])[:, None] - SHAPE[0] // 2
    x = torch.arange(SHAPE[1]) - SHAPE[1] // 2
    domes = torch.zeros(SHAPE)
    for row, column, height in particles:
        away = 2 * torch.hypot((y - row).float(), (x - column).float())
        domes = domes.maximum(height * (1 - away / 60).clamp(min=0))
    if sharpen:
        domes = sharpened_domes(domes, 2.0)
        assert float(domes.min()) >= 0 and float(domes.max()) <= 1
        assert float(domes[5, 5]) == pytest.approx(AROUND_DOMES, abs=1e-3)
    picks = torch.as_tensor(pick_blobs(-domes.double(), 60.0).centres_px.copy())
    middle = torch.tensor([SHAPE[0] // 2, SHAPE[1] // 2])
    centres = torch.tensor([particle[:2] for particle in particles]).double() + middle
    return int((torch.cdist(centres, picks).min(1).values < 8).sum())


def test_sharpening_leaves_fine_detail_and_takes_coarse():
    k = radial_frequency(SHAPE, 2.0)
    white = torch.fft.rfft2(noise(3))
    fine = torch.fft.irfft2(white * (k > 1 / 30), s=SHAPE)
    coarse = torch.fft.irfft2(white * ((k < 1 / 400) & (k > 0)), s=SHAPE)
    assert correlation(sharpened(fine, 2.0), fine) > 0.999
    assert float(sharpened(coarse, 2.0).norm() / coarse.norm()) < 0.25
