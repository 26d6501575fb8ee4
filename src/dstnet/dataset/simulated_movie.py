"""A shot on disk: the movie, and its truths in a folder of their own that nothing which enhances
reads.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from torch import Tensor

from dstnet.core.settings import Settings
from dstnet.detector.camera import Camera
from dstnet.io import atomic_path, ensure_writable_folder, write_mrc, write_tiff
from dstnet.io.star import write_star
from dstnet.motion.relion import to_relion
from dstnet.simulation.movie_simulator import MovieSimulator
from dstnet.specimen.species import SpeciesSettings

MovieFormat = Literal["tif", "mrc"]


class MovieRecord(Settings):
    """How a written movie was made: enough to make it again."""

    name: str
    seed: int
    species: tuple[str, ...]
    sources: tuple[str, ...] = Field(
        default=(), description="where each species comes from; files with a digest of their bytes"
    )
    species_settings: SpeciesSettings = SpeciesSettings()
    version: str
    settings: dict


def movie_path(folder: Path, name: str, movie_format: MovieFormat = "tif") -> Path:
    """Where `write_shot` puts a movie."""
    return folder / "movies" / f"{name}.{'tif' if movie_format == 'tif' else 'mrcs'}"


def record_path(folder: Path, name: str) -> Path:
    """Where `write_shot` puts a movie's record, last of all."""
    return folder / "truth" / f"{name}_settings.yaml"


def is_whole(
    folder: Path, record: MovieRecord, movie_format: MovieFormat = "tif", expected: bool = False
) -> bool:
    """Whether the movie of this record lies in `folder` with all its truths."""
    last = record_path(folder, record.name)
    wanted = [movie_path(folder, record.name, movie_format), last] + [
        last.with_name(f"{record.name}_expected.mrcs")
    ] * expected
    return all(path.is_file() for path in wanted) and last.read_text() == record.to_yaml()


