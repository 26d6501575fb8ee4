"""Borders: as much noise as elsewhere, and nothing that passes from one to the opposite one."""

import numpy as np
import pytest
import tiny
import torch

from dstnet.alignment import Grouping, accumulate
from dstnet.alignment.coarser_image import has_step_across_borders
from dstnet.enhancement import EnhancementSettings, NetworkRestorer
from dstnet.enhancement.signal_recovery import linear_part
from dstnet.motion import Motion
from dstnet.motion.local_field import local_displacement
from dstnet.motion.warp_border import MARGIN, on_wider_field
from dstnet.movie import Exposure, Movie

SHAPE = (300, 280)


def white(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_movie_with_local_motion_has_the_noise_of_its_middle_at_its_borders():
    count = 8
    frames = (10 + white(count, *SHAPE)).numpy()
    motion = Motion(5 * white(count, 2, seed=1), 1.5 * white(count, 2, 5, seed=2))
    movie = Movie(frames, 1.0, exposure=Exposure.uniform(count, 1.0))
    aligned = accumulate(movie, motion)
    assert aligned.dose_weighted is not None
    for image in (aligned.total, aligned.dose_weighted):
        image = image - image.mean()
        noise = image[60:-60, 60:-60].std()
        for lines in (image[:2], image[-2:], image[:, :2], image[:, -2:]):
            assert float(lines.std() / noise) == pytest.approx(1, abs=0.2)  # 0.8: 3.6
        assert float(image.abs().max() / noise) < 6  # 0.8: 20


def test_motion_is_the_same_on_a_wider_field():
    height, width = 61, 81
    coefficients = white(2, 5).double()
    wider, constant = on_wider_field(coefficients, (height, width))
    found = local_displacement(wider.float(), (height + 2 * MARGIN, width + 2 * MARGIN))
    expected = local_displacement(coefficients.float(), (height, width))
    within = found[:, MARGIN:-MARGIN, MARGIN:-MARGIN] + constant[:, None, None].float()
    torch.testing.assert_close(within, expected, rtol=1e-4, atol=1e-4)


def test_a_dark_border_does_not_ring_at_the_opposite_one_of_coarser_sums():
    frame = white(400, 300)
    dark = frame.clone()
    rows = torch.sigmoid((40 - torch.arange(400.0)) / 3)
    columns = torch.sigmoid((80 - (torch.arange(300.0) - 170).abs()) / 3)
    dark -= 60 * rows[:, None] * columns
    grouping = Grouping(2.0, 1)

    def coarser(image):
        movie = Movie(image[None].numpy(), 1.0)
        aligned = accumulate(movie, torch.zeros(1, 2), groupings=[grouping])
        return aligned.groups[grouping].images[0]

    assert not has_step_across_borders(torch.fft.rfft2(frame), (400, 300))
    assert has_step_across_borders(torch.fft.rfft2(dark), (400, 300))
    # Where there is no step, noise goes on from the opposite border, and a little of it into the
    # outermost pixels.
    change = (coarser(dark) - coarser(frame))[-40:-2, 8:-8]
    assert float(change.abs().max()) < 0.3  # 0.8: 1.5


def test_what_is_given_back_at_a_dark_edge_stays_there():
    k = torch.hypot(torch.fft.fftfreq(512, 2.0)[:, None], torch.fft.rfftfreq(512, 2.0))
    band = ((k > 1 / 120) & (k < 1 / 30)).float()
    total = white(512, 512) + 4 * torch.fft.irfft2(torch.fft.rfft2(white(512, 512, seed=1)) * band)
    dark = total.clone()
    dark[:100] -= 1
    before, after = (linear_part(image, torch.zeros_like(image), 2.0) for image in (total, dark))
    change = (after - before)[-20:] / before.std()
    assert abs(float(change.mean())) < 0.02  # 0.8: 0.11
    # What is left is that rings with the step in them are given back more of, everywhere.
    assert float(change.square().mean().sqrt()) < 0.08  # 0.8: 0.30


@pytest.mark.parametrize("depth", [3.0, 60.0])
def test_a_disc_at_one_edge_changes_nothing_far_from_it(model, depth):
    y, x = np.mgrid[:640, :600]
    frame = 100 + 3 * white(640, 600).numpy()
    for cy, cx in np.random.default_rng(0).uniform(0, 600, (60, 2)):
        frame -= 2 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 2 / 12**2)
    distance = np.hypot(y - 40, x - 300) - 130
    restorer = NetworkRestorer(EnhancementSettings(model=str(model), ctf=False))

    def enhanced(image):
        movie = Movie(image[None].astype(np.float32), 2.0, "here.mrc")
        restored = tiny.restore(restorer, movie, motion=Motion.of_shifts(torch.zeros(1, 2)))
        return restored.micrograph.numpy(), restored.notes

    before, notes = enhanced(frame)
    after, notes_of_dark = enhanced(frame - 3 * depth * (distance < 0))
    assert not any("darker than particles" in note for note in notes)
    assert any("darker than particles" in note for note in notes_of_dark)
    change = (after - before)[distance > 200] / before.std()
    assert float(np.sqrt((change**2).mean())) < 0.05
    free = after[distance > 20]
    assert 0.5 < (free.mean() - after[40, 300]) / free.std() < 1.5, "a shadow of it is shown"
