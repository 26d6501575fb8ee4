"""Windows of raw frames: which frames the network sees, where enhanced frames lie, and what becomes
of them.
"""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from dstnet.alignment import half_movie
from dstnet.enhancement import (
    EnhancementSettings,
    NetworkRestorer,
    WindowRestorer,
    make_restorer,
)
from dstnet.enhancement.signal_recovery import filled
from dstnet.errors import BadInputError, SettingsError
from dstnet.motion import Motion
from dstnet.movie import Exposure, Movie
from dstnet.network.blocks import MovieNetwork
from dstnet.network.weights import save_weights

SHARE = 0.25  # of the frame, that the network below gives as the enhanced one
PIXEL = 2.0  # the working pixel: nothing is resampled


class Fake(MovieNetwork):
    """Gives a share of the frame to enhance, and remembers what it was given."""

    stride = 4
    outputs = ("micrograph", "contrast", "uncertainty")

    def __init__(self):
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, frames, total, exposure):
        self.seen.append((frames[0].clone(), total[0].clone(), exposure[0].clone()))
        return torch.stack((SHARE * total, -2 * total, total), 1)


@pytest.fixture
def weights(tmp_path) -> Path:
    """A tiny network's weights with the card of a window of five."""
    network = tiny.make_network()
    card = tiny.make_card(network, window=5, valid_exposure_e_per_a2=(0.5, 5.0))
    save_weights(network, card, tmp_path / "window.safetensors")
    return tmp_path / "window.safetensors"


def restorer(weights: Path, **changes) -> WindowRestorer:
    values = {
        "model": str(weights),
        "evidence": False,
        "sharpen": False,
        "engine": "eager",
        "half_precision": False,
        "alignment": {"patches": 0},
        **changes,
    }
    made = WindowRestorer(EnhancementSettings.checked(values, "test"))
    made.trained.network = Fake()
    return made


def still(count: int) -> Motion:
    return Motion.of_shifts(torch.zeros(count, 2))


def movie(count: int, **changes) -> Movie:
    return Movie(tiny.make_frames(count), PIXEL, "here.tif", **changes)


def test_a_window_slides_and_is_cut_short_at_the_ends(weights):
    for count, sizes in ((1, [1]), (2, [2, 2]), (3, [3, 3, 3]), (7, [3, 4, 5, 5, 5, 4, 3])):
        made, shown = restorer(weights), movie(count)
        out = tiny.restore(made, shown, "frames", motion=still(count))
        assert [len(frames) for frames, _, _ in made.trained.network.seen] == sizes
        assert out.frames.shape == (count, 96, 80)
        assert out.micrograph.shape == (96, 80)
    for here, (frames, middle, _) in enumerate(made.trained.network.seen):
        raw = torch.from_numpy(shown.frames[max(0, here - 2) : here + 3].astype(np.float32))
        for given, frame in zip(frames, raw, strict=True):
            assert np.corrcoef(given.flatten(), frame.flatten())[0, 1] == pytest.approx(1, abs=1e-5)
        assert torch.equal(middle, frames[min(here, 2)]), (
            "the frame to enhance is that in the middle"
        )
    repeated = [
        f
        for frames, _, _ in made.trained.network.seen
        for i, f in enumerate(frames)
        if any(torch.equal(f, g) for g in frames[:i])
    ]
    assert not repeated


def test_a_frame_is_enhanced_where_it_lies_and_in_its_own_units(weights):
    shown = movie(4)
    frames = tiny.restore(restorer(weights), shown, "frames", motion=still(4)).frames
    for given, raw in zip(frames, shown.stack(), strict=True):
        torch.testing.assert_close(
            given, raw.mean() + SHARE * (raw - raw.mean()), rtol=1e-4, atol=1e-3
        )
    for one, given in zip(restorer(weights).enhanced_frames(shown), frames, strict=True):
        torch.testing.assert_close(one, given, rtol=1e-5, atol=1e-4)


