"""What steers a run: schedules, patience, batches that make a step, randomness by step number,
beginning from other weights.
"""

import json

import pytest
import tiny
import torch
from safetensors.torch import load_file
from training_runs import settings, start

from dstnet.errors import SettingsError, WeightsError
from dstnet.network.weights import build, load_weights
from dstnet.training import TrainingSettings, objectives, trainer
from dstnet.training.checkpoint import Progress
from dstnet.training.data import Sources
from dstnet.training.process_group import Process, process_group


def quiet(record):
    pass


def test_progress_remembers_the_best_and_counts_what_came_after():
    progress = Progress()
    seen = []
    for step, residual in enumerate((0.5, 0.4, 0.45, 0.4, 0.41, 0.3, 0.35), 1):
        progress = progress.model_copy(update={"step": step}).after(residual, plateau=2)
        seen.append((progress.best, progress.best_step, progress.since_best, progress.halved))
    assert seen == [
        (0.5, 1, 0, 0),
        (0.4, 2, 0, 0),
        (0.4, 2, 1, 0),
        (0.4, 2, 2, 1),
        (0.4, 2, 3, 1),
        (0.3, 6, 0, 1),
        (0.3, 6, 1, 1),
    ]


def test_schedules(tmp_path):
    constant = start(tmp_path / "a", schedule="constant", learning_rate=1e-3, warm_up=2)
    assert [constant.rate(i) for i in range(4)] == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3])
    plateau = start(tmp_path / "b", schedule="plateau", learning_rate=1e-3, warm_up=2)
    assert [plateau.rate(i) for i in range(4)] == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3])
    plateau.progress = Progress(step=3, halved=2)
    assert plateau.rate(3) == pytest.approx(2.5e-4)


def with_residuals(monkeypatch, values):
    """Runs whose validations find these, and a list that gets the averaged weights at each."""
    found, weights = iter(values), []

    def validate(self):
        weights.append({k: v.clone() for k, v in self.state.average.items()})
        return {"residual": next(found)}

    monkeypatch.setattr(trainer.Trainer, "validate", validate)
    return weights


def test_patience_stops_and_releases_the_best(tmp_path, monkeypatch):
    weights = with_residuals(monkeypatch, (0.5, 0.4, 0.45, 0.4))
    changes = {"steps": 20, "checkpoint_every": 1, "patience": 2, "schedule": "constant"}
    run = start(tmp_path / "run", **changes)
    run.train(quiet)
    assert run.progress.step == 4 and run.progress.best_step == 2
    network, card = load_weights(str(run.release()))
    assert card.training["steps"] == 2
    assert all(
        torch.equal(v, weights[1][k].half().float()) for k, v in network.state_dict().items()
    )
    assert any(not torch.equal(weights[1][k], weights[3][k]) for k in weights[1])
    # an ended run that is taken up again stays ended, and releases the same
    before = (tmp_path / "run" / "weights.safetensors").read_bytes()
    again = start(tmp_path / "run", resume=True, **changes)
    again.train(quiet)
    again.release()
    assert (
        again.progress.step == 4
        and (tmp_path / "run" / "weights.safetensors").read_bytes() == before
    )
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 4


def test_without_patience_the_last_weights_are_released(tmp_path, monkeypatch):
    weights = with_residuals(monkeypatch, (0.4, 0.5))
    run = start(tmp_path / "run", steps=2, checkpoint_every=1)
    run.train(quiet)
    network, card = load_weights(str(run.release()))
    assert card.training["steps"] == 2
    assert all(
        torch.equal(v, weights[1][k].half().float()) for k, v in network.state_dict().items()
    )


@pytest.mark.parametrize("changes", [{"patience": 1}, {"schedule": "plateau"}])
def test_what_watches_the_validation_needs_one(tmp_path, changes):
    with pytest.raises(SettingsError, match="validate_batches of 1 or more"):
        TrainingSettings.checked({**changes, "validate_batches": 0}, "options")
    with pytest.raises(SettingsError, match="hold some out"):
        trainer.Trainer(tmp_path, settings(**changes), Sources(), Sources())


def test_batches_of_a_step_are_averaged(tmp_path):
    run = start(tmp_path / "run", batches=2, frame_weight=0.0)
    parts = [run.objective(run.network, run.data[i].without_frame()) for i in (0, 1)]
    (sum(parts) / 2).backward()
    expected = [p.grad.clone() for p in run.network.parameters()]
    found = []
    run.state.optimizer.step = lambda: found.extend(
        p.grad.clone() for p in run.network.parameters()
    )
    run.settings = run.settings.model_copy(update={"clip": 1e9})
    _, loss = run._step(run.network, iter([run.data[0], run.data[1]]))
    assert loss == pytest.approx(float(sum(parts).detach()) / 2, rel=1e-5)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()))


def test_processes_that_cannot_share_the_batches_are_refused(tmp_path):
    with pytest.raises(
        SettingsError,
        match="3 batches a step cannot be dealt to 2 processes; set batches to 2 or a multiple",
    ):
        start(tmp_path / "run", process=Process(0, 2), batches=3)


def test_a_device_that_is_not_there_is_refused():
    with (
        pytest.raises(SettingsError, match=r"device 'cuda:99' cannot be used.*--device cpu"),
        process_group("cuda:99"),
    ):
        pass


