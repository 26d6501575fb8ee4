"""References that are used the wrong way are noticed on a few frames, and right ones never are."""

import numpy as np
import pytest

from dstnet.correction import Corrections, CorrectionSettings
from dstnet.correction.reference_check import ReferenceCheck
from dstnet.correction.reference_fit import central, fit_gain
from dstnet.correction.references import orient
from dstnet.io import open_movie
from dstnet.io.reference import read_dark, read_gain
from dstnet.movie import Movie

SHAPE = (128, 128)


def gain_of(kind: str, spread: float, seed: int) -> np.ndarray:
    """A camera's gain: its pixels differ each by itself, by columns, ..."""
    rng = np.random.default_rng((seed, 1))
    own = rng.standard_normal(SHAPE)
    logarithm = {
        "pixels": own,
        "columns": rng.standard_normal((1, SHAPE[1])) + 0.3 * own,
        "symmetric": (own + own[::-1] + own[:, ::-1] + own[::-1, ::-1]) / 2,
        "smooth": np.repeat(np.repeat(rng.standard_normal((4, 4)), 32, 0), 32, 1),
        "flat": np.zeros(SHAPE),
    }[kind]
    gain = np.exp(spread * logarithm)
    return (gain / gain.mean()).astype(np.float32)


def raw_movie(gain, rate, frames, seed, name="movie.tif", scene="discs") -> Movie:
    """Counts of a moving scene, taken by a camera of this gain."""
    rng = np.random.default_rng((seed, 2))
    height, width = gain.shape
    image = np.full((height + 32, width + 32), float(rate))
    if scene == "stripes":
        image[:, ::7] *= 0.5
    elif scene == "edge":
        image[:, : width // 2] *= 0.1
    else:
        for y, x in rng.integers(0, min(image.shape), (40, 2)):
            image[y : y + 9, x : x + 9] *= 0.5
    sensitivity = np.divide(1, gain, out=np.zeros_like(gain), where=gain > 0)
    stack = [
        rng.poisson(image[k % 16 : k % 16 + height, 5 : 5 + width] * sensitivity)
        for k in range(frames)
    ]
    return Movie(np.stack(stack).astype(np.uint16), 1.0, name)


def check(movie, gain=None, dark=None, gain_name="gain", **values) -> ReferenceCheck:
    settings = CorrectionSettings(**values)
    names = (gain_name, "dark", "defects")
    found = ReferenceCheck(Corrections(gain, dark, settings=settings, names=names))
    found.look(movie)
    return found


@pytest.mark.parametrize("scene", ["discs", "edge", "stripes"])
@pytest.mark.parametrize("kind", ["pixels", "columns", "symmetric", "smooth", "flat"])
def test_right_references_raise_no_doubt(kind, scene):
    """Strong and weak gains, noisy ones too, on many and few electrons, down to one frame."""
    for spread in (0.003, 0.03, 0.15):
        gain = gain_of(kind, spread, 0)
        noise = np.exp(spread * np.random.default_rng(3).standard_normal(SHAPE))
        for seed, (rate, frames) in enumerate(((0.02, 4), (0.5, 1), (1, 8), (50, 4))):
            movie = raw_movie(gain, rate, frames, seed, scene=scene)
            assert not check(movie, gain).doubts
            assert not check(movie, (gain * noise).astype(np.float32)).doubts


TURNS = [
    {"gain_rotate": 90},
    {"gain_rotate": 180},
    {"gain_flip": "up-down"},
    {"gain_flip": "left-right"},
    {"gain_transpose": True},
    {"gain_invert": True},
    {"gain_rotate": 270, "gain_invert": True},
]


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: "-".join(map(str, turn.values())))
def test_wrong_ways_are_certain(turn):
    gain = gain_of("pixels", 0.05, 1)
    gain[7, 9] = 0
    movie = raw_movie(gain, 8, 8, 1)
    found = check(movie, gain, gain_name="g.mrc", **turn)
    (doubt,) = found.doubts
    assert doubt.is_certain and found.is_settled
    assert "the gain g.mrc" in doubt.message and "--no-check-references" in doubt.message
    expected = "--no-gain-invert" if "gain_invert" in turn else "no option"
    assert f"with {expected}" in doubt.message
    assert not check(movie, gain, check_references=False, **turn).doubts
    # And the options that are named are the ones that are right.
    turned = np.ascontiguousarray(orient(gain, CorrectionSettings(**turn)))
    if not turn.get("gain_invert"):
        (doubt,) = check(movie, turned).doubts
        best = fit_gain(movie.frames[:].mean(0), turned)[0]
        assert f"with {best.options}," in doubt.message
        assert not check(movie, turned, **best.settings.model_dump(exclude_defaults=True)).doubts


def test_few_electrons_warn_or_say_nothing():
    gain = gain_of("pixels", 0.15, 2)
    (doubt,) = check(raw_movie(gain, 0.5, 1, 2), gain[::-1].copy()).doubts
    assert not doubt.is_certain
    weak = check(raw_movie(gain, 0.01, 4, 2), gain[::-1].copy())
    assert not weak.doubts and not weak.is_settled
    # More movies make it sure; of another size they do not count.
    weak.look(Movie(np.ones((3, 64, 64), np.uint8), 1.0))
    assert weak.frames == 4
    weak.look(raw_movie(gain, 20, 6, 3))
    assert weak.doubts[0].is_certain and weak.is_settled


