"""Motion of other programs: each movie gets its own, in its own pixels and frames."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
import torch

from dstnet.errors import BadInputError
from dstnet.io.star import write_star
from dstnet.motion import Motion, RelionMovie
from dstnet.motion.relion import from_relion
from dstnet.movie import Exposure, Movie
from dstnet.pipeline.imported_motion import ImportedMotion, imported_motion
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.motion_source import shared_motion

SHAPE, FRAMES, PIXEL = (64, 80), 6, 1.5


def planted(step: float, local: float = 0.0) -> Motion:
    """A drift of `step` Angstrom a frame along y, and a field that stretches."""
    number = torch.arange(float(FRAMES))
    coefficients = torch.zeros(FRAMES, 2, 5)
    coefficients[:, 0, 1] = coefficients[:, 1, 0] = local * number / (FRAMES - 1)
    return Motion(torch.stack((step * number, 0 * number), 1), coefficients)


def tables_of(motion: Motion, movie_name: str, **general) -> dict:
    described = RelionMovie(SHAPE, PIXEL, movie_name, 1.0)
    tables = motion.to_relion(described)
    return {**tables, "general": {**tables["general"], **general}}


def write_motion(path: Path, motion: Motion, movie_name: str, **general) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_star(path, tables_of(motion, movie_name, **general), float_format="%.9g")
    return path


def make_movie(path: str, seed: int = 0) -> InputMovie:
    """A file that tells itself from others; what it holds is not read here."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(np.random.default_rng(seed).bytes(1000))
    return InputMovie(Path(path), Path(path).stem)


def frames_of(source: InputMovie, shape=SHAPE, frames: int = FRAMES, **known) -> Movie:
    return Movie(np.ones((frames, *shape), np.uint8), PIXEL, str(source.path), **known)


def taken(source: Path, movie: InputMovie, **known) -> ImportedMotion:
    return imported_motion(source, movie, frames_of(movie, **known))


def step_of(found: ImportedMotion) -> float:
    """Drift a frame along y in Angstrom."""
    return float(found.motion.global_shift_angstrom[:, 0].diff().mean())


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Two grid squares with movies of the same name, and motion as RELION lists it: a table without
    the movies' names.
    """
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    rows = []
    for number, square in enumerate(("sq1", "sq2"), start=1):
        name = f"Movies/{square}/hole.tif"
        make_movie(name, seed=number)
        star = write_motion(
            Path(f"MotionCorr/job002/Movies/{square}/hole.star"), planted(number), name
        )
        rows.append((star.with_suffix(".mrc"), star))
    table = pd.DataFrame(rows, columns=["rlnMicrographName", "rlnMicrographMetadata"])
    write_star(TABLE, {"micrographs": table.astype(str)})
    return tmp_path / "project"


TABLE = Path("MotionCorr/job002/corrected_micrographs.star")


@pytest.mark.parametrize("source", [TABLE, TABLE.parent, TABLE.parent / "Movies"])
def test_each_movie_gets_its_own_motion(project, source):
    for number, square in enumerate(("sq1", "sq2"), start=1):
        for folder in ("", f"{project}/", "Movies/../"):
            movie = InputMovie(Path(f"{folder}Movies/{square}/hole.tif"), "hole")
            assert step_of(taken(source, movie)) == pytest.approx(number)


def test_movies_that_were_moved_are_told_by_their_folders(project):
    """From where nothing of the paths that RELION wrote is found."""
    os.rename("Movies", "../disk")
    assert step_of(taken(TABLE, InputMovie(Path("../disk/sq2/hole.tif"), "hole"))) == pytest.approx(
        2
    )
    os.rename("../disk/sq2/hole.tif", "hole.tif")
    with pytest.raises(BadInputError, match=r"no motion of hole.tif.*another file"):
        taken(TABLE, InputMovie(Path("hole.tif"), "hole"))


def test_a_movie_told_by_its_name_alone_is_said_to_be(project):
    """Its motion is of a movie that is no longer there, in a folder of another name."""
    os.remove("Movies/sq1/hole.tif")
    shutil.rmtree("MotionCorr/job002/Movies/sq2")
    found = taken(TABLE.parent, make_movie("raw/hole.tif", seed=1))
    assert step_of(found) == pytest.approx(1)
    assert any("of Movies/sq1/hole.tif, which is not there" in n for n in found.movie.notes)
    os.rename("raw", "sq1")
    found = taken(TABLE.parent, InputMovie(Path("sq1/hole.tif"), "hole"))
    assert not found.movie.notes


def test_tables_are_read_by_lines(project):
    """A path that looks like the head of a block is a path; a number is a name."""
    os.rename("MotionCorr/job002", "data_job")
    write_motion(Path("data_job/007.star"), planted(3.0), "Movies/007.tif")
    text = TABLE_TEXT.format(folder="data_job")
    Path("data_job/table.star").write_text(text)
    found = taken(Path("data_job/table.star"), make_movie("Movies/007.tif", seed=7))
    assert step_of(found) == pytest.approx(3)


TABLE_TEXT = """data_micrographs

