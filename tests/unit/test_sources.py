"""Entries of recipes, what they must be, and what stands in for them."""

from pathlib import Path

import numpy as np
import pytest

from dstnet.errors import BadInputError, SettingsError
from dstnet.simulation.recipe import FOLDER, Recipe
from dstnet.specimen.sources import Entry, Likeness, StandIn, as_stand_ins, with_files
from dstnet.specimen.species import belt_of
from dstnet.structure import Shape, phantom_like

SEVEN = ("ragab", "nav17", "rubisco", "nitrite-reductase", "mcrbc", "spike", "complex-i")
TITLE = "TITLE     CRYO-EM OF A TEST-PROTEIN WITH ITS TOXIN\n"


def protein(path: Path, residues: int = 90) -> Path:
    """A file of so many atoms of sulphur, 32 Da each."""
    lines = [
        f"ATOM  {i:5d}  SG  CYS A{i:4d}    {i % 10 * 3:8.3f}{i // 10 * 3:8.3f}   0.000"
        "  1.00 20.00           S"
        for i in range(1, residues + 1)
    ]
    path.write_text(TITLE + "\n".join(lines) + "\nEND\n")
    return path


def expected(**changes) -> Entry:
    values = {"entry": "1ABC", "title_words": ("test protein", "other|toxin"), "mass_kda": 2.9}
    return Entry.checked(values | changes, "test")


def test_an_entry_that_is_as_expected_is_taken(tmp_path):
    atoms = expected(file=str(protein(tmp_path / "x.pdb"))).atoms()
    assert atoms.name == "1abc"
    assert len(atoms) == 90


@pytest.mark.parametrize("changes", [{"mass_kda": 5.0}, {"title_words": ("ferritin",)}])
def test_another_entry_is_refused_and_both_are_named(tmp_path, changes):
    entry = expected(file=str(protein(tmp_path / "x.pdb")), **changes)
    with pytest.raises(BadInputError, match=r"TEST-PROTEIN.*3 kDa.*1abc.*expects") as caught:
        entry.atoms()
    assert "\n" not in str(caught.value)


def test_a_file_goes_to_the_entry_that_it_is_called_by(tmp_path):
    entries = (expected(), expected(entry="2xyz"))
    first, second = with_files(entries, (Path("2XYZ-assembly1.cif.gz"),))
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert (first.file, second.file) == (None, "2XYZ-assembly1.cif.gz")
    with pytest.raises(SettingsError, match="the file of no entry"):
        with_files(entries, (Path("3abc.cif"),))
    with pytest.raises(SettingsError, match="both of entry 1abc"):
        with_files(entries, (Path("1abc.cif"), Path("1abc.pdb")))
    (only,) = with_files((expected(),), (Path("mine.cif"),))
    assert isinstance(only, Entry)
    assert only.file == "mine.cif"


def test_a_recipe_without_entries_has_no_stand_ins():
    with pytest.raises(SettingsError, match="no"):
        Recipe().with_entries(stand_in=True)


def test_a_stand_in_is_called_so_wherever_it_appears():
    (made,) = as_stand_ins((expected(mass_kda=60.0),))
    assert isinstance(made, StandIn)
    assert made.name == made.atoms().name == "stand-in-1abc"
    assert made.source.startswith("stand-in-1abc 60 kDa C1 sha256:")


@pytest.mark.parametrize("name", SEVEN)
def test_the_seven_sets_run_without_network(name):
    recipe = Recipe.named(name).with_entries(stand_in=True)
    entries = Recipe.named(name).structures
    assert len(recipe.structures) == len(entries) > 0
    for made, entry in zip(recipe.structures, entries, strict=True):
        assert isinstance(made, StandIn)
        assert isinstance(entry, Entry)
        assert made.mass_kda == entry.mass_kda
        assert made.atoms().mass_kda == pytest.approx(entry.mass_kda, rel=0.15)
        # Where the real one wears a belt, its stand-in does, and is told where.
        belt = belt_of(made, recipe.species)
        worn = belt_of(entry, recipe.species)
        assert (belt is None) == (worn is None)
        if belt is not None and worn is not None:
            assert belt.kind == worn.kind
            assert belt.normal is not None


@pytest.mark.parametrize("name", SEVEN)
def test_every_value_says_where_it_is_from(name):
    """Each line of the settings has a source or is marked as default."""
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    first = lines.index("settings:")
    values = [line for line in lines[first:] if not line.rstrip().endswith(":")]
    assert [line for line in values if "#" not in line] == []


@pytest.mark.parametrize("symmetry", ["C1", "C4", "D3", "O"])
def test_a_stand_in_has_its_symmetry_and_mass(symmetry):
    atoms = phantom_like(Shape(symmetry, 400.0), "x", seed=3)
    assert atoms.mass_kda == pytest.approx(400, rel=0.15)
    order = {"C1": 1, "C4": 4, "D3": 6, "O": 24}[symmetry]
    assert len(atoms) % order == 0
    # The spread is alike in the directions that the group makes equal.
    spread = np.linalg.eigvalsh(np.cov(atoms.positions_angstrom.T))
    if symmetry == "O":
        assert spread.max() / spread.min() < 1.01
    if symmetry == "C4":
        pairs = np.abs(spread[:, None] / spread - 1) + np.eye(3)
        assert pairs.min() < 0.01


def test_a_stand_in_follows_its_outline():
    line = ((0.0, 0.0, 0.0), (0.0, 0.0, 200.0))
    atoms = phantom_like(Shape("C1", 400.0, line), "x")
    height, *widths = np.ptp(atoms.positions_angstrom, axis=0)[::-1]
    assert 200 < height < 280
    assert max(widths) < 130


def test_no_point_group_is_refused():
    with pytest.raises(SettingsError, match="no point group"):
        phantom_like(Shape("Q7", 100.0), "x")
    with pytest.raises(SettingsError, match="no point group"):
        Likeness.checked({"symmetry": "C0"}, "test")
