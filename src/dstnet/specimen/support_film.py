"""The support film of amorphous carbon and its hole."""

import math
from dataclasses import dataclass

import gemmi
import torch
from torch import Tensor

from dstnet.core.constants import MOTT_VOLT_ANGSTROM2
from dstnet.core.fourier import radial_frequency
from dstnet.core.randomness import stream
from dstnet.core.shapes import Image
from dstnet.specimen.field import SpecimenField
from dstnet.specimen.white_noise import fill_white_noise

# Of amorphous carbon of 1.75 g/cm3, Wanner et al., Ultramicroscopy 106, 341 (2006).
CARBON_POTENTIAL_VOLT = 9.09
CARBON_ATOMS_PER_ANGSTROM3 = 1.75 * 0.602214 / 12.011
# Over which the film rises from nothing to its thickness at the hole's edge.
FILM_EDGE_ANGSTROM = 40.0


@dataclass(frozen=True, eq=False)
class SupportFilm:
    """The support film of a field.

    Attributes
    ----------
    thickness_angstrom
        ``[y, x]``.
    mean_phase
        Projected phase in rad of a film without structure, ``[y, x]``.
    noise_phase
        What the film's structure adds to it, ``[y, x]``.
    """

    thickness_angstrom: Image
    mean_phase: Image
    noise_phase: Image


def distance_to_edge_angstrom(field: SpecimenField, seed: int) -> Image | None:
    """Distance of each pixel to the hole's edge, positive inside, ``[y, x]``; None without a hole.

    The field's middle lies in the hole, and the edge passes it at 0.1 to 0.3 of the field's shorter
    side, so that it is in view.

    Parameters
    ----------
    field
        Where the film lies.
    seed
        Of the movie. The stream "film", "hole" is drawn from.
    """
    if field.settings.hole_diameter_angstrom is None:
        return None
    radius = field.settings.hole_diameter_angstrom / 2
    u, v = torch.rand(2, generator=stream(seed, "film", "hole")).tolist()
    in_view = (0.1 + 0.2 * u) * min(field.shape) * field.pixel_size_angstrom
    away = radius - min(radius, in_view)  # the hole's centre from the field's
    direction = 2 * math.pi * v
    centre_y = away * math.sin(direction)
    centre_x = away * math.cos(direction)
    height, width = field.shape
    y = _from_middle(height, field) - centre_y
    x = _from_middle(width, field) - centre_x
    return radius - torch.hypot(y[:, None], x[None, :])


def _from_middle(pixels: int, field: SpecimenField) -> Tensor:
    """Distance in Å of rows or columns, so many `pixels`, from the field's middle."""
    index = torch.arange(pixels, device=field.device)
    return (index - pixels / 2) * field.pixel_size_angstrom


def draw_film(
    field: SpecimenField, seed: int, distance_to_edge: Image | None
) -> SupportFilm | None:
    """The support film; None where there is none at all.

    Parameters
    ----------
    field
        Where the film lies.
    seed
        Of the movie. The stream "film", "noise" is drawn from.
    distance_to_edge
        Of `distance_to_edge_angstrom`.
    """
    film_thickness = field.settings.film_thickness_angstrom
    if film_thickness <= 0:
        return None
    if distance_to_edge is None:
        covered = torch.ones(field.shape, device=field.device)
    else:
        covered = (0.5 - distance_to_edge / FILM_EDGE_ANGSTROM).clamp(0, 1)
    thickness = covered * film_thickness
    noise = _carbon_noise(field, stream(seed, "film", "noise"))
    mean_phase = thickness * (CARBON_POTENTIAL_VOLT * field.volts_to_rad)
    return SupportFilm(thickness, mean_phase, covered * noise.to(field.device))


def _carbon_noise(field: SpecimenField, generator: torch.Generator) -> Image:
    """Structure of a film of amorphous carbon about its mean, phase in rad ``[y, x]``, as of atoms
    placed independently of each other.

    Power per Å^2: atoms per Å^2 times the square of one atom's projected phase, sigma MOTT f(k), by
    Peng et al. 1996. True films are correlated: below 0.5 / Å their power is this within a factor
    of about two.
    """
    pixel = field.pixel_size_angstrom
    k2 = radial_frequency(field.shape, pixel) ** 2
    table = gemmi.Element("C").c4322
    form_factor = torch.zeros_like(k2)
    for a, b in zip(table.a, table.b, strict=True):
        gaussian = torch.exp(-b * k2 / 4)
        form_factor += a * gaussian
    atoms_per_area = CARBON_ATOMS_PER_ANGSTROM3 * field.settings.film_thickness_angstrom
    scale = math.sqrt(atoms_per_area) * field.volts_to_rad * MOTT_VOLT_ANGSTROM2 / pixel
    white = torch.empty(k2.shape, dtype=torch.complex64)
    fill_white_noise(white, field.shape, generator)
    white *= form_factor * scale
    white[0, 0] = 0  # the mean is that of the film
    return torch.fft.irfft2(white, s=field.shape)
