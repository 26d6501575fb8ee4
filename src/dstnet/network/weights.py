"""Weights as safetensors beside a JSON card that says what they are; and those that are released
with the package.
"""

import hashlib
import json
from collections.abc import Collection
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dstnet.core.regular_files import open_regular, read_regular_text
from dstnet.core.settings import Settings
from dstnet.errors import OutputError, SettingsError, WeightsError
from dstnet.io.atomic import atomic_path, flush_to_disk
from dstnet.network.architectures import build
from dstnet.network.blocks import MovieNetwork

DEFAULT_MODEL = "dstnet-3"


class ModelCard(Settings):
    """What a weights file is, how it was made and where it may be used."""

    schema_version: Literal[1] = 1
    name: str
    architecture: str
    architecture_settings: dict
    parameters: int
    working_pixel_angstrom: float = Field(gt=0)
    groups: int = Field(
        ge=1,
        validation_alias=AliasChoices("groups", "fractions"),  # as cards before 0.8 call them
        description="most groups of frames trained with; longer movies are summed to so many",
    )
    window: int | None = Field(
        default=None,
        ge=1,
        description="unaligned frames, the middle one of which is enhanced; None: all, aligned",
    )
    valid_pixel_angstrom: tuple[float, float]
    valid_exposure_e_per_a2: tuple[float, float]
    normalisation: str
    uncertainty_calibration: tuple[float, float] = Field(
        default=(1.0, 1.0),
        description=(
            "(a, b): on held-out structures the rms error is a e^b, e what the network expects,"
            " noise of the sum 1"
        ),
    )
    training: dict = Field(
        description="settings, steps, time, digests of structures, held-out names"
    )
    scores: dict = Field(default_factory=dict)
    licence: str = "BSD-3-Clause"
    sha256: str = ""


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_weights(network: nn.Module, card: ModelCard, path: Path) -> ModelCard:
    """Write weights in half precision as `path` (.safetensors) and its card as the same name with
    .json; returns the card as written. The weights appear last, never without their card.

    Half precision is enough: 2^-11 relative per weight is far below the noise of training, and
    halves the package.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    halves = {}
    for name, value in network.state_dict().items():
        halves[name] = value.detach().cpu().half().contiguous()
    content = save(halves)
    card = card.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    card_path = path.with_suffix(".json")
    card_before = card_path.read_bytes() if card_path.is_file() else None
    try:
        with atomic_path(path) as weights:
            weights.write_bytes(content)
            flush_to_disk(weights)  # before the card is there
            with atomic_path(card_path) as temporary:
                temporary.write_text(card.model_dump_json(indent=2) + "\n")
    except OutputError:
        _put_back(card_path, card_before)
        raise
    return card


def _put_back(card_path: Path, content: bytes | None) -> None:
    """The card as it was before weights that did not come."""
    if content is None:
        card_path.unlink(missing_ok=True)
    elif card_path.read_bytes() != content:
        with atomic_path(card_path) as temporary:
            temporary.write_bytes(content)


def released() -> dict[str, Path]:
    """Names and files of the weights that ship in the package."""
    folder = Path(str(resources.files("dstnet.network") / "released"))
    return {p.stem: p for p in sorted(folder.glob("*.safetensors"))}


def no_such_model(model: str, methods: Collection[str] = ()) -> str:
    """The message for a model that there is not, with the closest name that there is.

    Parameters
    ----------
    model
        That was asked for.
    methods
        Names of methods without weights that could be meant.
    """
    names = list(released())
    closest = get_close_matches(model, [*names, *methods], n=1)
    meant = f" (did you mean {closest[0]}?)" if closest else ""
    available = ", ".join(names) or "(none)"
    said = f"no model {model!r}{meant}; released ones are {available}"
    if methods:
        said += f", methods without weights {', '.join(methods)}"
    return f"{said}, or give the path of a .safetensors file"


def read_card(path: Path) -> ModelCard:
    """The card beside a weights file.

    Raises
    ------
    WeightsError
        If it is missing, unreadable or of another schema.
    """
    card_path = path.with_suffix(".json")
    try:
        content = json.loads(read_regular_text(card_path))
        return ModelCard.checked(content, str(card_path))
    except (OSError, ValueError, RecursionError, SettingsError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"cannot read the card {card_path} of {path.name}: {reason}") from None


def load_matching_weights(network: nn.Module, model: str) -> ModelCard:
    """Give `network` the weights of `model`, whose card is returned; layers and channels that it
    has beyond those stay as they are.

    Raises
    ------
    WeightsError
        As `load_weights`, or if the model holds what the network has no place for.
    """
    source, card = load_weights(model)
    target = network.state_dict()
    for name, value in source.state_dict().items():
        place = target.get(name)
        if place is None or not _holds(place, value):
            raise WeightsError(
                f"cannot start from {model}: the network has no place for its {name}; choose"
                " settings at least as large"
            )
        place[tuple(slice(n) for n in value.shape)] = value
    return card


def _holds(place: Tensor, value: Tensor) -> bool:
    """Whether `value` fits into a corner of `place`."""
    if place.dim() != value.dim():
        return False
    sizes = zip(place.shape, value.shape, strict=True)
    return all(room >= needed for room, needed in sizes)


def load_weights(model: str = DEFAULT_MODEL) -> tuple[MovieNetwork, ModelCard]:
    """A network ready to use, from the name of released weights or the path of a .safetensors file
    with its card beside it.

    Raises
    ------
    WeightsError
        If there is no such model, or its file is damaged, changed since its card was written, or of
        another architecture.
    """
    names = released()
    path = names.get(model) or Path(model)
    if not path.is_file():
        raise WeightsError(no_such_model(model))
    card = read_card(path)
    if digest(path) != card.sha256:
        raise WeightsError(
            f"{path} is not the file that its card describes (truncated or changed); copy both"
            " files again"
        )
    try:
        halves = load_file(path)
        network = build(card.architecture, card.architecture_settings)
        network.load_state_dict({name: value.float() for name, value in halves.items()})
    except (SafetensorError, RuntimeError, SettingsError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{path} does not hold {card.architecture} weights: {reason[:200]}"
        ) from None
    return network.eval(), card