loop_
_rlnMicrographName #1
_rlnMicrographMetadata #2
{folder}/Movies/sq1/hole.mrc {folder}/Movies/sq1/hole.star
{folder}/007.mrc {folder}/007.star
"""


def test_a_copy_is_the_same_movie_and_another_of_its_name_is_not(project):
    shutil.copytree("Movies/sq2", "copy/Movies/sq1")
    copied = InputMovie(Path("copy/Movies/sq1/hole.tif"), "hole")
    assert step_of(taken(TABLE, copied)) == pytest.approx(2)
    for name in ("sq3/hole.tif", "other/Movies/sq1/hole.tif"):
        with pytest.raises(BadInputError, match=r"is another file; give the motion correction"):
            taken(TABLE, make_movie(name, seed=9))
    with pytest.raises(BadInputError, match="no movie of this name"):
        taken(TABLE, make_movie("Movies/sq1/other.tif"))


def test_names_that_a_star_file_cannot_hold(project):
    """Our tables write their blanks and odd bytes as %XX."""
    name = os.fsdecode(b"Movies/sq 3/hole#1 \xb5.tif")
    movie = make_movie(name, seed=3)
    write_motion(Path("out/micrographs/sq3/x.star"), planted(3), "Movies/sq%203/hole%231%20%B5.tif")
    assert step_of(taken(Path("out"), movie)) == pytest.approx(3)
    shutil.rmtree("Movies")
    os.makedirs("disk/sq 3")
    moved = make_movie(f"disk/sq 3/{movie.path.name}", seed=3)
    assert step_of(taken(Path("out"), moved)) == pytest.approx(3)


def test_names_that_hold_a_word_of_the_format(project):
    name = "Movies/loop_3/data_loop_7.tif"
    write_motion(Path("MC/any.star"), planted(3.0), name)
    movie = make_movie(name, seed=5)
    assert step_of(taken(Path("MC"), movie)) == pytest.approx(3)
    os.rename("MC/any.star", "MC/data_global_shift.star")
    table = pd.DataFrame({"rlnMicrographMetadata": ["MC/data_global_shift.star"]})
    write_star(Path("table.star"), {"micrographs": table})
    assert step_of(taken(Path("table.star"), movie)) == pytest.approx(3)


def test_pipes_are_no_motion(project):
    os.mkfifo("pipe.star")
    os.mkfifo("MotionCorr/pipe.star")
    movie = InputMovie(Path("Movies/sq1/hole.tif"), "hole")
    with pytest.raises(BadInputError, match=r"pipe.star: it is no regular file"):
        taken(Path("pipe.star"), movie)
    assert step_of(taken(Path("MotionCorr"), movie)) == pytest.approx(1)


def test_a_file_that_names_no_movie_is_of_the_one_given(project):
    star = write_motion(Path("handmade.star"), planted(4), "x")
    text = star.read_text().splitlines()
    star.write_text("\n".join(line for line in text if "MovieName" not in line) + "\n")
    movie = InputMovie(Path("Movies/sq1/hole.tif"), "hole")
    assert step_of(taken(star, movie)) == pytest.approx(4)
    other = InputMovie(Path("Movies/sq2/hole.tif"), "hole2")
    assert set(shared_motion(star, [movie, other])) == {"hole", "hole2"}


def test_another_projects_table_means_its_own_movies(project, monkeypatch):
    """Where the current folder has movies of the same paths."""
    other = project.parent / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    movie = make_movie("Movies/sq1/hole.tif", seed=9)
    with pytest.raises(BadInputError, match="is another file"):
        taken(project / TABLE, movie)


def test_two_motions_of_a_movie_are_refused(project):
    write_motion(Path("MotionCorr/job003/a.star"), planted(3), "Movies/sq1/hole.tif")
    with pytest.raises(BadInputError, match=r"two motions of Movies/sq1/hole.tif: .*job002"):
        taken(Path("MotionCorr"), InputMovie(Path("Movies/sq1/hole.tif"), "hole"))


def test_a_table_that_mixes_movies_up_is_refused(project):
    stars = [f"MotionCorr/job002/Movies/{square}/hole.star" for square in ("sq2", "sq1")]
    movies = [f"Movies/{square}/hole.tif" for square in ("sq1", "sq2")]
    rows = {"rlnMicrographMovieName": movies, "rlnMicrographMetadata": stars}
    write_star("mixed.star", {"micrographs": pd.DataFrame(rows)})
    with pytest.raises(BadInputError, match=r"mixed.star gives .*sq1/hole.tif the motion in .*sq2"):
        taken(Path("mixed.star"), InputMovie(Path(movies[0]), "hole"))
    rows["rlnMicrographMetadata"] = stars[::-1]
    write_star("right.star", {"micrographs": pd.DataFrame(rows)})
    found = taken(Path("right.star"), InputMovie(Path(movies[1]), "hole"))
    assert step_of(found) == pytest.approx(2)
    os.remove(stars[0])
    with pytest.raises(BadInputError, match=r"sq2/hole.star"):
        taken(Path("right.star"), InputMovie(Path(movies[1]), "hole"))


def test_movies_that_would_share_a_motion_are_refused(project):
    star = write_motion(Path("one.star"), planted(1), "/gone/hole.tif")
    movies = [make_movie(f"new/{k}/hole.tif", seed=k) for k in (1, 2)]
    movies = [InputMovie(movie.path, f"{k}/hole") for k, movie in enumerate(movies)]
    refused = shared_motion(star, movies)
    assert set(refused) == {"0/hole", "1/hole"}
    assert "new/1/hole.tif and new/2/hole.tif would both get the motion" in refused["0/hole"]
    assert not shared_motion(star, movies[:1]) and not shared_motion(star, [movies[0]] * 2)


@pytest.mark.parametrize("name", ["ts_00095_-15.0.tif", "Pos_1_003[-12.00]_fractions.tif"])
def test_dots_of_names_are_underscores_in_relions(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    movie = make_movie(f"frames.1/{name}")
    stem = name.removesuffix(".tif").replace(".", "_")
    star = write_motion(Path(f"job/frames_1/{stem}.star"), planted(2), f"frames.1/{name}")
    assert step_of(taken(Path("job/frames_1"), movie)) == pytest.approx(2)
    # Without the line that names the movie, the file's own path tells.
    text = "\n".join(line for line in star.read_text().splitlines() if "MovieName" not in line)
    star.write_text(text + "\n")
    assert step_of(taken(Path("job"), movie)) == pytest.approx(2)
    with pytest.raises(BadInputError, match="no movie of this name"):
        taken(Path("job"), make_movie("frames.1/ts_00096_-15.0.tif"))


def test_motion_that_comes_later_is_found(tmp_path, monkeypatch):
    """A run that watches, while RELION works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dstnet.pipeline.motion_source._NEW_FILES_SECONDS", 0.0)
    (tmp_path / "job" / "Movies").mkdir(parents=True)
    movie = make_movie("Movies/a.tif")
    with pytest.raises(BadInputError, match=r"no motion of Movies/a.tif"):
        taken(Path("job"), movie)
    write_motion(Path("job/Movies/a.star"), planted(2), "Movies/a.tif")
    assert step_of(taken(Path("job"), movie)) == pytest.approx(2)


