"""Reading structures, and making them by formula."""

import gzip
import re

import gemmi
import numpy as np
import pytest

from dstnet.errors import BadInputError
from dstnet.structure import Atoms, atoms, phantom, read_structure


def pdb_line(
    serial,
    name,
    residue,
    number,
    xyz,
    element,
    *,
    altloc=" ",
    occupancy=1.0,
    chain="A",
    record="ATOM",
):
    x, y, z = xyz
    return (
        f"{record:6s}{serial:5d} {name:^4s}{altloc}{residue:>3s} {chain}{number:4d}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{20.0:6.2f}          {element:>2s}"
    )


@pytest.fixture
def write(tmp_path):
    def write(*lines, name="small.pdb"):
        path = tmp_path / name
        path.write_text("\n".join((*lines, "END", "")))
        return path

    return write


TWO_ATOMS = (
    pdb_line(1, "CA", "GLY", 1, (1, 2, 3), "C"),
    pdb_line(2, "FE", "HEM", 2, (4, 2, 3), "FE", record="HETATM"),
)


def test_positions_are_xyz_and_centred(write):
    small = read_structure(write(*TWO_ATOMS))
    assert small.name == "small"
    np.testing.assert_allclose(small.positions_angstrom, [[-1.5, 0, 0], [1.5, 0, 0]], atol=1e-5)
    assert small.positions_angstrom.dtype == np.float32
    assert small.elements.tolist() == [6, 26]
    assert small.diameter_angstrom == pytest.approx(3)
    assert small.mass_kda == pytest.approx((12.011 + 55.845) / 1000, rel=1e-4)


def test_centring_leaves_its_argument_alone():
    a = Atoms(
        "a",
        np.ones((2, 3), np.float32),
        np.array([6, 7]),
        np.zeros(2, np.float32),
        np.ones(2, np.float32),
    )
    assert np.all(a.centred().positions_angstrom == 0)
    assert np.all(a.positions_angstrom == 1)


def test_waters_go_and_hydrogens_stay(write):
    water = pdb_line(3, "O", "HOH", 3, (9, 9, 9), "O", record="HETATM")
    hydrogen = pdb_line(4, "HA", "GLY", 1, (1, 3, 3), "H")
    assert sorted(read_structure(write(*TWO_ATOMS, hydrogen, water)).elements) == [1, 6, 26]


def test_only_the_most_occupied_conformer_stays_with_the_occupancy_of_all(write):
    path = write(
        pdb_line(1, "CA", "SER", 1, (0, 0, 0), "C"),
        pdb_line(2, "OG", "SER", 1, (1, 0, 0), "O", altloc="A", occupancy=0.3),
        pdb_line(
            3, "SG", "CYS", 1, (0, 1, 0), "S", altloc="B", occupancy=0.6
        ),  # a point mutation: another residue of that number
    )
    kept = read_structure(path)
    assert kept.elements.tolist() == [6, 16]
    np.testing.assert_allclose(kept.occupancies, [1, 0.9], atol=1e-6)


def test_equally_occupied_conformers_keep_the_first(write):
    rows = [
        pdb_line(i, "OG", "SER", 1, (i, 0, 0), e, altloc=a, occupancy=0.5)
        for i, e, a in ((1, "O", "A"), (2, "S", "B"))
    ]
    assert read_structure(write(*rows)).elements.tolist() == [8]


ASSEMBLY = (
    "REMARK 350 BIOMOLECULE: 1",
    "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A",
    "REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000",
    "REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000",
    "REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000",
    "REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000        0.00000",
    "REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000",
    "REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000       10.00000",
)


def test_assembly_is_built_where_asked_for(write):
    path = write(*ASSEMBLY, *TWO_ATOMS)
    assert len(read_structure(path, assembly=False)) == 2
    whole = read_structure(path)
    assert whole.elements.tolist() == [6, 26, 6, 26]
    np.testing.assert_allclose(
        whole.positions_angstrom[2] - whole.positions_angstrom[0], [-2, -4, 10], atol=1e-4
    )


def test_only_the_first_model_counts(write):
    assert (
        len(
            read_structure(
                write(
                    "MODEL        1", *TWO_ATOMS, "ENDMDL", "MODEL        2", *TWO_ATOMS, "ENDMDL"
                )
            )
        )
        == 2
    )


def test_mmcif_and_gzip_read_like_pdb(write, tmp_path):
    path = write(*TWO_ATOMS)
    cif, zipped = tmp_path / "small.cif", tmp_path / "small.pdb.gz"
    gemmi.read_structure(str(path)).make_mmcif_document().write_file(str(cif))
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    for other in (read_structure(cif), read_structure(zipped)):
        assert other.name == "small"
        np.testing.assert_allclose(
            other.positions_angstrom, read_structure(path).positions_angstrom, atol=1e-5
        )


