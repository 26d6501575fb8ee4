"""The table of measures on one simulated field: what a perfect image scores, and that images which
say nothing new are not rewarded.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from dstnet.alignment import AlignedMovie
from dstnet.evaluation.base import (
    Annotation,
    Control,
    Curve,
    Evaluated,
    Half,
    Made,
    Scene,
    ScoredPicks,
    Subject,
    Truth,
)
from dstnet.evaluation.measures import MEASURES
from dstnet.metrics.oracle import gaussian_filtered
from dstnet.motion import Motion
from dstnet.movie import Exposure, Movie

SHAPE, PIXEL, DIAMETER_PX, FRAMES, BORDER = (384, 352), 2.0, 28.0, 8, 24
BY_NAME = {measure.name: measure for measure in MEASURES}
CENTRES = np.array([(y, x) for y in range(44, 350, 44) for x in range(44, 330, 44)], float)


def noise(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def make_scene():
    """Particles of structure, dark, each frame's signal-to-noise ratio low, and their motion."""
    random = np.random.default_rng(0)
    centres = CENTRES + random.uniform(-6, 6, CENTRES.shape)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    label = np.zeros(SHAPE, np.int32)
    for number, (cy, cx) in enumerate(centres, 1):
        label[np.hypot(y - cy, x - cx) <= DIAMETER_PX / 2] = number
    texture = ndimage.gaussian_filter(random.standard_normal(SHAPE), 1.2)
    clean = (label > 0) * -(1 + 3 * texture)
    clean = torch.from_numpy(ndimage.gaussian_filter(clean, 0.7)).float()
    frames = torch.stack([100 + clean + 4 * noise(seed) for seed in range(1, FRAMES + 1)])
    motion = Motion.of_shifts(torch.randn(FRAMES, 2, generator=torch.Generator().manual_seed(9)))
    movie = Movie(frames.numpy(), PIXEL, "m", Exposure.uniform(FRAMES, 2.0), 300.0)
    aligned = AlignedMovie(
        movie=movie,
        total=frames.sum(0),
        dose_weighted=None,
        even=frames[::2].sum(0),
        odd=frames[1::2].sum(0),
        groups={},
        motion=motion,
        binning=1.0,
        pixel_size_angstrom=PIXEL,
        margin_px=(0, 0),
    )
    truth = Truth(clean, -clean, torch.from_numpy(label), motion, centres, DIAMETER_PX * PIXEL)
    subject = Subject("m", "set", Path("m.mrc"), "0", lambda: movie)
    return Scene(subject, aligned, truth, Path())


SCENE = make_scene()
EMPTY = 100.0 * FRAMES + FRAMES**0.5 * 4 * noise(77)


def evaluated(method, output="micrograph", image=None):
    """A method, a function of a sum, on the field, on its even half and on a field of noise."""
    aligned, truth = SCENE.aligned, SCENE.truth
    image = method(aligned.total) if image is None else image
    return Evaluated(
        scene=SCENE,
        method="sum",
        output=output,
        image=image,
        target=truth.clean,
        annotation=Annotation(truth.centres_px, truth.diameter_angstrom),
        half=Half(method(aligned.even), aligned.even, aligned.odd),
        controls={part: Control(method(EMPTY), EMPTY) for part in ("noise", "shuffled", "ice")},
        made=Made({output: image}),
        border_px=BORDER,
    )


def constant(total):
    return torch.full_like(total, 3.0)


def raw(total):
    return total


def smooth(total):
    return gaussian_filtered(total, 1.5)


def too_smooth(total):
    return gaussian_filtered(total, 20.0)


def inverted(total):
    return -smooth(total)


def perfect(total):
    """Knows the truth, and draws nothing where there is nothing."""
    return total.mean() + (0 if total is EMPTY else FRAMES) * SCENE.truth.clean


METHODS = {f.__name__: evaluated(f) for f in (constant, raw, smooth, too_smooth, inverted, perfect)}


