"""What tables of RELION 1 to 5, pyem and Warp say of how a movie was taken is taken as they mean
it, or refused.
"""

import numpy as np
import pytest

from dstnet.errors import BadInputError, SettingsError
from dstnet.io import EerSettings, write_mrc
from dstnet.pipeline import MovieSettings, read_inputs
from dstnet.pipeline.settings import CameraReferences

OPTICS = """data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnMicrographOriginalPixelSize #4
_rlnMicrographPixelSize #5
opticsGroup1 1 200.000000 0.530000 1.060000
opticsGroup2 2 300.000000 0.415000 0.830000

"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a movie of 0.53 Å and its sum, binned twice, which is the current one."""
    (tmp_path / "Movies").mkdir()
    frames = np.random.default_rng(0).poisson(3.0, (3, 32, 32)).astype(np.int16)
    write_mrc(tmp_path / "Movies/m.mrc", frames, 0.53, "x", stack=True)
    write_mrc(tmp_path / "Movies/unsaid.mrc", frames, 1.0, "x", stack=True)
    write_mrc(tmp_path / "sum.mrc", frames[0].astype(np.float32), 1.06, "x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inputs(project, text, name="a.star"):
    (project / name).write_text(text)
    said = []
    return read_inputs([name], report=said.append), said


def opened(project, text, **given):
    """The first movie of a table, opened, with what is said of it."""
    movies, _ = inputs(project, text)
    return MovieSettings(**given).open(movies[0])


def exposure_of(movie):
    """The exposure of a movie of which it is known."""
    assert movie.exposure is not None
    return movie.exposure


def loop(columns, *rows, block="movies"):
    heads = [f"_{column} #{number}" for number, column in enumerate(columns.split(), 1)]
    return "\n".join([f"data_{block}", "", "loop_", *heads, *rows, "", ""])


# Pixel size


def test_the_pixel_size_is_that_of_the_image_opened(project):
    sums = loop("rlnMicrographName rlnOpticsGroup", "sum.mrc 1", block="micrographs")
    movie = opened(project, OPTICS + sums)
    assert (movie.pixel_size_angstrom, movie.voltage_kv, movie.notes) == (1.06, 200.0, ())
    movies = loop("rlnMicrographMovieName rlnOpticsGroup", "Movies/m.mrc 1")
    assert opened(project, OPTICS + movies).pixel_size_angstrom == 0.53
    both = loop("rlnMicrographName rlnMicrographMovieName rlnOpticsGroup", "sum.mrc Movies/m.mrc 1")
    movie = opened(project, OPTICS + both)
    assert (movie.name, movie.pixel_size_angstrom, movie.notes) == ("Movies/m.mrc", 0.53, ())


def test_a_binned_sum_of_which_only_the_movies_pixel_size_is_known(project):
    columns = "rlnMicrographName rlnMicrographOriginalPixelSize rlnVoltage"
    movie = opened(project, loop(columns, "sum.mrc 0.53 300"))
    assert movie.pixel_size_angstrom == pytest.approx(1.06)
    assert "gives the movies' pixel size alone (0.53 Å)" in movie.notes[0]
    movie = opened(project, loop(columns, "sum.mrc 1.08 300"))
    assert movie.pixel_size_angstrom == 1.08, "calibrated, not binned"
    assert movie.notes == ("the pixel size is 1.08 Å as given; the header says 1.06 Å",)


def test_a_movie_of_which_only_the_sums_pixel_size_is_known(project):
    columns = "rlnMicrographMovieName rlnMicrographName rlnMicrographPixelSize rlnVoltage"
    movie = opened(project, loop(columns, "Movies/m.mrc sum.mrc 1.06 300"))
    assert movie.pixel_size_angstrom == pytest.approx(0.53)
    assert "of the sums alone" in movie.notes[0]
    columns += " rlnMicrographBinning"
    movie = opened(project, loop(columns, "Movies/m.mrc sum.mrc 1.06 300 2"))
    assert (movie.pixel_size_angstrom, movie.notes) == (0.53, ())


def test_relion_3_0_says_camera_pixels_and_magnification_row_by_row(project):
    text = loop(
        "rlnMicrographMovieName rlnVoltage rlnSphericalAberration rlnAmplitudeContrast"
        " rlnMagnification rlnDetectorPixelSize",
        "Movies/m.mrc 200 1.4 0.07 94339.62 5.0",
        "Movies/unsaid.mrc 300 2.7 0.1 10000.0 0.83",
        block="",
    )
    movies, _ = inputs(project, text)
    first, second = (MovieSettings().open(movie) for movie in movies)
    assert (first.pixel_size_angstrom, first.voltage_kv) == (pytest.approx(0.53), 200)
    assert (second.pixel_size_angstrom, second.voltage_kv) == (0.83, 300)
    assert MovieSettings().optics(movies[0]) == {
        "rlnVoltage": 200,
        "rlnSphericalAberration": 1.4,
        "rlnAmplitudeContrast": 0.07,
    }


def test_a_particle_table_does_not_say_the_micrographs_pixel_size(project):
    """Theirs may be scaled down; the optics of RELION 3.1 name theirs `rlnImagePixelSize`."""
    columns = "rlnImageName rlnMicrographName rlnMagnification rlnDetectorPixelSize rlnVoltage"
    rows = ("1@p.mrcs sum.mrc 10000 4.24 300", "2@p.mrcs sum.mrc 10000 4.24 300")
    movies, said = inputs(project, loop(columns, *rows, block="particles"))
    assert len(movies) == 1 and "taken once" in said[0]
    assert MovieSettings().open(movies[0]).pixel_size_angstrom == pytest.approx(1.06)


def test_camera_pixels_without_magnification_say_nothing(project):
    movie = opened(project, loop("rlnMicrographName rlnDetectorPixelSize", "sum.mrc 4.0"))
    assert movie.pixel_size_angstrom == pytest.approx(1.06)
    assert "without rlnMagnification" in movie.notes[0]


def test_relion_3_0_says_the_rest_of_sums_in_the_file_of_their_motion(project):
    (project / "sum.star").write_text(
        "data_general\n\n_rlnMicrographMovieName Movies/m.mrc\n_rlnMicrographBinning 2.0\n"
        "_rlnMicrographOriginalPixelSize 0.54\n_rlnMicrographDoseRate 1.5\n_rlnVoltage 200\n"
    )
    columns = "rlnMicrographName rlnMicrographMetadata rlnAccumMotionTotal"
    movie = opened(project, loop(columns, "sum.mrc sum.star 3.5", block=""))
    assert (movie.pixel_size_angstrom, movie.voltage_kv) == (1.08, 200)
    assert movie.exposure is None, "the dose of the movie's frames is not that of the sum"


# Optics groups


def test_groups_by_number_however_it_is_written(project):
    rows = ("Movies/m.mrc 1.000000", "Movies/unsaid.mrc 2")
    movies, _ = inputs(project, OPTICS + loop("rlnMicrographMovieName rlnOpticsGroup", *rows))
    assert [MovieSettings().open(m).pixel_size_angstrom for m in movies] == [0.53, 0.415]


def test_without_a_column_of_groups_there_must_be_one(project):
    movies = loop("rlnMicrographMovieName", "Movies/m.mrc")
    with pytest.raises(BadInputError, match=r"a\.star has 2 optics groups, and no column"):
        inputs(project, OPTICS + movies)
    one = "\n".join(line for line in OPTICS.splitlines() if "Group2" not in line) + "\n"
    (movie,), said = inputs(project, one + movies)
    assert MovieSettings().open(movie).voltage_kv == 200
    assert said == ["a.star: no rlnOpticsGroup with the movies; its one optics group is taken"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (OPTICS + OPTICS, "2 tables of optics groups"),
        (OPTICS.replace("opticsGroup2 2", "opticsGroup2 1"), "optics group 1 twice"),
        (OPTICS.replace("opticsGroup1 1", "opticsGroup1 3"), "optics table lacks"),
    ],
)
def test_groups_that_leave_a_question_open(project, text, says):
    with pytest.raises(BadInputError, match=says):
        inputs(project, text + loop("rlnMicrographMovieName rlnOpticsGroup", "Movies/m.mrc 1"))


