"""Belts of detergent and lipids: where they lie, how much they scatter, and that they move with
the structure.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dstnet.errors import SettingsError
from dstnet.potential import BeltSettings, build_potential
from dstnet.potential.belt import Belt
from dstnet.structure import Atoms, phantom, read_structure
from dstnet.structure.membrane import find_membrane

# A column of protein, 120 Å high: its middle 30 Å are of leucine, 20 Å above the column's own
# middle; the rest is of aspartate.
RADIUS, HALF, MIDDLE = 15.0, 60.0, 20.0


def column(axis: int = 2) -> Atoms:
    places = np.mgrid[-16:17, -16:17, -60:61][:, ::2, ::2, ::2].reshape(3, -1).T.astype(float)
    places = places[np.hypot(places[:, 0], places[:, 1]) < RADIUS]
    is_core = np.abs(places[:, 2] - MIDDLE) < 15
    places = places * 1.25  # 2.5 Å apart: about a protein's density
    count = len(places)
    return Atoms(
        name="column",
        positions_angstrom=np.roll(places, axis - 2, axis=1).astype(np.float32),
        elements=np.full(count, 6),
        b_factors=np.full(count, 20, np.float32),
        occupancies=np.ones(count, np.float32),
        residue_names=np.where(is_core, "LEU", "ASP"),
    )


def turned(atoms: Atoms, rotation: Rotation) -> Atoms:
    positions = rotation.apply(atoms.positions_angstrom).astype(np.float32)
    return replace(atoms, positions_angstrom=positions)


def test_the_membrane_lies_where_the_exposed_residues_are_greasy():
    found = find_membrane(column(), 37.5)
    assert abs(found.normal[2]) > math.cos(math.radians(5))
    assert found.centre_angstrom * found.normal[2] == pytest.approx(MIDDLE * 1.25, abs=2)


def test_it_turns_with_the_structure():
    rotation = Rotation.from_rotvec([0.4, -0.9, 0.3])
    found = find_membrane(turned(column(), rotation), 37.5)
    assert abs(rotation.apply([0, 0, 1]) @ found.normal) > math.cos(math.radians(5))


def test_nothing_is_found_in_a_soluble_complex():
    greasy_inside = column()
    all_charged = replace(greasy_inside, residue_names=np.full(len(greasy_inside), "ASP"))
    with pytest.raises(SettingsError, match="leave the belt out"):
        find_membrane(all_charged, 30.0)


def test_a_structure_without_residues_must_be_told():
    with pytest.raises(SettingsError, match=r"belt\.normal"):
        Belt(phantom(1), BeltSettings())
    assert Belt(phantom(1), BeltSettings(normal=(0, 0, 2))).membrane.normal == (0, 0, 1)


def test_a_belt_beside_the_structure_is_refused():
    with pytest.raises(SettingsError, match="no atom"):
        Belt(phantom(1), BeltSettings(normal=(0, 0, 1), centre_angstrom=900))


def test_no_direction_is_refused():
    with pytest.raises(SettingsError, match="no direction"):
        BeltSettings.checked({"normal": (0, 0, 0)}, "test")


@pytest.mark.parametrize("kind", ["micelle", "nanodisc"])
def test_known_structures_of_membranes(data_folder: Path, kind):
    """The receptor's seven helices stand upright in the file's third axis, as its makers put it."""
    atoms = read_structure(data_folder / "structures" / "3sn6.pdb")
    belt = Belt(atoms, BeltSettings(kind=kind))
    assert abs(belt.membrane.normal[2]) > math.cos(math.radians(15))
    assert belt.membrane.energy_kcal_per_mol < -30


@pytest.mark.parametrize("name", ["6vxx", "1bxn", "2cg9"])
def test_known_soluble_structures(data_folder: Path, name):
    with pytest.raises(SettingsError, match="leave the belt out"):
        find_membrane(read_structure(data_folder / "structures" / f"{name}.pdb"), 30.0)


@pytest.mark.parametrize("kind", ["micelle", "nanodisc"])
def test_a_belt_scatters_alike_on_any_grid(kind):
    """Its potential summed over space, and its radius holding all of it."""
    belt = Belt(column(), BeltSettings(kind=kind))
    sums = {}
    for pixel in (1.0, 1.5, 3.0):
        size = 2 * math.ceil((belt.radius_angstrom + 20) / pixel)
        volume = belt.volume(size, pixel).numpy()
        sums[pixel] = volume.sum() * pixel**3
        places = (np.mgrid[:size, :size, :size] - size // 2) * pixel
        beyond = np.sqrt((places**2).sum(0)) > belt.radius_angstrom + 3 * pixel
        assert np.abs(volume[beyond]).max(initial=0) < 0.1
    assert sums[1.5] == pytest.approx(sums[1.0], rel=0.01)
    assert sums[3.0] == pytest.approx(sums[1.0], rel=0.05)


def test_a_micelle_has_the_layers_that_were_asked_for():
    """Along a line 8 Å beside the column: heads, tails, heads, and nothing beyond."""
    settings = BeltSettings(extent_angstrom=40.0, core_volt=0.5, head_volt=2.0, normal=(0, 0, 1))
    volume = Belt(column(), settings).volume(160, 1.0).numpy()
    line = volume[:, 80, 80 + 19 + 3 + 8]
    heights = np.arange(160) - 80
    assert line[heights == 0] == pytest.approx(0.5, abs=0.05)
    assert line[np.abs(heights) == 17].min() > 1.2
    assert line[np.abs(heights) > 28].max() < 0.05


def test_a_nanodisc_is_round_and_ends_in_its_scaffold():
    settings = BeltSettings(kind="nanodisc", normal=(0, 0, 1), scaffold_volt=3.0)
    belt = Belt(column(), settings)
    middle = belt.volume(160, 1.0).numpy()[80]
    y, x = np.mgrid[:160, :160] - 80
    radius = np.hypot(y, x)
    edge = 18.75 + settings.extent_angstrom  # of the column, at most, and beyond
    assert middle[np.abs(radius - (edge - 5)) < 1.5].mean() == pytest.approx(3.0, abs=0.4)
    assert middle[(radius > 21) & (radius < edge - 15)].mean() == pytest.approx(0.4, abs=0.05)
    assert np.abs(middle[radius > edge + 6]).max() < 0.05


def test_the_protein_displaces_its_belt():
    """The potential with a belt is that without it, and the belt where the protein is not."""
    atoms = column()
    settings = BeltSettings(normal=(0, 0, 1), core_volt=1.0, head_volt=1.0)
    plain = build_potential(atoms, 2.0)
    with_belt = build_potential(atoms, 2.0, None, settings)
    n, m = len(plain.volume), len(with_belt.volume)
    assert m >= n
    assert with_belt.radius_angstrom >= plain.radius_angstrom
    cut = slice(m // 2 - n // 2, m // 2 - n // 2 + n)
    difference = with_belt.volume[cut, cut, cut] - plain.volume
    centre = n // 2
    assert difference[centre, centre, centre] == pytest.approx(0, abs=0.1)
    beside = centre + round((18.75 + 3 + 8) / 2)
    assert difference[centre, centre, beside] == pytest.approx(1, abs=0.1)


def test_the_belt_turns_with_the_structure():
    atoms = column()
    turned_over = replace(atoms, positions_angstrom=atoms.positions_angstrom[:, [2, 1, 0]].copy())
    upright = Belt(atoms, BeltSettings(normal=(0, 0, 1))).volume(64, 3.0)
    lying = Belt(turned_over, BeltSettings(normal=(1, 0, 0))).volume(64, 3.0)
    # Volumes are [z, y, x]. The outline is kept to a quarter of an Ångström.
    difference = lying - upright.permute(2, 1, 0)
    assert difference.std() < 0.05 * upright.std()
