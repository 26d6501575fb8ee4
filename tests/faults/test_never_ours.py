"""Nothing that is not ours is overwritten, and nothing old is taken for new, however often one
tries.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from tiny import dstnet, make_frames

from dstnet.errors import OutputError
from dstnet.io import Staged, create_file, write_mrc
from dstnet.pipeline import process
from dstnet.pipeline.record import MadeWith, Record
from dstnet.pipeline.records import Records, read_records
from dstnet.pipeline.task import Place

FOREIGN = b"what somebody else put there"
OUT = Path("out")
SUM = OUT / "micrographs" / "m_aligned.mrc"
WEIGHTED = OUT / "micrographs" / "m_dw.mrc"


@pytest.fixture(autouse=True)
def movie(in_tmp_path):
    write_mrc(Path("m.mrc"), make_frames(2, (48, 40)), 2.0, "x", stack=True)


@pytest.fixture
def patched():
    """What can be undone without leaving the test's folder."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture
def align(capsys):
    def run(*more, out=OUT):
        options = ("-d", "cpu", "--patches", "0", "--threads", "1")
        return dstnet(capsys, "align", "m.mrc", "-o", out, *options, *more)

    return run


def refused(result, *words):
    code, out, err = result
    assert code != 0 and " 1 done" not in err and "already there" not in out
    assert all(word in out + err for word in words), out + err


# Files in the place of results


@pytest.mark.parametrize("file", ["m_aligned.mrc", "m.star"])
def test_a_file_in_a_results_place_is_refused_every_time(align, file):
    path = OUT / "micrographs" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(FOREIGN)
    refused(align(), file, "pass --overwrite")
    refused(align(), file)
    provenance = OUT / "provenance.json"
    provenance.write_text(provenance.read_text()[:60])
    refused(align(), file)
    provenance.unlink()
    refused(align(), file)
    shutil.rmtree(OUT / "records")
    refused(align(), file)
    assert path.read_bytes() == FOREIGN
    assert [p.name for p in path.parent.iterdir()] == [file]
    assert align("--overwrite")[0] == 0


def test_a_result_that_was_replaced_is_neither_skipped_nor_overwritten(align):
    assert align()[0] == 0
    whole = SUM.read_bytes()
    SUM.write_bytes(FOREIGN)
    for _ in range(2):
        refused(align(), "m_aligned.mrc")
        assert SUM.read_bytes() == FOREIGN
    SUM.write_bytes(whole)  # another time of change, as of a copy
    code, out, _ = align()
    assert code == 0 and "already there" in out


def test_a_movie_that_was_replaced_does_not_replace_what_others_put_there(align):
    assert align()[0] == 0
    write_mrc(Path("m.mrc"), make_frames(3, (48, 40), seed=1), 2.0, "x", stack=True)
    SUM.write_bytes(FOREIGN)
    refused(align(), "m_aligned.mrc")
    assert SUM.read_bytes() == FOREIGN


def test_a_copy_of_a_folder_goes_on(align):
    assert align()[0] == 0
    shutil.copytree(OUT, "copy", copy_function=shutil.copyfile)
    code, out, _ = align(out="copy")
    assert code == 0 and "already there" in out


def test_lost_provenance_is_made_of_the_records(align):
    assert align()[0] == 0
    (OUT / "provenance.json").unlink()
    refused(align("--bin", "2"), "other settings")
    code, out, _ = align()
    assert code == 0 and "already there" in out
    assert len(json.loads((OUT / "provenance.json").read_text())["movies"]) == 1


# A run that is killed


class _Killed(BaseException):
    pass


def _killed_after(put, patched, run):
    """Run until so many files of results are in their places, and no further."""

    def put_some(staged):
        for path, kept in list(staged.waiting.items())[:put]:
            os.replace(kept, path)
        raise _Killed

    patched.setattr(Staged, "put_in_place", put_some)
    try:
        run()
    finally:
        patched.undo()


@pytest.mark.parametrize("other", ["9", "1 --pixel-size 3"])
@pytest.mark.parametrize("put", [0, 1, 2, 3])
def test_a_run_killed_while_it_overwrites_leaves_nothing_under_the_old_record(
    align, patched, other, put
):
    assert align("--dose-per-frame", "1")[0] == 0
    whole = [SUM.read_bytes(), WEIGHTED.read_bytes()]
    with pytest.raises(_Killed):
        _killed_after(
            put, patched, lambda: align("--overwrite", "--dose-per-frame", *other.split())
        )
    code, _, err = align("--dose-per-frame", "1")
    # The plain sum of both doses is the same, and so still the old record's.
    is_old = put == 0 or (put == 1 and other == "9")
    assert code == 0 and ("1 already there" if is_old else "1 done") in err
    assert [SUM.read_bytes(), WEIGHTED.read_bytes()] == whole
    code, out, _ = align("--dose-per-frame", "1")
    assert code == 0 and "already there" in out
    SUM.write_bytes(FOREIGN)
    refused(align("--dose-per-frame", "1"), "m_aligned.mrc")


