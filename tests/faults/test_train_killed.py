"""A training run that is really killed, by SIGKILL while it writes, and taken up again. Between
writes nothing is left half done: there unit/test_trainer.py ends a run from within.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

TESTS = Path(__file__).resolve().parents[1]

PLACES = ("while the checkpoint is written", "while the log is written")

# Runs of a tiny network, each in a process of its own: one undisturbed, and for each place one that
# kills itself there, and one that takes it up again. They are forked from one process, whose
# imports take longer than the runs.
SCRIPT = f"""
import os, signal, sys
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent / "src")!r}]
from pathlib import Path
import torch
torch.set_num_threads(1)
import training_runs
from dstnet.io.leftovers import hidden_path
from dstnet.training import checkpoint, trainer

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def train(folder, resume, place):
    options = dict(steps=7, checkpoint_every=2, patience=9, schedule="plateau", plateau=1)
    run = training_runs.start(folder, resume, **options)
    if place == "while the checkpoint is written":
        real_save = checkpoint.save
        def save(tensors, metadata):
            if run.progress.step == 4:
                hidden_path(folder / "checkpoint.safetensors").write_bytes(b"half of it")
                die()
            return real_save(tensors, metadata)
        checkpoint.save = save
    elif place == "while the log is written":
        real_append = trainer.append_log
        def append_log(folder, record):
            if record.step == 4:
                with open(folder / "log.jsonl", "a") as log:
                    log.write('{{"step": 4, "lo')
                die()
            real_append(folder, record)
        trainer.append_log = append_log
    run.train(lambda record: None)
    run.release()

def apart(*arguments):
    child = os.fork()
    if child == 0:
        train(*arguments)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

folder = Path(sys.argv[1])
assert apart(folder / "undisturbed", False, "nowhere") == 0
for i, place in enumerate({PLACES!r}):
    run = folder / str(i)
    assert apart(run, False, place) == -signal.SIGKILL, place
    assert not (run / "weights.safetensors").exists(), place
    assert apart(run, True, "nowhere") == 0, place
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    arguments = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return folder


def curve(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_killed_run_gives_the_same_bits(runs, place):
    folder, whole = runs / str(PLACES.index(place)), runs / "undisturbed"
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
