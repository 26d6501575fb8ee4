"""Fine-tuning without truth: independence of input and target, their scale, what is judged, and
every way a run ends.
"""

import json
import math

import numpy as np
import pytest
import tiny
import torch

from dstnet.alignment import AlignmentSettings
from dstnet.errors import BadInputError, OutputError, SettingsError
from dstnet.movie import Exposure, Movie
from dstnet.network import architectures
from dstnet.network.weights import save_weights
from dstnet.training.finetune import FinetuneSettings, finetune_run, held_out_score
from dstnet.training.finetune.checkerboard import checkerboard
from dstnet.training.finetune.crops import extract_crops, split_crops
from dstnet.training.finetune.finetuning import Finetuning
from dstnet.training.finetune.pairs import halves, make_pair, sample_example

SETTINGS = FinetuneSettings(
    crop=64,
    held_out=0.5,
    steps=12,
    batch=2,
    learning_rate=1e-2,
    check_every=4,
    alignment=AlignmentSettings(patches=0, resolution_angstrom=12),
)


def movie(frames=4, *, mean=(20.0,), signal=0.3, seed=0, side=136, exposure=None, name="m"):
    """Poisson counts of dark discs at 2 Å; `mean` electrons a pixel, of each frame in turn."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    discs = sum(
        np.exp(-((((y - cy) ** 2 + (x - cx) ** 2) / 18) ** 2))
        for cy, cx in random.uniform(6, side - 6, (30, 2))
    )
    counts = [
        random.poisson(mean[i % len(mean)] * np.clip(1 - signal * discs, 0.05, None))
        for i in range(frames)
    ]
    known = None if exposure is None else Exposure.uniform(frames, exposure)
    return Movie(np.stack(counts).astype(np.float32), 2.0, name, known)


def crops(**changes):
    network = tiny.make_network()
    return extract_crops(movie(**changes), tiny.make_card(network), network.stride, SETTINGS)


def finetuning(movies, settings=SETTINGS, seed=0):
    network = tiny.make_network(seed)
    learn, judge = split_crops(movies, settings)
    return Finetuning(learn, judge, network, tiny.make_card(network), settings)


# Crops and examples


def test_crops_have_unit_noise_and_lie_apart():
    found = crops(frames=9, signal=0.0)
    assert found.images.shape == (4, 8, 64, 64), "twice the card's four groups"
    assert found.images.float().std() == pytest.approx(1, abs=0.02)
    # Nine frames in eight groups: the first has two.
    assert found.noise[0] / found.noise[1] == pytest.approx(math.sqrt(2), rel=0.03)
    flat = found.images.float().flatten(2)[:, 0]
    assert (torch.corrcoef(flat) - torch.eye(4)).abs().max() < 5 / 64
    assert found.exposure is None
    assert crops(exposure=1.5).exposure.frame_e_per_a2 == (1.5,) * 4


def test_a_single_image_is_refused_in_clear_words():
    with pytest.raises(BadInputError, match=r"single image.*2 frames or more"):
        crops(frames=1)
    with pytest.raises(BadInputError, match="no crop of 64"):
        crops(side=60)


def test_input_and_target_share_no_frame():
    noise = crops(frames=8, signal=0.0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        shown = sample_example([noise], 4, generator)
        assert (
            1 <= shown.frames.shape[1] <= 4 and shown.exposure.shape[:2] == shown.frames.shape[:2]
        )
        r = torch.corrcoef(torch.stack((shown.total.flatten(), shown.target.flatten())))[0, 1]
        assert abs(float(r)) < 5 / 64
        assert shown.total.std() == pytest.approx(
            1, abs=0.05
        ) and shown.target.std() == pytest.approx(1, abs=0.05)


def test_the_scale_holds_for_frames_of_unequal_exposure():
    strong = crops(frames=2, mean=(160.0, 10.0), signal=0.5, seed=3)
    assert strong.noise[0] / strong.noise[1] == pytest.approx(4, rel=0.05)
    cross, power = 0.0, 0.0
    for crop in range(4):
        shown = make_pair(strong, crop, [0], 4)
        total, target = shown.total[0], shown.target
        cross += float((total * target).mean())
        power += float(total.square().mean()) - 1  # its own noise
        assert shown.signal_ratio == pytest.approx(1 / make_pair(strong, crop, [1], 4).signal_ratio)
    # The slope of the faint frame on the clean part of the strong one.
    assert cross / power == pytest.approx(float(strong.noise[1] / strong.noise[0]), rel=0.08)


def test_groups_carry_their_exposure_and_turns_keep_input_and_target_together():
    found = crops(frames=8, exposure=2.0)
    shown = make_pair(found, 0, [0, 1, 2, 4, 5], 4)
    assert shown.frames.shape == (1, 4, 64, 64)
    own = (shown.exposure[0, :, 1] * 3).exp()
    assert own.tolist() == pytest.approx([2, 2, 2, 4]) and shown.exposure[
        0, 3, 2
    ] * 50 == pytest.approx(2 * 5)
    turned = [make_pair(found, 0, [0, 1], 4, turn) for turn in range(8)]
    assert len({tuple(t.total.flatten()[:3].tolist()) for t in turned}) == 8
    products = [float((t.total[0] * t.target).sum()) for t in turned]
    assert products == pytest.approx([products[0]] * 8, rel=1e-4)


def test_movies_are_kept_apart_and_of_one_movie_crops():
    movies = [crops(name=f"m{i}", frames=2, seed=i) for i in range(4)]
    learn, judge = split_crops(movies, SETTINGS)
    assert sorted(m.name for m in learn + judge) == ["m0", "m1", "m2", "m3"] and len(judge) == 2
    learn, judge = split_crops(movies[:1], SETTINGS)
    together = torch.cat((learn[0].images, judge[0].images))
    assert len(learn[0].images) == 2 and len(torch.unique(together.flatten(1), dim=0)) == 4
    with pytest.raises(BadInputError, match="fewer than two to judge by"):
        split_crops([movies[0].subset([0]), movies[1].subset([2])], SETTINGS)
    with pytest.raises(BadInputError, match="fewer than two to judge by"):
        split_crops([movies[0].subset([0, 1])], SETTINGS)


# The checkerboard


@pytest.mark.parametrize(("period", "place"), [(2, 0), (4, 1), (8, 2)])
def test_a_pattern_shows_at_its_period(period, place):
    images = torch.randn(8, 128, 128, generator=torch.Generator().manual_seed(0))
    ratio, share = checkerboard(images, 16)
    # 8 images, 3 points or more, 25 terms at each, of which the window leaves a quarter
    # independent: 150 or more.
    assert ratio.shape == (3,) and (ratio - 1).abs().max() < 5 / math.sqrt(150), (
        "a side of 128 has no room beside a period of 16"
    )
    assert share.abs().max() < 5e-3
    pattern = torch.zeros(period, period)
    pattern[0, 0] = 0.3 * period
    planted_ratio, planted_share = checkerboard(
        images + pattern.repeat(128 // period, 128 // period), 16
    )
    # The pattern's power is 0.09 to the noise's 1; three quarters of it lie at the points that are
    # no shorter period's.
    assert planted_share[place] - share[place] == pytest.approx(0.09 / 1.09 * 0.75, rel=0.1)
    assert planted_ratio[place] > 1.5 * ratio[place]
    # The points of longer periods are not touched.
    assert planted_ratio[place + 1 :].tolist() == pytest.approx(
        ratio[place + 1 :].tolist(), rel=0.1
    )


# Runs


def test_a_run_gains_where_frames_share_a_signal_and_repeats():
    movies = [crops(name=f"m{i}", seed=i) for i in range(2)]
    first = finetuning(movies)
    before = {k: v.clone() for k, v in first.start.state_dict().items()}
    outcome = first.train()
    assert outcome.network is not None and outcome.record is not None, outcome.why
    assert outcome.record.gain > 0.5 and outcome.record.gain > 2 * outcome.record.gain_error > 0
    assert all(torch.equal(v, before[k]) for k, v in first.start.state_dict().items())
    again = finetuning(movies).train()
    assert again.records == outcome.records
    moved = {
        k
        for k, v in outcome.network.state_dict().items()
        if not torch.equal(v, before[k].half().float())
    }
    assert moved and not any(k.startswith("reconstructor.leave") for k in moved), (
        "the layer before the sub-pixel shuffle is frozen"
    )
    # As written: half precision loses nothing more.
    assert all(torch.equal(v, v.half().float()) for v in outcome.network.state_dict().values())


def test_noise_alone_gains_nothing_and_it_is_said():
    outcome = finetuning([crops(name=f"n{i}", signal=0.0, seed=i) for i in range(2)]).train()
    assert outcome.network is None and outcome.record is None
    assert (
        "better than the starting ones" in outcome.why
        or "is below 2 standard errors" in outcome.why
    )


def test_a_checkerboard_stops_the_run_and_what_was_before_it_is_kept(monkeypatch):
    movies = [crops(name=f"m{i}", seed=i) for i in range(2)]
    plain = finetuning(movies).train()
    calls = []

    def growing(images, stride):
        calls.append(len(images))
        shows = (
            len(calls) > 3
        )  # after those of what is learnt from, what is judged by, and the first check
        return torch.tensor([[1.0, 1.6 if shows else 1.0], [0.0, 0.01 if shows else 0.0]])

    monkeypatch.setattr(held_out_score, "checkerboard", growing)
    outcome = finetuning(movies).train()
    assert "checkerboard began to show at step 8" in outcome.why and len(outcome.records) == 3
    assert (
        outcome.record is not None
        and outcome.record.gain == plain.records[1].gain
        and outcome.record.step == 4
    )


def test_a_run_stops_where_nothing_is_gained_any_more():
    settings = SETTINGS.model_copy(
        update={"learning_rate": 1e-9, "steps": 60, "check_every": 1, "patience": 2}
    )
    outcome = finetuning([crops(name=f"m{i}", seed=i) for i in range(2)], settings).train()
    assert (
        outcome.network is None
        and len(outcome.records) < 20
        and "nothing was gained after" in outcome.why
    )


def test_a_loss_that_is_no_number_stops_the_run(monkeypatch):
    run = finetuning([crops(name=f"m{i}", seed=i) for i in range(2)])
    plain, steps = run.objective, []

    def spoilt(network, pair):
        steps.append(0)
        return plain(network, pair) * (math.nan if len(steps) > 8 else 1)

    monkeypatch.setattr(run, "objective", spoilt)
    outcome = run.train()
    assert "loss became nan at step 5" in outcome.why
    assert outcome.record is not None and outcome.record.step == 4, "what was gained before is kept"


def test_the_anchor_holds_the_other_outputs():
    movies = [crops(name=f"m{i}", seed=i) for i in range(2)]
    moved = {}
    for anchor in (0.0, 10.0):
        run = finetuning(movies, SETTINGS.model_copy(update={"anchor": anchor, "certainty": 0.0}))
        network = run.train().network
        assert network is not None
        shown = make_pair(movies[0], 0, halves(movies[0])[0], 4)
        index = run.start.outputs.index("contrast")
        with torch.no_grad():
            then, now = (
                n(shown.frames, shown.total, shown.exposure)[0, index] for n in (run.start, network)
            )
        moved[anchor] = float((now - then).square().mean() / then.square().mean())
    assert moved[10.0] < 0.3 * moved[0.0]


@pytest.mark.parametrize(
    ("frozen", "said"),
    [(("shuffle",), "no layer 'shuffle'"), (("spatial", "temporal", "fusion", "rec"), "is all of")],
)
def test_layers_to_freeze_are_checked(tmp_path, frozen, said):
    settings = SETTINGS.model_copy(
        update={"model": str(tiny.save_model(tmp_path)), "frozen": frozen}
    )
    with pytest.raises(SettingsError, match=said):
        finetune_run(tmp_path / "run", {"m": movie}, settings)


def test_what_stays_frozen_is_the_networks_own_where_nothing_is_said(tmp_path, monkeypatch):
    plain = FinetuneSettings()
    assert plain.frozen_of(tiny.make_network()) == ("reconstructor.leave",)
    assert FinetuneSettings(frozen=()).frozen_of(tiny.make_network()) == ()
    monkeypatch.setitem(architectures.ARCHITECTURES, "toy", tiny.MeanNetwork)
    network = architectures.build("toy", {})
    card = tiny.make_card(network, architecture="toy")
    save_weights(network, card, tmp_path / "toy.safetensors")
    changes = {"model": str(tmp_path / "toy.safetensors"), "steps": 2, "check_every": 2}
    movies = {f"m{i}": lambda i=i: movie(name=f"m{i}", seed=i) for i in range(2)}
    finetune_run(tmp_path / "run", movies, SETTINGS.model_copy(update=changes))
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert outcome["ended"].startswith("all 2 steps are done")
    assert "frozen: []" in (tmp_path / "run" / "settings.yaml").read_text()


def test_bad_movies_are_named_and_the_rest_goes_on(tmp_path):
    model = tiny.save_model(tmp_path)
    settings = SETTINGS.model_copy(update={"model": str(model)})
    said = []
    movies = {f"m{i}": lambda i=i: movie(name=f"m{i}", seed=i) for i in range(2)}
    path, failures = finetune_run(
        tmp_path / "run", {**movies, "one": lambda: movie(1, name="one")}, settings, say=said.append
    )
    assert path == tmp_path / "run" / "weights.safetensors" and path.is_file()
    assert len(failures) == 1 and failures[0].startswith("one is a single image")
    with pytest.raises(OutputError, match="already holds weights"):
        finetune_run(tmp_path / "run", movies, settings)
    with pytest.raises(BadInputError, match="no movie is left"):
        finetune_run(tmp_path / "other", {"one": lambda: movie(1, name="one")}, settings)
