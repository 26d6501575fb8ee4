"""What a network is given besides the images: the exposure, in one form for training and use."""

import torch
from torch import Tensor

from dstnet.core.devices import Device
from dstnet.movie import Exposure

# Both exposures are brought to numbers near one: the log of a frame's own, no smaller than the
# least, and what the specimen had seen.
LOG_SCALE = 3.0
LEAST_E_PER_A2 = 1e-3
ACCUMULATED_E_PER_A2 = 50.0


def exposure_inputs(exposure: Exposure | None, frames: int, device: Device = "cpu") -> Tensor:
    """The exposure of frames, or of groups of them, as networks take it.

    Parameters
    ----------
    exposure
        Of each frame; None where it is not known.
    frames
        How many there are.
    device
        Where the result lies.

    Returns
    -------
    Tensor
        [frame, 3]: 1 where the exposure is known, else 0; the log of the frame's own; what the
        specimen has seen by its middle. All zero where it is not known.
    """
    if exposure is None:
        return torch.zeros(frames, 3, device=device)
    rows = exposure.frame_e_per_a2, exposure.accumulated_e_per_a2
    own, accumulated = torch.tensor(rows, dtype=torch.float32, device=device)
    known = torch.ones_like(own)
    log_own = own.clamp(min=LEAST_E_PER_A2).log()
    columns = (known, log_own / LOG_SCALE, accumulated / ACCUMULATED_E_PER_A2)
    return torch.stack(columns, 1)
