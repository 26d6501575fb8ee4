"""THE recipe: the only file that sees every stage, from particles to counts."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dstnet.core.constants import interaction_constant_rad_per_volt_angstrom
from dstnet.core.devices import Device
from dstnet.core.fourier import next_fast_size, radial_frequency, scale_, shift_phase
from dstnet.core.randomness import stream
from dstnet.core.shapes import Image
from dstnet.detector.camera import Camera
from dstnet.errors import SettingsError
from dstnet.motion.exposure_filter import b_factor_amplitude, damage_amplitude
from dstnet.motion.simulated_motion import blur_of_path, draw_motion
from dstnet.motion.warp import warp_local, warp_prefilter
from dstnet.movie import Movie
from dstnet.optics.ctf import contrast_transfer, delocalisation_angstrom
from dstnet.optics.multislice import multislice_intensity
from dstnet.simulation.settings import SimulationSettings
from dstnet.simulation.truth import Truth
from dstnet.specimen.field import SpecimenField
from dstnet.specimen.ice import IceNoise
from dstnet.specimen.layers import Layers, draw_layers, transmitted
from dstnet.specimen.patches import add_patch, footprint, overlap
from dstnet.specimen.placement import Particle, place
from dstnet.specimen.species import Species


@dataclass(frozen=True, eq=False)
class _Placed:
    """Particles in the padded field.

    Attributes
    ----------
    label
        int32: 0 none, n the n-th of `particles`.
    slabs
        Phase in rad of the particles of each slab, by its number from the ice's middle.
    particles
        Those whose centre lies in the field, in its coordinates.
    """

    label: Tensor
    slabs: dict[int, Tensor] = field(default_factory=dict)
    particles: list[Particle] = field(default_factory=list)

    def cover(self, centre: tuple[int, int], patch: Tensor) -> None:
        """Give the pixels that a patch covers to the last particle."""
        there, part = overlap(self.label.shape, patch.shape[0], centre)
        covered = footprint(patch)[part]
        self.label[there] = self.label[there].masked_fill(covered, len(self.particles))


class MovieSimulator:
    """One movie in the making: its truths at once, its frames one at a time.

    Parameters
    ----------
    settings
        How the movie is taken.
    species
        What is in the ice, each equally often; their patches must be sampled at the settings' pixel
        size.
    seed
        Two simulators of equal settings, species and seed on one kind of device make movies that
        are equal to the last bit.
    device
        Where images are computed and frames come out; placing and all small draws stay on the CPU.
    left_out
        Particles that are not there, by their places in `truth.particles` of the movie that has
        them all. All else, to the noise, is that movie's.

    Raises
    ------
    SettingsError
        If the field is too small for the species, or there is none.
    """

    def __init__(
        self,
        settings: SimulationSettings,
        species: Sequence[Species],
        seed: int,
        device: Device = "cpu",
        *,
        left_out: Collection[int] = (),
    ):
        if settings.specimen.populated and not species:
            raise SettingsError(
                "no species to place; give at least one structure, or a coverage of 0"
            )
        if min(settings.shape) < 32:
            raise SettingsError(
                f"a field of {settings.shape} pixels is too small; at least 32 x 32"
            )
        self.settings = settings
        self.seed = seed
        self.device = torch.device(device)
        pixel = settings.pixel_size_angstrom
        optics = settings.optics
        height, width = settings.shape
        # What lies outside the field reaches into it by delocalisation and motion. Detail beyond 4
        # Å, spread wider still, is let wrap.
        reach_angstrom = delocalisation_angstrom(optics, max(pixel, 2.0)) + 20
        margin = math.ceil(reach_angstrom / pixel)
        self._padded = (next_fast_size(height + 2 * margin), next_fast_size(width + 2 * margin))
        self._offset = ((self._padded[0] - height) // 2, (self._padded[1] - width) // 2)
        electrons_per_pixel = settings.exposure_e_per_a2 * pixel**2
        self.camera = Camera(settings.detector, settings.shape, self.device, electrons_per_pixel)
        self._decay = self._decay_per_electron()
        self._prefilter = warp_prefilter(self._padded, self.device)
        volts_to_rad = interaction_constant_rad_per_volt_angstrom(optics.voltage_kv)
        field = SpecimenField(self._padded, pixel, settings.specimen, volts_to_rad, self.device)
        layers = draw_layers(field, seed)
        self._static = layers.static_phase
        self._film = layers.film_angstrom
        self._drawn = motion = draw_motion(
            settings.motion,
            settings.frames,
            settings.exposure_e_per_a2,
            settings.pre_exposure_e_per_a2,
            (height * pixel, width * pixel),
            stream(seed, "motion"),
        )
        placed = self._place(species, layers, frozenset(left_out))
        # In the order of the beam: a particle of positive height is nearer the source.
        self._slabs = [
            (slab * settings.slab_angstrom, torch.fft.rfft2(placed.slabs[slab].to(self.device)))
            for slab in sorted(placed.slabs, reverse=True)
        ]
        phase = sum(placed.slabs.values(), torch.zeros(self._padded))
        placed.slabs.clear()
        # The particles' spectrum in the plane of the camera, undamaged, unmoved.
        self._sharp = self._protein(None)
        self.truth = Truth(
            phase=self._crop(phase),
            clean=self._crop(torch.fft.irfft2(self._sharp, s=self._padded)).cpu(),
            label=self._crop(placed.label),
            thickness_angstrom=self._crop(layers.thickness_angstrom.cpu()),
            motion=motion.motion,
            motion_parts_angstrom=motion.parts,
            height_drift_angstrom=motion.height_drift_angstrom,
            defocus_angstrom=optics.defocus_angstrom,
            particles=tuple(placed.particles),
        )

    def _decay_per_electron(self) -> Tensor:
        """Logarithm of the amplitude that 1 e-/A^2 leaves, on the padded ``rfft2`` grid."""
        k = radial_frequency(self._padded, self.settings.pixel_size_angstrom, self.device)
        if self.settings.damage is None:
            return torch.zeros_like(k)
        if self.settings.damage == "b_factor":
            return b_factor_amplitude(k, 1.0).log()
        return damage_amplitude(k, 1.0, self.settings.optics.voltage_kv).log()

    def _place(
        self, species: Sequence[Species], layers: Layers, left_out: frozenset[int]
    ) -> "_Placed":
        """Put particles into the padded field, but for those left out."""
        settings = self.settings
        pixel = self.settings.pixel_size_angstrom
        placed = _Placed(torch.zeros(self._padded, dtype=torch.int32))
        particles = place(
            species,
            settings.specimen,
            (self._padded[0] * pixel, self._padded[1] * pixel),
            pixel,
            stream(self.seed, "placement"),
            None if layers.hole is None else layers.hole.cpu(),
            layers.thickness_angstrom.cpu(),
        )
        number = -1  # among those in the field
        for particle, patch in particles:
            centre = (round(particle.y_angstrom / pixel), round(particle.x_angstrom / pixel))
            y = centre[0] - self._offset[0]
            x = centre[1] - self._offset[1]
            in_field = 0 <= y < settings.shape[0] and 0 <= x < settings.shape[1]
            number += in_field
            if in_field and number in left_out:
                continue
            slab = round(particle.height_angstrom / settings.slab_angstrom)
            if slab not in placed.slabs:
                placed.slabs[slab] = torch.zeros(self._padded)
            add_patch(placed.slabs[slab], patch * settings.specimen.contrast, centre)
            if in_field:
                there = replace(particle, y_angstrom=y * pixel, x_angstrom=x * pixel)
                placed.particles.append(there)
                placed.cover(centre, patch)
        return placed

    def _crop(self, image: Tensor) -> Tensor:
        (y, x), (height, width) = self._offset, self.settings.shape
        return image[y : y + height, x : x + width].clone()

    def _transfer(self, height_angstrom: float = 0.0, frame: int | None = None) -> Tensor:
        """The contrast transfer of what lies at a height, in a frame or at the mean of all."""
        drift = 0.0 if frame is None else float(self._drawn.height_drift_angstrom[frame])
        # What is nearer the source is nearer an underfocused lens' plane of focus: less underfocus.
        defocus = self.settings.optics.defocus_angstrom - height_angstrom - drift
        return contrast_transfer(
            self._padded,
            self.settings.pixel_size_angstrom,
            self.settings.optics,
            defocus,
            self.device,
        )

    def _protein(self, frame: int | None) -> Tensor:
        """Spectrum of the particles' contrast, undamaged at the mean height (None) or as damage and
        height are in a frame; unmoved.
        """
        if self.settings.imaging == "multislice":
            return self._multislice(frame, None)
        if frame is not None and not self._drawn.height_drift_angstrom.any():
            return scale_(self._sharp.clone(), self.damage(frame))
        total = self._nothing()
        for height, spectrum in self._slabs:
            total += spectrum * self._transfer(height, frame)
        return total if frame is None else scale_(total, self.damage(frame))

    def _nothing(self) -> Tensor:
        return torch.zeros(
            self._padded[0], self._padded[1] // 2 + 1, dtype=torch.complex64, device=self.device
        )

    def _multislice(self, frame: int | None, other_phase: Tensor | None) -> Tensor:
        """Spectrum of the contrast by multislice, with a phase besides the particles' (ice, film,
        ice contamination) at height 0.
        """
        damage = 1.0
        drift = 0.0
        if frame is not None:
            damage = self.damage(frame)
            drift = float(self._drawn.height_drift_angstrom[frame])
        slabs = {
            height: torch.fft.irfft2(spectrum * damage, s=self._padded)
            for height, spectrum in self._slabs
        }
        if other_phase is not None:
            slabs[0.0] = slabs.get(0.0, 0.0) + other_phase
        if not slabs:
            return self._nothing()
        pixel = self.settings.pixel_size_angstrom
        optics = self.settings.optics
        ordered = [(height + drift, slabs[height]) for height in sorted(slabs, reverse=True)]
        return torch.fft.rfft2(multislice_intensity(ordered, pixel, optics) - 1)

    def damage(self, frame: int) -> Tensor:
        """Amplitude of the particles' Fourier terms left in the middle of frame `frame`, on the
        padded ``rfft2`` grid.
        """
        s = self.settings
        accumulated = s.pre_exposure_e_per_a2 + (frame + 0.5) * s.exposure_e_per_a2
        return torch.exp(self._decay * accumulated)

    def _moved(self, spectrum: Tensor, frame: int) -> Image:
        """The image of `spectrum` where frame `frame`'s motion puts it, cropped to the field.
        Overwrites `spectrum`.
        """
        pixel = self.settings.pixel_size_angstrom
        dy, dx = (self.truth.motion.global_shift_angstrom[frame] / pixel).tolist()
        if dy or dx:
            scale_(spectrum, shift_phase(self._padded, (dy, dx), self.device))
        local = self.truth.motion.local_coefficients_angstrom[frame]
        if not bool(local.any()):
            return self._crop(torch.fft.irfft2(spectrum, s=self._padded))
        scale_(spectrum, self._prefilter)
        return warp_local(
            torch.fft.irfft2(spectrum, s=self._padded),
            local / pixel,
            self.settings.shape,
            self._offset,
        )

    def clean_frame(self, frame: int, with_static: bool = False) -> Image:
        """The particles' contrast in frame `frame`, damaged and moved, without ice, noise or
        camera; with `with_static`, `static_contrast` too, as it is in that frame.
        """
        spectrum = self._protein(frame)
        if with_static:
            spectrum += torch.fft.rfft2(self._static) * self._transfer(frame=frame)
        return self._moved(spectrum, frame)

    def static_contrast(self) -> Image:
        """The contrast of what stays beside the particles (ice contamination, film, crystals),
        unmoved, at the mean height, without noise or camera.

        Linear in the phase, whatever the imaging.
        """
        spectrum = torch.fft.rfft2(self._static) * self._transfer()
        return self._crop(torch.fft.irfft2(spectrum, s=self._padded))

    def ice_phase(self) -> Image:
        """Projected phase in rad of all that is no particle (ice, support film, ice contamination,
        crystals) in the first frame, unmoved.
        """
        ice = self._ice().step(self.settings.exposure_e_per_a2)
        return self._crop(self._static + torch.fft.irfft2(ice, s=self._padded))

    def _ice(self) -> IceNoise:
        s = self.settings
        return IceNoise(
            self._padded,
            s.pixel_size_angstrom,
            s.specimen,
            stream(self.seed, "ice", device=self.device),
            self.device,
        )

    def expected_frames(self) -> Iterator[Image]:
        """Expected electrons per pixel of each frame as they reach the camera, a counting camera's
        point spread included.
        """
        s = self.settings
        pixel = self.settings.pixel_size_angstrom
        padded = self._padded
        film = None if self._film is None else self._crop(self._film)
        passed = transmitted(
            self.truth.thickness_angstrom.to(self.device), s.specimen, s.optics.voltage_kv, film
        )
        # Without a filter the electrons that lost energy arrive all the same, spread too wide to
        # show anything.
        incident = torch.ones_like(passed)
        kept = passed
        if s.optics.energy_filter:
            incident, kept = passed, 1.0
        incident = incident * (s.exposure_e_per_a2 * pixel**2)
        spread = self.camera.spread(padded)
        ice = self._ice()
        static = torch.fft.rfft2(self._static)
        transfer = self._transfer()
        for t in range(s.frames):
            water = ice.step(s.exposure_e_per_a2)
            if s.imaging == "multislice":
                spectrum = self._multislice(t, torch.fft.irfft2(static + water, s=padded))
            else:
                if self._drawn.height_drift_angstrom.any():
                    transfer = self._transfer(frame=t)
                spectrum = scale_(static + water, transfer).add_(self._protein(t))
            path = self._drawn.path_angstrom[t]
            scale_(spectrum, blur_of_path(padded, pixel, path, self.device))
            if spread is not None:
                scale_(spectrum, spread)
            relative = self._moved(spectrum, t).mul_(kept).add_(1)
            yield relative.clamp_(min=0).mul_(incident)

    def frames(self) -> Iterator[Image]:
        """Counts of each frame, float32."""
        for t, expected in enumerate(self.expected_frames()):
            yield self.camera.detect(
                expected, stream(self.seed, "shot noise", t, device=self.device)
            )

    def movie(self, name: str = "synthetic") -> Movie:
        """The complete movie in memory."""
        s = self.settings
        frames = torch.stack([frame.cpu() for frame in self.frames()]).numpy()
        return Movie(
            frames,
            s.pixel_size_angstrom,
            name,
            s.exposure,
            s.optics.voltage_kv,
        )
