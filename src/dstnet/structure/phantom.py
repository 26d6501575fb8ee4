"""Complexes made by formula: protein-like structures that need no file, for demonstrations, tests
and as training structures.
"""

from functools import partial

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from dstnet.structure.atoms import Atoms
from dstnet.structure.fold import ChainAtoms, Domain, fold_domain

# mean mass of a non-hydrogen atom of protein with its hydrogens: 110 Da a residue of 7.9 such atoms
ATOM_DA = 13.93
DOMAIN_KDA = 25.0  # typical mass of a folding domain
# Point groups and how common they are.
CYCLIC_GROUPS = tuple(f"C{n}" for n in range(1, 9))
DIHEDRAL_GROUPS = tuple(f"D{n}" for n in range(2, 8))
GROUPS = (*CYCLIC_GROUPS, *DIHEDRAL_GROUPS, "T", "O")
GROUP_SHARES = np.array([1.5] + [1] * 13 + [0.6] * 2) / 15.7
CAGE_GROUPS = ("T", "O", "I")
CAGE_GROUP_SHARES = (0.4, 0.4, 0.2)
FIRST_GROUP, FIRST_MASS_KDA = "D7", 550.0  # of the phantom of seed 0
# Masses in kDa: of a complex, and of one of its chains.
LIGHTEST_KDA, HEAVIEST_KDA = 85.0, 1500.0
LIGHTEST_CHAIN_KDA, HEAVIEST_CHAIN_KDA = 12.0, 250.0
TOUCHING = 1.7  # distance of neighbouring domains in their radii
SHEET_SHARE = 0.35  # of the domains
ROOM_PER_ATOM_ANGSTROM3 = 16.8
NEAREST_ATOMS_ANGSTROM = 1.15  # two nearer ones are in one place


def phantom(seed: int = 0, cage: bool = False) -> Atoms:
    """A protein-like complex made by formula: symmetric, compact, with helices, sheets, loops and
    side chains at protein density.

    Point group (C1 to C8, D2 to D7, T, O), mass (80 kDa to 1.5 MDa), arrangement and folds are
    drawn from `seed`; seed 0 is a barrel of D7 symmetry and about 550 kDa. A `cage` is a hollow
    shell one domain thick, of symmetry T, O or I, as capsids, ferritins and carrier proteins are.
    There are no hydrogens. It is a stand-in for looks and statistics, not a structure with
    chemistry: neither sequence nor bond geometry is kept beyond the backbone's.

    Parameters
    ----------
    seed : int
        Equal seeds give equal structures on every machine, up to the rounding of its mathematics
        library.
    cage : bool
        A hollow one instead; seeds of both are independent.

    Raises
    ------
    ValueError
        If the seed is negative.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    if cage:
        group = CAGE_GROUPS[rng.choice(len(CAGE_GROUPS), p=CAGE_GROUP_SHARES)]
    else:
        group = GROUPS[rng.choice(len(GROUPS), p=GROUP_SHARES)]
    order = len(_operators(group))
    # Complex and chain both within their range.
    low = max(LIGHTEST_KDA, LIGHTEST_CHAIN_KDA * order)
    high = min(HEAVIEST_KDA, HEAVIEST_CHAIN_KDA * order)
    mass = low * (high / low) ** rng.random()
    if seed == 0 and not cage:
        group, mass = FIRST_GROUP, FIRST_MASS_KDA
    operators = _operators(group)
    order = len(operators)
    domains = _arrange(rng, operators, max(1, round(mass / order / DOMAIN_KDA)), cage)
    chain = _chain(domains, operators, atoms=mass * 1000 / ATOM_DA / order)
    positions = np.einsum("gij,nj->gni", operators, chain.positions).reshape(-1, 3)
    kind = "cage" if cage else "phantom"
    return Atoms(
        f"{kind}{seed}_{group}",
        positions.astype(np.float32),
        np.tile(chain.elements, order),
        np.tile(chain.b_factors, order).astype(np.float32),
        np.ones(len(positions), np.float32),
    ).centred()


def _chain(domains: list[Domain], operators: np.ndarray, atoms: float) -> ChainAtoms:
    """One chain of about so many atoms."""
    radius = 1.2 * (3 * atoms * ROOM_PER_ATOM_ANGSTROM3 / len(domains) / (4 * np.pi)) ** (1 / 3)
    chain = _fill(domains, operators, radius)
    for _ in range(3):  # gaps and overlaps between domains decide what a radius holds
        found = len(chain.elements)
        if abs(found / atoms - 1) < 0.06:
            break
        radius *= np.clip((atoms / max(1, found)) ** (1 / 3), 0.8, 1.25)
        chain = _fill(domains, operators, radius)
    return chain


def _operators(group: str) -> np.ndarray:
    """Rotation matrices (order, 3, 3) of a point group, the identity first."""
    matrices = Rotation.create_group(group).as_matrix()
    identity = int(np.argmax(np.trace(matrices, axis1=1, axis2=2)))
    return np.roll(matrices, -identity, axis=0)


def _arrange(
    rng: np.random.Generator, operators: np.ndarray, count: int, cage: bool
) -> list[Domain]:
    """Place `count` domains of one chain so that they touch each other and their symmetry copies
    but overlap little; of a cage, on a sphere.
    """
    centres = _centres(rng, operators, count, cage)
    return [_domain(rng, centre) for centre in centres]


def _centres(
    rng: np.random.Generator, operators: np.ndarray, count: int, cage: bool
) -> list[np.ndarray]:
    # n discs a distance d apart cover 0.8 of a sphere of radius d sqrt(n 0.866 / (4 pi 0.8)), about
    # the best that symmetry lets them.
    shell = 0.0
    if cage:
        shell = TOUCHING * np.sqrt(count * len(operators) * 0.866 / (4 * np.pi * 0.8))
    others = operators[1:]
    centres: list[np.ndarray] = []
    for i in range(count):
        directions = rng.normal(size=(64, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        if i > 0:
            start = centres[rng.integers(max(0, i - 2), i)]
            candidates = start + TOUCHING * directions
            centres.append(_best(candidates, centres, operators, shell))
        elif len(others) == 0:
            centres.append(np.zeros(3))
        else:
            apart = _from_copies(directions, others)
            best = np.argsort(apart)[-4:][rng.integers(4)]
            centres.append(directions[best] * max(TOUCHING / apart[best], shell))
    return centres


def _from_copies(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of each point (n, 3) from the nearest of its own copies by symmetry."""
    copies = np.einsum("gij,nj->gni", others, points)
    return np.linalg.norm(points - copies, axis=2).min(axis=0)