def value(name, method):
    found = BY_NAME[name].function(METHODS[method])
    assert isinstance(found, float)
    return found


def numbers():
    return [m for m in MEASURES if isinstance(m.function(METHODS["smooth"]), float)]


def test_rows_are_complete():
    assert len(BY_NAME) == len(MEASURES)
    for measure in MEASURES:
        assert measure.label and measure.source
        assert measure.better in ("higher", "lower", "")
        assert set(measure.of) <= {"micrograph", "contrast", "particles"}
        found = measure.function(METHODS["smooth"])
        if isinstance(found, Curve):
            assert len(found.x) == len(found.y) > 0 and measure.x_label
            assert all(math.isfinite(number) for number in (*found.x, *found.y))
            assert list(found.x) == sorted(found.x) and found.x[-1] <= 0.5 / PIXEL
        else:
            assert isinstance(found, ScoredPicks) or math.isfinite(found)


def test_every_measure_stands_in_its_page():
    page = Path(__file__).resolve().parents[2] / "docs" / "measures.md"
    named = page.read_text()
    assert not [name for name in BY_NAME if f"`{name}`" not in named]


@pytest.mark.parametrize("name", [m.name for m in numbers() if "area" not in m.name[-5:]])
def test_scale_and_mean_are_free(name):
    measure = BY_NAME[name]
    found = measure.function(METHODS["smooth"])
    again = measure.function(evaluated(lambda total: 0.02 * smooth(total) - 5))
    assert again == pytest.approx(found, rel=2e-3, abs=2e-3)


PERFECT = {
    "residual": 0,
    "residual-20": 0,
    "residual-10": 0,
    "correlation": 1,
    "ssim": 1,
    "frc-area": 1,
    "frc-0.5": 2 * PIXEL,
    "frc-0.143": 2 * PIXEL,
    "exposure-frc": 100,
    "exposure-residual": 100,
    "motion-global": 0,
    "motion-local": 0,
    "noise-power": 0,
    "shuffled-power": 0,
    "ice-power": 0,
}


@pytest.mark.parametrize(("name", "expected"), PERFECT.items())
def test_a_perfect_image(name, expected):
    assert value(name, "perfect") == pytest.approx(expected, abs=1e-3)


# What no method should be praised for, by measure: the score that an image which says nothing has.
NOTHING = {
    "residual": 1,
    "residual-20": 1,
    "residual-10": 1,
    "correlation": 0,
    "frc-area": 0,
    "frc-0.5": 200,
    "frc-0.143": 200,
    "exposure-frc": 0,
    "exposure-residual": 0,
    "ap": 0,
    "particle-snr": -40,
    "half-shells": 0,
    "half-gain": 0,
    "noise-power": 1,
    "shuffled-power": 1,
    "ice-power": 1,
    "seam": 1,
    "checkerboard": 1,
}


@pytest.mark.parametrize(("name", "expected"), NOTHING.items())
def test_a_constant_image_scores_as_nothing(name, expected):
    assert value(name, "constant") == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "residual",
        "residual-10",
        "correlation",
        "psnr",
        "ssim",
        "frc-area",
        "exposure-frc",
        "exposure-residual",
        "ap",
        "particle-snr-gain",
        "half-gain",
        "noise-power",
        "residual-particles",
    ],
)
def test_trivial_images_are_worse_than_a_perfect_one(name):
    """By more than a tenth of what lies between it and a constant image."""
    sign = 1 if BY_NAME[name].better == "higher" else -1
    best, nothing = sign * value(name, "perfect"), sign * value(name, "constant")
    for method in ("raw", "too_smooth", "inverted"):
        found = sign * value(name, method)
        if math.isnan(found):  # the raw image takes nothing out: it has no score
            assert (name, method) == ("residual-particles", "raw")
            continue
        if name in ("residual", "residual-10", "psnr", "ssim") and method == "inverted":
            continue  # scale is free, so the sign is; the correlation has it
        if (name, method) == ("ap", "raw"):
            continue  # the picker smooths it as well as anyone
        if (name, method) == ("noise-power", "too_smooth"):
            continue  # little noise is left, as little as of the particles: see what is kept
        if name == "half-gain":  # of raw it is 1, and only a better image has more
            assert found <= 1 + 1e-3
            continue
        assert found < best - 0.1 * abs(best - nothing), method


