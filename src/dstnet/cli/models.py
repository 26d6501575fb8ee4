"""dstnet models: what can be run and trained."""

from dstnet.cli.options import Json


def models(*, json: Json = False) -> int:
    """List the released weights with their cards, and the networks that can be trained."""
    from dstnet.network.weights import ARCHITECTURES, read_card, released

    for name, path in released().items():
        card = read_card(path)
        if json:
            print(card.model_dump_json())
            continue
        print(
            f"{name}  ({card.architecture}, {card.parameters / 1e6:.1f} M parameters,"
            f" {path.stat().st_size / 1e6:.1f} MB, {card.licence})"
        )
        print(
            f"  pixel size {card.valid_pixel_angstrom[0]}-{card.valid_pixel_angstrom[1]} Å, works"
            f" at {card.working_pixel_angstrom} Å"
        )
        print(
            f"  exposure {card.valid_exposure_e_per_a2[0]}-{card.valid_exposure_e_per_a2[1]} e-/Å2,"
            f" sha256 {card.sha256[:16]}"
        )
        for score, value in card.scores.items():
            print(f"  {score}: {value}")
    if not json:
        print(f"networks that can be trained: {', '.join(ARCHITECTURES)}")
    return 0
