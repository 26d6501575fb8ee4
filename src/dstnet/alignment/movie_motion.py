"""The motion of a movie as it is estimated, given, taken out and told."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.core.shapes import Stack, Trajectory

_EARLY_E_PER_A2 = 4.0  # where RELION 3.1 parts early from late motion


@dataclass(frozen=True)
class MovieMotion:
    """u_t(x), the displacement of content in frame t, in the representation of
    `dstnet.motion.field`: frame_t(x) = clean(x - u_t(x)).

    Attributes
    ----------
    shifts_angstrom
        [frame, 2], (y, x): shift of the whole field; mean over frames zero.
    local_coefficients_angstrom
        [frame, 2, 5]: coefficients, for y and x, of (x, y, x^2 - 1/3, y^2 - 1/3, x y) over [-1, 1];
        mean over frames zero. All zero: no local motion.
    """

    shifts_angstrom: Trajectory
    local_coefficients_angstrom: Stack

    @classmethod
    def of_shifts(cls, shifts_angstrom: Trajectory) -> "MovieMotion":
        """A motion of the whole field alone."""
        return cls(shifts_angstrom, shifts_angstrom.new_zeros(len(shifts_angstrom), 2, 5))

    @property
    def is_local(self) -> bool:
        return bool(self.local_coefficients_angstrom.any())

    def coefficients_where_seen(self, frame: int, field_angstrom: tuple[float, float]) -> Tensor:
        """Shift and local motion of a frame as a function of where content lies in the *sum*, [2,
        6]: the shift is the last column.

        The polynomial is given where content lies in the frame, which is further on by the frame's
        shift s: it is moved by s. Further on by the local motion too; that is neglected, being the
        local motion times its own slope, some thousandths of it. `field_angstrom` is the distance
        between the outermost pixels' centres, (y, x).
        """
        shift, c = self.shifts_angstrom[frame], self.local_coefficients_angstrom[frame]
        b, a = (2 * float(shift[i]) / field_angstrom[i] for i in (0, 1))
        x = c[:, 0] + 2 * a * c[:, 2] + b * c[:, 4]
        y = c[:, 1] + 2 * b * c[:, 3] + a * c[:, 4]
        constant = shift + c @ c.new_tensor([a, b, a * a, b * b, a * b])
        return torch.stack((x, y, c[:, 2], c[:, 3], c[:, 4], constant), 1)


def accumulated_motion(
    motion: MovieMotion, exposure_e_per_a2: float | None, pre_exposure_e_per_a2: float = 0.0
) -> tuple[float, float | None, float | None]:
    """Length in Angstrom of the way from frame to frame: in all, early (up to 4 e-/A^2) and late.

    What RELION calls rlnAccumMotion (version 3.1 writes it in pixels). Local motion does not count.

    Early and late are None where the exposure of a frame is unknown.
    """
    steps = motion.shifts_angstrom.diff(dim=0).norm(dim=1)
    if exposure_e_per_a2 is None:
        return float(steps.sum()), None, None
    early = max(0, int((_EARLY_E_PER_A2 - pre_exposure_e_per_a2) / exposure_e_per_a2 + 1e-6) - 1)
    return float(steps.sum()), float(steps[:early].sum()), float(steps[early:].sum())
