"""Images that other programs made: found, turned back, refused."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from dstnet.alignment import AlignmentSettings, align
from dstnet.errors import BadInputError, SettingsError
from dstnet.evaluation.base import DoesNotFitError, Scene, Subject
from dstnet.evaluation.external import ORIENTATIONS, as_the_sum, external_candidate
from dstnet.io import write_mrc
from dstnet.movie import Movie

PIXEL = 4.0


def field(shape=(160, 192), seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return ndimage.gaussian_filter(random.standard_normal(shape), 3).astype(np.float32) * 10


def noisy(image: np.ndarray, seed: int = 1) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(image + random.standard_normal(image.shape).astype(np.float32) * 3)


def likeness(a: torch.Tensor, b: np.ndarray) -> float:
    return float(np.corrcoef(a.numpy().ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("label", ORIENTATIONS)
@pytest.mark.parametrize("shape", [(160, 192), (160, 160)])
def test_every_orientation_is_found_and_turned_back(tmp_path, label, shape):
    turns, is_mirrored = ORIENTATIONS[label]
    clean = field(shape)
    given = np.rot90(clean[::-1] if is_mirrored else clean, turns).copy()
    image, notes = as_the_sum(torch.from_numpy(given), noisy(clean), PIXEL, tmp_path / "a.mrc")
    assert likeness(image, clean) > 0.999
    assert notes == (() if label == "as the sum" else (f"lay {label}: turned back",))


def test_a_shifted_inverted_or_binned_image_is_taken(tmp_path):
    clean = field()
    total = noisy(clean)
    shifted = torch.from_numpy(np.roll(clean, (5, -7), (0, 1)))
    assert as_the_sum(shifted, total, PIXEL, tmp_path)[1] == ()
    image, notes = as_the_sum(torch.from_numpy(-clean), total, PIXEL, tmp_path)
    assert likeness(image, clean) > 0.999 and "contrast was inverted" in notes[0]
    binned = clean.reshape(80, 2, 96, 2).mean((1, 3))
    image, notes = as_the_sum(torch.from_numpy(binned), total, PIXEL, tmp_path)
    assert image.shape == total.shape and "binned by 2" in notes[0]
    assert likeness(torch.roll(image, (1, 1), (0, 1)), clean) > 0.9


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (field(seed=5), "does not show the field of the sum"),
        (np.random.default_rng(3).standard_normal((160, 192)).astype("f4"), "does not show"),
        (field((160, 190)), "is 190 x 160 pixels, the sum 192 x 160"),
        (field((320, 384)), "is 384 x 320 pixels"),
        (np.ones((160, 192), "f4"), "is constant"),
    ],
)
def test_another_field_or_size_is_refused_in_a_line(tmp_path, image, message):
    with pytest.raises(BadInputError, match=message) as caught:
        as_the_sum(torch.from_numpy(image), noisy(field()), PIXEL, tmp_path / "a.mrc")
    assert str(tmp_path / "a.mrc") in str(caught.value)


def scene(tmp_path, part="all") -> Scene:
    movie = Movie(noisy(field()).numpy()[None], PIXEL, "m.mrc")
    aligned = align(movie, AlignmentSettings(pre_aligned=True))
    subject = Subject("m", "set", tmp_path / "m.mrc", "", lambda: movie)
    return Scene(subject, aligned, None, tmp_path, lambda movie: (), part=part)


def test_files_are_found_by_the_movies_name(tmp_path):
    results = tmp_path / "results"
    (results / "deep").mkdir(parents=True)
    candidate = external_candidate("other", f"{results}:_denoised")
    with pytest.raises(BadInputError, match=r"m_denoised\.mrc is not there"):
        candidate(scene(tmp_path))
    before = candidate.describe()
    write_mrc(results / "deep" / "m_denoised.mrc", field(), PIXEL, "result")
    assert candidate.describe() != before
    assert likeness(candidate(scene(tmp_path)).images["micrograph"], field()) > 0.999
    assert external_candidate("other", f"{results}:_denoised.mrc")(scene(tmp_path)).notes == ()
    with pytest.raises(DoesNotFitError, match="the whole movie alone"):
        candidate(scene(tmp_path, "even"))
    (results / "else").mkdir()
    write_mrc(results / "else" / "m_denoised.mrc", field(), PIXEL, "result")
    with pytest.raises(BadInputError, match="may be that of m"):
        candidate(scene(tmp_path))


def test_nan_and_stacks_are_refused(tmp_path):
    candidate = external_candidate("other", str(tmp_path))
    image = field()
    image[3, 4] = np.nan
    write_mrc(tmp_path / "m.mrc", image, PIXEL, "result")
    with pytest.raises(BadInputError, match="1 NaN"):
        candidate(scene(tmp_path))
    write_mrc(tmp_path / "m.mrc", np.stack([field()] * 2), PIXEL, "result", stack=True)
    with pytest.raises(BadInputError, match="holds 2 images"):
        candidate(scene(tmp_path))


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="give NAME=FOLDER:SUFFIX"):
        external_candidate("other", f"{tmp_path}/none:_a.mrc")
