"""A direct Fourier reconstruction from images of known poses: independent of `dstnet.potential`,
whose slices it puts back.
"""

import math
from collections.abc import Iterable

import numpy as np


def frequencies(size: int, spacing: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (ky, kx) of a ``rfft2`` of a square image, in cycles per unit of `spacing`."""
    ky, kx = np.meshgrid(
        np.fft.fftfreq(size, spacing), np.fft.rfftfreq(size, spacing), indexing="ij"
    )
    return ky, kx


def cut(image: np.ndarray, centre: tuple[float, float], size: int) -> np.ndarray:
    """A box of `size` pixels, within the image, whose pixel [0, 0] shows what was at `centre` (y,
    x), wrapped around.
    """
    nearest = round(centre[0]), round(centre[1])
    top, left = nearest[0] - size // 2, nearest[1] - size // 2
    box = np.fft.fft2(np.fft.ifftshift(image[top : top + size, left : left + size]))
    ky, kx = np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :]
    rest = centre[0] - nearest[0], centre[1] - nearest[1]
    return np.fft.ifft2(box * np.exp(2j * np.pi * (ky * rest[0] + kx * rest[1]))).real


def reconstruct(
    size: int, images: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], signal_to_noise: float
) -> np.ndarray:
    """The volume [z, y, x], origin at voxel ``[n // 2] * 3``, of which the images are projections
    times their transfer.

    Least squares in Fourier space: each term of an image's ``rfft2`` is shared trilinearly among
    the eight voxels around its place R^T (kx, ky, 0); a voxel becomes the sum of transfer times
    data over the sum of squared transfers plus `1 / signal_to_noise`. What trilinear sharing does
    in real space, a factor sinc² of each coordinate, is undone.

    Parameters
    ----------
    size
        Edge of the images and of the volume, at least twice the particle's diameter.
    images
        Of each particle: box with the particle's origin at pixel [0, 0]; transfer on the ``rfft2``
        grid; rotation r' = R r, r = (x, y, z).
    signal_to_noise
        Of a Fourier term of one image of unit transfer: what Wiener's filter takes for the ratio
        where there are few data.
    """
    ky, kx = frequencies(size, 1 / size)
    keep = (np.hypot(ky, kx) < size / 2 - 1) & (
        (kx > 0) | (ky >= 0)
    )  # each term once, without its conjugate
    plane = np.stack([kx[keep], ky[keep]], axis=-1)
    data, squares, places = [], [], []
    for box, transfer, rotation in images:
        data.append(np.fft.rfft2(box)[keep] * transfer[keep])
        squares.append(transfer[keep] ** 2)
        places.append(
            plane @ rotation[:2]
        )  # rows of R are the image's axes in the particle's frame: R^T (kx, ky, 0)
    values, weights, place = np.concatenate(data), np.concatenate(squares), np.concatenate(places)
    base = np.floor(place).astype(int)
    part = place - base
    total, weight = np.zeros(size**3, complex), np.zeros(size**3)
    for corner in np.ndindex(2, 2, 2):
        share = np.prod(np.where(corner, part, 1 - part), axis=1)
        x, y, z = ((base + corner) % size).T
        index = (z * size + y) * size + x
        total += np.bincount(index, np.real(values) * share, size**3) + 1j * np.bincount(
            index, np.imag(values) * share, size**3
        )
        weight += np.bincount(index, weights * share, size**3)
    total, weight = (_hermitian(a.reshape(size, size, size)) for a in (total, weight))
    volume = np.fft.fftshift(np.fft.ifftn(total / (np.real(weight) + 1 / signal_to_noise)).real)
    taper = np.sinc((np.arange(size) - size // 2) / size) ** 2
    return volume / (taper[:, None, None] * taper[:, None] * taper)


def _hermitian(spectrum: np.ndarray) -> np.ndarray:
    """The spectrum plus its own mirror's conjugate, which the half of the plane that ``rfft2``
    leaves out would have added.
    """
    mirror = np.roll(np.flip(spectrum), 1, (0, 1, 2)).conj()
    return spectrum + mirror


def shell_of(size: int) -> np.ndarray:
    """Number of the Fourier shell of each term of a cube's ``fftn``."""
    k = np.fft.fftfreq(size, 1 / size)
    return np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)).astype(int)


def shell_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Fourier shell correlation of two volumes, shells 0 to n / 2 - 2."""
    size = a.shape[0]
    shell = shell_of(size).ravel()
    fa, fb = np.fft.fftn(a).ravel(), np.fft.fftn(b).ravel()

    def per_shell(values: np.ndarray) -> np.ndarray:
        return np.bincount(shell, values)[: size // 2 - 1]

    return per_shell((fa * fb.conj()).real) / np.sqrt(
        per_shell(abs(fa) ** 2) * per_shell(abs(fb) ** 2)
    )


def soft_ball(size: int, radius: float, edge: float) -> np.ndarray:
    """1 within `radius` of the voxel ``[n // 2] * 3``, falling to 0 over `edge`, all in voxels."""
    r = np.arange(size) - size // 2
    distance = np.sqrt(r[:, None, None] ** 2 + r[:, None] ** 2 + r**2)
    return 0.5 + 0.5 * np.cos(math.pi * np.clip((distance - radius) / edge, 0, 1))


def crossing(curve: np.ndarray, level: float) -> float:
    """The shell, interpolated, at which a curve falls below `level` for good (the last shell if it
    does not).
    """
    above = np.flatnonzero(curve >= level)
    last = int(above[-1]) if len(above) else 0
    if last + 1 >= len(curve):
        return float(last)
    return last + (curve[last] - level) / (curve[last] - curve[last + 1])
