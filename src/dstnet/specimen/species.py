"""Species of particles: what can be placed in a field, each seen in a random pose."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import torch
from pydantic import Field
from torch import Tensor

from dstnet.core.devices import Device
from dstnet.core.settings import Settings
from dstnet.potential import (
    MAP_SUFFIXES,
    BeltSettings,
    MapSettings,
    Potential,
    PotentialSettings,
    Projector,
    build_potential,
    potential_from_map,
    random_rotation,
    rotation_of_angles,
)
from dstnet.specimen.sources import Entry, Source, StandIn
from dstnet.structure import Atoms, fetch_structure, phantom, read_structure

_MOST_DIGITS = 18  # of a seed


class PoseSettings(Settings):
    """How a species' poses are distributed."""

    preferred_spread_deg: float | None = Field(
        default=None,
        gt=0,
        le=180,
        description=(
            "spread of the viewing direction, per axis, about the favoured view; None is uniform"
            " poses"
        ),
    )
    preferred_rot_deg: float = Field(default=0.0, description="RELION's rot of the favoured view")
    preferred_tilt_deg: float = Field(
        default=0.0, ge=0, le=180, description="RELION's tilt of the favoured view"
    )


def draw_rotation(settings: PoseSettings, generator: torch.Generator) -> Tensor:
    """A random rotation matrix ``[3, 3]``, r' = R r.

    Uniform, or with a viewing direction (R's last row) about the favoured one by the von
    Mises-Fisher distribution of concentration 1 / spread² (spread in rad; for small spreads a
    Gaussian of that width along each of two axes) and a uniform psi. Its cosine with the favoured
    direction is drawn by inverting the cumulative distribution (Ulrich, J. R. Stat. Soc. C 33, 158
    (1984)).
    """
    if settings.preferred_spread_deg is None:
        return random_rotation(generator)
    spread = math.radians(settings.preferred_spread_deg)
    concentration = 1 / spread**2
    u, azimuth_turns, psi_turns = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    least = math.exp(-2 * concentration)
    between = u + (1 - u) * least + 1e-300  # no logarithm of zero
    cosine = max(-1.0, 1 + math.log(between) / concentration)
    sine = math.sqrt(1 - cosine * cosine)
    azimuth = 2 * math.pi * azimuth_turns
    # The viewing direction about the favoured one, and then in the structure's frame.
    about_favoured = [sine * math.cos(azimuth), sine * math.sin(azimuth), cosine]
    favoured = rotation_of_angles(settings.preferred_rot_deg, settings.preferred_tilt_deg, 0.0)
    direction = torch.tensor(about_favoured, dtype=torch.float64) @ favoured.double()
    x, y, z = direction.tolist()
    rot_deg = math.degrees(math.atan2(y, x))
    tilt_deg = math.degrees(math.atan2(math.hypot(x, y), z))
    return rotation_of_angles(rot_deg, tilt_deg, 360 * psi_turns)


UNIFORM = PoseSettings()


class SpeciesSettings(Settings):
    """How species are made of structures and maps."""

    poses: PoseSettings = UNIFORM
    potential: PotentialSettings = PotentialSettings()
    em_map: MapSettings = MapSettings()
    belt: BeltSettings | None = Field(
        default=None,
        description=(
            "detergent or lipids around the part of atoms that lies in a membrane; None: nothing."
            " {} is a micelle where the residues tell that the membrane was"
        ),
    )


def belt_of(source: Source | Path, settings: SpeciesSettings) -> BeltSettings | None:
    """What a source wears: its own belt, or that of all species."""
    if isinstance(source, StandIn):
        return source.belt
    if isinstance(source, Entry) and source.belt is not None:
        return source.belt
    return settings.belt


class Species(Protocol):
    """Something that can be drawn in a random pose, as a square patch of projected phase in rad
    centred at pixel [n // 2, n // 2].
    """

    @property
    def name(self) -> str: ...

    @property
    def radius_angstrom(self) -> float: ...

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A rotation matrix [3, 3] and the phase patch [n, n] seen in that pose."""
        ...


@dataclass(frozen=True)
class ProjectedSpecies:
    """A species projected anew for every particle."""

    name: str
    radius_angstrom: float
    projector: Projector
    poses: PoseSettings = UNIFORM

    @classmethod
    def of(
        cls,
        potential: Potential,
        voltage_kv: float,
        poses: PoseSettings = UNIFORM,
        device: Device | None = None,
    ) -> Self:
        """The species of a potential.

        Raises
        ------
        BadInputError
            If the potential is not on a cube.
        """
        projector = Projector(potential, voltage_kv, device)
        return cls(potential.name, potential.radius_angstrom, projector, poses)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rotation = draw_rotation(self.poses, generator)
        return rotation, self.projector.phase(rotation)


def is_map(source: str | Path) -> bool:
    """Whether a species' source is an EM map, by its name."""
    return str(source).lower().removesuffix(".gz").endswith(MAP_SUFFIXES)


