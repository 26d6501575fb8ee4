"""Placing particles in a layer of ice, the ice's own structure, and contamination on it."""

import math
from collections.abc import Iterator, Sequence

import torch
from pydantic import Field
from torch import Tensor

from dstnet.core.fourier import radial_frequency
from dstnet.core.settings import Settings
from dstnet.core.shapes import Image
from dstnet.errors import SettingsError
from dstnet.movie.truth import Particle
from dstnet.specimen.species import Species


class SpecimenSettings(Settings):
    """The specimen in the field of view."""

    coverage: float = Field(
        default=0.25, ge=0, le=0.5, description="part of the field's area under particles (as discs); random placing jams near 0.5"
    )
    gap_angstrom: float = Field(default=5.0, description="least space between particles' discs; negative lets them overlap")
    contrast: float = Field(
        default=1.0, gt=0, description="factor on the particles' phase: potentials measured and computed, and programs, differ by up to 2"
    )
    ice_thickness_angstrom: float = Field(default=350.0, gt=0)
    ice_noise: float = Field(default=1.0, ge=0, description="strength of the ice's structure; 1 is 0.05 rad rms per 300 Å at 1 Å/px")
    thickness_gradient: float = Field(
        default=0.1, ge=0, le=0.9, description="relative change of thickness from the field's middle to its edge"
    )
    inelastic_mean_free_path_angstrom: float = Field(
        default=3400.0, gt=0, description="of zero-loss filtered intensity at 300 kV; 3150-3950 in print"
    )
    contaminants_per_um2: float = Field(default=0.0, ge=0, description="frost particles on the surface")


def place(
    species: Sequence[Species],
    settings: SpecimenSettings,
    extent_angstrom: tuple[float, float],
    pixel_size_angstrom: float,
    generator: torch.Generator,
) -> Iterator[tuple[Particle, Tensor]]:
    """Particles without overlap (random sequential addition) in a field of `extent_angstrom` (y, x), each with its phase patch.

    Centres lie on pixels, so that a patch is added without interpolation. Heights are uniform within the ice that holds the particle.

    Raises
    ------
    SettingsError
        If a species' disc is larger than the field.
    """
    wanted = settings.coverage * extent_angstrom[0] * extent_angstrom[1]
    taken = torch.zeros(0, 3)  # y, x, radius
    covered, misses = 0.0, 0
    while covered < wanted and misses < 200:
        one = species[int(torch.randint(len(species), (1,), generator=generator))]
        if 2 * one.radius_angstrom > min(extent_angstrom):
            raise SettingsError(
                f"{one.name} is {2 * one.radius_angstrom:.0f} Å wide, the padded field {min(extent_angstrom):.0f} Å; "
                "make the field (shape x pixel size) larger"
            )
        y, x, z = torch.rand(3, generator=generator).tolist()
        y = round(y * extent_angstrom[0] / pixel_size_angstrom) * pixel_size_angstrom
        x = round(x * extent_angstrom[1] / pixel_size_angstrom) * pixel_size_angstrom
        if bool((torch.hypot(taken[:, 0] - y, taken[:, 1] - x) < taken[:, 2] + one.radius_angstrom + settings.gap_angstrom).any()):
            misses += 1
            continue
        misses = 0
        taken = torch.cat((taken, torch.tensor([[y, x, one.radius_angstrom]])))
        covered += math.pi * one.radius_angstrom**2
        slack = max(0.0, settings.ice_thickness_angstrom / 2 - one.radius_angstrom)
        rotation, patch = one.draw(generator)
        yield Particle(one.name, y, x, (2 * z - 1) * slack, rotation), patch


def add_patch(canvas: Tensor, patch: Tensor, centre: tuple[int, int]) -> None:
    """Add a patch, its centre at [n // 2, n // 2], to `canvas` around the pixel `centre`, cut at the canvas' edges."""
    n = patch.shape[0]
    top, left = centre[0] - n // 2, centre[1] - n // 2
    y0, y1, x0, x1 = max(top, 0), min(top + n, canvas.shape[0]), max(left, 0), min(left + n, canvas.shape[1])
    if y0 < y1 and x0 < x1:
        canvas[y0:y1, x0:x1] += patch[y0 - top : y1 - top, x0 - left : x1 - left]


