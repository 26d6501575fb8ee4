"""DST-Net's four parts, its call, its registry, and weights files whole and damaged."""

import hashlib
import json

import pytest
import tiny
import torch
from torch import nn

from dstnet.errors import SettingsError, WeightsError
from dstnet.movie import Exposure
from dstnet.network import weights
from dstnet.network.dstnet import DSTNet, DSTNetSettings
from dstnet.network.inputs import exposure_inputs
from dstnet.network.weights import build, load_weights, read_card, released, save_weights


def example(count, batch=1, shape=(24, 16), seed=0):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(batch, count, *shape, generator=generator)
    exposure = exposure_inputs(Exposure.uniform(count, 2.0), count).expand(batch, count, 3)
    return frames, frames.sum(1) / count**0.5, exposure


@pytest.fixture(scope="module")
def network():
    return tiny.make_network()


@pytest.fixture
def model(tmp_path):
    return tiny.save_model(tmp_path)


def test_the_four_parts_are_modules(network):
    for part in ("spatial", "temporal", "fusion", "reconstructor"):
        assert isinstance(getattr(network, part), nn.Module)
        assert sum(p.numel() for p in getattr(network, part).parameters()) > 0


@torch.no_grad()
def test_every_part_matters(network):
    """Silencing any part's first weights changes the micrograph: no part is only carried along."""
    inputs = example(3)
    before = network(*inputs)
    for part in ("spatial", "temporal", "fusion", "reconstructor"):
        changed = tiny.make_network()
        next(getattr(changed, part).parameters()).zero_()
        assert not torch.allclose(changed(*inputs), before), part


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 5, 8, 17])
def test_any_number_of_frames(network, count):
    inputs = example(count, batch=2)
    assert network.outputs == ("micrograph", "contrast", "uncertainty", "particles")
    assert network(*inputs).shape == (2, 4, 24, 16)
    assert network(*inputs, which=count - 1).shape == (2, 5, 24, 16)
    every = network(*inputs, every=True)
    assert every.shape == (2, 4 + count, 24, 16)
    assert (every[:, 2:4] > 0).all() and (every[:, 3] < 1).all()
    assert torch.isfinite(every).all()


@torch.no_grad()
def test_frame_images_are_extra_and_the_right_ones(network):
    inputs = example(4)
    micrograph, every = network(*inputs), network(*inputs, every=True)
    assert torch.equal(every[:, :4], micrograph)
    for which in range(4):
        assert torch.equal(network(*inputs, which=which), every[:, [0, 1, 2, 3, 4 + which]])
    assert not torch.allclose(every[:, 4], every[:, 5])


@torch.no_grad()
@pytest.mark.parametrize("part", ["spatial", "temporal", "fusion", "reconstructor"])
def test_a_part_left_out_is_left_out(network, part):
    """The network without it has fewer weights, takes and gives the same, and any number of frames
    still matters.
    """
    less = build("dstnet", {**tiny.SETTINGS, "without": [part]}).eval()
    assert sum(p.numel() for p in less.parameters()) < sum(p.numel() for p in network.parameters())
    inputs = example(3)
    assert less(*inputs, every=True).shape == network(*inputs, every=True).shape
    frames, total, exposure = inputs
    other = frames.clone()
    other[:, 0] += torch.randn(frames.shape[2:], generator=torch.Generator().manual_seed(9))
    assert not torch.allclose(less(other, total, exposure), less(frames, total, exposure))


