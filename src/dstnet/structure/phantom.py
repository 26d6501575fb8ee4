"""Complexes made by formula: protein-like structures that need no file, for demonstrations, tests
and as training structures.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from dstnet.structure.atoms import Atoms

# mean mass of a non-hydrogen atom of protein with its hydrogens: 110 Da a residue of 7.9 such atoms
ATOM_DA = 13.93
DOMAIN_KDA = 25.0  # typical mass of a folding domain
GROUPS = (
    "C1",
    "C2",
    "C3",
    "C4",
    "C5",
    "C6",
    "C7",
    "C8",
    "D2",
    "D3",
    "D4",
    "D5",
    "D6",
    "D7",
    "T",
    "O",
)
CAGE_GROUPS = ("T", "O", "I")
TOUCHING = 1.7  # distance of neighbouring domains in their radii

# Backbone atoms of an alpha helix in cylindrical coordinates about its axis: radius in Angstrom,
# angle in degrees, rise in Angstrom, for N, CA, C, O (Arnott & Dover 1967); 1.5 Angstrom and 100
# degrees a residue.
HELIX = ((1.55, -27.6, -0.89), (2.29, 0.0, 0.0), (1.66, 26.7, 1.11), (1.92, 20.0, 2.33))
# The same for an extended strand as (across the sheet, along the sheet, along the strand), mirrored
# for every other residue.
STRAND = ((0.35, 0.0, -1.0), (0.9, 0.1, 0.0), (-0.2, 0.3, 1.0), (-0.2, 1.5, 1.1))
BACKBONE_ELEMENTS = np.array([7, 6, 6, 8])
# Sizes of side chains in non-hydrogen atoms and how common they are in proteins (UniProt
# frequencies, %).
SIDE_CHAIN_SIZES = np.array(
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]
)  # G; A; S C; T V P; L I N D M; Q E K; H; R F; Y; W
SIDE_CHAIN_SHARES = np.array([7.1, 8.3, 8.0, 17.0, 27.3, 15.9, 2.3, 9.4, 2.9, 1.1])
# Elements past C-beta, so that the whole comes out near 63:17:19:1 for C:N:O:S.
SIDE_CHAIN_ELEMENTS, SIDE_CHAIN_ELEMENT_SHARES = (
    np.array([6, 7, 8, 16]),
    np.array([0.68, 0.12, 0.175, 0.025]),
)


@dataclass(frozen=True)
class _Domain:
    """A ball-like domain filled with parallel helices or with stacked sheets."""

    centre: np.ndarray  # (3,), in radii of a mean domain
    frame: (
        np.ndarray
    )  # (3, 3), rows are the axes of the packing; the last runs along helices or strands
    sheet: bool
    offset: np.ndarray  # (2,), of the lattice of rods, in its cells
    waves: np.ndarray  # (4, 4), wave vectors and phases of the ripples that make the surface uneven
    seed: int


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
        group = CAGE_GROUPS[rng.choice(len(CAGE_GROUPS), p=(0.4, 0.4, 0.2))]
    else:
        group = GROUPS[rng.choice(len(GROUPS), p=np.array([1.5] + [1] * 13 + [0.6] * 2) / 15.7)]
    operators = _operators(group)
    order = len(operators)
    # A chain of 12 to 250 kDa, within the range of the whole.
    low, high = max(85.0, 12.0 * order), min(1500.0, 250.0 * order)
    mass = low * (high / low) ** rng.random()
    if seed == 0 and not cage:
        group, mass = "D7", 550.0
        operators = _operators(group)
        order = len(operators)
    domains = _arrange(rng, operators, max(1, round(mass / order / DOMAIN_KDA)), cage)
    target = mass * 1000 / ATOM_DA / order  # atoms of one chain

    radius = 1.2 * (3 * target * 16.8 / len(domains) / (4 * np.pi)) ** (1 / 3)
    for _ in range(4):  # gaps and overlaps between domains decide what a radius holds
        positions, elements, b_factors = _fill(domains, operators, radius)
        if abs(len(elements) / target - 1) < 0.06:
            break
        radius *= np.clip((target / max(1, len(elements))) ** (1 / 3), 0.8, 1.25)
    whole = np.einsum("gij,nj->gni", operators, positions).reshape(-1, 3)
    return Atoms(
        f"{'cage' if cage else 'phantom'}{seed}_{group}",
        whole.astype(np.float32),
        np.tile(elements, order),
        np.tile(b_factors, order).astype(np.float32),
        np.ones(len(whole), np.float32),
    ).centred()


def _operators(group: str) -> np.ndarray:
    """Rotation matrices (order, 3, 3) of a point group, the identity first."""
    matrices = Rotation.create_group(group).as_matrix()
    identity = int(np.argmax(np.trace(matrices, axis1=1, axis2=2)))
    return np.roll(matrices, -identity, axis=0)


def _arrange(
    rng: np.random.Generator, operators: np.ndarray, count: int, cage: bool
) -> list[_Domain]:
    """Place `count` domains of one chain so that they touch each other and their symmetry copies
    but overlap little; of a cage, on a sphere.
    """
    # n discs a distance d apart cover 0.8 of a sphere of radius d sqrt(n 0.866 / (4 pi 0.8)), about
    # the best that symmetry lets them.
    shell = TOUCHING * np.sqrt(count * len(operators) * 0.866 / (4 * np.pi * 0.8)) if cage else 0.0
    centres: list[np.ndarray] = []
    others = operators[1:]
    for i in range(count):
        directions = rng.normal(size=(64, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        if i == 0:
            if len(others) == 0:
                centres.append(np.zeros(3))
                continue
            apart = np.linalg.norm(
                directions - np.einsum("gij,nj->gni", others, directions), axis=2
            ).min(axis=0)
            best = np.argsort(apart)[-4:][rng.integers(4)]
            centres.append(directions[best] * max(TOUCHING / apart[best], shell))
            continue
        candidates = centres[rng.integers(max(0, i - 2), i)] + TOUCHING * directions
        mine = np.einsum("gij,nj->gni", operators, np.array(centres)).reshape(-1, 3)
        apart = np.linalg.norm(candidates[:, None] - mine, axis=2).min(axis=1)
        if len(others):
            apart = np.minimum(
                apart,
                np.linalg.norm(
                    candidates - np.einsum("gij,nj->gni", others, candidates), axis=2
                ).min(axis=0),
            )
        free = apart > 0.95 * TOUCHING
        # Among the free places the nearest to the axis makes a compact complex, the nearest to the
        # sphere a cage.
        score = np.where(free, -np.abs(np.linalg.norm(candidates, axis=1) - shell), apart - 100)
        centres.append(candidates[np.argmax(score)])
    domains = []
    for centre in centres:
        waves = np.concatenate(
            [rng.normal(size=(4, 3)) * 2.0, rng.uniform(0, 2 * np.pi, (4, 1))], axis=1
        )
        frame = np.linalg.qr(rng.normal(size=(3, 3)))[0].T
        frame[2] *= np.sign(np.linalg.det(frame))  # a mirrored frame would make left-handed helices
        domains.append(
            _Domain(
                centre,
                frame,
                bool(rng.random() < 0.35),
                rng.random(2),
                waves,
                int(rng.integers(1 << 32)),
            )
        )
    return domains


def _fill(
    domains: list[_Domain], operators: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (n, 3), elements (n,) and B-factors (n,) of one chain whose domains have `radius`
    in Å.
    """
    centres = np.array([d.centre for d in domains]) * radius
    copies = np.einsum("gij,nj->gni", operators, centres)  # [operator, domain, xyz]
    parts = []
    for i, domain in enumerate(domains):
        rivals = np.delete(copies.reshape(-1, 3), i, axis=0)  # the identity is the first operator

        def room(points: np.ndarray, domain=domain, centre=centres[i], rivals=rivals) -> np.ndarray:
            """How deep in Å each point lies inside the domain's own cell; negative outside."""
            away = points - centre
            distance = np.linalg.norm(away, axis=-1)
            ripple = np.sin((away / radius) @ domain.waves[:, :3].T + domain.waves[:, 3]).sum(
                axis=-1
            )
            depth = radius * (1 + 0.07 * ripple) - distance
            if len(rivals):
                gap = rivals - centre
                length = np.linalg.norm(gap, axis=1)
                depth = np.minimum(
                    depth, (length / 2 - away @ (gap / length[:, None]).T).min(axis=-1)
                )
            return depth

        rng = np.random.Generator(np.random.PCG64(domain.seed))
        parts.append(_fold(rng, domain, centres[i], radius, room))
    positions, elements, b_factors = (
        np.concatenate(columns) for columns in zip(*parts, strict=True)
    )
    keep = np.ones(len(elements), bool)
    pairs = KDTree(positions).query_pairs(1.15, output_type="ndarray")
    keep[pairs.max(axis=1)] = False  # of two atoms in one place
    return positions[keep], elements[keep], b_factors[keep]


