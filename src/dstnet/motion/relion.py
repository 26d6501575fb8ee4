"""Motion in RELION's form: the tables of a motion-corrected movie's STAR file (RELION 3.1 and
later).

RELION's shift of a frame is what it applies to bring the frame back onto the first one: s_t(x) =
u_0(x) - u_t(x), in pixels of the movie. It is a shift per frame (``global_shift``) plus a
polynomial (``local_motion_model``) of 18 coefficients per axis, x first: those of (z, z^2, z^3)
times (1, x, x^2, y, y^2, x y), z fastest. Frames are counted by z from the first that RELION used
(``rlnMicrographStartFrame``), x is column / width - 1/2 and y is row / height - 1/2, where content
lies in the *sum*; `dstnet.motion.local_field` takes it to where content lies in the frame, as our
motion has it. Rows are counted as RELION does: from the first stored row of an MRC file, from the
last one of a TIFF file. A frame that was not used has the shifts -9999.

A run of RELION that bins before it aligns (``--bin_factor`` with ``--early_binning``) writes the
polynomial in binned pixels and everything else in pixels of the movie; its Polish reads both as
pixels of the movie. Which they are is told by the table ``local_shift``, what the polynomial was
fitted to; where that is missing, as in our files, it is pixels of the movie.

References
----------
Zheng et al., Nat. Methods 14, 331 (2017), for the model; signs, order, units and reference are
proved against the program itself in the tests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dstnet.core.shapes import Shape, Stack, Trajectory
from dstnet.errors import BadInputError
from dstnet.motion.local_field import field_in_frames, field_where_seen

_COEFFICIENTS = 36
# RELION's numbers for the grids of EER movies: the camera's own, two and four times finer ones.
_EER_GRIDS = {None: None, 1: 1, 2: 2, 4: 3}
NOT_OBSERVED = -9999.0  # the shift of a frame that RELION did not use


@dataclass(frozen=True)
class RelionMovie:
    """A movie as RELION's tables describe it.

    Attributes
    ----------
    shape
        (y, x) of a frame in pixels.
    pixel_size_angstrom
        Of the movie's pixels.
    movie_name
        Path of the movie file, as RELION is to find it.
    exposure_e_per_a2
        Of one frame; None: not known.
    pre_exposure_e_per_a2
        Before the first frame of the file.
    voltage_kv
        Acceleration voltage; None: not known.
    used_frames
        Numbers in the file, from 0, of the frames whose motion is told; by default all.
    frames_in_file
        How many the file has; by default up to the last used one.
    binning
        Pixel of the sums over that of the movie.
    gain_name, defects_name
        Paths of the references that RELION is to apply; None: there is none.
    hot_pixels
        Pixels, (y, x), that are bad in this movie beside those of the list of defects.
    eer_up_sampling, raw_frames_per_frame
        Of an EER movie, how much finer the grid is than the camera's, and how many raw frames a
        frame is the sum of; None: it is none.
    """

    shape: Shape
    pixel_size_angstrom: float
    movie_name: str
    exposure_e_per_a2: float | None = None
    pre_exposure_e_per_a2: float = 0.0
    voltage_kv: float | None = None
    used_frames: tuple[int, ...] = ()
    frames_in_file: int = 0
    binning: float = 1.0
    gain_name: str | None = None
    defects_name: str | None = None
    hot_pixels: tuple[tuple[int, int], ...] = ()
    eer_up_sampling: int | None = None
    raw_frames_per_frame: int | None = None


def to_relion(
    global_shift_angstrom: Trajectory, local_coefficients_angstrom: Stack, movie: RelionMovie
) -> dict[str, Any]:
    """Motion as the tables ``general`` (a dict), ``global_shift`` and ``local_motion_model``
    (DataFrames), ready for `starfile`; and ``hot_pixels`` where there are any.

    Write them with nine digits (``float_format="%.9g"``): coefficients of z^3 are small, and six
    decimals would be 0.01 pixels off.

    Local courses that are no cubic polynomials of the frame number are brought to the nearest that
    are (least squares).

    Parameters
    ----------
    global_shift_angstrom
        [frame, 2], (y, x), of the movie's used frames; against any reference.
    local_coefficients_angstrom
        [frame, 2, 5], as in `Motion`.
    movie
        What has so moved.
    """
    height, width = movie.shape
    pixel = movie.pixel_size_angstrom
    field = ((height - 1) * pixel, (width - 1) * pixel)
    shift = global_shift_angstrom - global_shift_angstrom[0]
    seen = field_where_seen(shift, local_coefficients_angstrom, field)
    applied_px = (seen[0] - seen) / pixel + 0.0  # no -0
    used = movie.used_frames or tuple(range(len(shift)))
    frames = movie.frames_in_file or used[-1] + 1
    shift_px = torch.full((frames, 2), NOT_OBSERVED, dtype=torch.float64)
    shift_px[list(used)] = applied_px[..., 5]
    model = _relion_model(applied_px[..., :5], used, movie.shape)
    global_shift = {
        "rlnMicrographFrameNumber": range(1, frames + 1),
        "rlnMicrographShiftX": shift_px[:, 1].numpy(),
        "rlnMicrographShiftY": shift_px[:, 0].numpy(),
    }
    local_model = {
        "rlnMotionModelCoeffsIdx": range(_COEFFICIENTS),
        "rlnMotionModelCoeff": model.flip(0).flatten().numpy(),  # x first
    }
    tables = {
        "general": _general(movie, frames, used[0]),
        "global_shift": pd.DataFrame(global_shift),
        "local_motion_model": pd.DataFrame(local_model),
    }
    if movie.hot_pixels:
        rows, columns = zip(*movie.hot_pixels, strict=True)
        tables["hot_pixels"] = pd.DataFrame({"rlnCoordinateX": columns, "rlnCoordinateY": rows})
    return tables


def _general(movie: RelionMovie, frames: int, first_used: int) -> dict[str, Any]:
    """The values of a movie; those that are not known are left out."""
    height, width = movie.shape
    has_exposure = movie.exposure_e_per_a2 is not None
    is_eer = movie.eer_up_sampling is not None
    values = {
        "rlnImageSizeX": width,
        "rlnImageSizeY": height,
        "rlnImageSizeZ": frames,
        "rlnMicrographMovieName": movie.movie_name,
        "rlnMicrographGainName": movie.gain_name,
        "rlnMicrographDefectFile": movie.defects_name,
        "rlnMicrographBinning": movie.binning,
        "rlnMicrographOriginalPixelSize": movie.pixel_size_angstrom,
        "rlnMicrographDoseRate": movie.exposure_e_per_a2,
        "rlnMicrographPreExposure": movie.pre_exposure_e_per_a2 if has_exposure else None,
        "rlnVoltage": movie.voltage_kv,
        "rlnMicrographStartFrame": first_used + 1,
        "rlnEERUpsampling": _EER_GRIDS[movie.eer_up_sampling],
        "rlnEERGrouping": movie.raw_frames_per_frame if is_eer else None,
        "rlnMotionModelVersion": 1,
    }
    return {name: value for name, value in values.items() if value is not None}


def _relion_model(applied_px: Stack, used_frames: Sequence[int], shape: Shape) -> Tensor:
    """RELION's coefficients [axis, term, power], y first, of what is applied to the used frames,
    [frame, 2, 5].
    """
    z = torch.tensor(used_frames, dtype=torch.float64) - used_frames[0]
    last = max(float(z[-1]), 1.0)
    # Fitted over 0 to 1, where powers are of one order; then stretched to frame numbers.
    powers = (z[:, None] / last) ** torch.arange(1, 4)
    stretch = last ** -torch.arange(1, 4, dtype=torch.float64)
    fitted = torch.einsum("zf,fak->akz", torch.linalg.pinv(powers), applied_px)
    terms = _ours_in_relion_terms(shape)
    return torch.einsum("rk,akz->arz", terms, fitted * stretch)


def from_relion(
    tables: Mapping[str, Any], pixel_size_angstrom: float | None = None
) -> tuple[Trajectory, Stack]:
    """Motion from the tables that `starfile.read` finds in RELION's STAR file of one movie.

    Parameters
    ----------
    tables
        By name.
    pixel_size_angstrom
        Of the frames that RELION worked on; by default as the tables say.

    Returns
    -------
    global_shift_angstrom
        [frame, 2], (y, x), of all frames of the movie's file, against the first that RELION used;
        NaN for those that it did not use. What RELION's local model shifts the field by on the
        whole is in here.
    local_coefficients_angstrom
        [frame, 2, 5], against the same; zero where there is no local model.

    Raises
    ------
    BadInputError
        If a table or column is missing or holds no numbers, no frame was used, or the local model
        is of a version other than 0 (none) and 1.
    """
    try:
        return _motion_of(tables, pixel_size_angstrom)
    except KeyError as error:
        raise BadInputError(
            f"no {error.args[0]} in RELION's motion tables; give the STAR file that it writes for"
            " each movie"
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInputError(
            f"RELION's motion tables hold what is no number ({error}); give the STAR file as RELION"
            " wrote it"
        ) from None


def _motion_of(
    tables: Mapping[str, Any], pixel_size_angstrom: float | None
) -> tuple[Trajectory, Stack]:
    general = tables["general"]
    height = int(general["rlnImageSizeY"])
    width = int(general["rlnImageSizeX"])
    pixel = pixel_size_angstrom or float(general["rlnMicrographOriginalPixelSize"])
    start = int(general.get("rlnMicrographStartFrame", 1))
    shift = _global_shift_px(general, tables["global_shift"])
    courses = torch.zeros(len(shift), 2, 6, dtype=torch.float64)
    if _has_local_model(general):
        flat = _coefficients(tables["local_motion_model"])
        flat = flat * _pixels_of_model(flat, start, tables)
        z = torch.arange(len(shift), dtype=torch.float64) - (start - 1)
        courses = _our_courses(flat, (height, width), z)
    courses[..., 5] += shift
    seen = courses * -pixel
    field = ((height - 1) * pixel, (width - 1) * pixel)
    is_used = torch.isfinite(shift).all(1)
    first = int(is_used.int().argmax())
    in_frames, local = field_in_frames(seen - seen[first], field)
    return in_frames.float(), torch.where(is_used[:, None, None], local, 0.0).float()


def _global_shift_px(general: Mapping[str, Any], table: pd.DataFrame) -> Tensor:
    """[frame, 2], (y, x), by the frames' numbers; NaN: not used."""
    values = [table["rlnMicrographShiftY"], table["rlnMicrographShiftX"]]
    shifts = torch.tensor([[float(v) for v in column] for column in values]).T
    numbers = list(range(1, len(shifts) + 1))
    if "rlnMicrographFrameNumber" in table:
        numbers = [int(number) for number in table["rlnMicrographFrameNumber"]]
    frames = int(general.get("rlnImageSizeZ", max(numbers, default=0)))
    if len(set(numbers)) < len(numbers) or not all(1 <= number <= frames for number in numbers):
        raise BadInputError(
            f"RELION's motion tables number their frames {min(numbers)} to {max(numbers)}, each"
            f" once or more, of {frames}; give the STAR file as RELION wrote it"
        )
    in_file = torch.full((frames, 2), torch.nan, dtype=torch.float64)
    in_file[[number - 1 for number in numbers]] = shifts.double()
    if not bool(torch.isfinite(shifts).all()):
        raise BadInputError(
            "RELION's motion tables hold shifts that are not finite; run its motion correction"
            " again"
        )
    in_file[(in_file == NOT_OBSERVED).any(1)] = torch.nan
    largest = max(int(general["rlnImageSizeY"]), int(general["rlnImageSizeX"]))
    if bool((in_file.abs() >= largest).any()):
        raise BadInputError(
            f"RELION's motion tables move frames by {float(in_file.nan_to_num().abs().max()):.0f}"
            f" pixels, beyond a field of {largest}; run its motion correction again"
        )
    if bool(in_file.isnan().any(1).all()):
        raise BadInputError(
            "RELION's motion tables have the motion of no frame (all are -9999, not observed); run"
            " its motion correction again"
        )
    return in_file


