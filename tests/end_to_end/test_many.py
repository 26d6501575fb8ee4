"""Many movies: shards, watching, crashes, what is put on record, and the page of a run."""

import html.parser
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from tiny import make_frames

from dstnet.alignment import AlignmentSettings
from dstnet.enhancement import EnhancementSettings
from dstnet.errors import BadInputError, OutputError, SettingsError
from dstnet.io import write_mrc
from dstnet.motion.relion import from_relion
from dstnet.pipeline import (
    InputMovie,
    MovieSettings,
    ProductSettings,
    RunSettings,
    process,
    run_files,
)
from dstnet.pipeline.records import read_records
from dstnet.pipeline.star_row import StarRow
from dstnet.pipeline.watch import watch
from dstnet.report.page import RunPage
from dstnet.runs import Shard, Workplace


@pytest.fixture
def movies(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(4):
        write_mrc(
            tmp_path / "in" / f"m{number}.mrc",
            make_frames(4, (64, 72), seed=number),
            2.0,
            "x",
            stack=True,
        )
    return [InputMovie(tmp_path / "in" / f"m{n}.mrc", f"m{n}") for n in range(4)]


@pytest.fixture
def settings(model):
    method = EnhancementSettings(model=str(model))
    return RunSettings(method, MovieSettings(exposure_e_per_a2=2.0))


ALIGN = RunSettings(AlignmentSettings())
ONE_THREAD = Workplace(threads=1)


def images(folder):
    return {p.name: p.read_bytes() for p in (folder / "micrographs").rglob("*") if p.is_file()}


def lasting(folder):
    """Records without what differs from run to run."""
    found = {}
    for name, record in read_records(folder).records.items():
        results = record.results
        if results is not None and results.written is not None:
            digests = {kind: (0, 0, digest) for kind, (*_, digest) in results.written.items()}
            results = results.model_copy(update={"written": digests})
        changing = {"cost": None, "time": "", "run": 0, "status": "done", "results": results}
        found[name] = record.model_copy(update=changing)
    return found


def tables(folder):
    return (folder / "micrographs.star").read_text().replace(str(folder), "OUT")


# Shards


def test_shards_write_into_one_folder_what_one_run_writes(movies, settings, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_files(movies, whole, settings, workplace=ONE_THREAD)
    done = [
        run_files(movies, parts, settings, workplace=Workplace(threads=1, shard=Shard(i, 3))).of(
            "done"
        )
        for i in (3, 1, 2)
    ]
    assert [[record.name for record in part] for part in done] == [["m2"], ["m0", "m3"], ["m1"]]
    assert images(parts) == images(whole)
    assert lasting(parts) == lasting(whole)
    assert tables(parts) == tables(whole)
    stored = json.loads((parts / "provenance.json").read_text())
    assert [m["name"] for m in stored["movies"]] == ["m0", "m1", "m2", "m3"] and stored[
        "failures"
    ] == {}


def test_shards_at_once_lose_no_record(movies, settings, tmp_path):
    code = (
        "import pickle, sys\nfrom dstnet.pipeline import run_files\n"
        "movies, out, settings, workplace = pickle.load(sys.stdin.buffer)\n"
        "run_files(movies, out, settings, workplace=workplace)"
    )
    processes = []
    for shard in (Shard(1, 2), Shard(2, 2)):
        workplace = Workplace(threads=1, shard=shard)
        processes.append(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE))
        processes[-1].stdin.write(pickle.dumps((movies, tmp_path / "out", settings, workplace)))
        processes[-1].stdin.close()
    assert [p.wait(120) for p in processes] == [0, 0]
    stored = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert [(m["name"], m["status"]) for m in stored["movies"]] == [
        (f"m{i}", "done") for i in range(4)
    ]
    assert len(starfile.read(tmp_path / "out" / "micrographs.star")["micrographs"]) == 4


# What is put on record


def test_a_record_broken_off_by_a_kill_is_passed_over(movies, settings, tmp_path):
    out = tmp_path / "out"
    run_files(movies[:2], out, settings, workplace=ONE_THREAD)
    (journal,) = (out / "records").glob("*.jsonl")
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines[:-1], lines[-1][:40]]))
    shutil.copy(out / "provenance.json", tmp_path / "before.json")
    stored = json.loads((out / "provenance.json").read_text())
    (out / "provenance.json").write_text(
        json.dumps({**stored, "movies": []})
    )  # as a killed run leaves it
    before = images(out)
    summary = run_files(movies[:2], out, settings, workplace=ONE_THREAD)
    assert [record.status for record in summary.records] == [
        "skipped",
        "done",
    ], "not on record: made again"
    assert images(out) == before
    assert list(read_records(out).records) == ["m0", "m1"]