def test_an_eer_gain_is_used_as_it_is_read():
    gain = gain_of("pixels", 0.1, 3)
    flat = (1 / gain).astype(np.float32)
    movie = raw_movie(gain, 8, 4, 3, name="movie.eer")
    assert not check(movie, flat, gain_name="flat.mrc").doubts
    assert not check(movie, gain, gain_name="a.gain").doubts
    assert check(movie, gain, gain_name="gain.mrc").doubts[0].is_certain
    assert check(movie, flat, gain_name="flat.gain").doubts[0].is_certain


def test_a_gain_of_physical_pixels():
    gain = gain_of("pixels", 0.1, 4)
    fine = gain.repeat(2, 0).repeat(2, 1)
    movie = raw_movie(fine, 4, 4, 4)
    assert not check(movie, gain).doubts
    assert check(movie, gain[:, ::-1].copy()).doubts[0].is_certain


def test_the_middle_of_large_frames_tells():
    rng = np.random.default_rng(5)
    gain = np.exp(0.1 * rng.standard_normal((1100, 1400))).astype(np.float32)
    mean = rng.poisson(20 / gain).astype(np.float32)
    assert central(mean, mean.shape).shape == (1028, 1024)
    for turned, options in ((gain, ""), (gain[::-1].T, "--gain-rotate 90")):
        fits = fit_gain(central(mean, mean.shape), turned, shape=mean.shape)
        assert len(fits) == 4
        expected = orient(turned, fits[0].settings)
        np.testing.assert_array_equal(expected, gain)
        assert fits[0].correlation > 0.3 and (fits[0].options == "") == (options == "")
    movie = Movie(mean[None], 1.0)
    assert check(movie, gain[::-1, ::-1].copy()).doubts[0].is_certain
    assert not check(movie, gain).doubts


def test_a_gain_of_another_mean_is_told():
    gain = gain_of("pixels", 0.05, 6)
    movie = raw_movie(gain, 8, 8, 6)
    (doubt,) = check(movie, 300 * gain).doubts
    assert not doubt.is_certain and "mean of 300 instead of 1" in doubt.message
    assert not check(movie, 300 / gain, gain_invert=True).doubts


def test_a_dark_that_fits_only_flipped():
    rng = np.random.default_rng(7)
    gain = gain_of("pixels", 0.05, 7)
    dark = (100 + 3 * rng.standard_normal(SHAPE)).astype(np.float32)
    raw = raw_movie(gain, 20, 6, 7).frames + rng.normal(dark, 2, (6, *SHAPE))
    movie = Movie(raw.astype(np.float32), 1.0)
    assert not check(movie, gain, dark).doubts
    assert not check(movie, None, dark).doubts
    (doubt,) = check(movie, gain, dark[::-1].copy()).doubts
    assert doubt.is_certain and "the dark dark" in doubt.message
    assert "--gain-flip up-down (they turn the gain too" in doubt.message
    (doubt,) = check(movie, gain[::-1].copy(), dark).doubts
    assert doubt.is_certain and "the gain gain" in doubt.message


def test_a_gain_of_frames_that_are_corrected_already():
    gain = gain_of("pixels", 0.05, 15)
    movie = raw_movie(gain, 8, 8, 15)
    corrected = Movie(movie.frames[:] * gain, 1.0)
    (doubt,) = check(corrected, gain).doubts
    assert "corrected already" in doubt.message and not doubt.is_certain
    assert not check(Movie(movie.frames[:].astype(np.float32), 1.0), gain).doubts
    assert not check(Movie(movie.frames[:] / np.float32(3), 1.0), gain).doubts


def test_a_dark_of_another_camera():
    rng = np.random.default_rng(14)
    own, other = 20 + 3 * rng.standard_normal((2, *SHAPE))
    movie = raw_movie(np.ones(SHAPE, np.float32), 8, 8, 14)
    dark_movie = Movie(movie.frames[:].astype(np.float32) + own, 1.0)
    assert not check(dark_movie, dark=own.astype(np.float32)).doubts
    (doubt,) = check(dark_movie, dark=other.astype(np.float32)).doubts
    assert "do not hold" in doubt.message and not doubt.is_certain


def test_a_dark_of_another_scale_is_told():
    movie = raw_movie(gain_of("pixels", 0.05, 9), 8, 6, 9)
    for level, told in ((0.1, False), (8, False), (40, True)):
        doubts = check(movie, None, np.full(SHAPE, level, np.float32)).doubts
        assert ["is negative" in doubt.message for doubt in doubts] == [True] * told


def test_broken_frames_are_no_evidence():
    gain = gain_of("pixels", 0.1, 8)
    movie = raw_movie(gain, 8, 6, 8)
    frames = movie.frames[:].astype(np.float32)
    frames[:, 3, 4] = np.nan
    frames[2] = 0
    assert not check(Movie(frames, 1.0), gain).doubts
    assert check(Movie(frames, 1.0), gain.T.copy()).doubts[0].is_certain
    empty = check(Movie(np.zeros((3, *SHAPE), np.uint8), 1.0), gain)
    assert not empty.doubts and not empty.is_settled and empty.frames == 0


def test_a_real_camera(data_folder):
    """Its dark lies upside down to the TIFF; its gain's pattern is too weak for these few electrons
    to tell.
    """
    folder = data_folder / "real" / "detector"
    movie = open_movie(folder / "de_celeritas_5x256x256_raw.tif", pixel_size_angstrom=1.0)
    gain = read_gain(folder / "de_celeritas_gain.mrc")
    dark = read_dark(folder / "de_celeritas_dark.mrc")
    assert not check(movie, gain, dark, gain_flip="up-down").doubts
    for rotation in (0, 90, 180, 270):
        assert check(movie, gain, dark, gain_rotate=rotation).doubts[0].is_certain
        assert not check(movie, gain, gain_rotate=rotation).doubts
