"""What a membrane protein takes along from its membrane: a belt of detergent, or a disc of lipids
held by a scaffold protein.
"""

from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy import ndimage
from scipy.special import expit
from torch import Tensor

from dstnet.core.settings import Settings
from dstnet.errors import SettingsError
from dstnet.structure import Atoms
from dstnet.structure.membrane import Membrane, find_membrane

OUTLINE_PIXEL_ANGSTROM = 0.5  # of the protein's outline seen along the membrane's normal
ATOM_RADIUS_ANGSTROM = 3.0  # an atom with half of its neighbour, so that outlines are closed
# Over which layers and edges fade, for water and tails mix; in pixels where that is more, so that
# no detail folds back.
EDGE_ANGSTROM = 2.0
EDGE_PIXELS = 0.75
SCAFFOLD_ANGSTROM = 10.0  # width of the helices that hold a nanodisc, a helix's diameter
SLAB_VOXELS = 1 << 22  # worked on at once


class BeltSettings(Settings):
    """The belt about the part of a protein that lies in a membrane.

    Potentials are those over ice by the same reckoning as the protein's (see `PotentialSettings`):
    0.9 of the isolated atoms without their hydrogens, less ice. A methylene of a tail fills 27.6 Å3
    (Nagle & Tristram-Nagle, Biochim. Biophys. Acta 1469, 159 (2000)): 0.9 x 47.88 V Å2 x 2.51 Å /
    27.6 Å3 - 3.5 V = 0.4 V, hardly more than ice. A maltoside's head, two sugars in about 350 Å3,
    has 2.9 V; half of its layer is water: 1.5 V, and much the same for a phosphocholine.
    """

    kind: Literal["micelle", "nanodisc"] = Field(
        default="micelle",
        description=(
            "micelle: a rounded belt of detergent along the protein's outline; nanodisc: a round,"
            " flat disc of lipids in a scaffold protein"
        ),
    )
    normal: tuple[float, float, float] | None = Field(
        default=None,
        description=(
            "the membrane's normal (x, y, z) in the structure's frame; None finds it by the exposed"
            " residues"
        ),
    )
    centre_angstrom: float = Field(
        default=0.0,
        description=(
            "of the membrane's middle along `normal`, from the structure's mean position; where the"
            " normal is found, this is found with it"
        ),
    )
    core_thickness_angstrom: float = Field(
        default=30.0, gt=0, le=100, description="of the tails of both leaflets together"
    )
    head_thickness_angstrom: float = Field(
        default=6.0,
        ge=0,
        le=30,
        description="of each layer of heads; 5.5 to 7 of maltosides (Oliver 2013), 9 of lipids",
    )
    extent_angstrom: float = Field(
        default=22.0,
        gt=0,
        le=150,
        description=(
            "how far the belt reaches beyond the protein, at its middle; a nanodisc's edge lies so"
            " far beyond the protein's farthest part"
        ),
    )
    core_volt: float = Field(default=0.4, ge=-5, le=10, description="of the tails, over ice")
    head_volt: float = Field(default=1.5, ge=-5, le=10, description="of the heads, over ice")
    scaffold_volt: float = Field(
        default=2.5, ge=-5, le=10, description="of a nanodisc's scaffold protein, over ice"
    )

    @model_validator(mode="after")
    def _has_direction(self) -> Self:
        if self.normal is not None and not np.linalg.norm(self.normal) > 0:
            raise ValueError("normal is (0, 0, 0), which is no direction; give for example 0, 0, 1")
        return self


def membrane_of(atoms: Atoms, settings: BeltSettings) -> Membrane:
    """Where the membrane lies: as the settings say, or as the exposed residues tell.

    Raises
    ------
    SettingsError
        If the settings do not say and the residues do not tell.
    """
    if settings.normal is None:
        return find_membrane(atoms, settings.core_thickness_angstrom)
    x, y, z = (np.array(settings.normal) / np.linalg.norm(settings.normal)).tolist()
    return Membrane((x, y, z), settings.centre_angstrom)


