"""A camera with a point spread: counting (events moved, noise stays white) or integrating (noise blurred with the signal)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dstnet.core.fourier import radial_frequency
from dstnet.core.settings import Settings
from dstnet.core.shapes import Image


class DetectorSettings(Settings):
    """A camera model. The MTF is a fit of our own: 1 / (1 + (k / k0)^p), k in cycles per physical pixel."""

    mode: Literal["counting", "integrating"] = "counting"
    quantum_efficiency: float = Field(
        default=0.85, gt=0, le=1, description="detected electrons per incident one (DQE at zero frequency, counting)"
    )
    mtf_half_frequency: float | None = Field(default=0.7, gt=0, description="k0: where the MTF is one half; None for a perfect camera")
    mtf_power: float = Field(default=2.0, gt=0, description="p; k0 0.7, p 2 gives 0.89 and 0.66 at half Nyquist and Nyquist, near a K3")
    binning: float = Field(default=1.0, ge=1, description="written pixel over physical pixel (Fourier binning)")


def mtf(shape: tuple[int, int], camera: DetectorSettings) -> Tensor | None:
    """Modulation transfer on the ``rfft2`` grid of a written frame, or None for a perfect camera."""
    if camera.mtf_half_frequency is None:
        return None
    k = radial_frequency(shape) / camera.binning
    return 1 / (1 + (k / camera.mtf_half_frequency) ** camera.mtf_power)


def detect(expected: Image, camera: DetectorSettings, generator: torch.Generator) -> Image:
    """Counts of one frame from the incident electrons per pixel `expected` (with the point spread already in it for a counting camera).

    Counting: moving each event by a random point spread leaves Poisson counts of the spread expectation, so noise is white and
    DQE = efficiency x MTF^2 (McMullan et al. 2009). Integrating: counts are drawn first and spread after, so noise has the MTF's colour.
    """
    counts = torch.poisson(expected.clamp(min=0) * camera.quantum_efficiency, generator=generator)
    if camera.mode == "integrating":
        spread = mtf((expected.shape[0], expected.shape[1]), camera)
        if spread is not None:
            counts = torch.fft.irfft2(torch.fft.rfft2(counts) * spread, s=expected.shape)
    return counts