def test_rows_that_contradict_their_group(project):
    columns = "rlnMicrographMovieName rlnOpticsGroup rlnVoltage"
    (movie,), said = inputs(project, OPTICS + loop(columns, "Movies/m.mrc 1 300"))
    assert MovieSettings().open(movie).voltage_kv == 200
    assert "rlnVoltage of the movies' rows differ" in said[0]


def test_what_two_tables_say_of_one_movie(project):
    (project / "b.star").write_text(loop("rlnMicrographMovieName rlnVoltage", "Movies/m.mrc 300"))
    (project / "a.star").write_text(loop("rlnMicrographMovieName rlnVoltage", "Movies/m.mrc 200"))
    (movie,) = read_inputs(["Movies/m.mrc", "a.star"])
    assert MovieSettings().open(movie).voltage_kv == 200, "though the file was named first"
    with pytest.raises(BadInputError, match=r"named twice, with rlnVoltage 200 in a\.star and 300"):
        read_inputs(["a.star", "b.star"])
    (project / "b.star").write_text(
        loop("rlnMicrographMovieName rlnVoltage", "Movies/m.mrc 200.00")
    )
    assert len(read_inputs(["a.star", "b.star"])) == 1


# Other dialects


def test_tilt_series_of_relion_5(project):
    """The table of series says the optics, that of a series the exposure before each tilt."""
    (project / "tilts").mkdir()
    (project / "tilts" / "TS_1.star").write_text(
        loop(
            "rlnMicrographMovieName rlnTomoNominalStageTiltAngle rlnMicrographPreExposure",
            "Movies/m.mrc 0.0 0.0",
            "Movies/unsaid.mrc 3.0 3.05",
            block="TS_1",
        )
    )
    text = loop(
        "rlnTomoName rlnTomoTiltSeriesStarFile rlnVoltage rlnSphericalAberration"
        " rlnAmplitudeContrast rlnMicrographOriginalPixelSize rlnOpticsGroupName"
        " rlnTomoTiltSeriesPixelSize",
        "TS_1 tilts/TS_1.star 200 2.7 0.1 0.675 tomo 1.35",
        block="global",
    )
    movies, _ = inputs(project, text)
    first, second = (MovieSettings(exposure_e_per_a2=0.5).open(movie) for movie in movies)
    assert (first.pixel_size_angstrom, first.voltage_kv) == (0.675, 200)
    assert exposure_of(second).start_e_per_a2 == (3.05, 3.55, 4.05)
    assert MovieSettings().optics(movies[0])["rlnOpticsGroupName"] == "tomo"
    (project / "tilts" / "TS_1.star").unlink()
    with pytest.raises(BadInputError, match=r"tilt series tilts/TS_1\.star that it names is not"):
        read_inputs(["a.star"])


