"""The main job and its neighbours, by the command that users type, in this process."""

import json
import subprocess
import sys

import mrcfile
import numpy as np
import pytest
import tifffile
import tiny
from tiny import dstnet, make_frames

import dstnet as package
from dstnet.enhancement import METHODS
from dstnet.io import open_movie, write_mrc, write_tiff
from dstnet.network.weights import digest, released

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.fixture
def mrc(tmp_path):
    write_mrc(tmp_path / "a.mrc", make_frames(), 2.0, "x", stack=True)
    return tmp_path / "a.mrc"


@pytest.fixture
def tiff(tmp_path):
    write_tiff(tmp_path / "b.tif", make_frames(4, seed=1), 1.4)
    return tmp_path / "b.tif"


@pytest.fixture
def enhance(capsys, tmp_path, model):
    """Run `dstnet enhance` on the CPU with the tiny model into `out`."""

    def run(*arguments, out=tmp_path / "out"):
        return dstnet(capsys, "enhance", *arguments, "-o", out, "--model", model, "--device", "cpu")

    run.out = tmp_path / "out"
    run.micrographs = tmp_path / "out" / "micrographs"
    return run


def image(path):
    with mrcfile.open(path) as file:
        return file.data.astype(np.float64)


def provenance(folder):
    return json.loads((folder / "provenance.json").read_text())


def test_outputs_of_movies(enhance, mrc, tiff):
    code, out, err = enhance(mrc, tiff, "--dose-per-frame", "2")
    assert code == 0, err
    assert sum(line.startswith("[") for line in out.splitlines()) == 2
    assert "[1/2]" in out and "3 frames" in out and "[2/2]" in out and "4 frames" in out
    assert "2 done, 0 already there, 0 failed" in err
    assert {p.name for p in enhance.micrographs.iterdir()} == {
        f"{name}{what}"
        for name in "ab"
        for what in ("_aligned.mrc", "_dw.mrc", "_enhanced.mrc", ".star")
    }
    assert {p.name for p in enhance.out.iterdir()} == {
        "micrographs",
        "micrographs.star",
        "provenance.json",
        "records",
        "report.html",
    }


@pytest.mark.parametrize("pixel", [2.0, 1.4, 0.83, 3.3])
def test_outputs_are_on_the_movies_grid_with_true_headers(enhance, tmp_path, pixel):
    write_mrc(tmp_path / "a.mrc", make_frames(), pixel, "x", stack=True)
    assert enhance(tmp_path / "a.mrc", "--dose-per-frame", "2")[0] == 0
    for name, says in (
        ("aligned", "no weighting"),
        ("dw", "exposure-weighted"),
        ("enhanced", "ENHANCED"),
    ):
        path = enhance.micrographs / f"a_{name}.mrc"
        assert mrcfile.validate(path)
        with mrcfile.open(path) as file:
            assert (
                file.is_single_image()
                and file.data.shape == (96, 80)
                and file.data.dtype == np.float32
            )
            assert file.voxel_size.x == pytest.approx(pixel) and file.voxel_size.y == pytest.approx(
                pixel
            )
            assert file.header.dmin == file.data.min() and file.header.dmax == file.data.max()
            assert float(file.header.dmean) == pytest.approx(
                file.data.mean(dtype=np.float64), rel=1e-6
            )
            assert float(file.header.rms) == pytest.approx(
                file.data.std(dtype=np.float64), rel=1e-5
            )
            labels = " ".join(file.get_labels())
            assert "dstnet" in labels and says in labels


def test_no_dose_weighting_without_a_dose(enhance, mrc):
    code, out, _ = enhance(mrc)
    assert code == 0
    assert {p.name for p in enhance.micrographs.iterdir()} == {
        "a_aligned.mrc",
        "a_enhanced.mrc",
        "a.star",
    }
    assert "--dose-per-frame" in out, "what was not known is said aloud"