def _fold(
    rng: np.random.Generator, domain: _Domain, centre: np.ndarray, radius: float, room
) -> tuple[np.ndarray, ...]:
    """Atoms of one domain: parallel rods on a lattice, up and down in turn, joined by loops."""
    # The cells hold a residue's volume: helices 10.2 x 9.0 x 1.5, strands 4.8 x 9.0 x 3.3 Å3, about
    # 140 Å3 for 7.9 atoms.
    across, along, rise = (9.0, 4.8, 3.3) if domain.sheet else (9.0, 10.2, 1.5)
    reach = int(np.ceil(1.3 * radius / min(across, along)))
    steps = int(np.ceil(1.3 * radius / rise))
    atoms, residues, loops = [], [], []
    last = None
    for row in range(-reach, reach + 1):
        columns = range(-reach, reach + 1)
        for column in columns if row % 2 == 0 else reversed(columns):
            shifted = (
                column + domain.offset[1] + (0.5 * (row % 2) if not domain.sheet else 0.0)
            )  # helices pack hexagonally
            foot = np.array([(row + domain.offset[0]) * across, shifted * along]) + rng.normal(
                0, 0.5, 2
            )
            if np.linalg.norm(foot) > 1.3 * radius:
                continue
            up = 1.0 if (row + column) % 2 == 0 else -1.0
            tilt = rng.normal(0, 0.09, 2)
            height = (np.arange(-steps, steps + 1) + rng.random()) * rise * up
            axis = np.column_stack([foot + height[:, None] * tilt, height])  # in the domain's frame
            inside = np.flatnonzero(room(axis @ domain.frame + centre) > 3.0)
            if len(inside) < 4:
                continue
            axis = axis[inside[0] : inside[-1] + 1]
            backbone, outward = (_strand if domain.sheet else _helix)(axis, up, rng)
            atoms.append(backbone)
            residues.append(outward)
            if last is not None:
                loops.append((last, axis[0]))
            last = axis[-1]
    for start, end in loops:
        backbone, outward = _loop(rng, start, end)
        inside = room(backbone[:, 1] @ domain.frame + centre) > 1.0
        atoms.append(backbone[inside])
        residues.append(outward[inside])
    if not atoms:
        return np.zeros((0, 3)), np.zeros(0, int), np.zeros(0)
    backbone, outward = np.concatenate(atoms), np.concatenate(residues)
    in_rods = sum(map(len, atoms[: len(atoms) - len(loops)]))
    mobile = np.where(np.arange(len(backbone)) < in_rods, 25.0, 45.0)
    side, side_elements, owner = _side_chains(rng, backbone[:, 1], outward)
    positions = np.concatenate([backbone.reshape(-1, 3), side])
    elements = np.concatenate([np.tile(BACKBONE_ELEMENTS, len(backbone)), side_elements])
    b_factors = np.concatenate([np.repeat(mobile, 4), mobile[owner] + 10])
    return positions @ domain.frame + centre, elements, b_factors


