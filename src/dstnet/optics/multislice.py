"""The image of a specimen too thick or too strong for the weak-phase approximation, by multislice.

Between slabs the wave is propagated, psi <- F^-1[F(psi t) exp(-i pi lambda dz k^2)] with t = exp(i
phi exp(i asin A)) (Kirkland 2010, ch. 6; `dstnet.optics.ctf` says where the signs come from). What
is computed is the scattered wave, psi - 1, which keeps single precision where scattering is weak.
What each slab scatters anew is taken through the lens by itself, with the underfocus of the slab's
height. Without envelopes this is the same as taking the exit wave through the lens, since
propagation and lens are factors on the same Fourier terms. With them it gives each height the
spatial envelope of its own defocus, as the weak-phase image has it.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dstnet.core.constants import electron_wavelength_angstrom
from dstnet.core.devices import Device
from dstnet.core.fourier import next_fast_size, resample
from dstnet.core.shapes import Image, Shape
from dstnet.errors import BadInputError
from dstnet.optics.ctf import OpticsSettings, wave_frequencies, wave_transfer


def multislice_intensity(
    slabs: Sequence[tuple[float, Tensor]], pixel_size_angstrom: float, optics: OpticsSettings
) -> Image:
    """Intensity of the image of a specimen in slabs, where 1 is the beam without a specimen.

    For small phases it is 1 + the sum over slabs of phi x `contrast_transfer` at defocus - height;
    the difference falls as phi squared. To the square of the scattered wave, envelopes are applied
    as to the wave itself (quasi-coherently). The image wraps around at its edges: pad it by
    `delocalisation_angstrom`. A tilted beam acts through the lens alone (coma); its slanted way
    through the specimen, height x tilt or 0.1 Å for 100 Å and 1 mrad, is left out.

    Parameters
    ----------
    slabs
        Height in Å above the plane at which the defocus is measured, positive towards the source,
        and projected phase in rad, float32 ``[y, x]``, of each slab, in the order in which the beam
        meets them: from the greatest height down. A slab's phase may not turn sharply over a pixel;
        what lies at and beyond Nyquist is left out.
    pixel_size_angstrom
        Edge of a pixel.
    optics
        Microscope settings.

    Returns
    -------
    Image
        float32 ``[y, x]`` on the device of the phases.

    Raises
    ------
    BadInputError
        If there is no slab, their shapes differ or the heights rise.
    """
    shape = _check_slabs(slabs)
    device = slabs[0][1].device
    # Products of two waves reach twice their frequencies. On a grid 3/2 as fine they fold back no
    # further than to the image's Nyquist, so that all frequencies of the image are right; kept to
    # its own grid, only those below 2/3 of its Nyquist would be.
    fine_y = next_fast_size(math.ceil(1.5 * shape[0]))
    fine_x = next_fast_size(math.ceil(1.5 * shape[1]))
    fine = (fine_y, fine_x)

    # Spectra of the scattered wave: of what arrives at the next slab, and of what is behind the
    # lens.
    arriving = torch.zeros(shape, dtype=torch.complex64, device=device)
    imaged = torch.zeros_like(arriving)
    last = len(slabs) - 1
    for i, (height, phase) in enumerate(slabs):
        scattered = _transmitted_less_one(resample(phase.float(), fine), optics.amplitude_contrast)
        if i > 0:
            scattered = scattered * (1 + _wave(arriving, fine))
        spectrum = _band(torch.fft.fft2(scattered, norm="forward"), shape)
        del scattered  # large, while the next are made
        defocus = optics.defocus_angstrom - height
        imaged += spectrum * wave_transfer(shape, pixel_size_angstrom, optics, defocus, device)
        if i < last:
            distance = height - slabs[i + 1][0]
            arriving += spectrum
            arriving *= propagator(shape, pixel_size_angstrom, distance, optics.voltage_kv, device)
    wave = _wave(imaged, fine)
    contrast = 2 * wave.real + wave.real.square() + wave.imag.square()
    return 1 + resample(contrast, shape)


def _check_slabs(slabs: Sequence[tuple[float, Tensor]]) -> tuple[int, int]:
    """The one shape (y, x) of the slabs.

    Raises
    ------
    BadInputError
        If there is no slab, their shapes differ or the heights rise.
    """
    if not slabs:
        raise BadInputError(
            "multislice needs at least one slab; give a slab of zero phase for an empty specimen"
        )
    heights = [height for height, _ in slabs]
    if any(later > earlier for earlier, later in itertools.pairwise(heights)):
        raise BadInputError(
            "slabs must come in the order of the beam, from the greatest height down (got heights"
            f" {heights} Å)"
        )
    shapes = [tuple(phase.shape) for _, phase in slabs]
    if len(set(shapes)) > 1:
        raise BadInputError(f"slabs must have one shape (got {shapes})")
    height, width = shapes[0]
    return height, width


def propagator(
    shape: Shape,
    pixel_size_angstrom: float,
    distance_angstrom: float,
    voltage_kv: float,
    device: Device | None = None,
) -> Tensor:
    """Factor exp(-i pi lambda dz k^2) on a wave's ``fft2`` that takes it `distance_angstrom` on
    along the beam: complex64 ``[y, x]``.
    """
    ky, kx = wave_frequencies(shape, pixel_size_angstrom, device)
    wavelength = electron_wavelength_angstrom(voltage_kv)
    angle = -math.pi * wavelength * distance_angstrom * (ky * ky + kx * kx)
    return torch.polar(torch.ones_like(angle), angle)


def _transmitted_less_one(phase: Tensor, amplitude_contrast: float) -> Tensor:
    """exp(i phi exp(i asin A)) - 1, without the loss of digits that the difference would have for
    small phases.

    The part A of the phase absorbs, so that what a weak object scatters, i phi exp(i asin A), lags
    by asin A as in the contrast transfer.
    """
    angle = phase * math.sqrt(1 - amplitude_contrast**2)
    # exp(-A phi) - 1, and cos - 1 as -2 sin^2 of half the angle.
    lost = torch.expm1(-amplitude_contrast * phase)
    real = lost * torch.cos(angle) - 2 * torch.sin(angle / 2).square()
    imaginary = (lost + 1) * torch.sin(angle)
    return torch.complex(real, imaginary)


def _wave(spectrum: Tensor, shape: Shape) -> Tensor:
    """A wave on a grid of `shape`, at least as fine as that of its `spectrum`."""
    return torch.fft.ifft2(_band(spectrum, shape), norm="forward")


def _band(spectrum: Tensor, new_shape: Shape) -> Tensor:
    """A full spectrum cropped or zero-padded to `new_shape`; amplitudes stay, the lone Nyquist
    terms of the coarser grid are left out.
    """
    out = spectrum.new_zeros(new_shape)
    for rows in _kept_along(spectrum.shape[0], new_shape[0]):
        for columns in _kept_along(spectrum.shape[1], new_shape[1]):
            out[rows, columns] = spectrum[rows, columns]
    return out


def _kept_along(size: int, new_size: int) -> tuple[slice, slice]:
    """Indices of the positive and the negative frequencies, along one axis, that grids of both
    sizes hold; those of the first include zero.
    """
    highest = (min(size, new_size) - 1) // 2
    return slice(0, highest + 1), slice(-highest, None)