def test_enhanced_has_the_scale_of_the_sum(enhance, mrc):
    enhance(mrc)
    aligned, enhanced = (image(enhance.micrographs / f"a_{n}.mrc") for n in ("aligned", "enhanced"))
    # A row or two at the border is a reflected copy; its mean deviates by sqrt(20 / 80) counts, the
    # image's by a 96th of it a frame.
    assert aligned.mean() == pytest.approx(make_frames().sum(0).mean(), abs=0.05), (
        "counts of the whole movie"
    )
    # The network speaks in units of the sum's noise and its numbers are of order 0.1.
    assert abs(enhanced.mean() - aligned.mean()) < aligned.std()
    assert 0 < enhanced.std() < 3 * aligned.std()


def test_a_still_movie_is_summed_as_it_is(enhance, mrc):
    """The blobs do not move: shifts are found to be small, and the sum, which lies where the first
    frame is found to, correlates with the plain one.
    """
    enhance(mrc)
    (record,) = provenance(enhance.out)["movies"]
    assert np.abs(record["shifts_angstrom"]).max() < 4
    assert (
        np.corrcoef(
            image(enhance.micrographs / "a_aligned.mrc").ravel(), make_frames().sum(0).ravel()
        )[0, 1]
        > 0.4
    )


@pytest.mark.parametrize(("gain", "offset"), [(0.25, 0.0), (40.0, -300.0)])
def test_gain_and_offset_pass_through(enhance, tmp_path, gain, offset):
    settings = tmp_path / "exact.yaml"
    settings.write_text("half_precision: false\n")
    frames = make_frames().astype(np.float32)
    write_mrc(tmp_path / "a.mrc", frames, 2.0, "x", stack=True)
    write_mrc(tmp_path / "b.mrc", (frames * gain + offset).astype(np.float32), 2.0, "x", stack=True)
    assert enhance(tmp_path / "a.mrc", tmp_path / "b.mrc", "--settings", settings)[0] == 0
    for name in ("aligned", "enhanced"):
        a, b = (image(enhance.micrographs / f"{n}_{name}.mrc") for n in "ab")
        # Shifts are iterated to 0.01 Å, 0.005 px: that much of the noise's change from pixel to
        # pixel may differ.
        assert np.abs((b - 3 * offset) / gain - a).max() < 0.02 * a.std(), name


def test_enhanced_frames(enhance, mrc, tiff, capsys):
    assert enhance(mrc, tiff, "--frames", "--groups", "3")[0] == 0
    for name, pixel in (("a", 2.0), ("b", 1.4)):
        with mrcfile.open(enhance.micrographs / f"{name}_enhanced_frames.mrcs") as file:
            assert file.is_image_stack() and file.data.shape == (3, 96, 80)
            assert file.voxel_size.x == pytest.approx(pixel)
            assert "ENHANCED fractions" in " ".join(file.get_labels())
            assert file.header.rms == pytest.approx(file.data.std(dtype=np.float64), rel=1e-5)
            assert np.isfinite(file.data).all() and not np.array_equal(file.data[0], file.data[1])


def test_frames_in_addition_change_nothing_else(enhance, mrc, tmp_path):
    enhance(mrc)
    enhance(mrc, "--frames", out=tmp_path / "other")
    for name in ("aligned", "enhanced"):
        assert np.array_equal(
            image(enhance.micrographs / f"a_{name}.mrc"),
            image(tmp_path / "other" / "micrographs" / f"a_{name}.mrc"),
        ), name


def test_contrast_and_uncertainty(enhance, mrc, tmp_path):
    """Beside the micrograph, on its grid: contrast about the sum's mean, an error in its units that
    is positive everywhere.
    """
    code, _, err = enhance(mrc, "--contrast", "--uncertainty", "--particles")
    assert code == 0, err
    enhance(mrc, out=tmp_path / "other")
    assert np.array_equal(
        image(enhance.micrographs / "a_enhanced.mrc"),
        image(tmp_path / "other" / "micrographs" / "a_enhanced.mrc"),
    )
    contrast, error = (
        image(enhance.micrographs / "a_contrast.mrc"),
        image(enhance.micrographs / "a_uncertainty.mrc"),
    )
    particles = image(enhance.micrographs / "a_particles.mrc")
    assert contrast.shape == error.shape == particles.shape == (96, 80)
    assert -1 <= particles.min() < particles.max() <= 0
    assert error.min() > 0 and error.mean() < image(enhance.micrographs / "a_aligned.mrc").std()
    with mrcfile.open(enhance.micrographs / "a_contrast.mrc") as file:
        assert "CONTRAST without CTF, for looking" in " ".join(file.get_labels())


