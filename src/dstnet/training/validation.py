"""How good a network is on structures that it never trained on."""

from collections.abc import Iterable

import torch
from torch import Tensor

from dstnet.core.shapes import Image
from dstnet.metrics.image import residual_energy
from dstnet.network.blocks import MovieNetwork
from dstnet.network.engine import autocast
from dstnet.network.outputs import OUTPUTS
from dstnet.training.batch import Batch

# Of a target's power, in units of the noise's: about where particles come out of the noise by eye.
STRONG = 0.005


class _Measures:
    """Sums up measures, crop by crop and batch by batch."""

    def __init__(self, outputs: tuple[str, ...]):
        others = [name for name in outputs if name != "micrograph"]
        self.expected = [name for name in others if OUTPUTS[name].loss == "error_likelihood"]
        self.compared = [name for name in others if name not in self.expected]
        kinds = ["residual", "residual_low", "residual_high"]
        kinds += [f"residual_{name}" for name in self.compared]
        self.residuals: dict[str, list[float]] = {kind: [] for kind in kinds}
        self.error = 0.0
        self.expected_error = 0.0

    def add_crop(self, images: dict[str, Image], targets: dict[str, Image]) -> None:
        """Of one crop, by the output's name."""
        power = float(targets["micrograph"].square().mean())
        if power == 0:
            return  # nothing to be found: its residual would be one whatever the network does
        residual = residual_energy(images["micrograph"], targets["micrograph"])
        strength = "residual_high" if power > STRONG else "residual_low"
        self.residuals["residual"].append(residual)
        self.residuals[strength].append(residual)
        for name in self.compared:
            residual = residual_energy(images[name], targets[name])
            self.residuals[f"residual_{name}"].append(residual)

    def add_expected_error(self, images: dict[str, Tensor], micrograph: Tensor) -> None:
        """Of one batch, where the network gives it."""
        for name in self.expected:
            error = images["micrograph"] - micrograph
            self.error += float(error.square().mean())
            self.expected_error += float(images[name].square().mean())

    def means(self) -> dict[str, float]:
        """What was measured at all."""
        found = {}
        for name, values in self.residuals.items():
            if values:
                found[name] = sum(values) / len(values)
        if self.expected_error:
            found["error_over_expected"] = self.error / self.expected_error
        return found


def validate(
    network: MovieNetwork, batches: Iterable[Batch], device: torch.device
) -> dict[str, float]:
    """Measures of `network` on `batches`.

    Returns
    -------
    dict
        "residual": residual energy of the micrograph, mean over crops that hold particles;
        "residual_low" and "residual_high": of those below and above a signal power of `STRONG`;
        "residual_contrast", "residual_particles", ...: of the other outputs; "error_over_expected":
        mean squared error over that which the network expected. Only what there is.
    """
    measures = _Measures(network.outputs)
    for stored in batches:
        batch = stored.to(device)
        with torch.no_grad(), autocast(device):
            output = network(batch.frames, batch.total, batch.exposure).float()
        images = dict(zip(network.outputs, output.unbind(1), strict=True))
        for i in range(len(output)):
            shown = {name: image[i] for name, image in images.items()}
            targets = {name: target[i] for name, target in batch.targets.items()}
            measures.add_crop(shown, targets)
        measures.add_expected_error(images, batch.targets["micrograph"])
    return measures.means()
