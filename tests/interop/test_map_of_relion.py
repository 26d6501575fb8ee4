"""A map from particles of known poses is that which RELION makes of them."""

import os
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import torch
from oracles import relion

from dstnet.core.randomness import stream
from dstnet.dataset.truth_tables import euler_angles_deg, optics_table
from dstnet.io import write_mrc
from dstnet.io.star import write_star
from dstnet.metrics.reconstruction import FourierVolume, Slice, shell_correlation, soft_ball
from dstnet.optics.ctf import OpticsSettings, contrast_transfer
from dstnet.potential import Projector, build_potential, random_rotation
from dstnet.simulation import SimulationSettings
from dstnet.structure import phantom

pytestmark = pytest.mark.oracle

PIXEL, BOX, COUNT = 5.0, 44, 120
OPTICS = OpticsSettings(b_factor_angstrom2=0, astigmatism_angstrom=800.0)
DEFOCI = (9000.0, 13000.0)


def test_our_map_is_that_of_relion(tmp_path: Path):
    program = relion("relion_reconstruct")
    potential = build_potential(phantom(25), PIXEL)
    projector = Projector(potential, 300.0)
    poses = stream(2, "poses")
    random = np.random.default_rng(2)
    start = BOX // 2 - projector.size // 2
    inside = slice(start, start + projector.size)
    ours = FourierVolume(BOX)
    stack, rows = [], []
    for number in range(COUNT):
        rotation = random_rotation(poses)
        phase = torch.zeros(BOX, BOX)
        phase[inside, inside] = projector.phase(rotation)
        defocus = DEFOCI[number % 2]
        transfer = contrast_transfer((BOX, BOX), PIXEL, OPTICS, defocus)
        # The origin at pixel [0, 0] for the transform, and back.
        image = torch.fft.irfft2(torch.fft.rfft2(phase) * transfer, s=(BOX, BOX)).numpy()
        image += random.normal(size=image.shape).astype(np.float32) * 0.01
        kept = Slice(BOX).kept
        ours.insert(Slice(BOX).terms(image), transfer.numpy()[kept], rotation.numpy())
        stack.append(image.astype(np.float32))
        rot, tilt, psi = euler_angles_deg(rotation)
        rows.append(
            {
                "rlnImageName": f"{number + 1:06d}@particles.mrcs",
                "rlnAngleRot": rot,
                "rlnAngleTilt": tilt,
                "rlnAnglePsi": psi,
                "rlnDefocusU": defocus + OPTICS.astigmatism_angstrom / 2,
                "rlnDefocusV": defocus - OPTICS.astigmatism_angstrom / 2,
                "rlnDefocusAngle": OPTICS.astigmatism_angle_deg,
                "rlnPhaseShift": 0.0,
                "rlnOpticsGroup": 1,
            }
        )
    write_mrc(tmp_path / "particles.mrcs", stack, PIXEL, "particles", stack=True)
    settings = SimulationSettings(pixel_size_angstrom=PIXEL, optics=OPTICS)
    optics = optics_table(settings).assign(
        rlnImagePixelSize=PIXEL, rlnImageSize=BOX, rlnImageDimensionality=2
    )
    tables = {"optics": optics, "particles": pd.DataFrame(rows)}
    write_star(tmp_path / "particles.star", tables, float_format="%.9g")
    subprocess.run(
        [program, "--i", "particles.star", "--o", "map.mrc", "--ctf"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    with mrcfile.open(tmp_path / "map.mrc") as file:
        theirs = np.array(file.data)
    ball = soft_ball(BOX, 11.0, 3.0)
    # RELION takes the opposite sign: its particles are bright where the transfer's first is.
    volume = ours.volume() * ball
    together = shell_correlation(volume, theirs * ball)
    sign = np.sign(together[2])
    margin = BOX // 2 - len(potential.volume) // 2
    truth = np.pad(potential.volume, (margin, BOX - len(potential.volume) - margin))
    mine = shell_correlation(volume, truth)
    other = sign * shell_correlation(theirs * ball, truth)
    print(np.round(together * sign, 3), np.round(mine, 3), np.round(other, 3), sep="\n")
    assert (together * sign)[1 : int(0.8 * BOX / 2)].min() > 0.95
    assert mine[3:].mean() > other[3:].mean() - 0.01