def _has_local_model(general: Mapping[str, Any]) -> bool:
    version = int(general["rlnMotionModelVersion"])
    if version not in (0, 1):
        raise BadInputError(
            f"RELION's motion model is of version {version}; versions 0 and 1 can be read"
        )
    return version == 1


def _coefficients(table: pd.DataFrame) -> Tensor:
    """RELION's coefficients in the order of their numbers."""
    values = torch.tensor([float(value) for value in table["rlnMotionModelCoeff"]])
    numbers = [int(number) for number in table["rlnMotionModelCoeffsIdx"]]
    if sorted(numbers) != list(range(_COEFFICIENTS)) or not bool(torch.isfinite(values).all()):
        raise BadInputError(
            f"RELION's motion model has {len(values)} coefficients, {_COEFFICIENTS} finite ones"
            " are needed; give the STAR file as RELION wrote it"
        )
    flat = torch.empty(_COEFFICIENTS, dtype=torch.float64)
    flat[numbers] = values.double()
    return flat


def _pixels_of_model(flat: Tensor, start: int, tables: Mapping[str, Any]) -> float:
    """Pixels of the movie in what the local model counts in: one, or the binning."""
    general = tables["general"]
    binning = float(general.get("rlnMicrographBinning", 1.0))
    measured = tables.get("local_shift")
    if binning == 1 or measured is None or len(measured) == 0:
        return 1.0
    columns = ("rlnMicrographShiftY", "rlnMicrographShiftX")
    shifts = torch.tensor(measured[list(columns)].to_numpy(float))
    x = torch.tensor(measured["rlnCoordinateX"].to_numpy(float)) / int(general["rlnImageSizeX"])
    y = torch.tensor(measured["rlnCoordinateY"].to_numpy(float)) / int(general["rlnImageSizeY"])
    # RELION fits to the middles of frames, half a frame after their beginnings.
    z = torch.tensor(measured["rlnMicrographFrameNumber"].to_numpy(float)) - start + 0.5
    fitted = _model_at(flat, z, y - 0.5, x - 0.5)

    def misfit(scale: float) -> float:
        return float((shifts - scale * fitted).square().sum())

    return min((1.0, binning), key=misfit)


