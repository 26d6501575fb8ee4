"""EER movies: every electron lands in the pixel where the camera saw it, on every grid and in every
grouping.
"""

import pickle
import subprocess

import imagecodecs
import numpy as np
import pytest
from eer_writer import encode, random_events, write_eer
from oracles import relion

from dstnet.errors import BadInputError, SettingsError
from dstnet.io import EerFrames, EerSettings, TiffFrames, open_movie
from dstnet.movie import FrameStack

SIDES = (48, 160)


def counted(frames, up_sampling, sides=SIDES):
    """The sum of raw frames' events on a grid: what any reader should give."""
    counts = np.zeros((sides[0] * up_sampling, sides[1] * up_sampling), int)
    for events in frames:
        np.add.at(counts, tuple((events * up_sampling // 4).T), 1)
    return counts


@pytest.fixture
def events():
    rng = np.random.default_rng(5)
    frames = [random_events(rng, SIDES) for _ in range(11)]
    frames[3] = frames[3][:0]  # a frame without electrons
    frames[4] = 4 * np.argwhere(np.ones(SIDES)) + 1  # an electron in every pixel, the last one too
    frames[5] = np.array([[4 * (SIDES[0] - 1), 3]])  # long empty runs
    return frames


@pytest.mark.parametrize("up_sampling", [1, 2, 4])
@pytest.mark.parametrize("group", [1, 3, 11])
def test_fractions_are_sums_of_raw_frames(tmp_path, events, group, up_sampling):
    write_eer(tmp_path / "a.eer", [encode(e, SIDES) for e in events], SIDES)
    frames = EerFrames(
        tmp_path / "a.eer", EerSettings(frames_per_fraction=group, up_sampling=up_sampling)
    )
    assert isinstance(frames, FrameStack)
    assert frames.shape == (11 // group, SIDES[0] * up_sampling, SIDES[1] * up_sampling)
    for i in range(len(frames)):
        np.testing.assert_array_equal(
            frames[i], counted(events[i * group : (i + 1) * group], up_sampling)
        )
    with pytest.raises(IndexError):
        frames[len(frames)]


@pytest.mark.parametrize("skip_bits", [7, 8])
@pytest.mark.parametrize("superres", [0, 1, 2])
def test_imagecodecs_reads_the_same(tmp_path, events, superres, skip_bits):
    up_sampling = 1 << superres
    streams = [encode(e, SIDES, skip_bits) for e in events]
    write_eer(tmp_path / "a.eer", streams, SIDES, compression={7: 65001, 8: 65000}[skip_bits])
    total = np.zeros((SIDES[0] * up_sampling, SIDES[1] * up_sampling), "u2")
    for stream in streams:
        even = stream + bytes(len(stream) % 2)  # it takes no odd length
        imagecodecs.eer_decode(even, total.shape, skip_bits, 2, 2, superres=superres, out=total)
    settings = EerSettings(frames_per_fraction=11, up_sampling=up_sampling)
    np.testing.assert_array_equal(EerFrames(tmp_path / "a.eer", settings)[0], total)


@pytest.mark.parametrize("bits", [(7, 2, 2), (5, 2, 2), (9, 1, 2), (7, 2, 1), (12, 2, 2)])
def test_codes_of_any_length(tmp_path, events, bits):
    streams = [encode(e, SIDES, *bits) for e in events]
    write_eer(tmp_path / "a.eer", streams, SIDES, compression=65002, code_bits=bits)
    frames = EerFrames(tmp_path / "a.eer", EerSettings(frames_per_fraction=11, up_sampling=2))
    total = np.zeros(frames.shape[1:], "u2")
    for stream in streams:
        imagecodecs.eer_decode(
            stream + bytes(len(stream) % 2), total.shape, *bits, superres=1, out=total
        )
    np.testing.assert_array_equal(frames[0], total)
    np.testing.assert_array_equal(frames[0], counted(events, 2))
    if min(bits) == 1:
        with pytest.raises(BadInputError, match="up-sampling of at most 2"):
            EerFrames(tmp_path / "a.eer", EerSettings(up_sampling=4))


@pytest.mark.parametrize(
    "options", [{"strips": 3}, {"sum_first": True}, {"strips": 2, "sum_first": True}], ids=str
)
def test_forms_of_the_file(tmp_path, events, options):
    write_eer(tmp_path / "a.eer", [encode(e, SIDES) for e in events], SIDES, **options)
    frames = EerFrames(tmp_path / "a.eer", EerSettings(frames_per_fraction=5))
    assert frames.raw_frames == 11
    np.testing.assert_array_equal(frames[1], counted(events[5:10], 1))


def test_sums_beyond_a_byte(tmp_path):
    sides = (32, 32)
    everywhere = 4 * np.argwhere(np.ones(sides))
    write_eer(tmp_path / "a.eer", [encode(everywhere, sides)] * 300, sides)
    for group in (255, 256, 300):
        assert (
            EerFrames(tmp_path / "a.eer", EerSettings(frames_per_fraction=group))[0] == group
        ).all()


def test_what_is_left_out_is_told(tmp_path, events):
    write_eer(tmp_path / "a.eer", [encode(e, SIDES) for e in events], SIDES)
    assert EerFrames(tmp_path / "a.eer", EerSettings(frames_per_fraction=4)).notes == (
        "EER: 11 raw frames, 4 a fraction: 2 frames, the last 3 left out",
    )
    assert (
        "left out"
        not in EerFrames(tmp_path / "a.eer", EerSettings(frames_per_fraction=11)).notes[0]
    )
    movie = open_movie(
        tmp_path / "a.eer",
        pixel_size_angstrom=1.0,
        frames=slice(0, 1),
        eer=EerSettings(frames_per_fraction=4),
    )
    assert "last 3 left out" in movie.notes[0]


def test_without_a_grouping_it_is_relions(tmp_path):
    sides = (32, 32)
    stream = encode([], sides)
    write_eer(tmp_path / "long.eer", [stream] * 85, sides)
    write_eer(tmp_path / "short.eer", [stream] * 7, sides)
    assert EerFrames(tmp_path / "long.eer", EerSettings()).shape[0] == 2  # 40 each
    assert EerFrames(tmp_path / "short.eer", EerSettings()).shape[0] == 1


def test_grouping_by_exposure(tmp_path, events):
    write_eer(tmp_path / "a.eer", [encode(e, SIDES) for e in events], SIDES, pixel_size_m=1.2e-10)
    movie = open_movie(
        tmp_path / "a.eer",
        exposure_e_per_a2=0.27,
        eer=EerSettings(exposure_per_fraction_e_per_a2=1.0),
    )
    assert len(movie) == 2 and movie.exposure.mean_frame_e_per_a2 == pytest.approx(4 * 0.27)
    np.testing.assert_array_equal(movie.frames[1], counted(events[4:8], 1))
    later = open_movie(
        tmp_path / "a.eer",
        exposure_e_per_a2=0.27,
        frames=slice(1, 2),
        eer=EerSettings(exposure_per_fraction_e_per_a2=1.0),
    )
    assert later.exposure.pre_exposure_e_per_a2 == pytest.approx(4 * 0.27)
    by_frames = open_movie(
        tmp_path / "a.eer", exposure_e_per_a2=1.1, eer=EerSettings(frames_per_fraction=4)
    )
    assert (
        by_frames.exposure.frame_e_per_a2[0] == 1.1
    )  # of a fraction, as RELION's --dose_per_frame


@pytest.mark.parametrize("up_sampling", [1, 2, 4])
def test_pixel_size_of_the_grid(tmp_path, events, up_sampling):
    streams = [encode(e, SIDES) for e in events]
    write_eer(tmp_path / "a.eer", streams, SIDES, pixel_size_m=7.06e-11)
    settings = EerSettings(up_sampling=up_sampling)
    assert open_movie(tmp_path / "a.eer", eer=settings).pixel_size_angstrom == pytest.approx(
        0.706 / up_sampling, rel=1e-5
    )
    for size in (0.0, float("nan"), None):
        write_eer(tmp_path / "b.eer", streams, SIDES, pixel_size_m=size)
        with pytest.raises(BadInputError, match=r"pixel size missing in .*; pass --pixel-size"):
            open_movie(tmp_path / "b.eer")


def test_movies_travel_to_worker_processes(tmp_path, events):
    write_eer(tmp_path / "a.eer", [encode(e, SIDES) for e in events], SIDES)
    frames = pickle.loads(
        pickle.dumps(EerFrames(tmp_path / "a.eer", EerSettings(frames_per_fraction=2)))
    )
    np.testing.assert_array_equal(frames[3], counted(events[6:8], 1))


def test_settings_that_contradict():
    for values in (
        {"frames_per_fraction": 4, "exposure_per_fraction_e_per_a2": 1.0},
        {"frames_per_fraction": 0},
        {"exposure_per_fraction_e_per_a2": 0.0},
        {"up_sampling": 3},
    ):
        with pytest.raises(SettingsError):
            EerSettings.checked(values, "test")


@pytest.mark.oracle
@pytest.mark.parametrize("up_sampling", [1, 2])  # RELION 3.1 knows no more
def test_relion_renders_the_same(tmp_path, up_sampling):
    program = relion("relion_convert_to_tiff")
    rng = np.random.default_rng(6)
    sides = (4096, 4096)  # RELION takes no other
    write_eer(
        tmp_path / "a.eer",
        [encode(random_events(rng, sides, 5e-4), sides) for _ in range(5)],
        sides,
    )
    (tmp_path / "out").mkdir()
    options = ["--eer_grouping", "2", "--eer_upsampling", str(up_sampling), "--o", "out/"]
    subprocess.run(
        [program, "--i", "a.eer", *options],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=200,
    )
    theirs = TiffFrames(next((tmp_path / "out").rglob("*.tif")))
    ours = EerFrames(
        tmp_path / "a.eer", EerSettings(frames_per_fraction=2, up_sampling=up_sampling)
    )
    assert theirs.shape == ours.shape == (2, 4096 * up_sampling, 4096 * up_sampling)
    for i in range(2):
        assert ours[i].sum() > 10000
        np.testing.assert_array_equal(ours[i], theirs[i])
