"""The structures that a network learns from, and those kept from it: the split is by structure, before anything is simulated."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dstnet.core.randomness import stream
from dstnet.errors import SettingsError
from dstnet.potential import Projector, build_potential
from dstnet.specimen.species import BankedSpecies
from dstnet.structure import Atoms, phantom, read_structure
from dstnet.structure.variants import cut, filament, in_micelle

NEVER_TRAINED = frozenset({"6z6u"})  # apoferritin: the real fields that prove the weights show it


def stem(path: Path) -> str:
    """A structure's name: its file name without .pdb, .cif and .gz, lower case."""
    name = path.name.lower()
    for suffix in (".gz", ".pdb", ".cif", ".ent", ".mmcif"):
        name = name.removesuffix(suffix)
    return name


def split(structures: Sequence[Path], held_out: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Structure files to train on and held-out ones; a structure is held out by name, and `NEVER_TRAINED` always are.

    Raises
    ------
    SettingsError
        If a held-out name fits no file, or nothing is left to train on.
    """
    names = {stem(p) for p in structures}
    wanted = {h.lower() for h in held_out}
    if missing := wanted - names:
        raise SettingsError(f"cannot hold out {', '.join(sorted(missing))}: no such structure among {', '.join(sorted(names))}")
    train = [p for p in structures if stem(p) not in wanted | NEVER_TRAINED]
    return train, [p for p in structures if p not in train]


def digest_of(atoms: Atoms) -> str:
    """A short digest of a structure's atoms, for the card."""
    return hashlib.sha256(np.ascontiguousarray(atoms.positions_angstrom).tobytes()).hexdigest()[:16]


def piece(atoms: Atoms, generator: torch.Generator) -> Atoms:
    """Debris: the atoms within a random 14 to 26 Å of a random one, 10 to 50 kDa, as complexes that fall apart leave it in the ice."""
    middle = int(torch.randint(len(atoms), (1,), generator=generator))
    radius = 14 + 12 * float(torch.rand(1, generator=generator))
    near = np.linalg.norm(atoms.positions_angstrom - atoms.positions_angstrom[middle], axis=1) < radius
    broken = Atoms(
        f"{atoms.name}-piece", atoms.positions_angstrom[near], atoms.elements[near], atoms.b_factors[near], atoms.occupancies[near]
    )
    return broken.centred()


def bank(atoms: Atoms, pixel_size_angstrom: float, poses: int, seed: int) -> BankedSpecies:
    """A structure's bank of random projections at 300 kV (at 200 kV phases are 12 % larger, less than ice and B-factor vary contrast)."""
    projector = Projector(build_potential(atoms, pixel_size_angstrom), 300.0)
    return BankedSpecies.from_projector(atoms.name, atoms.diameter_angstrom / 2, projector, poses, stream(seed, "poses", atoms.name))


def varied(atoms: Sequence[Atoms], seed: int) -> list[Atoms]:
    """Of every complex, by its place in the list: in a micelle, cut, in a micelle and cut, or, where it is small, as a filament."""
    made = []
    for i, one in enumerate(a for a in atoms if a.diameter_angstrom < 300):
        rng = np.random.Generator(np.random.PCG64([seed, i]))
        if i % 4 == 3 and one.diameter_angstrom < 150:
            made.append(filament(one, rng))
        elif i % 4 == 1:
            made.append(cut(one, rng))
        elif i % 4 == 2:
            made.append(in_micelle(cut(one, rng), rng))
        else:
            made.append(in_micelle(one, rng))
    return made


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
    variants: bool = False,
) -> tuple[list[BankedSpecies], list[BankedSpecies], dict[str, str]]:
    """Banks to train on, banks held out, and digests of all by name.

    A structure that its file builds from copies is trained on both as built and as the single copy, a subcomplex; complexes wider than
    `widest_angstrom` are left out, aloud. Phantoms 1 to `phantoms` are trained on as well, every fourth a cage (phantom 0, the
    demonstration's, never is). Each structure gives a `piece` too.
    """
    train_files, held_files = split(structures, held_out) if structures else ([], [])
    digests: dict[str, str] = {}

    def banked(all_atoms: Sequence[Atoms]) -> list[BankedSpecies]:
        out = []
        for atoms in all_atoms:
            if atoms.diameter_angstrom > widest_angstrom:
                report(f"{atoms.name}: {atoms.diameter_angstrom:.0f} Å wide, more than {widest_angstrom:.0f}: left out")
                continue
            out.append(bank(atoms, pixel_size_angstrom, poses, seed))
            digests[atoms.name] = digest_of(atoms)
            report(f"{atoms.name}: {len(atoms)} atoms, {atoms.diameter_angstrom:.0f} Å wide")
        return out

    def versions(path: Path) -> list[Atoms]:
        whole, single = read_structure(path), read_structure(path, assembly=False)
        parts = [replace(single, name=f"{single.name}-part")] if len(single) < len(whole) else []
        return [whole, *parts]

    train = [atoms for path in train_files for atoms in versions(path)]
    train += [phantom(i, cage=i % 4 == 0) for i in range(1, phantoms + 1)]
    if not train:
        raise SettingsError("nothing to train on; give structure files, or phantoms above 0")
    if variants:
        train += varied(train, seed)
    banks = banked(train)
    if not banks:
        raise SettingsError(f"nothing to train on: all structures are wider than a crop's {widest_angstrom:.0f} Å; raise stream.crop")
    banks += banked([piece(atoms, stream(seed, "piece", atoms.name)) for atoms in train if not atoms.name.endswith(("-part", "-micelle", "-cut", "-filament"))])
    return banks, banked([read_structure(path) for path in held_files]), digests
