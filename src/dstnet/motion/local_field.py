"""Local motion as a polynomial over the field.

Its five terms are x, y, x^2 - 1/3, y^2 - 1/3 and x y, where x and y run from -1 to 1 between the
centres of the field's outermost pixels.
"""

import torch
from torch import Tensor

from dstnet.core.shapes import Shape, Stack, Trajectory

# Mean square of each term over [-1, 1]^2
TERM_POWER = (1 / 3, 1 / 3, 4 / 45, 4 / 45, 1 / 9)


def local_basis(y: Tensor, x: Tensor) -> Tensor:
    """The five terms of local motion, [5, ...], at places from -1 to 1 over the field."""
    third = 1 / 3
    terms = [
        x,
        y,
        x * x - third,
        y * y - third,
        x * y,
    ]
    return torch.stack(terms)


def local_displacement(coefficients: Tensor, shape: Shape) -> Tensor:
    """Local motion on the pixels of a field of `shape` (y, x), [2, y, x] in the unit of one frame's
    coefficients, [2, 5].
    """
    height, width = shape
    device = coefficients.device
    y = torch.linspace(-1, 1, height, device=device)
    x = torch.linspace(-1, 1, width, device=device)
    places_y = y[:, None].expand(shape)
    places_x = x[None, :].expand(shape)
    basis = local_basis(places_y, places_x)
    return torch.einsum("ak,kyx->ayx", coefficients, basis)


def field_where_seen(shift: Trajectory, local: Stack, field: tuple[float, float]) -> Stack:
    """Motion as a function of where content lies in the reference, [frame, 2, 6] in double
    precision on the CPU: the five terms of each axis, and the constant.

    Local motion is given where content lies in the frame, which is further on by the frame's shift:
    the polynomial is moved by it. Further on by the local motion too; that is neglected, being the
    local motion times its own slope, some thousandths of it.

    Parameters
    ----------
    shift
        [frame, 2], (y, x).
    local
        [frame, 2, 5], in the same unit.
    field
        Distance between the outermost pixels' centres, (y, x), in that unit.
    """
    shift = shift.cpu().double()
    with_constant = torch.nn.functional.pad(local.cpu().double(), (0, 1))
    seen = _moved(with_constant, shift, field)
    seen[..., 5] += shift
    return seen


def field_in_frames(seen: Stack, field: tuple[float, float]) -> tuple[Trajectory, Stack]:
    """The inverse of `field_where_seen`: shift and local motion, in double precision."""
    constant = seen[..., 5]
    shift = constant
    moved = seen
    # What the polynomial has at the shift belongs to the shift. Each turn is nearer by the
    # slope of the local motion, a hundredth.
    for _ in range(4):
        moved = _moved(seen, -shift, field)
        shift = moved[..., 5]
    return shift, moved[..., :5]


def _moved(polynomial: Stack, by: Trajectory, field: tuple[float, float]) -> Stack:
    """Each frame's polynomial [frame, 2, 6], its constant last, with its argument moved."""
    # In the polynomial's own coordinates
    y, x = (2 * by[:, axis, None] / field[axis] for axis in (0, 1))
    of_x, of_y, of_x2, of_y2, of_xy, constant = polynomial.unbind(-1)
    moved_x = of_x + 2 * x * of_x2 + y * of_xy
    moved_y = of_y + 2 * y * of_y2 + x * of_xy
    at_place = of_x * x + of_y * y + of_x2 * x * x + of_y2 * y * y + of_xy * x * y
    return torch.stack((moved_x, moved_y, of_x2, of_y2, of_xy, constant + at_place), -1)


def cubic_courses(local_coefficients: Stack) -> Stack:
    """The nearest courses that are cubic polynomials in the frame number (least squares), through
    the first frame's values, mean zero.

    These are what RELION's model of local motion can hold: doming wholly, the Gaussian process of
    published size all but 17 % of its variance.

    Parameters
    ----------
    local_coefficients
        [frame, 2, 5].

    Returns
    -------
    Stack
        [frame, 2, 5], single precision.
    """
    frames = len(local_coefficients)
    from_first = local_coefficients - local_coefficients[0]
    courses = from_first.double().flatten(1)
    number = torch.arange(frames, dtype=torch.float64, device=courses.device)
    z = number / max(frames - 1, 1)
    powers = torch.stack((z, z**2, z**3), 1)
    cubic = torch.linalg.pinv(powers) @ courses
    fitted = (powers @ cubic).reshape(local_coefficients.shape)
    centred = fitted - fitted.mean(0)
    return centred.float()
