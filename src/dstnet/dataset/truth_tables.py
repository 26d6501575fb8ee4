"""What is known of a simulated movie besides images, as RELION's tables and as plain numbers."""

import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dstnet.core.shapes import Trajectory
from dstnet.motion import Motion
from dstnet.simulation import Particle, SimulationSettings, Truth

LOCAL_BASIS = (
    "per frame, for y then x: x, y, x^2 - 1/3, y^2 - 1/3, x y; x and y from -1 to 1 over the field"
)


def motion_values(truth: Truth) -> dict[str, Any]:
    """The true motion as plain numbers that JSON holds; `motion_of` reads them back."""
    return {
        "global_shift_angstrom_yx": truth.motion.global_shift_angstrom.tolist(),
        "parts_angstrom_yx": {
            name: part.tolist() for name, part in truth.motion_parts_angstrom.items()
        },
        "local_coefficients_angstrom": truth.motion.local_coefficients_angstrom.tolist(),
        "local_basis": LOCAL_BASIS,
        "height_drift_angstrom": truth.height_drift_angstrom.tolist(),
    }


def motion_of(values: dict[str, Any]) -> Motion:
    """The motion among what `motion_values` wrote.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the values are others.
    """
    return Motion(
        torch.tensor(values["global_shift_angstrom_yx"], dtype=torch.float32),
        torch.tensor(values["local_coefficients_angstrom"], dtype=torch.float32),
    )


def motion_parts_of(values: dict[str, Any]) -> dict[str, Trajectory]:
    """What the global shift is the sum of, by name, among what `motion_values` wrote.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the values are others.
    """
    parts = values["parts_angstrom_yx"].items()
    return {name: torch.tensor(part, dtype=torch.float64) for name, part in parts}


def euler_angles_deg(rotation: Tensor) -> tuple[float, float, float]:
    """RELION's rot, tilt, psi of a rotation r' = R r of a structure: R = Rz(psi) Ry(tilt) Rz(rot),
    each turning axes, not points.
    """
    r = rotation.double().tolist()
    # Not by acos, which loses half the digits near 0 and 180 degrees.
    tilt = math.atan2(math.hypot(r[2][0], r[2][1]), r[2][2])
    # Only the sum (or difference) of rot and psi is defined there.
    if abs(math.sin(tilt)) < 1e-6:
        upright = r[0][0] if r[2][2] > 0 else -r[0][0]
        rot = math.atan2(-r[1][0], upright)
        return math.degrees(rot), math.degrees(tilt), 0.0
    rot = math.atan2(r[2][1], r[2][0])
    psi = math.atan2(r[1][2], -r[0][2])
    return math.degrees(rot), math.degrees(tilt), math.degrees(psi)


def optics_table(settings: SimulationSettings) -> pd.DataFrame:
    """RELION's table of optics groups, of one row."""
    optics = settings.optics
    return pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnMicrographPixelSize": [settings.pixel_size_angstrom],
            "rlnVoltage": [optics.voltage_kv],
            "rlnSphericalAberration": [optics.cs_mm],
            "rlnAmplitudeContrast": [optics.amplitude_contrast],
            "rlnBeamTiltX": [optics.beam_tilt_x_mrad],
            "rlnBeamTiltY": [optics.beam_tilt_y_mrad],
        }
    )


def ctf_table(settings: SimulationSettings, movie: str) -> pd.DataFrame:
    """RELION's table of a movie's CTF, of one row.

    Parameters
    ----------
    settings
        Of the movie.
    movie
        What the table calls it.
    """
    return pd.DataFrame([{"rlnMicrographName": movie, **_defocus(settings)}])


def particle_table(
    settings: SimulationSettings, particles: tuple[Particle, ...], movie: str
) -> pd.DataFrame:
    """RELION's table of a movie's particles, a row each in their order.

    Parameters
    ----------
    settings, particles
        Of the movie.
    movie
        What the table calls it.
    """
    rows = [_particle_row(settings, particle, movie) for particle in particles]
    if not rows:
        columns = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"]
        return pd.DataFrame(rows, columns=columns)
    return pd.DataFrame(rows)


def _particle_row(settings: SimulationSettings, particle: Particle, movie: str) -> dict[str, Any]:
    pixel = settings.pixel_size_angstrom
    rot, tilt, psi = euler_angles_deg(particle.rotation)
    return {
        "rlnMicrographName": movie,
        "rlnCoordinateX": particle.x_angstrom / pixel,
        "rlnCoordinateY": particle.y_angstrom / pixel,
        "rlnAngleRot": rot,
        "rlnAngleTilt": tilt,
        "rlnAnglePsi": psi,
        **_defocus(settings, particle.height_angstrom),
        "dstnetSpecies": particle.species,
        "dstnetHeight": particle.height_angstrom,
    }


def _defocus(settings: SimulationSettings, height_angstrom: float = 0.0) -> dict[str, float]:
    optics = settings.optics
    defocus = optics.defocus_angstrom - height_angstrom
    return {
        "rlnDefocusU": defocus + optics.astigmatism_angstrom / 2,
        "rlnDefocusV": defocus - optics.astigmatism_angstrom / 2,
        "rlnDefocusAngle": optics.astigmatism_angle_deg,
        "rlnPhaseShift": optics.phase_plate_deg,
        "rlnOpticsGroup": 1,
    }