def test_a_mistake_of_ours_costs_one_movie(movies, tmp_path, monkeypatch):
    real = process.align

    def align(movie, *arguments, **options):
        if movie.name.endswith("m1.mrc"):
            raise ZeroDivisionError("oops")
        return real(movie, *arguments, **options)

    monkeypatch.setattr(process, "align", align)
    summary = run_files(movies, tmp_path / "out", ALIGN)
    assert [record.status for record in summary.records] == ["done", "failed", "done", "done"]
    assert (
        "m1.mrc" in summary.records[1].error
        and "ZeroDivisionError at test_many.py" in summary.records[1].error
    )


@pytest.mark.parametrize(
    ("value", "says"), [(0.0, "constant"), (7.0, "constant"), (float("nan"), "not finite")]
)
def test_black_flat_and_broken_results_are_refused(movies, tmp_path, monkeypatch, value, says):
    real = process.align
    monkeypatch.setattr(
        process,
        "align",
        lambda *a, **o: (got := real(*a, **o)) and replace(got, total=got.total * 0 + value),
    )
    summary = run_files(movies[:1], tmp_path / "out", ALIGN)
    assert says in summary.records[0].error
    assert (
        not list((tmp_path / "out").rglob("*.mrc"))
        and not (tmp_path / "out" / "micrographs.star").exists()
    )


def test_old_hidden_files_of_killed_runs_go_and_young_ones_stay(movies, tmp_path):
    folder = tmp_path / "out" / "micrographs"
    folder.mkdir(parents=True)
    old, young, other = (
        folder / n for n in (".m9_aligned.0123456789ab.mrc", ".m8_dw.0123456789ab.mrc", ".mine.mrc")
    )
    for path in (old, young, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - 7200,) * 2)
    run_files(movies[:1], tmp_path / "out", ALIGN)
    assert not old.exists() and young.exists() and other.exists()


def test_alignment_alone_in_half_precision_with_halves(movies, tmp_path):
    products = ProductSettings(halves=True, half_precision_files=True)
    given = replace(ALIGN, products=products)
    run_files(movies[:1], tmp_path / "out", given)
    folder = tmp_path / "out" / "micrographs"
    assert set(images(tmp_path / "out")) == {
        "m0_aligned.mrc",
        "m0_EVN.mrc",
        "m0_ODD.mrc",
        "m0.star",
    }
    whole, even, odd = (mrcfile.read(folder / f"m0_{n}.mrc") for n in ("aligned", "EVN", "ODD"))
    assert whole.dtype == even.dtype == np.float16
    np.testing.assert_allclose(
        even.astype("f4") + odd, whole, atol=3 * 2.0**-5
    )  # values to 100: halves of a unit in the last place
    with pytest.raises(OutputError, match="half_precision_files"):
        run_files(
            movies[:1], tmp_path / "out", replace(given, products=ProductSettings(halves=True))
        )


def test_float16_that_would_lose_the_detail_is_refused(tmp_path):
    write_mrc(
        tmp_path / "high.mrc",
        make_frames(4, (64, 72)).astype(np.float32) + 30000,
        2.0,
        "x",
        stack=True,
    )
    summary = run_files(
        [InputMovie(tmp_path / "high.mrc", "high")],
        tmp_path / "out",
        replace(ALIGN, products=ProductSettings(half_precision_files=True)),
    )
    assert "float16" in summary.records[0].error and "float32" in summary.records[0].error


def test_enhanced_halves(movies, settings, tmp_path):
    run_files(
        movies[:1], tmp_path / "out", replace(settings, products=ProductSettings(halves=True))
    )
    names = {
        f"m0{w}"
        for w in (
            "_aligned.mrc",
            "_dw.mrc",
            "_enhanced.mrc",
            "_EVN.mrc",
            "_ODD.mrc",
            "_enhanced_EVN.mrc",
            "_enhanced_ODD.mrc",
        )
    }
    assert set(images(tmp_path / "out")) == {*names, "m0.star"}


