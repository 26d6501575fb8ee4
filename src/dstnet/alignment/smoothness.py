"""Gauss-Newton steps of all frames' shifts, with a prior on how they change from frame to frame."""

import torch
from torch import Tensor

from dstnet.core.shapes import Trajectory


def likeliest_step(
    gradient: Tensor,
    curvature: Tensor,
    shifts: Trajectory,
    acceleration_angstrom: float | None,
) -> Tensor:
    """The step [frame, 2] that maximises a log likelihood, to second order, plus the prior's.

    Parameters
    ----------
    gradient
        Of the log likelihood with each frame's shift, [frame, 2], double precision.
    curvature
        Minus its second derivative, [2, 2], the same for each frame.
    shifts
        Where the frames are, [frame, 2].
    acceleration_angstrom
        Rms second difference that the prior expects; None: no prior.
    """
    n = len(gradient)
    if acceleration_angstrom is None or n < 3:
        step = torch.linalg.solve(curvature, gradient.T)
        return step.T
    each = torch.eye(n, dtype=torch.float64, device=gradient.device)
    both = torch.eye(2, dtype=torch.float64, device=gradient.device)
    second = each.diff(n=2, dim=0) / acceleration_angstrom
    smooth = second.T @ second
    of_data = torch.kron(each, curvature)
    of_prior = torch.kron(smooth, both)
    system = of_data + of_prior
    right = gradient - smooth @ shifts.double()
    step = torch.linalg.solve(system, right.reshape(-1))
    return step.reshape(n, 2)