@pytest.mark.parametrize("put", [0, 1, 2])
def test_foreign_bytes_where_a_killed_run_had_begun_stay(align, patched, put):
    with pytest.raises(_Killed):
        _killed_after(put, patched, align)
    SUM.write_bytes(FOREIGN)
    for _ in range(2):
        refused(align(), "m_aligned.mrc")
        assert SUM.read_bytes() == FOREIGN
    SUM.unlink()
    assert align()[0] == 0
    assert not [p for p in SUM.parent.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("change", ["same size", "same size and older", "link", "dangling link"])
def test_what_was_put_in_a_results_place_is_noticed_whatever_it_looks_like(align, change):
    assert align()[0] == 0
    status = SUM.stat()
    foreign = bytes(status.st_size)
    if "link" in change:
        SUM.unlink()
        SUM.symlink_to(Path("foreign.mrc").absolute())
        if change == "link":
            Path("foreign.mrc").write_bytes(foreign)
    else:
        SUM.write_bytes(foreign)
        if "older" in change:
            os.utime(SUM, ns=(0, status.st_mtime_ns - 10**12))
    for _ in range(2):
        refused(align(), "m_aligned.mrc")
    assert not (OUT / "micrographs.star").exists()  # which lists what is whole
    code, _, err = align("--overwrite")
    assert code == 0 and "1 done" in err and (OUT / "micrographs.star").exists()
    assert change != "link" or Path("foreign.mrc").read_bytes() == foreign


def test_a_result_that_was_moved_and_linked_is_still_ours(align):
    assert align()[0] == 0
    SUM.rename("elsewhere.mrc")
    SUM.symlink_to(Path("elsewhere.mrc").absolute())
    os.utime("elsewhere.mrc")
    code, out, _ = align()
    assert code == 0 and "already there" in out and (OUT / "micrographs.star").exists()


@pytest.mark.parametrize("put", [0, 1, 3])
def test_a_killed_overwrite_of_other_settings_leaves_no_old_results(align, patched, put):
    assert align()[0] == 0
    old = SUM.read_bytes()
    with pytest.raises(_Killed):
        _killed_after(put, patched, lambda: align("--bin", "2", "--overwrite"))
    assert not (OUT / "micrographs.star").exists()
    refused(align(), "other settings")
    code, _, err = align("--bin", "2")
    assert code == 0 and "1 done" in err
    binned = SUM.read_bytes()
    assert len(binned) < len(old)
    code, _, err = align("--overwrite")
    assert code == 0 and "1 done" in err and SUM.read_bytes() == old


# Tables, records and pages


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("micrographs.star", "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n1\n"),
        ("micrographs.star", "data_\nloop_\n_rlnMicrographName #1\na.mrc\n"),
        ("provenance.json", '{"who": "me"}'),
        ("provenance.json", '{"version": "mine"}'),
        ("provenance.json", ""),
        ("report.html", "<!doctype html><html><head><title>My project</title></head></html>"),
    ],
)
def test_a_projects_own_files_are_not_replaced(align, name, text):
    Path(name).write_text(text)
    for more in ((), (), ("--overwrite",)):
        refused(align(*more, out="."), name, "move it away")
    assert Path(name).read_text() == text
    assert sorted(p.name for p in Path().iterdir()) == sorted(["m.mrc", name])


@pytest.mark.parametrize(
    "text", ['{"version": "mine"}', '{"version": "1", "settings": {}, "movies": []}', "[1]", "mine"]
)
def test_a_users_provenance_among_our_records_is_not_replaced(align, text):
    assert align()[0] == 0
    (OUT / "provenance.json").write_text(text)
    for more in ((), ("--overwrite",)):
        refused(align(*more), "provenance.json", "move it away")
    assert (OUT / "provenance.json").read_text() == text


@pytest.mark.parametrize("length", [0, 1, 10, 30, 60, 200])
def test_a_provenance_that_was_cut_off_is_made_again(align, length):
    assert align()[0] == 0
    path = OUT / "provenance.json"
    whole = json.loads(path.read_text())
    for filled in (b"", bytes(4000)):  # a power cut leaves zeros
        path.write_bytes(path.read_bytes()[:length] + filled)
        code, out, _ = align()
        assert code == 0 and "already there" in out
        assert json.loads(path.read_text()).keys() == whole.keys()


@pytest.mark.parametrize("name", ["micrographs.star", "report.html"])
def test_a_file_put_in_the_place_of_ours_is_not_replaced(align, name):
    assert align()[0] == 0
    (OUT / name).write_text("mine")
    refused(align(), name, "move it away")
    assert (OUT / name).read_text() == "mine"
    (OUT / name).unlink()
    assert align()[0] == 0


def test_tables_of_before_marks_are_ours(align):
    assert align()[0] == 0
    table = OUT / "micrographs.star"
    first, rest = table.read_text().split("\n", 1)
    assert first == "# Written by dstnet"
    table.write_text(rest)
    assert align()[0] == 0 and table.read_text() == f"{first}\n{rest}"


