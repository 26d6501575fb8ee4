"""The table of what networks can give, and what they are given besides images."""

import pytest
import torch

from dstnet.movie import Exposure
from dstnet.network.dstnet import DSTNetSettings
from dstnet.network.inputs import exposure_inputs
from dstnet.network.outputs import OUTPUTS

HEADS = tuple(OUTPUTS)[1:]


def test_rows_have_names_of_their_own():
    for attribute in ("name", "ending", "label", "caption"):
        values = [getattr(output, attribute) for output in OUTPUTS.values()]
        assert len(set(values)) == len(values) and all(values), attribute
    assert all(name == output.name for name, output in OUTPUTS.items())
    assert next(iter(OUTPUTS)) == "micrograph"
    assert set(DSTNetSettings().heads) <= set(HEADS)


def test_what_is_always_written_has_no_option():
    assert not OUTPUTS["micrograph"].help
    assert all(OUTPUTS[name].help.endswith(".") for name in HEADS)


@pytest.mark.parametrize("name", OUTPUTS)
def test_activations_give_what_the_unit_says(name):
    output = OUTPUTS[name]
    channel = torch.linspace(-40, 40, 201)
    found = output.activation(channel)
    assert found.shape == channel.shape and torch.isfinite(found).all()
    assert (found.diff() >= 0).all(), "the order of the channel's numbers is kept"
    match output.unit:
        case "signal":
            torch.testing.assert_close(found[[0, 100, 200]], found[200] * torch.tensor([-1, 0, 1]))
        case "error":
            assert (found > 0).all()
        case "chance":
            assert (found >= 0).all() and (found <= 1).all()


def test_weights_of_losses_are_positive():
    assert all(output.weight > 0 and output.floor >= 0 for output in OUTPUTS.values())


def test_exposures_by_hand():
    e_cubed = float(torch.tensor(3.0).exp())
    exposure = Exposure(frame_e_per_a2=(1.0, e_cubed), start_e_per_a2=(0.5, 25 - e_cubed / 2))
    expected = torch.tensor([[1.0, 0.0, 0.02], [1.0, 1.0, 0.5]])
    torch.testing.assert_close(exposure_inputs(exposure, 2), expected)


def test_an_exposure_that_is_not_known_is_zero():
    assert torch.equal(exposure_inputs(None, 3), torch.zeros(3, 3))


def test_the_least_exposure_is_finite():
    exposure = Exposure.uniform(2, 1e-12)
    assert torch.isfinite(exposure_inputs(exposure, 2)).all()


def test_groups_are_told_as_their_frames_together():
    each = Exposure.uniform(4, 2.0, pre_exposure_e_per_a2=1.0)
    found = exposure_inputs(each.grouped([range(0, 2), range(2, 4)]), 2)
    twice = exposure_inputs(Exposure.uniform(2, 4.0, pre_exposure_e_per_a2=1.0), 2)
    torch.testing.assert_close(found, twice)
