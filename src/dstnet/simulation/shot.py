"""THE recipe: the only file that sees every stage, from particles to counts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from pydantic import Field

from dstnet.core.constants import interaction_constant_rad_per_volt_angstrom
from dstnet.core.fourier import good_size, radial_frequency, shift_phase
from dstnet.core.randomness import stream
from dstnet.core.settings import Settings
from dstnet.core.shapes import Image
from dstnet.detector.camera import DetectorSettings, detect, mtf
from dstnet.errors import SettingsError
from dstnet.motion.exposure_filter import damage_amplitude
from dstnet.motion.field import MotionSettings, blur_of_path, draw_motion, local_displacement, warp
from dstnet.movie import Movie, Truth
from dstnet.optics.ctf import OpticsSettings, contrast_transfer, delocalisation_angstrom
from dstnet.specimen.layers import SpecimenSettings, add_patch, contamination, ice_amplitude, ice_memory, place, transmitted
from dstnet.specimen.species import Species


class SimulationSettings(Settings):
    """Everything about one synthetic movie but its species and its seed."""

    shape: tuple[int, int] = Field(default=(1024, 1024), description="(y, x) in pixels")
    pixel_size_angstrom: float = Field(default=1.06, gt=0, le=20)
    frames: int = Field(default=24, ge=1)
    exposure_e_per_a2: float = Field(default=2.0, gt=0, description="of one frame")
    pre_exposure_e_per_a2: float = Field(default=0.0, ge=0)
    damage: bool = Field(default=True, description="exposure-dependent loss of detail (Grant & Grigorieff 2015)")
    slab_angstrom: float = Field(
        default=100.0, gt=0, description="particles within such a slab share one defocus; at most d^2 / (4 lambda)"
    )
    specimen: SpecimenSettings = SpecimenSettings()
    optics: OpticsSettings = OpticsSettings()
    motion: MotionSettings = MotionSettings()
    detector: DetectorSettings = DetectorSettings()

    @classmethod
    def unwrapped(cls, values: dict) -> dict:
        """Settings as such, or those in the record of a written movie (`dstnet.simulation.MovieRecord`)."""
        return values["settings"] if {"seed", "species", "settings"} <= values.keys() else values


class Shot:
    """One movie in the making: its truths at once, its frames one at a time.

    Parameters
    ----------
    settings
        How the movie is taken.
    species
        What is in the ice, each equally often; their patches must be sampled at the settings' pixel size.
    seed
        Two shots of equal settings, species and seed are equal to the last bit.

    Raises
    ------
    SettingsError
        If the field is too small for the species, or there is none.
    """

    def __init__(self, settings: SimulationSettings, species: Sequence[Species], seed: int):
        if settings.specimen.coverage > 0 and not species:
            raise SettingsError("no species to place; give at least one structure, or a coverage of 0")
        if min(settings.shape) < 32:
            raise SettingsError(f"a field of {settings.shape} pixels is too small; at least 32 x 32")
        self.settings, self.seed = settings, seed
        pixel = settings.pixel_size_angstrom
        # What lies outside the field reaches into it by delocalisation and motion. Detail beyond 4 Å, spread wider still, is let wrap.
        margin = math.ceil((delocalisation_angstrom(settings.optics, max(pixel, 2.0)) + 20) / pixel)
        self._padded = (good_size(settings.shape[0] + 2 * margin), good_size(settings.shape[1] + 2 * margin))
        self._offset = ((self._padded[0] - settings.shape[0]) // 2, (self._padded[1] - settings.shape[1]) // 2)

        slabs: dict[int, torch.Tensor] = {}
        particles = []
        if settings.specimen.coverage > 0:
            extent = (self._padded[0] * pixel, self._padded[1] * pixel)
            for particle, patch in place(species, settings.specimen, extent, pixel, stream(seed, "placement")):
                slab = round(particle.height_angstrom / settings.slab_angstrom)
                y, x = round(particle.y_angstrom / pixel), round(particle.x_angstrom / pixel)
                add_patch(slabs.setdefault(slab, torch.zeros(self._padded)), patch * settings.specimen.contrast, (y, x))
                y, x = y - self._offset[0], x - self._offset[1]
                if 0 <= y < settings.shape[0] and 0 <= x < settings.shape[1]:
                    particles.append(replace(particle, y_angstrom=y * pixel, x_angstrom=x * pixel))

        self._clean = torch.zeros(self._padded[0], self._padded[1] // 2 + 1, dtype=torch.complex64)
        for slab, canvas in slabs.items():
            # A particle nearer the source (height positive) is nearer an underfocused lens' plane of focus: less underfocus.
            defocus = settings.optics.defocus_angstrom - slab * settings.slab_angstrom
            self._clean += torch.fft.rfft2(canvas) * contrast_transfer(self._padded, pixel, settings.optics, defocus)
        trajectory, self._path, local = draw_motion(
            settings.motion, settings.frames, settings.exposure_e_per_a2, settings.pre_exposure_e_per_a2, stream(seed, "motion")
        )
        self.truth = Truth(
            phase=self._crop(sum(slabs.values(), torch.zeros(self._padded))),
            clean=self._crop(torch.fft.irfft2(self._clean, s=self._padded)),
            global_shift_angstrom=trajectory,
            local_coefficients_angstrom=local,
            defocus_angstrom=settings.optics.defocus_angstrom,
            particles=tuple(particles),
        )

    def _crop(self, image: Image) -> Image:
        (y, x), (height, width) = self._offset, self.settings.shape
        return image[y : y + height, x : x + width].clone()

    def _moved(self, spectrum: torch.Tensor, frame: int) -> Image:
        """The image of `spectrum` where frame `frame`'s motion puts it, cropped to the field."""
        pixel = self.settings.pixel_size_angstrom
        dy, dx = (self.truth.global_shift_angstrom[frame] / pixel).tolist()
        image = torch.fft.irfft2(spectrum * shift_phase(self._padded, (dy, dx)), s=self._padded)
        local = self.truth.local_coefficients_angstrom[frame]
        if bool(local.any()):
            # -1 and 1 are the centres of the field's outermost pixels
            grow = ((self._padded[0] - 1) / (self.settings.shape[0] - 1), (self._padded[1] - 1) / (self.settings.shape[1] - 1))
            image = warp(image, local_displacement(local, self._padded, grow) / pixel)
        return self._crop(image)

    def damage(self, frame: int) -> torch.Tensor | float:
        """Amplitude of the particles' Fourier terms left in the middle of frame `frame`, on the padded ``rfft2`` grid."""
        s = self.settings
        if not s.damage:
            return 1.0
        exposure = s.pre_exposure_e_per_a2 + (frame + 0.5) * s.exposure_e_per_a2
        return damage_amplitude(radial_frequency(self._padded, s.pixel_size_angstrom), exposure, s.optics.voltage_kv)

    def clean_frame(self, frame: int) -> Image:
        """The particles' contrast in frame `frame`, damaged and moved, without ice, noise or camera: what an enhanced frame should show."""
        return self._moved(self._clean * self.damage(frame), frame)

    def expected_frames(self) -> Iterator[Image]:
        """Expected incident electrons per pixel of each frame, a counting camera's point spread included."""
        s, pixel, padded = self.settings, self.settings.pixel_size_angstrom, self._padded
        transfer = contrast_transfer(padded, pixel, s.optics)
        volts_to_rad = interaction_constant_rad_per_volt_angstrom(s.optics.voltage_kv)
        frost = torch.fft.rfft2(contamination(padded, pixel, s.specimen, volts_to_rad, stream(self.seed, "contamination"))) * transfer
        passed = transmitted(s.shape, s.specimen, stream(self.seed, "thickness"))
        spread = mtf(padded, s.detector) if s.detector.mode == "counting" else None
        ice_random = stream(self.seed, "ice")
        amplitude = ice_amplitude(padded, pixel, s.specimen) * transfer
        memory = ice_memory(padded, pixel, s.exposure_e_per_a2)
        ice = None
        for t in range(s.frames):
            fresh = torch.fft.rfft2(torch.randn(padded, generator=ice_random))
            ice = fresh if ice is None else memory * ice + (1 - memory**2).sqrt() * fresh  # AR(1): Brownian motion of the water
            spectrum = self._clean * self.damage(t) + frost + ice * amplitude
            spectrum = spectrum * blur_of_path(padded, pixel, self._path[t])
            if spread is not None:
                spectrum = spectrum * spread
            yield (1 + self._moved(spectrum, t)).clamp(min=0) * passed * (s.exposure_e_per_a2 * pixel**2)

    def frames(self) -> Iterator[Image]:
        """Counts of each frame, float32."""
        for t, expected in enumerate(self.expected_frames()):
            yield detect(expected, self.settings.detector, stream(self.seed, "shot noise", t))

    def movie(self, name: str = "synthetic") -> Movie:
        """The whole movie in memory."""
        s = self.settings
        return Movie(
            torch.stack(list(self.frames())).numpy(),
            s.pixel_size_angstrom,
            name,
            s.exposure_e_per_a2,
            s.pre_exposure_e_per_a2,
            s.optics.voltage_kv,
        )
