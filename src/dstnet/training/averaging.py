"""The averaged copy of a network's weights, which is what is judged and released."""

import torch
from torch import Tensor, nn


def copy_weights(network: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's weights, by name."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def update_average(
    average: dict[str, Tensor], network: nn.Module, *, step: int, decay: float
) -> None:
    """Move the averaged weights towards the network's, in place.

    Parameters
    ----------
    average
        By name.
    network
        Whose weights have just changed.
    step
        Steps that are done: at first the average follows faster.
    decay
        What is kept of the average in a step, at most.
    """
    kept = min(decay, step / (step + 10))
    with torch.no_grad():
        for name, value in network.state_dict().items():
            average[name].lerp_(value, 1 - kept)
