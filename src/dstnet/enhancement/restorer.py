"""One interface for every method, movie in and enhanced movie out, and the network that implements it."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dstnet.alignment import AlignedMovie, accumulate, estimate_global_motion
from dstnet.core.fourier import resample
from dstnet.core.shapes import Image, Stack, Trajectory
from dstnet.enhancement.evidence import fading
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.enhancement.tiles import blend_tiles
from dstnet.errors import BadInputError, SettingsError
from dstnet.movie import Movie
from dstnet.movie.normalise import normalised
from dstnet.network.dstnet import exposure_features
from dstnet.network.weights import load_weights


@dataclass(frozen=True)
class Enhanced:
    """What a method makes of a movie. Images are on the movie's grid, in the units of its sum.

    Attributes
    ----------
    micrograph
        The enhanced micrograph.
    aligned
        Motion-corrected sum without weighting.
    dose_weighted
        Motion-corrected, exposure-weighted sum; None where the exposure is not known.
    frames
        Enhanced images of the fractions, in the aligned position, in units of the whole sum; None where not asked for.
    shifts_angstrom
        Motion that was taken out, one (y, x) a frame.
    notes
        What the user should know: estimates made, ranges left.
    """

    micrograph: Image
    aligned: Image
    dose_weighted: Image | None
    frames: Stack | None
    shifts_angstrom: Trajectory
    notes: list[str] = field(default_factory=list)


class Restorer(Protocol):
    """A method: plain sums, filters and networks alike."""

    def __call__(self, movie: Movie, *, frames: bool = False) -> Enhanced: ...


class NetworkRestorer:
    """Global alignment, then a network with released or given weights.

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

    def __call__(self, movie: Movie, *, frames: bool = False) -> Enhanced:
        """Enhance one movie.

        Raises
        ------
        BadInputError
            If a frame is constant, not finite or without noise.
        """
        shifts = estimate_global_motion(movie, self.settings.alignment)
        count = min(self.settings.fractions or self.card.fractions, len(movie))
        aligned = accumulate(movie, shifts, working_pixel_angstrom=self.card.working_pixel_angstrom, max_fractions=count)
        micrograph, enhanced_frames = self._enhance(movie, aligned, frames)
        return Enhanced(micrograph, aligned.total, aligned.dose_weighted, enhanced_frames, shifts, self.warnings(movie))

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
        fractions, total, mean, noise = normalised(aligned.fractions, movie.name)
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
        on_grid = [mean + noise * resample(image, movie.shape) for image in out]
        return on_grid[0], torch.stack(on_grid[1:]) if frames else None

    def _exposure(self, movie: Movie, aligned: AlignedMovie) -> Tensor:
        if movie.exposure_e_per_a2 is None or aligned.fraction_exposure_e_per_a2 is None:
            return exposure_features(None, None, len(aligned.fractions))
        own = torch.tensor(aligned.fraction_frames) * movie.exposure_e_per_a2
        return exposure_features(torch.tensor(aligned.fraction_exposure_e_per_a2), own, len(own))
