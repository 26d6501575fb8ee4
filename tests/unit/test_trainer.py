"""Training runs: what they leave, and how they are stopped, spoilt and taken up again."""

import json
import math

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from training_runs import RANGES, settings, start

from dstnet.errors import DstnetError, OutputError, SettingsError, WeightsError
from dstnet.network import architectures
from dstnet.network.weights import load_weights, read_card
from dstnet.training import TrainingSettings, checkpoint, objectives, train_run
from dstnet.training.trainer import Trainer


class Killed(BaseException):
    """What a kill is to the trainer."""


def killed_at(step):
    def report(record):
        if record.step == step:
            raise Killed

    return report


def quiet(record):
    pass


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """An uninterrupted run; not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run = start(folder)
    run.train(quiet)
    run.release()
    return folder


def test_a_run_leaves_all_it_promises(whole_run):
    assert TrainingSettings.from_yaml(whole_run / "settings.yaml") == settings()
    records = [json.loads(line) for line in (whole_run / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [2, 4]
    assert all(math.isfinite(r["loss"]) for r in records)
    assert any(k.startswith("residual_") and 0 <= v <= 1 for k, v in records[-1].items())
    assert (whole_run / "checkpoint.safetensors").stat().st_size > 0
    assert {p.name for p in whole_run.iterdir()} == {
        "settings.yaml",
        "run.json",
        "log.jsonl",
        "checkpoint.safetensors",
        "weights.safetensors",
        "weights.json",
    }


def test_the_card_says_how_the_weights_were_made(whole_run):
    network, card = load_weights(str(whole_run / "weights.safetensors"))
    assert card.parameters == sum(p.numel() for p in network.parameters())
    assert card.training["steps"] == 4
    assert card.training["trained_on"] == {"blob": "1"} and card.training["held_out"] == {
        "held": "2"
    }
    assert TrainingSettings.checked(card.training["settings"], "card") == settings()
    assert card.groups == 3 and card.working_pixel_angstrom == 2


def test_training_changes_every_weight(whole_run):
    torch.manual_seed(0)
    before = tiny.make_network().state_dict()
    after = load_weights(str(whole_run / "weights.safetensors"))[0].state_dict()
    assert not [k for k, v in before.items() if torch.equal(v.half().float(), after[k])]


@pytest.mark.parametrize(
    "place", ["after a checkpoint", "between checkpoints", "after the log, before the checkpoint"]
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(whole_run, tmp_path, monkeypatch, place):
    step, save = Trainer._step, Trainer.save

    def step_or_die(run, *rest):
        if place == "between checkpoints" and run.progress.step == 3:
            raise Killed
        return step(run, *rest)

    def save_or_die(run):
        if place == "after the log, before the checkpoint" and run.progress.step == 4:
            raise Killed
        save(run)

    report = killed_at(2) if place == "after a checkpoint" else quiet
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "_step", step_or_die)
        patch.setattr(Trainer, "save", save_or_die)
        start(tmp_path / "run").train(report)
    logged = (tmp_path / "run" / "log.jsonl").read_text().count("\n")
    assert logged == (2 if place == "after the log, before the checkpoint" else 1)
    resumed = start(tmp_path / "run", resume=True)
    assert resumed.progress.step == 2
    resumed.train(quiet)
    resumed.release()
    ours, theirs = (load_file(f / "checkpoint.safetensors") for f in (tmp_path / "run", whole_run))
    assert ours.keys() == theirs.keys()
    assert not [k for k in ours if k != "seconds" and not torch.equal(ours[k], theirs[k])], (
        "weights, their average, the optimizer"
    )
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == (
        whole_run / "weights.safetensors"
    ).read_bytes()
    a, b = (
        [json.loads(x) for x in (f / "log.jsonl").read_text().splitlines()]
        for f in (whole_run, tmp_path / "run")
    )
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in a] == [
        {k: v for k, v in r.items() if k != "seconds"} for r in b
    ]


def stopped_run(folder):
    with pytest.raises(Killed):
        start(folder).train(killed_at(2))
    return folder / "checkpoint.safetensors"


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, size):
    file = stopped_run(tmp_path / "run")
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(WeightsError, match="cannot resume from") as caught:
        start(tmp_path / "run", resume=True)
    assert "\n" not in str(caught.value)


def test_a_changed_checkpoint_is_refused(tmp_path):
    file = stopped_run(tmp_path / "run")
    data = bytearray(file.read_bytes())
    data[-3] ^= 1  # one bit of one number: safetensors itself takes it
    file.write_bytes(data)
    load_file(file)
    with pytest.raises(
        WeightsError,
        match=(
            r"cannot resume from .*checkpoint.safetensors: its contents are not those that were"
            r" written"
        ),
    ):
        start(tmp_path / "run", resume=True)


def test_another_networks_checkpoint_is_refused(tmp_path):
    file = stopped_run(tmp_path / "run")
    other = start(tmp_path / "other", network={**tiny.SETTINGS, "features": 12}, steps=2)
    other.train(quiet)
    file.write_bytes((tmp_path / "other" / "checkpoint.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"it is of another network than the settings'"):
        start(tmp_path / "run", resume=True)
    save_file({"model.a": torch.ones(2)}, file)
    with pytest.raises(WeightsError, match="none of this version's checkpoints"):
        start(tmp_path / "run", resume=True)


def test_resume_only_with_the_runs_own_settings(tmp_path):
    stopped_run(tmp_path / "run")
    for changes in (
        {"seed": 1},
        {"learning_rate": 1e-5},
        {"network": {**tiny.SETTINGS, "features": 16}},
    ):
        with pytest.raises(WeightsError, match=r"other settings.*settings\.yaml"):
            start(tmp_path / "run", resume=True, **changes)
    assert TrainingSettings.from_yaml(tmp_path / "run" / "settings.yaml") == settings(), (
        "the refused ones were not written"
    )
    # how many processes simulate makes no difference to what is learnt
    assert start(tmp_path / "run", resume=True, workers=1).progress.step == 2


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    path, real = tmp_path / "run" / "checkpoint.safetensors", objectives.image_loss

    def image_loss(*arguments, **weights):
        return real(*arguments, **weights) * (float("nan") if path.exists() else 1)

    monkeypatch.setattr(objectives, "image_loss", image_loss)
    with pytest.raises(
        DstnetError,
        match="loss became nan at step 3; the last checkpoint stays: lower learning_rate",
    ):
        start(tmp_path / "run").train(quiet)
    monkeypatch.undo()
    resumed = start(tmp_path / "run", resume=True)
    assert resumed.progress.step == 2 and all(
        torch.isfinite(p).all() for p in resumed.network.parameters()
    )


def test_a_gradient_that_is_no_number_is_never_saved(tmp_path, monkeypatch):
    """At the very step of a checkpoint the loss is still a number, but the weights would not be."""
    run = start(tmp_path / "run")

    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (float("inf") if run.progress.step == 3 else 1)

    real = objectives.image_loss
    monkeypatch.setattr(objectives, "image_loss", lambda *a, **k: Bad.apply(real(*a, **k)))
    with pytest.raises(
        DstnetError, match=r"the gradient became (nan|inf) at step 4; the last checkpoint stays"
    ):
        run.train(quiet)
    assert start(tmp_path / "run", resume=True).progress.step == 2


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    file = tmp_path / "run" / "checkpoint.safetensors"
    real, kept = checkpoint.save, []

    def save(tensors, metadata):
        if not file.exists():
            return real(tensors, metadata)
        kept.append(file.read_bytes())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(OutputError, match=r"No space left.*--resume") as caught:
        start(tmp_path / "run").train(quiet)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == kept[0]
    assert not list((tmp_path / "run").glob(".*")), "nothing half-written is left"
    monkeypatch.undo()
    assert start(tmp_path / "run", resume=True).progress.step == 2


def test_learning_rate_rises_and_falls(tmp_path):
    run = start(tmp_path / "run", steps=100, warm_up=10, learning_rate=1e-3)
    rates = [run.rate(i) for i in range(100)]
    assert (
        rates[0] == pytest.approx(1e-4)
        and max(rates) == pytest.approx(1e-3)
        and rates.index(max(rates)) in (9, 10)
    )
    assert rates[55] == pytest.approx(5e-4) and 0 < rates[-1] < 1e-6
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_train_run_from_a_phantom(tmp_path):
    """The whole way from a structure to weights that load; 4 Å pixels, so that the phantom fits a
    crop.
    """
    chosen = settings(
        phantoms=1,
        poses=2,
        steps=2,
        stream=RANGES.model_copy(update={"working_pixel_angstrom": 4.0}),
    )
    said, records = [], []
    path = train_run(tmp_path / "run", [], chosen, say=said.append, report=records.append)
    assert path == tmp_path / "run" / "weights.safetensors"
    assert "phantom1" in said[0]
    assert [r.step for r in records] == [2]
    card = load_weights(str(path))[1]
    assert (
        list(card.training["trained_on"]) == [line.split(":")[0] for line in said[:2]]
        and card.training["held_out"] == {}
    )
    before = path.read_bytes()
    with pytest.raises(OutputError, match="already holds a training run; add --resume"):
        train_run(tmp_path / "run", [], chosen)
    assert path.read_bytes() == before
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_train_run_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        train_run(tmp_path / "file", [], settings(phantoms=1))


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"architecture": "dsnet"}, SettingsError, "no network is called 'dsnet'"),
        ({"network": {"features": 1}}, SettingsError, "features"),
        ({"start_from": "nonesuch"}, WeightsError, "no model 'nonesuch'"),
    ],
)
def test_a_network_that_cannot_be_is_refused_before_projections(
    tmp_path, monkeypatch, changes, error, said
):
    def fail(*_, **__):
        raise AssertionError("projections were made")

    monkeypatch.setattr("dstnet.training.run.prepare", fail)
    with pytest.raises(error, match=said):
        train_run(tmp_path / "run", [], settings(phantoms=1, **changes))


@pytest.mark.parametrize("frame_weight", [0.0, 1.0])
def test_a_network_without_frames_of_its_own_trains(tmp_path, monkeypatch, frame_weight):
    monkeypatch.setitem(architectures.ARCHITECTURES, "toy", tiny.MeanNetwork)
    run = start(
        tmp_path / "run", architecture="toy", network={}, steps=3, frame_weight=frame_weight
    )
    records = []
    run.train(records.append)
    assert run.progress.step == 3 and float(run.network.scale.detach()) != 1
    loss = records[-1].loss
    assert loss is not None and loss > 0
    loaded, card = load_weights(str(run.release()))
    assert isinstance(loaded, tiny.MeanNetwork) and card.architecture == "toy"


def test_weights_of_windows_say_so_on_their_card(tmp_path):
    """Else they would be taken for whole movies'; and what their card calls exposure is one
    frame's.
    """
    ranges = RANGES.model_copy(
        update={"window": 3, "aligned": False, "frame_exposure_e_per_a2": (1.0, 4.0)}
    )
    run = start(tmp_path / "run", stream=ranges, steps=1, checkpoint_every=1)
    run.train(lambda r: None)
    card = read_card(run.release())
    assert (card.window, card.groups, card.valid_exposure_e_per_a2) == (3, 3, (1.0, 4.0))
