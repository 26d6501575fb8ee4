"""dstnet simulate as a user runs it: workers, resume, recipes, the plan, the preview."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import starfile
import torch
import yaml
from tiny import dstnet

from dstnet.errors import SettingsError
from dstnet.io import open_movie
from dstnet.simulation.recipe import FOLDER, Recipe

TABLES = ("movies.star", "particles.star", "manifest.json")
SMALL = {
    "--shape": ["128", "128"],
    "--pixel-size": ["4"],
    "--frames": ["2"],
    "--dose-per-frame": ["1"],
}


def small_but_for(arguments) -> list[str]:
    """Options for a movie made in no time, where `arguments` do not say otherwise."""
    return [
        word for name, values in SMALL.items() if name not in arguments for word in (name, *values)
    ]


def files_of(folder: Path) -> dict[str, str]:
    """Digests of all files by name, the movies' list among them."""
    paths = [p for p in folder.rglob("*") if p.is_file()]
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths
    }


@pytest.fixture
def simulate(capsys, tmp_path):
    def run(*arguments, out="out", small=True):
        return dstnet(
            capsys,
            "simulate",
            "-o",
            tmp_path / out,
            "--device",
            "cpu",
            *(small_but_for(arguments) if small else []),
            *arguments,
        )

    return run


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_same_bytes_whatever_the_workers_and_threads(simulate, tmp_path, two_threads):
    """torch's sums over 256 x 256 pixels come out otherwise with two threads than with one, in the
    last bit.
    """
    larger = ["--movies", "2", "--seed", "4", "--shape", "256", "256"]
    assert simulate(*larger, out="two-threads")[0] == 0
    assert torch.get_num_threads() == 2, "the caller's own choice is left alone"
    torch.set_num_threads(1)
    assert simulate(*larger, out="one-thread")[0] == 0
    assert simulate(*larger, "--workers", "2", out="two-workers")[0] == 0
    first = files_of(tmp_path / "one-thread")
    assert {
        "movies.star",
        "movies/phantom0_D7_00004.tif",
        "truth/phantom0_D7_00005_phase.mrc",
    } <= first.keys()
    assert files_of(tmp_path / "two-threads") == first
    assert files_of(tmp_path / "two-workers") == first


def test_shards_share_the_movies(simulate, tmp_path):
    assert simulate("--movies", "3")[0] == 0
    made = []
    for shard in ("2/2", "1/2"):
        code, _, err = simulate("--movies", "3", "--shard", shard, out="shared")
        made.append(err.split(" made", 1)[0].split()[-1])
        assert code == 0
    assert made == ["1", "2"]
    assert files_of(tmp_path / "shared") == files_of(tmp_path / "out")
    code, _, err = simulate("--shard", "3/2", out="none")
    assert code == 2 and "shard 3/2 is not i/n" in err and not (tmp_path / "none").exists()


@pytest.mark.slow
def test_dask_makes_the_same(simulate, tmp_path):
    distributed = pytest.importorskip(
        "distributed", reason="dask is not installed (pip install 'dstnet[cluster]')"
    )
    assert simulate("--movies", "3")[0] == 0
    file = tmp_path / "scheduler.json"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        file.write_text(json.dumps(cluster.scheduler.identity()))
        code, _, err = simulate("--movies", "3", "--scheduler-file", file, out="there")
    assert code == 0 and "3 made" in err
    assert files_of(tmp_path / "there") == files_of(tmp_path / "out")


def test_a_scheduler_that_is_not_there_is_refused_before_anything_is_written(simulate, tmp_path):
    code, _, err = simulate("--scheduler-file", tmp_path / "none.json")
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert "scheduler" in err or "dask" in err
    assert not (tmp_path / "out").exists()


def test_a_movie_does_not_depend_on_those_before_it(simulate, tmp_path):
    assert simulate("--movies", "3")[0] == 0
    assert simulate("--seed", "2", out="alone")[0] == 0
    alone = files_of(tmp_path / "alone")
    for table in TABLES:  # of all movies of a folder
        del alone[table]
    assert alone.items() <= files_of(tmp_path / "out").items()


