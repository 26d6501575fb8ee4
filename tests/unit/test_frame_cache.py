"""Frames held in memory come out as they were read, and are read once."""

import numpy as np
import pytest
import torch

from dstnet.correction.corrections import CorrectedFrames
from dstnet.movie import Movie
from dstnet.movie.frame_cache import FrameCache


class Counted:
    """A stack that counts how often each frame is read."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames, self.shape, self.reads = frames, frames.shape, [0] * len(frames)

    def __getitem__(self, index: int, /) -> np.ndarray:
        self.reads[index] += 1
        return self.frames[index]


def counts(kind, high=4, shape=(3, 33, 41)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(kind)


def with_hot(frames: np.ndarray, value: int) -> np.ndarray:
    frames[:, 5, 7] = value
    frames[1, 30, 40] = value
    return frames


def test_what_is_forgotten_is_read_again_and_held_again():
    source = Counted(counts("u1"))
    corrected = CorrectedFrames(FrameCache(source), range(3), None, None, None)
    movie = Movie(corrected, 1.0)
    first = [movie.frame(i) for i in range(3)]
    movie.forget()
    for _ in range(2):
        assert all(torch.equal(movie.frame(i), first[i]) for i in range(3))
    assert source.reads == [2, 2, 2]
    Movie(np.ones((1, 2, 2)), 1.0).forget()  # holds nothing


CASES = {
    "bytes": counts("u1"),
    "a full nibble": counts("u1", 16),
    "hot pixels": with_hot(counts("u1"), 255),
    "hot pixels beyond a byte": with_hot(counts(">u2"), 40000),
    "signed": with_hot(counts("i2"), 300),
    "whole bytes": counts("i4", 256),
    "nothing": counts("u1", 1),
    "an even number of pixels": counts("u1", 16, (3, 32, 40)),
}


@pytest.mark.parametrize("frames", CASES.values(), ids=CASES.keys())
def test_counts_come_back_and_are_read_once(frames):
    stack = Counted(frames)
    kept = FrameCache(stack)
    assert kept.shape == frames.shape and len(kept) == 3
    for _ in range(3):
        for i in (2, 0, 1):
            got = kept[i]
            assert got.dtype == frames.dtype
            np.testing.assert_array_equal(got, frames[i])
    assert stack.reads == [1, 1, 1]


@pytest.mark.parametrize(
    "frames",
    [counts("f4"), counts("i2") - np.int16(1), counts("u2", 1000)],
    ids=["real numbers", "negative", "beyond a byte"],
)
def test_what_does_not_fit_is_read_anew(frames):
    stack = Counted(frames)
    kept = FrameCache(stack)
    for _ in range(2):
        np.testing.assert_array_equal(np.stack([kept[i] for i in range(3)]), frames)
    assert stack.reads == [2, 2, 2]


def test_no_more_is_held_than_allowed():
    stack = Counted(counts("u1", shape=(5, 32, 32)))
    kept = FrameCache(stack, limit_bytes=2 * 512 + 100)
    for _ in range(2):
        np.testing.assert_array_equal(np.stack([kept[i] for i in range(5)]), stack.frames)
    assert stack.reads == [1, 1, 2, 2, 2]


def test_what_is_handed_out_can_be_written_to():
    kept = FrameCache(Counted(counts("u1")))
    first = kept[0].copy()
    kept[0][:] = 9
    np.testing.assert_array_equal(kept[0], first)


def test_a_frame_beyond_the_end_is_refused():
    with pytest.raises(IndexError):
        FrameCache(Counted(counts("u1")))[3]
