"""dstnet adapt as a user runs it, and enhance going on from what it writes."""

import json

import numpy as np
import pytest
import yaml
from tiny import dstnet, save_model

from dstnet.io import write_mrc
from dstnet.network.weights import digest, read_card


def write_movie(path, frames=4, signal=0.3, seed=0, side=136):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    discs = sum(
        np.exp(-((((y - cy) ** 2 + (x - cx) ** 2) / 18) ** 2))
        for cy, cx in random.uniform(6, side - 6, (30, 2))
    )
    counts = random.poisson(20 * np.clip(1 - signal * discs, 0.05, None), (frames, side, side))
    write_mrc(path, counts.astype(np.uint16), 2.0, "x", stack=True)


@pytest.fixture
def options(tmp_path, in_tmp_path):
    settings = {"crop": 64, "held_out": 0.5, "batch": 2, "learning_rate": 0.01, "check_every": 4}
    (tmp_path / "adapt.yaml").write_text(
        yaml.safe_dump({**settings, "alignment": {"resolution_angstrom": 12}})
    )
    return (
        "--settings",
        tmp_path / "adapt.yaml",
        "--model",
        save_model(tmp_path),
        "--steps",
        "12",
        "--patches",
        "0",
        "--device",
        "cpu",
    )


def test_adapted_weights_are_used_by_enhance(capsys, tmp_path, options):
    movies = [tmp_path / f"m{i}.mrc" for i in range(2)]
    for i, movie in enumerate(movies):
        write_movie(movie, seed=i)
    run = tmp_path / "run"
    command = ("adapt", *movies, "-o", run, "--dose-per-frame", "1.5", "--json", *options)
    code, out, err = dstnet(capsys, *command)
    assert code == 0, err
    records = [json.loads(line) for line in out.splitlines()]
    assert records[0]["step"] == 0 and records == [
        json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()
    ]
    start, card = read_card(tmp_path / "tiny.safetensors"), read_card(run / "weights.safetensors")
    assert card.training["adapted_from"] == {
        "name": "tiny",
        "sha256": digest(tmp_path / "tiny.safetensors"),
    }
    movies = card.training["movies"]
    assert sorted(movies["learnt_from"] + movies["judged_by"]) == [
        str(tmp_path / f"m{i}.mrc") for i in range(2)
    ]
    assert card.valid_pixel_angstrom == start.valid_pixel_angstrom and card.name == "tiny-run"
    images = []
    for model in (tmp_path / "tiny.safetensors", run / "weights.safetensors"):
        code, _, err = dstnet(
            capsys,
            "enhance",
            tmp_path / "m0.mrc",
            "-o",
            tmp_path / model.stem,
            "--model",
            model,
            "--device",
            "cpu",
        )
        assert code == 0, err
        images.append((tmp_path / model.stem / "micrographs" / "m0_enhanced.mrc").read_bytes())
    assert images[0] != images[1]
    # A run that was killed before its last file is made again.
    weights = (run / "weights.safetensors").read_bytes()
    (run / "outcome.json").unlink()
    assert dstnet(capsys, *command)[0] == 0
    assert (run / "weights.safetensors").read_bytes() == weights and (run / "outcome.json").exists()
    # Nothing is overwritten.
    code, _, err = dstnet(capsys, "adapt", tmp_path / "m0.mrc", "-o", run, *options)
    assert code == 2 and "already holds weights" in err


def test_where_nothing_is_gained_nothing_is_written_and_it_is_said(capsys, tmp_path, options):
    for i in range(2):
        write_movie(tmp_path / f"n{i}.mrc", signal=0.0, seed=i)
    code, _, err = dstnet(
        capsys, "adapt", tmp_path / "n0.mrc", tmp_path / "n1.mrc", "-o", tmp_path / "run", *options
    )
    assert code == 1 and "nothing was gained, so no weights are written" in err and "ended: " in err
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    told = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert told["released"] is None and told["ended"]


def test_single_images_are_refused_and_named(capsys, tmp_path, options):
    write_movie(tmp_path / "image.mrc", frames=1)
    code, _, err = dstnet(capsys, "adapt", tmp_path / "image.mrc", "-o", tmp_path / "run", *options)
    assert code == 2 and "image.mrc is a single image" in err and "no movie is left" in err
