"""A specimen that gives every frame signal, for tests of motion: what aligns it is proved, not
whether there is enough to align.
"""

import torch
from physics_checks import BARE_ICE, quiet

from dstnet.optics.ctf import OpticsSettings
from dstnet.potential import random_rotation
from dstnet.simulation import MovieSimulator

PIXEL = 1.2


class Rods:
    """Five Gaussian lumps without any symmetry, 0.8 rad each: the contrast of gold rather than of
    protein, for signal in every frame.
    """

    name, radius_angstrom = "rods", 36.0
    lumps = torch.tensor(
        [[10.0, 0, 0], [-10, 6, 0], [0, -10, 12], [4, 8, -14], [-6, -9, -5]]
    )  # (x, y, z) in pixels

    def draw(self, generator):
        rotation = random_rotation(generator)
        axis = torch.arange(56.0) - 28
        centres = self.lumps @ rotation.T
        x, y = (torch.exp(-((axis - centres[:, i, None]) ** 2) / (2 * 2.0**2)) for i in (0, 1))
        return rotation, 0.8 * torch.einsum("ly,lx->yx", y, x)


def rods_shot(shape, frames, electrons_per_pixel, motion, seed=4):
    settings = quiet(
        shape=shape,
        pixel_size_angstrom=PIXEL,
        frames=frames,
        exposure_e_per_a2=electrons_per_pixel / PIXEL**2,
        specimen=BARE_ICE.model_copy(update={"coverage": 0.4}),
        optics=OpticsSettings(defocus_angstrom=8000),
        motion=motion,
    )
    return MovieSimulator(settings, [Rods()], seed)