@torch.no_grad()
def test_heads_are_settings():
    """A network without heads gives the same micrograph from the same weights; each head is its own
    image.
    """
    inputs = example(3)
    network = tiny.make_network()
    full = network(*inputs)
    for heads in [(), ("contrast",), ("uncertainty",), ("particles", "contrast")]:
        less = build("dstnet", {**tiny.SETTINGS, "heads": heads}).eval()
        state = network.state_dict()
        for part in ("weight", "bias"):
            rows = [0, *(1 + network.settings.heads.index(h) for h in heads)]
            name = f"reconstructor.leave.{part}"
            state[name] = torch.cat([network.state_dict()[name][4 * i : 4 * i + 4] for i in rows])
        less.load_state_dict(state)
        assert less.outputs == ("micrograph", *heads)
        torch.testing.assert_close(less(*inputs), full[:, rows])
    with pytest.raises(SettingsError, match="twice"):
        build("dstnet", {**tiny.SETTINGS, "heads": ["contrast", "contrast"]})
    with pytest.raises(SettingsError, match="blocks names 1 scales, widths 2"):
        build("dstnet", {**tiny.SETTINGS, "blocks": [1]})


@torch.no_grad()
def test_a_larger_network_starts_from_a_smaller_one(tmp_path):
    """The micrograph is that of the smaller one's weights: new blocks begin as the identity, and
    new channels are other outputs.
    """
    small = build("dstnet", {**tiny.SETTINGS, "heads": []}).eval()
    card = tiny.make_card(small)
    save_weights(small, card, tmp_path / "small.safetensors")
    large = build("dstnet", {**tiny.SETTINGS, "blocks": [1, 3]}).eval()
    inputs = example(3)
    assert (
        weights.load_matching_weights(large, str(tmp_path / "small.safetensors")).name == card.name
    )
    stored = load_weights(str(tmp_path / "small.safetensors"))[0]
    torch.testing.assert_close(large(*inputs)[:, :1], stored(*inputs))
    save_weights(large, tiny.make_card(large), tmp_path / "large.safetensors")
    with pytest.raises(WeightsError, match="no place for its reconstructor"):
        weights.load_matching_weights(small, str(tmp_path / "large.safetensors"))


@torch.no_grad()
def test_a_movie_does_not_see_its_batch(network):
    """Memory over frames belongs to one movie: each of a batch comes out as it does alone."""
    frames, total, exposure = example(5, batch=3)
    together = network(frames, total, exposure, every=True)
    for i in range(3):
        alone = network(frames[i : i + 1], total[i : i + 1], exposure[i : i + 1], every=True)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_frames_pass_in_order(network):
    """The recurrence has a direction: the same frames the other way round are another movie."""
    frames, total, exposure = example(4)
    assert not torch.allclose(
        network(frames, total, exposure), network(frames.flip(1), total, exposure)
    )


@torch.no_grad()
def test_what_is_known_of_exposure_changes_the_output(network):
    frames, total, exposure = example(4)
    unknown = exposure_inputs(None, 4)[None]
    assert not unknown.any()
    assert not torch.allclose(network(frames, total, exposure), network(frames, total, unknown))


@torch.no_grad()
def test_inputs_are_not_written_to(network):
    inputs = example(3)
    copies = [x.clone() for x in inputs]
    network(*inputs, every=True)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 16, 16)])
def test_stride_is_the_least_side(widths):
    network = DSTNet(
        DSTNetSettings(
            features=8, growth=4, dense_layers=1, widths=widths, blocks=(1,) * len(widths)
        )
    )
    assert network.stride == 2 ** len(widths)
    side = network.stride
    assert network(*example(2, shape=(side, 3 * side))).shape == (1, 4, side, 3 * side)


def test_gradients_reach_every_weight():
    network = tiny.make_network()
    network(*example(3), which=1).square().mean().backward()
    missing = [
        n
        for n, p in network.named_parameters()
        if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    assert not missing


def test_registry_refuses():
    with pytest.raises(SettingsError, match="no network is called 'unet'; there are dstnet"):
        build("unet", {})
    for wrong in ({"depth": 3}, {"features": 1}, {"widths": []}, {"features": "many"}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            build("dstnet", wrong)


def test_round_trip_in_half_precision(tmp_path):
    network = tiny.make_network()
    card = save_weights(network, tiny.make_card(network), tmp_path / "a.safetensors")
    loaded, read = load_weights(str(tmp_path / "a.safetensors"))
    assert (
        read == card
        and card.sha256 == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    )
    assert not loaded.training
    state = loaded.state_dict()
    for name, value in network.state_dict().items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], value.half().float()), name
    # 2^-11 relative a weight; only the dozen layers in a row can gather it.
    with torch.no_grad():
        a, b = network(*example(3)), loaded(*example(3))
    assert float((a - b).norm() / a.norm()) < 12 * 2**-11


