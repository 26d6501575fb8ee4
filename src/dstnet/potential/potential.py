"""The electrostatic potential of a complex in ice, in volts, relative to the ice around it."""

import math
from dataclasses import dataclass

import gemmi
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dstnet.core.constants import MOTT_VOLT_ANGSTROM2
from dstnet.core.fourier import next_fast_size
from dstnet.core.settings import Settings
from dstnet.errors import BadInputError, SettingsError
from dstnet.potential.belt import Belt, BeltSettings, radius_with_belt
from dstnet.structure.atoms import Atoms

# The grid that gemmi fills is 3/2 finer, so that what folds back over the kept frequencies is
# negligible.
OVERSAMPLING = (3, 2)
# Least B-factor over pixel² while on that grid: folds exp(-30 * 3/16) = 0.4 % at Nyquist, less
# below.
ALIASING_B_PER_PIXEL2 = 30.0
MARGIN_ANGSTROM = 40.0  # of a box beyond the complex' diameter, 20 Å on each side
MAX_BOX = 800  # voxels along an edge; an 800³ box needs about 20 GB while it is made
# Per non-hydrogen atom: 110 Da a residue of 7.9 such atoms at 0.73 cm³/g.
PROTEIN_ATOM_VOLUME_ANGSTROM3 = 16.8
# A nucleotide (330 Da at 0.55 cm³/g, 21.25 non-hydrogen atoms) fills 301 Å3, 56 less than its atoms
# would as protein.
PHOSPHORUS_VOLUME_CORRECTION_ANGSTROM3 = -56.0
# joins neighbouring atoms, leaves cavities of a water cluster's size and larger to the solvent
ENVELOPE_BLUR_ANGSTROM = 2.0
LAST_TABULATED_ELEMENT = 98


class PotentialSettings(Settings):
    """How atoms become a potential.

    Hydrogens: most structure files have none, and none are added, which lacks about a fifth of a
    protein's scattering at low resolution (0.53 Å each for a hydrogen against 2.0 to 2.5 Å for C,
    N, O). Hydrogens of a file are left out too unless `hydrogens` is set, so that structures with
    and without them have alike contrast. Isolated atoms overestimate the mean inner potential
    (bonding draws electrons in) by a similar amount, so the two errors largely cancel.
    """

    scale: float = Field(
        default=0.9, gt=0, le=1.5, description="factor on the isolated-atom potential, for bonding"
    )
    ice_potential_volt: float = Field(
        default=3.5,
        ge=0,
        le=10,
        description="mean inner potential of vitreous ice that the molecule displaces",
    )
    envelope_smoothing_angstrom: float = Field(
        default=1.5, gt=0, le=10, description="sigma of the soft edge of the displaced volume"
    )
    file_b_factor_cap: float | None = Field(
        default=80.0,
        ge=0,
        description="largest atomic B-factor used, in A^2; None ignores the file's",
    )
    extra_b_factor: float = Field(
        default=20.0,
        ge=0,
        description="B-factor in A^2 added to every atom: spread between copies of a complex",
    )
    hydrogens: bool = Field(default=False, description="include hydrogens where the file has them")


@dataclass(frozen=True, eq=False)
class Potential:
    """Potential of a complex in V relative to ice, on a cube whose voxel ``[n//2, n//2, n//2]`` is
    the complex's origin.

    Attributes
    ----------
    volume : ndarray, float32, shape (n, n, n)
        Potential in V as ``[z, y, x]``.
    pixel_size_angstrom : float
        Edge of a voxel.
    name : str
        The structure's name.
    radius_angstrom : float
        Of the sphere around the origin that holds the complex.
    """

    volume: np.ndarray
    pixel_size_angstrom: float
    name: str
    radius_angstrom: float


def check_pixel_size(pixel_size_angstrom: float, name: str) -> None:
    """Refuse a pixel size that no potential can have.

    Raises
    ------
    SettingsError
        If it is not a positive number.
    """
    if not (math.isfinite(pixel_size_angstrom) and pixel_size_angstrom > 0):
        raise SettingsError(
            f"pixel size must be above 0 Å (got {pixel_size_angstrom}) for the potential of {name}"
        )


def box_size(diameter_angstrom: float, pixel_size_angstrom: float, name: str) -> int:
    """Edge in voxels of the cube for a complex and 20 Å on each side, a good even FFT size.

    Parameters
    ----------
    diameter_angstrom
        Of the sphere around the origin that holds the complex.
    pixel_size_angstrom
        Edge of a voxel.
    name
        What an error calls the complex.

    Raises
    ------
    SettingsError
        If the edge would exceed `MAX_BOX` voxels.
    """
    edge_angstrom = diameter_angstrom + MARGIN_ANGSTROM
    voxels = next_fast_size(math.ceil(edge_angstrom / pixel_size_angstrom))
    if voxels > MAX_BOX:
        raise SettingsError(
            f"{name} at {pixel_size_angstrom} Å/pixel needs a box of {voxels} voxels, more than"
            f" {MAX_BOX}; use a larger pixel size"
        )
    return voxels


