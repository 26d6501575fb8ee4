"""A training run that is really killed, by SIGKILL at chosen places, and taken up again."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

TESTS = Path(__file__).resolve().parents[1]

# A run of a tiny network in a process of its own: folder, "resume" or "new", then where it kills
# itself.
SCRIPT = f"""
import os, signal, sys
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent / "src")!r}]
from pathlib import Path
import torch
torch.set_num_threads(1)
import training_runs
from dstnet.training import checkpoint, trainer

folder, resume, place = Path(sys.argv[1]), sys.argv[2] == "resume", sys.argv[3]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

options = dict(steps=7, checkpoint_every=2, patience=9, schedule="plateau", plateau=1)
run = training_runs.start(folder, resume, **options)
if place == "between checkpoints":
    real = trainer.Run._step
    trainer.Run._step = lambda self, *a: die() if self.progress.step == 3 else real(self, *a)
elif place == "after the log, before the checkpoint":
    real_save = trainer.Run.save
    trainer.Run.save = lambda self: die() if self.progress.step == 4 else real_save(self)
elif place == "while the checkpoint is written":
    real_file = checkpoint.save_file
    def save_file(tensors, path, metadata):
        if run.progress.step == 4:
            Path(path).write_bytes(b"half of it")
            die()
        real_file(tensors, path, metadata)
    checkpoint.save_file = save_file
elif place == "while the log is written":
    real_append = trainer.append_log
    def append_log(path, record):
        if record["step"] == 4:
            with open(path, "a") as log:
                log.write('{{"step": 4, "lo')
            die()
        real_append(path, record)
    trainer.append_log = append_log
run.train(lambda record: None)
run.release()
"""


def process(folder, resume, place):
    arguments = [sys.executable, "-c", SCRIPT, str(folder), "resume" if resume else "new", place]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = process(folder, False, "nowhere")
    assert done.returncode == 0, done.stderr
    return folder


def curve(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "between checkpoints",
        "after the log, before the checkpoint",
        "while the checkpoint is written",
        "while the log is written",
    ],
)
def test_a_killed_run_gives_the_same_bits(whole, tmp_path, place):
    folder = tmp_path / "run"
    killed = process(folder, False, place)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (folder / "weights.safetensors").exists()
    resumed = process(folder, True, "nowhere")
    assert resumed.returncode == 0, resumed.stderr
    assert curve(folder) == curve(whole), "every loss and every measure, each step once"
    assert [r["step"] for r in curve(folder)] == [2, 4, 6, 7]
    ours, theirs = (load_file(f / "checkpoint.safetensors") for f in (folder, whole))
    assert ours.keys() == theirs.keys() and any(k.startswith("best.") for k in ours)
    assert all(ours[k].equal(theirs[k]) for k in ours), (
        "weights, their average, the best, the optimizer"
    )
    assert (folder / "weights.safetensors").read_bytes() == (
        whole / "weights.safetensors"
    ).read_bytes()
    assert not list(folder.glob(".*")), "what the kill left half-written is gone"