def ice_amplitude(shape: tuple[int, int], pixel_size_angstrom: float, settings: SpecimenSettings) -> Tensor:
    """Amplitude by which to multiply the ``rfft2`` of unit white noise to get the ice's projected phase in rad.

    Power: an electron form factor squared, falling as (1 + (k / 0.25)^2)^-2, times a structure factor of amorphous ice: a low
    compressibility floor of 0.15 and rings at 3.7, 2.2 and 1.8 Å. Scaled so that 300 Å of ice give 0.05 rad rms at 1 Å/px
    (up to 0.5 / Å in both axes), growing as the root of thickness.
    """

    def power(k: Tensor) -> Tensor:
        structure = 0.15 + sum(
            height * torch.exp(-0.5 * ((k - 1 / ring) / width) ** 2)
            for ring, width, height in ((3.7, 0.03, 2.0), (2.2, 0.04, 0.8), (1.8, 0.04, 0.8))
        )
        return structure / (1 + (k / 0.25) ** 2) ** 2

    reference = radial_frequency((512, 512), 1.0)
    # white noise of unit variance per pixel at 1 Å has unit power per Å^2; at another pixel size its density is pixel^2
    scale = 0.05**2 / float(power(reference).mean()) * settings.ice_thickness_angstrom / 300 * settings.ice_noise**2
    return torch.sqrt(power(radial_frequency(shape, pixel_size_angstrom)) * scale) / pixel_size_angstrom


ICE_MSD_ANGSTROM2_PER_E = 1.1  # mean square displacement of a water per e-/Å2 at 300 kV, McMullan, Vinothkumar & Henderson 2015


def ice_memory(shape: tuple[int, int], pixel_size_angstrom: float, exposure_e_per_a2: float) -> Tensor:
    """Correlation of the ice's Fourier terms after `exposure_e_per_a2`: exp(-2 pi^2 k^2 msd_axis), msd_axis a third of the whole."""
    k2 = radial_frequency(shape, pixel_size_angstrom) ** 2
    return torch.exp(-2 * math.pi**2 * k2 * ICE_MSD_ANGSTROM2_PER_E / 3 * exposure_e_per_a2)


def contamination(
    shape: tuple[int, int], pixel_size_angstrom: float, settings: SpecimenSettings, volts_to_rad: float, generator: torch.Generator
) -> Image:
    """Projected phase in rad of frost particles: rounded caps of ice, 60 to 500 Å in radius, with a rough surface."""
    phase = torch.zeros(shape)
    area_um2 = shape[0] * shape[1] * pixel_size_angstrom**2 * 1e-8
    count = int(torch.poisson(torch.tensor([settings.contaminants_per_um2 * area_um2]), generator=generator))
    for _ in range(count):
        u = torch.rand(6, generator=generator)
        radius = 60 * (500 / 60) ** float(u[0]) / pixel_size_angstrom
        y = (torch.arange(shape[0]) - u[1] * shape[0])[:, None]
        x = (torch.arange(shape[1]) - u[2] * shape[1])[None, :]
        angle = torch.atan2(y, x)
        lobes = 1 + 0.25 * torch.sin(2 * angle + 6.3 * u[3]) + 0.15 * torch.sin(5 * angle + 6.3 * u[4])
        cap = (1 - (y * y + x * x) / (radius * lobes) ** 2).clamp(min=0).sqrt()
        # 3.5 V: mean inner potential of ice (physics of electron holography, Harscher & Lichte 1998)
        phase += cap * (0.3 + 0.7 * u[5]) * min(radius * pixel_size_angstrom, 200) * 3.5 * volts_to_rad
    return phase


def transmitted(shape: tuple[int, int], settings: SpecimenSettings, generator: torch.Generator) -> Image:
    """Part of the beam that an energy filter lets pass at each pixel: exp(-thickness / mean free path), thickness a tilted, bent layer.

    Scaled to mean one over the field: the camera counts the stated exposure.
    """
    y = torch.linspace(-1, 1, shape[0])[:, None]
    x = torch.linspace(-1, 1, shape[1])[None, :]
    a, b, c = (torch.randn(3, generator=generator) * settings.thickness_gradient / math.sqrt(2)).tolist()
    thickness = settings.ice_thickness_angstrom * (1 + a * x + b * y + 0.5 * c * (x * x + y * y - 2 / 3)).clamp(min=0.2)
    passed = torch.exp(-thickness / settings.inelastic_mean_free_path_angstrom)
    return passed / passed.mean()
