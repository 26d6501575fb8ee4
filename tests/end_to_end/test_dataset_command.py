"""dstnet dataset as a user runs it: what is checked against the manifest, and what is shown."""

import json
from pathlib import Path

import pytest
import starfile
from PIL import Image
from tiny import dstnet

from dstnet.dataset import SimulatedMovie
from dstnet.dataset.manifest import Manifest

SMALL = ("--shape", "128", "128", "--pixel-size", "4", "--frames", "3", "--dose-per-frame", "2")


@pytest.fixture
def data(capsys, tmp_path) -> Path:
    """A folder of two movies."""
    folder = tmp_path / "data"
    code, _, _ = dstnet(
        capsys, "simulate", "phantom:4", "-o", folder, "--device", "cpu", "--movies", "2", *SMALL
    )
    assert code == 0
    return folder


def check(capsys, folder: Path) -> tuple[int, list[str]]:
    code, out, _ = dstnet(capsys, "dataset", "check", folder)
    return code, out.splitlines()


def test_what_was_written_is_as_it_was_written(capsys, data):
    code, lines = check(capsys, data)
    assert code == 0
    assert len(lines) == 1
    files = [path for path in data.rglob("*") if path.is_file()]
    tables = {"movies.star", "particles.star", "manifest.json"}
    assert lines[0].startswith(f"{len(files) - len(tables)} files ")


def test_a_flipped_bit_of_any_file_is_found(capsys, data):
    tables = ("movies.star", "particles.star", "manifest.json")
    for path in sorted(p for p in data.rglob("*") if p.is_file() and p.name not in tables):
        content = path.read_bytes()
        middle = len(content) // 2
        changed = bytes([content[middle] ^ 1])
        path.write_bytes(content[:middle] + changed + content[middle + 1 :])
        code, lines = check(capsys, data)
        assert code == 1
        assert str(path) in lines[0]
        assert "has changed" in lines[0]
        path.write_bytes(content)
    assert check(capsys, data)[0] == 0


def test_what_is_missing_or_cut_is_named(capsys, data):
    clean, motion = sorted(data.glob("truth/*_clean.mrc"))[0], sorted(data.glob("truth/*.json"))[0]
    clean.unlink()
    motion.write_bytes(motion.read_bytes()[:-5])
    code, lines = check(capsys, data)
    assert code == 1
    assert any(str(clean) in line and "missing" in line for line in lines)
    assert any(str(motion) in line and "bytes, not" in line for line in lines)
    assert lines[-1].endswith("2 problems")


def test_a_movie_that_is_not_listed_is_named(capsys, data):
    manifest = data / "manifest.json"
    values = json.loads(manifest.read_text())
    values["movies"] = values["movies"][:1]
    manifest.write_text(json.dumps(values))
    code, lines = check(capsys, data)
    assert code == 1
    assert "not in manifest.json" in lines[0]


def test_no_file_outside_is_read(capsys, data, tmp_path):
    """Whatever a manifest says that somebody else wrote."""
    manifest = data / "manifest.json"
    values = json.loads(manifest.read_text())
    values["movies"][0]["files"] = {"../../etc/passwd": {"bytes": 1, "sha256": "0"}}
    manifest.write_text(json.dumps(values))
    code, lines = check(capsys, data)
    assert code == 1
    assert "outside the data set" in lines[0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}', '{"format": 1}', None])
def test_no_manifest_or_a_damaged_one_is_a_line(capsys, data, content):
    manifest = data / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_text(content)
    code, _, err = dstnet(capsys, "dataset", "check", data)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "manifest.json" in err


def test_somebody_elses_manifest_is_not_replaced(capsys, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"my": "own"}')
    code, _, err = dstnet(capsys, "simulate", "phantom:4", "-o", folder, "--device", "cpu", *SMALL)
    assert code == 2
    assert "not written by dstnet" in err
    assert (folder / "manifest.json").read_text() == '{"my": "own"}'
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]


def test_the_manifest_says_what_the_movies_hold(data):
    manifest = Manifest.read(data)
    assert [movie.seed for movie in manifest.movies] == [0, 1]
    assert not manifest.stand_ins
    for entry in manifest.movies:
        movie = SimulatedMovie.read(data, entry.name)
        statistics = entry.statistics
        assert entry.split == "training"
        assert entry.species == movie.record.species
        assert statistics.particles == len(movie.particles())
        clean = movie.truth("clean")[0]
        assert statistics.contrast == pytest.approx(clean.std(), rel=1e-3)
        electrons = 2 * 3 * 4**2  # a pixel, in all frames
        assert statistics.snr_of_sum == pytest.approx(clean.var() * electrons, rel=1e-3)
        frames = movie.raw_movie()
        mean = sum(float(frames.frame(i).mean()) for i in range(3)) / 3
        assert statistics.counts_per_pixel == pytest.approx(mean, rel=1e-4)


def test_the_particles_of_all_movies_are_in_one_table(data):
    tables = starfile.read(data / "particles.star", always_dict=True)
    particles = tables["particles"]
    movies = starfile.read(data / "movies.star", always_dict=True)["movies"]
    assert set(particles["rlnMicrographName"]) <= set(movies["rlnMicrographMovieName"])
    count = sum(movie.statistics.particles for movie in Manifest.read(data).movies)
    assert len(particles) == count > 0
    assert set(particles["rlnOpticsGroup"]) <= set(tables["optics"]["rlnOpticsGroup"])


def test_apoferritin_is_for_validation(capsys, tmp_path):
    source = tmp_path / "6z6u.pdb"
    atom = "HETATM    {0} FE   HEM A   {0}      {0}0.000   2.000   3.000  1.00 20.00          FE\n"
    source.write_text("".join(atom.format(number) for number in range(1, 9)) + "END\n")
    folder = tmp_path / "data"
    dstnet(capsys, "simulate", source, "-o", folder, "--device", "cpu", *SMALL)
    assert [movie.split for movie in Manifest.read(folder).movies] == ["validation"]


def test_a_contact_sheet_is_drawn(capsys, data):
    code, out, err = dstnet(capsys, "dataset", "show", data)
    assert code == 0
    assert len(out.splitlines()) == 2
    assert "SNR of the sum" in out
    assert str(data / "contact_sheet.png") in err
    with Image.open(data / "contact_sheet.png") as picture:
        assert min(picture.size) > 250
    assert check(capsys, data)[0] == 0  # the picture is none of its files