def test_deuterium_is_hydrogen(write):
    assert read_structure(
        write(*TWO_ATOMS, pdb_line(3, "D", "GLY", 1, (1, 3, 3), "D"))
    ).elements.tolist() == [6, 1, 26]


@pytest.mark.parametrize(
    ("lines", "name", "says"),
    [
        (("garbage", "more of it"), "bad.pdb", "no atoms"),
        (("garbage",), "bad.cif", "no atoms"),
        (("data_x", "_unclosed.quote 'abc"), "quote.cif", "cannot read"),
        (("REMARK   1 nothing else",), "empty.pdb", "no atoms"),
        ((pdb_line(1, "O", "HOH", 1, (0, 0, 0), "O"),), "water.pdb", "no atoms"),
        ((pdb_line(1, "XX", "UNX", 7, (0, 0, 0), "X"),), "unknown.pdb", "A/7/UNX/XX"),
        (
            (pdb_line(1, "CA", "GLY", 1, (0, 0, 0), "C", occupancy=0),),
            "unoccupied.pdb",
            "occupancy 0",
        ),
    ],
)
def test_unusable_files_are_refused_in_one_line(write, lines, name, says):
    path = write(*lines, name=name)
    with pytest.raises(BadInputError) as caught:
        read_structure(path)
    message = str(caught.value)
    assert says in message
    assert name in message
    assert "\n" not in message


def test_missing_damaged_and_oversized_files_are_refused(write, tmp_path, monkeypatch):
    with pytest.raises(BadInputError, match="no such structure file"):
        read_structure(tmp_path / "absent.pdb")
    nothing = tmp_path / "nothing.pdb"
    nothing.touch()
    with pytest.raises(BadInputError, match="empty file"):
        read_structure(nothing)
    broken = tmp_path / "broken.pdb.gz"
    broken.write_bytes(gzip.compress(b"ATOM" * 1000)[:30])
    with pytest.raises(BadInputError, match="broken"):
        read_structure(broken)
    monkeypatch.setattr(atoms, "MAX_ATOMS", 3)
    assert len(read_structure(write(*TWO_ATOMS))) == 2
    with pytest.raises(BadInputError, match="more than the 3 allowed"):
        read_structure(write(*ASSEMBLY, *TWO_ATOMS))


def test_real_entries_have_their_known_sizes(data_folder):
    folder = data_folder / "structures"
    rubisco, shell, ferritin = (
        read_structure(folder / f"{name}.pdb") for name in ("1bxn", "1rb8", "6z6u")
    )
    assert 450 < rubisco.mass_kda < 560
    assert 120 < rubisco.diameter_angstrom < 150
    assert len(shell) == 60 * len(read_structure(folder / "1rb8.pdb", assembly=False))
    assert ferritin.diameter_angstrom == pytest.approx(130, abs=10)
    np.testing.assert_allclose(ferritin.positions_angstrom.mean(axis=0, dtype=float), 0, atol=1e-3)


def test_every_real_entry_is_read(data_folder):
    paths = sorted((data_folder / "structures").iterdir())
    assert len(paths) >= 30
    for path in paths:
        complex_ = read_structure(path)
        assert 30 < complex_.mass_kda < 15e3, path
        assert 60 < complex_.diameter_angstrom < 700, path


def test_phantom_depends_on_its_seed_only():
    first, again, other = phantom(3), phantom(3), phantom(4)
    np.testing.assert_array_equal(first.positions_angstrom, again.positions_angstrom)
    np.testing.assert_array_equal(first.elements, again.elements)
    assert len(first) != len(other)


@pytest.mark.parametrize("seed", range(30))
def test_phantom_is_like_protein(seed):
    made = phantom(seed)
    assert 70e3 < 13.93 * len(made) < 1600e3  # Da, hydrogens counted in
    shares = np.bincount(made.elements, minlength=17) / len(made)
    np.testing.assert_allclose(shares[[6, 7, 8, 16]], [0.63, 0.17, 0.19, 0.01], atol=0.06)
    # Atoms in 16.8 Å3 each would fill a sphere of this diameter; a real complex is looser and
    # longer, up to some three times.
    compact = 2 * (3 * 16.8 * len(made) / (4 * np.pi)) ** (1 / 3)
    assert 1.1 < made.diameter_angstrom / compact < 3.2


