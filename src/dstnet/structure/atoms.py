"""Atoms of one molecular complex, and reading them from PDB and mmCIF files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import gemmi
import numpy as np

from dstnet.errors import BadInputError
from dstnet.io.compressed_mrc import holds_more_than

# gemmi's code for D in arrays of elements; all others are atomic numbers, 0 for unknown
_DEUTERIUM = 119
# A complete HIV capsid has 2.4 million with its hydrogens; far more is a mistaken assembly or a
# filled memory.
MAX_ATOMS = 5_000_000
_MOST_BYTES = 1 << 29  # 100 an atom
# Ten times what a PDB file can write; no complex is as large.
_FARTHEST_ANGSTROM = 1e5
# What lies beyond is no B-factor: an atom of 10,000 Å² is spread over 20 Å.
_LARGEST_B_FACTOR = 1e4
_ROUNDED_ONE = 1.05  # sums of rounded occupancies


@dataclass(frozen=True, eq=False)
class Atoms:
    """Atoms of one complex.

    Attributes
    ----------
    name : str
        What to call the structure, usually the file's stem.
    positions_angstrom : ndarray, float32, shape (n, 3)
        Positions as (x, y, z).
    elements : ndarray, int64, shape (n,)
        Atomic numbers.
    b_factors : ndarray, float32, shape (n,)
        Isotropic B-factors in Å².
    occupancies : ndarray, float32, shape (n,)
        Fractions 0 to 1.
    residue_names : ndarray of str, shape (n,), or None
        Of the residue that each atom belongs to; None where there are no residues.
    title : str
        What the file says that it is; empty where it does not.
    """

    name: str
    positions_angstrom: np.ndarray
    elements: np.ndarray
    b_factors: np.ndarray
    occupancies: np.ndarray
    residue_names: np.ndarray | None = None
    title: str = ""

    def __len__(self) -> int:
        """The number of atoms."""
        return len(self.elements)

    def centred(self) -> Self:
        """These atoms with their mean position moved to the origin."""
        centre = self.positions_angstrom.mean(axis=0, dtype=np.float64)
        positions = (self.positions_angstrom - centre).astype(np.float32)
        return replace(self, positions_angstrom=positions)

    def named(self, name: str) -> Self:
        """These atoms by another name."""
        return replace(self, name=name)

    @property
    def diameter_angstrom(self) -> float:
        """Diameter in Å of the smallest sphere around the origin that holds every atom's centre."""
        distances = np.linalg.norm(self.positions_angstrom, axis=1)
        return 2 * float(distances.max())

    @property
    def mass_kda(self) -> float:
        """Mass in kDa of the atoms present, weighted by occupancy."""
        weight_da = np.zeros(int(self.elements.max()) + 1)
        for z in np.unique(self.elements):
            weight_da[z] = gemmi.Element(int(z)).weight
        present_da = weight_da[self.elements] * self.occupancies
        return float(present_da.sum()) / 1000


def read_structure(path: Path | str, *, assembly: bool = True) -> Atoms:
    """Read one complex from a PDB or mmCIF file, gzipped or not, centred on its mean position.

    The first model is taken. Waters are dropped; ligands, metals and nucleic acids stay. Where a
    residue has alternative conformations only the one of highest occupancy stays, carrying the
    occupancy of all of them. Hydrogens are kept as in the file: most files have none, and none are
    added.

    Parameters
    ----------
    path : Path or str
        The file.
    assembly : bool
        Build biological assembly 1 where the file describes one; otherwise the coordinates are
        taken as written.

    Raises
    ------
    BadInputError
        If the file is missing, is no structure, holds no atom to use, an unknown element, a
        position, a B-factor or an occupancy that is impossible, a name that is no UTF-8, or if the
        complex has more than `MAX_ATOMS` atoms.
    """
    path = Path(path)
    try:
        return _read(path, assembly)
    except UnicodeDecodeError as error:  # names are decoded when they are first asked for
        raise BadInputError(
            f"cannot read {path} as a structure: a name in it is no UTF-8 ({error.object!r});"
            " correct it"
        ) from None


def _read(path: Path, assembly: bool) -> Atoms:
    structure = _parse(path)
    while len(structure) > 1:
        del structure[-1]
    for chain in structure[0] if structure else ():
        _keep_main_conformer(chain)
    if assembly and structure and structure.assemblies:
        _expand(structure, path)
    structure.remove_waters()  # not before: an assembly may name a chain that holds water only
    if not structure or structure[0].count_atom_sites() == 0:
        raise BadInputError(
            f"no atoms (other than water) in {path}; give a PDB or mmCIF file of a molecule"
        )

    flat = gemmi.FlatStructure(structure)
    elements = np.array(flat.elements, dtype=np.int64)
    elements[elements == _DEUTERIUM] = 1
    positions = np.array(flat.pos, dtype=np.float64)
    occupancies = np.array(flat.occ, dtype=np.float32)
    is_placed = np.asarray(np.isfinite(positions).all(axis=1))
    _refuse_any(np.asarray(elements == 0), "an unknown element", flat, path)
    _refuse_any(~is_placed, "no finite position", flat, path)
    is_far = np.asarray((np.abs(positions) > _FARTHEST_ANGSTROM).any(axis=1))
    _refuse_any(is_far, f"a coordinate beyond {_FARTHEST_ANGSTROM:.0f} Å", flat, path)
    b_factors = np.array(flat.b_iso, dtype=np.float64)
    is_b_factor = np.asarray((b_factors >= 0) & (b_factors <= _LARGEST_B_FACTOR))
    what = f"a B-factor that is not between 0 and {_LARGEST_B_FACTOR:.0f} Å²"
    _refuse_any(~is_b_factor, what, flat, path)
    is_share = np.asarray((occupancies >= 0) & (occupancies <= _ROUNDED_ONE))
    _refuse_any(~is_share, "an occupancy that is not between 0 and 1", flat, path)
    if not occupancies.any():
        raise BadInputError(f"every atom in {path} has occupancy 0; set the occupancy column to 1")
    atoms = Atoms(
        name=path.name.removesuffix(".gz").rsplit(".", 1)[0],
        positions_angstrom=positions,
        elements=elements,
        b_factors=b_factors.astype(np.float32),
        occupancies=occupancies.clip(max=1),
        residue_names=_texts(np.asarray(flat.residue_names)),
        title=_title(structure),
    )
    return atoms.centred()


