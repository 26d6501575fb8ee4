"""Named random streams: a stage's generator depends on the seed and the stage's name only.

So a new stage, or a stage that draws more numbers than before, reshuffles nobody else's noise.
"""

import hashlib

import torch


def stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` for the stream called by `names` under `seed`. Equal arguments give
    equal streams on every machine.
    """
    digest = hashlib.sha256("/".join([str(seed), *map(str, names)]).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
