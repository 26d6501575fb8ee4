"""A shot on disk: the movie, and its truths in a folder of their own that nothing which enhances reads."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import starfile
from torch import Tensor

from dstnet.core.settings import Settings
from dstnet.io import atomic_path, ensure_writable_folder, write_mrc, write_tiff
from dstnet.simulation.shot import Shot


class MovieRecord(Settings):
    """How a written movie was made: enough to make it again."""

    name: str
    seed: int
    species: tuple[str, ...]
    version: str
    settings: dict


def write_shot(shot: Shot, folder: Path, record: MovieRecord) -> bool:
    """Write a shot as ``folder/movies/NAME.tif`` and ``folder/truth/NAME_*``; False where it was already whole.

    The truths: ``_phase.mrc`` (projected phase in rad), ``_clean.mrc`` (contrast after the CTF), ``_motion.json`` (global and local),
    ``_particles.star`` (RELION table), and last ``_settings.yaml``, whose presence says that all the rest is whole.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    truth, name = folder / "truth", record.name
    last, movie = truth / f"{name}_settings.yaml", folder / "movies" / f"{name}.tif"
    if movie.is_file() and last.is_file() and last.read_text() == record.to_yaml():
        return False
    ensure_writable_folder(folder / "movies")
    ensure_writable_folder(truth)
    last.unlink(missing_ok=True)  # from here on the old movie is not whole any more
    pixel = shot.settings.pixel_size_angstrom
    counting = shot.settings.detector.mode == "counting"
    write_tiff(movie, (_stored(frame, counting) for frame in shot.frames()), pixel)
    write_mrc(truth / f"{name}_phase.mrc", shot.truth.phase.numpy(), pixel, "dstnet truth: projected phase, rad")
    write_mrc(truth / f"{name}_clean.mrc", shot.truth.clean.numpy(), pixel, "dstnet truth: contrast after the CTF, no noise")
    with atomic_path(truth / f"{name}_motion.json") as path:
        motion = {
            "global_shift_angstrom_yx": shot.truth.global_shift_angstrom.tolist(),
            "local_coefficients_angstrom": shot.truth.local_coefficients_angstrom.tolist(),
            "local_basis": "per frame, for y then x: x, y, x^2 - 1/3, y^2 - 1/3, x y; x and y from -1 to 1 over the field",
        }
        path.write_text(json.dumps(motion) + "\n")
    with atomic_path(truth / f"{name}_particles.star") as path:
        starfile.write({"optics": _optics(shot), "particles": _particles(shot, name)}, path)
    with atomic_path(last) as path:
        path.write_text(record.to_yaml())
    return True


def _stored(frame: Tensor, counting: bool) -> np.ndarray:
    """Counts as the smallest integers that hold them in any movie of this kind; an integrating camera's values as they are."""
    return frame.numpy().astype(np.uint16) if counting else frame.numpy()


def euler_angles_deg(rotation: Tensor) -> tuple[float, float, float]:
    """RELION's rot, tilt, psi of a rotation r' = R r of a structure: R = Rz(psi) Ry(tilt) Rz(rot), each turning axes, not points."""
    r = rotation.double().tolist()
    tilt = math.atan2(math.hypot(r[2][0], r[2][1]), r[2][2])  # not acos, which loses half the digits near 0 and 180
    if abs(math.sin(tilt)) < 1e-6:  # only the sum (or difference) of rot and psi is defined
        rot = math.atan2(-r[1][0], r[0][0] if r[2][2] > 0 else -r[0][0])
        return math.degrees(rot), math.degrees(tilt), 0.0
    rot, psi = math.atan2(r[2][1], r[2][0]), math.atan2(r[1][2], -r[0][2])
    return math.degrees(rot), math.degrees(tilt), math.degrees(psi)


def _optics(shot: Shot) -> pd.DataFrame:
    optics = shot.settings.optics
    return pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnMicrographPixelSize": [shot.settings.pixel_size_angstrom],
            "rlnVoltage": [optics.voltage_kv],
            "rlnSphericalAberration": [optics.cs_mm],
            "rlnAmplitudeContrast": [optics.amplitude_contrast],
        }
    )


def _particles(shot: Shot, name: str) -> pd.DataFrame:
    pixel, optics = shot.settings.pixel_size_angstrom, shot.settings.optics
    rows = []
    for p in shot.truth.particles:
        rot, tilt, psi = euler_angles_deg(p.rotation)
        defocus = optics.defocus_angstrom - p.height_angstrom
        rows.append(
            {
                "rlnMicrographName": f"movies/{name}.tif",
                "rlnCoordinateX": p.x_angstrom / pixel,
                "rlnCoordinateY": p.y_angstrom / pixel,
                "rlnAngleRot": rot,
                "rlnAngleTilt": tilt,
                "rlnAnglePsi": psi,
                "rlnDefocusU": defocus + optics.astigmatism_angstrom / 2,
                "rlnDefocusV": defocus - optics.astigmatism_angstrom / 2,
                "rlnDefocusAngle": optics.astigmatism_angle_deg,
                "rlnOpticsGroup": 1,
                "dstnetSpecies": p.species,
                "dstnetHeight": p.height_angstrom,
            }
        )
    return pd.DataFrame(rows, columns=None if rows else ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"])