def _model_at(flat: Tensor, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """RELION's model at places, [place, 2], (y, x)."""
    model = flat.reshape(2, 6, 3).flip(0)
    terms = torch.stack((torch.ones_like(x), x, x * x, y, y * y, x * y), 1)
    powers = z[:, None] ** torch.arange(1, 4)
    return torch.einsum("atz,pt,pz->pa", model, terms, powers)


def _our_courses(flat: Tensor, shape: Shape, z: Tensor) -> Tensor:
    """RELION's local model as coefficients of our terms and the constant, [frame, axis, 6], at
    frames `z`.
    """
    model = flat.reshape(2, 6, 3).flip(0)  # [axis, term, power], y first
    by_term = model.transpose(0, 1).flatten(1)
    terms = _ours_in_relion_terms(shape, with_constant=True)
    solution = torch.linalg.lstsq(terms, by_term).solution
    ours = solution.reshape(6, 2, 3)
    powers = z[:, None] ** torch.arange(1, 4)
    return torch.einsum("kaz,fz->fak", ours, powers)


def _ours_in_relion_terms(shape: Shape, with_constant: bool = False) -> Tensor:
    """[6, 5]: each of our terms as coefficients of RELION's 1, x, x^2, y, y^2, x y; or [6, 6], the
    constant 1 the last.
    """
    height, width = shape
    # Ours in RELION's coordinates: x = a + b x_r. Pixel i lies at 2 i / (n - 1) - 1 and at i / n -
    # 1/2.
    b_y = 2 * height / (height - 1)
    b_x = 2 * width / (width - 1)
    a_y = 1 / (height - 1)
    a_x = 1 / (width - 1)
    third = 1 / 3
    columns = [
        [a_x, b_x, 0, 0, 0, 0],
        [a_y, 0, 0, b_y, 0, 0],
        [a_x * a_x - third, 2 * a_x * b_x, b_x * b_x, 0, 0, 0],
        [a_y * a_y - third, 0, 0, 2 * a_y * b_y, b_y * b_y, 0],
        [a_x * a_y, a_y * b_x, 0, a_x * b_y, 0, b_x * b_y],
        [1, 0, 0, 0, 0, 0],
    ]
    if not with_constant:
        del columns[5]
    return torch.tensor(columns, dtype=torch.float64).T
