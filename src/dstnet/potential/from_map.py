"""A potential from a map: the density that an electron microscope or a computation gave, in
arbitrary units, on a grid of its own.
"""

import gzip
import math
from pathlib import Path

import mrcfile
import numpy as np
import torch
from pydantic import Field
from scipy import ndimage
from torch import Tensor

from dstnet.core.settings import Settings
from dstnet.errors import BadInputError, SettingsError
from dstnet.io.compressed_mrc import holds_more_than
from dstnet.potential.potential import Potential, box_size, check_pixel_size

MAP_SUFFIXES = (".mrc", ".map", ".ccp4")
MIN_EDGE = 16  # voxels: fewer hold nothing that is clear of its edges
_MOST_BYTES = (4 << 30) + (1 << 20)  # 1024 voxels along each axis, and its header
UNEQUAL_VOXELS = 1e-3  # relative, more than headers round
# The envelope's level where none is given, above the solvent: the larger of a part of the smoothed
# map's maximum, and so many of its standard deviations outside the inscribed sphere.
AUTOMATIC_PART = 0.2
AUTOMATIC_NOISE = 5.0
SMALLEST_PIECE = 0.1  # of the largest: what is smaller is dust


class MapSettings(Settings):
    """How a map becomes a potential. Its own scale and offset are arbitrary and do not matter."""

    inner_contrast_volt: float = Field(
        default=1.8,
        gt=0,
        le=10,
        description=(
            "mean potential above ice in the envelope; 1.8 is what 6z6u, 1mnf and 1igt have in"
            " theirs, made of atoms with defaults"
        ),
    )
    threshold: float | None = Field(
        default=None,
        description=(
            "level, in the map's units, whose surface is the envelope, the map smoothed; None finds"
            " one above the noise"
        ),
    )
    smoothing_angstrom: float = Field(
        default=3.0,
        gt=0,
        le=30,
        description="sigma of that smoothing, and of the envelope's soft edge",
    )
    voxel_size_angstrom: float | None = Field(
        default=None, gt=0, description="instead of the header's; None is the header's"
    )


def potential_from_map(
    path: Path | str, pixel_size_angstrom: float, settings: MapSettings | None = None
) -> Potential:
    """The potential of the particle in an EM map, centred on its mass.

    The map is cut to a soft envelope where its smoothed density exceeds a threshold, pieces far
    smaller than the largest are dropped, and what is left is brought to a mean of
    `inner_contrast_volt` within the envelope (before its edge is softened): maps have arbitrary
    units, and the solvent is their zero, as it is the potential's. It is then resampled by its
    Fourier series, cropped or padded to the band of the asked voxels.

    Parameters
    ----------
    path
        An MRC2014 or CCP4 file, gzipped or not; any order of axes, cubic voxels.
    pixel_size_angstrom
        Edge of the potential's voxels.
    settings
        Defaults where None.

    Raises
    ------
    BadInputError
        If the file cannot be read, is no volume of cubic voxels, is too small, or holds no density;
        if its header gives no voxel size.
    SettingsError
        If the pixel size is not positive or so small that the box would exceed
        `dstnet.potential.potential.MAX_BOX` voxels; if nothing or everything lies above the
        threshold.
    """
    if settings is None:
        settings = MapSettings()
    path = Path(path)
    check_pixel_size(pixel_size_angstrom, str(path))
    density, voxel = _read(path, settings.voxel_size_angstrom)
    density, inside = _cut_out(density, voxel, settings, path)
    mean = float(density[inside].mean())
    density *= settings.inner_contrast_volt / mean

    mass = np.where(inside, density.clip(min=0), 0)
    centre = np.array(ndimage.center_of_mass(mass))
    from_centre = np.argwhere(inside) - centre
    squared_distance = (from_centre**2).sum(axis=1)
    radius = float(np.sqrt(squared_distance.max())) * voxel
    n = box_size(2 * radius, pixel_size_angstrom, str(path))
    volume = torch.from_numpy(density)
    for axis, middle in enumerate(centre.tolist()):
        matrix = _resampling(density.shape[axis], voxel, n, pixel_size_angstrom, middle)
        lines = volume.movedim(axis, 0)
        resampled = matrix @ lines.flatten(1)
        resampled = resampled.reshape(n, *lines.shape[1:])
        volume = resampled.movedim(0, axis)
    name = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    return Potential(volume.contiguous().numpy(), pixel_size_angstrom, name, radius)


def _read(path: Path, voxel_size: float | None) -> tuple[np.ndarray, float]:
    """The map as float32 ``[z, y, x]`` and its voxel's edge in Å.

    Raises
    ------
    BadInputError
        If the file cannot be read, is no volume of cubic voxels, is too small, or holds no density;
        if neither `voxel_size` nor its header gives a voxel size.
    """
    if not path.is_file():
        raise BadInputError(f"no such map: {path}; give an MRC or CCP4 file (.gz allowed)")
    if holds_more_than(path, _MOST_BYTES):
        raise BadInputError(
            f"{path} holds more than {_MOST_BYTES >> 30} GiB; give a map of fewer voxels"
        )
    try:
        with mrcfile.open(path, mode="r") as file:
            header = np.array(file.header)[()]
            data = np.asarray(file.data)
    except (ValueError, OSError, EOFError, gzip.BadGzipFile) as error:
        reason = " ".join(str(error).split())
        raise BadInputError(
            f"cannot read {path} as a map: {reason}; copy it again or convert it"
        ) from None
    if data.ndim != 3 or data.dtype.kind not in "fiu" or min(data.shape) < MIN_EDGE:
        raise BadInputError(
            f"{path} is {data.dtype} of shape {data.shape}; a map has three axes of at least"
            f" {MIN_EDGE} real voxels"
        )
    data = _as_zyx(data, header, path).astype(np.float32)
    if not np.isfinite(data).all():
        raise BadInputError(f"{path} holds values that are not finite; repair or mask the map")
    if data.min() == data.max():
        raise BadInputError(f"{path} holds no density: every voxel is {data.flat[0]:g}")
    if voxel_size is None:
        voxel_size = _header_voxel_size(header, path)
    return data, voxel_size


