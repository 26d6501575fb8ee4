"""The structures that a network learns from, as projections that crops are made of."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from dstnet.core.randomness import stream
from dstnet.dataset import split_structures
from dstnet.errors import SettingsError
from dstnet.potential import Projector, build_potential
from dstnet.specimen.species import ProjectionBank
from dstnet.structure import Atoms, phantom, read_structure
from dstnet.structure.variants import variants

_PART_ENDING = "-part"


@dataclass
class PreparedSpecies:
    """What crops are made of, and what the records say of it.

    Attributes
    ----------
    train, held_out
        Projections to train on, and those that are only validated on.
    digests
        Of the atoms of all, by name.
    """

    train: list[ProjectionBank] = field(default_factory=list)
    held_out: list[ProjectionBank] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)


def prepare(
    structures: Sequence[Path],
    held_out: Sequence[str],
    *,
    phantoms: int,
    poses: int,
    pixel_size_angstrom: float,
    seed: int,
    widest_angstrom: float,
    report: Callable[[str], None],
    with_variants: bool = False,
) -> PreparedSpecies:
    """Projections of structures to train on and of held-out ones.

    A structure that its file builds from copies is trained on both as built and as the single copy,
    a subcomplex; complexes wider than `widest_angstrom` are left out, and reported. Phantoms 1 to
    `phantoms` are trained on as well, every fourth a cage (phantom 0, the demonstration's, never
    is). Each structure gives a `fragment` too, and `with_variants` a variant.

    Raises
    ------
    SettingsError
        If a held-out name fits no file, or nothing is left to train on.
    BadInputError
        If a structure cannot be read.
    """
    train_files, held_files = split_structures(structures, held_out) if structures else ([], [])
    train = [atoms for path in train_files for atoms in _versions(path)]
    train += [phantom(i, cage=i % 4 == 0) for i in range(1, phantoms + 1)]
    if not train:
        raise SettingsError("nothing to train on; give structure files, or phantoms above 0")
    prepared = PreparedSpecies()

    def projected(all_atoms: Iterable[Atoms]) -> list[ProjectionBank]:
        banks = []
        for atoms in all_atoms:
            width = atoms.diameter_angstrom
            if width > widest_angstrom:
                report(
                    f"{atoms.name}: {width:.0f} Å wide, more than {widest_angstrom:.0f}: left out"
                )
                continue
            banks.append(project(atoms, pixel_size_angstrom, poses, seed))
            prepared.digests[atoms.name] = digest_of(atoms)
            report(f"{atoms.name}: {len(atoms)} atoms, {width:.0f} Å wide")
        return banks

    prepared.train = projected(train)
    if not prepared.train:
        raise SettingsError(
            f"nothing to train on: all structures are wider than a crop's {widest_angstrom:.0f} Å;"
            " raise stream.crop"
        )
    complete = [atoms for atoms in train if not atoms.name.endswith(_PART_ENDING)]
    prepared.train += projected(
        fragment(atoms, stream(seed, "piece", atoms.name)) for atoms in complete
    )
    if with_variants:
        prepared.train += projected(variants(train, seed))
    prepared.held_out = projected(read_structure(path) for path in held_files)
    return prepared


def _versions(path: Path) -> list[Atoms]:
    """A structure as its file builds it, and the single copy where that is less; the file may hold
    more than the assembly that it builds.
    """
    complete = read_structure(path)
    single = read_structure(path, assembly=False)
    if len(single) >= len(complete):
        return [complete]
    return [complete, replace(single, name=f"{single.name}{_PART_ENDING}")]


def fragment(atoms: Atoms, generator: torch.Generator) -> Atoms:
    """Debris: the atoms within a random 14 to 26 Å of a random one, 10 to 50 kDa, as complexes that
    fall apart leave it in the ice.
    """
    middle = int(torch.randint(len(atoms), (1,), generator=generator))
    radius = 14 + 12 * float(torch.rand(1, generator=generator))
    away = atoms.positions_angstrom - atoms.positions_angstrom[middle]
    near = np.linalg.norm(away, axis=1) < radius
    broken = Atoms(
        f"{atoms.name}-piece",
        atoms.positions_angstrom[near],
        atoms.elements[near],
        atoms.b_factors[near],
        atoms.occupancies[near],
    )
    return broken.centred()


def project(atoms: Atoms, pixel_size_angstrom: float, poses: int, seed: int) -> ProjectionBank:
    """A structure's random projections at 300 kV (at 200 kV phases are 12 % larger, less than ice
    and B-factor vary contrast).

    Raises
    ------
    SettingsError, BadInputError
        As `dstnet.potential.build_potential`.
    """
    projector = Projector(build_potential(atoms, pixel_size_angstrom), 300.0)
    radius = atoms.diameter_angstrom / 2
    generator = stream(seed, "poses", atoms.name)
    return ProjectionBank.from_projector(atoms.name, radius, projector, poses, generator)


def digest_of(atoms: Atoms) -> str:
    """A short digest of a structure's atoms, for the records."""
    positions = np.ascontiguousarray(atoms.positions_angstrom)
    return hashlib.sha256(positions.tobytes()).hexdigest()[:16]
