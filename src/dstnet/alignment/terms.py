"""Which Fourier terms of an image are kept: a half disc without its axes.

The axes kx = 0 and ky = 0, where faulty rows and columns and an image's edges lie, are left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.alignment.spectral_snr import ring_numbers
from dstnet.core.devices import Device


@dataclass(frozen=True)
class HalfDisc:
    """Terms of an image's ``rfft2`` between two frequencies, half of the plane, without the axes.

    Attributes
    ----------
    y, x
        Number of periods over the image, [term], int; x > 0.
    radius
        |k| in 1/Angstrom, [term].
    periods_angstrom
        Sides of the image, (y, x).
    """

    y: Tensor
    x: Tensor
    radius: Tensor
    periods_angstrom: tuple[float, float]

    @classmethod
    def between(
        cls,
        lowest: float,
        highest: float,
        periods_angstrom: tuple[float, float],
        device: Device,
    ) -> "HalfDisc":
        """Terms from `lowest` to `highest` in 1/Angstrom, of an image with these sides."""
        height, width = periods_angstrom
        most_y, most_x = reach(highest, periods_angstrom)
        y = torch.arange(-most_y, most_y + 1, device=device)[:, None]
        x = torch.arange(1, most_x + 1, device=device)[None, :]
        radius = torch.hypot(y / height, x / width)
        is_inside = (radius <= highest) & (radius >= lowest)
        keep = is_inside & (y != 0)
        return cls(
            y=y.expand_as(keep)[keep],
            x=x.expand_as(keep)[keep],
            radius=radius[keep],
            periods_angstrom=periods_angstrom,
        )

    def __len__(self) -> int:
        return len(self.radius)

    def k(self) -> Tensor:
        """[term, 2] in 1/Angstrom, (y, x)."""
        height, width = self.periods_angstrom
        return torch.stack((self.y / height, self.x / width), 1)

    def ring(self) -> Tensor:
        """Ring of each term by its |k|."""
        return ring_numbers(self.radius)


def reach(highest: float, periods_angstrom: tuple[float, float]) -> tuple[int, int]:
    """Most periods over an image of these sides, (y, x), up to `highest` 1/Angstrom."""
    height, width = periods_angstrom
    return int(highest * height), int(highest * width)