# --- Frames


def with_unused_frames(unused: list[int]) -> dict:
    tables = tables_of(planted(2.0, local=1.0), "a.tif")
    tables["global_shift"] = tables["global_shift"].copy()
    tables["global_shift"].loc[unused, ["rlnMicrographShiftX", "rlnMicrographShiftY"]] = -9999.0
    return tables


def write_tables(tables: dict) -> Path:
    write_star("a.star", tables, float_format="%.9g")
    return Path("a.star")


@pytest.fixture
def movie(tmp_path, monkeypatch) -> InputMovie:
    monkeypatch.chdir(tmp_path)
    return make_movie("a.tif")


def test_frames_without_motion_are_left_out(movie):
    source = write_tables(with_unused_frames([0, 3]))
    found = taken(source, movie, exposure=Exposure.uniform(FRAMES, 1.0))
    assert found.movie.frame_numbers == (1, 2, 4, 5)
    assert found.movie.exposure is not None
    assert found.movie.exposure.start_e_per_a2 == (1.0, 2.0, 4.0, 5.0)
    said = "frames left out, since the motion given left them out: 1, 4"
    assert found.movie.notes[-1] == said
    assert bool(torch.isfinite(found.motion.global_shift_angstrom).all())
    np.testing.assert_allclose(found.motion.global_shift_angstrom[:, 0], [0, 2, 6, 8], atol=0.1)
    part = imported_motion(source, movie, frames_of(movie).subset([0, 1, 2]))
    assert part.movie.frame_numbers == (1, 2)
    with pytest.raises(BadInputError, match="of none of its frames 1 to 1"):
        imported_motion(source, movie, frames_of(movie).subset([0]))