class Belt:
    """The belt of one structure, to be drawn on grids of any fineness.

    Parameters
    ----------
    atoms
        Centred.
    settings
        Of the belt.

    Raises
    ------
    SettingsError
        If it is not known where the membrane lies, or no atom lies in it.
    """

    def __init__(self, atoms: Atoms, settings: BeltSettings) -> None:
        self.settings = settings
        self.membrane = membrane_of(atoms, settings)
        self._axes = _plane_axes(np.array(self.membrane.normal))
        self._half_height = settings.core_thickness_angstrom / 2 + settings.head_thickness_angstrom
        inside = self._atoms_within(atoms)
        self._distance, self._low = _distance_to_outline(inside, self._reach)
        self._middle = (inside.min(0) + inside.max(0)) / 2
        from_middle = np.linalg.norm(inside - self._middle, axis=1)
        self._disc_radius = float(from_middle.max()) + settings.extent_angstrom

    @property
    def _reach(self) -> float:
        """Farthest lateral distance from the outline that is ever looked at."""
        return self.settings.extent_angstrom + 4 * EDGE_ANGSTROM

    @property
    def radius_angstrom(self) -> float:
        """Of the sphere around the structure's origin that holds the belt."""
        if self.settings.kind == "nanodisc":
            lateral = float(np.linalg.norm(self._middle)) + self._disc_radius
        else:
            pixels = np.argwhere(self._distance <= self.settings.extent_angstrom)
            places = self._low + pixels * OUTLINE_PIXEL_ANGSTROM
            lateral = float(np.linalg.norm(places, axis=1).max())
        height = abs(self.membrane.centre_angstrom) + self._half_height
        return float(np.hypot(lateral, height))

    def volume(self, size: int, pixel_size_angstrom: float) -> Tensor:
        """Its potential over ice in V, [z, y, x] float32, on a cube of `size` voxels whose voxel
        [n // 2, n // 2, n // 2] is the structure's origin, as if there were no protein.
        """
        fade = max(EDGE_ANGSTROM, EDGE_PIXELS * pixel_size_angstrom)
        places = (np.arange(size, dtype=np.float32) - size // 2) * pixel_size_angstrom
        volume = np.zeros((size, size, size), np.float32)
        step = max(1, SLAB_VOXELS // size**2)
        for first in range(0, size, step):
            z, y, x = np.meshgrid(places[first : first + step], places, places, indexing="ij")
            volume[first : first + step] = self._potential(x, y, z, fade)
        return torch.from_numpy(volume)

    def _atoms_within(self, atoms: Atoms) -> np.ndarray:
        """Places [atom, 2] in the membrane's plane of the atoms that lie in it."""
        positions = atoms.positions_angstrom.astype(np.float64)
        heights = self.membrane.heights_angstrom(positions)
        is_within = np.abs(heights) < self._half_height
        is_within &= atoms.elements > 1
        if not is_within.any():
            raise SettingsError(
                f"no atom of {atoms.name} lies in the membrane that belt.normal and"
                " belt.centre_angstrom say; correct them"
            )
        return positions[is_within] @ self._axes.T

    def _potential(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, fade: float) -> np.ndarray:
        """Potential over ice at places, edges fading over `fade` Å."""
        values = np.zeros(x.shape, np.float32)
        a, b, c = self.membrane.normal
        height = np.abs(a * x + b * y + c * z - self.membrane.centre_angstrom)
        is_near = height < self._half_height + 4 * fade
        places = np.stack([x[is_near], y[is_near], z[is_near]], axis=1)
        lateral = places @ self._axes.T.astype(np.float32)
        make = self._nanodisc if self.settings.kind == "nanodisc" else self._micelle
        values[is_near] = make(height[is_near], lateral, fade)
        return values

    def _micelle(self, height: np.ndarray, lateral: np.ndarray, fade: float) -> np.ndarray:
        """A belt whose section is half an ellipse: the tails', and around them the heads'."""
        settings = self.settings
        away = self._from_outline(lateral)
        core = _half_ellipse(
            height,
            away,
            settings.core_thickness_angstrom / 2,
            max(settings.extent_angstrom - settings.head_thickness_angstrom, EDGE_ANGSTROM),
            fade,
        )
        whole = _half_ellipse(height, away, self._half_height, settings.extent_angstrom, fade)
        return settings.core_volt * core + settings.head_volt * (whole - core).clip(0)

    def _nanodisc(self, height: np.ndarray, lateral: np.ndarray, fade: float) -> np.ndarray:
        """A flat disc of lipids, and the scaffold's ring around its tails."""
        settings = self.settings
        from_middle = np.linalg.norm(lateral - self._middle.astype(np.float32), axis=1)
        disc = _fading(from_middle - self._disc_radius, fade)
        lipids = _fading(from_middle - (self._disc_radius - SCAFFOLD_ANGSTROM), fade)
        core = _fading(height - settings.core_thickness_angstrom / 2, fade)
        heads = _fading(height - self._half_height, fade) - core
        of_lipids = settings.core_volt * core + settings.head_volt * heads
        return lipids * of_lipids + (disc - lipids) * settings.scaffold_volt * core

    def _from_outline(self, lateral: np.ndarray) -> np.ndarray:
        """Distance in Å of places in the plane from the protein's outline, 0 within it."""
        pixels = (lateral - self._low.astype(np.float32)) / OUTLINE_PIXEL_ANGSTROM
        return ndimage.map_coordinates(
            self._distance, pixels.T, order=1, mode="constant", cval=2 * self._reach
        )


def radius_with_belt(atoms: Atoms, belt: Belt | None) -> float:
    """Radius in Å of the sphere around the origin that holds a structure and its belt."""
    radius = atoms.diameter_angstrom / 2
    return radius if belt is None else max(radius, belt.radius_angstrom)


def _plane_axes(normal: np.ndarray) -> np.ndarray:
    """Two unit vectors [2, 3] that span the plane across a normal."""
    helper = np.eye(3)[np.abs(normal).argmin()]
    first = np.cross(normal, helper)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first)])


