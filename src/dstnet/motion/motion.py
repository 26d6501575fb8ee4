"""The motion of a movie: planted, estimated, imported, taken out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dstnet.core.devices import Device
from dstnet.core.shapes import Stack, Trajectory
from dstnet.motion.local_field import field_in_frames, field_where_seen
from dstnet.motion.relion import RelionMovie, from_relion, to_relion
from dstnet.movie.exposure import Exposure

_EARLY_E_PER_A2 = 4.0  # where RELION 3.1 parts early from late motion


@dataclass(frozen=True)
class Motion:
    """u_t(x), the displacement of content in frame t, in the representation of
    `dstnet.motion.local_field`: frame_t(x) = clean(x - u_t(x)).

    Attributes
    ----------
    global_shift_angstrom
        [frame, 2], (y, x): shift of the whole field, against a reference that all frames share:
        the first frame of what is summed (decision 19), but the mean of all frames while motion is
        estimated.
    local_coefficients_angstrom
        [frame, 2, 5]: coefficients, for y and x, of (x, y, x^2 - 1/3, y^2 - 1/3, x y) over [-1, 1],
        against the same reference. All zero: no local motion.
    """

    global_shift_angstrom: Trajectory
    local_coefficients_angstrom: Stack

    @classmethod
    def of_shifts(cls, global_shift_angstrom: Trajectory) -> "Motion":
        """A motion of the whole field alone."""
        frames = len(global_shift_angstrom)
        return cls(global_shift_angstrom, global_shift_angstrom.new_zeros(frames, 2, 5))

    @property
    def is_local(self) -> bool:
        """Whether any frame has local motion."""
        return bool(self.local_coefficients_angstrom.any())

    def where_seen(self, field_angstrom: tuple[float, float]) -> Stack:
        """Shifts and local motion as a function of where content lies in the *sum*, [frame, 2, 6]:
        the five terms, and the shift as the last; see `dstnet.motion.local_field`.

        `field_angstrom` is the distance between the outermost pixels' centres, (y, x).
        """
        shift = self.global_shift_angstrom
        return field_where_seen(shift, self.local_coefficients_angstrom, field_angstrom)

    def window(self, frames: Sequence[int] | slice) -> "Motion":
        """The motion of some of the frames, against the same reference."""
        chosen = frames if isinstance(frames, slice) else list(frames)
        shift = self.global_shift_angstrom[chosen]
        local = self.local_coefficients_angstrom[chosen]
        return Motion(shift, local)

    def from_first_frame(self, field_angstrom: tuple[float, float]) -> "Motion":
        """The same motion against its first frame, where it is zero everywhere.

        That is where sums lie, ours as RELION's. `field_angstrom` as in `where_seen`.
        """
        shift = self.global_shift_angstrom
        local = self.local_coefficients_angstrom
        seen = field_where_seen(shift - shift[0], local, field_angstrom)
        return Motion(*field_in_frames(seen - seen[0], field_angstrom)).to(shift.device)

    def to(self, device: Device) -> "Motion":
        """A copy on a device, in single precision."""
        return Motion(
            self.global_shift_angstrom.to(device, torch.float32, copy=True),
            self.local_coefficients_angstrom.to(device, torch.float32, copy=True),
        )

    def path_lengths_angstrom(
        self, exposure: Exposure | None = None
    ) -> tuple[float, float | None, float | None]:
        """Length of the way from frame to frame in Angstrom: in all, early (up to 4 e-/A^2) and
        late.

        What RELION calls rlnAccumMotion (version 3.1 writes it in pixels). Local motion does not
        count. Early and late are None where the exposure is unknown.

        Parameters
        ----------
        exposure
            Of each frame.
        """
        steps = self.global_shift_angstrom.diff(dim=0).norm(dim=1)
        length = float(steps.sum())
        if exposure is None:
            return length, None, None
        early_frames = 0
        for start, own in zip(exposure.start_e_per_a2, exposure.frame_e_per_a2, strict=True):
            # A thousandth of a thousandth of a frame is rounding.
            is_early = start + own <= _EARLY_E_PER_A2 + 1e-6 * own
            early_frames += is_early
        early_steps = max(0, early_frames - 1)
        early = float(steps[:early_steps].sum())
        late = float(steps[early_steps:].sum())
        return length, early, late

    def to_relion(self, movie: RelionMovie) -> dict[str, Any]:
        """The tables of RELION's STAR file of a movie; see `dstnet.motion.relion.to_relion`."""
        shift = self.global_shift_angstrom.cpu()
        return to_relion(shift, self.local_coefficients_angstrom.cpu(), movie)

    @classmethod
    def from_relion(
        cls, tables: Mapping[str, Any], pixel_size_angstrom: float | None = None
    ) -> "Motion":
        """From the tables of RELION's STAR file of a movie; see `dstnet.motion.relion`.

        Raises
        ------
        BadInputError
            If they are not those of a motion.
        """
        return cls(*from_relion(tables, pixel_size_angstrom))
