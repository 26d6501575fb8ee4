"""A trained network as a method: groups of aligned frames in, the enhanced micrograph out."""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from dstnet.alignment import AlignedMovie, FrameGroups, Grouping
from dstnet.core.shapes import Stack
from dstnet.enhancement.base import Needs, Restored, check_outputs
from dstnet.enhancement.finishing import (
    Finished,
    NoiseUnits,
    empty_notes,
    finish,
    needed_heads,
    on_sum_grid,
)
from dstnet.enhancement.preparation import Preparation, prepare
from dstnet.enhancement.trained_network import TrainedRestorer, check_finite, range_notes
from dstnet.movie import Exposure, Movie
from dstnet.movie.normalise import noise_scales
from dstnet.network.inputs import exposure_inputs
from dstnet.network.outputs import OUTPUTS

# From here on, pure noise has at most 2 % of the output power of particles: 0.2 % at 20, 6 % at 5
# e-/Å2 (benchmarks/quality/controls.sh).
TRUSTED_E_PER_A2 = 20.0
# Residual energy on fourteen movies of benchmarks/quality/held_out.sh (strong) by 8, 6, 5 and 4
# groups: 0.3751, 0.3752, 0.3756, 0.3764.
USUAL_GROUPS = 5


class NetworkRestorer(TrainedRestorer):
    """A network with released or other weights, on groups of aligned frames; parameters, attributes
    and errors are those of `TrainedRestorer`.
    """

    takes_windows = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those of the network, and "frames" if it gives them."""
        names = self.trained.outputs
        if self.trained.network.gives_frames:
            return (*names, "frames")
        return names

    def needs(self, movie: Movie) -> Needs:
        """Groups of frames on the grid that the weights were trained on."""
        most = self.settings.groups or min(USUAL_GROUPS, self.card.groups)
        groups = min(most, len(movie))
        return Needs(Grouping(self.card.working_pixel_angstrom, groups))

    def __call__(
        self, aligned: AlignedMovie, *, outputs: Collection[str] = ("micrograph",)
    ) -> Restored:
        """Enhance one aligned movie; see `Restorer`.

        "frames" are the groups of frames, each enhanced, in the aligned position and the units of
        the sum of all.

        Raises
        ------
        SettingsError
            If the weights do not give what is asked for.
        BadInputError
            If a group of frames is without noise, or the network's output is not finite.
        """
        check_outputs(self, outputs)
        movie = aligned.movie
        grouping = self.needs(movie).grouping
        assert grouping is not None
        groups = aligned.groups[grouping]
        working = self.card.working_pixel_angstrom
        total = groups.images.sum(0)
        preparation = prepare(total, groups.pixel_size_angstrom, working, self.settings)
        groups = replace(groups, images=preparation(groups.images))
        units, scales = _noise_units(groups, preparation, movie.name)
        images, frames = self._run(groups, units, scales, every="frames" in outputs)
        check_finite(images, movie.name)
        check_finite(frames, movie.name)
        heads = self._heads(images, outputs)
        done = finish(heads, units, movie.total_exposure_e_per_a2, self.settings)
        requested = [name for name in outputs if name != "frames"]
        results = on_sum_grid(done.images, units, aligned, requested)
        if "frames" in outputs:
            results["frames"] = _finished_frames(frames, done, units, aligned)
        notes = self._range_notes(movie)
        notes += [*preparation.notes, *done.notes, *empty_notes(done.images, requested)]
        return Restored(results, tuple(notes), (units.mean, units.noise))

    def _run(
        self, groups: FrameGroups, units: NoiseUnits, scales: Tensor, *, every: bool
    ) -> tuple[Tensor, Stack]:
        """The network's outputs, [output, y, x], and the frames' where `every` asks for them,
        [frame, y, x]; in units of the noise.
        """
        exposure = exposure_inputs(groups.exposure, len(groups), units.total.device)
        out = self.trained.run(groups.images, units.total, exposure, scales=scales, every=every)
        count = len(self.trained.outputs)
        return out[:count], out[count:]

    def _heads(self, images: Tensor, outputs: Collection[str]) -> dict[str, Tensor]:
        """The network's outputs that are of use for those asked for; errors calibrated."""
        names = self.trained.outputs
        named = dict(zip(names, images, strict=True))
        needed = needed_heads(self.settings, outputs, names)
        heads = {name: named[name] for name in needed}
        factor, power = self.card.uncertainty_calibration
        for name, image in heads.items():
            if OUTPUTS[name].unit == "error":
                heads[name] = factor * image**power
        return heads

    def _range_notes(self, movie: Movie) -> list[str]:
        notes = range_notes(self.card, movie)
        if movie.exposure is not None:
            notes += self._exposure_notes(movie.exposure)
        return notes

    def _exposure_notes(self, exposure: Exposure) -> list[str]:
        notes = []
        low, high = self.card.valid_exposure_e_per_a2
        total = exposure.total_e_per_a2
        if not low <= total <= high:
            notes.append(
                f"exposure {total:.1f} e-/Å2 is outside the {low}-{high} e-/Å2 that {self.name} was"
                " trained for"
            )
        if total < TRUSTED_E_PER_A2:
            notes.append(
                f"at {total:.1f} e-/Å2, less than {TRUSTED_E_PER_A2:g}, part of what is drawn may"
                " be noise; trust what the filtered sum shows too"
            )
        return notes


def _noise_units(
    groups: FrameGroups, preparation: Preparation, name: str
) -> tuple[NoiseUnits, Tensor]:
    """The sum of groups in units of its noise; mean and noise of each group, [group, 2]."""
    scales, total, mean, noise = noise_scales(groups.images, name)
    return NoiseUnits(total, mean, noise, preparation), scales


def _finished_frames(
    frames: Stack, done: Finished, units: NoiseUnits, aligned: AlignedMovie
) -> Stack:
    """Each frame after the steps that were taken on the micrograph, on the grid of the sum."""
    results = []
    for frame in frames:
        if done.match is not None:
            frame = done.match(frame)
        if done.added is not None:
            frame = frame + done.added
        results.append(units.micrograph(frame, aligned))
    return torch.stack(results)
