"""Where the membrane lies about a membrane protein, told by which residues are exposed."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dstnet.errors import SettingsError
from dstnet.structure.atoms import Atoms

# Free energy of transfer of a whole residue from water to octanol, kcal/mol, at pH 8: Wimley,
# Creamer & White, Biochemistry 35, 5109 (1996), and White & Wimley, Annu. Rev. Biophys. 28, 319
# (1999).
TRANSFER_KCAL_PER_MOL = {
    "TRP": -2.09, "PHE": -1.71, "LEU": -1.25, "ILE": -1.12, "TYR": -0.71, "MET": -0.67,
    "VAL": -0.46, "CYS": -0.02, "HIS": 0.11, "PRO": 0.14, "THR": 0.25, "SER": 0.46,
    "ALA": 0.50, "GLN": 0.77, "ASN": 0.85, "GLY": 1.15, "ARG": 1.81, "LYS": 2.80,
    "GLU": 3.63, "ASP": 3.64,
}  # fmt: skip
# Heavy atoms of a residue on average: a residue's energy is shared by its atoms.
ATOMS_A_RESIDUE = 7.9
INTERIOR_ATOMS_PER_ANGSTROM3 = 1 / 16.8  # of a protein
DENSITY_BLUR_ANGSTROM = 4.0
DENSITY_VOXEL_ANGSTROM = 2.0
# Density about an atom, in that of a protein's interior: half at a flat surface.
BURIED = 0.8
FREE = 0.4
DIRECTIONS = 1000  # on a half sphere: 4.5 degrees apart
# kcal/mol of the best slab below which there is a membrane. Among 28 soluble complexes of 40 kDa to
# 10 MDa the best slab has -4.1; a receptor of seven helices has -38, a respiratory complex -29.
LEAST_KCAL_PER_MOL = -12.0


@dataclass(frozen=True)
class Membrane:
    """A flat slab in the structure's frame.

    Attributes
    ----------
    normal
        Unit vector (x, y, z).
    centre_angstrom
        Of the slab's middle, along the normal from the structure's origin.
    energy_kcal_per_mol
        Of moving what is exposed within it from water; the more negative, the surer. 0 where the
        slab was told and not found.
    """

    normal: tuple[float, float, float]
    centre_angstrom: float
    energy_kcal_per_mol: float = 0.0

    def heights_angstrom(self, positions_angstrom: np.ndarray) -> np.ndarray:
        """Height [...] of places [..., 3] above the slab's middle."""
        return positions_angstrom @ np.array(self.normal) - self.centre_angstrom


def find_membrane(atoms: Atoms, thickness_angstrom: float) -> Membrane:
    """The slab in which the exposed residues would least like to be in water.

    Of all slabs of that thickness, in about 1,000 directions and by steps of 1 Å, the one whose
    exposed atoms have the lowest sum of free energies of transfer from water to octanol: the idea
    of Lomize et al., Protein Sci. 15, 1318 (2006) and Tusnády et al., Bioinformatics 20, 2964
    (2004), with exposure told by the density of atoms around.

    Parameters
    ----------
    atoms
        Centred, with the names of their residues.
    thickness_angstrom
        Of the hydrophobic core.

    Raises
    ------
    SettingsError
        If the atoms have no residues' names, or no slab is surely a membrane's.
    """
    remedy = "say where it is: belt.normal and belt.centre_angstrom"
    if atoms.residue_names is None:
        raise SettingsError(
            f"{atoms.name} has no residues that would tell where the membrane lies; {remedy}"
        )
    energies = _exposed_energies(atoms, atoms.residue_names)
    best = Membrane((0.0, 0.0, 1.0), 0.0)
    for normal in _half_sphere(DIRECTIONS):
        centre, energy = _best_slab(atoms.positions_angstrom @ normal, energies, thickness_angstrom)
        if energy < best.energy_kcal_per_mol:
            x, y, z = normal.tolist()
            best = Membrane((x, y, z), centre, energy)
    if best.energy_kcal_per_mol > LEAST_KCAL_PER_MOL:
        raise SettingsError(
            f"nothing in {atoms.name} looks like the part that lies in a membrane (the best slab"
            f" has {best.energy_kcal_per_mol:.0f} kcal/mol, a membrane protein less than"
            f" {LEAST_KCAL_PER_MOL:.0f}); leave the belt out, or {remedy}"
        )
    return best


def _exposed_energies(atoms: Atoms, residue_names: np.ndarray) -> np.ndarray:
    """Free energy of transfer of each atom, [atom] in kcal/mol; 0 where it is buried, or not of an
    amino acid.
    """
    names, inverse = np.unique(residue_names, return_inverse=True)
    of_name = np.array([TRANSFER_KCAL_PER_MOL.get(str(name), 0.0) for name in names])
    energy = of_name[inverse] / ATOMS_A_RESIDUE
    energy[atoms.elements == 1] = 0
    return energy * _exposure(atoms)


def _exposure(atoms: Atoms) -> np.ndarray:
    """How much of each atom the solvent sees, [atom], 0 to 1."""
    heavy = atoms.positions_angstrom[atoms.elements > 1]
    low = heavy.min(0) - 3 * DENSITY_BLUR_ANGSTROM
    places = np.rint((atoms.positions_angstrom - low) / DENSITY_VOXEL_ANGSTROM).astype(int)
    places = places.clip(0)
    shape = places.max(0) + 1 + int(3 * DENSITY_BLUR_ANGSTROM / DENSITY_VOXEL_ANGSTROM)
    counts = np.zeros(shape, np.float32)
    np.add.at(counts, tuple(places[atoms.elements > 1].T), 1)
    blurred = ndimage.gaussian_filter(
        counts, DENSITY_BLUR_ANGSTROM / DENSITY_VOXEL_ANGSTROM, mode="constant"
    )
    density = blurred[tuple(places.T)] / DENSITY_VOXEL_ANGSTROM**3
    share = density / INTERIOR_ATOMS_PER_ANGSTROM3
    return ((BURIED - share) / (BURIED - FREE)).clip(0, 1)


def _half_sphere(count: int) -> np.ndarray:
    """Unit vectors [count, 3] spread evenly over the upper half sphere, by a spiral of golden
    angles.
    """
    z = (np.arange(count) + 0.5) / count
    azimuth = np.arange(count) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)


def _best_slab(
    heights: np.ndarray, energies: np.ndarray, thickness_angstrom: float
) -> tuple[float, float]:
    """Middle and energy of the best slab across one direction."""
    low = int(np.floor(heights.min()))
    bins = (heights - low).astype(int)
    profile = np.bincount(bins, weights=energies)
    width = max(1, round(thickness_angstrom))
    padded = np.pad(profile, (width, width))
    summed = np.concatenate([[0.0], padded.cumsum()])
    slabs = summed[width:] - summed[:-width]
    first = int(slabs.argmin())
    return low + first - width + width / 2, float(slabs[first])
