"""All methods by name. A new one is its own file and a line here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dstnet.alignment import AlignedMovie
from dstnet.core.shapes import Image
from dstnet.enhancement.base import Restorer
from dstnet.enhancement.classical import (
    ClassicalRestorer,
    dose_weighted_sum,
    gaussian_of,
    plain_sum,
    wiener,
)
from dstnet.enhancement.frame_window import WindowRestorer
from dstnet.enhancement.network import NetworkRestorer
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.errors import SettingsError, WeightsError
from dstnet.network.weights import no_such_model, read_card, released


@dataclass(frozen=True)
class Method:
    """A method that is called by its own name, not by that of weights.

    Attributes
    ----------
    help
        What it gives, in a line.
    make
        Makes it from the settings and the name of the device where it works.
    argument
        What users may write after its name and a colon; empty: nothing.
    """

    help: str
    make: Callable[[EnhancementSettings, str], Restorer]
    argument: str = ""


def _classical(restore: Callable[[AlignedMovie], Image]) -> Callable[..., Restorer]:
    return lambda settings, device: _of_sums(settings, restore)


def _gaussian(settings: EnhancementSettings, device: str) -> Restorer:
    _, _, argument = settings.model.partition(":")
    return _of_sums(settings, gaussian_of(argument))


def _of_sums(
    settings: EnhancementSettings, restore: Callable[[AlignedMovie], Image]
) -> ClassicalRestorer:
    if settings.groups is not None:
        raise SettingsError(f"{settings.model} works on the sum of all frames; leave out --groups")
    return ClassicalRestorer(settings.model, restore)


# Weights are not listed: every name that is none of these is that of released weights or of a file.
METHODS: dict[str, Method] = {
    "sum": Method("the motion-corrected sum", _classical(plain_sum)),
    "dose-weighted-sum": Method("the dose-weighted sum", _classical(dose_weighted_sum)),
    "gaussian": Method("the dose-weighted sum, low-pass filtered to 20 Å", _gaussian, "Å"),
    "wiener": Method("the dose-weighted sum, Wiener-filtered", _classical(wiener)),
}


def make_restorer(settings: EnhancementSettings, device: str = "cpu") -> Restorer:
    """The method that the settings name: a classical one, released weights, or a weights file.

    Parameters
    ----------
    settings
        Their `model` says which.
    device
        Where it works: "cpu", "cuda", "cuda:1", ...

    Raises
    ------
    SettingsError
        If the settings do not fit the method, or the device cannot be used.
    WeightsError
        If there are no such weights, or they cannot be used.
    """
    name, _, argument = settings.model.partition(":")
    method = METHODS.get(name)
    if method is not None:
        if argument and not method.argument:
            raise SettingsError(f"model {name} takes nothing after its name (got {argument!r})")
        return method.make(settings, device)
    path = released().get(settings.model) or Path(settings.model)
    if not path.is_file():
        raise WeightsError(no_such_model(settings.model, METHODS))
    if read_card(path).window is not None:
        return WindowRestorer(settings, device)
    return NetworkRestorer(settings, device)
