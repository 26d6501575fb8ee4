"""What power cuts, kills and users leave behind costs itself alone."""

import os
import time

import numba
import pytest
from tiny import dstnet as command
from tiny import make_frames

import dstnet.training
from dstnet.cli import main
from dstnet.core.compiled import compiled
from dstnet.errors import BadInputError
from dstnet.io import write_mrc
from dstnet.pipeline import read_inputs
from dstnet.structure.atoms import read_structure

ATOM = "ATOM      1  CA  ALA A   1    {:>8}   1.000   2.000  1.00 20.00           C\n"
WATCH = ("--watch", "0.05", "--watch-settle", "0.1", "--watch-idle", "0.3")
STAR = "data_movies\n\nloop_\n_rlnMicrographMovieName\n"


def _doubled(number):
    return 2 * number


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
def test_a_cut_file_in_the_cache_of_compiled_code_is_made_anew(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert compiled(_doubled, "int64(int64)")(4) == 8
    (kept,) = tmp_path.rglob(f"*{ending}")
    whole = kept.stat().st_size
    kept.write_bytes(kept.read_bytes()[: whole // 2])
    assert compiled(_doubled, "int64(int64)")(4) == 8
    (kept,) = tmp_path.rglob(f"*{ending}")
    assert kept.stat().st_size > whole // 2


def test_a_bad_list_under_watch_costs_itself_alone(capsys, tmp_path, in_tmp_path):
    write_mrc(tmp_path / "m.mrc", make_frames(3), 2.0, "x", stack=True)
    (tmp_path / "l.txt").write_bytes(b"m\0.mrc\n")
    (tmp_path / "cut.star").write_text(STAR + "m.mrc 300\n")
    (tmp_path / "empty").mkdir()
    options = ("-o", "out", "--patches", "0", *WATCH)
    code, _, err = command(capsys, "align", "m.mrc", "empty", "@l.txt", "cut.star", *options)
    assert code == 1 and "1 done" in err
    assert "never read: cannot read the list l.txt" in err
    assert "never read: cannot read the STAR file cut.star: line 5 has 2 cells" in err
    assert command(capsys, "align", "m.mrc", "empty", *options)[0] == 0


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(BadInputError, match=r"cannot list the folder .*Permission denied"):
        read_inputs([tmp_path])


def test_names_that_our_tables_escape_are_found_again(tmp_path, in_tmp_path):
    for name in ("a\tb.mrc", "c%41.mrc"):
        (tmp_path / name).touch()
    (tmp_path / "t.star").write_text(STAR + "a%09b.mrc\nc%41.mrc\n")
    assert [str(movie.path) for movie in read_inputs(["t.star"])] == ["a\tb.mrc", "c%41.mrc"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ATOM.format("1e26").encode(), "a coordinate beyond 100000 Å"),
        (ATOM.format("1.000").encode().replace(b"CA  ALA", b"CA \xe9ALA"), "no UTF-8"),
    ],
)
def test_odd_structures_are_refused(tmp_path, content, said):
    (tmp_path / "a.pdb").write_bytes(content)
    with pytest.raises(BadInputError, match=said):
        read_structure(tmp_path / "a.pdb")


def test_tables_half_written_by_a_killed_run_are_removed(capsys, tmp_path, in_tmp_path):
    write_mrc(tmp_path / "m.mrc", make_frames(3), 2.0, "x", stack=True)
    out = tmp_path / "out"
    out.mkdir()
    old, young, other = (
        out / name
        for name in (
            ".provenance.0123456789ab.json",
            ".report.0123456789ab.html",
            ".mine.0123456789ab.json",
        )
    )
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (time.time() - 300,) * 2)
    assert command(capsys, "align", "m.mrc", "-o", "out", "--patches", "0")[0] == 0
    assert not old.exists() and young.exists() and other.exists()


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_ctrl_c_in_training_advises_what_goes_on(capsys, tmp_path, monkeypatch, has_checkpoint):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(dstnet.training, "train_run", interrupted)
    if has_checkpoint:
        (tmp_path / "checkpoint.safetensors").touch()
    code, _, err = command(capsys, "train", "-o", tmp_path, "--device", "cpu")
    assert code == 130
    assert ("--resume goes on" in err) == has_checkpoint
    assert ("begins anew" in err) != has_checkpoint


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        (("train",), ("settings.yaml", "run.json", "log.jsonl")),
        (("adapt", "m.mrc"), ("settings.yaml", "outcome.json", "log.jsonl")),
        (("simulate", "--shape", "128", "128", "--pixel-size", "4"), ("movies.star",)),
    ],
)
def test_a_users_own_files_are_not_replaced_by_other_verbs(capsys, in_tmp_path, verb, names):
    write_mrc("m.mrc", make_frames(3), 2.0, "x", stack=True)
    for name in names:
        in_tmp_path.joinpath(name).write_text("mine: 1\n")
        code, _, err = command(capsys, *verb, "-o", ".", "--device", "cpu")
        assert code == 2 and f"{name} " in err and "move it away" in err
        assert in_tmp_path.joinpath(name).read_text() == "mine: 1\n"
        in_tmp_path.joinpath(name).unlink()


def test_what_nothing_foresaw_is_one_line(capsys, monkeypatch):
    def broken(*_, **__):
        raise KeyError("a\nb")

    monkeypatch.setattr("dstnet.cli.app", broken)
    with pytest.raises(SystemExit) as ended:
        main([])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert err.count("\n") == 1 and "unexpected KeyError at test_bad_days.py" in err


@pytest.mark.parametrize(
    ("occupancy", "b_factor", "said"),
    [
        ("  9.00", " 20.00", "an occupancy that is not between 0 and 1"),
        (" -1.00", " 20.00", "an occupancy that is not between 0 and 1"),
        ("   nan", " 20.00", "an occupancy that is not between 0 and 1"),
        ("  1.00", " -5.00", "a B-factor that is not between 0 and 10000"),
        ("  1.00", "  1e38", "a B-factor that is not between 0 and 10000"),
        ("  1.00", "   nan", "a B-factor that is not between 0 and 10000"),
    ],
)
def test_impossible_atoms_are_named(tmp_path, occupancy, b_factor, said):
    row = ATOM.format("1.000").replace("  1.00 20.00 ", f"{occupancy}{b_factor} ")
    (tmp_path / "a.pdb").write_text(row)
    with pytest.raises(BadInputError, match=f"atom A/1/ALA/CA in .*a.pdb has {said}"):
        read_structure(tmp_path / "a.pdb")
