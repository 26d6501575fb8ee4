"""How a camera passes detail on: modulation transfer and detective quantum efficiency."""

import torch
from torch import Tensor

from dstnet.core.devices import Device
from dstnet.core.fourier import radial_frequency
from dstnet.core.shapes import Shape
from dstnet.detector.settings import DetectorSettings


def _mtf_curve(k: Tensor, settings: DetectorSettings) -> Tensor:
    """The MTF at `k` cycles per physical pixel."""
    if settings.mtf_half_frequency is None:
        return torch.ones_like(k)
    fall = (k / settings.mtf_half_frequency) ** settings.mtf_power
    return 1 / (1 + fall)


def mtf(shape: Shape, settings: DetectorSettings, device: Device | None = None) -> Tensor | None:
    """Modulation transfer on the ``rfft2`` grid of `shape` written pixels, or None for a perfect
    camera.
    """
    if settings.mtf_half_frequency is None:
        return None
    k = radial_frequency(shape, settings.binning, device)
    return _mtf_curve(k, settings)


def dqe(k: Tensor, settings: DetectorSettings) -> Tensor:
    """Detective quantum efficiency, SNR^2 out over SNR^2 in, at `k` cycles per physical pixel
    (Nyquist 0.5), whatever the binning.

    Counting: efficiency x MTF^2, since noise is white. Integrating: efficiency / (1 + v), v the
    `deposition_variance`, since noise is blurred with the signal; readout noise, whose share
    depends on the exposure, and coincidence loss are left out. DQE is a ratio of powers. An
    amplitude carries its root: multiplying images by the DQE itself, a known mistake, loses twice
    as much, and a table in fractions of Nyquist read as cycles per pixel is another.
    """
    efficiency = settings.quantum_efficiency
    if settings.mode == "integrating":
        at_all_frequencies = efficiency / (1 + settings.deposition_variance)
        return torch.full_like(k, at_all_frequencies)
    passed = _mtf_curve(k, settings)
    return efficiency * passed.square()
