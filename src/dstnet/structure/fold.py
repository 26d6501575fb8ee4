"""The fold of a domain: parallel helices or strands, loops between them, side chains."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

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
# G; A; S C; T V P; L I N D M; Q E K; H; R F; Y; W
SIDE_CHAIN_SIZES = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 10])
SIDE_CHAIN_SHARES = np.array([7.1, 8.3, 8.0, 17.0, 27.3, 15.9, 2.3, 9.4, 2.9, 1.1])
# Elements past C-beta, so that all atoms come out near 63:17:19:1 for C:N:O:S.
SIDE_CHAIN_ELEMENTS = np.array([6, 7, 8, 16])
SIDE_CHAIN_ELEMENT_SHARES = np.array([0.68, 0.12, 0.175, 0.025])
BOND_ANGSTROM = 1.52
# Cells of the lattice of rods, (across, along, rise a residue) in Å. They hold a residue's volume:
# helices 10.2 x 9.0 x 1.5, strands 4.8 x 9.0 x 3.3 Å3, about 140 Å3 for 7.9 atoms.
HELIX_CELL = (9.0, 10.2, 1.5)
STRAND_CELL = (9.0, 4.8, 3.3)
REACH = 1.3  # of the lattice, in radii of the domain
ROD_DEPTH_ANGSTROM, LOOP_DEPTH_ANGSTROM = 3.0, 1.0  # least depth of residues in the domain
SHORTEST_ROD = 4  # residues
ROD_B_FACTOR, LOOP_B_FACTOR, SIDE_CHAIN_B_FACTOR = 25.0, 45.0, 10  # the last is added


@dataclass(frozen=True)
class Domain:
    """A ball-like domain filled with parallel helices or with stacked sheets.

    Attributes
    ----------
    centre
        (3,), in radii of a mean domain.
    frame
        (3, 3), rows are the axes of the packing; the last runs along helices or strands.
    sheet
        Stacked sheets, else helices.
    offset
        (2,), of the lattice of rods, in its cells.
    waves
        (4, 4), wave vectors and phases of the ripples that make the surface uneven.
    seed
        Of its fold.
    """

    centre: np.ndarray
    frame: np.ndarray
    sheet: bool
    offset: np.ndarray
    waves: np.ndarray
    seed: int


@dataclass(frozen=True)
class ChainAtoms:
    """Atoms of a part of a chain: positions (n, 3) in Å, elements (n,), B-factors (n,) in Å2."""

    positions: np.ndarray
    elements: np.ndarray
    b_factors: np.ndarray

    @classmethod
    def none(cls) -> "ChainAtoms":
        """No atoms."""
        return cls(np.zeros((0, 3)), np.zeros(0, int), np.zeros(0))


def fold_domain(
    domain: Domain,
    centre: np.ndarray,
    radius: float,
    depth: Callable[[np.ndarray], np.ndarray],
) -> ChainAtoms:
    """Atoms of one domain: parallel rods on a lattice, up and down in turn, joined by loops.

    Parameters
    ----------
    domain
        What is folded; equal ones come out equal.
    centre
        (3,) in Å.
    radius
        In Å.
    depth
        How deep in Å points (..., 3) lie inside the domain's own cell; negative outside.
    """
    rng = np.random.Generator(np.random.PCG64(domain.seed))

    def place(local: np.ndarray) -> np.ndarray:
        return local @ domain.frame + centre

    atoms = []
    outwards = []
    ends = []
    for axis, up in _rods(rng, domain, radius):
        inside = np.flatnonzero(depth(place(axis)) > ROD_DEPTH_ANGSTROM)
        if len(inside) < SHORTEST_ROD:
            continue
        rod = axis[inside[0] : inside[-1] + 1]
        make = _strand if domain.sheet else _helix
        backbone, outward = make(rod, up, rng)
        atoms.append(backbone)
        outwards.append(outward)
        ends.append((rod[0], rod[-1]))
    if not atoms:
        return ChainAtoms.none()
    in_rods = sum(map(len, atoms))
    for (_, start), (end, _) in pairwise(ends):
        backbone, outward = _loop(rng, start, end)
        inside = depth(place(backbone[:, 1])) > LOOP_DEPTH_ANGSTROM
        atoms.append(backbone[inside])
        outwards.append(outward[inside])
    backbone = np.concatenate(atoms)
    b_factors = np.where(np.arange(len(backbone)) < in_rods, ROD_B_FACTOR, LOOP_B_FACTOR)
    side, side_elements, owner = _side_chains(rng, backbone[:, 1], np.concatenate(outwards))
    positions = np.concatenate([backbone.reshape(-1, 3), side])
    backbone_elements = np.tile(BACKBONE_ELEMENTS, len(backbone))
    side_b_factors = b_factors[owner] + SIDE_CHAIN_B_FACTOR
    return ChainAtoms(
        place(positions),
        np.concatenate([backbone_elements, side_elements]),
        np.concatenate([np.repeat(b_factors, 4), side_b_factors]),
    )


def _rods(
    rng: np.random.Generator, domain: Domain, radius: float
) -> Iterator[tuple[np.ndarray, float]]:
    """Axes (n, 3) of the rods within reach, in the domain's frame, a residue each, and 1 or -1 for
    up or down; neighbours follow each other.
    """
    across, along, rise = STRAND_CELL if domain.sheet else HELIX_CELL
    reach = int(np.ceil(REACH * radius / min(across, along)))
    steps = int(np.ceil(REACH * radius / rise))
    for row in range(-reach, reach + 1):
        columns = range(-reach, reach + 1)
        shift = 0.0 if domain.sheet else 0.5 * (row % 2)  # helices pack hexagonally
        for column in columns if row % 2 == 0 else reversed(columns):
            y = (row + domain.offset[0]) * across
            x = (column + domain.offset[1] + shift) * along
            foot = np.array([y, x]) + rng.normal(0, 0.5, 2)
            if np.linalg.norm(foot) > REACH * radius:
                continue
            up = 1.0 if (row + column) % 2 == 0 else -1.0
            tilt = rng.normal(0, 0.09, 2)
            height = (np.arange(-steps, steps + 1) + rng.random()) * rise * up
            yield np.column_stack([foot + height[:, None] * tilt, height]), up


def _helix(axis: np.ndarray, up: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Backbone (n, 4, 3) and outward directions (n, 3) of a right-handed helix whose residues sit
    at `axis` (n, 3).
    """
    radius, angle, rise = np.array(HELIX).T
    turn = np.radians(100.0 * np.arange(len(axis))[:, None] + angle)
    turn = turn + rng.uniform(0, 2 * np.pi)
    # Downward, x and z change sign together: a half turn about y, which keeps the hand.
    x = up * radius * np.cos(turn)
    y = radius * np.sin(turn)
    z = np.broadcast_to(up * rise, turn.shape)
    local = np.stack([x, y, z], axis=-1)
    outward = local[:, 1] * [1, 1, 0]
    return axis[:, None] + local, outward / np.linalg.norm(outward, axis=1, keepdims=True)


def _strand(axis: np.ndarray, up: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Backbone (n, 4, 3) and outward directions (n, 3) of an extended strand whose residues sit at
    `axis` (n, 3).
    """
    number = np.arange(len(axis)) + rng.integers(2)
    side = np.where(number % 2 == 0, 1.0, -1.0)[:, None]
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
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bulge + t**2 * end
    path = curve + rng.normal(0, 0.7, (count, 3))
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
        spread = 0.3 if j == 0 else 0.7
        step = rng.normal(size=(n, 3)) * spread + outward
        step *= BOND_ANGSTROM / np.linalg.norm(step, axis=1, keepdims=True)
        # Every third atom goes on from the one before its forerunner: side chains branch and ring
        # rather than reach out.
        forerunner = j - 2 if j % 3 == 2 else j - 1
        start = alpha if j == 0 else chain[:, forerunner]
        chain[:, j] = start + step
    present = np.arange(longest) < sizes[:, None]
    elements = rng.choice(SIDE_CHAIN_ELEMENTS, (n, longest), p=SIDE_CHAIN_ELEMENT_SHARES)
    elements[:, 0] = 6
    return chain[present], elements[present], np.nonzero(present)[0]
