"""Local motion as a polynomial over the field.

Its five terms are x, y, x^2 - 1/3, y^2 - 1/3 and x y, where x and y run from -1 to 1 between the
centres of the field's outermost pixels.
"""

import torch
from torch import Tensor

from dstnet.core.shapes import Shape, Stack

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
