"""dstnet align as a user runs it, and RELION going on from what it writes."""

import json
import subprocess

import mrcfile
import numpy as np
import pytest
import starfile
from oracles import relion
from tiny import dstnet, make_frames

from dstnet.io import write_mrc, write_tiff


@pytest.fixture
def movies(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "session"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "data")
    write_mrc(folder / "a.mrc", make_frames(4, (96, 80)), 1.5, "x", stack=True)
    write_tiff(folder / "b.tif", make_frames(5, (96, 80), seed=1), 1.5)
    return tmp_path / "data"


def image(path):
    with mrcfile.open(path) as file:
        return file.data.copy(), float(file.voxel_size.x)


@pytest.fixture
def align(capsys):
    """Run `dstnet align` on the CPU."""

    def run(movies, out, *options):
        return dstnet(capsys, "align", movies, "-o", out, "--device", "cpu", *options)

    return run


def test_sums_motion_and_tables(align, movies, tmp_path):
    out = tmp_path / "out"
    arguments = (movies / "**" / "*", out, "--dose-per-frame", "1.5", "--halves")
    code, _, err = align(*arguments)
    assert code == 0, err
    assert "2 done" in err
    names = {
        p.relative_to(out / "micrographs").as_posix()
        for p in (out / "micrographs").rglob("*")
        if p.is_file()
    }
    endings = ("_aligned.mrc", "_dw.mrc", "_EVN.mrc", "_ODD.mrc", ".star")
    assert names == {f"session/{name}{end}" for name in "ab" for end in endings}
    whole, pixel = image(out / "micrographs" / "session" / "a_aligned.mrc")
    even, odd = (
        image(out / "micrographs" / "session" / f"a_{half}.mrc")[0] for half in ("EVN", "ODD")
    )
    assert (whole.shape, pixel) == ((96, 80), pytest.approx(1.5))
    np.testing.assert_allclose(even + odd, whole, rtol=1e-4)
    table = starfile.read(out / "micrographs.star", always_dict=True)["micrographs"]
    assert len(table) == 2
    assert {
        "rlnMicrographName",
        "rlnMicrographNameNoDW",
        "rlnMicrographMetadata",
        "rlnMicrographMovieName",
    } <= set(table.columns)
    assert (out / "report.html").stat().st_size < 500_000
    # Nothing is done twice.
    code, _, err = align(*arguments)
    assert code == 0 and "2 already there" in err


def test_binning_half_precision_and_frames(align, movies, tmp_path):
    out = tmp_path / "out"
    options = ("--bin", "2", "--float16", "--frame-range", "2:", "--patches", "0")
    assert align(movies / "session" / "a.mrc", out, *options)[0] == 0
    summed, pixel = image(out / "micrographs" / "session" / "a_aligned.mrc")
    assert (summed.shape, summed.dtype, pixel) == ((48, 40), np.float16, pytest.approx(3.0))
    assert starfile.read(out / "micrographs" / "session" / "a.star", always_dict=True)["general"][
        "rlnMicrographBinning"
    ] == pytest.approx(2)
    assert not (out / "micrographs" / "session" / "a_dw.mrc").exists(), "no exposure, no weights"


def test_motion_of_an_earlier_run_is_taken_over(align, movies, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    for out, options in ((first, ()), (again, ("--motion-from", first))):
        assert align(movies / "session", out, "--threads", "1", *options)[0] == 0
    for name in "ab":
        a, b = (
            image(out / "micrographs" / "session" / f"{name}_aligned.mrc")[0]
            for out in (first, again)
        )
        np.testing.assert_allclose(a, b, rtol=1e-4)
    code, _, err = align(movies / "session", tmp_path / "c", "--motion-from", movies)
    assert code == 1 and "no motion of" in err


def test_frames_that_are_aligned_already_are_not_moved(align, movies, tmp_path):
    out = tmp_path / "out"
    code, said, err = align(movies / "session" / "b.tif", out, "--pre-aligned")
    assert code == 0 and "accumulated motion 0.0 Å" in said, err
    np.testing.assert_allclose(
        image(out / "micrographs" / "session" / "b_aligned.mrc")[0],
        make_frames(5, (96, 80), seed=1).sum(0),
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--pre-aligned", "--motion-from", "nowhere"), "exclude each other"),
        (("--shard", "3/2"), "1 <= i <= n"),
        (("--shard", "half"), "is not I/N"),
        (("--slurm-cores", "2"), "--slurm-jobs"),
        (("--watch-idle", "2"), "--watch"),
        (("--gain-flip", "up-down", "--gain", "nowhere.mrc"), "nowhere.mrc"),
        (("--eer-frames", "4", "--eer-exposure", "1"), "one of them"),
        (("--bin", "0.5"), "bin"),
        (("--patches", "2"), "patches"),
    ],
)
def test_what_cannot_be_is_refused_before_work(align, movies, tmp_path, options, match):
    code, _, err = align(movies / "session", tmp_path / "out", *options)
    assert code == 2 and match in err, err
    assert not list((tmp_path / "out").rglob("*.mrc"))


