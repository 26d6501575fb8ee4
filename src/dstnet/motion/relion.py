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
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dstnet.core.shapes import Stack, Trajectory
from dstnet.errors import BadInputError
from dstnet.motion.local_field import cubic_courses

_COEFFICIENTS = 36


def to_relion(
    global_shift_angstrom: Trajectory,
    local_coefficients_angstrom: Stack,
    *,
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    movie_name: str,
    exposure_e_per_a2: float,
    pre_exposure_e_per_a2: float = 0.0,
    voltage_kv: float = 300.0,
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
    shape
        (y, x) of a frame in pixels.
    movie_name
        Path of the movie file, as RELION is to find it.
    exposure_e_per_a2, pre_exposure_e_per_a2
        Of one frame, and before the first.
    """
    height, width = shape
    frames = len(global_shift_angstrom)
    shift = (global_shift_angstrom[0] - global_shift_angstrom).double().cpu()
    shift = shift / pixel_size_angstrom + 0.0  # no -0
    model = _relion_model(local_coefficients_angstrom, shape, pixel_size_angstrom)
    general = {
        "rlnImageSizeX": width,
        "rlnImageSizeY": height,
        "rlnImageSizeZ": frames,
        "rlnMicrographMovieName": movie_name,
        "rlnMicrographBinning": 1.0,
        "rlnMicrographOriginalPixelSize": pixel_size_angstrom,
        "rlnMicrographDoseRate": exposure_e_per_a2,
        "rlnMicrographPreExposure": pre_exposure_e_per_a2,
        "rlnVoltage": voltage_kv,
        "rlnMicrographStartFrame": 1,
        "rlnMotionModelVersion": 1,
    }
    global_shift = {
        "rlnMicrographFrameNumber": range(1, frames + 1),
        "rlnMicrographShiftX": shift[:, 1].numpy(),
        "rlnMicrographShiftY": shift[:, 0].numpy(),
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


def _relion_model(
    local_coefficients_angstrom: Stack, shape: tuple[int, int], pixel_size_angstrom: float
) -> Tensor:
    """RELION's coefficients [axis, term, power], y first."""
    courses = cubic_courses(local_coefficients_angstrom.cpu()).double()
    courses = (courses[0] - courses) / pixel_size_angstrom
    frames = len(courses)
    last = max(frames - 1, 1)
    z = torch.arange(frames, dtype=torch.float64)
    # Fitted over 0 to 1, where powers are of one order; then stretched to frame numbers.
    powers = (z[:, None] / last) ** torch.arange(1, 4)
    stretch = float(last) ** -torch.arange(1, 4, dtype=torch.float64)
    fitted = torch.einsum("zf,fak->akz", torch.linalg.pinv(powers), courses)
    return torch.einsum("rk,akz->arz", _ours_in_relion_terms(shape), fitted * stretch)


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
        shape = (int(general["rlnImageSizeY"]), int(general["rlnImageSizeX"]))
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
    courses = _our_courses(flat, shape, z)
    shift = (shift + courses[:, :, 5]) * -pixel
    local = courses[:, :, :5] * -pixel
    return (shift - shift.mean(0)).float(), (local - local.mean(0)).float()


def _our_courses(flat: list[float], shape: tuple[int, int], z: Tensor) -> Tensor:
    """RELION's local model as coefficients of our terms and the constant, [frame, axis, 6], at
    frames `z`.
    """
    model = torch.tensor(flat, dtype=torch.float64).reshape(2, 6, 3).flip(0)
    right = model.transpose(0, 1).flatten(1)
    terms = _ours_in_relion_terms(shape, with_constant=True)
    ours = torch.linalg.lstsq(terms, right).solution.reshape(6, 2, 3)
    powers = z[:, None] ** torch.arange(1, 4)
    return torch.einsum("kaz,fz->fak", ours, powers)


def _ours_in_relion_terms(shape: tuple[int, int], with_constant: bool = False) -> Tensor:
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
