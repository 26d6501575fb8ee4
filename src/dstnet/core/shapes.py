"""Axis orders as types. Arrays are always ``[frame, y, x]``; vectors in the plane are always ``(y,
x)``.
"""

from jaxtyping import Float
from torch import Tensor

Image = Float[Tensor, "y x"]
Stack = Float[Tensor, "frame y x"]
Trajectory = Float[Tensor, "frame 2"]  # Angstrom, (y, x)