def test_tilt_series_of_relion_4_beside_optics_groups(project):
    (project / "TS_1.star").write_text(
        loop("rlnTomoTiltMovieFile rlnMicrographPreExposure", "Movies/m.mrc 2.5", block="tilts")
    )
    series = loop(
        "rlnTomoName rlnTomoTiltSeriesStarFile rlnOpticsGroup", "T TS_1.star 2", block="global"
    )
    movie = opened(project, OPTICS + series, exposure_e_per_a2=1.0)
    assert movie.pixel_size_angstrom == 0.415
    assert exposure_of(movie).pre_exposure_e_per_a2 == 2.5


def test_names_as_cryosparc_has_them(project):
    uid = "005748262836226190447_"
    (project / "J5").mkdir()
    (project / "sum.mrc").rename(project / "J5" / "sum.mrc")
    columns = "rlnMicrographName rlnOpticsGroup"
    movies, said = inputs(project, OPTICS + loop(columns, ">J5/sum.mrc 1", f"J5/{uid}sum.mrc 1"))
    assert [str(movie.path) for movie in movies] == ["J5/sum.mrc"]
    assert "without cryoSPARC's numbers" in said[0]


def test_names_as_warp_has_them(project):
    (project / "warp" / "average").mkdir(parents=True)
    (project / "sum.mrc").rename(project / "warp" / "average" / "sum.mrc")
    columns = "rlnMicrographName rlnMagnification rlnDetectorPixelSize rlnVoltage wrpDose"
    for name in ("average/sum.mrc", "../warp/average/sum.mrc", "average\\sum.mrc"):
        movies, _ = inputs(
            project, loop(columns, f"{name} 10000.0 1.06 300 2", block=""), "warp/a.star"
        )
        movie = MovieSettings().open(movies[0])
        assert (movie.pixel_size_angstrom, movie.notes) == (1.06, ())
    movies, said = inputs(
        project, loop("wrpMovieName wrpAngleTilt wrpDose", "../Movies/m.mrc 3 6.1"), "warp/a.star"
    )
    assert movies[0].path.exists() and "nothing is taken of wrpDose" in said[0]