def test_the_contrast_is_filled_or_as_the_network_estimates_it(enhance, mrc, tmp_path):
    """Filled by where particles are, whether those are asked for or not; without it, the rest is
    the same to the byte.
    """
    (tmp_path / "plain.yaml").write_text("fill: false\n")
    found = []
    for name, options in (
        ("both", ["--particles"]),
        ("alone", []),
        ("plain", ["--settings", tmp_path / "plain.yaml"]),
    ):
        code, _, err = enhance(mrc, "--contrast", *options, out=tmp_path / name)
        assert code == 0, err
        found.append(
            [
                image(tmp_path / name / "micrographs" / f"a_{kind}.mrc")
                for kind in ("contrast", "enhanced")
            ]
        )
    both, alone, plain = found
    assert np.array_equal(both[0], alone[0]) and not np.allclose(alone[0], plain[0], rtol=1e-4)
    assert np.array_equal(alone[1], plain[1])


def test_the_uncertainty_is_calibrated_by_the_card(capsys, tmp_path):
    """With (a, b) it is a e^b, e in units of the sum's noise; at the working pixel, so that nothing
    is resampled.
    """
    write_mrc(tmp_path / "a.mrc", make_frames(1), 2.0, "x", stack=True)
    (tmp_path / "plain.yaml").write_text("evidence: false\n")
    found = []
    for i, calibration in enumerate([(1.0, 1.0), (2.0, 1.0), (1.0, 2.0), (2.0, 2.0)]):
        (tmp_path / str(i)).mkdir()
        network = tiny.make_network()
        weights = tmp_path / str(i) / "tiny.safetensors"
        tiny.save_weights(
            network, tiny.make_card(network, uncertainty_calibration=calibration), weights
        )
        out = tmp_path / str(i) / "out"
        arguments = (
            "--uncertainty",
            "-m",
            weights,
            "-d",
            "cpu",
            "-o",
            out,
            "--settings",
            tmp_path / "plain.yaml",
        )
        assert dstnet(capsys, "enhance", tmp_path / "a.mrc", *arguments)[0] == 0
        found.append(image(out / "micrographs" / "a_uncertainty.mrc"))
    plain, doubled, squared, both = found
    np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-5)
    np.testing.assert_allclose(both, 2 * squared, rtol=1e-5)
    noise = (plain**2 / squared).mean()
    np.testing.assert_allclose(squared * noise, plain**2, rtol=1e-3)


def test_weights_without_a_head_are_told_apart_at_once(capsys, mrc, tmp_path):
    network = tiny.build("dstnet", {**tiny.SETTINGS, "heads": ["contrast"]})
    tiny.save_weights(network, tiny.make_card(network), tmp_path / "tiny.safetensors")
    code, _, err = dstnet(
        capsys,
        "enhance",
        mrc,
        "--uncertainty",
        "-m",
        tmp_path / "tiny.safetensors",
        "-d",
        "cpu",
        "-o",
        tmp_path / "out",
    )
    assert code == 2 and "gives no uncertainty (contrast)" in err
    assert not (tmp_path / "out" / "micrographs").exists()


def test_a_method_without_weights(capsys, mrc, tmp_path):
    """It is asked for by its name, goes the way of every method, and has no outputs but one."""
    options = ("-m", "gaussian:25", "-d", "cpu", "-o", tmp_path / "out")
    code, _, err = dstnet(capsys, "enhance", mrc, *options, "--dose-per-frame", "2", "--halves")
    assert code == 0, err
    names = ("aligned", "dw", "EVN", "ODD", "enhanced", "enhanced_EVN", "enhanced_ODD")
    found = {path.name for path in (tmp_path / "out" / "micrographs").glob("*.mrc")}
    assert found == {f"a_{name}.mrc" for name in names}
    stored = provenance(tmp_path / "out")
    assert stored["settings"]["model"] == "gaussian:25" and stored["weights"] is None
    for option in ("contrast", "frames"):
        code, _, err = dstnet(capsys, "enhance", mrc, *options, f"--{option}")
        assert code == 2 and f"gives no {option}" in err