# Runs at once, and clocks

MADE_WITH = MadeWith(version="0.9.0", settings={"patches": 5})


def test_of_two_runs_that_begin_at_once_one_is_refused_and_equal_ones_share(tmp_path, patched):
    """The other's record comes after this run has found none."""
    other = MADE_WITH.model_copy(update={"settings": {"patches": 0}})

    def begin_second(path, text):
        patched.undo()
        Records(tmp_path, MADE_WITH, overwrite=False)
        return create_file(path, text)

    patched.setattr("dstnet.pipeline.records.create_file", begin_second)
    with pytest.raises(OutputError, match="other settings"):
        Records(tmp_path, other, overwrite=False)
    shutil.rmtree(tmp_path / "records")
    (tmp_path / "provenance.json").unlink()
    patched.setattr("dstnet.pipeline.records.create_file", begin_second)
    Records(tmp_path, MADE_WITH, overwrite=False)
    assert read_records(tmp_path).made_with == MADE_WITH


def test_a_new_file_is_written_once(tmp_path, patched):
    path = tmp_path / "a"
    assert create_file(path, "1") and not create_file(path, "2") and path.read_text() == "1"

    def no_links(*_):
        raise PermissionError(1, "no hard links here")

    patched.setattr("dstnet.io.atomic.os.link", no_links)
    assert not create_file(path, "2") and create_file(tmp_path / "b", "2")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "m.mrc") == ["a", "b"]


def test_two_doses_at_once_are_not_mixed(align, patched):
    """The other run writes the movie while this one works on it."""
    real = process.align
    codes = []

    def slowly(*arguments, **options):
        patched.undo()
        codes.append(align("--dose-per-frame", "9")[0])
        return real(*arguments, **options)

    patched.setattr(process, "align", slowly)
    refused(align("--dose-per-frame", "1"), "m_aligned.mrc")
    weighted = WEIGHTED.read_bytes()
    patched.setattr(process, "align", slowly)
    code, *_ = align("--dose-per-frame", "9", "--overwrite")
    assert code == 0 and codes == [0, 0] and WEIGHTED.read_bytes() == weighted


@pytest.mark.parametrize(
    ("moment", "dose"),
    [
        *((moment, "1") for moment in ("align", "_put_in_place", "claim", "put_in_place", "add")),
        *((moment, "9") for moment in ("align", "_put_in_place", "claim")),
    ],
)
def test_two_runs_at_once_share_or_one_is_refused(align, patched, moment, dose):
    """The other runs from its beginning to its end at a moment of this one."""
    at = {"claim": Place, "put_in_place": Staged, "add": Records}.get(moment, process)
    real = getattr(at, moment)
    others = []

    def begin_other(*arguments, **options):
        patched.undo()
        others.append(align("--dose-per-frame", dose))
        return real(*arguments, **options)

    patched.setattr(at, moment, begin_other)
    own = align("--dose-per-frame", "1")
    ((other_code, _, other_err),) = others
    if dose == "1":
        assert own[0] == 0 and other_code == 0
    else:
        assert (own[0], other_code) in ((0, 1), (1, 0)), own[2] + other_err
    winner = "1" if own[0] == 0 else "9"
    code, out, _ = align("--dose-per-frame", winner)
    assert code == 0 and "already there" in out
    weighted = WEIGHTED.read_bytes()
    assert align("--dose-per-frame", winner, "--overwrite")[0] == 0
    assert WEIGHTED.read_bytes() == weighted
    assert not [p for p in SUM.parent.iterdir() if p.name.startswith(".")]


def test_a_run_whose_folder_is_given_to_other_settings_ends(align, patched):
    real = process.align

    def slowly(*arguments, **options):
        patched.undo()
        assert align("--bin", "2", "--overwrite")[0] == 0
        return real(*arguments, **options)

    patched.setattr(process, "align", slowly)
    refused(align(), "other settings meanwhile")
    code, out, _ = align("--bin", "2")
    assert code == 0 and "already there" in out


def test_a_failure_by_a_clock_that_is_ahead_beats_no_later_success(align):
    frames = Path("m.mrc").read_bytes()
    Path("m.mrc").write_bytes(frames[:500])
    assert align()[0] == 1
    for path in (*OUT.glob("records/*.jsonl"), OUT / "provenance.json"):
        path.write_text(path.read_text().replace('"time": "2', '"time": "3'))
    Path("m.mrc").write_bytes(frames)
    assert align()[0] == 0
    stored = read_records(OUT)
    assert [r.status for r in stored.movies] == ["done"] and not stored.failures


def test_within_a_run_the_later_record_counts(tmp_path):
    records = Records(tmp_path / "o", MADE_WITH, overwrite=False)
    for time, error in (("3", "first"), ("2", "second")):
        records.add(Record(input="a", name="a", status="failed", time=time, error=error))
        records.refresh()
    assert [r.error for r in read_records(tmp_path / "o").failures] == ["second"]
