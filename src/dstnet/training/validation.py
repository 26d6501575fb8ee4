"""How good a network is on structures that it never trained on."""

from collections.abc import Iterable

import torch
from torch import Tensor

from dstnet.metrics.image import residual_energy
from dstnet.network.blocks import MovieNetwork
from dstnet.network.engine import autocast

# of a target's power, in units of the noise's: about where particles come out of the noise by eye
STRONG = 0.005


def validate(
    network: MovieNetwork, batches: Iterable[tuple[Tensor, ...]], device: torch.device
) -> dict[str, float]:
    """Measures of `network` on `batches` (see `dstnet.training.data.Batches`).

    Returns
    -------
    dict
        "residual": residual energy of the micrograph, mean over crops that hold particles;
        "residual_low" and "residual_high": of those below and above a signal power of `STRONG`;
        "residual_contrast" and "residual_particles": of those images; "error_over_expected": mean
        squared error over that which the network expected. Only what there is.
    """
    found: dict[str, list[float]] = {
        "residual": [],
        "residual_low": [],
        "residual_high": [],
        "residual_contrast": [],
        "residual_particles": [],
    }
    error, expected = 0.0, 0.0
    for batch in batches:
        frames, total, exposure, target, contrast, particles = (x.to(device) for x in batch[:6])
        with torch.no_grad(), autocast(device):
            output = dict(
                zip(
                    network.outputs, network(frames, total, exposure).float().unbind(1), strict=True
                )
            )
        for i in range(len(target)):
            power = float(target[i].square().mean())
            if power == 0:
                continue  # nothing to be found: its residual would be one whatever the network does
            residual = residual_energy(output["micrograph"][i], target[i])
            found["residual"].append(residual)
            found["residual_high" if power > STRONG else "residual_low"].append(residual)
            if "contrast" in output:
                found["residual_contrast"].append(
                    residual_energy(output["contrast"][i], contrast[i])
                )
            if "particles" in output:
                found["residual_particles"].append(
                    residual_energy(output["particles"][i], particles[i])
                )
        if "uncertainty" in output:
            error += float((output["micrograph"] - target).square().mean())
            expected += float(output["uncertainty"].square().mean())
    measured = {k: sum(v) / len(v) for k, v in found.items() if v}
    return measured | ({"error_over_expected": error / expected} if expected else {})