def test_a_single_image(enhance, tmp_path):
    write_mrc(tmp_path / "sum.mrc", make_frames(1)[0].astype(np.float32), 2.0, "x")
    assert enhance(tmp_path / "sum.mrc", "--frames")[0] == 0
    np.testing.assert_allclose(
        image(enhance.micrographs / "sum_aligned.mrc"), make_frames(1)[0], atol=1e-3
    )
    assert image(enhance.micrographs / "sum_enhanced_frames.mrcs").size == 96 * 80


def test_small_tiles(enhance, tmp_path):
    """An image of many tiles whose side is no multiple of the network's stride comes out with no
    seam of its own.
    """
    settings = tmp_path / "tiles.yaml"
    settings.write_text("overlap: 64\nhalf_precision: false\n")
    write_mrc(tmp_path / "a.mrc", make_frames(1, (260, 300)), 2.0, "x", stack=True)
    assert enhance(tmp_path / "a.mrc", "--settings", settings)[0] == 0
    assert (
        enhance(
            tmp_path / "a.mrc", "--settings", settings, "--tile", "150", out=tmp_path / "tiled"
        )[0]
        == 0
    )
    whole, tiled = (
        image(enhance.micrographs / "a_enhanced.mrc"),
        image(tmp_path / "tiled" / "micrographs" / "a_enhanced.mrc"),
    )
    # The tiny network sees 20 pixels around each; beyond the 16 of a tile's border little is left.
    assert np.abs(whole - tiled).max() < 0.1 * whole.std()


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("2:3", slice(1, 3)), (":2", slice(0, 2)), ("4:", slice(3, 4)), ("2:2", slice(1, 2))],
)
def test_frame_range(enhance, tmp_path, text, chosen):
    frames = np.concatenate([make_frames(1, seed=i, mean=10.0 * 2**i) for i in range(4)])
    write_mrc(tmp_path / "a.mrc", frames, 2.0, "x", stack=True)
    assert enhance(tmp_path / "a.mrc", "--frame-range", text, "--dose-per-frame", "2")[0] == 0
    aligned = image(enhance.micrographs / "a_aligned.mrc")
    assert aligned.mean() == pytest.approx(frames[chosen].sum(0).mean(), rel=1e-2)
    (record,) = provenance(enhance.out)["movies"]
    assert record["frames"] == len(frames[chosen])


def test_pixel_size_given_wins(enhance, mrc, tmp_path):
    assert enhance(mrc, "--apix", "1.5")[0] == 0
    assert open_movie(enhance.micrographs / "a_aligned.mrc").pixel_size_angstrom == pytest.approx(
        1.5
    )
    tifffile.imwrite(tmp_path / "plain.tif", make_frames(), photometric="minisblack")
    assert enhance(tmp_path / "plain.tif", "--pixel-size", "1.1", out=tmp_path / "other")[0] == 0


def test_sub_folders_are_kept(enhance, tmp_path):
    for name in ("one/a.mrc", "two/a.mrc", "two/deep/b.mrc"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        write_mrc(tmp_path / "data" / name, make_frames(1), 2.0, "x", stack=True)
    assert enhance(*sorted((tmp_path / "data").rglob("*.mrc")))[0] == 0
    assert {
        str(p.relative_to(enhance.micrographs)) for p in enhance.micrographs.rglob("*_enhanced.mrc")
    } == {f"data/{name}_enhanced.mrc" for name in ("one/a", "two/a", "two/deep/b")}


def test_json_lines(enhance, mrc, tiff):
    code, out, _ = enhance(mrc, tiff, "--json", "--dose-per-frame", "1.5")
    assert code == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["status"] for r in records] == ["done", "done"]
    assert [r["frames"] for r in records] == [3, 4]
    assert [r["pixel_size_angstrom"] for r in records] == [2.0, 1.4]
    assert [len(r["shifts_angstrom"]) for r in records] == [3, 4]


