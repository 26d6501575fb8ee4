"""How near estimated motion comes to the planted one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.motion import Motion
from dstnet.motion.local_field import local_displacement

PLACES = (9, 9)  # over the field, where local motion is compared


@dataclass(frozen=True)
class MotionError:
    """Errors of a motion, root mean square per axis, in pixels.

    Attributes
    ----------
    global_px
        Of the shift of the whole field, over frames.
    local_px
        Of local motion, over frames and `PLACES`.
    """

    global_px: float
    local_px: float


def motion_error(found: Motion, planted: Motion, pixel_size_angstrom: float) -> MotionError:
    """Errors of a motion against the one that was planted, whatever the reference of either: what
    all frames have in common is no error.
    """
    shift = found.global_shift_angstrom - planted.global_shift_angstrom
    shift = shift - shift.mean(0)
    local = _fields(found) - _fields(planted)
    local = local - local.mean(0)
    return MotionError(
        global_px=float(shift.square().mean().sqrt()) / pixel_size_angstrom,
        local_px=float(local.square().mean().sqrt()) / pixel_size_angstrom,
    )


def _fields(motion: Motion) -> Tensor:
    """Local motion of each frame, [frame, 2, y, x] in Angstrom."""
    frames = motion.local_coefficients_angstrom
    return torch.stack([local_displacement(coefficients, PLACES) for coefficients in frames])
