"""Species of particles: what can be placed in a field, each seen in a random pose."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dstnet.potential import Projector, random_rotation


class Species(Protocol):
    """Something that can be drawn in a random pose, as a square patch of projected phase in rad centred at pixel [n // 2, n // 2]."""

    name: str
    radius_angstrom: float

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A rotation matrix [3, 3] and the phase patch [n, n] seen in that pose."""
        ...


@dataclass(frozen=True)
class ProjectedSpecies:
    """A species projected anew for every particle, in uniformly random poses."""

    name: str
    radius_angstrom: float
    projector: Projector

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rotation = random_rotation(generator)
        return rotation, self.projector.phase(rotation)


class BankedSpecies:
    """A species with a fixed bank of projections, for training: poses repeat, drawing one costs nothing.

    Flips and quarter turns of the patch stand for further poses (and the mirror image) of the structure; the rotation returned is the
    banked one, so use this where poses are not read.
    """

    def __init__(self, name: str, radius_angstrom: float, rotations: Tensor, patches: Tensor):
        self.name, self.radius_angstrom, self.rotations, self.patches = name, radius_angstrom, rotations, patches

    @classmethod
    def from_projector(
        cls, name: str, radius_angstrom: float, projector: Projector, poses: int, generator: torch.Generator
    ) -> "BankedSpecies":
        """A bank of `poses` random projections, kept in half precision (phases are below a few rad: relative error 5e-4)."""
        rotations = torch.stack([random_rotation(generator) for _ in range(poses)])
        return cls(name, radius_angstrom, rotations, torch.stack([projector.phase(r).half() for r in rotations]))

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        index, turn = (int(i) for i in torch.randint(0, 1 << 20, (2,), generator=generator))
        pose = index % len(self.patches)
        patch = self.patches[pose].float()
        # An even patch has its centre at n // 2: flipping about that pixel drops row and column 0, which are empty margin.
        if turn & 4:
            patch = torch.roll(patch.flip(0), 1, 0)
        for _ in range(turn & 3):
            patch = torch.roll(patch.transpose(0, 1).flip(0), 1, 0)
        return self.rotations[pose], patch