def test_whole_movies_are_skipped_and_half_ones_made_again(simulate, tmp_path):
    assert simulate("--movies", "3")[0] == 0
    before, out = files_of(tmp_path / "out"), tmp_path / "out"
    (
        out / "truth" / "phantom0_D7_00001_settings.yaml"
    ).unlink()  # written last: without it the movie is half-written
    (out / "movies" / "phantom0_D7_00001.tif").write_bytes(b"half")
    (out / "movies" / ".phantom0_D7_00001.0123456789ab.tif").write_bytes(b"left by a kill")
    kept = (out / "movies" / "phantom0_D7_00000.tif").stat().st_mtime_ns
    code, text, err = simulate("--movies", "4")
    assert code == 0 and "2 made, 2 already there" in err
    assert [("skipped" in line) for line in text.splitlines()] == [True, False, True, False]
    assert (out / "movies" / "phantom0_D7_00000.tif").stat().st_mtime_ns == kept
    after = files_of(out)
    assert {n: d for n, d in before.items() if n not in TABLES}.items() <= after.items()
    assert not list((out / "movies").glob(".*"))
    assert len(starfile.read(out / "movies.star", always_dict=True)["movies"]) == 4


def test_other_settings_are_never_overwritten_unasked(simulate, tmp_path):
    assert simulate()[0] == 0
    before = files_of(tmp_path / "out")
    for other in (["--dose-per-frame", "2"], ["--format", "mrc"]):
        code, _, err = simulate(*other, "--movies", "2")
        assert (
            code == 2
            and "phantom0_D7_00000" in err
            and "--overwrite" in err
            and len(err.splitlines()) == 1
        )
        assert files_of(tmp_path / "out") == before
    assert simulate("--format", "mrc", "--overwrite")[0] == 0
    assert [p.name for p in (tmp_path / "out" / "movies").iterdir()] == ["phantom0_D7_00000.mrcs"]
    assert starfile.read(tmp_path / "out" / "movies.star")["movies"][
        "rlnMicrographMovieName"
    ].tolist() == ["movies/phantom0_D7_00000.mrcs"]
    mrc = open_movie(tmp_path / "out" / "movies" / "phantom0_D7_00000.mrcs")
    assert simulate(out="tif")[0] == 0
    tif = open_movie(tmp_path / "tif" / "movies" / "phantom0_D7_00000.tif")
    assert (
        mrc.pixel_size_angstrom
        == pytest.approx(tif.pixel_size_angstrom, abs=1e-4)
        == pytest.approx(4)
    )
    assert all(torch.equal(mrc.frame(i), tif.frame(i)) for i in range(2)), (
        "the same counts in either format"
    )


def test_overwrite_makes_whole_movies_again(simulate, tmp_path):
    assert simulate()[0] == 0
    movie = tmp_path / "out" / "movies" / "phantom0_D7_00000.tif"
    movie.write_bytes(b"spoilt")
    assert simulate("--overwrite")[0] == 0
    assert len(open_movie(movie)) == 2


def test_expected_frames_are_added_to_a_movie_that_lacks_them(simulate, tmp_path):
    assert simulate()[0] == 0
    before = files_of(tmp_path / "out")
    assert "1 made" in simulate("--expected-frames")[2]
    after = files_of(tmp_path / "out")
    assert after.keys() - before.keys() == {"truth/phantom0_D7_00000_expected.mrcs"}
    digests = {"manifest.json", "truth/phantom0_D7_00000_facts.json"}  # of the new file too
    assert {n: d for n, d in before.items() if n not in digests}.items() <= after.items()
    assert (
        "1 already there" in simulate("--expected-frames")[2] and "1 already there" in simulate()[2]
    )


def test_dry_run_says_all_and_writes_nothing(simulate, tmp_path):
    larger = ["--shape", "512", "512", "--frames", "6"]
    larger.append("--expected-frames")
    code, out, _ = simulate(*larger, "--movies", "2", "--dry-run", "--json")
    assert code == 0 and not (tmp_path / "out").exists()
    *movies, total = map(json.loads, out.splitlines())
    assert [m["name"] for m in movies] == ["phantom0_D7_00000", "phantom0_D7_00001"]
    assert movies[0]["frames"] == 6 and movies[0]["shape"] == [512, 512]
    assert (
        total["movies"] == total["to_make"] == 2
        and 0 < total["cpu_seconds"] < 60
        and total["memory_bytes"] > 1e8
    )
    assert simulate(*larger, "--movies", "2")[0] == 0
    for folder, planned in (("movies", "movie_bytes"), ("truth", "truth_bytes")):
        written = sum(p.stat().st_size for p in (tmp_path / "out" / folder).iterdir())
        assert 0.7 * written < sum(m[planned] for m in movies) < 1.6 * written, folder
    code, out, _ = simulate(*larger, "--movies", "3", "--dry-run")
    assert code == 0 and "1 of 3 movies to make" in out and out.count("already there") == 2


