"""Several training processes by torchrun, as on several GPUs or machines."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TESTS = Path(__file__).resolve().parents[1]

SCRIPT = f"""
import sys
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent / "src")!r}]
from pathlib import Path
from safetensors.torch import save_file
import training_runs
from dstnet.training.process_group import process_group

folder = Path(sys.argv[1])
with process_group("cpu") as process:
    # The ring loss takes differences of nearly equal numbers: at its full weight one gradient
    # in thousands rounds otherwise.
    options = dict(batches=2, steps=3, checkpoint_every=2, patience=5, ring_weight=0.3)
    run = training_runs.start(folder, process=process, **options)
    records = []
    run.train(records.append)
    weights = {{k: v.contiguous() for k, v in run.network.state_dict().items()}}
    save_file(weights, folder / f"process{{process.number}}.safetensors")
    run.release()
    assert bool(records) == process.first, "only the first speaks"
    assert run.progress.best is not None, "all know what the first has found"
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_with_twice_the_batches_does(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, script, tmp_path / "two"],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "one")])
    monkeypatch.setattr(sys, "path", sys.path[:])
    runpy.run_path(str(script))
    first, second = (load_file(tmp_path / "two" / f"process{n}.safetensors") for n in (0, 1))
    one = load_file(tmp_path / "one" / "process0.safetensors")
    assert all(torch.equal(first[k], second[k]) for k in first)
    for name, value in one.items():
        # Sums over batches differ in the last bits by their order, and AdamW makes steps of the
        # learning rate of any gradient.
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-6)
    logs = [
        [json.loads(line) for line in (tmp_path / n / "log.jsonl").read_text().splitlines()]
        for n in ("two", "one")
    ]
    assert [r["step"] for r in logs[0]] == [2, 3]
    assert [r["loss"] for r in logs[0]] == pytest.approx([r["loss"] for r in logs[1]], rel=1e-5), (
        "the mean over both processes"
    )
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