@pytest.mark.parametrize("source", ["folder", "table", "file"])
def test_motion_from_elsewhere(movies, tmp_path, source):
    """The motion that one run found makes another's sums, by whichever way it is named; other
    frames and movies are refused.
    """
    first, again = tmp_path / "first", tmp_path / "again"
    run_files(movies[:2], first, ALIGN)
    where = {
        "folder": first / "micrographs",
        "table": first / "micrographs.star",
        "file": first / "micrographs" / "m0.star",
    }[source]
    taken = replace(ALIGN, motion_from=where)
    assert len(run_files(movies[:1], again, taken).of("done")) == 1
    np.testing.assert_allclose(
        *(mrcfile.read(f / "micrographs" / "m0_aligned.mrc") for f in (first, again)),
        rtol=1e-4,
        atol=1e-2,
    )
    part = run_files(
        movies[:1], tmp_path / "part", replace(taken, movies=MovieSettings(frames=slice(1, 4)))
    )
    whole, some = (
        np.array(record.results.shifts_angstrom)
        for folder in (again, tmp_path / "part")
        for record in read_records(folder).records.values()
    )
    np.testing.assert_allclose(some, whole[1:] - whole[1], atol=2e-3)
    assert part.records[0].source.frames == 3
    (tmp_path / "in" / "long").mkdir()
    write_mrc(tmp_path / "in" / "long" / "m0.mrc", make_frames(6, (64, 72)), 2.0, "x", stack=True)
    longer = run_files(
        [InputMovie(tmp_path / "in" / "long" / "m0.mrc", "m0")], tmp_path / "longer", taken
    )
    assert "is another file" in longer.records[0].error
    if source != "file":
        assert "m3" in run_files(movies[3:], tmp_path / "other", taken).records[0].error, (
            "no motion of this one"
        )


def test_motion_of_a_part_is_told_by_the_frames_of_the_file(movies, tmp_path):
    """RELION numbers the frames of the file: a part's motion stands at their places, and is found
    there again; the others have the shifts of frames that RELION leaves out.
    """
    part = replace(ALIGN, movies=MovieSettings(frames=slice(2, 4)))
    run_files(movies[:1], tmp_path / "first", part)
    tables = starfile.read(tmp_path / "first" / "micrographs" / "m0.star")
    assert tables["global_shift"]["rlnMicrographFrameNumber"].tolist() == [1, 2, 3, 4]
    assert tables["general"]["rlnImageSizeZ"] == 4
    assert tables["general"]["rlnMicrographStartFrame"] == 3
    shifts = tables["global_shift"][["rlnMicrographShiftX", "rlnMicrographShiftY"]].to_numpy()
    assert (shifts[:2] == -9999).all() and (shifts[2] == 0).all()
    run_files(movies[:1], tmp_path / "again", replace(part, motion_from=tmp_path / "first"))
    first, again = (
        np.array(read_records(tmp_path / folder).records["m0"].results.shifts_angstrom)
        for folder in ("first", "again")
    )
    np.testing.assert_allclose(again, first, atol=2e-3)