def load_structure(source: Source | Path) -> Atoms:
    """The atoms of a recipe's entry or its stand-in, of a structure file (PDB or mmCIF, .gz
    allowed), of an entry of the Protein Data Bank, ``pdb:ID``, or of a complex made by formula,
    ``phantom:SEED``.

    Raises
    ------
    BadInputError
        If the file or entry is missing or no such thing.
    OutputError
        If the folder of downloads cannot be written.
    """
    if isinstance(source, Entry | StandIn):
        return source.atoms()
    kind, _, rest = str(source).partition(":")
    if kind == "phantom" and rest.isdecimal() and len(rest) <= _MOST_DIGITS:
        return phantom(int(rest))
    if kind == "pdb" and rest:
        return read_structure(fetch_structure(rest))
    return read_structure(Path(source))


def load_potential(
    source: Source | Path,
    pixel_size_angstrom: float,
    structure: PotentialSettings | None = None,
    em_map: MapSettings | None = None,
    belt: BeltSettings | None = None,
) -> Potential:
    """The potential of a species by where it comes from.

    Parameters
    ----------
    source
        An EM map (``.mrc``, ``.map``, ``.ccp4``, .gz allowed), or anything that `load_structure`
        takes.
    pixel_size_angstrom
        Of the potential's voxels.
    structure, em_map
        How atoms, or a map, become a potential; defaults where None.
    belt
        Around atoms; a map shows its own.

    Raises
    ------
    BadInputError
        If the file or entry is missing or no such thing.
    OutputError
        If the folder of downloads cannot be written.
    SettingsError
        If the pixel size is not positive or so small that the box would be too large, nothing or
        everything in a map lies above the threshold, or it is not known where a belt lies.
    """
    if not isinstance(source, Entry | StandIn) and is_map(source):
        return potential_from_map(Path(source), pixel_size_angstrom, em_map)
    return build_potential(load_structure(source), pixel_size_angstrom, structure, belt)


class ProjectionBank:
    """A species with a fixed bank of projections, for training: poses repeat, drawing one costs
    nothing.

    Flips and quarter turns of the patch stand for further poses (and the mirror image) of the
    structure; the rotation returned is the banked one, so use this where poses are not read.

    Parameters
    ----------
    name
        Of the species.
    radius_angstrom
        Of the sphere around its origin that holds it.
    rotations
        ``[pose, 3, 3]``.
    patches
        Projected phase in rad of each pose, ``[pose, n, n]``.
    """

    def __init__(self, name: str, radius_angstrom: float, rotations: Tensor, patches: Tensor):
        self.name = name
        self.radius_angstrom = radius_angstrom
        self.rotations = rotations
        self.patches = patches

    @classmethod
    def from_projector(
        cls,
        name: str,
        radius_angstrom: float,
        projector: Projector,
        poses: int,
        generator: torch.Generator,
    ) -> "ProjectionBank":
        """A bank of `poses` random projections, kept in half precision (phases are below a few rad:
        relative error 5e-4).
        """
        rotations = torch.stack([random_rotation(generator) for _ in range(poses)])
        patches = torch.stack([projector.phase(rotation).half() for rotation in rotations])
        return cls(name, radius_angstrom, rotations, patches)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        index, turn = torch.randint(0, 1 << 20, (2,), generator=generator).tolist()
        pose = index % len(self.patches)
        patch = self.patches[pose].float()
        # An even patch has its centre at n // 2: flipping about that pixel drops row and column 0,
        # which are empty margin.
        if turn & 4:
            patch = torch.roll(patch.flip(0), 1, 0)
        for _ in range(turn & 3):
            turned = patch.transpose(0, 1).flip(0)
            patch = torch.roll(turned, 1, 0)
        return self.rotations[pose], patch