def test_smoothing_alone_earns_nothing():
    """Where it does (particle SNR, residual), the measure beside it takes that away again."""
    assert value("exposure-frc", "raw") == pytest.approx(1, abs=1e-3)
    assert value("exposure-frc", "smooth") == pytest.approx(1, abs=0.05)
    assert value("exposure-residual", "too_smooth") < value("exposure-residual", "smooth") < 1.1
    for method in ("smooth", "too_smooth"):
        assert value("half-gain", method) < 1.03
        assert value("particle-snr-gain", method) == pytest.approx(0, abs=0.5)
    assert value("particle-snr-gain", "raw") == pytest.approx(0, abs=1e-3)
    assert value("particle-snr", "smooth") > value("particle-snr", "raw") + 6
    assert value("half-gain", "raw") == pytest.approx(1)
    assert value("noise-power", "raw") > 0.8


def test_signs_and_positions():
    """An inverted image has its particles bright, which neither the picker nor the rings take."""
    assert value("correlation", "inverted") < 0 < value("correlation", "smooth")
    assert value("frc-area", "inverted") < 0
    assert value("exposure-frc", "inverted") == value("exposure-residual", "inverted") == 0
    assert value("ap", "smooth") > 0.9 and value("ap", "inverted") < 0.3
    swapped = replace(
        METHODS["smooth"],
        annotation=Annotation(SCENE.truth.centres_px[:, ::-1] + 15, DIAMETER_PX * PIXEL),
    )
    assert BY_NAME["ap"].function(swapped) < 0.5


def test_picks_of_a_field():
    picks = BY_NAME["f1"].function(METHODS["smooth"])
    assert isinstance(picks, ScoredPicks)
    assert picks.centres == len(CENTRES)
    assert list(picks.scores) == sorted(picks.scores, reverse=True)
    assert sum(picks.hits) > 0.9 * len(CENTRES)
    nothing = BY_NAME["f1"].function(METHODS["constant"])
    assert nothing == ScoredPicks((), (), len(CENTRES))


def test_motion_of_the_method_itself_counts():
    moved = SCENE.aligned.motion.global_shift_angstrom * 1.5
    own = replace(METHODS["smooth"], made=Made({}, motion=Motion.of_shifts(moved)))
    planted = SCENE.truth.motion.global_shift_angstrom
    expected = 0.5 * float((planted - planted.mean(0)).square().mean().sqrt())
    assert BY_NAME["motion-global"].function(own) == pytest.approx(expected, rel=1e-4)
    # What another method shares with the sum is not its own.
    assert math.isnan(BY_NAME["motion-global"].function(replace(METHODS["raw"], method="dstnet")))
    fewer = replace(own, made=Made({}, motion=Motion.of_shifts(moved[1:])))
    assert math.isnan(BY_NAME["motion-global"].function(fewer))


def test_area_marked_in_a_control():
    """A `particles` image of a field without any, a quarter of it marked."""
    marked = torch.zeros(SHAPE)
    marked[BORDER : BORDER + 168, BORDER : BORDER + 152] = -0.5
    control = {"ice": Control(marked, EMPTY)}
    particles = replace(evaluated(raw, "particles"), controls=control)
    expected = 100 * 168 * 152 / ((SHAPE[0] - 2 * BORDER) * (SHAPE[1] - 2 * BORDER))
    assert BY_NAME["ice-area"].function(particles) == pytest.approx(expected)