def _distance_to_outline(places: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance in Å from the outline of atoms [atom, 2], 0 within it and within its holes, on a
    grid that reaches so far beyond it; and the place of the grid's first pixel.
    """
    low = places.min(0) - reach - ATOM_RADIUS_ANGSTROM
    high = places.max(0) + reach + ATOM_RADIUS_ANGSTROM
    shape = np.ceil((high - low) / OUTLINE_PIXEL_ANGSTROM).astype(int) + 1
    is_atom = np.zeros(shape, bool)
    pixels = np.rint((places - low) / OUTLINE_PIXEL_ANGSTROM).astype(int)
    is_atom[pixels[:, 0], pixels[:, 1]] = True
    from_atoms = _distance_to(is_atom)
    outline = np.asarray(ndimage.binary_fill_holes(from_atoms < ATOM_RADIUS_ANGSTROM))
    return _distance_to(outline).astype(np.float32), low


def _distance_to(there: np.ndarray) -> np.ndarray:
    """Distance in Å of each pixel of the outline's grid from the nearest that is True."""
    pixels = np.asarray(ndimage.distance_transform_edt(np.logical_not(there)))
    return pixels * OUTLINE_PIXEL_ANGSTROM


def _half_ellipse(
    height: np.ndarray, away: np.ndarray, half_height: float, extent: float, fade: float
) -> np.ndarray:
    """1 within the half ellipse over the outline of such half axes, fading to 0 at its edge."""
    radius = np.hypot(height / half_height, away / extent)
    # Distance from the edge, about, in Å.
    return _fading((radius - 1) * min(half_height, extent), fade)


def _fading(beyond_angstrom: np.ndarray, fade: float) -> np.ndarray:
    """1 well within an edge, 1/2 on it, 0 well beyond it."""
    return expit(beyond_angstrom * (-2 / fade))