def test_the_micrograph_is_the_sum_of_the_frames_moved_back(weights):
    shifts = torch.tensor([[-4.0, 2.0], [0.0, 0.0], [4.0, -2.0]])
    field = tiny.make_frames(1, (96, 80), seed=5)[0]
    frames = np.stack(
        [np.roll(field, (round(y), round(x)), (0, 1)) for y, x in (shifts / PIXEL).tolist()]
    )
    frames = frames + np.random.default_rng(0).integers(
        0, 3, frames.shape
    )  # repeated frames are no movie
    shown, motion = Movie(frames, PIXEL), Motion.of_shifts(shifts)
    made = restorer(weights)
    aligned = tiny.align_for(made, shown, motion)
    out = made(aligned, outputs=("micrograph", "contrast", "frames"))
    inside = (slice(4, -4), slice(4, -4))
    moved_back = sum(
        torch.roll(f, (-round(y), -round(x)), (0, 1))
        for f, (y, x) in zip(out.frames, ((shifts - shifts[0]) / PIXEL).tolist(), strict=True)
    )
    # Apart from the mean: what the plain sum continues at its borders changes its.
    offset = (out.micrograph - moved_back)[inside].mean()
    assert abs(float(offset)) < 1e-3 * float(out.micrograph.mean())
    torch.testing.assert_close(
        out.micrograph[inside], (moved_back + offset)[inside], rtol=1e-4, atol=1e-2
    )
    total = aligned.total
    torch.testing.assert_close(
        out.micrograph[inside],
        (total.mean() + SHARE * (total - total.mean()))[inside],
        rtol=1e-3,
        atol=0.1,
    )
    torch.testing.assert_close(
        out.images["contrast"] - total.mean(),
        -2 / SHARE * (out.micrograph - total.mean()),
        rtol=1e-3,
        atol=1e-2,
    )


def test_only_what_is_asked_for_is_given(weights):
    assert set(tiny.restore(restorer(weights), movie(3)).images) == {"micrograph"}
    out = tiny.restore(restorer(weights), movie(3), "contrast")
    assert set(out.images) == {"micrograph", "contrast"}


