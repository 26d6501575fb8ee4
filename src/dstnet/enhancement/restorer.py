"""One interface for every method, movie in and enhanced movie out, and the network that implements it."""

import operator
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dstnet.alignment import AlignedMovie, MovieMotion, align
from dstnet.core.fourier import multiplied, resample
from dstnet.core.shapes import Image, Stack
from dstnet.enhancement.contamination import dark_mask, put_back, replaced
from dstnet.enhancement.evidence import filled, linear_part, notes_on
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.enhancement.tiles import blend_tiles
from dstnet.enhancement.transfer import transfer_match
from dstnet.errors import BadInputError, SettingsError
from dstnet.movie import FrameStack, Movie
from dstnet.movie.band import noise_band, refiltered, reflected, whitened
from dstnet.movie.normalise import normalised
from dstnet.network.dstnet import exposure_features
from dstnet.network.engine import make_engine
from dstnet.network.weights import load_weights
from dstnet.optics.thon import fit_thon_rings

# From here on, pure noise has at most 2 % of the output power of particles: 0.2 % at 20, 6 % at 5 e-/Å2 (benchmarks/quality/honesty.py).
TRUSTED_E_PER_A2 = 20.0
# Residual energy on fourteen movies of benchmarks/quality/held_out.py (strong) by 8, 6, 5 and 4 fractions: 0.3751, 0.3752, 0.3756, 0.3764.
USUAL_FRACTIONS = 5


@dataclass(frozen=True)
class Enhanced:
    """What a method makes of a movie. Images are on the grid of its sums, in the units of what they are enhanced from.

    Attributes
    ----------
    micrograph
        The enhanced micrograph.
    sums
        The plain sums, and the motion that was taken out; fractions are not kept.
    contrast
        The estimate without the CTF's modulation: particles dark on flat ice, its coarse detail from where particles are (settings:
        fill); None where not asked for.
    uncertainty
        Expected error (rms) of each pixel of `micrograph`, down to the detail that the network sees; None where not asked for.
    particles
        Where particles are: from 0 to -1 in the middle of each, dark as particles are; None where not asked for.
    frames
        Enhanced images of the fractions, in the aligned position and the units of the whole sum; of weights trained on windows, each raw
        frame where it lies and in its own units. None where not asked for.
    even, odd
        Enhanced images of every other frame, of those in `sums.even` and `sums.odd`; None where not asked for.
    notes
        What the user should know: estimates made, ranges left.
    """

    micrograph: Image
    sums: AlignedMovie
    contrast: Image | None = None
    uncertainty: Image | None = None
    particles: Image | None = None
    frames: Stack | None = None
    even: Image | None = None
    odd: Image | None = None
    notes: tuple[str, ...] = ()


