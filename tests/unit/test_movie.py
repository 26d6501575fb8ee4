"""Movies and their exposures: what frames exposed and had seen, parts of a movie, refusals."""

import math

import numpy as np
import pytest
import torch

from dstnet.errors import BadInputError
from dstnet.motion import Motion
from dstnet.motion.local_field import local_basis
from dstnet.movie import Exposure, Movie


def movie_of(frames: int = 4, **known) -> Movie:
    values = np.arange(frames * 6, dtype=np.uint16).reshape(frames, 2, 3)
    return Movie(values, 1.5, **known)


# Exposures


def test_three_exposures():
    exposure = Exposure.of_frames([1.0, 3.0, 2.0], 0.5)
    assert exposure.start_e_per_a2 == (0.5, 1.5, 4.5)
    assert exposure.accumulated_e_per_a2 == (1.0, 3.0, 5.5)
    assert exposure.total_e_per_a2 == 6.0
    assert exposure.pre_exposure_e_per_a2 == 0.5
    assert exposure.mean_frame_e_per_a2 == 2.0
    assert len(exposure) == 3
    assert Exposure.of_frames([1.5] * 7, 2.0) == Exposure.uniform(7, 1.5, 2.0)


@pytest.mark.parametrize("own", [0.1, 0.7, 1.1, 1.3])
def test_the_mean_of_frames_alike_is_that_of_each(own):
    """A sum over three times 0.1 divided by three is not 0.1."""
    for frames in (1, 3, 7, 40):
        assert Exposure.uniform(frames, own).mean_frame_e_per_a2 == own
        assert Exposure.uniform(frames, own).step_e_per_a2 == own


def test_steps():
    uniform = Exposure.uniform(9, 1.1, 0.3)
    assert uniform.subset([4]).step_e_per_a2 == 1.1
    assert uniform.subset(range(3, 9)).step_e_per_a2 == 1.1
    assert uniform.subset(range(1, 9, 2)).step_e_per_a2 == pytest.approx(2.2)
    assert uniform.subset([0, 1, 3]).step_e_per_a2 is None
    assert Exposure.of_frames([1.0, 1.0, 1.2]).step_e_per_a2 is None


def test_a_subset_has_seen_what_lay_between_its_frames():
    exposure = Exposure.of_frames([1.0, 3.0, 2.0, 4.0])
    part = exposure.subset([1, 3])
    assert part == Exposure((3.0, 4.0), (1.0, 6.0))
    assert part.total_e_per_a2 == 7.0
    assert part.accumulated_e_per_a2 == (2.5, 8.0)


def test_groups_have_the_mean_of_what_their_frames_had_seen():
    """Weighted by the electrons of each frame, which is where a group's signal comes from."""
    exposure = Exposure.of_frames([1.0, 3.0, 2.0, 4.0], 1.0)
    groups = exposure.grouped([[0, 1], [3]])
    assert groups.frame_e_per_a2 == (4.0, 4.0)
    middle = (1.0 * 1.5 + 3.0 * 3.5) / 4.0
    assert groups.accumulated_e_per_a2 == pytest.approx((middle, 9.0))
    uniform = Exposure.uniform(6, 1.5).grouped([range(3), range(3, 6)])
    assert uniform.accumulated_e_per_a2 == pytest.approx(
        Exposure.uniform(2, 4.5).accumulated_e_per_a2
    )


def test_an_exposure_has_a_start_for_each_frame():
    with pytest.raises(BadInputError, match="1 starts for 2 exposures"):
        Exposure((1.0, 1.0), (0.0,))


# Movies


def test_a_movie_knows_its_frames_by_number():
    movie = movie_of(5, exposure=Exposure.uniform(5, 2.0, 1.0), notes=("read",))
    assert movie.frame_numbers == (0, 1, 2, 3, 4)
    assert movie.total_exposure_e_per_a2 == 10.0
    part = movie.subset([1, 3, 4]).subset([0, 2])
    assert part.frame_numbers == (1, 4)
    assert part.exposure == Exposure((2.0, 2.0), (3.0, 9.0))
    assert part.notes == ("read",)
    assert torch.equal(part.stack(), torch.stack([movie.frame(1), movie.frame(4)]))
    assert movie_of().total_exposure_e_per_a2 is None
    assert movie_of().subset([0]).exposure is None