def test_shards_share_the_work(align, movies, tmp_path):
    for shard in ("1/2", "2/2"):
        assert align(movies / "session", tmp_path / "out", "--shard", shard)[0] == 0
    table = starfile.read(tmp_path / "out" / "micrographs.star", always_dict=True)["micrographs"]
    assert len(table) == 2


def test_watching_ends_when_nothing_new_comes(align, movies, tmp_path):
    times = ("--watch", "0.05", "--watch-settle", "0.1", "--watch-idle", "0.3")
    code, _, err = align(movies / "session", tmp_path / "out", *times)
    assert code == 0 and "2 done" in err


@pytest.mark.oracle
def test_relion_goes_on_from_the_tables_and_sums(align, movies, tmp_path):
    """RELION's own programs list the micrographs and read the sums."""
    programs = {name: relion(name) for name in ("relion_star_handler", "relion_image_handler")}
    out = tmp_path / "out"
    options = ("--dose-per-frame", "1.5", "--cs", "2.7", "--amplitude-contrast", "0.1")
    assert align(movies / "session", out, *options)[0] == 0

    def run(name, *arguments):
        done = subprocess.run(
            [programs[name], *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("relion_star_handler", "--i", out / "micrographs.star", "--o", "copy.star", "--combine")
    ours, theirs = (
        starfile.read(path, always_dict=True)["micrographs"]
        for path in (out / "micrographs.star", tmp_path / "copy.star")
    )
    assert list(ours["rlnMicrographName"]) == list(theirs["rlnMicrographName"])
    summed, _ = image(out / "micrographs" / "session" / "a_aligned.mrc")
    stats = run(
        "relion_image_handler", "--i", out / "micrographs" / "session" / "a_aligned.mrc", "--stats"
    )
    said = float(stats.split("avg=")[1].split()[0])
    assert said == pytest.approx(float(summed.mean()), rel=1e-3)


def test_what_many_movies_share_is_said_once(align, movies, tmp_path):
    code, text, err = align(movies / "**" / "*", tmp_path / "out")
    assert code == 0, err
    assert text.count("300 kV is assumed") == 1
    assert "note, of 2 movies: 300 kV is assumed" in err
    records = json.loads((tmp_path / "out" / "provenance.json").read_text())["movies"]
    assert all(any("300 kV is assumed" in note for note in r["notes"]) for r in records)


def test_sums_binned_twice_and_groups_of_one_name(align, tmp_path, monkeypatch):
    """The pixel size of the image opened, and a name for each of two groups."""
    monkeypatch.chdir(tmp_path)
    for name, pixel, kv in (("one", 0.53, 300), ("two", 0.6, 200)):
        write_mrc(tmp_path / f"{name}.mrc", make_frames(1, (96, 80))[0], 2 * pixel, "x")
        (tmp_path / f"{name}.star").write_text(
            "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnVoltage #3\n"
            "_rlnMicrographOriginalPixelSize #4\n_rlnMicrographPixelSize #5\n"
            f"opticsGroup1 1 {kv} {pixel} {2 * pixel}\n\ndata_micrographs\n\nloop_\n"
            f"_rlnMicrographName #1\n_rlnOpticsGroup #2\n{name}.mrc 1\n"
        )
    assert align("one.star", "out")[0] == 0
    code, text, err = align("two.star", "out")
    assert code == 0 and "note" not in text, err
    tables = starfile.read(tmp_path / "out" / "micrographs.star", always_dict=True)
    groups = tables["optics"]
    assert groups["rlnMicrographPixelSize"].tolist() == pytest.approx([1.06, 1.2])
    assert groups["rlnVoltage"].tolist() == [300, 200]
    assert len({*groups["rlnOpticsGroupName"]}) == 2 and len({*groups["rlnOpticsGroup"]}) == 2
    assert image(next((tmp_path / "out").rglob("two_aligned.mrc")))[1] == pytest.approx(1.2)
