"""The command `dstnet train`: options, what it prints, tensorboard."""

import json
import os
import subprocess
import sys

import pytest
import tiny
import yaml
from tiny import dstnet

SETTINGS = {
    "network": tiny.SETTINGS,
    "stream": {
        "crop": 64,
        "groups": 2,
        "working_pixel_angstrom": 4.0,
        "defocus_angstrom": [4000.0, 12000.0],
    },
    "phantoms": 1,
    "poses": 2,
    "batch": 1,
    "warm_up": 1,
    "checkpoint_every": 2,
    "rings": 8,
    "workers": 0,
}


@pytest.fixture
def options(tmp_path):
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    return ["--settings", tmp_path / "settings.yaml", "--device", "cpu", "-o", tmp_path / "run"]


def test_lines_say_where_it_is_and_how_long_it_takes(capsys, tmp_path, options):
    code, out, err = dstnet(capsys, "train", *options, "--steps", "3", "--seed", "5")
    assert code == 0
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 2/3", "step 3/3"]
    assert f"weights in {tmp_path / 'run' / 'weights.safetensors'}" in err
    assert "\nthreads: " in err
    (tmp_path / "plain").touch()
    files = [path for path in (tmp_path / "run").iterdir() if path.is_file()]
    assert "checkpoint.safetensors" in {path.name for path in files}
    assert {path.stat().st_mode for path in files} == {(tmp_path / "plain").stat().st_mode}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (
        record["seed"] == 5
        and record["processes"] == 1
        and record["device"] == "cpu"
        and record["started_from"] is None
    )
    assert list(record["trained_on"]) and record["held_out"] == {}
    # the records, and nothing else, repeat the run
    again = [
        "--settings",
        tmp_path / "run" / "settings.yaml",
        "--device",
        "cpu",
        "-o",
        tmp_path / "again",
    ]
    assert dstnet(capsys, "train", *again)[0] == 0
    assert (tmp_path / "again" / "weights.safetensors").read_bytes() == (
        tmp_path / "run" / "weights.safetensors"
    ).read_bytes()


def test_the_line_of_a_record():
    from dstnet.cli.train import _line
    from dstnet.training import LogRecord

    line = _line(LogRecord(250, seconds=500, loss=0.751234), 6000)
    assert line == "step 250/6000  0.50 steps/s  3 h 12 min left  loss 0.7512"
    assert _line(LogRecord(0, {"residual": 0.5}), 10) == "step 0/10  residual 0.5"


def test_a_run_is_resumed_with_its_own_data_only(capsys, tmp_path, options):
    assert dstnet(capsys, "train", *options, "--steps", "2")[0] == 0
    code, _, err = dstnet(capsys, "train", *options, "--steps", "2")
    assert code == 2 and "already holds a training run; add --resume" in err
    code, _, err = dstnet(capsys, "train", *options, "--steps", "4", "--resume")
    assert code == 2 and "other settings" in err
    (tmp_path / "run" / "checkpoint.safetensors").rename(tmp_path / "kept")
    code, _, err = dstnet(capsys, "train", *options, "--steps", "2", "--resume")
    assert code == 2 and "already holds weights" in err
    (tmp_path / "kept").rename(tmp_path / "run" / "checkpoint.safetensors")
    record = tmp_path / "run" / "run.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "trained_on": {"another": "0"}}))
    code, _, err = dstnet(capsys, "train", *options, "--steps", "2", "--resume")
    assert code == 2 and "other data (trained_on in run.json)" in err
    record.write_text("{")
    code, _, err = dstnet(capsys, "train", *options, "--steps", "2", "--resume")
    assert code == 2 and "run.json cannot be read" in err
    record.write_text(json.dumps(values))
    assert dstnet(capsys, "train", *options, "--steps", "2", "--resume")[0] == 0


def test_tensorboard_that_is_not_installed_is_asked_for(capsys, tmp_path, options, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, err = dstnet(capsys, "train", *options, "--steps", "2", "--tensorboard")
    assert (
        code == 2
        and "tensorboard is not installed; install it with: pip install 'dstnet[tensorboard]'"
        in err
    )
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_every_number_of_a_record(tmp_path):
    pytest.importorskip(
        "tensorboard", reason="tensorboard is not installed (pip install 'dstnet[tensorboard]')"
    )
    # In a process of its own: the package's imports warn, which is an error here.
    script = f"""
from dstnet.training import LogRecord
from dstnet.training.tensorboard import tensorboard_writer
from pathlib import Path
folder = Path({str(tmp_path)!r})
write = tensorboard_writer(folder)
write(LogRecord(2, {{"residual": 0.25}}, loss=0.5))
write(LogRecord(4, loss=0.4))
tensorboard_writer(folder)(LogRecord(4, loss=0.3))
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
found = EventAccumulator(str(folder)).Reload()
losses = [(e.step, round(e.value, 6)) for e in found.Scalars("loss")]
print(losses, [(e.step, e.value) for e in found.Scalars("residual")])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=200, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[(2, 0.5), (4, 0.3)] [(2, 0.25)]", (
        "what a resumed run does again replaces it"
    )
