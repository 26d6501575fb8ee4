"""The second mode: raw frames as they are, each enhanced where it lies, from its neighbours; the motion between them is the network's.

A window of frames (the paper's: two past and two future ones) slides over the movie. At the movie's ends it is cut short: to repeat a
frame would give the same noise twice, and noise that agrees is what the network takes for signal. The weights are trained with both.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dstnet.alignment import AlignedMovie, MovieMotion, accumulate, align
from dstnet.alignment.global_motion import checked_frame
from dstnet.core.fourier import multiplied, resample
from dstnet.core.shapes import Image, Stack
from dstnet.enhancement.evidence import filled, linear_part, notes_on
from dstnet.enhancement.restorer import NetworkRestorer
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.enhancement.tiles import blend_tiles
from dstnet.enhancement.transfer import transfer_match
from dstnet.errors import BadInputError, SettingsError
from dstnet.movie import Movie
from dstnet.movie.normalise import normalised
from dstnet.network.dstnet import exposure_features
from dstnet.network.weights import read_card, released


def restorer_of(settings: EnhancementSettings, device: str = "cpu") -> NetworkRestorer:
    """The restorer that the weights named in the settings were trained for."""
    path = released().get(settings.model) or Path(settings.model)
    # A file that is missing is for the restorer to name.
    windowed = path.is_file() and read_card(path).window is not None
    return (WindowRestorer if windowed else NetworkRestorer)(settings, device)


class WindowRestorer(NetworkRestorer):
    """A network with weights that were trained on windows of raw frames; parameters and call are those of `NetworkRestorer`.

    The enhanced micrograph, and the contrast, is the sum of the enhanced frames, moved back by the motion that the alignment estimates; it
    is in the units of the plain sum, which still stands beside it. Where particles are is the frames' mean. Enhanced frames lie where the
    raw ones do, each in its own frame's units. With evidence on, what the micrograph is given back is shared out to the frames, so that
    they still add up to it.

    Memory holds a window of frames on the working grid, whatever the number of frames; where enhanced frames are asked for, all of them
    on the grid of the sums as well, 4 bytes a pixel: 2.7 GB for 40 of 4096 x 4096. `enhanced_frames` gives them one at a time.
    """

    windowed = True

    def __init__(self, settings: EnhancementSettings | None = None, device: str = "cpu"):
        super().__init__(settings, device)
        if self.settings.fractions is not None:
            raise SettingsError(f"{self.card.name} takes raw frames, one by one; leave out --fractions")

    def check_heads(self, heads: Collection[str]) -> None:
        """As in `NetworkRestorer`; the uncertainty of a sum of frames that share their inputs is not known from theirs."""
        if "uncertainty" in heads:
            raise SettingsError(
                f"{self.card.name} enhances single frames, whose errors are not independent, so the micrograph's is unknown; "
                "ask for no uncertainty, or choose weights of whole movies with --model"
            )
        super().check_heads(heads)

    def _of_exposure(self, each_e_per_a2: float, count: int) -> list[str]:
        (low, high), name = self.card.valid_exposure_e_per_a2, self.card.name
        if low <= each_e_per_a2 <= high:
            return []
        return [f"exposure {each_e_per_a2:.2f} e-/Å2 of a frame is outside the {low}-{high} that {name} was trained for"]

    def enhanced_frames(self, movie: Movie) -> Iterator[Image]:
        """Each frame enhanced where it lies, [y, x] on the working grid, in the frame's units; nothing is given back by evidence.

        Raises
        ------
        BadInputError
            If a frame is constant, not finite or without noise.
        """
        first = replace(movie, frames=np.asarray(movie.frames[0])[None])
        still = MovieMotion.of_shifts(torch.zeros(1, 2))
        grid = accumulate(first, still, working_pixel_angstrom=self.card.working_pixel_angstrom, max_fractions=1).fractions.shape[1:]
        for out, mean, noise in self._slide(movie, (grid[0], grid[1])):
            yield mean + noise * out[0]

    def _slide(self, movie: Movie, grid: tuple[int, int]) -> Iterator[tuple[Tensor, float, float]]:
        """The network's outputs [output, y, x] for each frame in units of its noise, and its mean and noise."""
        half = (self.card.window or 1) // 2
        kept: dict[int, tuple[Tensor, float, float]] = {}
        for newest in range(len(movie) + half):
            if newest < len(movie):
                frame = resample(checked_frame(movie, newest), grid)
                _, unit, mean, noise = normalised(frame[None], f"{movie.name}: frame {newest + 1}")
                kept[newest] = unit, mean, noise
            here = newest - half
            kept.pop(here - half - 1, None)
            if here >= 0:
                unit, mean, noise = kept[here]
                out = self._run(torch.stack([frame for frame, _, _ in kept.values()]), unit, _told(movie, list(kept)))
                if not torch.isfinite(out).all():
                    raise BadInputError(
                        f"{movie.name}: the network gave values that are not finite for frame {here + 1}; look for extreme pixels"
                    )
                yield out, mean, noise

    def _run(self, frames: Tensor, middle: Image, exposure: Tensor) -> Tensor:
        def run(tile_frames: Tensor, tile_middle: Tensor) -> Tensor:
            return self._engine(self.network, tile_frames[None], tile_middle[None], exposure[None])[0]

        outputs, s = len(self.network.outputs), self.settings
        return blend_tiles(run, frames, middle, outputs=outputs, tile=s.tile, overlap=s.overlap, stride=self.network.stride)

    def _sums(self, movie: Movie, motion: MovieMotion | None, halves: bool = False) -> AlignedMovie:
        return align(
            movie,
            self.settings.alignment,
            working_pixel_angstrom=self.card.working_pixel_angstrom,
            max_fractions=1,  # the whole sum on the working grid, for its evidence
            halves=halves,
            motion=motion,
            device=self.device,
        )

    def _enhance(
        self, movie: Movie, aligned: AlignedMovie, frames: bool, wanted: Collection[str]
    ) -> tuple[dict[str, Image], Stack | None, list[str]]:
        """Images by name, on the grid and in the units of the sum, and the enhanced frames where asked for, on that grid; and notes."""
        _, total, mean, noise = normalised(aligned.fractions.cpu(), movie.name)
        grid, pixel = (total.shape[0], total.shape[1]), aligned.working_pixel_angstrom
        shape = (aligned.total.shape[0], aligned.total.shape[1])
        sums = {name: torch.zeros(grid) for name in (*wanted, *(["particles"] if self._fills(wanted) else []))}
        each = torch.empty(len(movie), *shape) if frames else None
        for i, (out, frame_mean, frame_noise) in enumerate(self._slide(movie, grid)):
            images = {k: v if k == "particles" else frame_noise * v for k, v in zip(self.network.outputs, out, strict=True)}
            for name, image in sums.items():
                image += _moved(images[name], pixel, aligned.motion, i, back=True)
            if each is not None:
                each[i] = frame_mean + resample(images["micrograph"], shape)
        if self.settings.ctf:  # of the sum alone: the frames are done with before it is known
            match = transfer_match(total, sums["micrograph"] / noise, pixel)
            if match is not None:
                sums["micrograph"] = multiplied(sums["micrograph"], match)
        notes = []
        if self.settings.evidence:
            added = noise * linear_part(total, sums["micrograph"] / noise, pixel, movie.whole_exposure_e_per_a2)
            sums["micrograph"] += added
            notes = notes_on(added, sums["micrograph"])
            if each is not None and added.any():
                for i in range(len(movie)):
                    each[i] += resample(_moved(added / len(movie), pixel, aligned.motion, i, back=False), shape)
        if self._fills(wanted):
            sums["contrast"] = filled(sums["contrast"], sums["particles"] / len(movie), pixel)
        given = {name: mean + resample(sums[name], shape) for name in wanted if name != "particles"}
        if "particles" in wanted:
            given["particles"] = -(resample(sums["particles"], shape) / len(movie)).clamp(0, 1)
        return given, each, notes


def _told(movie: Movie, frames: list[int]) -> Tensor:
    """What the network is told about the exposure of `frames`, [frame, 3]."""
    own = movie.exposure_e_per_a2
    if own is None:
        return exposure_features(None, None, len(frames))
    middle = movie.pre_exposure_e_per_a2 + own * (torch.tensor(frames) + 0.5)
    return exposure_features(middle, torch.full((len(frames),), own), len(frames))


def _moved(image: Image, pixel: float, motion: MovieMotion, frame: int, *, back: bool) -> Image:
    """An image moved back from where `frame` has it to the reference position, or the other way."""
    sign = 1 if back else -1
    one = MovieMotion(sign * motion.shifts_angstrom[frame : frame + 1], sign * motion.local_coefficients_angstrom[frame : frame + 1])
    return accumulate(Movie(image[None].numpy(), pixel, "an enhanced frame"), one, working_pixel_angstrom=None, max_fractions=1).total