def test_columns_in_other_letters_and_another_order(project):
    text = loop("rlnvoltage RLNMICROGRAPHNAME rlnMicrographpixelsize", "200 sum.mrc 1.06")
    movie = opened(project, text.replace("\n", "\r\n").rstrip())
    assert (movie.pixel_size_angstrom, movie.voltage_kv) == (1.06, 200)


def test_movies_of_several_tables(project):
    one, two = (
        loop("rlnMicrographMovieName rlnVoltage", f"Movies/{name}.mrc 300", block=name)
        for name in ("m", "unsaid")
    )
    movies, _ = inputs(project, one + two)
    assert len(movies) == 2


def test_a_row_without_a_movie(project):
    with pytest.raises(BadInputError, match="a row without rlnMicrographMovieName"):
        inputs(project, loop("rlnMicrographMovieName rlnVoltage", "None 300"))


# Exposure


def test_dose_and_pre_exposure_of_each_movie(project):
    columns = "rlnMicrographMovieName rlnMicrographDoseRate rlnMicrographPreExposure rlnVoltage"
    movie = opened(project, loop(columns, "Movies/m.mrc 1.5 39.0 300"))
    assert exposure_of(movie).frame_e_per_a2 == (1.5, 1.5, 1.5)
    assert exposure_of(movie).start_e_per_a2 == (39.0, 40.5, 42.0)
    movie = opened(
        project,
        loop(columns, "Movies/m.mrc 1.5 39.0 300"),
        exposure_e_per_a2=2.0,
        pre_exposure_e_per_a2=0.0,
    )
    assert exposure_of(movie).start_e_per_a2 == (0.0, 2.0, 4.0)
    assert movie.notes == (
        "--dose-per-frame 2 is taken, not 1.5 e-/Å2 that a.star says",
        "--pre-exposure 0 is taken, not rlnMicrographPreExposure",
    )


def test_a_pre_exposure_without_a_dose_is_told(project):
    columns = "rlnMicrographMovieName rlnMicrographPreExposure rlnVoltage"
    movie = opened(project, loop(columns, "Movies/m.mrc 39.0 300"))
    assert movie.exposure is None and "is not used, since that of a frame" in movie.notes[0]


@pytest.mark.parametrize("cell", ["0", "0.000000"])
def test_a_dose_of_0_is_not_known(project, cell):
    columns = "rlnMicrographMovieName rlnMicrographDoseRate rlnVoltage"
    movie = opened(project, loop(columns, f"Movies/m.mrc {cell} 300"))
    assert movie.exposure is None
    assert movie.notes == (
        "rlnMicrographDoseRate is 0 in a.star, taken as not known: nothing is dose-weighted",
    )
    eer = EerSettings(exposure_per_fraction_e_per_a2=1.0)
    with pytest.raises(SettingsError, match="--dose-per-frame is 0; 1e-06 to 10000 are allowed"):
        opened(project, loop(columns, "Movies/m.mrc 1.5 300"), exposure_e_per_a2=0.0, eer=eer)