def refused(path, match):
    with pytest.raises(WeightsError, match=match) as caught:
        load_weights(str(path))
    message = str(caught.value)
    assert path.stem in message and "\n" not in message


def edit_card(path, **changes):
    card_path = path.with_suffix(".json")
    card_path.write_text(json.dumps({**json.loads(card_path.read_text()), **changes}))


def test_truncated(model):
    model.write_bytes(model.read_bytes()[:-100])
    refused(model, "truncated or changed")


def test_one_byte_changed(model):
    raw = bytearray(model.read_bytes())
    raw[-50] ^= 1
    model.write_bytes(raw)
    refused(model, "truncated or changed")


def test_not_safetensors_though_the_card_says_so(model):
    model.write_bytes(b"no tensors here")
    edit_card(model, sha256=weights.digest(model))
    refused(model, "does not hold dstnet weights")


def test_card_missing(model):
    model.with_suffix(".json").unlink()
    refused(model, "cannot read the card")


@pytest.mark.parametrize("content", ["", "not json", "[1, 2]", "{}", '{"name": "tiny"}', "\udcff"])
def test_card_unreadable(model, content):
    model.with_suffix(".json").write_bytes(content.encode(errors="surrogateescape"))
    refused(model, "cannot read the card")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"colour": "red"}, "colour"),
        ({"working_pixel_angstrom": 0}, "working_pixel_angstrom"),
        ({"architecture": "unet"}, "no network is called 'unet'"),
        ({"architecture_settings": {**tiny.SETTINGS, "depth": 3}}, "depth"),
        ({"architecture_settings": {**tiny.SETTINGS, "features": 16}}, "size mismatch"),
        (
            {"architecture_settings": {**tiny.SETTINGS, "widths": [8], "blocks": [1]}},
            "Unexpected key",
        ),
    ],
)
def test_card_of_something_else(model, changes, match):
    edit_card(model, **changes)
    refused(model, match)


def test_unknown_model_names_the_released_ones(monkeypatch, tmp_path, model):
    with pytest.raises(WeightsError, match="no model 'nonesuch'") as caught:
        load_weights("nonesuch")
    assert all(name in str(caught.value) for name in released())
    newest = max(released())
    with pytest.raises(WeightsError, match=f"did you mean {newest}"):
        load_weights(newest.replace("net", "nte"))
    monkeypatch.setattr(weights, "released", lambda: {"first-1": model, "second-2": model})
    with pytest.raises(WeightsError, match="first-1, second-2"):
        load_weights(str(tmp_path / "none.safetensors"))
    assert load_weights("second-2")[1].name == "tiny"


def test_released_weights_are_what_their_cards_say():
    assert weights.DEFAULT_MODEL in released()
    for name, path in released().items():
        network, card = load_weights(name)
        assert card.name == name
        assert card.sha256 == weights.digest(path)
        assert card.parameters == sum(p.numel() for p in network.parameters())
        assert all(torch.isfinite(p).all() for p in network.parameters())
        assert card.valid_pixel_angstrom[0] < card.valid_pixel_angstrom[1]
        assert card.valid_exposure_e_per_a2[0] < card.valid_exposure_e_per_a2[1]
        assert card.licence


def test_released_weights_were_not_trained_on_what_proves_them():
    assert released(), "no weights in the package"
    for path in released().values():
        training = read_card(path).training
        train, held = training["trained_on"], training["held_out"]
        assert train
        assert not any("6z6u" in name.lower() for name in train)
        assert not set(train) & set(held)
        assert not set(train.values()) & set(held.values()), "the same atoms under two names"