def test_provenance(enhance, mrc, tiff, model):
    enhance(mrc, tiff, "--dose-per-frame", "1.5", "--groups", "2")
    found = provenance(enhance.out)
    assert found["version"] == package.__version__
    assert found["weights"] == "tiny" and found["weights_sha256"] == digest(model)
    assert found["settings"]["groups"] == 2 and found["settings"]["model"] == str(model)
    assert [(m["name"], m["input"], m["status"]) for m in found["movies"]] == [
        ("a", str(mrc), "done"),
        ("b", str(tiff), "done"),
    ]
    assert all(
        m["exposure_per_frame_e_per_a2"] == 1.5 and m["seconds"] >= 0 for m in found["movies"]
    )


def test_a_second_run_skips_and_overwrite_redoes(enhance, mrc, tiff):
    enhance(mrc)
    path = enhance.micrographs / "a_enhanced.mrc"
    first, record = path.stat().st_mtime_ns, provenance(enhance.out)["movies"][0]
    code, out, err = enhance(mrc, tiff)
    assert code == 0 and "already there, skipped" in out and "1 done, 1 already there" in err
    assert path.stat().st_mtime_ns == first
    kept = provenance(enhance.out)["movies"]
    assert [m["name"] for m in kept] == ["a", "b"]
    assert kept[0]["shifts_angstrom"] == record["shifts_angstrom"], (
        "how it was made is not forgotten"
    )
    code, _, err = enhance(mrc, "--overwrite")
    assert code == 0 and "1 done, 0 already there" in err
    assert path.stat().st_mtime_ns > first


def test_a_missing_result_is_made_again(enhance, mrc):
    enhance(mrc)
    (enhance.micrographs / "a_aligned.mrc").unlink()
    assert "1 done" in enhance(mrc)[2]
    assert (enhance.micrographs / "a_aligned.mrc").exists()


def test_results_are_the_same_every_time(enhance, mrc, tmp_path):
    enhance(mrc, "--dose-per-frame", "2")
    enhance(mrc, "--dose-per-frame", "2", out=tmp_path / "again")
    for path in enhance.micrographs.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / "micrographs" / path.name).read_bytes(), (
            path.name
        )


def test_inputs_are_not_touched(enhance, mrc, tiff):
    before = [(p.read_bytes(), p.stat().st_mtime_ns) for p in (mrc, tiff)]
    enhance(mrc, tiff, "--frames")
    assert [(p.read_bytes(), p.stat().st_mtime_ns) for p in (mrc, tiff)] == before


# The other verbs


@pytest.mark.parametrize("verb", [[], ["demo"], ["enhance"], ["simulate"], ["train"], ["models"]])
def test_help(capsys, verb):
    code, out, err = dstnet(capsys, *verb, "--help")
    assert code == 0 and not err and "Usage: dstnet" in out
    if verb:
        assert verb[0] in out


@pytest.mark.parametrize("verb", [[], ["enhance"], ["simulate"]])
def test_version(capsys, verb):
    code, out, _ = dstnet(capsys, *verb, "--version")
    assert code == 0 and out.strip() == package.__version__


def test_help_tells_of_the_exit_codes_and_the_purpose(capsys):
    out = " ".join(dstnet(capsys, "--help")[1].split())
    assert "Exit codes: 0" in out and "particles are extracted from the plain sums" in out


def modules_after(statement):
    """Names of all modules after `statement` in a fresh interpreter."""
    code = f"{statement}; import sys; print('\\n'.join(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_the_command_answers_without_torch():
    loaded = modules_after("import dstnet.cli")
    assert "dstnet.cli.enhance" in loaded
    assert not {"torch", "scipy", "matplotlib", "gemmi", "pandas"} & loaded


def test_enhancement_needs_no_simulator():
    loaded = modules_after("import dstnet.enhancement, dstnet.alignment")
    for name in ("simulation", "specimen", "potential", "structure", "detector", "training"):
        assert not [
            m for m in loaded if m == f"dstnet.{name}" or m.startswith(f"dstnet.{name}.")
        ], name