def test_optics_groups_are_kept(movies, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optics = {
        "rlnOpticsGroupName": "beam3",
        "rlnOpticsGroup": "3",
        "rlnVoltage": "200.0",
        "rlnSphericalAberration": "1.4",
        "rlnMtfFileName": "a.star",
    }
    row = StarRow(Path("in.star"), "rlnMicrographMovieName", optics, tuple(optics))
    given = [
        InputMovie(Path("in") / m.path.name, m.name, None if i == 1 else row)
        for i, m in enumerate(movies)
    ]
    taken = MovieSettings(
        exposure_e_per_a2=1.0, amplitude_contrast=0.1, spherical_aberration_mm=1.4
    )
    run_files(given, Path("out"), replace(ALIGN, movies=taken))
    found = starfile.read(Path("out/micrographs.star"))
    groups = found["optics"].set_index("rlnOpticsGroup")
    assert "rlnMtfFileName" not in groups, "which one group lacks: RELION would read something"
    assert (
        groups.loc[3, "rlnOpticsGroupName"] == "beam3"
        and groups.loc[3, "rlnSphericalAberration"] == 1.4
    )
    assert groups.loc[3, "rlnVoltage"] == 200 and groups.loc[3, "rlnMicrographPixelSize"] == 2.0
    assert groups.loc[1, "rlnVoltage"] == 300 and groups.loc[1, "rlnAmplitudeContrast"] == 0.1
    table = found["micrographs"]
    assert table["rlnOpticsGroup"].tolist() == [3, 1, 3, 3]
    assert table["rlnMicrographName"].tolist() == [
        f"out/micrographs/m{i}_dw.mrc" for i in range(4)
    ], "from where RELION is run"
    assert (
        table["rlnMicrographMovieName"][2] == "in/m2.mrc"
        and Path(table["rlnMicrographNameNoDW"][2]).is_file()
    )
    motion, _ = from_relion(starfile.read(table["rlnMicrographMetadata"][0]))
    steps = motion.diff(dim=0).norm(dim=1)
    assert table["rlnAccumMotionTotal"][0] == pytest.approx(float(steps.sum()), abs=1e-2)
    assert table["rlnAccumMotionEarly"][0] + table["rlnAccumMotionLate"][0] == pytest.approx(
        table["rlnAccumMotionTotal"][0], abs=2e-3
    )


# Watching


def test_watching_waits_for_files_that_still_grow(movies, tmp_path):
    """A file that grows, one that is cut off for a while, one that stays cut off, and one that lay
    there all along.
    """
    folder, source = tmp_path / "arriving", [m.path.read_bytes() for m in movies]
    folder.mkdir()
    (folder / "there.mrc").write_bytes(source[0])
    os.utime(folder / "there.mrc", (time.time() - 3600,) * 2)

    def write():
        time.sleep(0.1)
        (folder / "stuck.mrc").write_bytes(source[3][:9000])
        with open(folder / "grows.mrc", "wb") as file:
            for start in range(0, len(source[1]), 5000):
                file.write(source[1][start : start + 5000])
                file.flush()
                time.sleep(0.05)
        (folder / "late.mrc").write_bytes(source[2][:9000])
        time.sleep(0.5)  # longer than the settling time
        (folder / "late.mrc").write_bytes(source[2])

    writer = threading.Thread(target=write)
    writer.start()
    seen = {}

    def find(tell):
        if not (paths := sorted(folder.glob("*.mrc"))):
            raise BadInputError("none yet")
        return [InputMovie(p, p.stem) for p in paths]

    for movie in watch(find, ALIGN.movies.open, every=0.05, settle=0.2, idle=0.5):
        if movie:
            assert movie.name not in seen
            seen[movie.name] = movie.path.stat().st_size
        time.sleep(0.01)
    writer.join()
    assert seen == {
        "there": len(source[0]),
        "grows": len(source[1]),
        "late": len(source[2]),
        "stuck": 9000,
    }
    assert next(iter(seen)) == "there" and list(seen)[-1] == "stuck"


def test_what_keeps_a_watch_waiting_is_said_once():
    def find(tell):
        raise BadInputError("a.star has no table")

    said = []
    assert not any(
        watch(find, ALIGN.movies.open, every=0.01, settle=0.1, idle=0.1, report=said.append)
    )
    assert said == ["waiting: a.star has no table"]


def test_a_watched_run(movies, tmp_path):
    source = watch(lambda tell: movies, ALIGN.movies.open, every=0.05, settle=0.1, idle=0.3)
    reported = []
    summary = run_files(
        source, tmp_path / "out", ALIGN, report=lambda record: reported.append(record.name)
    )
    assert len(summary.of("done")) == 4 and sorted(reported) == ["m0", "m1", "m2", "m3"]
    with pytest.raises(SettingsError, match="--shard"):
        run_files(source, tmp_path / "out", ALIGN, workplace=Workplace(shard=Shard(1, 2)))


def test_a_movie_replaced_while_it_is_watched_is_made_again(movies, tmp_path):
    """Also one that was given up as cut off."""
    out = tmp_path / "out"
    first, second = movies[:2]
    complete = second.path.read_bytes()
    second.path.write_bytes(complete[:9000])
    found = []

    def replace_it(record):
        found.append((record.name, record.status))
        if len(found) == 2:
            write_mrc(first.path, make_frames(4, (64, 72), seed=9) + 50, 2.0, "x", stack=True)
            second.path.write_bytes(complete)

    source = watch(lambda tell: movies[:2], ALIGN.movies.open, every=0.05, settle=0.1, idle=1.5)
    summary = run_files(source, out, ALIGN, report=replace_it)
    assert [record.status for record in summary.records] == ["done", "done"]
    assert found[:2] == [("m0", "done"), ("m1", "failed")]
    assert sorted(found[2:]) == [("m0", "done"), ("m1", "done")]
    stored = read_records(out)
    assert not stored.failures and len(stored.movies) == 2
    assert "made again" in str(stored.records["m0"].to_json())
    assert mrcfile.read(out / "micrographs" / "m0_aligned.mrc").mean() > 200


def test_tables_and_page_are_written_as_a_watched_run_goes(movies, tmp_path):
    """What is finished shows before anything else comes, newest first; Ctrl-C leaves all."""
    out = tmp_path / "out"
    page = RunPage(out)

    def shown():
        try:
            table = starfile.read(out / "micrographs.star")["micrographs"]
            stored = json.loads((out / "provenance.json").read_text())["movies"]
            order = re.findall(r"<h3>(m\d)</h3>", page.path.read_text())
        except OSError:
            return 0, 0, []
        return len(table), len(stored), order

    def arriving():
        for number in (1, 2):
            yield movies[number - 1]
            end = time.monotonic() + 60
            while shown()[:2] != (number, number) or len(shown()[2]) != number:
                assert time.monotonic() < end, shown()
                yield None
        yield movies[2]
        raise KeyboardInterrupt

    run_files(arriving(), out, ALIGN, workplace=ONE_THREAD, write_more=page.write)
    assert shown() == (3, 3, ["m2", "m1", "m0"])


def test_ctrl_c_ends_a_watch_with_its_results(movies, tmp_path):
    def arriving():
        yield from movies[:2]
        raise KeyboardInterrupt

    summary = run_files(arriving(), tmp_path / "out", ALIGN)
    assert len(summary.of("done")) == 2
    assert len(starfile.read(tmp_path / "out" / "micrographs.star")["micrographs"]) == 2


# Crashes


DEADLY = """
import os, signal, sys, pickle
from dstnet.pipeline import process, run_files
from dstnet.runs import Workplace
real = process.align
def align(movie, *rest, **more):
    if movie.name.endswith("m1.mrc"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return real(movie, *rest, **more)
process.align = align
if __name__ == "__main__":
    movies, out, settings = pickle.load(sys.stdin.buffer)
    summary = run_files(movies, out, settings, workplace=Workplace(workers=2, tries=2))
    print([record.status for record in summary.records], summary.records[1].error)
"""


@pytest.mark.slow
def test_a_movie_that_kills_its_workers_is_named_and_the_others_finished(movies, tmp_path):
    (tmp_path / "deadly.py").write_text(
        DEADLY
    )  # a worker imports the main program's file, so this reaches it too
    sent = pickle.dumps((movies, tmp_path / "out", ALIGN))
    done = subprocess.run(
        [sys.executable, tmp_path / "deadly.py"], input=sent, capture_output=True, timeout=200
    )
    said = done.stdout.decode()
    assert (
        "['done', 'failed', 'done', 'done']" in said
        and "m1.mrc: its worker ended 2 times (SIGSEGV)" in said
    ), done.stderr.decode()


# Other machines


@pytest.mark.slow
def test_dask_makes_the_same(movies, settings, tmp_path):
    distributed = pytest.importorskip(
        "distributed", reason="dask is not installed (pip install 'dstnet[cluster]')"
    )
    run_files(movies, tmp_path / "here", settings, workplace=ONE_THREAD)
    bad = InputMovie(tmp_path / "none.mrc", "none")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.write_scheduler_file(str(tmp_path / "scheduler.json"))
        workplace = Workplace(threads=1, scheduler_file=tmp_path / "scheduler.json")
        summary = run_files([*movies, bad], tmp_path / "there", settings, workplace=workplace)
    assert [record.status for record in summary.records] == ["done"] * 4 + ["failed"]
    assert images(tmp_path / "there") == images(tmp_path / "here")


# The page


class Page(html.parser.HTMLParser):
    """Tags must match; collects text and what would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.links, self.images = [], "", [], 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("src", "href")]
        self.images += tag == "img"
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_of_a_run(movies, settings, tmp_path):
    out = tmp_path / "out"
    bad = tmp_path / "in" / "<script>alert(1)<"
    bad.write_text("no movie")
    run_files([*movies, InputMovie(bad, "bad")], out, settings)
    RunPage(out).write()
    path = out / "report.html"
    page = Page(path.read_text())
    assert page.images == 8 and all(
        link.startswith("data:image/jpeg;base64,") for link in page.links
    )
    text = " ".join(page.text.split())
    assert (
        "Particles come from the plain sums" in text and "4 of 5 inputs are done, 1 failed" in text
    )
    assert str(bad) in text and "<script" not in path.read_text()
    assert (
        read_records(out).made_with.weights_sha256 in text and "tile: 1136" in text and "m2" in text
    )
    assert path.stat().st_size < 300_000


def test_the_page_shows_pictures_of_so_many_and_says_so(movies, tmp_path, monkeypatch):
    from dstnet.report import page

    monkeypatch.setattr(page, "MOST_PICTURES", 2)
    run_files(movies, tmp_path / "out", ALIGN)
    RunPage(tmp_path / "out").write()
    shown = Page((tmp_path / "out" / "report.html").read_text())
    assert "m3" in shown.text and "m0" not in shown.text, "newest first"
    assert shown.images == 2 and "2 more are in" in shown.text and "looking" not in shown.text, (
        "alignment alone enhances nothing"
    )


def test_no_page_without_a_run(tmp_path):
    with pytest.raises(BadInputError, match=r"provenance\.json"):
        RunPage(tmp_path).write()