def _as_zyx(data: np.ndarray, header: np.ndarray, path: Path) -> np.ndarray:
    """A map's array with its axes in the order ``[z, y, x]``.

    Raises
    ------
    BadInputError
        If the header does not say which axis is which.
    """
    # Which of x = 1, y = 2, z = 3 each axis of the array is.
    order = [int(header[axis]) for axis in ("maps", "mapr", "mapc")]
    if sorted(order) != [1, 2, 3]:
        raise BadInputError(
            f"{path} stores its axes in the order {order[::-1]}; mapc, mapr and maps must name 1, 2"
            " and 3 once each"
        )
    return data.transpose([order.index(axis) for axis in (3, 2, 1)])


def _header_voxel_size(header: np.ndarray, path: Path) -> float:
    """Edge in Å of the voxels that a map's header describes.

    Raises
    ------
    BadInputError
        If it gives no size, or voxels that are no cubes.
    """
    angles = [float(header["cellb"][name]) for name in ("alpha", "beta", "gamma")]
    sizes = []
    for axis in "xyz":
        voxels = max(1, int(header["m" + axis]))
        sizes.append(float(header["cella"][axis]) / voxels)
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        raise BadInputError(
            f"{path} has no voxel size in its header (got {sizes} Å); set voxel_size_angstrom"
        )
    is_equal = max(sizes) / min(sizes) - 1 <= UNEQUAL_VOXELS
    is_rectangular = all(angle in (0.0, 90.0) for angle in angles)  # some programs write 0
    if not (is_equal and is_rectangular):
        rounded = " x ".join(f"{size:.4g}" for size in sizes)
        raise BadInputError(
            f"{path} has voxels of {rounded} Å at angles {angles}; they must be cubes, resample it"
            " or set voxel_size_angstrom"
        )
    return sum(sizes) / 3


def _cut_out(
    density: np.ndarray, voxel: float, settings: MapSettings, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """The density above the solvent's level, zero outside a soft envelope, and the envelope ``[z,
    y, x]`` as bool before softening.
    """
    sigma = settings.smoothing_angstrom / voxel
    smooth = ndimage.gaussian_filter(density, sigma, mode="nearest")
    z, y, x = (np.linspace(-1, 1, size) for size in density.shape)
    # Outside the inscribed sphere lies solvent.
    outside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 > 1
    solvent = float(np.median(density[outside]))
    threshold = settings.threshold
    if threshold is None:
        above_noise = AUTOMATIC_NOISE * float(smooth[outside].std())
        part_of_maximum = AUTOMATIC_PART * (float(smooth.max()) - solvent)
        threshold = solvent + max(above_noise, part_of_maximum)
    inside = smooth > threshold
    if not inside.any() or inside.all():
        amount = "nothing" if not inside.any() else "everything"
        raise SettingsError(
            f"{amount} in {path} lies above the threshold {threshold:.4g}; set another, between"
            f" {smooth.min():.4g} and {smooth.max():.4g}"
        )
    inside = _without_dust(inside)
    # Twice the blurred envelope, cut at one: complete up to the envelope's surface, and zero two
    # sigmas past it.
    blurred = ndimage.gaussian_filter(inside.astype(np.float32), sigma, mode="nearest")
    soft = (2 * blurred).clip(max=1)
    return (density - solvent) * soft, inside


def _without_dust(inside: np.ndarray) -> np.ndarray:
    """An envelope, bool ``[z, y, x]``, without the pieces far smaller than its largest."""
    pieces = np.empty(inside.shape, np.int32)
    ndimage.label(inside, output=pieces)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0  # of what lies outside
    is_kept = sizes >= SMALLEST_PIECE * sizes.max()
    return is_kept[pieces]


def _resampling(size: int, voxel: float, n: int, pixel: float, centre: float) -> Tensor:
    """The matrix ``[n, size]`` that reads a line of `size` voxels, by its Fourier series, at `n`
    points of which ``n//2`` is `centre`.

    Frequencies that the points, `pixel` Å apart, cannot hold are left out. Points beyond the line's
    ends read zero: the series would repeat there.
    """
    from_centre = torch.arange(n, dtype=torch.float64) - n // 2
    place = centre + from_centre * (pixel / voxel)
    voxel_index = torch.arange(size, dtype=torch.float64)
    angle = 2 * math.pi / size * (place[:, None] - voxel_index)
    highest_of_map = (size - 1) // 2
    highest_kept = math.ceil(0.5 * size * voxel / pixel) - 1
    highest = min(highest_of_map, highest_kept)
    # 1 + 2 sum cos(h angle) for h from 1 to `highest`: Dirichlet's kernel.
    sine = torch.sin(angle / 2)
    ratio = torch.sin((highest + 0.5) * angle) / sine
    at_zero = 2.0 * highest + 1
    kernel = torch.where(sine.abs() < 1e-9, at_zero, ratio) / size
    is_beyond = (place < -0.5) | (place > size - 0.5)
    kernel[is_beyond] = 0
    return kernel.float()
