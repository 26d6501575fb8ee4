"""A map from images of particles whose poses are known, and how far it can be believed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.fft

# Of a Fourier term of one image of unit transfer: what Wiener's filter takes for the ratio of noise
# to signal where there are few data.
NOISE_TO_SIGNAL = 1.0
# At these a map shows half of the truth's amplitude: of two half maps, and of the whole map with
# the truth (Rosenthal & Henderson, J. Mol. Biol. 333, 721 (2003)).
HALF_MAPS_LEVEL = 0.143
TRUTH_LEVEL = 0.5
FIRST_SHELL = 3  # the mask joins all that is coarser


@dataclass(frozen=True)
class Slice:
    """The terms of a square image's ``rfft2`` that a map is made of: each once, without its
    conjugate, below Nyquist.

    Attributes
    ----------
    size
        Edge of the image in pixels.
    """

    size: int

    @cached_property
    def kept(self) -> np.ndarray:
        """Which terms, bool, on the ``rfft2`` grid."""
        ky, kx = self._frequencies
        inside = np.hypot(ky, kx) < self.size / 2 - 1
        return inside & ((kx > 0) | (ky >= 0))

    @cached_property
    def plane(self) -> np.ndarray:
        """Their frequencies (kx, ky) in cycles per box, [term, 2]."""
        ky, kx = self._frequencies
        return np.stack([kx[self.kept], ky[self.kept]], axis=-1)

    @cached_property
    def _frequencies(self) -> tuple[np.ndarray, np.ndarray]:
        cycles = np.fft.fftfreq(self.size, 1 / self.size)
        halves = np.fft.rfftfreq(self.size, 1 / self.size)
        ky, kx = np.meshgrid(cycles, halves, indexing="ij")
        return ky, kx

    def terms(self, box: np.ndarray) -> np.ndarray:
        """Of an image [y, x] whose particle's origin is at pixel [n // 2, n // 2]: complex,
        [term].
        """
        return np.fft.rfft2(np.fft.ifftshift(box))[self.kept]


class FourierVolume:
    """Images of known poses and transfers, gathered into one volume.

    Least squares in Fourier space (Penczek, Methods Enzymol. 482, 1 (2010)): each term of an image
    is shared trilinearly among the eight voxels around its place R^T (kx, ky, 0); a voxel becomes
    the sum of transfer times data over the sum of squared transfers and `NOISE_TO_SIGNAL`.

    Parameters
    ----------
    size
        Edge of the images and of the volume in pixels, about twice the particle's diameter, so
        that trilinear sharing is true.

    Attributes
    ----------
    total, weight
        The two sums, [kz, ky, kx], half of each: that of the mirror is added in `volume`.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = np.zeros((size, size, size), np.complex64)
        self.weight = np.zeros((size, size, size), np.float32)
        self._slice = Slice(size)

    def insert(self, terms: np.ndarray, transfer: np.ndarray, rotation: np.ndarray) -> None:
        """Add an image.

        Parameters
        ----------
        terms
            Of the image, complex, [term], see `Slice.terms`.
        transfer
            By which the object's own terms were multiplied, real, [term].
        rotation
            [3, 3], r' = R r with r = (x, y, z).
        """
        # Not above: numba takes half a second to load.
        from dstnet.metrics import _insertion_kernel as kernel

        transfer = transfer.astype(np.float64)
        kernel.insert(
            self.total,
            self.weight,
            self._slice.plane,
            terms * transfer,
            transfer**2,
            np.ascontiguousarray(rotation, np.float64),
        )

    @staticmethod
    def joined(parts: Sequence["FourierVolume"], times: Sequence[float]) -> "FourierVolume":
        """The volume of all images of some, each counted so many times."""
        whole = FourierVolume(parts[0].size)
        for part, count in zip(parts, times, strict=True):
            whole.total += np.float32(count) * part.total
            whole.weight += np.float32(count) * part.weight
        return whole

    def volume(self) -> np.ndarray:
        """The map [z, y, x], origin at voxel ``[n // 2] * 3``.

        What trilinear sharing does in real space, a factor sinc² of each coordinate, is undone.
        """
        size = self.size
        weight = _with_mirror(self.weight) + NOISE_TO_SIGNAL
        spectrum = _with_mirror(self.total) / weight
        volume = np.fft.fftshift(np.real(np.asarray(scipy.fft.ifftn(spectrum))))
        taper = np.sinc((np.arange(size) - size // 2) / size) ** 2
        whole_taper = taper[:, None, None] * taper[:, None] * taper
        return volume / whole_taper.astype(np.float32)


def _with_mirror(spectrum: np.ndarray) -> np.ndarray:
    """What the half of the plane that ``rfft2`` leaves out would have added, added."""
    mirror = np.roll(np.flip(spectrum), 1, (0, 1, 2)).conj()
    return spectrum + mirror


@lru_cache(maxsize=2)
def _shells(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Shell of each term of a cube's ``rfftn``, and how many terms of ``fftn`` it stands for."""
    k = np.fft.fftfreq(size, 1 / size)
    half = np.fft.rfftfreq(size, 1 / size)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + half**2)
    count = np.full(len(half), 2.0)
    count[0] = 1.0
    if size % 2 == 0:
        count[-1] = 1.0
    counts = np.broadcast_to(count, radius.shape)
    return np.rint(radius).astype(np.int64).ravel(), counts.ravel()


def shell_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Fourier shell correlation of two cubes, [shell], shells 0 to n / 2 - 2 one Fourier step wide
    (Harauz & van Heel, Optik 73, 146 (1986)); 0 where either has nothing.
    """
    size = len(a)
    shell, counts = _shells(size)
    of_a, of_b = (np.asarray(scipy.fft.rfftn(volume)).ravel() for volume in (a, b))

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(shell, values * counts)[: size // 2 - 1]

    cross = sums(np.real(of_a * of_b.conj()))
    power = sums(np.abs(of_a) ** 2) * sums(np.abs(of_b) ** 2)
    return np.divide(cross, np.sqrt(power), out=np.zeros_like(cross), where=power > 0)


def whitened(volumes: Sequence[np.ndarray], like: np.ndarray) -> list[np.ndarray]:
    """Cubes filtered so that each shell of `like` has mean power one.

    What a mask spreads over the shells is then of none more than of others. Of a map that falls by
    orders of magnitude, as of strongly filtered images, coarse detail would fill all fine shells.
    """
    size = len(like)
    shell, counts = _shells(size)
    spectrum = np.asarray(scipy.fft.rfftn(like))
    power = np.bincount(shell, np.abs(spectrum.ravel()) ** 2 * counts)
    terms = np.bincount(shell, counts)
    amplitude = np.sqrt(power / np.maximum(terms, 1)).clip(min=1e-30)
    transfer = (1 / amplitude)[shell].reshape(spectrum.shape).astype(np.float32)
    return [
        np.asarray(scipy.fft.irfftn(np.asarray(scipy.fft.rfftn(volume)) * transfer, like.shape))
        for volume in volumes
    ]


def soft_ball(size: int, radius_px: float, edge_px: float) -> np.ndarray:
    """1 within a radius of the voxel ``[n // 2] * 3`` of a cube, falling to 0 over an edge."""
    r = np.arange(size) - size // 2
    distance = np.sqrt(r[:, None, None] ** 2 + r[:, None] ** 2 + r**2)
    beyond = np.clip((distance - radius_px) / edge_px, 0, 1)
    return 0.5 + 0.5 * np.cos(math.pi * beyond)


def promised_correlation(half_maps: np.ndarray) -> np.ndarray:
    """The correlation with the truth that a map of both halves has if the halves share nothing but
    the truth: sqrt(2 f / (1 + f)), f that of the half maps (Rosenthal & Henderson, J. Mol. Biol.
    333, 721 (2003)); 0 where f is not positive.
    """
    shared = np.clip(half_maps, 0, 1)
    return np.sqrt(2 * shared / (1 + shared))


def resolution_angstrom(
    correlation: np.ndarray, level: float, box_angstrom: float, first: int = FIRST_SHELL
) -> float:
    """Where a shell correlation first falls below a level, interpolated; that of the last shell
    where it does not.

    Parameters
    ----------
    correlation
        [shell], shells one Fourier step of the box wide.
    level
        To fall below.
    box_angstrom
        Edge of the cube.
    first
        The first shell to look at.
    """
    below = np.flatnonzero(correlation[first:] < level)
    if not len(below):
        return box_angstrom / (len(correlation) - 1)
    shell = first + int(below[0])
    if shell == first:
        return box_angstrom / first
    before = correlation[shell - 1]
    part = (before - level) / (before - correlation[shell])
    return box_angstrom / (shell - 1 + float(part))
