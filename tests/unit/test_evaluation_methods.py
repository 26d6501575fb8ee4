"""The table of methods under evaluation."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from dstnet.alignment import AlignmentSettings, align
from dstnet.errors import BadInputError, SettingsError, WeightsError
from dstnet.evaluation import adapted
from dstnet.evaluation.base import DoesNotFitError, Scene, Subject, Truth
from dstnet.evaluation.methods import default_methods, make_candidates
from dstnet.evaluation.settings import EvaluationSettings
from dstnet.metrics.image import best_shift, residual_after_best_shift
from dstnet.motion import Motion
from dstnet.movie import Exposure, Movie

FRAMES = 6
PIXEL = 2.0


@pytest.fixture(scope="module")
def at_work(tmp_path_factory) -> Scene:
    """A field of blobs that drifts by 8 and -5 pixels in all, its truth known."""
    random = np.random.default_rng(0)
    clean = ndimage.gaussian_filter(random.standard_normal((256, 224)), 2.5)
    clean *= 1 / clean.std()
    drift = np.linspace(0, 1, FRAMES)[:, None] * (8.0, -5.0)
    moved = [ndimage.shift(clean, shift, mode="wrap") for shift in drift]
    counts = random.poisson(np.clip(8 + np.array(moved), 0, None)).astype(np.float32)
    movie = Movie(counts, PIXEL, "m.tif", Exposure.uniform(FRAMES, 2.0))
    motion = Motion.of_shifts(torch.from_numpy(drift * PIXEL).float())
    truth = Truth(torch.from_numpy(clean).float(), motion=motion)
    folder = tmp_path_factory.mktemp("scratch")
    subject = Subject("m", "set", folder / "m.tif", "d", lambda: movie, truth=lambda: truth)
    aligned = align(movie, AlignmentSettings(patches=0))
    return Scene(subject, aligned, truth, folder, lambda movie: ())


def candidates(*names: str, **settings):
    return make_candidates(EvaluationSettings(methods=names, **settings))


def residual(at_work: Scene, name: str) -> float:
    (candidate,) = candidates(name)
    image = pickle.loads(pickle.dumps(candidate))(at_work).images["micrograph"]
    return residual_after_best_shift(image, at_work.truth.clean)


def test_what_is_told_the_truth_is_a_mark_for_the_others(at_work):
    left = {
        name: residual(at_work, name)
        for name in (
            "raw-sum", "sum", "true-motion-sum", "gaussian:8", "best-gaussian", "true-wiener"
        )
    }  # fmt: skip
    assert left["true-motion-sum"] < left["sum"] + 0.01 < left["raw-sum"]
    assert left["best-gaussian"] < min(left["sum"], left["gaussian:8"])
    assert left["true-wiener"] < left["best-gaussian"] + 0.01


def test_the_raw_sum_is_the_frames_added(at_work):
    (candidate,) = candidates("raw-sum")
    frames = at_work.aligned.movie.stack()
    assert torch.allclose(candidate(at_work).images["micrograph"], frames.sum(0), atol=1e-2)


def test_halves_lie_where_the_movie_does(at_work):
    """Also with the true motion, whose first frame is not in the odd half."""
    (candidate,) = candidates("true-motion-sum")
    for half in (at_work.even, at_work.odd):
        image = candidate(half).images["micrograph"]
        assert best_shift(image, at_work.truth.clean) == pytest.approx((0, 0), abs=0.3)


def test_methods_that_are_told_the_truth_say_so_and_need_it(at_work):
    told = candidates("true-motion-sum", "best-gaussian", "true-wiener")
    assert all(candidate.needs_truth for candidate in told)
    assert not any(candidate.needs_truth for candidate in candidates("sum", "raw-sum"))
    for candidate in told:
        with pytest.raises(BadInputError, match=r"no truth is known|true motion is not known"):
            candidate(replace(at_work, truth=None))
    with pytest.raises(BadInputError, match="its true motion is not known"):
        told[0](replace(at_work, truth=replace(at_work.truth, motion=None)))
    with pytest.raises(BadInputError, match=r"m\.tif has 6 frames, its true motion is of 4"):
        short = at_work.truth.motion.window(range(4))
        told[0](replace(at_work, truth=replace(at_work.truth, motion=short)))


def test_without_names_what_needs_nothing_is_taken():
    names = default_methods(EvaluationSettings())
    assert {"sum", "raw-sum", "dose-weighted-sum", "gaussian:20", "wiener", "dstnet-3"} <= set(
        names
    )
    assert not {"bm3d", "relion", "topaz", "relion+topaz", "janni"} & set(names)
    with_programs = default_methods(EvaluationSettings(relion="r", topaz="t"))
    assert set(with_programs) - set(names) == {"relion", "topaz", "relion+topaz"}


def test_a_network_gives_all_of_its_outputs_and_works_on_halves(at_work, model):
    (candidate,) = candidates(str(model))
    groupings = candidate.groupings(at_work.aligned.movie)
    aligned = align(at_work.aligned.movie, AlignmentSettings(patches=0), groupings=groupings)
    scene = replace(at_work, aligned=aligned, groupings=candidate.groupings)
    made = candidate(scene)
    assert next(iter(made.images)) == "micrograph"
    assert set(made.images) <= {"micrograph", "contrast", "particles"}
    assert candidate(scene.even).images["micrograph"].shape == aligned.shape
    assert candidate.describe()["weights_sha256"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("nope",), "no model 'nope'.*true-wiener"),
        (("gaussian:x",), "is no resolution in Å"),
        (("janni",), "give their file with --janni"),
        (("sum+adapt",), "no folder is given|no model 'sum'"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_done(names, message):
    with pytest.raises((SettingsError, WeightsError), match=message):
        candidates(*names)


def test_bm3d_says_its_licence_or_what_to_install(at_work):
    try:
        import bm3d  # noqa: F401
    except ImportError:
        with pytest.raises(SettingsError, match=r"dstnet\[bm3d\] .*non-commercial"):
            candidates("bm3d")
        return
    (candidate,) = candidates("bm3d")
    made = candidate(at_work)
    assert "non-commercial" in made.notes[0]
    left = residual_after_best_shift(made.images["micrograph"], at_work.truth.clean)
    assert left < residual(at_work, "sum")


# Adapted weights


def subject_of(frames: int, name: str = "a") -> Subject:
    movie = Movie(np.ones((frames, 64, 64), np.float32), PIXEL, f"{name}.tif")
    return Subject(name, "set", None, name, lambda: movie)  # pyright: ignore[reportArgumentType]


def adapted_of(model, subjects, folder):
    settings = EvaluationSettings(methods=(f"{model}+adapt",))
    (candidate,) = make_candidates(settings, subjects, lambda: folder)
    return candidate


def test_weights_are_adapted_once_and_found_again(at_work, model, tmp_path, monkeypatch):
    runs = []

    def finetune(folder, movies, settings, **_):
        runs.append((folder, sorted(movies), settings.model))
        folder.mkdir(parents=True)
        for ending in (".safetensors", ".json"):
            (folder / f"weights{ending}").write_bytes(model.with_suffix(ending).read_bytes())
        return folder / "weights.safetensors", ()

    monkeypatch.setattr(adapted, "finetune_run", finetune)
    subjects = [at_work.subject, subject_of(3), subject_of(1, "single")]
    candidate = adapted_of(model, subjects, tmp_path)
    assert [(movies, name) for _, movies, name in runs] == [(["a", "m"], str(model))]
    assert runs[0][0].is_relative_to(tmp_path)
    groupings = candidate.groupings(at_work.aligned.movie)
    aligned = align(at_work.aligned.movie, AlignmentSettings(patches=0), groupings=groupings)
    made = candidate(replace(at_work, aligned=aligned))
    assert any("s of CPU for 2 movies" in note for note in made.notes)
    again = adapted_of(model, subjects, tmp_path)
    assert len(runs) == 1 and again.describe() == candidate.describe()
    adapted_of(model, subjects[:2], tmp_path)
    assert len(runs) == 2  # other movies


def test_where_nothing_is_gained_the_weights_stay_and_it_is_said(
    at_work, model, tmp_path, monkeypatch
):
    def finetune(folder, *_, **__):
        folder.mkdir(parents=True)
        return None, ()

    monkeypatch.setattr(adapted, "finetune_run", finetune)
    candidate = adapted_of(model, [at_work.subject], tmp_path)
    aligned = align(
        at_work.aligned.movie,
        AlignmentSettings(patches=0),
        groupings=candidate.groupings(at_work.aligned.movie),
    )
    scene = replace(at_work, aligned=aligned)
    made = candidate(scene)
    assert "nothing was gained" in made.notes[-1]
    plain = candidates(str(model))[0](scene)
    assert torch.equal(made.images["micrograph"], plain.images["micrograph"])


def test_single_images_are_not_adapted_to(at_work, model, tmp_path):
    candidate = adapted_of(model, [subject_of(1)], tmp_path)
    with pytest.raises(DoesNotFitError, match="this is a single image"):
        candidate(replace(at_work, subject=subject_of(1)))
