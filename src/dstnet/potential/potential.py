"""The electrostatic potential of a complex in ice, in volts, relative to the ice around it."""

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
from dstnet.structure.atoms import Atoms

OVERSAMPLING = (
    3,
    2,
    # the grid that gemmi fills is 3/2 finer, so that what folds back over the kept frequencies is
    # negligible
)
# least B-factor over pixel² while on that grid: folds exp(-30 * 3/16) = 0.4 % at Nyquist, less
# below
ALIASING_B_PER_PIXEL2 = 30.0
MARGIN_ANGSTROM = 40.0  # of a box beyond the complex' diameter, 20 Å on each side
MAX_BOX = 800  # voxels along an edge; an 800³ box needs about 20 GB while it is made
PROTEIN_ATOM_VOLUME_ANGSTROM3 = (
    16.8  # per non-hydrogen atom: 110 Da a residue of 7.9 such atoms at 0.73 cm³/g
)
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


def box_size(atoms: Atoms, pixel_size_angstrom: float) -> int:
    """Edge in voxels of the cube for `atoms`: their sphere around the origin plus 20 Å on each
    side, a good even FFT size.
    """
    return next_fast_size(
        int(np.ceil((atoms.diameter_angstrom + MARGIN_ANGSTROM) / pixel_size_angstrom))
    )


def build_potential(
    atoms: Atoms, pixel_size_angstrom: float, settings: PotentialSettings | None = None
) -> Potential:
    """The potential of `atoms` in ice: ``scale * V_atoms - V_ice * envelope``, band-limited to the
    voxel size.

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

    Raises
    ------
    SettingsError
        If the pixel size is not positive, or so small that the box would exceed `MAX_BOX` voxels
        along an edge.
    BadInputError
        If no atom scatters, or one is of an element without tabulated factors.
    """
    settings = settings or PotentialSettings()
    if not (np.isfinite(pixel_size_angstrom) and pixel_size_angstrom > 0):
        raise SettingsError(
            f"pixel size must be above 0 Å (got {pixel_size_angstrom}) for the potential of"
            f" {atoms.name}"
        )
    n = box_size(atoms, pixel_size_angstrom)
    if n > MAX_BOX:
        raise SettingsError(
            f"{atoms.name} at {pixel_size_angstrom} Å/pixel needs a box of {n} voxels, more than"
            f" {MAX_BOX}; use a larger pixel size"
        )
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

    b_factors = np.full(len(atoms), settings.extra_b_factor)
    if settings.file_b_factor_cap is not None:
        b_factors += atoms.b_factors.clip(
            0, settings.file_b_factor_cap
        )  # some programs write negative ones
    spectrum = _atoms_spectrum(atoms, used, b_factors, n, pixel_size_angstrom) * settings.scale
    if settings.ice_potential_volt:
        spectrum -= settings.ice_potential_volt * torch.fft.rfftn(
            _envelope(atoms, n, pixel_size_angstrom, settings)
        )
    return Potential(
        torch.fft.irfftn(spectrum, s=(n, n, n)).numpy(),
        pixel_size_angstrom,
        atoms.name,
        atoms.diameter_angstrom / 2,
    )


