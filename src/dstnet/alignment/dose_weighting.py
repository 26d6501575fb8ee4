"""Frames summed with each frequency weighted by the signal that damage has left in them."""

import torch
from torch import Tensor

from dstnet.core.devices import Device
from dstnet.core.fourier import frequencies
from dstnet.core.shapes import Shape
from dstnet.motion.exposure_filter import critical_exposure
from dstnet.movie import Exposure, Movie

# Exponent: what decayed so far has no weight, and the square of its inverse is still a number.
_MOST_DECAY = 40.0


class DoseWeighting:
    """Accumulates sum(w F) over frames, added in order.

    The result sum(w F) / sqrt(sum(w^2 N) / sum(N)), N the exposure of a frame, keeps white noise
    white. A factor common to all frames' weights at a frequency cancels in it. From the middle of
    one frame to that of the next, weights fall by a factor q, so that the sum so far over q, plus
    the next frame, is all there is to do: weights relative to the latest frame, whatever the
    exposure before the first. Where frames and the steps between them are alike, q is the same for
    all.

    Parameters
    ----------
    movie
        The movie.
    exposure
        Of its frames.
    shape
        (y, x) of the images whose spectra are added: those of frames, or binned.
    device
        Where the sum lies.

    References
    ----------
    Grant & Grigorieff, eLife 4:e06980 (2015), eq. 9.
    """

    def __init__(
        self,
        movie: Movie,
        exposure: Exposure,
        shape: Shape,
        device: Device,
    ) -> None:
        self._frames = len(movie)
        self._exposure = exposure
        self._added = 0
        critical = _critical_exposure(movie, shape, device)
        self._total = torch.zeros(*critical.shape, 2, device=device)  # (real, imaginary)
        step = exposure.step_e_per_a2
        self._is_uniform = step is not None
        if step is not None:
            decay = 0.5 * step / critical
            self._decay = decay.clamp_(max=_MOST_DECAY / self._frames)
            self._growth = _growth(self._decay)
        else:
            self._critical = critical
            self._decay = torch.zeros_like(critical)  # from the first frame to the latest
            self._squares = torch.zeros_like(critical)  # sum(w^2 N)

    def add(self, spectrum: Tensor) -> None:
        """Add the next frame."""
        if not self._is_uniform:
            self._step()
        pairs = torch.view_as_real(spectrum)
        torch.addcmul(pairs, self._total, self._growth, out=self._total)
        self._added += 1

    def _step(self) -> None:
        """Go on to the next frame's middle."""
        middle = self._exposure.accumulated_e_per_a2
        since_first = middle[self._added] - middle[0]
        before = self._decay
        decay = 0.5 * since_first / self._critical
        self._decay = decay.clamp_(max=_MOST_DECAY)
        step = self._decay - before
        self._growth = _growth(step)
        own = self._exposure.frame_e_per_a2[self._added]
        squares_so_far = self._squares * torch.exp(2 * step)
        self._squares = squares_so_far + own

    def _mean_square(self) -> Tensor:
        """sum(w^2 N) / sum(N), with weights relative to the last frame's."""
        if not self._is_uniform:
            return self._squares / self._exposure.total_e_per_a2
        # The sum over j of q^-2j, j < n: (q^-2n - 1) / (q^-2 - 1).
        n = self._frames
        of_all = torch.expm1(2 * n * self._decay)
        of_one = torch.expm1(2 * self._decay)
        decays = self._decay > 0
        squares = torch.where(decays, of_all / of_one, n)
        return squares / n

    def result(self) -> Tensor:
        """Spectrum of the weighted sum; uses up what was added."""
        scale = self._mean_square().sqrt_()
        white = self._total.div_(scale[..., None])
        return torch.view_as_complex(white)


def _critical_exposure(movie: Movie, shape: Shape, device: Device) -> Tensor:
    """On the ``rfft2`` grid of images of `shape` of the movie's field."""
    pixel = movie.pixel_size_angstrom
    height, width = movie.shape
    ky, kx = frequencies(shape, 1.0, device)
    ky = ky / pixel * (shape[0] / height)
    kx = kx / pixel * (shape[1] / width)
    k = torch.hypot(ky, kx)
    return critical_exposure(k, movie.voltage_kv)


def _growth(decay: Tensor) -> Tensor:
    """exp(decay) for real and imaginary parts.

    Over complex numbers this is spread out to pairs: to do so anew for every frame takes twice as
    long as all the rest.
    """
    growth = decay.exp()[..., None]
    pairs = growth.expand(-1, -1, 2)
    return pairs.contiguous()