def test_recipe_varies_settings_from_movie_to_movie(simulate, tmp_path):
    recipe = {
        "structures": ["phantom:3"],
        "movies": 3,
        "settings": {
            "shape": [128, 128],
            "pixel_size_angstrom": 4.0,
            "specimen": {"coverage": 0.1},
        },
        "vary": {
            "frames": [1, 3],
            "optics.defocus_angstrom": [8000, 20000],
            "optics.voltage_kv": {"choices": [200.0, 300.0]},
        },
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe))
    code, _, err = simulate("--recipe", path, "--dose-per-frame", "1.5", small=False)
    assert code == 0 and "3 made" in err
    records = [
        yaml.safe_load(p.read_text())
        for p in sorted((tmp_path / "out" / "truth").glob("*_settings.yaml"))
    ]
    assert len({r["settings"]["optics"]["defocus_angstrom"] for r in records}) == 3
    for record in records:
        s = record["settings"]
        assert record["name"].startswith("phantom3_")
        assert 8000 <= s["optics"]["defocus_angstrom"] <= 20000 and s["optics"]["voltage_kv"] in (
            200.0,
            300.0,
        )
        assert (
            isinstance(s["frames"], int)
            and 1 <= s["frames"] <= 3
            and s["specimen"]["coverage"] == 0.1
            and s["exposure_e_per_a2"] == 1.5
        )
        assert len(open_movie(tmp_path / "out" / "movies" / f"{record['name']}.tif")) == s["frames"]
    list_ = starfile.read(tmp_path / "out" / "movies.star", always_dict=True)
    voltages = dict(
        zip(list_["optics"]["rlnOpticsGroup"], list_["optics"]["rlnVoltage"], strict=True)
    )
    assert [voltages[g] for g in list_["movies"]["rlnOpticsGroup"]] == [
        r["settings"]["optics"]["voltage_kv"] for r in records
    ]


def test_every_value_of_a_range_is_drawn_and_one_more_setting_changes_no_other():
    recipe = Recipe.checked({"vary": {"frames": [2, 4], "specimen.coverage": [0.1, 0.3]}}, "test")
    drawn = [recipe.settings_of(seed) for seed in range(200)]
    counts = np.bincount([s.frames for s in drawn])
    assert (
        counts[:2].tolist() == [0, 0] and len(counts) == 5 and counts[2:].min() > 40
    )  # 67 expected, 6.7 their standard deviation
    coverage = np.array([s.specimen.coverage for s in drawn])
    assert (
        0.1 <= coverage.min() < 0.11
        and 0.29 < coverage.max() <= 0.3
        and abs(coverage.mean() - 0.2) < 5 * 0.2 / 12**0.5 / 200**0.5
    )
    alone = Recipe.checked({"vary": {"specimen.coverage": [0.1, 0.3]}}, "test")
    assert [alone.settings_of(s).specimen.coverage for s in range(5)] == coverage[:5].tolist()


@pytest.mark.parametrize("name", sorted(p.stem for p in FOLDER.glob("*.yaml")))
def test_shipped_recipes_hold(name, simulate):
    recipe = Recipe.named(name)
    for seed in range(20):
        recipe.settings_of(seed)
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# "), "says what it is for"
    _, out, _ = simulate("--help")
    assert name in out


def test_diverse_recipe_varies_what_training_asks_for():
    drawn = [Recipe.named("diverse").settings_of(seed) for seed in range(40)]
    for value in (
        lambda s: s.optics.defocus_angstrom,
        lambda s: s.specimen.ice_thickness_angstrom,
        lambda s: s.specimen.coverage,
        lambda s: s.exposure_e_per_a2,
    ):
        values = [value(s) for s in drawn]
        assert max(values) > 1.8 * min(values)
    assert len({s.detector.model_dump_json() for s in drawn}) >= 4
    assert {s.specimen.contaminants_per_um2 > 0 for s in drawn} == {True, False}


def test_flat_field_holds_nothing_but_the_camera(simulate, tmp_path):
    assert (
        simulate("--recipe", "flat-field", "--shape", "128", "128", "--frames", "2", small=False)[0]
        == 0
    )
    phase = open_movie(tmp_path / "out" / "truth" / "empty_00000_phase.mrc").frame(0)
    assert not phase.any()
    frame = open_movie(tmp_path / "out" / "movies" / "empty_00000.tif").frame(0)
    # Poisson counts: the variance of 128² of them is known to sqrt(2 + 1 / mean) / 128 of itself
    assert float(frame.var() / frame.mean()) == pytest.approx(
        1, abs=5 * (2 + 1 / 0.85) ** 0.5 / 128
    )