def test_fading_is_shared_out_to_the_frames(weights):
    shown = movie(4)
    plain, faded = (
        tiny.restore(restorer(weights, evidence=e), shown, "frames", motion=still(4))
        for e in (False, True)
    )
    added = faded.micrograph - plain.micrograph
    assert float(added.std()) > 0.01 * float(plain.micrograph.std()), (
        "most of the signal was left: something is added"
    )
    torch.testing.assert_close(faded.micrograph, faded.frames.sum(0), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(
        faded.frames - plain.frames, (added / 4).expand(4, -1, -1), rtol=1e-3, atol=1e-3
    )


def test_the_network_is_told_each_frames_exposure(weights):
    made = restorer(weights)
    shown = movie(6, exposure=Exposure.uniform(6, 2.0, pre_exposure_e_per_a2=3.0))
    tiny.restore(made, shown, motion=still(6))
    _, _, exposure = made.trained.network.seen[3]  # frames 1 to 5
    torch.testing.assert_close(exposure[:, 2] * 50, 3 + 2 * (torch.arange(1.0, 6.0) + 0.5))
    torch.testing.assert_close(exposure[:, 1], torch.full((5,), float(np.log(2) / 3)))
    assert (exposure[:, 0] == 1).all()
    unknown = restorer(weights)
    tiny.restore(unknown, movie(2), motion=still(2))
    assert not unknown.trained.network.seen[0][2].any()


class Counted:
    """Frames that count how often each is read."""

    def __init__(self, frames: np.ndarray):
        self.frames, self.shape, self.read = frames, frames.shape, []

    def __getitem__(self, index: int, /) -> np.ndarray:
        self.read.append(index)
        return self.frames[index]


def test_frames_come_one_at_a_time_and_are_read_no_earlier_than_needed(weights):
    frames = Counted(tiny.make_frames(20, (48, 40)))
    stream = restorer(weights).enhanced_frames(Movie(frames, PIXEL))
    next(stream)
    assert max(frames.read) == 2
    next(stream)
    assert max(frames.read) == 3
    assert sum(1 for _ in stream) == 18
    assert frames.read == [0, *range(20)], "the first once more, for the grid"


def test_halves_are_enhanced_from_their_own_frames(weights):
    made = restorer(weights)
    aligned = tiny.align_for(made, movie(5), still(5))
    out, even, odd = (made(one) for one in (aligned, *(half_movie(aligned, i) for i in (0, 1))))
    seen = [len(frames) for frames, _, _ in made.trained.network.seen]
    assert seen == [3, 4, 5, 4, 3, 3, 3, 3, 2, 2]
    total = out.micrograph - out.micrograph.mean()
    for half in (even, odd):
        assert half.micrograph.shape == (96, 80)
    both = even.micrograph + odd.micrograph
    torch.testing.assert_close(both - both.mean(), total, rtol=1e-3, atol=1e-2)


def test_bad_frames_are_named(weights):
    frames = tiny.make_frames(4).astype(np.float32)
    frames[2] = 7.0
    with pytest.raises(BadInputError, match=r"frame 3 of here\.tif is constant"):
        list(restorer(weights).enhanced_frames(Movie(frames, PIXEL, "here.tif")))
    made = restorer(weights)
    made.trained.network.forward = lambda frames, total, exposure: torch.full(
        (1, 3, *total.shape[1:]), float("nan")
    )  # pyright: ignore
    with pytest.raises(BadInputError, match=r"here\.tif: .* not finite for frame 1"):
        tiny.restore(made, movie(3), motion=still(3))


def test_no_uncertainty_of_a_sum_whose_parts_err_together(weights):
    made = restorer(weights)
    assert "uncertainty" not in made.outputs
    with pytest.raises(SettingsError, match="tiny gives no uncertainty"):
        tiny.restore(made, movie(2), "uncertainty")


def test_exposures_of_frames_are_judged(weights):
    made = restorer(weights)

    def notes(count: int, each: float | None, pixel: float = PIXEL) -> tuple[str, ...]:
        exposure = None if each is None else Exposure.uniform(count, each)
        shown = Movie(tiny.make_frames(count), pixel, exposure=exposure)
        return tiny.restore(made, shown, motion=still(count)).notes

    assert notes(4, 1.2) == ()
    (note,) = notes(2, 0.02)
    assert note.startswith("exposure 0.02 e-/Å2 of a frame is outside the 0.5-5.0")
    (note,) = notes(2, None)
    assert "not known" in note
    (note,) = notes(1, 1.0, pixel=3.0)
    assert "pixel size" in note


def test_weights_go_with_the_restorer_they_were_trained_for(weights, model):
    assert type(make_restorer(EnhancementSettings(model=str(weights)))) is WindowRestorer
    assert type(make_restorer(EnhancementSettings(model=str(model)))) is NetworkRestorer
    with pytest.raises(SettingsError, match="window"):
        NetworkRestorer(EnhancementSettings(model=str(weights)))
    with pytest.raises(SettingsError, match="complete movies"):
        WindowRestorer(EnhancementSettings(model=str(model)))
    with pytest.raises(SettingsError, match="leave out --groups"):
        WindowRestorer(EnhancementSettings(model=str(weights), groups=3))


def test_real_layers_run(weights):
    """The tiny network itself, in tiles, at a finer pixel than the working one."""
    settings = EnhancementSettings.checked(
        {"model": str(weights), "tile": 128, "overlap": 16}, "test"
    )
    exposure = Exposure.uniform(3, 1.0)
    shown = Movie(tiny.make_frames(3, (192, 160)), 1.0, exposure=exposure)
    made = WindowRestorer(settings)
    out = tiny.restore(made, shown, "frames", "contrast", motion=still(3))
    assert out.micrograph.shape == (192, 160)
    assert out.frames.shape == (3, 192, 160)
    assert torch.isfinite(out.micrograph).all() and torch.isfinite(out.frames).all()


def test_where_particles_are_is_the_frames_mean_whatever_their_noise(weights):
    """Not a sum in the units of counts, as images are: dark domes between 0 and -1, as of whole
    movies.
    """
    settings = {"model": str(weights), "evidence": False, "sharpen": False}
    made = WindowRestorer(EnhancementSettings.checked(settings, "test"))
    one, four = (
        tiny.restore(made, movie(n), "particles", motion=still(n)).images["particles"]
        for n in (1, 4)
    )
    for found in (one, four):
        assert found.shape == movie(1).shape
        assert -1 <= float(found.min()) < float(found.max()) <= 0
    assert four.mean() == pytest.approx(float(one.mean()), rel=0.3)


def test_the_contrast_is_filled_by_the_frames_mean_particles(weights):
    settings = {
        "model": str(weights),
        "evidence": False,
        "sharpen": False,
        "half_precision": False,
        "alignment": {"patches": 0},
    }
    plain, full = (
        WindowRestorer(EnhancementSettings.checked({**settings, "fill": fill}, "test"))
        for fill in (False, True)
    )
    shown = movie(4)
    estimate = tiny.restore(plain, shown, "contrast", "particles", motion=still(4)).images
    found = tiny.restore(full, shown, "contrast", motion=still(4)).images
    assert "particles" not in found, "not asked for"
    mean = shown.stack().sum(0).mean()
    expected = filled(estimate["contrast"] - mean, -estimate["particles"], PIXEL)
    torch.testing.assert_close(
        found["contrast"] - mean, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
    )
    assert not torch.allclose(found["contrast"], estimate["contrast"], rtol=1e-4)
