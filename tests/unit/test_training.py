"""Training: the stream of crops, the split, and runs that are stopped, spoilt and taken up
again.
"""

import json
import math
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from training_runs import RANGES, settings, species, start

from dstnet.detector.camera import DetectorSettings
from dstnet.errors import DstnetError, OutputError, SettingsError, WeightsError
from dstnet.motion.field import MotionSettings
from dstnet.network.weights import load_weights, read_card
from dstnet.simulation import SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.structure import phantom
from dstnet.training import TrainingSettings, checkpoint, train_run, trainer
from dstnet.training.simulated_crops import (
    CropStream,
    StreamSettings,
    draw_batch,
    draw_settings,
    make_crop,
    split_debris,
)
from dstnet.training.species import NEVER_TRAINED, piece, prepare, split, stem

# The stream


def tensors(crops):
    return [
        getattr(c, n)
        for c in crops
        for n in ("frames", "total", "exposure", "target", "frame_target")
    ]


def test_a_batch_depends_on_seed_and_number_only():
    first, which = draw_batch(RANGES, [species()], 2, 7, 3)
    torch.rand(5)  # the global generator does not matter
    again, which_again = draw_batch(RANGES, [species()], 2, 7, 3)
    assert which == which_again
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(again), strict=True))
    for seed, index in ((7, 4), (8, 3)):
        other, _ = draw_batch(RANGES, [species()], 2, seed, index)
        assert other[0].total.shape != first[0].total.shape or not torch.equal(
            other[0].total, first[0].total
        )
        assert other[0].settings != first[0].settings
    assert first[0].settings != first[1].settings, "crops of a batch differ"


def test_a_stream_entered_later_goes_on_the_same():
    whole = list(CropStream(RANGES, [species()], 1, 0, 0, 3))
    later = list(CropStream(RANGES, [species()], 1, 0, 2, 3))
    assert len(whole) == 3 and len(later) == 1
    assert all(torch.equal(a, b) for a, b in zip(whole[2], later[0], strict=True))


def test_a_crop_is_what_the_network_takes():
    for index in range(4):
        crops, which = draw_batch(RANGES, [species(), species("wide", 10)], 2, 1, index)
        count = len(crops[0].frames)
        assert 1 <= count <= 3 and 0 <= which < count
        for crop in crops:
            assert crop.frames.shape == (count, 64, 64) and crop.exposure.shape == (count, 3)
            assert crop.total.shape == crop.target.shape == crop.frame_target.shape == (64, 64)
            assert all(torch.isfinite(x).all() for x in tensors([crop]))


def test_drawn_conditions_are_valid_and_within_their_ranges():
    ranges = StreamSettings()
    low, high = ranges.exposure_e_per_a2
    drawn = [draw_settings(ranges, 1 + i % 8, torch.Generator().manual_seed(i)) for i in range(200)]
    for i, s in enumerate(drawn):
        assert SimulationSettings.checked(s.model_dump(), "again") == s
        assert s.shape == (256, 256) and s.pixel_size_angstrom == 2 and s.frames == 1 + i % 8
        assert low * 0.999 <= s.exposure_e_per_a2 * s.frames <= high * 1.001
        assert 4000 * 0.999 <= s.optics.defocus_angstrom <= 32000 * 1.001
        assert s.specimen.coverage == 0 or 0.02 <= s.specimen.coverage <= 0.6
    # Half of the exposures lie above the range's 2/3 in log (0.5^0.6 = 0.66), and 6 % of fields are
    # empty: each within 5 standard errors.
    strong = sum(s.exposure_e_per_a2 * s.frames > low * (high / low) ** 0.66 for s in drawn)
    assert abs(strong - 100) < 5 * math.sqrt(200 * 0.25)
    empty = sum(s.specimen.coverage == 0 for s in drawn)
    assert 0 < empty < 12 + 5 * math.sqrt(200 * 0.06)
    assert {s.optics.voltage_kv for s in drawn} == {200.0, 300.0}
    assert {s.detector.mode for s in drawn} == {"counting", "integrating"}


