"""The field in which a specimen is made."""

from dataclasses import dataclass

import torch

from dstnet.core.devices import Device
from dstnet.core.shapes import Shape
from dstnet.specimen.settings import SpecimenSettings


@dataclass(frozen=True)
class SpecimenField:
    """A field of pixels, and what the specimen in it is to be.

    Attributes
    ----------
    shape
        (y, x) in pixels, margins included.
    pixel_size_angstrom
        Of that field.
    settings
        The specimen.
    volts_to_rad
        Phase per projected potential, rad/(V Å).
    device
        Where images of the field are made.
    """

    shape: Shape
    pixel_size_angstrom: float
    settings: SpecimenSettings
    volts_to_rad: float
    device: Device = "cpu"

    def poisson_count(self, per_um2: float, generator: torch.Generator) -> int:
        """How many things there are in the field, drawn at random about their mean number.

        Parameters
        ----------
        per_um2
            Their mean number per square micrometre.
        generator
            On the CPU.
        """
        height, width = self.shape
        expected = per_um2 * height * width * self.pixel_size_angstrom**2 * 1e-8
        return int(torch.poisson(torch.tensor([expected]), generator=generator))
