"""Complexes made by formula: protein-like structures that need no file, for demonstrations, tests
and as training structures.
"""

import re
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from dstnet.errors import SettingsError
from dstnet.structure.atoms import Atoms
from dstnet.structure.fold import ChainAtoms, Domain, fold_domain, unit

# Mean mass of a non-hydrogen atom of protein with its hydrogens: 110 Da a residue of 7.9 such
# atoms.
ATOM_DA = 13.93
DOMAIN_KDA = 25.0  # typical mass of a folding domain
# Point groups and how common they are.
CYCLIC_GROUPS = tuple(f"C{n}" for n in range(1, 9))
DIHEDRAL_GROUPS = tuple(f"D{n}" for n in range(2, 8))
GROUPS = (*CYCLIC_GROUPS, *DIHEDRAL_GROUPS, "T", "O")
GROUP_SHARES = np.array([1.5] + [1] * 13 + [0.6] * 2) / 15.7
CAGE_GROUPS = ("T", "O", "I")
CAGE_GROUP_SHARES = (0.4, 0.4, 0.2)
# Of the phantom of seed 0.
FIRST_GROUP = "D7"
FIRST_MASS_KDA = 550.0
LIGHTEST_KDA = 85.0
HEAVIEST_KDA = 1500.0
LIGHTEST_CHAIN_KDA = 12.0
HEAVIEST_CHAIN_KDA = 250.0
TOUCHING = 1.7  # distance of neighbouring domains in their radii
SHEET_SHARE = 0.35  # of the domains
ROOM_PER_ATOM_ANGSTROM3 = 16.8
DOMAIN_RADIUS_ANGSTROM = 23.0  # of a domain of the typical mass, as `_chain` begins with
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
    group, mass_kda = _draw_group_and_mass(rng, cage)
    if seed == 0 and not cage:
        group = FIRST_GROUP
        mass_kda = FIRST_MASS_KDA
    operators = _operators(group)
    domain_count = max(1, round(mass_kda / len(operators) / DOMAIN_KDA))
    domains = _arrange(rng, operators, domain_count, cage)
    kind = "cage" if cage else "phantom"
    return _complex(domains, operators, mass_kda, f"{kind}{seed}_{group}")


@dataclass(frozen=True)
class Shape:
    """What a stand-in for a real complex has in common with it.

    Attributes
    ----------
    symmetry
        Point group by Schoenflies: C1, C2, ..., D2, ..., T, O or I, its main axis along z.
    mass_kda
        Of the whole complex, without hydrogens.
    outline_angstrom
        The line along which one protomer lies, from point to point (x, y, z) of the whole complex'
        frame; none: as compact as can be.
    """

    symmetry: str
    mass_kda: float
    outline_angstrom: tuple[tuple[float, float, float], ...] = ()


def phantom_like(shape: Shape, name: str, seed: int = 0) -> Atoms:
    """A protein-like complex made by formula, of the symmetry, mass and outline of a real one: a
    stand-in where that cannot be had. See `phantom`.

    Parameters
    ----------
    shape
        What it has in common with the real one.
    name
        What to call it.
    seed
        Of its folds.

    Raises
    ------
    SettingsError
        If there is no such point group.
    """
    operators = _operators(checked_group(shape.symmetry))
    order = len(operators)
    rng = np.random.Generator(np.random.PCG64(seed))
    domain_count = max(1, round(shape.mass_kda / order / DOMAIN_KDA))
    line = np.array(shape.outline_angstrom) / DOMAIN_RADIUS_ANGSTROM
    if len(line):
        centres = _centres_along(rng, line, domain_count, operators)
    else:
        centres = _centres(rng, operators, domain_count, cage=False)
    domains = [_domain(rng, centre) for centre in centres]
    return _complex(domains, operators, shape.mass_kda, name)


def checked_group(symmetry: str) -> str:
    """A point group as `scipy` and this file write it.

    Raises
    ------
    SettingsError
        If there is no such group.
    """
    group = symmetry.strip().upper()
    if not re.fullmatch(r"[CD][1-9]\d?|[TOI]", group):
        raise SettingsError(f"{symmetry!r} is no point group; give C1, C2, ..., D2, ..., T, O or I")
    return group


def _complex(domains: list[Domain], operators: np.ndarray, mass_kda: float, name: str) -> Atoms:
    """All chains of a complex, of which one has these domains."""
    order = len(operators)
    chain = _chain(domains, operators, atoms=mass_kda * 1000 / ATOM_DA / order)
    positions = _copies(chain.positions, operators).reshape(-1, 3)
    atoms = Atoms(
        name=name,
        positions_angstrom=positions.astype(np.float32),
        elements=np.tile(chain.elements, order),
        b_factors=np.tile(chain.b_factors, order).astype(np.float32),
        occupancies=np.ones(len(positions), np.float32),
    )
    return atoms.centred()


