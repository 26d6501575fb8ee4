"""What networks can give: one row an output, which says how it is made, learnt, written and shown.

A new output of a network is a row here and its target in the training crops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the command line reads this table, and answers --help without torch
    from torch import Tensor

# Particles are some hundredths to tenths of the sum's noise in amplitude; so scaled, the last layer
# works with numbers near one.
OUTPUT_SCALE = 0.1
# Predicted errors lie within exp(-7) and exp(3) of OUTPUT_SCALE: 1e-4 to 2 of the sum's noise.
LOG_ERROR_RANGE = -7.0, 3.0

# How an output's numbers are meant: a signal about the sum's mean, in its units; an error in the
# sum's units; or a chance from 0 to 1, shown dark as particles are.
Unit = Literal["signal", "error", "chance"]
# What it is learnt by: as an image, as the likelihood of the micrograph's error, or as a chance.
Loss = Literal["image", "error_likelihood", "cross_entropy"]


@dataclass(frozen=True)
class Output:
    """One output of a network.

    Attributes
    ----------
    name
        As settings, files and options call it.
    activation
        From the last layer's channel to the output, in units of the sum's noise.
    unit
        How its numbers are meant.
    loss
        What it is learnt by; the target is the field of the training crops that has its name.
    weight
        Of its loss beside the micrograph's, where the settings say nothing else.
    floor
        Power added to the target's in an image's loss, so that empty fields weigh no more than
        faint ones.
    ending
        Of its file's name.
    label
        What its file's header says.
    caption
        Under its picture on a run's page.
    help
        What the command line says of its option; empty where it is always written.
    """

    name: str
    activation: Callable[[Tensor], Tensor]
    unit: Unit
    loss: Loss
    weight: float
    floor: float
    ending: str
    label: str
    caption: str
    help: str = ""


def _scaled(channel: Tensor) -> Tensor:
    return OUTPUT_SCALE * channel


def _as_it_is(channel: Tensor) -> Tensor:
    # Without the CTF, which passes little of what makes a particle dark as a whole, contrast is
    # near one already.
    return channel


def _expected_error(channel: Tensor) -> Tensor:
    return OUTPUT_SCALE * channel.clamp(*LOG_ERROR_RANGE).exp()


def _chance(channel: Tensor) -> Tensor:
    return channel.sigmoid()


_TABLE = (
    Output(
        name="micrograph",
        activation=_scaled,
        unit="signal",
        loss="image",
        weight=1.0,
        floor=5e-4,
        ending="_enhanced.mrc",
        label="dstnet: ENHANCED, for looking and picking; use the sums for particles",
        caption="enhanced",
    ),
    Output(
        name="contrast",
        activation=_as_it_is,
        unit="signal",
        loss="image",
        weight=0.3,
        floor=0.02,
        ending="_contrast.mrc",
        label="dstnet: CONTRAST without CTF, for looking and picking",
        caption="contrast without CTF",
        help=(
            "Also write the estimate without the CTF: particles dark on flat ice, for looking and"
            " template-free pickers."
        ),
    ),
    Output(
        name="uncertainty",
        activation=_expected_error,
        unit="error",
        loss="error_likelihood",
        weight=0.05,
        floor=0.0,
        ending="_uncertainty.mrc",
        label="dstnet: expected rms error of the enhanced micrograph",
        caption="expected error, bright: large",
        help="Also write the expected error of the enhanced micrograph, per pixel.",
    ),
    Output(
        name="particles",
        activation=_chance,
        unit="chance",
        loss="cross_entropy",
        weight=0.4,
        floor=0.0,
        ending="_particles.mrc",
        label="dstnet: where PARTICLES are (dark), for picking",
        caption="where particles are",
        help=("Also write where particles are, a dark dome on each, for template-free pickers."),
    ),
)
OUTPUTS = {output.name: output for output in _TABLE}
