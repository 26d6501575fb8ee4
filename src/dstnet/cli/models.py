"""dstnet models: what can be run and trained."""

import json as as_json
from pathlib import Path

from dstnet.cli.options import Json


def models(*, json: Json = False) -> int:
    """List the released weights with their cards, the methods without weights, and the networks
    that can be trained.
    """
    from dstnet.enhancement.registry import METHODS
    from dstnet.network.architectures import ARCHITECTURES
    from dstnet.network.weights import read_card, released

    for path in released().values():
        if json:
            print(read_card(path).model_dump_json())
        else:
            _print_card(path)
    for name, method in METHODS.items():
        call = f"{name}[:{method.argument}]" if method.argument else name
        if json:
            print(as_json.dumps({"name": name, "call": call, "help": method.help}))
        else:
            print(f"{call}: {method.help} (no weights)")
    if not json:
        print(f"networks that can be trained: {', '.join(ARCHITECTURES)}")
    return 0


def _print_card(path: Path) -> None:
    from dstnet.network.weights import read_card

    card = read_card(path)
    finest, coarsest = card.valid_pixel_angstrom
    least, most = card.valid_exposure_e_per_a2
    size = path.stat().st_size / 1e6
    millions = card.parameters / 1e6
    print(
        f"{card.name}  ({card.architecture}, {millions:.1f} M parameters, {size:.1f} MB,"
        f" {card.licence})"
    )
    print(f"  pixel size {finest}-{coarsest} Å, works at {card.working_pixel_angstrom} Å")
    print(f"  exposure {least}-{most} e-/Å2, sha256 {card.sha256[:16]}")
    for score, value in card.scores.items():
        print(f"  {score}: {value}")
