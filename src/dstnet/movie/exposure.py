"""How much a specimen was exposed, frame by frame."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dstnet.errors import BadInputError


@dataclass(frozen=True)
class Exposure:
    """Exposure of a specimen by the frames of a movie, in e-/Å2.

    Attributes
    ----------
    frame_e_per_a2
        What each frame exposes.
    start_e_per_a2
        What the specimen had seen before each frame began, frames that were left out included.

    Raises
    ------
    BadInputError
        If these are not as many as those.
    """

    frame_e_per_a2: tuple[float, ...]
    start_e_per_a2: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.frame_e_per_a2) != len(self.start_e_per_a2):
            raise BadInputError(
                f"{len(self.start_e_per_a2)} starts for {len(self.frame_e_per_a2)} exposures; give"
                " one a frame"
            )

    @classmethod
    def uniform(
        cls, frames: int, frame_e_per_a2: float, pre_exposure_e_per_a2: float = 0.0
    ) -> "Exposure":
        """Frames of one exposure each, without gaps, after a pre-exposure."""
        starts = (pre_exposure_e_per_a2 + frame_e_per_a2 * number for number in range(frames))
        return cls((frame_e_per_a2,) * frames, tuple(starts))

    @classmethod
    def of_frames(
        cls, frame_e_per_a2: Iterable[float], pre_exposure_e_per_a2: float = 0.0
    ) -> "Exposure":
        """Frames of exposures of their own, without gaps, after a pre-exposure."""
        own = tuple(float(exposure) for exposure in frame_e_per_a2)
        starts = itertools.accumulate(own, initial=pre_exposure_e_per_a2)
        return cls(own, tuple(starts)[:-1])

    def __len__(self) -> int:
        return len(self.frame_e_per_a2)

    @property
    def accumulated_e_per_a2(self) -> tuple[float, ...]:
        """What the specimen has seen by the middle of each frame.

        A frame holds the mean of a signal that decays while the frame is taken. The decay at the
        middle equals that mean to second order in exposure / N_e (it is 0.6 % low for a frame of
        as much as 4 e-/A^2 at 3 A); the decay at the end, which some programs take, is wrong in
        first order. In a dose-weighted sum normalised to white noise the difference cancels when
        all frames have the same exposure.
        """
        pairs = zip(self.start_e_per_a2, self.frame_e_per_a2, strict=True)
        return tuple(start + own / 2 for start, own in pairs)

    @property
    def total_e_per_a2(self) -> float:
        """What all frames together expose."""
        return math.fsum(self.frame_e_per_a2)

    @property
    def pre_exposure_e_per_a2(self) -> float:
        """What the specimen had seen before the first frame."""
        return self.start_e_per_a2[0]

    @property
    def mean_frame_e_per_a2(self) -> float:
        """What a frame exposes on average; exactly that of each where all are alike."""
        first = self.frame_e_per_a2[0]
        if self._frames_are_alike:
            return first
        return self.total_e_per_a2 / len(self)

    @property
    def _frames_are_alike(self) -> bool:
        first = self.frame_e_per_a2[0]
        return all(own == first for own in self.frame_e_per_a2)

    @property
    def step_e_per_a2(self) -> float | None:
        """What the specimen sees from one frame to the next; None where frames differ, or the
        steps between them do.
        """
        if not self._frames_are_alike:
            return None
        own = self.frame_e_per_a2[0]
        pairs = itertools.pairwise(self.start_e_per_a2)
        steps = [later - earlier for earlier, later in pairs]
        # Where nothing was left out, the step is the exposure of a frame, without rounding.
        for step in (own, *steps[:1]):
            if all(math.isclose(step, other, rel_tol=1e-9, abs_tol=1e-9) for other in steps):
                return step
        return None

    def subset(self, frames: Iterable[int]) -> "Exposure":
        """Of some frames, by their index here: what lay between them stays in what came before."""
        chosen = tuple(frames)
        own = tuple(self.frame_e_per_a2[index] for index in chosen)
        starts = tuple(self.start_e_per_a2[index] for index in chosen)
        return Exposure(own, starts)

    def grouped(self, groups: Iterable[Sequence[int]]) -> "Exposure":
        """Of sums over groups of frames, by their indices here: each with the mean of what its
        frames had seen, weighted by what they expose.
        """
        totals: list[float] = []
        starts: list[float] = []
        middles = self.accumulated_e_per_a2
        for group in groups:
            own = [self.frame_e_per_a2[index] for index in group]
            seen = [self.frame_e_per_a2[index] * middles[index] for index in group]
            total = math.fsum(own)
            middle = math.fsum(seen) / total
            totals.append(total)
            starts.append(middle - total / 2)
        return Exposure(tuple(totals), tuple(starts))
