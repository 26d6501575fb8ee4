"""Other programs as processes: stand-ins of a few lines, and the real ones where they are."""

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from oracles import absent, relion
from scipy import ndimage

from dstnet.alignment import AlignmentSettings, align
from dstnet.errors import BadInputError, SettingsError
from dstnet.evaluation.base import DoesNotFitError, Scene, Subject
from dstnet.evaluation.processes import find_program, run_program, version_of
from dstnet.evaluation.relion import RelionCandidate, patches_a_side
from dstnet.evaluation.sources import Source
from dstnet.evaluation.topaz import TopazCandidate
from dstnet.metrics.image import best_shift
from dstnet.movie import Exposure, Movie

COPIES = """
import os, shutil, sys
if "--version" in sys.argv:
    print("9.9 of a stand-in\\nmore")
    sys.exit()
assert sys.argv[1:3] == ["denoise", "sum.mrc"], sys.argv
assert "PYTHONPATH" not in os.environ
os.mkdir("denoised")
shutil.copy("sum.mrc", "denoised/sum.mrc")
"""


def program(tmp_path, code: str, name: str = "topaz") -> str:
    path = tmp_path / name
    path.write_text(f"#!{sys.executable} -I\n{code}")
    path.chmod(0o755)
    return str(path)


def scene(tmp_path, frames: int = 6, seed: int = 0) -> Scene:
    """A field of blobs that drifts by 3 and -2 pixels in all."""
    random = np.random.default_rng(seed)
    clean = ndimage.gaussian_filter(random.standard_normal((256, 300)), 2.5)
    clean *= 2 / clean.std()
    drift = np.linspace(0, 1, frames)[:, None] * (3.0, -2.0)
    moved = [ndimage.shift(clean, shift, mode="wrap") for shift in drift]
    counts = random.poisson(np.clip(10 + np.array(moved), 0, None)).astype(np.float32)
    movie = Movie(counts, 1.5, "m.tif", Exposure.uniform(frames, 1.0))
    aligned = align(movie, AlignmentSettings(patches=0))
    subject = Subject("m", "set", tmp_path / "m.tif", "", lambda: movie)
    folder = tmp_path / "scratch"
    folder.mkdir(exist_ok=True)
    return Scene(subject, aligned, None, folder, lambda movie: ())


def topaz(path: str, seconds_allowed: float = 60.0) -> TopazCandidate:
    return TopazCandidate("topaz", path, Source(), seconds_allowed)


def test_a_program_gets_the_sum_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "not/for/others")
    at_work = scene(tmp_path)
    candidate = topaz(program(tmp_path, COPIES))
    made = candidate(at_work)
    assert at_work.aligned.dose_weighted is not None
    assert torch.equal(made.images["micrograph"], at_work.aligned.dose_weighted)
    assert list(at_work.folder.iterdir()) == []
    assert candidate.describe()["version"] == "9.9 of a stand-in"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import sys\nsys.exit('Traceback\\n  x\\nRuntimeError: no model')",
            "m.tif: topaz failed with exit code 1: RuntimeError: no model",
        ),
        ("print('done')", r"m.tif: topaz ended without writing sum\.mrc"),
        ("import os\nos.kill(os.getpid(), 9)", "m.tif: topaz was ended by signal 9"),
        (
            "import os\nos.mkdir('denoised')\nopen('denoised/sum.mrc', 'wb').write(b'\\0' * 9)",
            "sum.mrc ends within its header",
        ),
    ],
)
def test_what_a_program_said_last_is_in_the_message(tmp_path, code, message):
    at_work = scene(tmp_path, 1)
    with pytest.raises(BadInputError, match=message):
        topaz(program(tmp_path, code))(at_work)
    assert list(at_work.folder.iterdir()) == []


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path):
    code = "import subprocess, sys\nsubprocess.run(['sleep', '77.25'])"
    started = time.monotonic()
    with pytest.raises(BadInputError, match=r"topaz took over 0\.3 s"):
        topaz(program(tmp_path, code), 0.3)(scene(tmp_path, 1))
    assert time.monotonic() - started < 20
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False)
    assert "sleep 77.25" not in listed.stdout


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
def test_the_memory_is_the_programs_own(tmp_path):
    code = "import time\nheld = bytearray(60 << 20)\ntime.sleep(0.6)"
    peak = run_program("held", [program(tmp_path, code)], tmp_path, "m", 60)
    assert peak is not None and 60 << 20 <= peak < 100 << 20


def test_a_program_is_found_or_refused(tmp_path, monkeypatch):
    path = program(tmp_path, COPIES)
    assert find_program(path, "topaz", "--topaz") == path
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program(None, "topaz", "--topaz") == path
    with pytest.raises(SettingsError, match=r"relion_x is not on PATH; install it, or .* --relion"):
        find_program(None, "relion_x", "--relion")
    with pytest.raises(SettingsError, match="no program that may be run"):
        find_program(str(tmp_path), "topaz", "--topaz")
    assert version_of(program(tmp_path, "raise SystemExit(3)", "mute")) == "unknown"


def test_small_fields_get_fewer_patches():
    assert [patches_a_side(side) for side in (256, 700, 1024, 2048, 4096)] == [1, 1, 3, 5, 5]


def test_relion_needs_frames(tmp_path):
    with pytest.raises(DoesNotFitError, match="this is a single image"):
        RelionCandidate("relion", "relion", True, 60.0)(scene(tmp_path, 1))


@pytest.mark.oracle
def test_relions_sum_lies_as_ours(tmp_path):
    """At the first frame's position, rows in the same order; the weighted and the plain one."""
    path = relion("relion_run_motioncorr")
    at_work = scene(tmp_path)
    for name, is_weighted in (("relion", True), ("relion-sum", False)):
        made = RelionCandidate(name, path, is_weighted, 120.0)(at_work)
        ours = at_work.aligned.dose_weighted if is_weighted else at_work.aligned.total
        image = made.images["micrograph"]
        assert ours is not None
        assert best_shift(image, ours) == pytest.approx((0, 0), abs=0.3)
        inside = (slice(20, -20), slice(20, -20))
        pair = torch.stack((image[inside].flatten(), ours[inside].flatten()))
        assert float(torch.corrcoef(pair)[0, 1]) > 0.9
        assert bool(made.notes) is (name == "relion-sum")  # run once for both
    assert made.motion is not None
    drift_px = made.motion.global_shift_angstrom[-1] / 1.5
    assert drift_px.tolist() == pytest.approx([3.0, -2.0], abs=0.3)
    assert at_work.even is not None
    half = RelionCandidate("relion", path, True, 120.0)(at_work.even)
    assert best_shift(half.images["micrograph"], at_work.even.aligned.total) == pytest.approx(
        (0, 0), abs=0.5
    )


@pytest.mark.oracle
def test_topaz_smooths_the_sum(tmp_path):
    path = shutil.which(os.environ.get("DSTNET_TOPAZ", "topaz"))
    if path is None:
        absent("topaz is not on PATH; install it in an environment of its own, or set DSTNET_TOPAZ")
    at_work = scene(tmp_path)
    made = topaz(path, 250.0)(at_work)
    image = made.images["micrograph"]
    ours = at_work.aligned.total
    assert best_shift(image, ours) == pytest.approx((0, 0), abs=0.5)
    finest = torch.fft.rfft2(image)[100:156, 100:].abs().mean()
    assert finest < 0.1 * torch.fft.rfft2(ours)[100:156, 100:].abs().mean()