def test_empty_crops_have_an_empty_target():
    ranges = RANGES.model_copy(update={"empty": 1.0})
    for crop in draw_batch(ranges, [species()], 2, 0, 0)[0]:
        assert not crop.target.any() and not crop.frame_target.any()
        assert float(crop.total.std()) > 0.5


def strong_crop(**changes):
    settings = SimulationSettings(
        shape=(128, 128),
        pixel_size_angstrom=2.0,
        frames=2,
        exposure_e_per_a2=200.0,
        damage=None,
        specimen=SpecimenSettings(coverage=0.3, ice_noise=0.0, thickness_gradient=0.0),
        motion=MotionSettings(
            burst_angstrom=0, drift_angstrom_per_e=0, jitter_angstrom=0, local_angstrom=0
        ),
        detector=DetectorSettings(mtf_half_frequency=None),
    )
    return make_crop(settings.model_copy(update=changes), [species()], 11, which=1, known=True)


def test_the_target_is_in_units_of_the_sums_noise():
    """total = target + unit noise: the slope of total on target is one, with standard error 1 /
    |target|.
    """
    crop = strong_crop()
    target = crop.target - crop.target.mean()
    slope = float((target * crop.total).sum() / target.square().sum())
    error = 1 / float(target.norm())
    assert error < 0.03, "a field too faint to tell"
    # The target is relative to the whole sum's mean, the contrast to the empty field's: their ratio
    # is 1 + the mean contrast.
    s = crop.settings
    counts = (
        s.frames * s.exposure_e_per_a2 * s.pixel_size_angstrom**2 * s.detector.quantum_efficiency
    )
    mean_contrast = float(crop.target.mean()) / math.sqrt(counts)
    assert slope * (1 + mean_contrast) == pytest.approx(1, abs=5 * error)
    residual = crop.total - slope * target
    # 5 standard errors of the noise's estimate, from the 2600 coefficients in its band
    assert float(residual.std()) == pytest.approx(1, abs=5 * 0.5 / math.sqrt(2600))


def test_a_still_undamaged_frame_has_the_whole_target():
    crop = strong_crop()
    torch.testing.assert_close(
        crop.frame_target, crop.target, rtol=1e-3, atol=1e-4 * float(crop.target.abs().max())
    )
    damaged = strong_crop(damage="grant_grigorieff", exposure_e_per_a2=40.0)
    assert damaged.frame_target.norm() < 0.9 * damaged.target.norm()


def test_exposure_told_is_the_middle_of_each_fraction():
    crop = strong_crop(exposure_e_per_a2=10.0, pre_exposure_e_per_a2=5.0)
    expected = torch.tensor([[1.0, math.log(10) / 3, 10 / 50], [1.0, math.log(10) / 3, 20 / 50]])
    torch.testing.assert_close(crop.exposure, expected)


# The split


FILES = [Path(p) for p in ("a/1ABC.pdb", "6z6u.cif.gz", "b/2xyz.cif", "3DEF.pdb.gz")]


def test_a_structure_is_known_by_its_files_name():
    assert [stem(p) for p in FILES] == ["1abc", "6z6u", "2xyz", "3def"]


def test_split_is_by_name_and_complete():
    train, held = split(FILES, ["2XYZ"])
    assert [stem(p) for p in train] == ["1abc", "3def"]
    assert {stem(p) for p in held} == {"2xyz", "6z6u"}
    assert not set(train) & set(held) and set(train) | set(held) == set(FILES)


@pytest.mark.parametrize("held_out", [[], ["1abc"], ["6Z6U"]])
def test_what_proves_the_weights_is_never_trained_on(held_out):
    assert "6z6u" in NEVER_TRAINED
    train, held = split([*FILES, Path("other/6Z6U.PDB")], held_out)
    assert not {stem(p) for p in train} & NEVER_TRAINED
    assert sum(stem(p) == "6z6u" for p in held) == 2


