"""A network on frames as the camera took them, each enhanced where it lies, from its neighbours;
the motion between them is left to the network.

A window of unaligned frames (the paper's: two past and two future ones) slides over the movie. At
the movie's ends it is cut short: to repeat a frame would give the same noise twice, and noise that
agrees is what the network takes for signal. The weights are trained with both.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.alignment import AlignedMovie, Grouping, accumulate, undo_motion
from dstnet.alignment.global_motion import checked_frame
from dstnet.core.fourier import resample_mirrored
from dstnet.core.progress import progress, watching
from dstnet.core.shapes import Image, Stack
from dstnet.enhancement.base import Needs, Restored, check_outputs
from dstnet.enhancement.finishing import (
    NoiseUnits,
    empty_notes,
    finish,
    for_pickers,
    needed_heads,
    on_sum_grid,
)
from dstnet.enhancement.preparation import Preparation, prepare
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.enhancement.trained_network import TrainedRestorer, check_finite, range_notes
from dstnet.errors import SettingsError
from dstnet.motion import Motion
from dstnet.movie import Movie
from dstnet.movie.normalise import unit_noise
from dstnet.network.inputs import exposure_inputs
from dstnet.network.outputs import OUTPUTS


@dataclass(frozen=True)
class _UnitFrame:
    """A frame on the working grid, or what the network makes of it, in units of its noise.

    Attributes
    ----------
    images
        [y, x], with mean zero and unit noise; or the network's outputs, [output, y, x].
    mean, noise
        Of the frame, in the movie's unit.
    """

    images: Tensor
    mean: float
    noise: float


class WindowRestorer(TrainedRestorer):
    """A network with weights that were trained on windows of unaligned frames.

    The enhanced micrograph, and the contrast, is the sum of the enhanced frames, moved back by the
    motion that the alignment estimates, in the units of the plain sum. Where particles are is the
    frames' mean. Enhanced frames lie where the camera had them, each in its own frame's units. With
    evidence on, what the micrograph is given back is shared out to the frames, so that they still
    add up to it. Errors of frames that share their inputs are not independent, so that the sum's
    are unknown: no uncertainty is given.

    Memory holds a window of frames on the working grid, whatever the number of frames; where
    enhanced frames are asked for, all of them on the grid of the sums as well, 4 bytes a pixel: 2.7
    GB for 40 of 4096 x 4096. `enhanced_frames` gives them one at a time.

    Parameters and attributes are those of `TrainedRestorer`.

    Raises
    ------
    SettingsError
        As `TrainedRestorer`, or if the settings ask for groups of frames.
    WeightsError
        As `TrainedRestorer`.
    """

    takes_windows = True

    def __init__(self, settings: EnhancementSettings | None = None, device: str = "cpu") -> None:
        super().__init__(settings, device)
        if self.settings.groups is not None:
            raise SettingsError(
                f"{self.name} takes unaligned frames, one by one; leave out --groups"
            )
        assert self.card.window is not None
        self._half_window = self.card.window // 2

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those of the network, apart from expected errors; and "frames"."""
        names = [name for name in self.trained.outputs if OUTPUTS[name].unit != "error"]
        return (*names, "frames")

    def needs(self, movie: Movie) -> Needs:
        """The frames as they are, and the sum of all on the grid of the weights."""
        return Needs(self._grouping, raw_frames=True)

    @property
    def _grouping(self) -> Grouping:
        return Grouping(self.card.working_pixel_angstrom, 1)

    def __call__(
        self, aligned: AlignedMovie, *, outputs: Collection[str] = ("micrograph",)
    ) -> Restored:
        """Enhance the frames of one movie; see `Restorer`.

        Raises
        ------
        SettingsError
            If the weights do not give what is asked for.
        BadInputError
            If a frame is constant, not finite or without noise.
        """
        check_outputs(self, outputs)
        movie = aligned.movie
        preparation = self._preparation(aligned)
        units = self._noise_units(aligned, preparation)
        heads = needed_heads(self.settings, outputs, self.trained.outputs)
        sums, frames = self._sums(aligned, units, heads, keep_frames="frames" in outputs)
        # The match to the CTF is of the sum alone: the frames are done with before it is known.
        done = finish(sums, units, movie.total_exposure_e_per_a2, self.settings)
        requested = [name for name in outputs if name != "frames"]
        shown = for_pickers(done.images, units, self.settings)
        images = on_sum_grid(shown, units, aligned, requested)
        if frames is not None:
            if done.added is not None and done.added.any():
                share = units.noise * done.added / len(movie)
                _share_out(share, aligned, units, frames)
            images["frames"] = frames
        notes = self._range_notes(movie)
        notes += [*preparation.notes, *done.notes, *empty_notes(done.images, requested)]
        return Restored(images, tuple(notes), (units.mean, units.noise))

    def enhanced_frames(self, movie: Movie) -> Iterator[Image]:
        """Each frame enhanced where it lies, [y, x] on the working grid, in the frame's units;
        nothing is given back by evidence.

        Raises
        ------
        BadInputError
            If a frame is constant, not finite or without noise.
        """
        first_frame = movie.subset([0])
        motionless = Motion.of_shifts(torch.zeros(1, 2))
        first = accumulate(first_frame, motionless, groupings=[self._grouping])
        for enhanced in self._slide(movie, self._preparation(first)):
            micrograph = enhanced.images[0]
            yield enhanced.mean + enhanced.noise * micrograph

    def _preparation(self, aligned: AlignedMovie) -> Preparation:
        """What is done to each frame on the working grid."""
        group = aligned.groups[self._grouping]
        working = self.card.working_pixel_angstrom
        return prepare(group.images[0], group.pixel_size_angstrom, working, self.settings)

    def _noise_units(self, aligned: AlignedMovie, preparation: Preparation) -> NoiseUnits:
        """The sum of all frames on the working grid, in units of its noise."""
        group = aligned.groups[self._grouping]
        prepared = preparation(group.images)[0]
        total, mean, noise = unit_noise(prepared, aligned.movie.name)
        return NoiseUnits(total, mean, noise, preparation)

    def _sums(
        self, aligned: AlignedMovie, units: NoiseUnits, heads: Collection[str], *, keep_frames: bool
    ) -> tuple[dict[str, Image], Stack | None]:
        """Sums over the enhanced frames, moved back, in units of the noise of the sum of all, of
        chances the mean; and the frames themselves on the grid of the sums, where asked for.
        """
        count = len(aligned.movie)
        pixel = units.pixel_size_angstrom
        sums = {name: torch.zeros_like(units.total) for name in heads}
        frames = None
        if keep_frames:
            frames = units.total.new_empty(count, *aligned.shape)
        for i, enhanced in enumerate(self._slide(aligned.movie, units.preparation)):
            progress("enhancing, frame", i + 1, count)
            motion = aligned.motion.window([i])
            own = dict(zip(self.trained.outputs, enhanced.images, strict=True))
            for name in heads:
                scale = 1.0 if _is_chance(name) else enhanced.noise
                image = scale * own[name]
                sums[name] += undo_motion(image, motion, pixel)
            if frames is not None:
                signal = enhanced.noise * own["micrograph"]
                frames[i] = enhanced.mean + resample_mirrored(signal, aligned.shape)
        for name, image in sums.items():
            image /= count if _is_chance(name) else units.noise
        return sums, frames

    def _slide(self, movie: Movie, preparation: Preparation) -> Iterator[_UnitFrame]:
        """The network's outputs for each frame in turn."""
        window: dict[int, _UnitFrame] = {}
        for newest in range(len(movie) + self._half_window):
            if newest < len(movie):
                window[newest] = self._read(movie, newest, preparation)
            middle = newest - self._half_window
            window.pop(middle - self._half_window - 1, None)
            if middle >= 0:
                yield self._enhance(movie, window, middle)

    def _read(self, movie: Movie, index: int, preparation: Preparation) -> _UnitFrame:
        frame = checked_frame(movie, index, self.trained.device)
        binned = resample_mirrored(frame, preparation.original_shape)
        prepared = preparation(binned[None], seed=index + 1)[0]
        image, mean, noise = unit_noise(prepared, f"{movie.name}: frame {index + 1}")
        return _UnitFrame(image, mean, noise)

    def _enhance(self, movie: Movie, window: dict[int, _UnitFrame], middle: int) -> _UnitFrame:
        """The network's outputs for the frame in the middle of a window."""
        frame = window[middle]
        images = [neighbour.images for neighbour in window.values()]
        frames = torch.stack(images)
        exposure = movie.exposure
        if exposure is not None:
            exposure = exposure.subset(window)
        inputs = exposure_inputs(exposure, len(window), frames.device)
        with watching(None):  # its tiles: the frames are what is counted
            out = self.trained.run(frames, frame.images, inputs)
        check_finite(out, movie.name, f" for frame {middle + 1}")
        return _UnitFrame(out, frame.mean, frame.noise)

    def _range_notes(self, movie: Movie) -> list[str]:
        notes = range_notes(self.card, movie)
        if movie.exposure is None:
            return notes
        low, high = self.card.valid_exposure_e_per_a2
        own = movie.exposure.mean_frame_e_per_a2
        if not low <= own <= high:
            notes.append(
                f"exposure {own:.2f} e-/Å2 of a frame is outside the {low}-{high} that {self.name}"
                " was trained for"
            )
        return notes


def _is_chance(name: str) -> bool:
    return OUTPUTS[name].unit == "chance"


def _share_out(added: Image, aligned: AlignedMovie, units: NoiseUnits, frames: Stack) -> None:
    """Add what the micrograph was given back to each of `frames`, where that frame has it."""
    for i in range(len(frames)):
        own = aligned.motion.window([i])
        shift = -own.global_shift_angstrom
        local = -own.local_coefficients_angstrom
        moved = undo_motion(added, Motion(shift, local), units.pixel_size_angstrom)
        frames[i] += resample_mirrored(moved, aligned.shape)