def write_shot(
    shot: MovieSimulator,
    folder: Path,
    record: MovieRecord,
    movie_format: MovieFormat = "tif",
    expected: bool = False,
) -> bool:
    """Write a shot as ``folder/movies/NAME.tif`` (or ``.mrcs``) and ``folder/truth/NAME_*``; False
    where it was already whole.

    The truths are listed in the guide. ``_settings.yaml`` comes last: its presence says that all
    the rest is whole. With `expected`, the noise-free frames are written too (``_expected.mrcs``,
    as large as the movie in float32). A camera with a gain reference or defects has them in
    ``folder/camera``, shared by all movies taken with it.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    if is_whole(folder, record, movie_format, expected):
        return False
    truth, name = ensure_writable_folder(folder / "truth"), record.name
    movie = movie_path(folder, name, movie_format)
    ensure_writable_folder(movie.parent)
    last = record_path(folder, name)
    last.unlink(missing_ok=True)  # from here on the old movie is not whole any more
    pixel, camera = shot.settings.pixel_size_angstrom, shot.camera
    reference = _write_camera(camera, shot, folder)

    # MRC has no unsigned bytes
    dtype = (
        np.dtype(np.uint16) if movie_format == "mrc" and camera.dtype == np.uint8 else camera.dtype
    )
    frames = (frame.cpu().numpy().astype(dtype) for frame in shot.frames())
    if movie_format == "tif":
        write_tiff(movie, frames, pixel)
    else:
        write_mrc(movie, frames, pixel, "dstnet synthetic movie, counts", stack=True)
    if expected:
        noiseless = (frame.cpu().numpy() for frame in shot.expected_frames())
        write_mrc(
            truth / f"{name}_expected.mrcs",
            noiseless,
            pixel,
            "dstnet truth: expected electrons per pixel, no noise",
            stack=True,
        )
    known = shot.truth
    images = {
        "phase": (known.phase.numpy(), "projected phase of the particles, rad"),
        "clean": (known.clean.numpy(), "contrast of the particles after the CTF, no noise"),
        "ice": (
            shot.ice_phase().cpu().numpy(),
            "projected phase of ice, film, frost in the first frame, rad",
        ),
        "thickness": (known.thickness_angstrom.numpy(), "ice thickness, Angstrom"),
        "label": (
            known.label.numpy().astype(np.uint16),
            "which particle covers a pixel, row of the particle table from 1",
        ),
    }
    for what, (image, label) in images.items():
        write_mrc(truth / f"{name}_{what}.mrc", image, pixel, f"dstnet truth: {label}")
    with atomic_path(truth / f"{name}_motion.json") as path:
        path.write_text(json.dumps(_motion(shot)) + "\n")
    relative = movie.relative_to(folder).as_posix()
    motion = to_relion(
        known.global_shift_angstrom,
        known.local_coefficients_angstrom,
        shape=shot.settings.shape,
        pixel_size_angstrom=pixel,
        movie_name=relative,
        exposure_e_per_a2=shot.settings.exposure_e_per_a2,
        pre_exposure_e_per_a2=shot.settings.pre_exposure_e_per_a2,
        voltage_kv=shot.settings.optics.voltage_kv,
    )
    for what, blocks in {
        "motion": (
            motion
            | {
                "general": (
                    motion["general"] | ({"rlnMicrographGainName": reference} if reference else {})
                )
            }
        ),
        "ctf": {"optics": _optics(shot), "micrographs": _ctf(shot, relative)},
        "particles": {"optics": _optics(shot), "particles": _particles(shot, relative)},
    }.items():
        write_star(truth / f"{name}_{what}.star", blocks, float_format="%.9g")
    with atomic_path(last) as path:
        path.write_text(record.to_yaml())
    return True


def _write_camera(camera: Camera, shot: MovieSimulator, folder: Path) -> str | None:
    """The gain reference and the list of defects, named by a digest of the camera; the gain's name
    relative to `folder`.
    """
    if camera.gain is None and camera.defects is None:
        return None
    digest = hashlib.sha256(
        f"{shot.settings.detector.to_yaml()}{shot.settings.shape}".encode()
    ).hexdigest()[:8]
    place = ensure_writable_folder(folder / "camera")
    name = None
    if camera.gain is not None:
        path = place / f"gain_{digest}.mrc"
        name = path.relative_to(folder).as_posix()
        if not path.is_file():
            write_mrc(
                path,
                camera.gain.cpu().numpy(),
                shot.settings.pixel_size_angstrom,
                "dstnet gain reference: corrected = raw x gain",
            )
    if camera.defects is not None and not (path := place / f"defects_{digest}.txt").is_file():
        with atomic_path(path) as temporary:
            temporary.write_text(
                "".join(f"{x} {y} {w} {h}\n" for x, y, w, h in camera.defect_list())
            )
    return name


def _motion(shot: MovieSimulator) -> dict:
    known = shot.truth
    return {
        "global_shift_angstrom_yx": known.global_shift_angstrom.tolist(),
        "parts_angstrom_yx": {
            name: part.tolist() for name, part in known.motion_parts_angstrom.items()
        },
        "local_coefficients_angstrom": known.local_coefficients_angstrom.tolist(),
        "local_basis": (
            "per frame, for y then x: x, y, x^2 - 1/3, y^2 - 1/3, x y; x and y from -1 to 1 over"
            " the field"
        ),
        "height_drift_angstrom": known.height_drift_angstrom.tolist(),
    }


def euler_angles_deg(rotation: Tensor) -> tuple[float, float, float]:
    """RELION's rot, tilt, psi of a rotation r' = R r of a structure: R = Rz(psi) Ry(tilt) Rz(rot),
    each turning axes, not points.
    """
    r = rotation.double().tolist()
    tilt = math.atan2(
        math.hypot(r[2][0], r[2][1]), r[2][2]
    )  # not acos, which loses half the digits near 0 and 180
    if abs(math.sin(tilt)) < 1e-6:  # only the sum (or difference) of rot and psi is defined
        rot = math.atan2(-r[1][0], r[0][0] if r[2][2] > 0 else -r[0][0])
        return math.degrees(rot), math.degrees(tilt), 0.0
    rot, psi = math.atan2(r[2][1], r[2][0]), math.atan2(r[1][2], -r[0][2])
    return math.degrees(rot), math.degrees(tilt), math.degrees(psi)


def _optics(shot: MovieSimulator) -> pd.DataFrame:
    optics = shot.settings.optics
    return pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnMicrographPixelSize": [shot.settings.pixel_size_angstrom],
            "rlnVoltage": [optics.voltage_kv],
            "rlnSphericalAberration": [optics.cs_mm],
            "rlnAmplitudeContrast": [optics.amplitude_contrast],
            "rlnBeamTiltX": [optics.beam_tilt_x_mrad],
            "rlnBeamTiltY": [optics.beam_tilt_y_mrad],
        }
    )


def _defocus(shot: MovieSimulator, height_angstrom: float = 0.0) -> dict:
    optics = shot.settings.optics
    defocus = optics.defocus_angstrom - height_angstrom
    return {
        "rlnDefocusU": defocus + optics.astigmatism_angstrom / 2,
        "rlnDefocusV": defocus - optics.astigmatism_angstrom / 2,
        "rlnDefocusAngle": optics.astigmatism_angle_deg,
        "rlnPhaseShift": optics.phase_plate_deg,
        "rlnOpticsGroup": 1,
    }


def _ctf(shot: MovieSimulator, movie: str) -> pd.DataFrame:
    return pd.DataFrame([{"rlnMicrographName": movie} | _defocus(shot)])


def _particles(shot: MovieSimulator, movie: str) -> pd.DataFrame:
    pixel = shot.settings.pixel_size_angstrom
    rows = []
    for p in shot.truth.particles:
        rot, tilt, psi = euler_angles_deg(p.rotation)
        place = {
            "rlnMicrographName": movie,
            "rlnCoordinateX": p.x_angstrom / pixel,
            "rlnCoordinateY": p.y_angstrom / pixel,
            "rlnAngleRot": rot,
            "rlnAngleTilt": tilt,
            "rlnAnglePsi": psi,
        }
        rows.append(
            place
            | _defocus(shot, p.height_angstrom)
            | {
                "dstnetSpecies": p.species,
                "dstnetHeight": p.height_angstrom,
            }
        )
    return pd.DataFrame(
        rows, columns=None if rows else ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"]
    )
