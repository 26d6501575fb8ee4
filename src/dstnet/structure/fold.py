"""The fold of a domain: parallel helices or strands, loops between them, side chains."""

import math
from collections.abc import Callable, Iterator, Sequence
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
# Least depth of residues in the domain.
ROD_DEPTH_ANGSTROM = 3.0
LOOP_DEPTH_ANGSTROM = 1.0
SHORTEST_ROD = 4  # residues
ROD_B_FACTOR = 25.0
LOOP_B_FACTOR = 45.0
SIDE_CHAIN_B_FACTOR = 10  # on top of its residue's


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

    @classmethod
    def joined(cls, parts: Sequence["ChainAtoms"]) -> "ChainAtoms":
        """All atoms, in the parts' order."""
        positions = np.concatenate([part.positions for part in parts])
        elements = np.concatenate([part.elements for part in parts])
        b_factors = np.concatenate([part.b_factors for part in parts])
        return cls(positions, elements, b_factors)

    def part(self, chosen: np.ndarray) -> "ChainAtoms":
        """The atoms where `chosen`, bool (n,), is true."""
        return ChainAtoms(self.positions[chosen], self.elements[chosen], self.b_factors[chosen])


@dataclass(frozen=True)
class _Segment:
    """Residues in a row.

    Attributes
    ----------
    backbone
        (n, 4, 3), positions of N, CA, C and O in Å.
    outward
        (n, 3), unit vectors along which the side chains set out.
    """

    backbone: np.ndarray
    outward: np.ndarray

    @property
    def alpha(self) -> np.ndarray:
        """Positions (n, 3) of the CA atoms."""
        return self.backbone[:, 1]

    def part(self, chosen: np.ndarray) -> "_Segment":
        """The residues where `chosen`, bool (n,), is true."""
        return _Segment(self.backbone[chosen], self.outward[chosen])

    @classmethod
    def joined(cls, segments: Sequence["_Segment"]) -> "_Segment":
        """All residues, in the segments' order."""
        backbone = np.concatenate([segment.backbone for segment in segments])
        outward = np.concatenate([segment.outward for segment in segments])
        return cls(backbone, outward)


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

    segments: list[_Segment] = []
    rods: list[np.ndarray] = []
    build = _strand if domain.sheet else _helix
    for axis, up in _rod_axes(rng, domain, radius):
        inside = np.flatnonzero(depth(place(axis)) > ROD_DEPTH_ANGSTROM)
        if len(inside) < SHORTEST_ROD:
            continue
        rod = axis[inside[0] : inside[-1] + 1]
        segments.append(build(rod, up, rng))
        rods.append(rod)
    if not rods:
        return ChainAtoms.none()
    residues_in_rods = sum(map(len, rods))
    for rod, next_rod in pairwise(rods):
        loop = _loop(rng, rod[-1], next_rod[0])
        inside = depth(place(loop.alpha)) > LOOP_DEPTH_ANGSTROM
        segments.append(loop.part(inside))
    residues = _Segment.joined(segments)
    count = len(residues.backbone)
    in_rod = np.arange(count) < residues_in_rods
    b_factors = np.where(in_rod, ROD_B_FACTOR, LOOP_B_FACTOR)
    side, side_elements, owner = _side_chains(rng, residues)
    side_b_factors = b_factors[owner] + SIDE_CHAIN_B_FACTOR
    backbone = ChainAtoms(
        residues.backbone.reshape(-1, 3),
        np.tile(BACKBONE_ELEMENTS, count),
        np.repeat(b_factors, len(BACKBONE_ELEMENTS)),
    )
    local = ChainAtoms.joined([backbone, ChainAtoms(side, side_elements, side_b_factors)])
    return ChainAtoms(place(local.positions), local.elements, local.b_factors)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, 3) brought to length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _rod_axes(
    rng: np.random.Generator, domain: Domain, radius: float
) -> Iterator[tuple[np.ndarray, float]]:
    """Axes (n, 3) of the rods within reach, in the domain's frame, a residue each, and 1 or -1 for
    up or down; neighbours follow each other.
    """
    across, along, rise = STRAND_CELL if domain.sheet else HELIX_CELL
    farthest = REACH * radius
    reach = math.ceil(farthest / min(across, along))
    steps = math.ceil(farthest / rise)
    for row, column in _back_and_forth(reach):
        shift = 0.0
        if not domain.sheet:
            shift = 0.5 * (row % 2)  # helices pack hexagonally
        offset_y, offset_x = domain.offset
        y = (row + offset_y) * across
        x = (column + offset_x + shift) * along
        foot = np.array([y, x]) + rng.normal(0, 0.5, 2)
        if np.linalg.norm(foot) > farthest:
            continue
        up = 1.0 if (row + column) % 2 == 0 else -1.0
        tilt = rng.normal(0, 0.09, 2)
        number = np.arange(-steps, steps + 1) + rng.random()
        height = number * rise * up
        leaning = foot + height[:, None] * tilt
        yield np.column_stack([leaning, height]), up