def _refuse_any(wrong: np.ndarray, what: str, flat: gemmi.FlatStructure, path: Path) -> None:
    """Refuse a structure some of whose atoms are `wrong`, bool (n,); the first is named."""
    if not wrong.any():
        return
    first = int(np.argmax(wrong))
    columns = (flat.chain_ids, flat.resnums, flat.residue_names, flat.atom_names)
    atom = "/".join(_text(np.asarray(column)[first]) for column in columns)
    raise BadInputError(f"atom {atom} in {path} has {what}; correct or remove it")


def _parse(path: Path) -> gemmi.Structure:
    if not path.is_file():
        raise BadInputError(
            f"no such structure file: {path}; give a PDB or mmCIF file (.gz allowed)"
        )
    if path.stat().st_size == 0:
        raise BadInputError(f"{path} is an empty file; give a PDB or mmCIF file (.gz allowed)")
    _refuse_too_large(path)
    try:
        structure = gemmi.read_structure(str(path), format=gemmi.CoorFormat.Detect)
    except (RuntimeError, ValueError, OSError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise BadInputError(
            f"cannot read {path} as a structure: {reason}; give a PDB or mmCIF file (.gz allowed)"
        ) from None
    if structure:
        _refuse_too_many(structure[0].count_atom_sites(), path)
    return structure


def _refuse_too_large(path: Path) -> None:
    """Refuse a file that would need gigabytes to be read; a packed one is read through for it."""
    if holds_more_than(path, _MOST_BYTES):
        raise BadInputError(
            f"{path} holds more than {_MOST_BYTES >> 20} MiB of text, more than the {MAX_ATOMS}"
            " atoms allowed; give a part of it"
        )


def _refuse_too_many(count: int, path: Path) -> None:
    if count > MAX_ATOMS:
        raise BadInputError(
            f"{path} gives {count} atoms, more than the {MAX_ATOMS} allowed; read it without its"
            " assembly or give a part"
        )


def _expand(structure: gemmi.Structure, path: Path) -> None:
    """Turn `structure` into its biological assembly 1 in place."""
    assembly = structure.assemblies[0]
    for described in structure.assemblies:
        if described.name == "1":
            assembly = described
            break
    copies = sum(len(generator.operators) for generator in assembly.generators)
    # An upper bound: an operator may apply to some chains only.
    most_atoms = structure[0].count_atom_sites() * copies
    _refuse_too_many(most_atoms, path)
    try:
        structure.transform_to_assembly(assembly.name, gemmi.HowToNameCopiedChain.Dup)
    except (RuntimeError, ValueError) as error:
        raise BadInputError(
            f"assembly {assembly.name} of {path} cannot be built: {error}; read the file without"
            " its assembly"
        ) from None


def _keep_main_conformer(chain: gemmi.Chain) -> None:
    """Drop all but the conformer of highest mean occupancy from every residue of `chain`, in place.

    Residues of one sequence number are judged together, because a point mutation is written as two
    residues with one number.
    """
    drop: list[tuple[int, int]] = []
    for alternatives in _alternatives(chain).values():
        occupancies: dict[str, list[float]] = {}
        for _, atom in alternatives:
            occupancies.setdefault(atom.altloc, []).append(atom.occ)
        mean = {label: sum(values) / len(values) for label, values in occupancies.items()}
        highest = max(mean.values())
        best = min(label for label, value in mean.items() if value == highest)
        for place, atom in alternatives:
            if atom.altloc == best:
                atom.occ = min(1.0, sum(mean.values()))
            else:
                drop.append(place)
    for residue, atom in sorted(drop, reverse=True):
        del chain[residue][atom]


def _alternatives(chain: gemmi.Chain) -> dict[str, list[tuple[tuple[int, int], gemmi.Atom]]]:
    """Atoms with alternatives and their places (residue, atom) in the chain, by the residue's
    sequence number.
    """
    found: dict[str, list[tuple[tuple[int, int], gemmi.Atom]]] = {}
    for residue_number, residue in enumerate(chain):
        for atom_number, atom in enumerate(residue):
            if atom.has_altloc():
                place = (residue_number, atom_number)
                found.setdefault(str(residue.seqid), []).append((place, atom))
    return found


def _text(value: np.ndarray | np.int32) -> str:
    """A name or number from one row of a `gemmi.FlatStructure`, whose names are rows of zero-padded
    bytes.
    """
    if value.ndim == 0:
        return str(value)
    return value.tobytes().rstrip(b"\0").decode(errors="replace")


def _texts(rows: np.ndarray) -> np.ndarray:
    """Names [n] from a column of a `gemmi.FlatStructure`, whose rows are zero-padded bytes."""
    width = rows.shape[1]
    names = np.ascontiguousarray(rows).view(f"S{width}")[:, 0]
    return np.char.decode(names, "utf-8", "replace")


def _title(structure: gemmi.Structure) -> str:
    """What the file says that it is; gemmi's mapping has no `get`."""
    has_one = "_struct.title" in structure.info
    return structure.info["_struct.title"] if has_one else ""
