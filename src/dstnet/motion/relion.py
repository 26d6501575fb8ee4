"""Motion in RELION's form: the tables of a motion-corrected movie's STAR file (RELION 3.1 and
later).

RELION's shift of a frame is what it applies to bring the frame back onto the first one: s_t(x) =
u_0(x) - u_t(x), in pixels of the movie. It is a shift per frame (``global_shift``) plus a
polynomial (``local_motion_model``) of 18 coefficients per axis, x first: those of (z, z^2, z^3)
times (1, x, x^2, y, y^2, x y), z fastest. Frames are counted by z from the first, x is column /
width - 1/2 and y is row / height - 1/2. Rows are counted as RELION does: from the first stored row
of an MRC file, from the last one of a TIFF file.

RELION takes a local shift where the content lies in the sum, we where it lies in the frame. The two
differ by the shift times its own slope, some thousandths of it.

References
----------
Zheng et al., Nat. Methods 14, 331 (2017), for the model; signs, order and reference are proved
against the program itself in the tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dstnet.core.shapes import Shape, Stack, Trajectory
from dstnet.errors import BadInputError
from dstnet.motion.local_field import cubic_courses

_COEFFICIENTS = 36


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
        Of one frame.
    pre_exposure_e_per_a2
        Before the first frame.
    voltage_kv
        Acceleration voltage.
    """

    shape: Shape
    pixel_size_angstrom: float
    movie_name: str
    exposure_e_per_a2: float
    pre_exposure_e_per_a2: float = 0.0
    voltage_kv: float = 300.0


def to_relion(
    global_shift_angstrom: Trajectory, local_coefficients_angstrom: Stack, movie: RelionMovie
) -> dict[str, Any]:
    """Motion as the tables ``general`` (a dict), ``global_shift`` and ``local_motion_model``
    (DataFrames), ready for `starfile`.

    Write them with nine digits (``float_format="%.9g"``): coefficients of z^3 are small, and six
    decimals would be 0.01 pixels off.

    Local courses that are no cubic polynomials of the frame number are brought to the nearest that
    are (`cubic_courses`).

    Parameters
    ----------
    global_shift_angstrom
        [frame, 2], (y, x).
    local_coefficients_angstrom
        [frame, 2, 5], as in `Motion`.
    movie
        What has so moved.
    """
    height, width = movie.shape
    frames = len(global_shift_angstrom)
    from_first = global_shift_angstrom[0] - global_shift_angstrom
    shift_px = from_first.double().cpu() / movie.pixel_size_angstrom
    shift_px = shift_px + 0.0  # no -0
    model = _relion_model(local_coefficients_angstrom, movie)
    general = {
        "rlnImageSizeX": width,
        "rlnImageSizeY": height,
        "rlnImageSizeZ": frames,
        "rlnMicrographMovieName": movie.movie_name,
        "rlnMicrographBinning": 1.0,
        "rlnMicrographOriginalPixelSize": movie.pixel_size_angstrom,
        "rlnMicrographDoseRate": movie.exposure_e_per_a2,
        "rlnMicrographPreExposure": movie.pre_exposure_e_per_a2,
        "rlnVoltage": movie.voltage_kv,
        "rlnMicrographStartFrame": 1,
        "rlnMotionModelVersion": 1,
    }
    global_shift = {
        "rlnMicrographFrameNumber": range(1, frames + 1),
        "rlnMicrographShiftX": shift_px[:, 1].numpy(),
        "rlnMicrographShiftY": shift_px[:, 0].numpy(),
    }
    local_model = {
        "rlnMotionModelCoeffsIdx": range(_COEFFICIENTS),
        "rlnMotionModelCoeff": model.flip(0).flatten().numpy(),  # x first
    }
    return {
        "general": general,
        "global_shift": pd.DataFrame(global_shift),
        "local_motion_model": pd.DataFrame(local_model),
    }


def _relion_model(local_coefficients_angstrom: Stack, movie: RelionMovie) -> Tensor:
    """RELION's coefficients [axis, term, power], y first."""
    courses = cubic_courses(local_coefficients_angstrom.cpu()).double()
    courses_px = (courses[0] - courses) / movie.pixel_size_angstrom
    frames = len(courses)
    last = max(frames - 1, 1)
    z = torch.arange(frames, dtype=torch.float64)
    # Fitted over 0 to 1, where powers are of one order; then stretched to frame numbers.
    powers = (z[:, None] / last) ** torch.arange(1, 4)
    stretch = float(last) ** -torch.arange(1, 4, dtype=torch.float64)
    fitted = torch.einsum("zf,fak->akz", torch.linalg.pinv(powers), courses_px)
    terms = _ours_in_relion_terms(movie.shape)
    return torch.einsum("rk,akz->arz", terms, fitted * stretch)


def from_relion(tables: Mapping[str, Any]) -> tuple[Trajectory, Stack]:
    """Motion from the tables that `starfile.read` finds in RELION's STAR file of one movie.

    Returns
    -------
    global_shift_angstrom
        [frame, 2], (y, x), mean over frames zero. What RELION's local model shifts the field by on
        the whole is in here.
    local_coefficients_angstrom
        [frame, 2, 5], mean over frames zero; zero where there is no local model.

    Raises
    ------
    BadInputError
        If a table or column is missing, or the local model is of a version other than 0 (none) and
        1.
    """
    try:
        general = tables["general"]
        table = tables["global_shift"]
        height = int(general["rlnImageSizeY"])
        width = int(general["rlnImageSizeX"])
        pixel = float(general["rlnMicrographOriginalPixelSize"])
        version = int(general["rlnMotionModelVersion"])
        start = int(general.get("rlnMicrographStartFrame", 1))
        shift_y = [float(value) for value in table["rlnMicrographShiftY"]]
        shift_x = [float(value) for value in table["rlnMicrographShiftX"]]
        flat = [0.0] * _COEFFICIENTS
        if version != 0:
            column = tables["local_motion_model"]["rlnMotionModelCoeff"]
            flat = [float(value) for value in column]
    except KeyError as error:
        raise BadInputError(
            f"no {error.args[0]} in RELION's motion tables; give the STAR file that it writes for"
            " each movie"
        ) from None
    if version not in (0, 1) or len(flat) != _COEFFICIENTS:
        raise BadInputError(
            f"RELION's motion model is of version {version} with {len(flat)} coefficients; versions"
            " 0 and 1 (36) can be read"
        )
    shift = torch.tensor([shift_y, shift_x], dtype=torch.float64).T
    z = torch.arange(len(shift), dtype=torch.float64) - (start - 1)
    courses = _our_courses(flat, (height, width), z)
    shift = (shift + courses[:, :, 5]) * -pixel
    local = courses[:, :, :5] * -pixel
    shift = shift - shift.mean(0)
    local = local - local.mean(0)
    return shift.float(), local.float()


def _our_courses(flat: list[float], shape: Shape, z: Tensor) -> Tensor:
    """RELION's local model as coefficients of our terms and the constant, [frame, axis, 6], at
    frames `z`.
    """
    coefficients = torch.tensor(flat, dtype=torch.float64)
    model = coefficients.reshape(2, 6, 3).flip(0)  # [axis, term, power], y first
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
