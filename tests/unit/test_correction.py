"""Corrections of raw frames: references and their turns, defects, bad frames; and how a gain's
orientation is found.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile

from dstnet.core.settings import Settings
from dstnet.correction import Corrections, CorrectionSettings
from dstnet.correction.bad_pixels import find_bad_pixels
from dstnet.correction.reference_fit import best_fit, fit_dark, fit_gain, why_no_gain_fits
from dstnet.correction.references import orient
from dstnet.errors import BadInputError
from dstnet.io import TiffFrames, open_movie, write_mrc, write_tiff
from dstnet.io.reference import read_dark, read_defects, read_gain
from dstnet.movie import Exposure, Movie

OFF = {"find_defects": False, "drop_bad_frames": False}


def settings(**values) -> CorrectionSettings:
    return CorrectionSettings(**values)


def counts(shape=(8, 64, 80), mean=10.0, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, shape).astype(np.uint16)


def movie_of(
    frames: np.ndarray, name="movie.tif", exposure: float | None = 1.0, before=0.0
) -> Movie:
    known = None if exposure is None else Exposure.uniform(len(frames), exposure, before)
    return Movie(frames, 1.0, name, known)


def uneven(shape, spread=0.05, seed=3) -> np.ndarray:
    """A gain reference of random sensitivities."""
    return (
        1 / (1 + spread * np.random.default_rng(seed).standard_normal(shape).clip(-4, 4))
    ).astype(np.float32)


# Orientation


def test_each_turn_moves_pixels_as_documented():
    reference = np.arange(6, dtype=np.float32).reshape(2, 3)
    y, x = np.indices(reference.shape)
    height, width = reference.shape
    places = {
        "gain_transpose": (True, (x, y)),
        "gain_rotate": (90, (x, height - 1 - y)),
        "gain_flip": ("up-down", (height - 1 - y, x)),
    }
    for name, (value, place) in places.items():
        result = orient(reference, settings(**{name: value}))
        np.testing.assert_array_equal(result[place], reference)
    np.testing.assert_array_equal(
        orient(reference, settings(gain_flip="left-right"))[y, width - 1 - x], reference
    )
    np.testing.assert_array_equal(
        orient(reference, settings(gain_rotate=270))[width - 1 - x, y], reference
    )


def test_order_is_transpose_rotate_flip():
    reference = np.arange(6.0).reshape(2, 3)
    expected = reference.T
    expected = orient(expected, settings(gain_rotate=90))[::-1]
    got = orient(reference, settings(gain_transpose=True, gain_rotate=90, gain_flip="up-down"))
    np.testing.assert_array_equal(got, expected)


# Applying


def test_frames_are_raw_less_dark_times_gain():
    frames, gain = counts(), uneven((64, 80))
    dark = np.linspace(0, 3, 64 * 80, dtype=np.float32).reshape(64, 80)
    before = frames.copy()
    movie = Corrections(gain, dark, settings=settings(**OFF)).applied(movie_of(frames))
    for i in (0, 5):
        got = np.asarray(movie.frames[i])
        assert got.dtype == np.float32
        np.testing.assert_allclose(
            got, (frames[i].astype(np.float64) - dark) * gain, rtol=1e-5, atol=1e-5
        )
    np.testing.assert_array_equal(frames, before)


def test_nothing_to_do_leaves_the_movie():
    movie = movie_of(counts())
    assert Corrections(settings=settings(**OFF)).applied(movie) is movie
    assert Corrections().applied(movie) is movie


def test_mending_alone_keeps_integers():
    frames = counts()
    movie = Corrections(defects=np.array([[3, 4, 1, 1]])).applied(movie_of(frames))
    got = np.asarray(movie.frames[0])
    assert got.dtype == np.uint16
    changed = got != frames[0]
    assert changed.sum() <= 1 and not changed[np.indices((64, 80))[0] != 4].any()


def test_turns_apply_to_gain_and_dark_but_not_to_defects():
    frames = counts((2, 64, 80))
    gain, dark = uneven((80, 64)), uneven((80, 64), 0.2, 5)
    movie = Corrections(
        gain, dark, np.array([[0, 0, 1, 2]]), settings(gain_rotate=90, gain_flip="up-down", **OFF)
    ).applied(movie_of(frames))
    expected = (frames[1] - np.rot90(dark, -1)[::-1]) * np.rot90(gain, -1)[::-1]
    got = np.asarray(movie.frames[1])
    good = np.ones((64, 80), bool)
    good[0:2, 0] = False
    np.testing.assert_allclose(got[good], expected[good], rtol=1e-5)
    assert (got[~good] != expected[~good]).all()


@pytest.mark.parametrize("factor", [2, 4])
def test_a_gain_of_physical_pixels_serves_super_resolution(factor):
    frames, gain = counts((1, 64, 96)), uneven((64 // factor, 96 // factor))
    got = np.asarray(
        Corrections(gain, settings=settings(**OFF)).applied(movie_of(frames)).frames[0]
    )
    y, x = np.indices((64, 96)) // factor
    np.testing.assert_allclose(got, frames[0] * gain[y, x], rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((80, 64), "rotate it"),
        ((128, 160), "bin this one by 2"),
        ((64, 81), "read-out mode"),
        ((21, 27), "read-out mode"),
    ],
)
def test_size_mismatch_says_both_sizes_and_the_remedy(shape, words):
    with pytest.raises(BadInputError) as caught:
        Corrections(uneven(shape), names=("g.mrc", "d.mrc", "x.txt")).applied(movie_of(counts()))
    for part in ("movie.tif", "g.mrc", "64 x 80", f"{shape[0]} x {shape[1]}", words):
        assert part in str(caught.value)


def test_inverted_gain_divides_and_keeps_the_mean_and_zeros():
    frames, gain = counts(), uneven((64, 80)) * 40
    gain[5, 6] = 0
    movie = Corrections(gain, settings=settings(gain_invert=True, **OFF)).applied(movie_of(frames))
    good = gain > 0
    expected = frames[0][good] * gain[good].mean(dtype=np.float64) / gain[good]
    np.testing.assert_allclose(np.asarray(movie.frames[0])[good], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("movie", "gain", "invert", "divides"),
    [
        ("a.eer", "g.mrc", None, True),
        ("a.eer", "g.gain", None, False),
        ("a.tif", "g.mrc", None, False),
        ("a.eer", "g.mrc", False, False),
        ("a.tif", "g.mrc", True, True),
    ],
)
def test_eer_gains_divide_unless_they_are_gain_files(movie, gain, invert, divides):
    frames, values = counts((1, 64, 80)), uneven((64, 80))
    corrections = Corrections(
        values, settings=settings(gain_invert=invert, **OFF), names=(gain, "", "")
    )
    got = np.asarray(corrections.applied(movie_of(frames, movie)).frames[0])
    expected = frames[0] * (values.mean(dtype=np.float64) / values if divides else values)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


# Mending


def test_repaired_pixels_have_the_mean_and_the_noise_of_their_neighbours():
    frames = counts((64, 48, 64), 25.0)
    dead = np.zeros((48, 64), bool)
    dead[:, 20] = dead[:, 41:43] = True
    dead[10:15, 5:10] = True
    frames[:, dead] = 0
    movie = Corrections(defects=dead, settings=settings(**OFF)).applied(movie_of(frames))
    values = np.stack([np.asarray(movie.frames[i]) for i in range(64)]).astype(float)
    n = int(dead.sum())
    mean, variance = values[:, dead].mean(), values[:, dead].var(0, ddof=1).mean()
    # Neighbours are shared by the pixels of a defect, by 25 at the most: errors are up to 5 times
    # those of independent ones.
    assert abs(mean - 25) < 5 * 5 * (25 / (n * 64)) ** 0.5
    assert abs(variance - 25) < 5 * 5 * 25 * (2 / (n * 63)) ** 0.5
    # Frames are repaired independently, so that no pattern stays on the sensor: neighbouring frames
    # do not resemble each other.
    part = values[:, dead] - values[:, dead].mean(0)
    assert abs(np.corrcoef(part[:-1].ravel(), part[1:].ravel())[0, 1]) < 0.1


def test_mending_is_the_same_in_any_order_and_again():
    frames = counts((4, 40, 40))
    defects = np.array([[0, 0, 3, 3], [39, 39, 1, 1], [20, 0, 1, 40]])
    one, two = (
        Corrections(defects=defects, settings=settings(**OFF)).applied(movie_of(frames)).frames
        for _ in range(2)
    )
    backwards = [two[i] for i in (3, 2, 1, 0)]
    np.testing.assert_array_equal([one[i] for i in range(4)], backwards[::-1])


def test_wide_defects_are_filled_from_beside_and_gain_zeros_are_repaired():
    frames = np.tile(np.repeat(np.array([[10, 1000]], np.uint16), [32, 32], 1), (1, 64, 1))
    gain = np.ones((64, 64), np.float32)
    gain[8:20, 4:16] = 0
    gain[30:40, 50:60] = 0
    got = np.asarray(
        Corrections(gain, settings=settings(**OFF)).applied(movie_of(frames)).frames[0]
    )
    assert (got[:, :32] == 10).all() and (got[:, 32:] == 1000).all()


def test_defects_outside_the_frame_and_absurd_maps_are_refused():
    with pytest.raises(BadInputError, match=r"column 90, row 0.*this camera"):
        Corrections(defects=np.array([[90, 0, 1, 1]])).applied(movie_of(counts()))
    with pytest.raises(BadInputError, match="defects"):
        Corrections(defects=np.ones((64, 80), bool)).applied(movie_of(counts()))


# Finding


def test_hot_and_dead_pixels_clusters_and_columns_are_found_and_nothing_else():
    n = 256
    y, x = np.mgrid[:n, :n]
    expected = 3.0 * (1 + 0.1 * np.sin(x / 20) * np.cos(y / 25))
    expected[(y - 60) ** 2 + (x - 60) ** 2 < 12**2] *= 0.3  # gold
    expected[(y - 60) ** 2 + (x - 180) ** 2 < 5**2] *= 0.3  # small gold
    expected[(y - 190) ** 2 + (x - 180) ** 2 < 5**2] *= 2.0  # its Fresnel bright twin
    expected[200:, :] *= 0.7  # carbon's edge along a row
    rng = np.random.default_rng(1)
    hot, dead = np.zeros((n, n), bool), np.zeros((n, n), bool)
    hot.flat[rng.choice(n * n, 30, replace=False)] = True
    hot[100:102, 100:102] = hot[120:123, 30:33] = True
    hot[0, 0] = True
    dead.flat[rng.choice(n * n, 30, replace=False)] = True
    dead[:, 33] = dead[:, 150:152] = dead[64:192, 220] = True
    dead &= ~hot
    frames = rng.poisson(expected * np.where(hot, 12, 1) * ~dead, (16, n, n))
    found_hot, found_dead = find_bad_pixels(frames.mean(0).astype(np.float32), frames=16)
    np.testing.assert_array_equal(found_hot & ~dead, hot)
    np.testing.assert_array_equal(found_dead & ~hot, dead)


@pytest.mark.parametrize("level", [0.003, 0.05, 0.2, 1.0, 20.0])
def test_pure_counts_hold_no_bad_pixels(level):
    mean = counts((16, 512, 512), level).mean(0).astype(np.float32)
    for frames in (1, 16):
        hot, dead = find_bad_pixels(mean, frames=frames)
        assert not hot.any() and not dead.any()


def test_images_without_zero_level_hold_none_but_true_spikes():
    mean = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    mean[30, 40] = 40
    hot, dead = find_bad_pixels(mean)
    assert np.argwhere(hot).tolist() == [[30, 40]] and not dead.any()


def test_a_picture_scaled_to_its_extremes_holds_none():
    """Its lowest pixel is 0 and no dead one, for all that it looks like counts of mean 25."""
    image = np.random.default_rng(0).standard_normal((1024, 1024))
    image = ((image - image.min()) / np.ptp(image) * 65535).astype(np.float32)
    hot, dead = find_bad_pixels(image)
    assert not hot.any() and not dead.any()


def test_known_defects_neither_hide_nor_make_others():
    mean = counts((40, 128, 128), 2.0).mean(0).astype(np.float32)
    known = np.zeros((128, 128), bool)
    known[:, 50:53] = True
    mean[known] = 4000
    mean[70, 54] = 80
    hot, dead = find_bad_pixels(mean, known=known)
    assert np.argwhere(hot).tolist() == [[70, 54]] and not dead.any()


def test_found_pixels_are_repaired_in_each_frame_and_noted():
    frames = counts((20, 64, 160), 4.0)
    frames[:, 12, 30] += 200
    frames[:, :, 50] = 0
    movie = Corrections().applied(movie_of(frames))
    got = np.stack([np.asarray(movie.frames[i]) for i in range(20)])
    assert got[:, 12, 30].max() < 30 and got[:, :, 50].mean() > 3.5
    assert movie.notes == ("1 hot and 64 dead pixels found and repaired",)


def test_too_many_odd_pixels_are_not_believed():
    frames = counts((8, 64, 80), 10.0)
    places = np.random.default_rng(0).random((64, 80)) < 0.005
    frames[:, places] *= 6
    movie = Corrections(settings=settings(max_found_fraction=0.003)).applied(movie_of(frames))
    np.testing.assert_array_equal(movie.frames[0], frames[0])
    assert "too many to believe" in movie.notes[0]


class Counted:
    """Frames that count how often they are read."""

    def __init__(self, frames):
        self.frames, self.shape, self.read = frames, frames.shape, []

    def __getitem__(self, index):
        self.read.append(index)
        return self.frames[index]


def test_what_a_look_at_the_frames_costs():
    for values, reads in (
        ({}, 40),
        ({"drop_bad_frames": False}, 16),
        ({"find_defects": False}, 40),
        (OFF, 0),
    ):
        frames = Counted(counts((40, 32, 32)))
        movie = Corrections(settings=settings(**values)).applied(Movie(frames, 1.0))
        assert len(frames.read) == len(set(frames.read)) == reads
        assert len(movie) == 40


# Bad frames


def test_bad_frames_are_left_out_and_told_by_number():
    frames = counts((12, 64, 80)).astype(np.float32)
    frames[1] = 0
    frames[3, 5, 6] = np.nan
    frames[5] = frames[4]
    frames[7] = counts((64, 80), 3.0, 7)
    frames[9] = counts((64, 80), 25.0, 7)
    movie = Corrections().applied(movie_of(frames))
    assert movie.frame_numbers == (0, 2, 4, 6, 8, 10, 11)
    assert len(movie) == 7
    for i, number in enumerate(movie.frame_numbers):
        np.testing.assert_array_equal(movie.frames[i], frames[number])
    (note,) = movie.notes
    for part in (
        "5 of 12",
        "2 (all pixels 0.0)",
        "4 (1 pixels NaN",
        "6 (the same as frame 5)",
        "8 (mean 0.3",
        "10 (mean 2.5",
    ):
        assert part in note


def test_kept_when_told_so():
    frames = counts((6, 64, 80))
    frames[2] = 0
    assert len(Corrections(settings=settings(drop_bad_frames=False)).applied(movie_of(frames))) == 6


def test_an_exposure_ramp_is_no_bad_frame():
    means = np.linspace(1, 9, 40)
    frames = np.random.default_rng(0).poisson(means[:, None, None], (40, 48, 48)).astype(np.uint8)
    movie = movie_of(frames)
    assert Corrections().applied(movie) is movie


def test_frames_of_mean_zero_are_no_bad_frames():
    frames = np.random.default_rng(0).standard_normal((20, 48, 48)).astype(np.float32)
    assert len(Corrections().applied(movie_of(frames))) == 20


def test_a_dark_offset_does_not_hide_a_missing_beam():
    frames = counts((10, 64, 80)) + np.uint16(300)
    frames[9] = counts((64, 80), 0.2, 3) + np.uint16(300)
    dark = np.full((64, 80), 300, np.float32)
    assert Corrections(dark=dark).applied(movie_of(frames)).frame_numbers == tuple(range(9))


@pytest.mark.parametrize("drop", [True, False])
def test_listed_pixels_say_nothing_of_their_frames(drop):
    """They are NaN, or saturate at times; in one frame nothing else arrived."""
    good = counts((8, 64, 80), 3.0).astype(np.float32)
    frames = good.copy()
    frames[2, :, 40] = frames[4, :, 40] = 60000
    frames[:, 10, 20] = np.nan
    frames[5, 11, 20] = np.inf
    column = np.array([[40, 0, 1, 64], [20, 10, 1, 2]])
    gain = np.ones((64, 80), np.float32)
    gain[:, 40] = gain[10:12, 20] = 0
    for references in ({"defects": column}, {"gain": gain}):
        applied = Corrections(**references, settings=settings(drop_bad_frames=drop))
        movie = applied.applied(movie_of(frames))
        assert movie.frame_numbers == tuple(range(8))
        assert not any("pixels" in note or "left out" in note for note in movie.notes)
        repaired = np.stack([movie.frames[i] for i in range(8)])
        assert np.isfinite(repaired).all() and repaired.max() == good.max()
        is_good = np.ones((64, 80), bool)
        is_good[:, 40] = is_good[10:12, 20] = False
        np.testing.assert_array_equal(repaired[:, is_good], good[:, is_good])
    if drop:
        frames[6] = 0
        frames[6, :, 40] = 60000
        movie = Corrections(defects=column).applied(movie_of(frames))
        assert movie.frame_numbers == (0, 1, 2, 3, 4, 5, 7)


def test_pixels_that_are_never_numbers_are_dead_ones():
    good = counts((8, 64, 80), 3.0).astype(np.float32)
    frames = good.copy()
    frames[:, 10, 20] = np.nan
    frames[:, :, 40] = np.inf
    movie = Corrections().applied(movie_of(frames))
    assert len(movie) == 8 and movie.notes == ("65 pixels NaN or infinite in all frames: repaired",)
    repaired = np.stack([movie.frames[i] for i in range(8)])
    assert np.isfinite(repaired).all() and repaired.mean() == pytest.approx(3.0, abs=0.05)
    frames[3, 30, 30] = np.nan  # scattered: that frame is bad
    assert Corrections().applied(movie_of(frames)).frame_numbers == (0, 1, 2, 4, 5, 6, 7)
    # Of a single frame nothing tells dead pixels from a broken file, nor of half a frame.
    frames[:, :, :40] = np.nan
    for broken in (frames[:1], frames):
        with pytest.raises(BadInputError, match="frames are bad"):
            Corrections().applied(movie_of(broken))


@pytest.mark.parametrize("bad", [(0, 1), (9,), (2,), (7,), (3, 4)])
@pytest.mark.parametrize("value", [np.nan, 0])
def test_exposure_of_frames_left_out(bad, value):
    """NaN frames have exposed what comes after them, empty ones have not."""
    frames = counts((10, 48, 48)).astype(np.float32)
    frames[list(bad)] = value
    movie = Corrections().applied(movie_of(frames, exposure=1.0, before=3.0))
    kept = [number for number in range(10) if number not in bad]
    assert movie.frame_numbers == tuple(kept)
    missing = [0 if np.isnan(value) else sum(number < n for number in bad) for n in kept]
    starts = [3.0 + n - without for n, without in zip(kept, missing, strict=True)]
    assert movie.exposure == Exposure((1.0,) * len(kept), tuple(starts))


def test_a_movie_of_bad_frames_is_refused():
    with pytest.raises(
        BadInputError, match=r"movie.tif: all 3 frames are bad \(frame 1: all pixels 0\)"
    ):
        Corrections().applied(movie_of(np.zeros((3, 64, 80), np.uint8)))


def test_a_frame_that_cannot_be_read_fails_the_movie(tmp_path: Path):
    write_tiff(tmp_path / "a.tif", counts((3, 64, 80)), 1.0)
    movie = open_movie(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        start, size = tif.pages[1].dataoffsets[0], tif.pages[1].databytecounts[0]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[start : start + size] = b"\xff" * size
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(BadInputError, match="frame 2"):
        Corrections().applied(movie)


# Which way a gain lies

ORIENTATIONS = [
    {"gain_rotate": r, "gain_flip": f} for r in (0, 90, 180, 270) for f in (None, "up-down")
]


@pytest.mark.parametrize(
    "orientation", ORIENTATIONS, ids=lambda o: f"{o['gain_rotate']}-{o['gain_flip']}"
)
@pytest.mark.parametrize("invert", [False, True])
def test_gain_orientation_is_found(orientation, invert):
    gain = uneven((96, 96), 0.03)
    gain[7, 9] = 0
    placed = orient(gain, settings(**orientation))
    sensitivity = (
        placed / placed.mean()
        if invert
        else np.divide(1, placed, out=np.zeros_like(placed), where=placed > 0)
    )
    mean = np.random.default_rng(0).poisson(400 * sensitivity).astype(np.float32) / 40
    mean[30, 31] = 1000  # a hot pixel
    best = best_fit(fit_gain(mean, gain))
    assert best is not None and best.settings.gain_invert == invert
    np.testing.assert_array_equal(orient(gain, best.settings), placed)
    assert 0.4 < best.correlation < 0.7  # 0.03 of signal beside 0.05 of noise: 0.51


def test_only_orientations_of_the_right_size_are_tried():
    mean = counts((64, 96), 400.0).astype(np.float32)
    assert (
        len(fit_gain(mean, uneven((64, 96))))
        == len(fit_gain(mean, uneven((96, 64))))
        == len(fit_gain(mean, uneven((48, 32))))
        == 4
    )
    with pytest.raises(BadInputError, match=r"m.tif has frames of 64 x 96 .* g.mrc has 64 x 90"):
        fit_gain(mean, uneven((64, 90)), ("m.tif", "g.mrc"))


@pytest.mark.parametrize(
    ("mean", "spread", "own", "why"),
    [(200, 0.05, False, "corrected"), (200, 0.05, True, "other"), (0.5, 0.01, False, "few")],
)
def test_no_fit_says_why(mean, spread, own, why):
    gain, other = uneven((128, 128), spread), uneven((128, 128), 0.05, 9)
    rng = np.random.default_rng(0)
    halves = [
        rng.poisson(mean * (1 / other if own else np.ones_like(other))).astype(np.float32)
        for _ in range(2)
    ]
    assert best_fit(fit_gain(sum(halves) / 2, gain)) is None
    assert why_no_gain_fits(halves[0], halves[1], gain) == why


def test_a_gain_that_is_symmetric_is_not_settled():
    gain = uneven((96, 96), 0.05)
    gain = (gain + gain[::-1]) / 2
    mean = np.random.default_rng(0).poisson(1000 / gain).astype(np.float32)
    assert best_fit(fit_gain(mean, gain)) is None


def test_real_references_lie_upside_down(data_folder: Path):
    """The raw TIFF's rows are read bottom-up as RELION does, the MRC's as stored: the dark must be
    flipped, beyond doubt.
    """
    folder = data_folder / "real" / "detector"
    frames = TiffFrames(folder / "de_celeritas_5x256x256_raw.tif")
    dark = read_dark(folder / "de_celeritas_dark.mrc")
    best = best_fit(fit_dark(np.mean([frames[i] for i in range(1, 5)], axis=0), dark))
    assert best is not None and best.options == "--gain-flip up-down" and best.correlation > 0.95
    movie = open_movie(folder / "de_celeritas_5x256x256_raw.tif", pixel_size_angstrom=1.0)
    gain = read_gain(folder / "de_celeritas_gain.mrc")
    spreads = []
    for flip in ("up-down", None):
        corrected = Corrections(gain, dark, settings=settings(gain_flip=flip, **OFF)).applied(movie)
        spreads.append(float(corrected.frame(4).std()))
    assert spreads[0] < 0.2 * spreads[1]


# Files


def test_references_are_read_with_the_rows_of_movies(tmp_path: Path):
    gain = uneven((48, 40))
    write_mrc(tmp_path / "g.mrc", gain, 1.0, "gain")
    tifffile.imwrite(tmp_path / "g.tif", gain[::-1])
    tifffile.imwrite(tmp_path / "g.gain", gain)
    for name in ("g.mrc", "g.tif", "g.gain"):
        np.testing.assert_array_equal(read_gain(tmp_path / name), gain)
    np.testing.assert_array_equal(read_dark(tmp_path / "g.tif"), gain)
    defects = (gain > 1.05).astype(np.uint8)
    tifffile.imwrite(tmp_path / "d.tif", defects[::-1])
    write_mrc(tmp_path / "d.mrc", defects.astype(np.float32), 1.0, "defects")
    for name in ("d.mrc", "d.tif"):
        got = read_defects(tmp_path / name)
        assert got.dtype == bool
        np.testing.assert_array_equal(got, defects > 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [(np.nan, "1 NaN or infinite"), (-1.0, "negative values"), (None, "only zeros")],
    ids=["nan", "negative", "zeros"],
)
def test_a_gain_that_is_none_is_refused(tmp_path: Path, change, words):
    gain = uneven((48, 40)) if change is not None else np.zeros((48, 40), np.float32)
    if change is not None:
        gain[3, 4] = change
    write_mrc(tmp_path / "g.mrc", gain, 1.0, "gain")
    with pytest.raises(BadInputError, match=f"g.mrc holds {words}"):
        read_gain(tmp_path / "g.mrc")


def test_other_files_are_refused_with_a_remedy(tmp_path: Path):
    (tmp_path / "g.dm4").write_bytes(b"\0\0\0\4" * 300)
    with pytest.raises(BadInputError, match=r"dm2mrc g.dm4 g.mrc"):
        read_gain(tmp_path / "g.dm4")
    with pytest.raises(BadInputError, match=r"g\.dm4"):
        read_defects(tmp_path / "g.dm4")
    write_mrc(tmp_path / "two.mrc", counts((2, 48, 40)).astype(np.float32), 1.0, "two", stack=True)
    with pytest.raises(BadInputError, match="2 images of 48 x 40"):
        read_gain(tmp_path / "two.mrc")
    (tmp_path / "text.txt").write_text("hello\n")
    with pytest.raises(BadInputError, match="neither an MRC nor a TIFF"):
        read_dark(tmp_path / "text.txt")
    for path in (tmp_path, tmp_path / "absent.mrc"):
        with pytest.raises(BadInputError, match=path.name):
            read_gain(path)


def dm4_entry(name: str, kind: int, content: bytes) -> bytes:
    """An entry of a DM4 file: 20 a folder, 21 data."""
    head = struct.pack(">BH", kind, len(name)) + name.encode()
    return head + struct.pack(">Q", len(content)) + content


def dm4_folder(name: str, *entries: bytes) -> bytes:
    return dm4_entry(name, 20, struct.pack(">bbQ", 1, 0, len(entries)) + b"".join(entries))


def dm4_data(name: str, data: bytes, *kind: int) -> bytes:
    return dm4_entry(name, 21, b"%%%%" + struct.pack(f">Q{len(kind)}Q", len(kind), *kind) + data)


def dm4_image(image: np.ndarray) -> bytes:
    sides = [dm4_data("", struct.pack("<I", side), 5) for side in image.shape[::-1]]
    kind = {"f": 6, "H": 4}[image.dtype.char]
    pixels = dm4_data("Data", image.tobytes(), 20, kind, image.size)
    depth = dm4_data("DataType", struct.pack("<I", 2), 5)  # a name as long as a count
    return dm4_folder("", dm4_folder("ImageData", depth, pixels, dm4_folder("Dimensions", *sides)))


def test_dm4_references(tmp_path: Path):
    """Read as TIFF is, the last stored row first; a thumbnail stands before the image."""
    pytest.importorskip("dm4", reason="the package dm4 is not installed")
    gain = uneven((48, 40))
    images = dm4_image(gain[::8, ::8].astype(np.uint16)), dm4_image(gain)
    listed = dm4_folder("ImageList", *images)
    data = struct.pack(">IQI", 4, len(listed), 1) + struct.pack(">bbQ", 1, 0, 1) + listed
    (tmp_path / "g.dm4").write_bytes(data)
    np.testing.assert_array_equal(read_gain(tmp_path / "g.dm4"), gain[::-1])
    np.testing.assert_array_equal(read_dark(tmp_path / "g.dm4"), gain[::-1])
    at = data.index(b"%%%%") + 4
    absurd = data[:at] + (1 << 62).to_bytes(8) + data[at + 8 :]
    for damaged in (data[:3000], absurd):
        (tmp_path / "g.dm4").write_bytes(damaged)
        with pytest.raises(BadInputError, match=r"g\.dm4 .*dm2mrc g.dm4 g.mrc"):
            read_gain(tmp_path / "g.dm4")


@pytest.mark.parametrize("name", ["a.dm4", "a.dm3"])
def test_digital_micrograph_movies_are_to_be_converted(tmp_path: Path, name):
    (tmp_path / name).write_bytes(b"\0\0\0\4" * 300)
    with pytest.raises(BadInputError, match=rf"{name} .*dm2mrc {name} a.mrc"):
        open_movie(tmp_path / name, pixel_size_angstrom=1.0)


def test_defect_lists(tmp_path: Path):
    path = tmp_path / "defects.txt"
    path.write_text("# x y w h\n0 0 2 3\n\n 10   4 1 60\n")
    assert read_defects(path).tolist() == [[0, 0, 2, 3], [10, 4, 1, 60]]
    bad = np.zeros((64, 80), bool)
    bad[0:3, 0:2] = bad[4:64, 10] = True
    frames = counts((1, 64, 80))
    frames[0][bad] = 60000
    got = np.asarray(
        Corrections(defects=read_defects(path), settings=settings(**OFF))
        .applied(movie_of(frames))
        .frames[0]
    )
    assert got.max() < 100
    for text, words in (
        ("1 2 3\n", "line 1: '1 2 3'"),
        ("0 0 1 1\n1 2 x 4", "line 2"),
        ("1 2 0 4", "0 x 4"),
        ("BadColumns 3 4", "clip defect"),
    ):
        path.write_text(text)
        with pytest.raises(BadInputError, match=words):
            read_defects(path)
    path.write_text("")
    assert read_defects(path).shape == (0, 4)


# Beside RELION


@pytest.mark.oracle
@pytest.mark.parametrize(("rotate", "flip"), [(1, 0), (3, 1), (2, 2), (1, 2)])
def test_turns_are_relions(tmp_path: Path, rotate, flip):
    """gain_rotate 90 n and gain_flip are RELION's gain_rot n and gain_flip (1 up-down, 2
    left-right).
    """
    import os

    program = shutil.which("relion_run_motioncorr")
    if program is None:
        if os.environ.get("DSTNET_REQUIRE_ORACLES") == "1":
            pytest.fail("relion_run_motioncorr is not installed")
        pytest.skip("relion_run_motioncorr is not installed")
    gain = uneven((64, 80))
    values = {"gain_rotate": 90 * rotate, "gain_flip": (None, "up-down", "left-right")[flip]}
    expected = orient(gain, settings(**values))
    write_mrc(tmp_path / "gain.mrc", gain, 1.0, "gain")
    write_mrc(tmp_path / "movie.mrcs", counts((2, *expected.shape)), 1.0, "movie", stack=True)
    (tmp_path / "movies.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName"
        " #2\n_rlnMicrographOriginalPixelSize #3\n_rlnVoltage #4\n_rlnSphericalAberration"
        " #5\n_rlnAmplitudeContrast #6\n1 one 1.0 300 2.7"
        " 0.1\n\ndata_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup"
        " #2\nmovie.mrcs 1\n"
    )
    command = [
        program,
        "--i",
        "movies.star",
        "--o",
        "out/",
        "--use_own",
        "--angpix",
        "1",
        "--voltage",
        "300",
        "--dose_per_frame",
        "1",
    ]
    command += [
        "--j",
        "1",
        "--gainref",
        "gain.mrc",
        "--gain_rot",
        str(rotate),
        "--gain_flip",
        str(flip),
        "--skip_defect",
    ]
    subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, timeout=120)
    np.testing.assert_array_equal(read_gain(tmp_path / "out" / "gain.mrc"), expected)


def test_settings_are_closed_and_frozen():
    assert issubclass(CorrectionSettings, Settings)
    with pytest.raises(ValueError, match="gain_rotate"):
        settings(gain_rotate=45)
