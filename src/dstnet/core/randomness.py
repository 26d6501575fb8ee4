"""Named random streams: a stage's generator depends on the seed and the stage's name only.

So a new stage, or a stage that draws more numbers than before, reshuffles nobody else's noise.
"""

import hashlib
from typing import Annotated

import torch
from pydantic import Field

from dstnet.core.devices import Device

# What torch takes for a seed.
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


def stream(seed: int, *names: str | int, device: Device = "cpu") -> torch.Generator:
    """A generator on `device` for the stream called by `names` under `seed`. Equal arguments give
    equal streams on every machine.
    """
    parts = [str(part) for part in (seed, *names)]
    path = "/".join(parts)
    digest = hashlib.sha256(path.encode()).digest()
    number = int.from_bytes(digest[:8], "little")
    number >>= 1  # a seed is a signed number of 64 bits
    generator = torch.Generator(device)
    generator.manual_seed(number)
    return generator