def test_eer_frames_are_counted_as_relion_counted_them(project):
    """RELION's dose and pixel size are those of its fractions and its grid."""
    from dstnet.pipeline.acquisition import Acquisition, GivenValues

    columns = (
        "rlnMicrographMovieName rlnMicrographDoseRate rlnEERGrouping rlnEERUpsampling"
        " rlnMicrographOriginalPixelSize"
    )
    (movie,), _ = inputs(project, loop(columns, "Movies/a.eer 1.2 30 2 0.5"))

    def taken(**eer):
        return Acquisition(GivenValues(eer=EerSettings(**eer)), movie.path, movie.row)

    as_told = taken()
    assert (as_told.eer().frames_per_fraction, as_told.eer().up_sampling) == (30, 2)
    assert (as_told.exposure_e_per_a2(), as_told.pixel_size_angstrom()) == (1.2, 0.5)
    otherwise = taken(frames_per_fraction=60, up_sampling=1)
    assert otherwise.exposure_e_per_a2() == pytest.approx(2.4)
    assert otherwise.pixel_size_angstrom() == 1.0
    by_exposure = taken(exposure_per_fraction_e_per_a2=0.8)
    assert by_exposure.exposure_e_per_a2() == pytest.approx(0.04), "of a raw frame"
    (movie,), _ = inputs(
        project, loop("rlnMicrographMovieName rlnMicrographDoseRate", "Movies/a.eer 1.2")
    )
    unknown = taken()
    assert unknown.exposure_e_per_a2() is None and "rlnEERGrouping" in unknown.notes[0]


# Values that are none


@pytest.mark.parametrize(
    ("column", "option"),
    [
        ("rlnMicrographOriginalPixelSize", {"pixel_size_angstrom": 1.0}),
        ("rlnVoltage", {"voltage_kv": 300.0}),
        ("rlnMicrographDoseRate", {"exposure_e_per_a2": 1.0}),
        ("rlnMicrographPreExposure", {"pre_exposure_e_per_a2": 0.0}),
        ("rlnSphericalAberration", {"spherical_aberration_mm": 2.7}),
        ("rlnAmplitudeContrast", {"amplitude_contrast": 0.1}),
    ],
)
@pytest.mark.parametrize("cell", ["abc", "-1", "1e99", "inf", "1,06", "1_06"])
def test_values_that_cannot_be_are_refused_unless_the_user_gives_them(
    project, column, option, cell
):
    text = loop(f"rlnMicrographMovieName {column}", f"Movies/m.mrc {cell}")
    with pytest.raises(BadInputError, match=rf"a\.star: {column} of Movies/m\.mrc is"):
        opened(project, text)
    opened(project, text, **option)


@pytest.mark.parametrize("column", ["rlnMicrographOriginalPixelSize", "rlnVoltage"])
def test_0_is_no_pixel_size_nor_voltage(project, column):
    with pytest.raises(BadInputError, match=column):
        opened(project, loop(f"rlnMicrographMovieName {column}", "Movies/m.mrc 0"))


@pytest.mark.parametrize("cell", ["None", "nan", "NaN", "<NA>", '""', "null"])
def test_empty_cells_are_told(project, cell):
    columns = "rlnMicrographMovieName rlnMicrographOriginalPixelSize rlnVoltage"
    movie = opened(project, loop(columns, f"Movies/m.mrc {cell} {cell}"))
    assert movie.pixel_size_angstrom == pytest.approx(0.53)
    assert movie.notes == (
        "a.star leaves rlnMicrographOriginalPixelSize empty",
        "a.star leaves rlnVoltage empty",
        "300 kV is assumed, since nothing says the voltage; pass --voltage",
    )


# Header


def test_a_header_of_1_angstrom_and_300_kv_are_told(project):
    (movie,) = read_inputs(["Movies/unsaid.mrc"])
    notes = MovieSettings().open(movie).notes
    assert "300 kV is assumed" in notes[0] and "1 Å as the header says" in notes[1]
    given = MovieSettings(pixel_size_angstrom=0.9, voltage_kv=200.0)
    assert given.open(movie).notes == ()
    (movie,) = read_inputs(["Movies/m.mrc"])
    assert given.open(movie).notes == ("the pixel size is 0.9 Å as given; the header says 0.53 Å",)