class Restorer(Protocol):
    """A method: plain sums, filters and networks alike."""

    def __call__(
        self,
        movie: Movie,
        *,
        frames: bool = False,
        halves: bool = False,
        heads: Collection[str] = (),
        motion: MovieMotion | None = None,
    ) -> Enhanced: ...


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

    windowed = False

    def __init__(self, settings: EnhancementSettings | None = None, device: str = "cpu"):
        self.settings = settings or EnhancementSettings()
        network, self.card = load_weights(self.settings.model)
        if (self.card.window is not None) is not self.windowed:
            trained_for = "windows of raw frames" if self.card.window else "whole movies"
            raise SettingsError(f"{self.card.name} was trained for {trained_for}: use dstnet.enhancement.window.restorer_of")
        tile = self.settings.tile - self.settings.tile % network.stride
        if self.settings.overlap >= tile:
            raise SettingsError(f"overlap {self.settings.overlap} must be smaller than tile {tile} (a multiple of {network.stride})")
        try:
            self.device = torch.device(device)
            self.network = network.to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise SettingsError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}; use --device cpu") from None
        self._engine = make_engine(self.settings.engine, self.device, half_precision=self.settings.half_precision)

    def __call__(
        self,
        movie: Movie,
        *,
        frames: bool = False,
        halves: bool = False,
        heads: Collection[str] = (),
        motion: MovieMotion | None = None,
    ) -> Enhanced:
        """Enhance one movie.

        Parameters
        ----------
        movie
            The movie.
        frames
            Also enhance each fraction.
        halves
            Also enhance the two halves of the movie, every other frame each, on their own: their noise is independent.
        heads
            What to give beside the micrograph: "contrast", "uncertainty", "particles".
        motion
            Motion found elsewhere; None estimates it.

        Raises
        ------
        SettingsError
            If the weights do not give what `heads` asks for.
        BadInputError
            If a frame is constant, not finite or without noise, or `motion` does not fit the movie; or one frame is asked for halves.
        """
        if halves and len(movie) < 2:
            raise BadInputError(f"{movie.name} has one frame, so no halves; leave out --halves")
        self.check_heads(heads)
        sums = self._sums(movie, motion, halves)
        if not (halves or self.windowed):
            movie.forget()  # its frames are not asked for again, and the network needs the room
        images, enhanced_frames, told = self._enhance(movie, sums, frames, ("micrograph", *heads))
        even, odd = (self._half(movie, sums, first) if halves else None for first in (0, 1))
        notes = (*sums.notes, *self.warnings(movie), *told)
        sums = replace(sums, fractions=sums.fractions.new_empty(0, *sums.fractions.shape[1:]))
        return Enhanced(**images, sums=sums, frames=enhanced_frames, even=even, odd=odd, notes=notes)

    def check_heads(self, heads: Collection[str]) -> None:
        """Refuse, with a SettingsError, heads that the weights do not have."""
        if missing := set(heads) - set(self.network.outputs[1:]):
            given = ", ".join(self.network.outputs[1:]) or "the enhanced micrograph alone"
            raise SettingsError(f"{self.card.name} gives no {' or '.join(sorted(missing))} ({given}); choose other weights with --model")

    def _sums(self, movie: Movie, motion: MovieMotion | None, halves: bool = False) -> AlignedMovie:
        return align(
            movie,
            self.settings.alignment,
            working_pixel_angstrom=self.card.working_pixel_angstrom,
            max_fractions=min(self.settings.fractions or min(USUAL_FRACTIONS, self.card.fractions), len(movie)),
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
        return self._enhance(half, self._sums(half, motion), False, ("micrograph",))[0]["micrograph"]

    def warnings(self, movie: Movie) -> list[str]:
        """Where a movie lies outside the range that the weights were trained for, or something had to be taken as unknown."""
        card, notes = self.card, []
        low, high = card.valid_pixel_angstrom
        if not low <= movie.pixel_size_angstrom <= high:
            notes.append(f"pixel size {movie.pixel_size_angstrom:.3f} Å is outside the {low}-{high} Å that {card.name} was trained for")
        if movie.exposure_e_per_a2 is None:
            notes.append("exposure per frame not known: no dose weighting; the network judges it from the noise (pass --dose-per-frame)")
        else:
            notes += self._of_exposure(movie.exposure_e_per_a2, len(movie))
        return notes

    def _of_exposure(self, each_e_per_a2: float, count: int) -> list[str]:
        """Warnings of a movie of `count` frames of an exposure each."""
        (low, high), name, notes = self.card.valid_exposure_e_per_a2, self.card.name, []
        whole = each_e_per_a2 * count
        if not low <= whole <= high:
            notes.append(f"exposure {whole:.1f} e-/Å2 is outside the {low}-{high} e-/Å2 that {name} was trained for")
        if whole < TRUSTED_E_PER_A2:
            notes.append(
                f"at {whole:.1f} e-/Å2, less than {TRUSTED_E_PER_A2:g}, part of what is drawn may be noise; "
                "trust what the filtered sum shows too"
            )
        return notes

    def _enhance(
        self, movie: Movie, aligned: AlignedMovie, frames: bool, wanted: Collection[str]
    ) -> tuple[dict[str, Image], Stack | None, list[str]]:
        """Images by name, and the enhanced frames where asked for, on the grid and in the units of the sum; and notes."""
        fractions, pixel = aligned.fractions.cpu(), aligned.working_pixel_angstrom
        dark = dark_mask(fractions.sum(0), pixel) if self.settings.replace_dark else None
        if dark is not None:
            fractions = replaced(fractions, dark, pixel)
        band = noise_band(fractions.sum(0), pixel) if self.settings.whiten else None
        if band is not None and not band.plain:
            fractions, pixel = whitened(fractions, pixel, band, self.card.working_pixel_angstrom), self.card.working_pixel_angstrom
        fractions, total, mean, noise = normalised(fractions, movie.name, out=fractions)  # as much room as a fifth of all else
        exposure = self._exposure(movie, aligned)
        count = len(fractions)
        limit = None if band is None or band.plain else 0.93 * band.edge_per_angstrom
        if getattr(self.network.settings, "transfer_input", False):
            fit = fit_thon_rings(total, pixel, limit)
            aside = torch.zeros_like(total)
            if fit is not None:
                whole = (2 * total.shape[0], 2 * total.shape[1])
                turned = torch.fft.rfft2(reflected(total)) * torch.sin(fit.phase(whole, pixel))
                aside = torch.fft.irfft2(turned, s=whole)[: total.shape[0], : total.shape[1]]
            fractions = torch.cat((fractions, aside[None]))

        def run(tile_frames: Tensor, tile_total: Tensor) -> Tensor:
            return self._engine(self.network, tile_frames[None], tile_total[None], exposure[None], every=frames)[0]

        out = blend_tiles(
            run,
            fractions,
            total,
            outputs=len(self.network.outputs) + (count if frames else 0),
            tile=self.settings.tile,
            overlap=self.settings.overlap,
            stride=self.network.stride,
        )
        if not torch.isfinite(out).all():
            raise BadInputError(f"{movie.name}: the network gave values that are not finite; look for extreme pixels in the frames")
        images = dict(zip(self.network.outputs, out, strict=False))
        each = out[len(images) :]
        if "uncertainty" in images:
            factor, power = self.card.uncertainty_calibration
            images["uncertainty"] = factor * images["uncertainty"] ** power
        if self.settings.ctf:
            match = transfer_match(total, images["micrograph"], pixel, limit)
            if match is not None:
                images["micrograph"] = multiplied(images["micrograph"], match)
                for image in each:
                    image.copy_(multiplied(image, match))
        notes = []
        if self.settings.evidence:
            added = linear_part(total, images["micrograph"], pixel, movie.whole_exposure_e_per_a2)
            images["micrograph"] += added
            each += added
            notes = notes_on(added, images["micrograph"])
            if "uncertainty" in images:
                # The network knows nothing of what was added, most of it noise.
                images["uncertainty"] = (images["uncertainty"].square() + added.square().mean()).sqrt()
        if self._fills(wanted):
            images["contrast"] = filled(images["contrast"], images["particles"], pixel)
        if band is not None and not band.plain:
            images["micrograph"] = refiltered(images["micrograph"], pixel, band)
        shape = (aligned.total.shape[0], aligned.total.shape[1])

        def on_grid(image: Tensor, mean: float = mean) -> Tensor:
            return mean + noise * resample(image, shape)

        given = {name: on_grid(images[name]) for name in wanted if name in ("micrograph", "contrast")}
        if dark is not None:
            given["micrograph"] = put_back(given["micrograph"], aligned.total.cpu(), dark, aligned.pixel_size_angstrom)
        if "particles" in wanted:
            given["particles"] = -resample(images["particles"], shape).clamp(0, 1)
        if "uncertainty" in wanted:
            error = images["uncertainty"]
            # Resampling rings at steps: no error is less than the least that was expected anywhere.
            given["uncertainty"] = on_grid(error, 0.0).clamp(min=noise * float(error.min()))
        return given, torch.stack([on_grid(image) for image in each]) if frames else None, notes

    def _fills(self, wanted: Collection[str]) -> bool:
        """Whether the contrast is asked for, and to be filled by where particles are."""
        return self.settings.fill and "contrast" in wanted and "particles" in self.network.outputs

    def _exposure(self, movie: Movie, aligned: AlignedMovie) -> Tensor:
        if movie.exposure_e_per_a2 is None or aligned.fraction_exposure_e_per_a2 is None:
            return exposure_features(None, None, len(aligned.fractions))
        own = torch.tensor(aligned.fraction_frames) * movie.exposure_e_per_a2
        return exposure_features(torch.tensor(aligned.fraction_exposure_e_per_a2), own, len(own))
