"""dstnet gain check as a user runs it, on movies of a simulated camera that has a gain and defects;
and the correction it leads to.
"""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cyclopts import App
from eer_writer import encode, write_eer
from tiny import dstnet

from dstnet.cli.gain import ReferenceOptions, correction_settings
from dstnet.cli.gain import check as check_gain
from dstnet.correction import Corrections, CorrectionSettings
from dstnet.correction.reference_fit import fit_gain
from dstnet.correction.references import orient
from dstnet.io import open_movie, write_mrc
from dstnet.io.reference import read_defects, read_gain

CAMERA = """
detector:
  {gain_variation: 0.03, gain_tiles: [2, 2], dead_columns: 1, hot_pixels_ppm: 150,
   dead_pixels_ppm: 150, mtf_half_frequency: 0.7}
"""


@pytest.fixture(scope="module")
def camera(tmp_path_factory) -> Path:
    """Two small movies of one camera, 16 e-/px/frame, with the camera's references beside them."""
    from dstnet.cli import main

    folder = tmp_path_factory.mktemp("camera")
    (folder / "settings.yaml").write_text(CAMERA)
    words = "--shape 256 256 --pixel-size 2 --frames 6 --dose-per-frame 4 --movies 2 --device cpu"
    with pytest.raises(SystemExit) as left:
        main(
            [
                "simulate",
                "-o",
                str(folder),
                "--settings",
                str(folder / "settings.yaml"),
                *words.split(),
            ]
        )
    assert left.value.code == 0
    return folder


def files(camera: Path) -> tuple[list[Path], Path, Path]:
    """Movies, gain and defect list."""
    (gain,), (defects,) = (
        (camera / "camera").glob("gain_*.mrc"),
        (camera / "camera").glob("defects_*.txt"),
    )
    return sorted((camera / "movies").glob("*.tif")), gain, defects


def corrections_from(options: ReferenceOptions) -> Corrections:
    return Corrections(
        options.gain and read_gain(options.gain),
        None,
        options.defects and read_defects(options.defects),
        correction_settings(options),
    )


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, ""),
        ({"gain_flip": "up-down"}, "--gain-flip up-down"),
        ({"gain_rotate": 90}, "--gain-rotate 90"),
        ({"gain_transpose": True, "gain_rotate": 180}, "--gain-transpose --gain-rotate 180"),
        ({"gain_rotate": 270, "gain_invert": True}, "--gain-rotate 270 --gain-invert"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_options_it_names_turn_the_gain_right(camera, tmp_path, capsys, settings, options):
    movies, gain, _ = files(camera)
    right = read_gain(gain)
    # A gain that the wanted turns bring to the right place: each orientation is undone by one of
    # the eight.
    stored = next(
        candidate
        for r in (0, 90, 180, 270)
        for f in (None, "up-down")
        for candidate in [orient(right, CorrectionSettings(gain_rotate=r, gain_flip=f))]
        if np.array_equal(orient(candidate, CorrectionSettings(**settings)), right)
    )
    if settings.get("gain_invert"):
        stored = np.divide(1, stored, out=np.zeros_like(stored), where=stored > 0)
    write_mrc(tmp_path / "gain.mrc", np.ascontiguousarray(stored), 2.0, "gain")
    code, out, _ = dstnet(capsys, "gain", "check", *movies, "--gain", tmp_path / "gain.mrc")
    assert code == 0
    assert out.splitlines()[-1].endswith(
        f"fits with {options or 'no option, it lies as the frames do'}"
    )
    assert len(out.splitlines()) == 10 and "12 frames" in out

    # The verbs' options, as they are printed, lead to a flat field.
    app, built = App(), []

    @app.default
    def verb(*, references: ReferenceOptions | None = None):
        built.append(corrections_from(references or ReferenceOptions()))

    app(["--gain", str(tmp_path / "gain.mrc"), *shlex.split(options)], result_action="return_value")
    corrected = [built[0].applied(open_movie(movie)) for movie in movies]
    mean = np.mean(
        [np.asarray(movie.frames[i]) for movie in corrected for i in range(len(movie))], axis=0
    )
    assert fit_gain(mean, right)[0].standard_errors < 4.5  # the largest of eight by chance


def test_defects_are_mended_listed_or_found(camera):
    movies, gain, defects = files(camera)
    listed = np.zeros((256, 256), bool)
    for x, y, width, height in read_defects(defects):
        listed[y : y + height, x : x + width] = True
    assert 256 + 10 < listed.sum() < 256 + 30
    raw = open_movie(movies[0])
    for references in (
        ReferenceOptions(gain=gain, defects=defects, find_defects=False),
        ReferenceOptions(gain=gain),
        ReferenceOptions(),
    ):
        movie = corrections_from(references).applied(raw)
        total = np.sum([np.asarray(movie.frames[i], float) for i in range(len(movie))], axis=0)
        spread = total[~listed].std()
        worst = np.abs(total[listed] - np.median(total)).max() / spread
        assert worst < 6, references  # unmended, dead ones are 9 and hot ones more than 100 off
    assert "hot and" in movie.notes[0]


def test_corrected_frames_are_told_from_raw_ones(camera, tmp_path, capsys):
    movies, gain, _ = files(camera)
    corrected = corrections_from(ReferenceOptions(gain=gain)).applied(open_movie(movies[0]))
    write_mrc(
        tmp_path / "corrected.mrcs",
        (corrected.frames[i] for i in range(len(corrected))),
        2.0,
        "corrected",
        stack=True,
    )
    code, out, _ = dstnet(capsys, "gain", "check", tmp_path / "corrected.mrcs", "--gain", gain)
    assert code == 1
    assert "fits in no orientation" in out and "corrected already" in out


def test_a_bad_movie_is_named_and_the_others_count(camera, tmp_path, capsys):
    movies, gain, _ = files(camera)
    (tmp_path / "cut.tif").write_bytes(movies[0].read_bytes()[:5000])
    code, out, err = dstnet(
        capsys, "gain", "check", tmp_path / "cut.tif", *movies, "--gain", gain, "--json"
    )
    assert code == 1 and "cut.tif" in err
    (record,) = map(json.loads, out.splitlines())
    assert record["options"] == "" and record["frames"] == 12 and len(record["orientations"]) == 8
    assert (
        record["orientations"][0]["standard_errors"]
        > 20 * record["orientations"][1]["standard_errors"] / 3
    )


def test_bad_usage(camera, tmp_path, capsys):
    movies, _, _ = files(camera)
    code, _, err = dstnet(capsys, "gain", "check", movies[0])
    assert code == 2 and "--gain" in err
    tifffile.imwrite(tmp_path / "gain.tif", np.ones((256, 300), np.float32))
    code, _, err = dstnet(capsys, "gain", "check", movies[0], "--gain", tmp_path / "gain.tif")
    assert code == 2 and "smooth" in err
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "gain.tif", rng.uniform(0.9, 1.1, (256, 300)).astype(np.float32))
    code, _, err = dstnet(capsys, "gain", "check", movies[0], "--gain", tmp_path / "gain.tif")
    assert code == 2 and "256 x 256" in err and "256 x 300" in err and movies[0].name in err