def test_models(capsys):
    code, out, _ = dstnet(capsys, "models")
    assert code == 0 and "networks that can be trained: dstnet" in out
    assert all(name in out for name in released())
    code, out, _ = dstnet(capsys, "models", "--json")
    assert code == 0
    names = [json.loads(line)["name"] for line in out.splitlines()]
    assert names == [*released(), *METHODS]


def test_simulate_then_enhance(capsys, enhance, tmp_path):
    arguments = (
        "simulate",
        "-o",
        tmp_path / "sim",
        "--shape",
        "128",
        "128",
        "--pixel-size",
        "3",
        "--frames",
        "2",
    )
    code, out, err = dstnet(capsys, *arguments)
    assert code == 0 and "particles" in out, err
    (movie,) = (tmp_path / "sim" / "movies").iterdir()
    name = movie.stem
    assert {p.name for p in (tmp_path / "sim" / "truth").iterdir()} >= {
        f"{name}_clean.mrc",
        f"{name}_settings.yaml",
    }
    opened = open_movie(movie)
    assert (
        len(opened) == 2
        and opened.shape == (128, 128)
        and opened.pixel_size_angstrom == pytest.approx(3)
    )
    before = movie.read_bytes()
    code, out, _ = dstnet(capsys, *arguments, "--json")
    assert code == 0 and json.loads(out)["status"] == "skipped"
    other = (*arguments, "--movies", "1", "--dose-per-frame", "1.5")
    code, _, err = dstnet(capsys, *other)
    assert code == 2 and "--overwrite" in err and movie.read_bytes() == before, (
        "what was made with other settings is kept"
    )
    assert dstnet(capsys, *other, "--overwrite")[0] == 0
    assert movie.read_bytes() != before
    code, out, err = enhance(movie, "--dose-per-frame", "1.5")
    assert code == 0, err
    assert image(enhance.micrographs / "sim" / "movies" / f"{name}_enhanced.mrc").shape == (
        128,
        128,
    )
    assert "outside the 0.5-2.0" in out, (
        "3 Å is more than the model was trained for, and that is said"
    )


def test_train_command(capsys, tmp_path, mrc):
    """Two steps from a phantom at 4 Å, and its weights enhance."""
    (tmp_path / "run.yaml").write_text(
        "network: {features: 8, growth: 4, dense_layers: 1, widths: [8, 16], blocks: [1,"
        " 1]}\nstream: {crop: 64, working_pixel_angstrom: 4.0, fractions: 2, defocus_angstrom:"
        " [4000.0, 12000.0]}\nphantoms: 1\nposes: 1\nsteps: 9\nbatch: 1\ncheckpoint_every:"
        " 1\nvalidate_batches: 0\nworkers: 0\nrings: 8\n"
    )
    arguments = (
        "train",
        "-o",
        tmp_path / "run",
        "--settings",
        tmp_path / "run.yaml",
        "--steps",
        "2",
        "--json",
    )
    code, out, err = dstnet(capsys, *arguments)
    assert code == 0, err
    assert [json.loads(line)["step"] for line in out.splitlines()] == [1, 2]
    code, _, err = dstnet(capsys, *arguments)
    assert code == 2 and "--resume" in err
    weights = tmp_path / "run" / "weights.safetensors"
    assert (
        dstnet(capsys, "enhance", mrc, "-o", tmp_path / "out", "-m", weights, "-d", "cpu")[0] == 0
    )


def test_released_weights_enhance_by_default(capsys, mrc, tmp_path):
    code, _, err = dstnet(capsys, "enhance", mrc, "-o", tmp_path / "out", "--device", "cpu")
    assert code == 0, err
    assert np.isfinite(image(tmp_path / "out" / "micrographs" / "a_enhanced.mrc")).all()


def test_little_exposure_is_told(enhance, mrc, tmp_path):
    code, out, _ = enhance(mrc, "--dose-per-frame", "2")
    assert code == 0 and "at 6.0 e-/Å2, less than 20, part of what is drawn may be noise" in out
    code, out, _ = enhance(mrc, "--dose-per-frame", "10", out=tmp_path / "more")
    assert code == 0 and "may be noise" not in out
