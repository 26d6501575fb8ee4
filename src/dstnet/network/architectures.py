"""All networks by name. A new one is its own file and a line here."""

import torch

from dstnet.errors import SettingsError
from dstnet.network.blocks import MovieNetwork
from dstnet.network.dstnet import DSTNet

ARCHITECTURES: dict[str, type[MovieNetwork]] = {
    "dstnet": DSTNet,
}
_MOST_PARAMETERS = 200_000_000  # 0.8 GB


def build(architecture: str, settings: dict) -> MovieNetwork:
    """An untrained network, its weights laid out channels last, which convolutions on CPUs run
    fastest on.

    Parameters
    ----------
    architecture
        Its name in `ARCHITECTURES`.
    settings
        Values of its `settings_type`; what is left out is as by default.

    Raises
    ------
    SettingsError
        If the architecture is unknown, its settings are, or the network would be too large.
    """
    if architecture not in ARCHITECTURES:
        names = ", ".join(ARCHITECTURES)
        raise SettingsError(f"no network is called {architecture!r}; there are {names}")
    network_type = ARCHITECTURES[architecture]
    checked = network_type.settings_type.checked(settings, f"settings of {architecture}")
    with torch.device("meta"):  # sizes alone
        count = sum(parameter.numel() for parameter in network_type(checked).parameters())
    if count > _MOST_PARAMETERS:
        raise SettingsError(
            f"settings of {architecture}: a network of {count} parameters; at most"
            f" {_MOST_PARAMETERS} are allowed, give fewer channels or blocks"
        )
    network = network_type(checked)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