def build_potential(
    atoms: Atoms,
    pixel_size_angstrom: float,
    settings: PotentialSettings | None = None,
    belt: BeltSettings | None = None,
) -> Potential:
    """The potential of `atoms` in ice: ``scale * V_atoms - V_ice * envelope``, band-limited to the
    voxel size; and of the belt of detergent or lipids around them, where there is one.

    The atoms' part is a sum of five Gaussians each (Peng et al. 1996, as tabulated in International
    Tables C 4.3.2.2), its integral ``MOTT_VOLT_ANGSTROM2 * sum(f(0))``. It is sampled on a finer
    grid with a known blur, which is undone in Fourier space where the grid is cropped to the asked
    size, and is therefore right up to Nyquist at any voxel size.

    Parameters
    ----------
    atoms : Atoms
        The complex; its origin becomes the box's centre.
    pixel_size_angstrom : float
        Edge of a voxel.
    settings : PotentialSettings, optional
        Defaults where None.
    belt : BeltSettings, optional
        What a membrane protein takes along from its membrane; None: nothing.

    Raises
    ------
    SettingsError
        If the pixel size is not positive, or so small that the box would exceed `MAX_BOX` voxels
        along an edge, or if it is not known where a belt lies.
    BadInputError
        If no atom scatters, or one is of an element without tabulated factors.
    """
    if settings is None:
        settings = PotentialSettings()
    check_pixel_size(pixel_size_angstrom, atoms.name)
    around = None if belt is None else Belt(atoms, belt)
    radius = radius_with_belt(atoms, around)
    n = box_size(2 * radius, pixel_size_angstrom, atoms.name)
    used = _scattering_atoms(atoms, settings)
    b_factors = np.full(len(atoms), settings.extra_b_factor)
    if settings.file_b_factor_cap is not None:
        # Some programs write negative ones.
        b_factors += atoms.b_factors.clip(0, settings.file_b_factor_cap)
    spectrum = _atoms_spectrum(atoms, used, b_factors, n, pixel_size_angstrom)
    spectrum = spectrum * settings.scale
    if settings.ice_potential_volt or around is not None:
        envelope = _envelope(atoms, n, pixel_size_angstrom, settings)
        displaced = settings.ice_potential_volt * envelope
        if around is not None:
            displaced -= (1 - envelope) * around.volume(n, pixel_size_angstrom)
        spectrum -= torch.fft.rfftn(displaced)
    volume = torch.fft.irfftn(spectrum, s=(n, n, n))
    return Potential(volume.numpy(), pixel_size_angstrom, atoms.name, radius)


def _scattering_atoms(atoms: Atoms, settings: PotentialSettings) -> np.ndarray:
    """Which atoms make the potential, bool ``[n]``.

    Raises
    ------
    BadInputError
        If there is none, or one is of an element without tabulated factors.
    """
    used = atoms.occupancies > 0
    if not settings.hydrogens:
        used &= atoms.elements > 1
    if not used.any():
        raise BadInputError(
            f"{atoms.name} has no atom that scatters; check occupancies and elements"
        )
    if atoms.elements[used].max() > LAST_TABULATED_ELEMENT:
        raise BadInputError(
            f"{atoms.name} has an element above {LAST_TABULATED_ELEMENT}, without scattering"
            " factors; remove it"
        )
    return used


