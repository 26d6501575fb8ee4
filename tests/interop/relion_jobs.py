"""RELION's programs as the tests of interoperation run them: its own motion correction, and Polish
with all that it wants to have, of a specimen of round blobs.
"""

import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import starfile
from oracles import relion

from dstnet.io import write_mrc

BLOB_SIGMA_PX = 5.0
BOX = 48
STEP = 64  # between particles


def run(program: str, arguments: str, folder: Path) -> str:
    """Run a program in a folder; what it printed."""
    done = subprocess.run(
        [relion(program), *arguments.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=250,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, (done.returncode, printed[-3000:])
    return printed


def places(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Centres (y, x) of the blobs in a field, in whole pixels."""
    rows = range(STEP, shape[0] - STEP // 2, STEP)
    columns = range(STEP, shape[1] - STEP // 2, STEP)
    return [(y, x) for y in rows for x in columns]


def blob(shape: tuple[int, int], row: int, column: int) -> np.ndarray:
    """A blob of depth 1 in a field [y, x]."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    square = (y - row) ** 2 + (x - column) ** 2
    return np.exp(-square / (2 * BLOB_SIGMA_PX**2))


def specimen(shape: tuple[int, int], depth: float = 0.6) -> np.ndarray:
    """Transmission [y, x] of a field of blobs."""
    return 1 - depth * sum(blob(shape, row, column) for row, column in places(shape))


def moved(shape: tuple[int, int], frames: int, step: tuple[int, int]) -> np.ndarray:
    """The field in each frame, [frame, y, x]; from frame to frame it moves by `step` (y, x)."""
    still = specimen(shape)
    shifts = [(frame * step[0], frame * step[1]) for frame in range(frames)]
    return np.stack([np.roll(still, shift, (0, 1)) for shift in shifts])


def write_movies_star(
    folder: Path, movies: list[str], pixel: float, voltage: float | None = 300.0
) -> None:
    """``movies.star``, as RELION's import writes it."""
    optics = {
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnOpticsGroup": [1],
        "rlnMicrographOriginalPixelSize": [pixel],
        "rlnVoltage": [voltage],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
    }
    table = {"rlnMicrographMovieName": movies, "rlnOpticsGroup": [1] * len(movies)}
    if voltage is None:
        del optics["rlnVoltage"]
    starfile.write(
        {"optics": pd.DataFrame(optics), "movies": pd.DataFrame(table)}, folder / "movies.star"
    )


def motion_correction(folder: Path, output: str, arguments: str = "") -> Path:
    """RELION's own motion correction of ``movies.star``, of the whole field; its table."""
    # A B-factor for signal that reaches as far as that of blobs.
    run(
        "relion_run_motioncorr",
        f"--use_own --j 1 --i movies.star --o {output}/ --patch_x 1 --patch_y 1 --bfactor 1500"
        f" --dose_per_frame 1 {arguments}",
        folder,
    )
    return folder / output / "corrected_micrographs.star"


def _write_references(folder: Path, pixel: float) -> None:
    """Two half maps of a blob, their mask and their FSC, as a refinement leaves them."""
    z, y, x = np.indices((BOX, BOX, BOX)) - BOX // 2
    blob = np.exp(-(x**2 + y**2 + z**2) / (2 * BLOB_SIGMA_PX**2)).astype(np.float32)
    noise = np.random.default_rng(0)
    for half in (1, 2):
        grain = 0.01 * noise.standard_normal(blob.shape, np.float32)
        write_mrc(folder / f"half{half}.mrc", blob + grain, pixel, "half map")
    write_mrc(folder / "mask.mrc", (blob > 0.01).astype(np.float32), pixel, "mask")
    shells = np.arange(BOX // 2 + 1)
    correlation = np.where(shells < BOX // 3, 0.99, 0.2)
    fsc = {
        "rlnSpectralIndex": shells,
        "rlnResolution": shells / (BOX * pixel),
        "rlnAngstromResolution": BOX * pixel / np.maximum(shells, 0.1),
        "rlnFourierShellCorrelationCorrected": correlation,
        "rlnFourierShellCorrelationUnmaskedMaps": correlation,
        "rlnFourierShellCorrelationMaskedMaps": correlation,
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": 0.0 * correlation,
    }
    general = {
        "rlnFinalResolution": 4 * pixel,
        "rlnMaskName": str(folder / "mask.mrc"),
        "rlnUnfilteredMapHalf1": str(folder / "half1.mrc"),
        "rlnUnfilteredMapHalf2": str(folder / "half2.mrc"),
    }
    starfile.write({"general": general, "fsc": pd.DataFrame(fsc)}, folder / "postprocess.star")


def _write_weights(path: Path, frames: int) -> None:
    """The same weight for every frame and frequency: Polish's own fit is one to noise here."""
    weights = {
        "rlnMovieFrameNumber": range(frames),
        "rlnBfactorUsedForSharpening": [0.0] * frames,
        "rlnFittedInterceptGuinierPlot": [0.0] * frames,
    }
    starfile.write({"perframe_bfactors": pd.DataFrame(weights)}, path)


def _write_particles(
    path: Path, table: Path, centres: list[tuple[float, float]], pixel: float
) -> None:
    """A particle table of all micrographs of `table`; `centres` (y, x) are in their pixels."""
    names = starfile.read(table)["micrographs"]["rlnMicrographName"]
    rows = []
    for name in names:
        for number, (y, x) in enumerate(centres, 1):
            rows.append(
                {
                    "rlnCoordinateX": x,
                    "rlnCoordinateY": y,
                    "rlnImageName": f"{number:06d}@particles.mrcs",
                    "rlnMicrographName": name,
                    "rlnOpticsGroup": 1,
                    "rlnDefocusU": 0.0,
                    "rlnDefocusV": 0.0,
                    "rlnDefocusAngle": 0.0,
                    "rlnRandomSubset": 1 + number % 2,
                    "rlnGroupNumber": 1,
                }
            )
    angles = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    particles = pd.DataFrame(rows).assign(**dict.fromkeys(angles, 0.0))
    optics = {
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnOpticsGroup": [1],
        "rlnMicrographOriginalPixelSize": [pixel],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [1.0],
        "rlnImagePixelSize": [pixel],
        "rlnImageSize": [BOX],
        "rlnImageDimensionality": [2],
    }
    starfile.write({"optics": pd.DataFrame(optics), "particles": particles}, path)


def polish(
    folder: Path,
    table: Path,
    centres: list[tuple[float, float]],
    pixel: float,
    frames: int,
    arguments: str = "",
) -> tuple[np.ndarray, str]:
    """Polished particles [particle, y, x] of all micrographs of a motion correction's table, and
    what Polish printed. `frames` is how many it uses.
    """
    job = folder / f"polish_{table.parent.name}"
    job.mkdir()
    _write_references(job, pixel)
    _write_weights(job / "weights.star", frames)
    _write_particles(job / "particles.star", table, centres, pixel)
    printed = run(
        "relion_motion_refine",
        f"--i {job}/particles.star --f {job}/postprocess.star --corr_mic {table} --o {job}/"
        f" --combine_frames --s_vel 0.5 --s_div 5000 --s_acc 2 --j 1 --debug_mov"
        f" --bfactors {job}/weights.star {arguments}",
        folder,
    )
    stacks = [mrcfile.read(path) for path in sorted(job.rglob("*shiny.mrcs"))]
    return np.concatenate(stacks), printed


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of all values."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