def test_options_not_given_keep_the_defaults():
    got = correction_settings(ReferenceOptions(gain_rotate=90, drop_bad_frames=False))
    assert got == CorrectionSettings(gain_rotate=90, drop_bad_frames=False)
    assert correction_settings(None) == CorrectionSettings()


def test_a_real_dark_lies_upside_down(data_folder, capsys):
    folder = data_folder / "real" / "detector"
    raw, dark = folder / "de_celeritas_5x256x256_raw.tif", folder / "de_celeritas_dark.mrc"
    code, out, _ = dstnet(capsys, "gain", "check", raw, "--dark", dark)
    assert code == 0 and out.splitlines()[-1].endswith("fits with --gain-flip up-down")


@pytest.mark.parametrize(
    ("name", "is_flat_field", "options"),
    [
        ("gain.mrc", True, "--gain-invert"),
        ("gain.mrc", False, "--no-gain-invert"),
        ("a.gain", False, ""),
        ("a.gain", True, "--gain-invert"),
    ],
)
def test_options_for_an_eer_camera(tmp_path, capsys, name, is_flat_field, options):
    """They are those of a run, in which an EER movie is divided by a gain that is no .gain file."""
    rng = np.random.default_rng(4)
    sides = (64, 64)
    flat_field = np.exp(0.4 * rng.standard_normal(sides)).astype(np.float32)
    raw_frames = []
    for _ in range(60):
        pixels = np.argwhere(rng.random(sides) < 0.2 * flat_field)
        raw_frames.append(encode(4 * pixels, sides))
    write_eer(tmp_path / "a.eer", raw_frames, sides)
    gain = flat_field if is_flat_field else 1 / flat_field
    if name.endswith(".gain"):
        tifffile.imwrite(tmp_path / name, gain)
    else:
        write_mrc(tmp_path / name, gain, 1.0, "gain")
    assert check_gain([tmp_path / "a.eer"], gain=tmp_path / name, json=True) == 0
    assert json.loads(capsys.readouterr().out)["options"] == options