def _back_and_forth(reach: int) -> Iterator[tuple[int, int]]:
    """Rows and columns from -`reach` to `reach`, every other row backwards."""
    columns = range(-reach, reach + 1)
    for row in range(-reach, reach + 1):
        for column in columns if row % 2 == 0 else reversed(columns):
            yield row, column


def _helix(axis: np.ndarray, up: float, rng: np.random.Generator) -> _Segment:
    """A right-handed helix whose residues sit at `axis` (n, 3)."""
    radius, angle_deg, rise = np.array(HELIX).T
    residue = np.arange(len(axis))[:, None]
    angle = np.radians(100.0 * residue + angle_deg)
    angle = angle + rng.uniform(0, 2 * np.pi)
    # Downward, x and z change sign together: a half turn about y, which keeps the hand.
    x = up * radius * np.cos(angle)
    y = radius * np.sin(angle)
    z = np.broadcast_to(up * rise, angle.shape)
    local = np.stack([x, y, z], axis=-1)
    backbone = axis[:, None] + local
    from_axis = local[:, 1] * [1, 1, 0]
    return _Segment(backbone, unit(from_axis))


def _strand(axis: np.ndarray, up: float, rng: np.random.Generator) -> _Segment:
    """An extended strand whose residues sit at `axis` (n, 3)."""
    count = len(axis)
    residue = np.arange(count) + rng.integers(2)
    side = np.where(residue % 2 == 0, 1.0, -1.0)
    outward = np.zeros((count, 3))
    outward[:, 0] = side
    x, y, z = np.array(STRAND).T
    local_x = side[:, None] * x
    local_y = side[:, None] * y
    local_z = np.broadcast_to(up * z, local_x.shape)
    local = np.stack([local_x, local_y, local_z], axis=-1)
    return _Segment(axis[:, None] + local, outward)


def _loop(rng: np.random.Generator, start: np.ndarray, end: np.ndarray) -> _Segment:
    """A loop from `start` to `end`, each (3,), that bulges along the rods' axis."""
    middle = (start + end) / 2
    bulge = [0, 0, 8.0 * np.sign(start[2])]
    control = middle + bulge + rng.normal(0, 2.0, 3)
    length = 1.2 * np.linalg.norm(end - start)
    count = max(2, int(length / 3.4))
    alpha = _bezier(start, control, end, count) + rng.normal(0, 0.7, (count, 3))
    outward = unit(rng.normal(size=(count, 3)))
    along = unit(np.gradient(alpha, axis=0))
    aside = np.cross(along, outward)
    nitrogen = alpha - 1.2 * along + 0.7 * aside
    carbon = alpha + 1.2 * along + 0.8 * aside
    oxygen = alpha + 1.3 * along + 2.0 * aside
    backbone = np.stack([nitrogen, alpha, carbon, oxygen], axis=1)
    return _Segment(backbone, outward)


def _bezier(start: np.ndarray, control: np.ndarray, end: np.ndarray, count: int) -> np.ndarray:
    """Points (count, 3) along a quadratic Bézier curve."""
    t = (np.arange(count) + 0.5) / count
    t = t[:, None]
    from_start = (1 - t) ** 2 * start
    from_control = 2 * t * (1 - t) * control
    from_end = t**2 * end
    return from_start + from_control + from_end


def _side_chains(
    rng: np.random.Generator, residues: _Segment
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Side-chain atoms (m, 3) in Å, their elements (m,) and numbers of their residues (m,):
    branched walks from the CA atoms outward.
    """
    count = len(residues.alpha)
    shares = SIDE_CHAIN_SHARES / SIDE_CHAIN_SHARES.sum()
    sizes = rng.choice(SIDE_CHAIN_SIZES, count, p=shares)
    longest = int(SIDE_CHAIN_SIZES.max())
    atoms = np.empty((count, longest, 3))
    for j in range(longest):
        spread = 0.3 if j == 0 else 0.7
        step = rng.normal(size=(count, 3)) * spread + residues.outward
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= BOND_ANGSTROM / length
        # Every third atom is bonded to the last but one, all others to the last: side chains branch
        # and stay as compact as those with rings, rather than reach out.
        forerunner = j - 2 if j % 3 == 2 else j - 1
        start = residues.alpha if j == 0 else atoms[:, forerunner]
        atoms[:, j] = start + step
    is_present = np.arange(longest) < sizes[:, None]
    elements = rng.choice(SIDE_CHAIN_ELEMENTS, (count, longest), p=SIDE_CHAIN_ELEMENT_SHARES)
    elements[:, 0] = 6  # C-beta
    owner, _ = np.nonzero(is_present)
    return atoms[is_present], elements[is_present], owner
