"""Axis orders as types. Arrays are always ``[frame, y, x]``; vectors in the plane are always ``(y,
x)``.

The leading underscores say that sizes are each array's own: a function may take an image on one
grid and give one on another. Number of axes and kind of number are checked while the tests run.
"""

from jaxtyping import Float
from torch import Tensor

Shape = tuple[int, int]  # of an image, in pixels, (y, x)
Image = Float[Tensor, "_y _x"]
Stack = Float[Tensor, "_frame _y _x"]
Images = Float[Tensor, "*_some _y _x"]  # one, or any number of them
Trajectory = Float[Tensor, "_frame 2"]  # Angstrom, (y, x)
