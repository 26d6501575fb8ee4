"""Shapes that structure files and phantoms hold few of: complexes in micelles, filaments, and asymmetric parts; made of what there is."""

from dataclasses import replace

import numpy as np
from scipy.spatial import KDTree

from dstnet.structure.atoms import Atoms

ATOMS_PER_ANGSTROM3 = 1 / 16.8  # of protein without hydrogens (`dstnet.potential`)


def _joined(name: str, parts: list[Atoms]) -> Atoms:
    return Atoms(
        name, *(np.concatenate([getattr(p, f) for p in parts]) for f in ("positions_angstrom", "elements", "b_factors", "occupancies"))
    ).centred()


def _axis(rng: np.random.Generator) -> np.ndarray:
    """A random rotation's rows."""
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    q[2] *= np.sign(np.linalg.det(q))
    return q


def in_micelle(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """A belt of detergent or lipid, 32 to 44 Å high, around the complex across a random axis and off its middle: carbon of 0.6 to 0.9 of
    protein's density, 12 to 28 Å wide."""
    frame = _axis(rng)
    own = atoms.positions_angstrom @ frame.T
    along = own[:, 2]
    middle = rng.uniform(np.percentile(along, 15), np.percentile(along, 85))
    half = rng.uniform(16, 22)
    slab = own[np.abs(along - middle) < half]
    if len(slab) < 50:
        return replace(atoms, name=f"{atoms.name}-micelle")
    centre = slab[:, :2].mean(0)
    reach = np.percentile(np.linalg.norm(slab[:, :2] - centre, axis=1), 90) + rng.uniform(12, 28)
    count = int(np.pi * reach**2 * 2 * half * ATOMS_PER_ANGSTROM3 * rng.uniform(0.6, 0.9))
    points = np.column_stack([rng.uniform(-reach, reach, (2 * count, 2)), rng.uniform(-half, half, 2 * count)])
    r = np.linalg.norm(points[:, :2], axis=1)
    # An ellipsoid's rim, so that the belt is rounded.
    points = points[(r / reach) ** 4 + (points[:, 2] / half) ** 4 < 1][:count]
    points[:, :2] += centre
    points[:, 2] += middle
    points = points[KDTree(own).query(points)[0] > 4.0]
    n = len(points)
    belt = Atoms("belt", (points @ frame).astype(np.float32), np.full(n, 6), np.full(n, 80, np.float32), np.ones(n, np.float32))
    return _joined(f"{atoms.name}-micelle", [atoms, belt])


def filament(atoms: Atoms, rng: np.random.Generator, longest_angstrom: float = 440.0) -> Atoms:
    """Copies of the atoms, moved and turned along an axis until they reach 200 to `longest_angstrom` Å."""
    own = atoms.positions_angstrom @ _axis(rng).T
    rise = float(np.ptp(np.percentile(own[:, 2], (5, 95)))) * rng.uniform(0.8, 1.0)
    turn = rng.uniform(0, 2 * np.pi)
    offset = rng.uniform(0, 0.5) * float(np.percentile(np.abs(own[:, 0]), 90))
    count = max(2, round(rng.uniform(200, longest_angstrom - float(np.ptp(own[:, 2]))) / max(rise, 8.0)))
    parts = []
    for i in range(count):
        c, s = np.cos(turn * i), np.sin(turn * i)
        place = (own + [offset, 0, 0]) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        parts.append(replace(atoms, positions_angstrom=(place + [0, 0, rise * i]).astype(np.float32)))
    return _joined(f"{atoms.name}-filament", parts)


def cut(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """What lies on one side of a random plane, and perhaps of a second one: 25 to 80 % of the atoms, of no symmetry."""
    keep = np.ones(len(atoms), bool)
    for part in (rng.uniform(0.45, 0.85), rng.uniform(0.5, 1.2)):
        height = atoms.positions_angstrom @ _axis(rng)[2]
        keep &= height < np.quantile(height, min(part, 1.0))
    if keep.sum() < 500:
        keep[:] = True
    return Atoms(
        f"{atoms.name}-cut", atoms.positions_angstrom[keep], atoms.elements[keep], atoms.b_factors[keep], atoms.occupancies[keep]
    ).centred()