def _atoms_spectrum(
    atoms: Atoms, used: np.ndarray, b_factors: np.ndarray, n: int, pixel: float
) -> Tensor:
    """``rfftn`` of the isolated-atom potential in V on the cube of `n` voxels."""
    blur = ALIASING_B_PER_PIXEL2 * pixel**2 - float(b_factors[used].min())
    blur = max(0.0, blur)
    density = _blurred_density(atoms, used, b_factors + blur, n, pixel)
    spectrum = _cropped_rfftn(density, n)
    # The blur exp(-blur k²/4) is separable: undone axis by axis.
    k = torch.fft.fftfreq(n, d=pixel, dtype=torch.float64)
    sharpen = torch.exp(blur * k**2 / 4).float()
    spectrum *= sharpen[:, None, None] * MOTT_VOLT_ANGSTROM2
    spectrum *= sharpen[None, :, None]
    spectrum *= sharpen[None, None, : n // 2 + 1]
    return spectrum


def _blurred_density(
    atoms: Atoms, used: np.ndarray, b_factors: np.ndarray, n: int, pixel: float
) -> Tensor:
    """Sum of the atoms' Gaussians on gemmi's finer grid over the cube of `n` voxels, ``[z, y, x]``
    in the unit of scattering factors per Å³.
    """
    fine = n * OVERSAMPLING[0] // OVERSAMPLING[1]
    edge = n * pixel
    calculator = gemmi.DensityCalculatorE()
    calculator.grid.spacegroup = gemmi.SpaceGroup("P1")
    calculator.grid.set_unit_cell(gemmi.UnitCell(edge, edge, edge, 90, 90, 90))
    calculator.grid.set_size(fine, fine, fine)
    origin = (n // 2) * pixel
    # By element, which gemmi looks up anew wherever it changes.
    chosen = np.flatnonzero(used)
    by_element = np.argsort(atoms.elements[chosen], kind="stable")
    chosen = chosen[by_element]
    positions = atoms.positions_angstrom[chosen].astype(np.float64) + origin
    rows = zip(
        atoms.elements[chosen].tolist(),
        positions.tolist(),
        b_factors[chosen].tolist(),
        atoms.occupancies[chosen].tolist(),
        strict=True,
    )
    atom = gemmi.Atom()
    current_element = 0
    for element, position, b_factor, occupancy in rows:
        if element != current_element:
            atom.element = gemmi.Element(element)
            current_element = element
        atom.pos = gemmi.Position(*position)
        atom.b_iso = b_factor
        atom.occ = occupancy
        calculator.add_atom_density_to_grid(atom)
    return torch.from_numpy(calculator.grid.array.T)  # gemmi's [x, y, z] is in memory as [z, y, x]


def _cropped_rfftn(volume: Tensor, n: int) -> Tensor:
    """``rfftn`` of a cube resampled to `n` voxels an edge, mean kept; each axis is cropped at once
    to spare memory.

    The lone Nyquist terms of the even new grid are set to zero.
    """
    size = volume.shape[0]
    half = n // 2
    spectrum = torch.fft.rfft(volume, dim=2)[:, :, : half + 1]
    for axis in (1, 0):
        spectrum = torch.fft.fft(spectrum, dim=axis)
        positive = spectrum.narrow(axis, 0, half)
        negative = spectrum.narrow(axis, size - half, half)
        spectrum = torch.cat([positive, negative], dim=axis)
        spectrum.select(axis, half).zero_()
    spectrum[:, :, half] = 0
    return spectrum * (n / size) ** 3


def _envelope(atoms: Atoms, n: int, pixel: float, settings: PotentialSettings) -> Tensor:
    """Fraction 0 to 1 of each voxel that the molecule takes from the ice, shape ``[z, y, x]``.

    The blurred density of non-hydrogen atoms is cut where it encloses the molecule's volume by
    partial specific volume, so the interior of a shell stays solvent, and then softened, which
    keeps the volume.
    """
    is_heavy = atoms.elements > 1
    weights = np.where(is_heavy, atoms.occupancies, 0).astype(np.float32)
    weights = torch.from_numpy(weights)
    is_phosphorus = atoms.elements == 15
    phosphorus = float(atoms.occupancies[is_phosphorus].sum())
    volume = PROTEIN_ATOM_VOLUME_ANGSTROM3 * float(weights.sum())
    volume += PHOSPHORUS_VOLUME_CORRECTION_ANGSTROM3 * phosphorus
    voxels = round(volume / pixel**3)
    voxels = max(1, min(n**3, voxels))
    nearest = np.rint(atoms.positions_angstrom / pixel).astype(np.int64)
    from_corner = torch.from_numpy(nearest) + n // 2
    x, y, z = from_corner.unbind(1)
    index = (z * n + y) * n + x
    density = torch.zeros(n**3)
    density.index_add_(0, index, weights)
    density = _gaussian_blur(density.reshape(n, n, n), ENVELOPE_BLUR_ANGSTROM / pixel)
    # The k-th largest of the few voxels near atoms: the others' zero density is known to lie below.
    is_near = density > 1e-6 * density.max()
    candidates = density[is_near]
    voxels = min(voxels, len(candidates))
    densest = torch.topk(candidates, voxels).values
    inside = (density >= densest[-1]).float()
    return _gaussian_blur(inside, settings.envelope_smoothing_angstrom / pixel)


def _gaussian_blur(volume: Tensor, sigma: float) -> Tensor:
    """A cube blurred by a Gaussian of `sigma` voxels; keeps the total."""
    n = volume.shape[0]
    k = torch.fft.fftfreq(n)
    gaussian = torch.exp(-2 * (torch.pi * sigma * k) ** 2)
    spectrum = torch.fft.rfftn(volume)
    spectrum *= gaussian[:, None, None]
    spectrum *= gaussian[None, :, None]
    spectrum *= gaussian[None, None, : n // 2 + 1]
    return torch.fft.irfftn(spectrum, s=(n, n, n))