def _helix(axis: np.ndarray, up: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Backbone (n, 4, 3) and outward directions (n, 3) of a right-handed helix whose residues sit
    at `axis` (n, 3).
    """
    radius, angle, rise = np.array(HELIX).T
    turn = np.radians(100.0 * np.arange(len(axis))[:, None] + angle) + rng.uniform(0, 2 * np.pi)
    # Downward, x and z change sign together: a half turn about y, which keeps the hand.
    local = np.stack(
        [up * radius * np.cos(turn), radius * np.sin(turn), np.broadcast_to(up * rise, turn.shape)],
        axis=-1,
    )
    outward = local[:, 1] * [1, 1, 0]
    return axis[:, None] + local, outward / np.linalg.norm(outward, axis=1, keepdims=True)


def _strand(axis: np.ndarray, up: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Backbone (n, 4, 3) and outward directions (n, 3) of an extended strand whose residues sit at
    `axis` (n, 3).
    """
    side = np.where((np.arange(len(axis)) + rng.integers(2)) % 2 == 0, 1.0, -1.0)[:, None]
    x, y, z = np.array(STRAND).T
    local = np.stack([side * x, side * y, np.broadcast_to(up * z, (len(axis), 4))], axis=-1)
    outward = np.zeros((len(axis), 3))
    outward[:, 0] = side[:, 0]
    return axis[:, None] + local, outward


def _loop(
    rng: np.random.Generator, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Backbone (n, 4, 3) and outward directions (n, 3) of a loop from `start` to `end`, bulging
    along the rods' axis.
    """
    bulge = (start + end) / 2 + [0, 0, 8.0 * np.sign(start[2])] + rng.normal(0, 2.0, 3)
    count = max(2, int(1.2 * np.linalg.norm(end - start) / 3.4))
    t = ((np.arange(count) + 0.5) / count)[:, None]
    path = (
        (1 - t) ** 2 * start + 2 * t * (1 - t) * bulge + t**2 * end + rng.normal(0, 0.7, (count, 3))
    )
    outward = rng.normal(size=(count, 3))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    aside = np.cross(along, outward)
    backbone = np.stack(
        [
            path - 1.2 * along + 0.7 * aside,
            path,
            path + 1.2 * along + 0.8 * aside,
            path + 1.3 * along + 2.0 * aside,
        ],
        axis=1,
    )
    return backbone, outward


def _side_chains(
    rng: np.random.Generator, alpha: np.ndarray, outward: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Side-chain atoms (m, 3), their elements (m,) and residues (m,): branched walks from the CA
    atoms `alpha` (n, 3) outward.
    """
    n = len(alpha)
    sizes = rng.choice(SIDE_CHAIN_SIZES, n, p=SIDE_CHAIN_SHARES / SIDE_CHAIN_SHARES.sum())
    longest = int(SIDE_CHAIN_SIZES.max())
    chain = np.empty((n, longest, 3))
    for j in range(longest):
        step = rng.normal(size=(n, 3)) * (0.3 if j == 0 else 0.7) + outward
        step *= 1.52 / np.linalg.norm(step, axis=1, keepdims=True)
        # Every third atom goes on from the one before its forerunner: side chains branch and ring
        # rather than reach out.
        chain[:, j] = (
            alpha if j == 0 else chain[:, j - 2] if j % 3 == 2 else chain[:, j - 1]
        ) + step
    present = np.arange(longest) < sizes[:, None]
    elements = rng.choice(SIDE_CHAIN_ELEMENTS, (n, longest), p=SIDE_CHAIN_ELEMENT_SHARES)
    elements[:, 0] = 6
    return chain[present], elements[present], np.nonzero(present)[0]