def test_options_win_aloud(project):
    text = OPTICS + loop("rlnMicrographMovieName rlnOpticsGroup", "Movies/m.mrc 1")
    movie = opened(project, text, pixel_size_angstrom=0.6, voltage_kv=300.0)
    assert (movie.pixel_size_angstrom, movie.voltage_kv) == (0.6, 300)
    assert movie.notes[:2] == (
        "--pixel-size 0.6 is taken, not 0.53 Å that a.star says",
        "--voltage 300 is taken, not 200 kV that a.star says",
    )


# References


def test_gain_and_defects_of_a_table(project):
    columns = "rlnMicrographMovieName rlnMicrographGainName rlnMicrographDefectFile rlnVoltage"
    (movie,), _ = inputs(project, loop(columns, "Movies/m.mrc gain.mrc bad.txt 300"))
    assert (str(movie.gain), str(movie.defects)) == ("gain.mrc", "bad.txt")
    from dstnet.correction import CorrectionSettings

    camera = CameraReferences(CorrectionSettings(), gain=project / "other.mrc")
    assert camera.gain_of(movie) == project / "other.mrc"
    assert camera.defects_of(movie) == movie.defects
    (note,) = camera.notes_on(movie)
    assert "gain.mrc that the STAR file names" in note
    columns = columns.replace("MovieName", "Name") + " rlnMicrographMetadata"
    (corrected,), _ = inputs(project, loop(columns, "sum.mrc gain.mrc bad.txt 300 sum.star"))
    assert corrected.gain is None and corrected.defects is None, "RELION's sums need neither"


@pytest.mark.parametrize(
    "given, said",
    [
        ({"spherical_aberration_mm": -2.7}, "--cs is -2.7; 0 to 100 are allowed"),
        ({"amplitude_contrast": 10.0}, "--amplitude-contrast is 10; 0 to 1 are allowed"),
        ({"spherical_aberration_mm": float("nan")}, "--cs is nan"),
    ],
)
def test_options_for_relions_tables_are_looked_at_too(project, given, said):
    with pytest.raises(SettingsError, match=said):
        opened(
            project,
            OPTICS + loop("rlnMicrographMovieName rlnOpticsGroup", "Movies/m.mrc 1"),
            **given,
        )


def test_a_dose_that_an_option_replaces_is_not_passed_on(project):
    """Of a table whose optics groups have it."""
    text = loop(
        "rlnOpticsGroup rlnMicrographOriginalPixelSize rlnVoltage rlnMicrographDoseRate",
        "1 0.53 200 1.5",
        block="optics",
    ) + loop("rlnMicrographMovieName rlnOpticsGroup", "Movies/m.mrc 1")
    movies, _ = inputs(project, text)
    assert MovieSettings().optics(movies[0])["rlnMicrographDoseRate"] == 1.5
    assert "rlnMicrographDoseRate" not in MovieSettings(exposure_e_per_a2=2.0).optics(movies[0])


def test_a_path_that_is_one_file_from_here_and_another_from_the_table_is_refused(
    project, monkeypatch
):
    """Two projects whose movies have the same paths: whose is the table?"""
    (project / "other/Movies").mkdir(parents=True)
    (project / "other/Movies/m.mrc").write_bytes(b"another movie")
    text = loop("rlnMicrographMovieName rlnMicrographOriginalPixelSize", "Movies/m.mrc 0.53")
    with pytest.raises(BadInputError, match=r"Movies/m.mrc, which may be .*other/Movies/m\.mrc"):
        inputs(project, text, "other/movies.star")
    monkeypatch.chdir(project / "other")
    assert len(read_inputs(["movies.star"])) == 1
    (project / "other/Import/job001").mkdir(parents=True)
    (movie,), _ = inputs(project / "other", text, "Import/job001/movies.star")
    assert str(movie.path) == "Movies/m.mrc", "also where a folder above has another of its name"
    (project / "a.star").write_text(text)
    with pytest.raises(BadInputError, match=r"run the command in the project's folder"):
        read_inputs([project / "a.star"])