def test_randomness_of_a_step_follows_from_its_number(tmp_path, monkeypatch):
    """A network with dropout, say, goes on after a stop as if there had been none."""
    real = objectives.image_loss
    monkeypatch.setattr(
        objectives, "image_loss", lambda *a, **k: real(*a, **k) * (0.5 + torch.rand(()))
    )
    whole = start(tmp_path / "whole")
    whole.train(quiet)

    class Stop(Exception):
        pass

    def stop(record):
        raise Stop

    with pytest.raises(Stop):
        start(tmp_path / "run").train(stop)
    torch.rand(7)
    start(tmp_path / "run", resume=True).train(quiet)
    ours, theirs = (load_file(tmp_path / n / "checkpoint.safetensors") for n in ("run", "whole"))
    assert all(ours[k].equal(theirs[k]) for k in theirs)


@pytest.mark.parametrize("kind", ["l1", "l2", "charbonnier"])
def test_a_run_minimises_what_it_is_told(tmp_path, monkeypatch, kind):
    seen, real = [], objectives.image_loss

    def image_loss(*arguments, **weights):
        seen.append(weights)
        return real(*arguments, **weights)

    monkeypatch.setattr(objectives, "image_loss", image_loss)
    run = start(tmp_path / "run", pixel_loss=kind, focal_weight=0.5, steps=2)
    run.train(quiet)
    assert (
        all(w == {"kind": kind, "ring_weight": 1.0, "rings": 8, "focal_weight": 0.5} for w in seen)
        and len(seen) >= 4
    )


# Beginning from other weights

SMALL = {**tiny.SETTINGS, "heads": []}
LARGER = {**tiny.SETTINGS, "features": 12, "widths": [12, 20]}


def small_model(folder):
    torch.manual_seed(3)
    network = build("dstnet", SMALL)
    card = tiny.make_card(network)
    tiny.save_weights(network, card, folder / "small.safetensors")
    return folder / "small.safetensors"


def test_a_run_begins_from_a_smaller_networks_weights(tmp_path):
    path = small_model(tmp_path)
    source, card = load_weights(str(path))
    records = []
    run = start(tmp_path / "run", network=LARGER, start_from=str(path))
    target, fresh = (
        run.network.state_dict(),
        start(tmp_path / "fresh", network=LARGER).network.state_dict(),
    )
    for name, value in source.state_dict().items():
        corner = tuple(slice(n) for n in value.shape)
        assert torch.equal(target[name][corner], value)
        rest = torch.ones_like(target[name], dtype=torch.bool)
        rest[corner] = False
        assert torch.equal(target[name][rest], fresh[name][rest]), "what is beyond begins as new"
    assert all(torch.equal(run.state.average[k], v) for k, v in target.items())
    run.train(records.append)
    assert records[0].step == 0 and "residual" in records[0].measures, (
        "how good it is before the first step"
    )
    assert (
        run.started_from
        == card.sha256
        == json.loads((tmp_path / "run" / "run.json").read_text())["started_from"]
    )
    assert load_weights(str(run.release()))[1].training["started_from"] == card.sha256


def test_a_larger_networks_weights_are_refused(tmp_path):
    path = small_model(tmp_path)
    with pytest.raises(
        WeightsError,
        match=(
            r"cannot start from .*small.safetensors: the network has no place for its .*at least as"
            r" large"
        ),
    ):
        start(
            tmp_path / "run",
            network={**tiny.SETTINGS, "widths": [8], "blocks": [1]},
            start_from=str(path),
        )


# Heads


def test_each_head_is_trained_by_its_own_loss(tmp_path):
    """A weight of nothing takes a head's influence away; the gradient of the others stays as it
    was.
    """

    def gradient(**changes):
        run = start(tmp_path / f"{changes}", frame_weight=0.0, **changes)
        run.objective(run.network, run.data[1].without_frame()).backward()
        layer = run.network.reconstructor.leave.weight.grad
        return (
            layer.unflatten(0, (4, 4)).abs().sum((1, 2, 3, 4))
        )  # sub-pixels of micrograph, contrast, uncertainty, particles

    both = gradient()
    assert (both > 0).all()
    no_contrast = gradient(output_weights={"contrast": 0.0})
    assert no_contrast[1] == 0 and torch.equal(no_contrast[[0, 2, 3]], both[[0, 2, 3]])
    no_uncertainty = gradient(output_weights={"uncertainty": 0.0})
    assert no_uncertainty[2] == 0 and torch.equal(no_uncertainty[[0, 1, 3]], both[[0, 1, 3]])
    no_particles = gradient(output_weights={"particles": 0.0})
    assert no_particles[3] == 0 and torch.equal(no_particles[:3], both[:3])


def test_a_network_without_heads_is_trained_too(tmp_path):
    run = start(tmp_path / "run", network=SMALL, steps=2)
    records = []
    run.train(records.append)
    assert (
        "residual" in records[-1].measures
        and not {"residual_contrast", "error_over_expected"} & records[-1].measures.keys()
    )
    with_heads = []
    start(tmp_path / "heads", steps=2).train(with_heads.append)
    assert {"residual_contrast", "error_over_expected"} <= with_heads[-1].measures.keys()