def test_unknown_hold_out_is_refused():
    with pytest.raises(
        SettingsError, match="cannot hold out 9zzz: no such structure among 1abc, 2xyz, 3def, 6z6u"
    ):
        split(FILES, ["9zzz", "1abc"])


@pytest.mark.parametrize(
    ("phantoms", "widest", "match"),
    [(0, 1000.0, "give structure files, or phantoms"), (1, 50.0, "wider than")],
)
def test_nothing_to_train_on(phantoms, widest, match):
    with pytest.raises(SettingsError, match=match):
        prepare(
            [],
            [],
            phantoms=phantoms,
            poses=1,
            pixel_size_angstrom=4.0,
            seed=0,
            widest_angstrom=widest,
            report=lambda line: None,
        )


def test_each_structure_gives_a_piece_too():
    banks, held, digests = prepare(
        [],
        [],
        phantoms=2,
        poses=1,
        pixel_size_angstrom=4.0,
        seed=0,
        widest_angstrom=1000.0,
        report=lambda line: None,
    )
    names = [one.name for one in banks]
    assert (
        [n.endswith("-piece") for n in names] == [False, False, True, True]
        and list(digests) == names
        and held == []
    )
    particles, debris = split_debris(banks)
    assert [one.name for one in debris] == names[2:] and len(particles) == 2


def test_a_piece_is_a_ball_of_its_structure():
    whole = phantom(3)
    for seed in range(5):
        broken = piece(whole, torch.Generator().manual_seed(seed))
        assert 2 < broken.mass_kda < 70
        assert 20 < broken.diameter_angstrom < 56
        assert abs(broken.positions_angstrom.mean(0)).max() < 1e-3
        assert (
            len(broken.elements)
            == len(broken.b_factors)
            == len(broken.occupancies)
            == len(broken)
            < len(whole) / 3
        )


# Runs


class Killed(BaseException):
    """What a kill is to the trainer."""


def killed_at(step):
    def report(record):
        if record["step"] == step:
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
    assert card.fractions == 3 and card.working_pixel_angstrom == 2


def test_training_changes_every_weight(whole_run):
    torch.manual_seed(0)
    before = tiny.make_network().state_dict()
    after = load_weights(str(whole_run / "weights.safetensors"))[0].state_dict()
    assert not [k for k, v in before.items() if torch.equal(v.half().float(), after[k])]


def test_a_killed_run_goes_on_as_if_nothing_had_been(whole_run, tmp_path):
    with pytest.raises(Killed):
        start(tmp_path / "run").train(killed_at(2))
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
    path, real = tmp_path / "run" / "checkpoint.safetensors", trainer.image_loss

    def image_loss(*arguments, **weights):
        return real(*arguments, **weights) * (float("nan") if path.exists() else 1)

    monkeypatch.setattr(trainer, "image_loss", image_loss)
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

    real = trainer.image_loss
    monkeypatch.setattr(trainer, "image_loss", lambda *a, **k: Bad.apply(real(*a, **k)))
    with pytest.raises(
        DstnetError, match=r"the gradient became (nan|inf) at step 4; the last checkpoint stays"
    ):
        run.train(quiet)
    assert start(tmp_path / "run", resume=True).progress.step == 2


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    file = tmp_path / "run" / "checkpoint.safetensors"
    real, kept = checkpoint.save_file, []

    def save_file(tensors, path, metadata):
        if not file.exists():
            return real(tensors, path, metadata)
        kept.append(file.read_bytes())
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", save_file)
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
    assert [r["step"] for r in records] == [2]
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_crops_are_made_on_a_gpu():
    crops, _ = draw_batch(StreamSettings(crop=64), [species()], 2, seed=0, index=0, device="cuda")
    for crop in crops:
        assert {
            t.device.type
            for t in (crop.frames, crop.total, crop.exposure, crop.target, crop.frame_target)
        } == {"cuda"}


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
    assert (card.window, card.fractions, card.valid_exposure_e_per_a2) == (3, 3, (1.0, 4.0))