def _draw_group_and_mass(rng: np.random.Generator, cage: bool) -> tuple[str, float]:
    """A point group, and a mass in kDa at which complex and chain are both within their range."""
    if cage:
        group = CAGE_GROUPS[rng.choice(len(CAGE_GROUPS), p=CAGE_GROUP_SHARES)]
    else:
        group = GROUPS[rng.choice(len(GROUPS), p=GROUP_SHARES)]
    order = len(_operators(group))
    lightest = max(LIGHTEST_KDA, LIGHTEST_CHAIN_KDA * order)
    heaviest = min(HEAVIEST_KDA, HEAVIEST_CHAIN_KDA * order)
    return group, lightest * (heaviest / lightest) ** rng.random()


def _chain(domains: list[Domain], operators: np.ndarray, atoms: float) -> ChainAtoms:
    """One chain of about so many atoms."""
    # Of a ball that holds a domain's share, and a fifth more, as balls do not fill space.
    radius_cubed = 3 * atoms * ROOM_PER_ATOM_ANGSTROM3 / len(domains) / (4 * np.pi)
    radius = 1.2 * radius_cubed ** (1 / 3)
    chain = _fill(domains, operators, radius)
    for _ in range(3):  # gaps and overlaps between domains decide what a radius holds
        found = len(chain.elements)
        if abs(found / atoms - 1) < 0.06:
            break
        missing = (atoms / max(1, found)) ** (1 / 3)
        radius *= np.clip(missing, 0.8, 1.25)
        chain = _fill(domains, operators, radius)
    return chain