def test_motion_against_another_frame_is_said_to_lie_elsewhere(movie):
    """As MotionCor2's, against the middle one; our sums lie at the first."""
    tables = tables_of(planted(PIXEL), "a.tif")
    shifts = tables["global_shift"]
    shifts["rlnMicrographShiftY"] += 3.0
    found = taken(write_tables(tables), movie)
    assert step_of(found) == pytest.approx(PIXEL)
    assert "(0.0, 3.0) pixels in x, y at its first frame" in found.movie.notes[0]


def test_rows_go_by_their_numbers(movie):
    tables = tables_of(planted(2.0), "a.tif")
    tables["global_shift"] = tables["global_shift"].iloc[[4, 1, 0, 5, 3]]
    found = taken(write_tables(tables), movie)
    assert found.movie.frame_numbers == (0, 1, 3, 4, 5)
    np.testing.assert_allclose(
        found.motion.global_shift_angstrom[:, 0], [0, 2, 6, 8, 10], atol=1e-4
    )


def test_what_is_written_of_some_frames_is_read_so():
    described = RelionMovie(SHAPE, PIXEL, "a.tif", 1.0, used_frames=(2, 3, 5), frames_in_file=8)
    motion = planted(2.0, local=1.0).window([2, 3, 5])
    tables = motion.to_relion(described)
    assert tables["general"]["rlnMicrographStartFrame"] == 3
    assert tables["general"]["rlnImageSizeZ"] == 8
    shift, local = from_relion(tables)
    is_used = torch.isfinite(shift).all(1)
    assert is_used.tolist() == [False, False, True, True, False, True, False, False]
    height, width = SHAPE
    from_first = motion.from_first_frame(((height - 1) * PIXEL, (width - 1) * PIXEL))
    torch.testing.assert_close(shift[is_used], from_first.global_shift_angstrom, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        local[is_used], from_first.local_coefficients_angstrom, atol=1e-4, rtol=0
    )


# --- Pixels


@pytest.mark.parametrize("binning", [1.5, 2.0, 4.0])
@pytest.mark.parametrize("binned_first", [True, False])
def test_local_motion_of_binned_runs(movie, binning, binned_first):
    """The polynomial is in binned pixels or in the movie's: the shifts that it was fitted to, in
    pixels of the movie, tell.
    """
    right = tables_of(planted(2.0, local=6.0), "a.tif", rlnMicrographBinning=binning)
    height, width = SHAPE
    rows = []
    for y in (0.2, 0.5, 0.8):
        for x in (0.2, 0.5, 0.8):
            for frame in range(1, FRAMES + 1):
                z = (frame - 0.5) / (FRAMES - 1)
                applied = [-6.0 / PIXEL * z * (2 * place - 1) for place in (x, y)]
                noise = 0.1 * np.sin([frame + 7 * x, frame + 9 * y])
                rows.append((frame, x * width, y * height, *(applied + noise)))
    columns = ["FrameNumber", "X", "Y", "ShiftX", "ShiftY"]
    names = ["rlnMicrographFrameNumber", "rlnCoordinateX", "rlnCoordinateY"]
    names += [f"rlnMicrograph{name}" for name in columns[3:]]
    model = right["local_motion_model"].copy()
    if binned_first:
        model["rlnMotionModelCoeff"] /= binning
    tables = {
        **right,
        "local_motion_model": model,
        "local_shift": pd.DataFrame(rows, columns=names),
    }
    found = taken(write_tables(tables), movie).motion
    expected = from_relion(right)[1]
    torch.testing.assert_close(found.local_coefficients_angstrom, expected, atol=1e-4, rtol=0)


def test_shifts_are_pixels_of_the_movie(movie):
    tables = tables_of(planted(3.0), "a.tif", rlnMicrographOriginalPixelSize=0.75)
    found = taken(write_tables(tables), movie)
    assert step_of(found) == pytest.approx(3.0, abs=1e-4)
    assert found.movie.notes == (
        "the motion given is of pixels of 0.75 Å, these are of 1.5 Å: its shifts are taken as"
        " pixels",
    )
    assert not taken(write_tables(tables_of(planted(3.0), "a.tif")), movie).movie.notes


