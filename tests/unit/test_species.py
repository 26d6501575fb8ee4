"""Which structures are learnt from, and what is made of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dstnet.dataset import NEVER_TRAINED, split_structures
from dstnet.dataset.splits import structure_name
from dstnet.errors import SettingsError
from dstnet.structure import Atoms, phantom
from dstnet.training import species
from dstnet.training.crop_conditions import split_debris
from dstnet.training.species import fragment, prepare

FILES = [Path(p) for p in ("a/1ABC.pdb", "6z6u.cif.gz", "b/2xyz.cif", "3DEF.pdb.gz")]


def test_a_structure_is_known_by_its_files_name():
    assert [structure_name(p) for p in FILES] == ["1abc", "6z6u", "2xyz", "3def"]


def test_split_is_by_name_and_complete():
    train, held = split_structures(FILES, ["2XYZ"])
    assert [structure_name(p) for p in train] == ["1abc", "3def"]
    assert {structure_name(p) for p in held} == {"2xyz", "6z6u"}
    assert not set(train) & set(held) and set(train) | set(held) == set(FILES)


@pytest.mark.parametrize("held_out", [[], ["1abc"], ["6Z6U"]])
def test_what_proves_the_weights_is_never_trained_on(held_out):
    assert "6z6u" in NEVER_TRAINED
    train, held = split_structures([*FILES, Path("other/6Z6U.PDB")], held_out)
    assert not {structure_name(p) for p in train} & NEVER_TRAINED
    assert sum(structure_name(p) == "6z6u" for p in held) == 2


def test_unknown_hold_out_is_refused():
    with pytest.raises(
        SettingsError, match="cannot hold out 9zzz: no such structure among 1abc, 2xyz, 3def, 6z6u"
    ):
        split_structures(FILES, ["9zzz", "1abc"])


@pytest.mark.parametrize(
    ("phantoms", "widest", "match"),
    [(0, 1000.0, "give structure files, or phantoms"), (1, 50.0, "wider than")],
)
def test_nothing_to_train_on(phantoms, widest, match):
    with pytest.raises(SettingsError, match=match):
        prepare(
            [],
            [],
            phantoms=phantoms,
            poses=1,
            pixel_size_angstrom=4.0,
            seed=0,
            widest_angstrom=widest,
            report=lambda line: None,
        )


def test_each_structure_gives_a_fragment_too():
    found = prepare(
        [],
        [],
        phantoms=2,
        poses=1,
        pixel_size_angstrom=4.0,
        seed=0,
        widest_angstrom=1000.0,
        report=lambda line: None,
    )
    names = [one.name for one in found.train]
    assert [n.endswith("-piece") for n in names] == [False, False, True, True]
    assert list(found.digests) == names and found.held_out == []
    particles, debris = split_debris(found.train)
    assert [one.name for one in debris] == names[2:] and len(particles) == 2


@pytest.mark.parametrize(("built", "deposited", "parts"), [(60, 1, True), (2, 4, False)])
def test_a_part_is_learnt_from_where_it_is_less(monkeypatch, built, deposited, parts):
    """Files build assemblies of copies; some hold more than the one that they build."""
    unit = phantom(1)

    def read_structure(path, assembly=True):
        copies = built if assembly else deposited
        return Atoms(
            "x",
            np.tile(unit.positions_angstrom, (copies, 1)),
            np.tile(unit.elements, copies),
            np.tile(unit.b_factors, copies),
            np.tile(unit.occupancies, copies),
        )

    monkeypatch.setattr(species, "read_structure", read_structure)
    names = [atoms.name for atoms in species._versions(Path("x.pdb"))]
    assert names == (["x", "x-part"] if parts else ["x"])


def test_a_fragment_is_a_ball_of_its_structure():
    whole = phantom(3)
    for seed in range(5):
        broken = fragment(whole, torch.Generator().manual_seed(seed))
        assert 2 < broken.mass_kda < 70
        assert 20 < broken.diameter_angstrom < 56
        assert abs(broken.positions_angstrom.mean(0)).max() < 1e-3
        assert (
            len(broken.elements)
            == len(broken.b_factors)
            == len(broken.occupancies)
            == len(broken)
            < len(whole) / 3
        )