def _atoms_spectrum(
    atoms: Atoms, used: np.ndarray, b_factors: np.ndarray, n: int, pixel: float
) -> Tensor:
    """``rfftn`` of the isolated-atom potential in V on the cube of `n` voxels."""
    fine = n * OVERSAMPLING[0] // OVERSAMPLING[1]
    blur = max(0.0, ALIASING_B_PER_PIXEL2 * pixel**2 - float(b_factors[used].min()))
    calculator = gemmi.DensityCalculatorE()
    edge = n * pixel
    calculator.grid.spacegroup = gemmi.SpaceGroup("P1")
    calculator.grid.set_unit_cell(gemmi.UnitCell(edge, edge, edge, 90, 90, 90))
    calculator.grid.set_size(fine, fine, fine)
    origin = (n // 2) * pixel
    order = np.flatnonzero(used)
    order = order[np.argsort(atoms.elements[order], kind="stable")]
    atom = gemmi.Atom()
    element = 0
    rows = zip(
        atoms.elements[order].tolist(),
        (atoms.positions_angstrom[order].astype(np.float64) + origin).tolist(),
        (b_factors[order] + blur).tolist(),
        atoms.occupancies[order].tolist(),
        strict=True,
    )
    for z, (px, py, pz), b_iso, occupancy in rows:
        if z != element:
            atom.element = gemmi.Element(z)
            element = z
        atom.pos = gemmi.Position(px, py, pz)
        atom.b_iso = b_iso
        atom.occ = occupancy
        calculator.add_atom_density_to_grid(atom)
    spectrum = _cropped_rfftn(
        torch.from_numpy(calculator.grid.array.T), n
    )  # gemmi's [x, y, z] is in memory as [z, y, x]
    # Undone axis by axis: exp(+blur k²/4) is separable.
    k = torch.fft.fftfreq(n, d=pixel, dtype=torch.float64)
    sharpen = torch.exp(blur * k**2 / 4).float()
    spectrum *= sharpen[:, None, None] * MOTT_VOLT_ANGSTROM2
    spectrum *= sharpen[None, :, None]
    spectrum *= sharpen[None, None, : n // 2 + 1]
    return spectrum


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
        spectrum = torch.cat(
            [spectrum.narrow(axis, 0, half), spectrum.narrow(axis, size - half, half)], dim=axis
        )
        spectrum.select(axis, half).zero_()
    spectrum[:, :, half] = 0
    return spectrum * (n / size) ** 3


def _envelope(atoms: Atoms, n: int, pixel: float, settings: PotentialSettings) -> Tensor:
    """Fraction 0 to 1 of each voxel that the molecule takes from the ice, shape ``[z, y, x]``.

    The blurred density of non-hydrogen atoms is cut where it encloses the molecule's volume by
    partial specific volume, so the interior of a shell stays solvent, and then softened, which
    keeps the volume.
    """
    heavy = atoms.elements > 1
    weights = torch.from_numpy(np.where(heavy, atoms.occupancies, 0).astype(np.float32))
    volume = PROTEIN_ATOM_VOLUME_ANGSTROM3 * float(weights.sum())
    volume += PHOSPHORUS_VOLUME_CORRECTION_ANGSTROM3 * float(
        atoms.occupancies[atoms.elements == 15].sum()
    )
    voxels = max(1, min(n**3, round(volume / pixel**3)))
    index = torch.from_numpy(np.rint(atoms.positions_angstrom / pixel).astype(np.int64)) + n // 2
    flat = (index[:, 2] * n + index[:, 1]) * n + index[:, 0]
    density = torch.zeros(n**3).index_add_(0, flat, weights).reshape(n, n, n)
    density = _gaussian_blur(density, ENVELOPE_BLUR_ANGSTROM / pixel).flatten()
    # kthvalue of the few voxels near atoms: the others' zero density is known to lie below.
    candidates = density[density > 1e-6 * density.max()]
    threshold = torch.topk(candidates, min(voxels, len(candidates))).values[-1]
    return _gaussian_blur(
        (density >= threshold).float().reshape(n, n, n),
        settings.envelope_smoothing_angstrom / pixel,
    )


def _gaussian_blur(volume: Tensor, sigma: float) -> Tensor:
    """A cube blurred by a Gaussian of `sigma` voxels; keeps the total."""
    n = volume.shape[0]
    gaussian = torch.exp(-2 * (torch.pi * sigma * torch.fft.fftfreq(n)) ** 2)
    spectrum = torch.fft.rfftn(volume)
    spectrum *= gaussian[:, None, None]
    spectrum *= gaussian[None, :, None]
    spectrum *= gaussian[None, None, : n // 2 + 1]
    return torch.fft.irfftn(spectrum, s=(n, n, n))