def _copies(points: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """Points (n, 3) turned by each of the operators (g, 3, 3): (g, n, 3)."""
    return np.einsum("gij,nj->gni", operators, points)


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
    """Centres (3,) of the domains of one chain, in radii of a mean domain."""
    shell_radius = _shell_radius(count * len(operators)) if cage else 0.0
    centres: list[np.ndarray] = []
    for i in range(count):
        directions = unit(rng.normal(size=(64, 3)))
        if i > 0:
            start = centres[rng.integers(max(0, i - 2), i)]
            candidates = start + TOUCHING * directions
            centre = _best(candidates, centres, operators, shell_radius)
        elif len(operators) == 1:
            centre = np.zeros(3)
        else:
            centre = _first_centre(rng, directions, operators, shell_radius)
        centres.append(centre)
    return centres


def _centres_along(
    rng: np.random.Generator, line: np.ndarray, count: int, operators: np.ndarray
) -> list[np.ndarray]:
    """Centres (3,) of the domains of one chain, in radii of a mean domain, along a line of points
    (n, 3) in that unit: each as near as it can come to its own place on the line, touching an
    earlier one.
    """
    targets = _spread_over(line, count)
    centres: list[np.ndarray] = []
    for target in targets:
        directions = unit(rng.normal(size=(64, 3)))
        starts = np.array(centres) if centres else target[None]
        step = TOUCHING if centres else 0.3
        candidates = (starts[:, None] + step * directions).reshape(-1, 3)
        candidates = np.concatenate([candidates, target[None]])
        # Where nothing is free, the least crowded place is taken.
        taken = _copies(np.array(centres), operators).reshape(-1, 3) if centres else None
        apart = _apart(candidates, taken, operators)
        missed = np.linalg.norm(candidates - target, axis=1)
        score = np.where(apart > 0.95 * TOUCHING, -missed, 10 * (apart - 10))
        centres.append(candidates[np.argmax(score)])
    return centres


def _apart(points: np.ndarray, taken: np.ndarray | None, operators: np.ndarray) -> np.ndarray:
    """Distance of each point (n, 3) from the nearest of the taken ones and of its own copies."""
    apart = np.full(len(points), np.inf)
    if taken is not None:
        apart = np.linalg.norm(points[:, None] - taken, axis=2).min(axis=1)
    if len(operators) > 1:
        apart = np.minimum(apart, _from_copies(points, operators))
    return apart


def _spread_over(line: np.ndarray, count: int) -> np.ndarray:
    """Places (count, 3) at equal distances along a line of points (n, 3)."""
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate([[0.0], lengths.cumsum()])
    wanted = (np.arange(count) + 0.5) / count * along[-1]
    return np.stack([np.interp(wanted, along, line[:, axis]) for axis in range(3)], axis=1)


def _shell_radius(count: int) -> float:
    """Radius of a sphere on which so many domains touch, in radii of a domain."""
    # n discs a distance d apart cover 0.8 of a sphere of radius d sqrt(n 0.866 / (4 pi 0.8)), about
    # the best that symmetry lets them.
    return TOUCHING * np.sqrt(count * 0.866 / (4 * np.pi * 0.8))


def _first_centre(
    rng: np.random.Generator, directions: np.ndarray, operators: np.ndarray, shell_radius: float
) -> np.ndarray:
    """Where the first domain touches its own copies, or lies on the sphere where that is farther
    out; in one of the directions (n, 3) that part it most from them.
    """
    apart = _from_copies(directions, operators)
    widest = np.argsort(apart)[-4:]
    chosen = widest[rng.integers(4)]
    touching = TOUCHING / apart[chosen]
    return directions[chosen] * max(touching, shell_radius)


def _from_copies(points: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """Distance of each point (n, 3) from the nearest of its own copies by symmetry."""
    copies = _copies(points, operators[1:])  # the first is the identity
    return np.linalg.norm(points - copies, axis=2).min(axis=0)


def _best(
    candidates: np.ndarray, centres: list[np.ndarray], operators: np.ndarray, shell_radius: float
) -> np.ndarray:
    """Among the free places the nearest to the axis, which makes a compact complex, or the nearest
    to the sphere of radius `shell_radius`, which makes a cage.
    """
    taken = _copies(np.array(centres), operators).reshape(-1, 3)
    distances = np.linalg.norm(candidates[:, None] - taken, axis=2)
    apart = distances.min(axis=1)
    if len(operators) > 1:
        apart = np.minimum(apart, _from_copies(candidates, operators))
    is_free = apart > 0.95 * TOUCHING
    from_axis = np.linalg.norm(candidates, axis=1)
    off_shell = np.abs(from_axis - shell_radius)
    score = np.where(is_free, -off_shell, apart - 100)
    return candidates[np.argmax(score)]


def _domain(rng: np.random.Generator, centre: np.ndarray) -> Domain:
    vectors = rng.normal(size=(4, 3)) * 2.0
    phases = rng.uniform(0, 2 * np.pi, (4, 1))
    orthogonal, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    frame = orthogonal.T
    frame[2] *= np.sign(np.linalg.det(frame))  # a mirrored frame would make left-handed helices
    is_sheet = bool(rng.random() < SHEET_SHARE)
    return Domain(
        centre=centre,
        frame=frame,
        sheet=is_sheet,
        offset=rng.random(2),
        waves=np.concatenate([vectors, phases], axis=1),
        seed=int(rng.integers(1 << 32)),
    )


def _fill(domains: list[Domain], operators: np.ndarray, radius: float) -> ChainAtoms:
    """One chain whose domains have `radius` in Å."""
    relative_centres = np.array([domain.centre for domain in domains])
    centres = relative_centres * radius
    copies = _copies(centres, operators).reshape(-1, 3)
    parts = []
    for i, (domain, centre) in enumerate(zip(domains, centres, strict=True)):
        rivals = np.delete(copies, i, axis=0)  # the identity is the first operator
        depth = partial(_depth, domain=domain, centre=centre, rivals=rivals, radius=radius)
        part = fold_domain(domain, centre, radius, depth)
        parts.append(part)
    chain = ChainAtoms.joined(parts)
    tree = KDTree(chain.positions)
    pairs = tree.query_pairs(NEAREST_ATOMS_ANGSTROM, output_type="ndarray")
    is_kept = np.ones(len(chain.elements), bool)
    is_kept[pairs.max(axis=1)] = False  # of two atoms in one place
    return chain.part(is_kept)


def _depth(
    points: np.ndarray, *, domain: Domain, centre: np.ndarray, rivals: np.ndarray, radius: float
) -> np.ndarray:
    """How deep in Å each point lies inside the domain's own cell; negative outside."""
    away = points - centre
    distance = np.linalg.norm(away, axis=-1)
    wave_vectors = domain.waves[:, :3]
    phases = domain.waves[:, 3]
    waves = np.sin((away / radius) @ wave_vectors.T + phases)
    ripple = waves.sum(axis=-1)
    surface = radius * (1 + 0.07 * ripple)
    depth = surface - distance
    if len(rivals) == 0:
        return depth
    to_rivals = rivals - centre
    length = np.linalg.norm(to_rivals, axis=1)
    directions = to_rivals / length[:, None]
    from_borders = length / 2 - away @ directions.T
    return np.minimum(depth, from_borders.min(axis=-1))