def test_frames_are_new_arrays():
    movie = movie_of()
    movie.frame(0).fill_(9)
    assert movie.frames[0].max() == 5


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"pixel_size_angstrom": 0.0}, "pixel size is 0.0 Å"),
        ({"pixel_size_angstrom": math.inf}, "pixel size"),
        ({"voltage_kv": 0.0}, "voltage is 0.0 kV"),
        ({"exposure": Exposure.uniform(3, 1.0)}, "exposures of 3 frames for 2"),
        ({"exposure": Exposure.uniform(2, 0.0)}, "exposure of a frame is 0.0"),
        ({"exposure": Exposure.uniform(2, math.inf)}, "exposure of a frame is inf"),
        ({"exposure": Exposure.of_frames([1.0, -1.0])}, "exposure of a frame is -1.0"),
        ({"exposure": Exposure.uniform(2, 1.0, -1.0)}, "before the first frame is -1.0"),
        ({"frame_numbers": (0,)}, "1 frame numbers for 2 frames"),
        ({"frames": np.zeros((2, 3))}, r"frames have shape \(2, 3\)"),
    ],
)
def test_what_is_no_movie_is_refused(known, message):
    values = {"frames": np.ones((2, 4, 4)), "pixel_size_angstrom": 1.0, "name": "a.mrc"} | known
    with pytest.raises(BadInputError, match=message) as caught:
        Movie(**values)
    assert str(caught.value).startswith("a.mrc: ")


# Motions


def test_a_window_of_a_motion_keeps_its_reference():
    generator = torch.Generator().manual_seed(0)
    shifts = torch.randn(6, 2, generator=generator)
    local = torch.randn(6, 2, 5, generator=generator)
    motion = Motion(shifts, local)
    for chosen in ([1, 4], range(1, 6, 3), slice(1, 6, 3)):
        part = motion.window(chosen)
        assert torch.equal(part.global_shift_angstrom, motion.global_shift_angstrom[[1, 4]])
        assert torch.equal(
            part.local_coefficients_angstrom, motion.local_coefficients_angstrom[[1, 4]]
        )
    assert not Motion.of_shifts(shifts).is_local and motion.is_local


def test_a_motion_from_its_first_frame_joins_the_same_places():
    """What lies at a place of frame 1 lies, by either reference, at the same place of a later
    frame: to second order of local motion of 3 Å over fields of 1000.
    """
    generator = torch.Generator().manual_seed(1)
    shifts = 30 * torch.randn(5, 2, generator=generator)
    local = 2 * torch.randn(5, 2, 5, generator=generator)
    field = (1000.0, 1200.0)
    motion = Motion(shifts, local)
    moved = motion.from_first_frame(field)
    assert not moved.global_shift_angstrom[0].any()
    assert not moved.local_coefficients_angstrom[0].any()

    def displacement(of, frame, place):
        y, x = (2 * place[axis] / field[axis] - 1 for axis in (0, 1))
        field_there = of.local_coefficients_angstrom[frame] @ local_basis(y, x)
        return of.global_shift_angstrom[frame] + field_there

    def in_frame(of, frame, place):
        """Where a frame has what lies at a place of the reference."""
        there = place
        for _ in range(5):
            there = place + displacement(of, frame, there)
        return there

    for place in torch.tensor([[100.0, 200.0], [900.0, 1000.0], [500.0, 150.0]]):
        in_first = in_frame(motion, 0, place)
        for frame in (1, 4):
            expected = in_frame(motion, frame, place)
            torch.testing.assert_close(
                in_frame(moved, frame, in_first), expected, atol=0.15, rtol=0
            )


def test_early_motion_ends_at_4_electrons():
    shifts = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0], [3.0, 7.0]])
    motion = Motion.of_shifts(shifts)
    # The second frame ends at 4, so that the step to it alone is early.
    uneven = Exposure.of_frames([1.0, 3.0, 1.0, 1.0])
    assert motion.path_lengths_angstrom(uneven) == pytest.approx((8.0, 5.0, 3.0))
    assert motion.path_lengths_angstrom(uneven.subset(range(4))) == pytest.approx((8.0, 5.0, 3.0))
    # With a frame of 2 e-/A^2 left out before it, the second frame is late.
    gap = Exposure((1.0, 1.0, 1.0, 1.0), (0.0, 3.5, 4.5, 5.5))
    assert motion.path_lengths_angstrom(gap) == pytest.approx((8.0, 0.0, 8.0))
