"""Methods that learn nothing: plain sums and linear filters. Each is a function of the aligned
movie and one line of the registry.
"""

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch

from dstnet.alignment import AlignedMovie
from dstnet.core.fourier import (
    cosine_frequency,
    cosine_transform,
    inverse_cosine_transform,
)
from dstnet.core.shapes import Image
from dstnet.enhancement.base import Needs, Restored, check_outputs
from dstnet.enhancement.signal_recovery import wiener_filtered
from dstnet.errors import SettingsError
from dstnet.movie import Movie
from dstnet.movie.normalise import unit_noise

GAUSSIAN_ANGSTROM = 20.0  # what the eye can use of a plain sum


class ClassicalRestorer:
    """A method that gives the micrograph alone.

    Parameters
    ----------
    name
        As users call it.
    restore
        Makes the micrograph of an aligned movie.
    """

    outputs: tuple[str, ...] = ("micrograph",)

    def __init__(self, name: str, restore: Callable[[AlignedMovie], Image]) -> None:
        self.name = name
        self._restore = restore

    def needs(self, movie: Movie) -> Needs:
        """The sums alone."""
        return Needs()

    def describe(self) -> dict[str, Any]:
        """See `Restorer`."""
        return {"method": self.name}

    def __call__(
        self, aligned: AlignedMovie, *, outputs: Collection[str] = ("micrograph",)
    ) -> Restored:
        """See `Restorer`.

        Raises
        ------
        SettingsError
            If more than the micrograph is asked for.
        BadInputError
            If the sum is without noise where the method measures it.
        """
        check_outputs(self, outputs)
        return Restored({"micrograph": self._restore(aligned)})


def plain_sum(aligned: AlignedMovie) -> Image:
    """The motion-corrected sum as it is."""
    return aligned.total


def dose_weighted_sum(aligned: AlignedMovie) -> Image:
    """The dose-weighted sum; the plain one where the exposure is not known."""
    if aligned.dose_weighted is None:
        return aligned.total
    return aligned.dose_weighted


def gaussian(aligned: AlignedMovie, resolution_angstrom: float = GAUSSIAN_ANGSTROM) -> Image:
    """The dose-weighted sum through a Gaussian that falls to 1/e at `resolution_angstrom`."""
    image = dose_weighted_sum(aligned)
    k = cosine_frequency(aligned.shape, aligned.pixel_size_angstrom, image.device)
    transfer = torch.exp(-((k * resolution_angstrom) ** 2))
    return inverse_cosine_transform(transfer * cosine_transform(image))


def wiener(aligned: AlignedMovie) -> Image:
    """The dose-weighted sum through the Wiener filter of its own rings: (P - 1) / P, with P the
    mean power of a ring over that of the noise, which is taken as white (Wiener 1949).

    Raises
    ------
    BadInputError
        If the sum is without noise.
    """
    image = dose_weighted_sum(aligned)
    total, mean, noise = unit_noise(image, aligned.movie.name)
    return mean + noise * wiener_filtered(total)


def gaussian_of(argument: str) -> Callable[[AlignedMovie], Image]:
    """`gaussian` of the resolution that a user wrote; of the default where none was.

    Raises
    ------
    SettingsError
        If it is no positive number.
    """
    if not argument:
        return gaussian
    is_number = re.fullmatch(r"\d+(\.\d+)?", argument) is not None
    if not is_number or not float(argument) > 0:
        raise SettingsError(
            f"model gaussian: {argument!r} is no resolution in Å; give one, as gaussian:20"
        )
    return partial(gaussian, resolution_angstrom=float(argument))
