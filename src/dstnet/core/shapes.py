"""Axis orders as types. Arrays are always ``[frame, y, x]``; vectors in the plane are always ``(y, x)``."""

from jaxtyping import Complex, Float
from torch import Tensor

Image = Float[Tensor, "y x"]
Stack = Float[Tensor, "frame y x"]
Spectrum = Complex[Tensor, "y kx"]  # rfft2 of an Image, zero frequency at [0, 0]
Trajectory = Float[Tensor, "frame 2"]  # Angstrom, (y, x)
