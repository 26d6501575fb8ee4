"""Every method by its name, through one interface."""

from dataclasses import replace

import pytest
import tiny
import torch

from dstnet.alignment import Grouping
from dstnet.enhancement import (
    METHODS,
    EnhancementSettings,
    NetworkRestorer,
    Restorer,
    make_restorer,
)
from dstnet.enhancement.base import check_outputs
from dstnet.enhancement.classical import ClassicalRestorer
from dstnet.errors import SettingsError, WeightsError
from dstnet.motion import Motion
from dstnet.movie import Exposure, Movie
from dstnet.network import architectures
from dstnet.network.outputs import OUTPUTS
from dstnet.network.weights import released, save_weights


@pytest.fixture
def window_model(tmp_path):
    network = tiny.make_network()
    save_weights(network, tiny.make_card(network, window=3), tmp_path / "window.safetensors")
    return tmp_path / "window.safetensors"


@pytest.fixture(params=[*METHODS, "network", "window"])
def restorer(request, model, window_model) -> Restorer:
    """Each method in turn; networks tiny and of random weights."""
    names = {"network": str(model), "window": str(window_model)}
    values = {
        "model": names.get(request.param, request.param),
        "half_precision": False,
        "engine": "eager",
    }
    return make_restorer(EnhancementSettings.checked(values, "test"))


def movie(pixel: float = 1.7) -> Movie:
    return Movie(tiny.make_frames(4, (96, 90)), pixel, "here.tif", Exposure.uniform(4, 2.0))


def motionless() -> Motion:
    return Motion.of_shifts(torch.zeros(4, 2))


def test_every_output_is_on_the_grid_of_the_sums(restorer):
    aligned = tiny.align_for(restorer, movie(), motionless())
    assert restorer.outputs[0] == "micrograph"
    assert set(restorer.outputs) <= {*OUTPUTS, "frames"}
    restored = restorer(aligned, outputs=restorer.outputs)
    assert set(restored.images) == set(restorer.outputs)
    for name, image in restored.images.items():
        assert image.shape[-2:] == aligned.shape, name
        assert image.dtype == torch.float32 and torch.isfinite(image).all(), name
    assert restored.micrograph is restored.images["micrograph"]
    if "frames" in restorer.outputs:
        assert restored.frames.shape == (4, *aligned.shape)


def test_what_is_asked_for_does_not_change_the_others(restorer):
    aligned = tiny.align_for(restorer, movie(), motionless())
    together = restorer(aligned, outputs=restorer.outputs).images
    for name in restorer.outputs:
        alone = restorer(aligned, outputs=("micrograph", name)).images
        assert set(alone) == {"micrograph", name}
        torch.testing.assert_close(alone[name], together[name])


def test_nothing_aligned_is_changed(restorer):
    aligned = tiny.align_for(restorer, movie(), motionless())
    images = [aligned.total, *(groups.images for groups in aligned.groups.values())]
    before = [image.clone() for image in images]
    restorer(aligned, outputs=restorer.outputs)
    assert all(torch.equal(a, b) for a, b in zip(images, before, strict=True))


def test_arrays_stay_on_their_device(restorer):
    """Whatever is made on the way is made where the aligned movie lies: what is left to torch's
    default, here a device that holds no numbers, cannot be used with it.
    """
    aligned = tiny.align_for(restorer, movie(), motionless())
    expected = restorer(aligned, outputs=restorer.outputs).images
    with torch.device("meta"):
        found = restorer(aligned, outputs=restorer.outputs).images
    for name, image in expected.items():
        assert torch.equal(found[name], image), name


def test_outputs_that_a_method_lacks_are_refused(restorer):
    with pytest.raises(SettingsError, match=r"gives no nonesuch .*; choose another with --model"):
        check_outputs(restorer, ("micrograph", "nonesuch"))
    aligned = tiny.align_for(restorer, movie(), motionless())
    with pytest.raises(SettingsError, match="gives no nonesuch"):
        restorer(aligned, outputs=("micrograph", "nonesuch"))