def test_structures_win_over_the_recipe_and_are_found_from_its_folder(tmp_path):
    (tmp_path / "mine.yaml").write_text("structures: [a.pdb, 'pdb:6z6u', 'phantom:3']\n")
    recipe = Recipe.named(str(tmp_path / "mine.yaml"))
    assert recipe.structures == (str(tmp_path / "a.pdb"), "pdb:6z6u", "phantom:3")


def test_options_win_over_what_varies():
    recipe = Recipe.checked({"vary": {"frames": [2, 4]}}, "test").with_options({"frames": 7})
    assert {recipe.settings_of(s).frames for s in range(10)} == {7}
    with pytest.raises(SettingsError, match="frames"):
        recipe.with_options({"frames": 0})


def test_preview_shows_the_movie(simulate, tmp_path):
    from PIL import Image

    assert simulate("--preview")[0] == 0
    path = tmp_path / "out" / "preview" / "phantom0_D7_00000.png"
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 1000
        assert np.asarray(image.convert("L")).std() > 20, "something is drawn"
    assert path.stat().st_size < 1_000_000
    path.unlink()
    assert simulate("--preview")[0] == 0 and path.is_file(), (
        "drawn from the files of a movie that is there already"
    )


KILLER = """
import os, pathlib, signal, sys
from dstnet.dataset import SimulatedMovie
real, first = SimulatedMovie.write, pathlib.Path(sys.argv[2])
def write(movie, *rest, **more):
    # the worker of movie 1 is killed in the midst of it: once, or always
    if movie.record.seed == 1 and (sys.argv[1] == "always" or not first.exists()):
        first.touch()
        movie.movie_path("tif").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return real(movie, *rest, **more)
SimulatedMovie.write = write
if __name__ == "__main__":
    from dstnet.cli import main
    main(sys.argv[3:])
"""


@pytest.mark.parametrize("times", ["once", "always"])
@pytest.mark.slow
def test_a_killed_worker_costs_its_movie_one_try(tmp_path, times):
    (tmp_path / "killer.py").write_text(
        KILLER
    )  # a worker imports the main program's file, so this reaches it too
    command = [
        sys.executable,
        tmp_path / "killer.py",
        times,
        tmp_path / "mark",
        "simulate",
        "-o",
        tmp_path / "out",
        *small_but_for([]),
    ]
    done = subprocess.run(
        [*command, "--movies", "3", "--workers", "2", "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    records = sorted((tmp_path / "out" / "truth").glob("*_settings.yaml"))
    if times == "once":
        assert done.returncode == 0, done.stderr
        assert len(records) == 3 and "3 made" in done.stderr
        assert len(open_movie(tmp_path / "out" / "movies" / "phantom0_D7_00001.tif")) == 2
    else:
        assert (
            done.returncode == 1
            and "SIGKILL" in done.stderr
            and "2 made, 0 already there, 1 failed" in done.stderr
        )
        assert [p.name[:17] for p in records] == ["phantom0_D7_00000", "phantom0_D7_00002"]
        listed = starfile.read(tmp_path / "out" / "movies.star", always_dict=True)["movies"][
            "rlnMicrographMovieName"
        ]
        assert len(listed) == 2, "what is half-written is not in the list"
        assert done.stdout.splitlines()[1].startswith("[2/3] FAILED"), "in order"


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupted_run_goes_on(simulate, tmp_path, workers):
    """Ctrl-C after the first movie, then the same command: nothing half-written looks whole, and
    all is as if made at once.
    """
    larger = ["--movies", "4", "--shape", "384", "384", "--pixel-size", "4", "--frames", "24"]
    program = [sys.executable, "-c", "from dstnet.cli import main; main()", "simulate"]
    command = [*program, *larger, "-o", tmp_path / "out", "--device", "cpu", "--workers", workers]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background jobs ignore it, and so would the command
    )
    truth = tmp_path / "out" / "truth"
    until = time.monotonic() + 150
    while (
        process.poll() is None
        and not list(truth.glob("*_settings.yaml"))
        and time.monotonic() < until
    ):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    whole = list(truth.glob("*_settings.yaml"))
    assert 1 <= len(whole) < 4
    assert not list((tmp_path / "out" / "movies").glob(".*")), "nothing hidden is left"
    code, _, again = simulate(*larger, small=False)
    assert code == 0
    assert f"{4 - len(whole)} made, {len(whole)} already there" in again
