"""Shapes that structure files and phantoms hold few of, made of them: complexes in a belt of
detergent or lipid, filaments, and asymmetric parts.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import KDTree

from dstnet.structure.atoms import Atoms

# Heavy atoms of protein to a volume, as `dstnet.potential` packs them.
ATOMS_PER_ANGSTROM3 = 1 / 16.8
# A bilayer's or micelle's height and width around the protein, and its density over protein's.
BELT_HALF_HEIGHT_ANGSTROM = 16.0, 22.0
BELT_WIDTH_ANGSTROM = 12.0, 28.0
BELT_DENSITY = 0.6, 0.9
BELT_B_FACTOR = 80.0
NEAREST_TO_PROTEIN_ANGSTROM = 4.0
FILAMENT_LENGTH_ANGSTROM = 200.0, 440.0
# Wider complexes are what they are; only smaller ones are strung to filaments.
WIDEST_ANGSTROM = 300.0
WIDEST_OF_FILAMENT_ANGSTROM = 150.0
CARBON = 6


def variants(atoms: Sequence[Atoms], seed: int) -> list[Atoms]:
    """One variant of each complex, by its place in the list: in a belt, cut, cut and in a belt, or
    a filament of it where it is small; none of those wider than `WIDEST_ANGSTROM`.
    """
    made = []
    small_enough = [one for one in atoms if one.diameter_angstrom < WIDEST_ANGSTROM]
    for i, one in enumerate(small_enough):
        rng = np.random.Generator(np.random.PCG64([seed, i]))
        kind = i % 4
        if kind == 1:
            made.append(cut(one, rng))
        elif kind == 2:
            made.append(in_belt(cut(one, rng), rng))
        elif kind == 3 and one.diameter_angstrom < WIDEST_OF_FILAMENT_ANGSTROM:
            made.append(filament(one, rng))
        else:
            made.append(in_belt(one, rng))
    return made


def in_belt(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """The complex with a belt of carbon around it, across a random axis and off its middle, as
    membrane proteins have one of detergent or lipid.
    """
    frame = _random_rotation(rng)
    own = atoms.positions_angstrom @ frame.T
    low, high = np.percentile(own[:, 2], (15, 85))
    middle = rng.uniform(low, high)
    half = rng.uniform(*BELT_HALF_HEIGHT_ANGSTROM)
    within = own[np.abs(own[:, 2] - middle) < half]
    centre = within[:, :2].mean(0) if len(within) else np.zeros(2)
    away = np.linalg.norm(within[:, :2] - centre, axis=1)
    reach = (np.percentile(away, 90) if len(within) else 0.0) + rng.uniform(*BELT_WIDTH_ANGSTROM)
    density = ATOMS_PER_ANGSTROM3 * rng.uniform(*BELT_DENSITY)
    count = int((2 * reach) ** 2 * 2 * half * density)
    points = rng.uniform(-1, 1, (count, 3))
    rim = np.linalg.norm(points[:, :2], axis=1) ** 4 + points[:, 2] ** 4  # rounded
    points = points[rim < 1] * np.array([reach, reach, half]) + np.array([*centre, middle])
    distance, _ = KDTree(own).query(points)
    points = points[distance > NEAREST_TO_PROTEIN_ANGSTROM]
    belt = _carbon((points @ frame).astype(np.float32))
    return _joined(f"{atoms.name}-belt", [atoms, belt])


def filament(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Copies of the complex, each moved and turned along an axis."""
    own = atoms.positions_angstrom @ _random_rotation(rng).T
    low, high = np.percentile(own[:, 2], (5, 95))
    rise = max(8.0, (high - low) * rng.uniform(0.8, 1.0))
    turn = rng.uniform(0, 2 * np.pi)
    aside = rng.uniform(0, 0.5) * np.percentile(np.abs(own[:, 0]), 90)
    own = own + np.array([aside, 0, 0])
    shortest, longest = FILAMENT_LENGTH_ANGSTROM
    count = max(2, int(rng.uniform(shortest, longest - np.ptp(own[:, 2])) / rise))
    copies = []
    for i in range(count):
        cosine, sine = np.cos(turn * i), np.sin(turn * i)
        rotation = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
        positions = own @ rotation + np.array([0, 0, rise * i])
        copies.append(replace(atoms, positions_angstrom=positions.astype(np.float32)))
    return _joined(f"{atoms.name}-filament", copies)


def cut(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """What lies on one side of a random plane, and perhaps of a second one."""
    keep = np.ones(len(atoms), bool)
    for share in (rng.uniform(0.45, 0.85), rng.uniform(0.5, 1.2)):
        height = atoms.positions_angstrom @ _random_rotation(rng)[2]
        keep &= height <= np.quantile(height, min(share, 1.0))
    if not keep.any():
        return replace(atoms, name=f"{atoms.name}-cut")
    part = Atoms(
        f"{atoms.name}-cut",
        atoms.positions_angstrom[keep],
        atoms.elements[keep],
        atoms.b_factors[keep],
        atoms.occupancies[keep],
    )
    return part.centred()


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation[2] *= np.sign(np.linalg.det(rotation))
    return rotation


def _carbon(positions_angstrom: np.ndarray) -> Atoms:
    count = len(positions_angstrom)
    b_factors = np.full(count, BELT_B_FACTOR, np.float32)
    ones = np.ones(count, np.float32)
    return Atoms("belt", positions_angstrom, np.full(count, CARBON), b_factors, ones)


def _joined(name: str, parts: Sequence[Atoms]) -> Atoms:
    joined = Atoms(
        name,
        np.concatenate([part.positions_angstrom for part in parts]),
        np.concatenate([part.elements for part in parts]),
        np.concatenate([part.b_factors for part in parts]),
        np.concatenate([part.occupancies for part in parts]),
    )
    return joined.centred()
