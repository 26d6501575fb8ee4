"""One interface for every method, movie in and enhanced movie out, and the network that implements it."""

import operator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dstnet.alignment import AlignedMovie, MovieMotion, align
from dstnet.core.fourier import resample
from dstnet.core.shapes import Image, Stack
from dstnet.enhancement.evidence import fading
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.enhancement.tiles import blend_tiles
from dstnet.errors import BadInputError, SettingsError
from dstnet.movie import FrameStack, Movie
from dstnet.movie.normalise import normalised
from dstnet.network.dstnet import exposure_features
from dstnet.network.weights import load_weights


@dataclass(frozen=True)
class Enhanced:
    """What a method makes of a movie. Images are on the grid of its sums, in the units of what they are enhanced from.

    Attributes
    ----------
    micrograph
        The enhanced micrograph.
    sums
        The plain sums, and the motion that was taken out.
    frames
        Enhanced images of the fractions, in the aligned position and the units of the whole sum; None where not asked for.
    even, odd
        Enhanced images of every other frame, of those in `sums.even` and `sums.odd`; None where not asked for.
    notes
        What the user should know: estimates made, ranges left.
    """

    micrograph: Image
    sums: AlignedMovie
    frames: Stack | None = None
    even: Image | None = None
    odd: Image | None = None
    notes: tuple[str, ...] = ()


class Restorer(Protocol):
    """A method: plain sums, filters and networks alike."""

    def __call__(self, movie: Movie, *, frames: bool = False, halves: bool = False, motion: MovieMotion | None = None) -> Enhanced: ...


class _EveryOther:
    """Every other frame of a stack, from `first` on."""

    def __init__(self, frames: FrameStack, first: int):
        self._frames, self._first = frames, first
        self.shape = ((frames.shape[0] - first + 1) // 2, *frames.shape[1:])

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self._frames[self._first + 2 * operator.index(index)]


class NetworkRestorer:
    """Alignment, then a network with released or given weights.

    Parameters
    ----------
    settings
        Frozen settings; the weights they name are loaded once.
    device
        Where the network runs: "cpu", "cuda", "cuda:1", ...
    """

    def __init__(self, settings: EnhancementSettings | None = None, device: str = "cpu"):
        self.settings = settings or EnhancementSettings()
        network, self.card = load_weights(self.settings.model)
        tile = self.settings.tile - self.settings.tile % network.stride
        if self.settings.overlap >= tile:
            raise SettingsError(f"overlap {self.settings.overlap} must be smaller than tile {tile} (a multiple of {network.stride})")
        try:
            self.device = torch.device(device)
            self.network = network.to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise SettingsError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}; use --device cpu") from None

    def __call__(self, movie: Movie, *, frames: bool = False, halves: bool = False, motion: MovieMotion | None = None) -> Enhanced:
        """Enhance one movie.

        Parameters
        ----------
        movie
            The movie.
        frames
            Also enhance each fraction.
        halves
            Also enhance the two halves of the movie, every other frame each, on their own: their noise is independent.
        motion
            Motion found elsewhere; None estimates it.

        Raises
        ------
        BadInputError
            If a frame is constant, not finite or without noise, or `motion` does not fit the movie; or one frame is asked for halves.
        """
        if halves and len(movie) < 2:
            raise BadInputError(f"{movie.name} has one frame, so no halves; leave out --halves")
        sums = self._sums(movie, motion, halves)
        micrograph, enhanced_frames = self._enhance(movie, sums, frames)
        even, odd = (self._half(movie, sums, first) if halves else None for first in (0, 1))
        return Enhanced(micrograph, sums, enhanced_frames, even, odd, (*sums.notes, *self.warnings(movie)))

    def _sums(self, movie: Movie, motion: MovieMotion | None, halves: bool = False) -> AlignedMovie:
        return align(
            movie,
            self.settings.alignment,
            working_pixel_angstrom=self.card.working_pixel_angstrom,
            max_fractions=min(self.settings.fractions or self.card.fractions, len(movie)),
            halves=halves,
            motion=motion,
            device=self.device,
        )

    def _half(self, movie: Movie, sums: AlignedMovie, first: int) -> Image:
        """The enhanced image of every other frame. The network is told their own exposure; that of the frames between, which the specimen
        has seen as well, has no place in a `Movie`.
        """
        half = replace(movie, frames=_EveryOther(movie.frames, first))
        motion = MovieMotion(sums.motion.shifts_angstrom[first::2], sums.motion.local_coefficients_angstrom[first::2])
        return self._enhance(half, self._sums(half, motion), False)[0]

    def warnings(self, movie: Movie) -> list[str]:
        """Where a movie lies outside the range that the weights were trained for, or something had to be taken as unknown."""
        card, notes = self.card, []
        low, high = card.valid_pixel_angstrom
        if not low <= movie.pixel_size_angstrom <= high:
            notes.append(f"pixel size {movie.pixel_size_angstrom:.3f} Å is outside the {low}-{high} Å that {card.name} was trained for")
        if movie.exposure_e_per_a2 is None:
            notes.append("exposure per frame not known: no dose weighting; the network judges it from the noise (pass --dose-per-frame)")
        else:
            whole = movie.exposure_e_per_a2 * len(movie)
            low, high = card.valid_exposure_e_per_a2
            if not low <= whole <= high:
                notes.append(f"exposure {whole:.1f} e-/Å2 is outside the {low}-{high} e-/Å2 that {card.name} was trained for")
        return notes

    def _enhance(self, movie: Movie, aligned: AlignedMovie, frames: bool) -> tuple[Image, Stack | None]:
        fractions, total, mean, noise = normalised(aligned.fractions.cpu(), movie.name)
        exposure = self._exposure(movie, aligned)

        def run(tile_frames: Tensor, tile_total: Tensor) -> Tensor:
            inputs = (x[None].to(self.device) for x in (tile_frames, tile_total, exposure))
            with torch.no_grad(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.half_precision):
                return self.network(*inputs, every=frames)[0].float().cpu()

        out = blend_tiles(
            run,
            fractions,
            total,
            outputs=1 + (len(fractions) if frames else 0),
            tile=self.settings.tile,
            overlap=self.settings.overlap,
            stride=self.network.stride,
        )
        if not torch.isfinite(out).all():
            raise BadInputError(f"{movie.name}: the network gave values that are not finite; look for extreme pixels in the frames")
        if self.settings.evidence:
            out += fading(total, out[0], aligned.working_pixel_angstrom)
        shape = (aligned.total.shape[0], aligned.total.shape[1])
        on_grid = [mean + noise * resample(image, shape) for image in out]
        return on_grid[0], torch.stack(on_grid[1:]) if frames else None

    def _exposure(self, movie: Movie, aligned: AlignedMovie) -> Tensor:
        if movie.exposure_e_per_a2 is None or aligned.fraction_exposure_e_per_a2 is None:
            return exposure_features(None, None, len(aligned.fractions))
        own = torch.tensor(aligned.fraction_frames) * movie.exposure_e_per_a2
        return exposure_features(torch.tensor(aligned.fraction_exposure_e_per_a2), own, len(own))
