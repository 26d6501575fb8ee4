"""The picker that knows a diameter alone, and the scores of picks."""

import math

import numpy as np
import pytest
import torch

from dstnet.errors import SettingsError
from dstnet.metrics.picking import (
    TOLERANCE,
    average_precision,
    best_threshold,
    f1_score,
    match_picks,
)
from dstnet.picking import pick_blobs

DIAMETER = 24.0
SHAPE = (240, 300)
CENTRES = np.array([[40, 60], [50, 150], [120, 40], [130.5, 200.25], [190, 90], [200, 260]])


def discs(centres, diameter=DIAMETER, shape=SHAPE):
    """Dark discs with edges a pixel wide."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for cy, cx in centres:
        image -= np.clip(diameter / 2 - np.hypot(y - cy, x - cx) + 0.5, 0, 1)
    return torch.from_numpy(image).float()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def found_first(image, diameter=DIAMETER, count=6):
    """The surest picks, in the order of their rows."""
    picks = pick_blobs(image, diameter)
    first = picks.centres_px[:count]
    return first[np.lexsort((first[:, 1], first[:, 0]))]


def test_discs_are_found_where_they_are():
    """To the pixel, which is half a pixel from the centre at most along each axis."""
    assert np.abs(found_first(discs(CENTRES)) - CENTRES).max() <= 0.5


def test_discs_in_noise_are_found_before_anything_else():
    image = discs(CENTRES) + 2 * noise(*SHAPE)
    assert np.abs(found_first(image) - CENTRES).max() < TOLERANCE * DIAMETER


@pytest.mark.parametrize(("scale", "offset"), [(7.0, 0.0), (1e-3, 5.0), (100.0, -3e4)])
def test_units_do_not_matter(scale, offset):
    image = (discs(CENTRES) + noise(*SHAPE)).double()
    expected, found = pick_blobs(image, DIAMETER), pick_blobs(scale * image + offset, DIAMETER)
    assert np.array_equal(found.centres_px, expected.centres_px)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_bright_discs_are_not_particles():
    picks = pick_blobs(-discs(CENTRES) + 0.1 * noise(*SHAPE), DIAMETER)
    first = picks.centres_px[: len(CENTRES)]
    distances = np.hypot(*(first[:, None] - CENTRES[None]).transpose(2, 0, 1))
    assert distances.min() > DIAMETER / 4


def test_a_slope_of_illumination_changes_little():
    slope = torch.linspace(-20, 20, SHAPE[1])[None, :].expand(SHAPE)
    assert np.abs(found_first(discs(CENTRES) + slope) - CENTRES).max() <= 1.5


@pytest.mark.parametrize("step", [2, 3])
def test_large_discs_are_binned_and_come_back_in_pixels_of_the_image(step):
    """A diameter of 30 `step` pixels is binned by `step`: centres are good to a binned pixel."""
    centres = np.array([[101.0, 150.0], [251.0, 380.0]]) * step
    shape = (350 * step + 1, 501 * step)
    image = discs(centres, 30 * step, shape)
    assert np.abs(found_first(image, 30.0 * step, 2) - centres).max() <= step / 2


def test_scores_fall_and_every_pick_lies_where_it_was_looked_for():
    picks = pick_blobs(noise(*SHAPE), DIAMETER)
    assert len(picks) > 20
    assert bool((np.diff(picks.scores) <= 0).all())
    assert bool(picks.searched(picks.centres_px).all())
    assert picks.centres_px.min() > DIAMETER / 2
    assert bool((picks.centres_px < np.array(SHAPE) - DIAMETER / 2).all())


def test_two_picks_are_never_nearer_than_half_the_window():
    """A peak is the largest of a square of 0.7 diameters."""
    centres = pick_blobs(noise(*SHAPE), DIAMETER).centres_px
    apart = np.abs(centres[:, None] - centres[None]).max(-1) + 1e6 * np.eye(len(centres))
    assert apart.min() > 0.7 * DIAMETER / 2 - 1


def test_the_border_is_left_out():
    picks = pick_blobs(discs(CENTRES), DIAMETER)
    inside = picks.searched(np.array([[12.0, 100.0], [12.5, 100.0], [100, 288], [100, 287.5]]))
    assert inside.tolist() == [False, True, False, True]


def test_a_constant_image_holds_nothing():
    assert len(pick_blobs(torch.ones(SHAPE), DIAMETER)) == 0


@pytest.mark.parametrize("diameter", [0.0, 3.9, 121.0, math.nan])
def test_a_diameter_that_does_not_fit_is_refused(diameter):
    with pytest.raises(SettingsError, match="give a diameter from 4 to 120 pixels"):
        pick_blobs(torch.zeros(SHAPE), diameter)


def test_the_image_stays():
    image = discs(CENTRES)
    copy = image.clone()
    pick_blobs(image, DIAMETER)
    assert torch.equal(image, copy)


# --- Scores
# --------------------------------------------------------------------------------------------------


def test_each_centre_is_taken_once_by_the_surest_pick():
    centres = np.array([[0.0, 0.0], [10.0, 0.0]])
    picks = np.array([[1.0, 0.0], [0.0, 0.0], [9.0, 0.0], [30.0, 0.0]])
    assert match_picks(picks, centres, 3.0).tolist() == [True, False, True, False]
    # The second may take the other centre where that is near enough.
    assert match_picks(picks, centres, 11.0).tolist() == [True, True, False, False]


def test_the_tolerance_itself_is_too_far():
    centres = np.array([[0.0, 0.0]])
    assert not match_picks(np.array([[3.0, 4.0]]), centres, 5.0)[0]
    assert match_picks(np.array([[3.0, 3.9]]), centres, 5.0)[0]


def test_average_precision_of_known_picks():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]])
    right = centres + 0.1
    wrong = np.array([[50.0, 50.0]])
    assert average_precision(right, centres, 1.0) == 1
    assert average_precision(np.concatenate((right, wrong)), centres, 1.0) == 1
    # Precisions of 1/2, 2/3 and 3/4 where the centres are found.
    expected = (1 / 2 + 2 / 3 + 3 / 4) / 3
    assert average_precision(np.concatenate((wrong, right)), centres, 1.0) == pytest.approx(
        expected
    )
    assert average_precision(right[:1], centres, 1.0) == pytest.approx(1 / 3)
    assert average_precision(wrong, centres, 1.0) == 0
    assert average_precision(np.empty((0, 2)), centres, 1.0) == 0
    assert math.isnan(average_precision(right, np.empty((0, 2)), 1.0))


def test_random_picks_are_as_precise_as_chance():
    """Each pick is right with the chance that a disc around some centre holds it: the share of
    right ones within five standard errors. Discs that overlap, or reach over the edge, take some
    hundredths off that chance.
    """
    random = np.random.default_rng(0)
    side, tolerance, trials = 1000.0, 10.0, 40
    scores = []
    for _ in range(trials):
        centres = random.uniform(0, side, (100, 2))
        picks = random.uniform(0, side, (50, 2))
        scores.append(match_picks(picks, centres, tolerance).mean())
    chance = 100 * math.pi * tolerance**2 / side**2
    error = math.sqrt(chance / (50 * trials))
    assert np.mean(scores) == pytest.approx(chance, abs=5 * error)


# --- F1
# --------------------------------------------------------------------------------------------------


def test_f1_of_known_picks():
    """Three of four picks right, of five centres: precision 3/4, recall 3/5."""
    scores, hits = np.array([9.0, 7.0, 5.0, 3.0]), np.array([True, True, False, True])
    expected = 2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5)
    assert f1_score(scores, hits, 5, 0.0) == pytest.approx(expected)
    assert f1_score(scores, hits, 5, 7.0) == pytest.approx(2 * 2 / (2 + 5))
    assert f1_score(scores, hits, 5, 10.0) == 0
    assert f1_score(np.empty(0), np.empty(0, bool), 5, 0.0) == 0
    assert f1_score(scores, ~hits & hits, 0, 0.0) == 0
    assert math.isnan(f1_score(np.empty(0), np.empty(0, bool), 0, 0.0))


def test_best_threshold_is_that_of_the_largest_f1():
    random = np.random.default_rng(0)
    for seed in range(5):
        scores = random.integers(0, 12, 40).astype(float)  # some are equal
        hits = random.random(40) < scores / 12
        centres = 25 + seed
        found = f1_score(scores, hits, centres, best_threshold(scores, hits, centres))
        swept = [f1_score(scores, hits, centres, t) for t in np.arange(-0.5, 13)]
        assert found == pytest.approx(max(swept))
    assert best_threshold(np.array([3.0, 2.0]), np.array([False, False]), 4) == math.inf
    assert best_threshold(np.empty(0), np.empty(0, bool), 4) == math.inf
    # Halfway to the next score, of fields whose scores differ a little.
    assert best_threshold(np.array([3.0, 2.0]), np.array([True, False]), 1) == 2.5
