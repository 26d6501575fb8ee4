"""What training minimises, by the one table of outputs; and a made-up output: one row of that, and
its target.
"""

import json

import pytest
import tiny
import torch
from training_runs import RANGES, settings, species, start

from dstnet.errors import SettingsError
from dstnet.network import outputs
from dstnet.network.outputs import OUTPUTS, Output
from dstnet.network.weights import build, load_weights, released
from dstnet.training import TrainingSettings
from dstnet.training.batch import Batch, NoisyPair
from dstnet.training.objectives import NoiseToNoise, Supervised
from dstnet.training.simulated_crops import simulated_batch
from dstnet.training.targets import TARGETS
from dstnet.training.validation import validate


@pytest.fixture
def edges(monkeypatch):
    """A made-up output: one row of the table of outputs, and its target."""
    row = Output(
        name="edges",
        activation=torch.tanh,
        unit="signal",
        loss="image",
        weight=0.7,
        floor=0.1,
        ending="_edges.mrc",
        label="dstnet: EDGES of particles",
        caption="edges",
        help="Also write where particles end.",
    )
    monkeypatch.setitem(outputs.OUTPUTS, "edges", row)
    monkeypatch.setitem(TARGETS, "edges", lambda truth: torch.gradient(truth.clean, dim=0)[0])


@pytest.mark.usefixtures("edges")
def test_a_new_output_is_a_row_and_its_target(tmp_path):
    """It is built, trained by its own loss and weight, validated and released."""
    network = {**tiny.SETTINGS, "heads": ["edges", "particles"]}
    run = start(tmp_path / "run", network=network, steps=3, frame_weight=0.0)
    assert (
        run.settings.output_weights["edges"] == 0.7 and run.settings.output_floors["edges"] == 0.1
    )
    with_edges = float(run.objective(run.network, run.data[1].without_frame()).detach())
    run.objective.settings = settings(output_weights={"edges": 0.0})
    without = float(run.objective(run.network, run.data[1].without_frame()).detach())
    assert with_edges > without + 0.1
    run.objective.settings = run.settings
    before = run.network.reconstructor.leave.weight.detach().clone()
    records = []
    run.train(records.append)
    moved = (run.network.reconstructor.leave.weight - before).abs().amax((1, 2, 3))
    assert (moved[4:8] > 0).all(), "the channels that give the new output"
    assert 0 <= records[-1].measures["residual_edges"] <= 1
    loaded, card = load_weights(str(run.release()))
    assert loaded.outputs == ("micrograph", "edges", "particles")
    assert TrainingSettings.checked(card.training["settings"], "card") == run.settings


def test_every_output_has_a_target_or_is_the_micrographs_error():
    learnt = [name for name, row in OUTPUTS.items() if row.loss != "error_likelihood"]
    assert set(learnt) <= set(TARGETS)
    batch = simulated_batch(RANGES, [species()], batch=1, seed=0, index=0)
    assert batch.targets.keys() == TARGETS.keys()


def test_weights_and_floors_are_those_of_the_table_where_nothing_else_is_said():
    plain = TrainingSettings()
    assert plain.output_weights == {name: row.weight for name, row in OUTPUTS.items()}
    images = [row for row in OUTPUTS.values() if row.loss == "image"]
    assert plain.output_floors == {row.name: row.floor for row in images}
    changed = TrainingSettings(output_weights={"contrast": 0.1}, output_floors={"contrast": 0.2})
    assert changed.output_weights == {**plain.output_weights, "contrast": 0.1}
    assert changed.output_floors == {**plain.output_floors, "contrast": 0.2}
    assert TrainingSettings.checked(changed.model_dump(), "again") == changed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output_weights": {"shape": 1.0}}, "shape cannot be given here; there are micrograph"),
        ({"output_floors": {"particles": 1.0}}, "particles cannot be given here"),
        ({"output_weights": {"contrast": -1.0}}, "a weight is negative"),
        ({"output_floors": {"contrast": 0.0}}, "a floor is not above 0"),
    ],
)
def test_weights_and_floors_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(SettingsError, match=said):
        TrainingSettings.checked(changes, "settings")


def test_settings_of_older_runs_are_read_as_what_they_meant():
    older = {
        "power_floor": 5e-5,
        "contrast_floor": 2e-3,
        "contrast_weight": 0.1,
        "uncertainty_weight": 0.2,
        "particles_weight": 0.3,
        "stream": {"fractions": 3},
    }
    found = TrainingSettings.checked(older, "settings.yaml")
    weights = {"micrograph": 1.0, "contrast": 0.1, "uncertainty": 0.2, "particles": 0.3}
    # Only what the old settings name: outputs may have come since.
    assert weights.items() <= found.output_weights.items()
    floors = {"micrograph": 5e-5, "contrast": 2e-3}
    assert floors.items() <= found.output_floors.items()
    assert found.stream.groups == 3


@pytest.mark.parametrize("name", sorted(released()))
def test_released_cards_hold_settings_that_can_be_trained_with_again(name):
    path = released()[name].with_suffix(".json")
    stored = json.loads(path.read_text())["training"]["settings"]
    found = TrainingSettings.checked(stored, str(path))
    assert found.output_weights["contrast"] == stored["contrast_weight"]
    assert found.output_floors["micrograph"] == stored["power_floor"]
    assert found.stream.groups == stored["stream"]["fractions"]
    assert load_weights(name)[1].training["settings"] == stored


def test_a_frames_own_image_is_learnt_where_it_is_asked_for():
    torch.manual_seed(0)
    network = build("dstnet", tiny.SETTINGS)
    batch = simulated_batch(RANGES, [species()], batch=1, seed=0, index=0)
    objective = Supervised(settings(), network.outputs)
    with torch.no_grad():
        loss, alone = (float(objective(network, b)) for b in (batch, batch.without_frame()))
    assert loss > alone


# Without truth


def pair(seed=0, ratio=2.0):
    torch.manual_seed(seed)
    return NoisyPair(
        torch.randn(1, 2, 64, 64),
        torch.randn(1, 64, 64),
        torch.zeros(1, 2, 3),
        torch.randn(64, 64),
        ratio,
    )


def test_noise_to_noise_is_the_weighted_distance_to_other_frames():
    network, given = tiny.make_network(), pair()
    objective = NoiseToNoise(torch.ones(8), tiny.make_network(1), 0.0)
    with torch.no_grad():
        image = network(given.frames, given.total, given.exposure)[0, 0]
        found = float(objective(network, given))
    # All rings weighted alike: the sum of squares over pixels (Parseval), over the ratio.
    expected = float((2.0 * image - given.target).square().sum()) / 2.0
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_anchor_is_nothing_at_the_start_and_grows_with_the_distance():
    given, weight = pair(), torch.ones(8)
    start_network, moved = tiny.make_network(0), tiny.make_network(1)
    with torch.no_grad():
        for network, far in ((start_network, False), (moved, True)):
            plain, anchored = (
                float(NoiseToNoise(weight, start_network, anchor)(network, given))
                for anchor in (0.0, 1.0)
            )
            assert (anchored > plain * (1 + 1e-6)) == far


def test_validation_is_of_what_the_network_gives():
    network = tiny.make_network()
    batch = simulated_batch(
        RANGES.model_copy(update={"empty": 0.0}), [species()], batch=2, seed=1, index=0
    )
    found = validate(network, [batch], torch.device("cpu"))
    assert {"residual", "residual_contrast", "residual_particles", "error_over_expected"} <= set(
        found
    )
    assert isinstance(batch, Batch) and all(value >= 0 for value in found.values())