def _best(
    candidates: np.ndarray, centres: list[np.ndarray], operators: np.ndarray, shell: float
) -> np.ndarray:
    """Among the free places the nearest to the axis, which makes a compact complex, or the nearest
    to the sphere of radius `shell`, which makes a cage.
    """
    taken = np.einsum("gij,nj->gni", operators, np.array(centres)).reshape(-1, 3)
    apart = np.linalg.norm(candidates[:, None] - taken, axis=2).min(axis=1)
    if len(operators) > 1:
        apart = np.minimum(apart, _from_copies(candidates, operators[1:]))
    free = apart > 0.95 * TOUCHING
    off = np.abs(np.linalg.norm(candidates, axis=1) - shell)
    score = np.where(free, -off, apart - 100)
    return candidates[np.argmax(score)]


def _domain(rng: np.random.Generator, centre: np.ndarray) -> Domain:
    vectors = rng.normal(size=(4, 3)) * 2.0
    phases = rng.uniform(0, 2 * np.pi, (4, 1))
    frame = np.linalg.qr(rng.normal(size=(3, 3)))[0].T
    frame[2] *= np.sign(np.linalg.det(frame))  # a mirrored frame would make left-handed helices
    return Domain(
        centre=centre,
        frame=frame,
        sheet=bool(rng.random() < SHEET_SHARE),
        offset=rng.random(2),
        waves=np.concatenate([vectors, phases], axis=1),
        seed=int(rng.integers(1 << 32)),
    )


def _fill(domains: list[Domain], operators: np.ndarray, radius: float) -> ChainAtoms:
    """One chain whose domains have `radius` in Å."""
    centres = np.array([domain.centre for domain in domains]) * radius
    copies = np.einsum("gij,nj->gni", operators, centres)  # [operator, domain, xyz]
    parts = []
    for i, domain in enumerate(domains):
        rivals = np.delete(copies.reshape(-1, 3), i, axis=0)  # the identity is the first operator
        depth = partial(_depth, domain=domain, centre=centres[i], rivals=rivals, radius=radius)
        parts.append(fold_domain(domain, centres[i], radius, depth))
    positions = np.concatenate([part.positions for part in parts])
    elements = np.concatenate([part.elements for part in parts])
    b_factors = np.concatenate([part.b_factors for part in parts])
    keep = np.ones(len(elements), bool)
    pairs = KDTree(positions).query_pairs(NEAREST_ATOMS_ANGSTROM, output_type="ndarray")
    keep[pairs.max(axis=1)] = False  # of two atoms in one place
    return ChainAtoms(positions[keep], elements[keep], b_factors[keep])


def _depth(
    points: np.ndarray, *, domain: Domain, centre: np.ndarray, rivals: np.ndarray, radius: float
) -> np.ndarray:
    """How deep in Å each point lies inside the domain's own cell; negative outside."""
    away = points - centre
    distance = np.linalg.norm(away, axis=-1)
    waves = np.sin((away / radius) @ domain.waves[:, :3].T + domain.waves[:, 3])
    depth = radius * (1 + 0.07 * waves.sum(axis=-1)) - distance
    if len(rivals) == 0:
        return depth
    gap = rivals - centre
    length = np.linalg.norm(gap, axis=1)
    from_borders = length / 2 - away @ (gap / length[:, None]).T
    return np.minimum(depth, from_borders.min(axis=-1))
