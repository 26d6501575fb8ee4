"""What a user names becomes the right movies, in the right order, each once, with what a STAR file
knows of them.
"""

import os
import pickle
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from dstnet.errors import BadInputError
from dstnet.pipeline import read_inputs

OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
opticsGroup1 1 0.885 200.000 1.4 0.1
opticsGroup2 2 0.830 300.000 2.7 0.07
"""
MOVIES = """
data_movies

loop_
_rlnMicrographMovieName #1
_rlnOpticsGroup #2
Movies/one.tiff 1
Movies/grid/two.tiff 2
Movies/none.tiff 1
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with movies, which is the current one; none of them can be opened, since nothing
    here may try.
    """
    folder = tmp_path / "project"
    for name in (
        "Movies/one.tiff",
        "Movies/grid/two.tiff",
        "Movies/grid/deep/three.mrc.gz",
        "Movies/sum.jpg",
        "Movies/.hidden.mrc",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "Import" / "job001").mkdir(parents=True)
    (folder / "Import" / "job001" / "movies.star").write_text(OPTICS + MOVIES)
    monkeypatch.chdir(folder)
    return folder


def paths(*arguments, **options):
    return [str(movie.path) for movie in read_inputs(arguments, **options)]


def test_paths_in_their_order_with_names_below_the_working_folder(project):
    movies = read_inputs(
        ["Movies/one.tiff", project / "Movies/grid/deep/three.mrc.gz", "Movies/grid/two.tiff"]
    )
    assert [m.name for m in movies] == [
        "Movies/one",
        "Movies/grid/deep/three",
        "Movies/grid/two",
    ]
    assert [m.path.is_absolute() for m in movies] == [False, True, False]
    assert all(m.optics == {} and m.gain is None for m in movies)
    assert read_inputs(["Movies/grid/deep/three.mrc.gz"]) == [
        replace(movies[1], path=Path("Movies/grid/deep/three.mrc.gz"))
    ], "the name does not depend on what else is given"
    assert pickle.loads(pickle.dumps(movies)) == movies


def test_a_missing_movie_is_its_own_failure(project):
    assert paths("Movies/none.mrc", "Movies/one.tiff") == ["Movies/none.mrc", "Movies/one.tiff"]


def test_patterns_that_the_shell_left(project):
    assert paths("Movies/*.tiff") == ["Movies/one.tiff"]
    assert paths("Movies/**/*.tiff") == ["Movies/grid/two.tiff", "Movies/one.tiff"]
    assert paths("Movies/*/t?o.tif[f]") == ["Movies/grid/two.tiff"]
    assert paths("Movies/grid/*") == ["Movies/grid/two.tiff"]  # no folder among them
    with pytest.raises(BadInputError, match=r"no file matches Movies/\*\.eer"):
        read_inputs(["Movies/one.tiff", "Movies/*.eer"])
    (project / "Movies" / "odd[1].tiff").write_bytes(b"x")
    assert paths("Movies/odd[1].tiff") == ["Movies/odd[1].tiff"]  # a file of that very name


def names(*arguments):
    return [movie.name for movie in read_inputs(arguments)]


def test_a_name_depends_on_the_movie_alone(project, tmp_path, monkeypatch):
    assert names("Movies/**/t*.tiff") == ["Movies/grid/two"]
    assert names("Movies/one.tiff", "Movies/**/t*.tiff") == ["Movies/one", "Movies/grid/two"]
    elsewhere = tmp_path / "disk a" / "sq1"
    elsewhere.mkdir(parents=True)
    (elsewhere / "h.tif").write_bytes(b"x")
    folder = f"sq1-{sha256(str(elsewhere).encode()).hexdigest()[:6]}"
    assert names(elsewhere) == names("../disk a/sq1/h.tif") == [f"{folder}/h"]
    assert names(elsewhere, "Movies") == [f"{folder}/h", "Movies/one"]
    # Through a link, the name is that of the path given, or of the folder that it leads to.
    (project / "link").symlink_to(elsewhere)
    assert names("link/h.tif") == ["link/h"]
    (tmp_path / "way").symlink_to(project)
    assert names(tmp_path / "way" / "Movies" / "one.tiff") == ["Movies/one"]
    monkeypatch.chdir(tmp_path / "way" / "Movies")
    monkeypatch.setenv("PWD", str(tmp_path / "way" / "Movies"))
    assert names(tmp_path / "way" / "Movies" / "one.tiff") == ["one"]


def test_a_name_as_a_file_writes_it(project, tmp_path, monkeypatch):
    star = project / "Import" / "job001" / "movies.star"
    assert names(star) == ["Movies/one", "Movies/grid/two", "Movies/none"]
    (project / "jobs.star").write_text(
        "data_\nloop_\n_rlnMicrographName #1\nMotionCorr/job002/Movies/one.mrc\n"
        "Movies/../Movies/grid/two.tiff\n"
    )
    assert names("jobs.star") == ["Movies/one", "Movies/grid/two"]
    monkeypatch.chdir(tmp_path)
    assert names(star)[:2] == ["project/Movies/one", "project/Movies/grid/two"]
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert names(star) == ["Movies/one", "Movies/grid/two", "Movies/none"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (b"b_1\xb5m.tif", "b_1%B5m"),
        (b"a\n\t\x1b[31m.tif", "a%0A%09%1B[31m"),
        ("µ <b>&'\"#\\ x.tif".encode(), "µ <b>&'\"#\\ x"),
        (b"-x.tif", "-x"),
        (b"@list.mrc", "@list"),
        (b"odd[1]*?.tif", "odd[1]*?"),
        (b"data_x.eer", "data_x"),
        (b"loop_", "loop_"),
        (b"dots...tif", "dots.."),
        (b"FoilHole_1.001", "FoilHole_1.001"),
        (b".hidden.mrc", "%2Ehidden"),
        (b"x" * 251 + b".mrc", "x" * 213 + "-" + sha256(b"x" * 251).hexdigest()[:6]),
        (
            "µ".encode() * 125 + b".mrc",
            "µ" * 106 + "-" + sha256(("µ" * 125).encode()).hexdigest()[:6],
        ),
    ],
)
def test_any_name_that_a_file_system_holds(project, file, name):
    path = os.fsdecode(file)
    with open(file, "wb") as stream:
        stream.write(b"x")
    assert names(path) == [name]
    (project / "list.txt").write_bytes(b"Movies/one.tiff\n./" + file.replace(b"\n", b"") + b"\n")
    if b"\n" not in file:
        (_, movie) = read_inputs(["@list.txt"])
        assert os.path.samefile(movie.path, path) and movie.name == name


def test_folders_give_their_own_movies(project):
    (project / "Movies" / "a.eer").write_bytes(b"x")
    (project / "Movies" / "folder.mrc").mkdir()
    assert paths("Movies") == ["Movies/a.eer", "Movies/one.tiff"]
    with pytest.raises(BadInputError, match="no movie lies in the folder Import"):
        read_inputs(["Import"])


def test_lists(project):
    (project / "Import" / "list.txt").write_text(
        "\ufeff# the good ones\r\n\r\nMovies/one.tiff\r\n  Movies/no one.tiff  \n#Movies/x.tiff\n"
    )
    assert paths("@Import/list.txt") == ["Movies/one.tiff", "Movies/no one.tiff"]
    (project / "Movies" / "here.txt").write_text(f"one.tiff\n{project}/Movies/grid/two.tiff\n")
    found = read_inputs(["@Movies/here.txt"])  # relative to the list's own folder
    assert [m.path.exists() for m in found] == [True, True]
    assert [m.name for m in found] == ["Movies/one", "Movies/grid/two"]
    for name, content in (
        ("empty.txt", b"# none\n\n"),
        ("binary.txt", b"\xff\xfe\x80"),
        ("missing.txt", None),
    ):
        if content is not None:
            (project / name).write_bytes(content)
        with pytest.raises(BadInputError, match=name):
            read_inputs([f"@{name}"])


def test_star_with_optics_groups(project):
    movies = read_inputs(["Import/job001/movies.star"])
    assert [str(m.path) for m in movies] == [
        "Movies/one.tiff",
        "Movies/grid/two.tiff",
        "Movies/none.tiff",
    ]
    assert [m.name for m in movies] == ["Movies/one", "Movies/grid/two", "Movies/none"]
    assert [m.optics["rlnMicrographOriginalPixelSize"] for m in movies] == [0.885, 0.83, 0.885]
    assert [m.optics["rlnVoltage"] for m in movies] == [200, 300, 200]
    assert movies[1].optics["rlnOpticsGroupName"] == "opticsGroup2"
    assert (
        movies[1].optics["rlnSphericalAberration"] == 2.7
        and movies[1].optics["rlnAmplitudeContrast"] == 0.07
    )


def test_star_from_elsewhere_finds_its_project(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    movies = read_inputs(["project/Import/job001/movies.star"])
    assert [os.path.relpath(m.path, project) for m in movies[:2]] == [
        "Movies/one.tiff",
        "Movies/grid/two.tiff",
    ]
    assert str(movies[2].path) == "Movies/none.tiff"


def test_star_without_optics_groups_says_it_itself(project):
    (project / "old.star").write_text(
        "data_\n\nloop_\n_rlnMicrographName #1\n_rlnVoltage #2\n_rlnMicrographGainName"
        " #3\n_rlnDefocusU #4\nMovies/one.tiff 200.0 Movies/gain.mrc 12000\nMovies/grid/two.tiff"
        " 200.0 None 13000\n"
    )
    movies = read_inputs(["old.star"])
    assert movies[0].optics == {"rlnVoltage": 200.0}
    assert [m.gain and str(m.gain) for m in movies] == ["Movies/gain.mrc", None]


def test_star_of_one_movie(project):
    (project / "one.star").write_text(
        "data_general\n\n_rlnImageSizeX 3710\n_rlnMicrographMovieName"
        " Movies/one.tiff\n_rlnMicrographGainName Movies/gain.mrc\n_rlnMicrographOriginalPixelSize"
        " 0.885\n_rlnVoltage 200\n\ndata_global_shift\n\nloop_\n_rlnMicrographFrameNumber"
        " #1\n1\n2\n"
    )
    (movie,) = read_inputs(["one.star"])
    assert str(movie.path) == "Movies/one.tiff" and str(movie.gain) == "Movies/gain.mrc"
    assert movie.optics == {"rlnMicrographOriginalPixelSize": 0.885, "rlnVoltage": 200}


def test_the_movie_not_the_micrograph_made_of_it(project):
    (project / "both.star").write_text(
        "data_\nloop_\n_rlnMicrographName #1\n_rlnMicrographMovieName #2\nsum.mrc Movies/one.tiff\n"
    )
    assert paths("both.star") == ["Movies/one.tiff"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no star at all",
        "data_\nloop_\n_rlnMicrographName #1\n",
        "data_\nloop_\n_rlnMicrographName #1\n_rlnVoltage #2\na.mrc\nb.mrc 200 300 400\n",
        OPTICS,
        OPTICS + "\ndata_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup"
        " #2\nMovies/one.tiff 3\n",
        "\0\1\2" * 100,
    ],
)
def test_star_files_that_are_none(project, text):
    (project / "bad.star").write_text(text)
    with pytest.raises(BadInputError, match=r"bad\.star") as caught:
        read_inputs(["bad.star", "Movies/one.tiff"])
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInputError, match=r"none\.star"):
        read_inputs(["none.star"])


def test_duplicates_are_told_and_taken_once(project):
    lines = []
    arguments = [
        "Movies/grid/two.tiff",
        "Movies/**/*.tiff",
        "Import/job001/movies.star",
        f"{project}/Movies/grid/../one.tiff",
    ]
    assert paths(*arguments, report=lines.append) == [
        "Movies/grid/two.tiff",
        "Movies/one.tiff",
        "Movies/none.tiff",
    ]
    assert len(lines) == 1 and "4 inputs" in lines[0]
    (project / "link").symlink_to("Movies")
    assert paths("Movies/one.tiff", "link/one.tiff") == ["Movies/one.tiff"]


def test_nothing_given():
    with pytest.raises(BadInputError, match="no input"):
        read_inputs([])


@pytest.mark.parametrize(
    "name", ["relion_motion_correction_output", "relion_ctf_estimation_output"]
)
def test_real_star_files(data_folder, name):
    movies = read_inputs([data_folder / "star_examples" / f"{name}.star"])
    assert len(movies) > 25
    assert (
        str(movies[0].path) == "MotionCorr/job002/movies/TS_01_000_0_0.mrc"
        and movies[0].name == "movies/TS_01_000_0_0"
    )
    assert (
        movies[0].optics["rlnMicrographPixelSize"] == 1.35
        and movies[0].optics["rlnOpticsGroupName"] == "opticsGroup1"
    )
    with pytest.raises(BadInputError, match="no table with rlnMicrographMovieName"):
        read_inputs([data_folder / "star_examples" / "tilt_series.star"])


EPU = "FoilHole_101_Data_202_203_20240301_0915"


@pytest.mark.parametrize(
    ("movie", "sum_"),
    [
        (f"{EPU}42_Fractions.tiff", f"{EPU}42.mrc"),
        (f"{EPU}42_fractions.mrc", f"{EPU}42.mrc"),
        (f"{EPU}42_EER.eer", f"{EPU}42.mrc"),
        ("24mar01a_00012en.frames.mrc", "24mar01a_00012en.mrc"),
    ],
)
def test_a_sum_beside_its_movie_is_left_out(tmp_path, monkeypatch, movie, sum_):
    monkeypatch.chdir(tmp_path)
    stem = sum_.removesuffix(".mrc")
    names = [movie, sum_, f"{stem}.jpg", f"{stem}.xml", "other.mrc"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    for argument in ([str(tmp_path)], ["*"], [movie, sum_, "other.mrc"]):
        lines = []
        found = read_inputs(argument, report=lines.append)
        assert sorted(os.path.basename(i.path) for i in found) == sorted([movie, "other.mrc"])
        assert len(lines) == 1 and "too: 1 (" in lines[0] and sum_ in lines[0]
    # Asked for alone, sums are what is wanted.
    assert [i.path.name for i in read_inputs([sum_])] == [sum_]


def test_references_among_the_movies_are_none(tmp_path):
    for name in ("a.mrc", "b.mrc", "gain.mrc", "dark.mrc"):
        (tmp_path / name).write_bytes(b"x")
    lines = []
    references = [tmp_path / "gain.mrc", None, tmp_path / "dark.mrc"]
    found = read_inputs([tmp_path], report=lines.append, references=references)
    assert [movie.path.name for movie in found] == ["a.mrc", "b.mrc"]
    assert lines == ["left out, as references of the camera: 2 (dark.mrc, gain.mrc)"]


def test_epus_sum_is_none_before_its_movie_came(tmp_path):
    for name in (f"{EPU}42_Fractions.tiff", f"{EPU}59.mrc"):
        (tmp_path / name).write_bytes(b"x")
    assert [i.path.name for i in read_inputs([tmp_path])] == [f"{EPU}42_Fractions.tiff"]
    (tmp_path / f"{EPU}42_Fractions.tiff").unlink()
    assert [i.path.name for i in read_inputs([tmp_path])] == [f"{EPU}59.mrc"]