def test_first_phantom_is_a_barrel_of_d7_symmetry():
    made = phantom()
    assert made.name == "phantom0_D7"
    assert 400e3 < 13.93 * len(made) < 700e3
    x = made.positions_angstrom
    turn = 2 * np.pi / 7
    turned = (
        x
        @ np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]).T
    )
    chain = len(x) // 14
    start = turned[:chain]
    nearest = min(np.abs(x[i * chain : (i + 1) * chain] - start).max() for i in range(14))
    assert nearest < 1e-3
    assert np.hypot(x[:, 0], x[:, 1]).min() > 8  # an open channel along the axis


@pytest.mark.parametrize("seed", range(12))
def test_a_cage_is_hollow_and_closed(seed):
    made = phantom(seed, cage=True)
    assert re.fullmatch(rf"cage{seed}_[TOI]", made.name)
    assert 100e3 < 13.93 * len(made) < 1600e3
    radius = np.linalg.norm(made.positions_angstrom, axis=1)
    inner, outer = np.percentile(radius, [1, 99])
    assert inner > 0.3 * outer and outer - inner < 70  # one domain thick
    # No gap that a domain would fit through: from the middle most directions meet atoms.
    directions = np.random.default_rng(0).normal(size=(500, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    nearest = (directions @ (made.positions_angstrom / radius[:, None]).T).max(axis=1)
    assert np.mean(np.degrees(np.arccos(np.clip(nearest, -1, 1))) < 5) > 0.75
    # Centred on its axes of symmetry, so all moments of inertia are equal.
    moments = np.linalg.eigvalsh(made.positions_angstrom.T.astype(float) @ made.positions_angstrom)
    assert moments[2] / moments[0] < 1.01


def test_phantom_refuses_a_negative_seed():
    with pytest.raises(ValueError, match=r"non-negative|negative"):
        phantom(-1)


def test_ligands_metals_and_nucleic_acids_stay(write):
    rows = (
        pdb_line(1, "P", "DA", 1, (0, 0, 0), "P"),
        pdb_line(2, "ZN", "ZN", 2, (3, 0, 0), "ZN", record="HETATM"),
        pdb_line(3, "C1", "NAG", 3, (0, 3, 0), "C", record="HETATM"),
        pdb_line(4, "SE", "MSE", 4, (0, 0, 3), "SE", record="HETATM"),
    )
    assert sorted(read_structure(write(*rows)).elements) == [6, 15, 30, 34]


def test_b_factors_and_occupancies_come_from_the_file(write):
    path = write(
        pdb_line(1, "CA", "GLY", 1, (0, 0, 0), "C", occupancy=0.4),
        pdb_line(2, "N", "GLY", 1, (1, 0, 0), "N"),
    )
    small = read_structure(path)
    np.testing.assert_allclose(small.b_factors, [20, 20])
    np.testing.assert_allclose(small.occupancies, [0.4, 1.0])


@pytest.fixture
def capsid(write, tmp_path):
    """An mmCIF file of an assembly of so many copies of so many atoms, each copy moved on by 10
    Å.
    """

    def made(copies, atoms):
        rows = [
            pdb_line(i % 100000, "CA", "GLY", 1 + i % 9999, (i % 97, i % 89, i % 83), "C")
            for i in range(atoms)
        ]
        structure = gemmi.read_structure(str(write(*ASSEMBLY, *rows)))
        operators = structure.assemblies[0].generators[0].operators
        del operators[:]
        for i in range(copies):
            operator = gemmi.Assembly.Operator()
            operator.transform = gemmi.Transform(gemmi.Mat33(), gemmi.Vec3(10.0 * i, 0, 0))
            operators.append(operator)
        structure.setup_entities()
        path = tmp_path / "capsid.cif"
        structure.make_mmcif_document().write_file(str(path))
        return path

    return made


def test_an_assembly_of_1680_copies_is_built_where_that_is_small(capsid):
    """As many as of the virus PBCV-1 (1m4x)."""
    built = read_structure(capsid(1680, 2))
    assert len(built) == 2 * 1680
    assert np.ptp(built.positions_angstrom[:, 0]) == pytest.approx(1 + 1679 * 10)


def test_an_assembly_of_1680_copies_is_refused_before_it_is_built_where_that_is_too_much(
    capsid, monkeypatch
):
    def never(*_):
        raise AssertionError("built")

    monkeypatch.setattr(gemmi.Structure, "transform_to_assembly", never)
    with pytest.raises(
        BadInputError,
        match="gives 5040000 atoms, more than the 5000000 allowed; read it without its assembly",
    ):
        read_structure(capsid(1680, 3000))