def test_what_makes_results_differ_is_on_record(restorer, model, window_model):
    described = restorer.describe()
    assert described
    if isinstance(restorer, ClassicalRestorer):
        assert described == {"method": restorer.name}
    else:
        assert described["weights"] == restorer.name == "tiny"
        assert len(described["weights_sha256"]) == 64


def test_needs_of_a_movie(restorer):
    needs = restorer.needs(movie())
    if isinstance(restorer, ClassicalRestorer):
        assert needs.grouping is None and not needs.raw_frames
    elif isinstance(restorer, NetworkRestorer):
        assert needs.grouping == Grouping(2.0, 4) and not needs.raw_frames
    else:
        assert needs.grouping == Grouping(2.0, 1) and needs.raw_frames


@pytest.mark.parametrize(("groups", "frames", "found"), [(None, 9, 4), (3, 9, 3), (7, 2, 2)])
def test_groups_are_as_the_weights_or_the_settings_say(model, groups, frames, found):
    restorer = make_restorer(EnhancementSettings(model=str(model), groups=groups))
    shown = Movie(tiny.make_frames(frames), 2.0)
    assert restorer.needs(shown).grouping == Grouping(2.0, found)


def test_names_that_are_none_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="no model 'nonesuch'"):
        make_restorer(EnhancementSettings(model="nonesuch"))
    with pytest.raises(WeightsError, match=r"\(did you mean wiener\?\); released") as caught:
        make_restorer(EnhancementSettings(model="wienr"))
    assert all(name in str(caught.value) for name in (*METHODS, *released()))
    with pytest.raises(SettingsError, match="sum takes nothing after its name"):
        make_restorer(EnhancementSettings(model="sum:3"))
    with pytest.raises(SettingsError, match="leave out --groups"):
        make_restorer(EnhancementSettings(model="wiener", groups=3))
    assert not set(METHODS) & set(released())


class MeanAndSpread(tiny.MeanNetwork):
    """Another output besides: how far frames lie apart."""

    outputs = ("micrograph", "spread")

    def forward(self, frames, total, exposure):
        return torch.stack((self.scale * frames.mean(1), frames.std(1)), 1)


def test_another_output_is_one_row(tmp_path, monkeypatch):
    row = replace(OUTPUTS["uncertainty"], name="spread", activation=torch.abs)
    monkeypatch.setitem(OUTPUTS, "spread", row)
    monkeypatch.setitem(architectures.ARCHITECTURES, "mean", MeanAndSpread)
    network = architectures.build("mean", {})
    card = tiny.make_card(network, architecture="mean", name="mean-2")
    save_weights(network, card, tmp_path / "mean.safetensors")
    restorer = make_restorer(EnhancementSettings(model=str(tmp_path / "mean.safetensors")))
    assert restorer.outputs == ("micrograph", "spread")
    spread = tiny.restore(restorer, movie(pixel=2.0), "spread").images["spread"]
    assert spread.shape == (96, 90) and (spread > 0).all()


def test_another_network_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(architectures.ARCHITECTURES, "mean", tiny.MeanNetwork)
    network = architectures.build("mean", {})
    card = tiny.make_card(network, architecture="mean", name="mean-1")
    save_weights(network, card, tmp_path / "mean.safetensors")
    values = {"model": str(tmp_path / "mean.safetensors"), "evidence": False, "ctf": False}
    restorer = make_restorer(EnhancementSettings.checked(values, "test"))
    assert restorer.name == "mean-1" and restorer.outputs == ("micrograph",)
    aligned = tiny.align_for(restorer, movie(pixel=2.0), motionless())
    out = restorer(aligned).micrograph
    correlation = torch.corrcoef(torch.stack((out.flatten(), aligned.total.flatten())))[0, 1]
    assert float(correlation) > 0.99
    with pytest.raises(SettingsError, match=r"mean-1 gives no frames \(the enhanced micrograph"):
        restorer(aligned, outputs=("micrograph", "frames"))