def test_eer_of_another_grid_is_scaled_and_of_another_grouping_refused(movie):
    """RELION's 8k rendering, ours 4k, and the other way round."""
    tables = tables_of(planted(3.0, local=1.0), "a.tif", rlnEERUpsampling=2, rlnEERGrouping=40)
    source = write_tables(tables)
    coarse = Movie(
        np.ones((FRAMES, 32, 40), np.uint8),
        2 * PIXEL,
        "a.eer",
        raw_frames_per_frame=40,
        eer_up_sampling=1,
    )
    assert step_of(imported_motion(source, movie, coarse)) == pytest.approx(3.0, abs=0.05)
    fine = Movie(
        np.ones((FRAMES, 128, 160), np.uint8),
        PIXEL / 2,
        "a.eer",
        raw_frames_per_frame=40,
        eer_up_sampling=1,
    )
    assert step_of(imported_motion(source, movie, fine)) == pytest.approx(3.0, abs=0.05)
    other = Movie(
        np.ones((FRAMES, *SHAPE), np.uint8),
        PIXEL,
        "a.eer",
        raw_frames_per_frame=30,
        eer_up_sampling=2,
    )
    with pytest.raises(BadInputError, match=r"of 40 raw frames.*of 30; pass --eer-frames 40"):
        imported_motion(source, movie, other)


# --- Refused


def changed(table: str, row: int, column: str, value: object) -> dict:
    tables = tables_of(planted(2.0, local=1.0), "a.tif")
    values = tables[table].astype(object)
    values.loc[row, column] = value
    return {**tables, table: values}


@pytest.mark.parametrize(
    ("tables", "match"),
    [
        (with_unused_frames(list(range(FRAMES))), "motion of no frame .all are -9999"),
        (changed("global_shift", 2, "rlnMicrographShiftX", "nan"), "not finite"),
        (changed("global_shift", 2, "rlnMicrographShiftY", "-nan"), "not finite"),
        (changed("global_shift", 2, "rlnMicrographShiftY", "abc"), "no number"),
        (changed("global_shift", 2, "rlnMicrographShiftY", 500.0), "500 pixels, beyond a field"),
        (changed("global_shift", 2, "rlnMicrographFrameNumber", 1), "number their frames"),
        (changed("global_shift", 2, "rlnMicrographFrameNumber", 9), "number their frames"),
        (changed("local_motion_model", 3, "rlnMotionModelCoeff", "nan"), "36 finite ones"),
        (changed("local_motion_model", 3, "rlnMotionModelCoeffsIdx", 4), "36 finite ones"),
        (tables_of(planted(2.0), "a.tif", rlnImageSizeZ=7), "7 frames, a.tif has 6"),
        (tables_of(planted(2.0), "a.tif", rlnImageSizeX=40, rlnImageSizeY=32), "40 x 32 pixels"),
        (tables_of(planted(2.0), "a.tif", rlnImageSizeX=64, rlnImageSizeY=80), "64 x 80 pixels"),
        (tables_of(planted(2.0), "a.tif", rlnMotionModelVersion=2), "version 2"),
        ({"global_shift": tables_of(planted(2.0), "a.tif")["global_shift"]}, "no rlnImageSizeY"),
    ],
)
def test_what_is_not_this_movies_motion_is_refused(movie, tables, match):
    with pytest.raises(BadInputError, match=match) as caught:
        taken(write_tables(tables), movie)
    assert "a.star" in str(caught.value) and "\n" not in str(caught.value)


def test_sources_that_are_none(movie, tmp_path):
    with pytest.raises(BadInputError, match="No such file or directory; check the path"):
        taken(Path("nowhere.star"), movie)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match=r"no motion of a.tif: empty holds no motion file"):
        taken(Path("empty"), movie)
    starfile.write({"particles": pd.DataFrame({"rlnCoordinateX": [1.0, 2.0]})}, "particles.star")
    with pytest.raises(BadInputError, match=r"particles.star names no motion"):
        taken(Path("particles.star"), movie)
    Path("broken.star").write_text("data_x\n\nloop_\n_rlnA #1\n_rlnB #2\n1\n")
    with pytest.raises(BadInputError, match=r"broken.star"):
        taken(Path("broken.star"), movie)
