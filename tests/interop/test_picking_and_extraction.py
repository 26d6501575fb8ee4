"""RELION goes on from the table of a run: its own programs pick particles in our sums and cut them
out.
"""

import os
import subprocess

import numpy as np
import pytest
import starfile
from oracles import relion
from tiny import dstnet

from dstnet.io import MrcFrames, open_movie, write_tiff
from dstnet.potential import Projector, build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import phantom

pytestmark = pytest.mark.oracle
PIXEL, BOX = 2.0, 128


@pytest.fixture(scope="module")
def shot():
    """A field that is not square, of six strong particles."""
    atoms = phantom(1)
    specimen = SpecimenSettings(coverage=0.2, contrast=2.0)
    settings = SimulationSettings(
        shape=(640, 512),
        pixel_size_angstrom=PIXEL,
        frames=8,
        exposure_e_per_a2=5.0,
        specimen=specimen,
    )
    return MovieSimulator(
        settings,
        [
            ProjectedSpecies(
                atoms.name,
                atoms.diameter_angstrom / 2,
                Projector(build_potential(atoms, PIXEL), 300.0),
            )
        ],
        1,
    )


def run(*command):
    """Run a program of RELION in the working folder; it writes into folders named as jobs."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_relion_picks_and_extracts_from_our_table(shot, tmp_path, capsys, monkeypatch):
    autopick, preprocess = relion("relion_autopick"), relion("relion_preprocess")
    monkeypatch.chdir(tmp_path)
    os.mkdir("Movies")
    write_tiff(tmp_path / "Movies" / "m.tif", shot.movie().stack().numpy().astype(np.uint16), PIXEL)
    arguments = (
        "--pixel-size",
        PIXEL,
        "--dose-per-frame",
        5,
        "--cs",
        2.7,
        "--amplitude-contrast",
        0.07,
    )
    code, _, err = dstnet(capsys, "align", "Movies/m.tif", "-o", "Aligned", *arguments)
    assert code == 0, err

    # Laplacian-of-Gaussian picking: needs no more than the diameter.
    log = ("--LoG", "--LoG_diam_min", 200, "--LoG_diam_max", 260, "--shrink", 0, "--lowpass", 20)
    run(autopick, "--i", "Aligned/micrographs.star", "--odir", "Pick/", "--pickname", "pick", *log)
    (found,) = (tmp_path / "Pick").rglob("*_pick.star")
    picks = starfile.read(found)[["rlnCoordinateY", "rlnCoordinateX"]].to_numpy()
    truth = np.array([(p.y_angstrom, p.x_angstrom) for p in shot.truth.particles]) / PIXEL
    # Those whose ring is not cut by the field's edge; a wrong order of rows or axes would miss them
    # all.
    inside = [t for t in truth if min(*t, *(np.array(shot.settings.shape) - t)) > BOX / 2]
    assert len(inside) >= 4
    for place in inside:
        assert np.hypot(*(picks - place).T).min() < 15, (place, picks)

    coordinates = ("--coord_dir", "Pick/", "--coord_suffix", "_pick.star")
    extract = (
        "--part_star",
        "particles.star",
        "--part_dir",
        "Extract/",
        "--extract",
        "--extract_size",
        BOX,
    )
    run(preprocess, "--i", "Aligned/micrographs.star", *coordinates, *extract)
    particles = starfile.read("particles.star")["particles"]
    assert len(particles) == len(picks)
    # What was cut out is our dose-weighted sum, row by row.
    first = particles.iloc[0]
    number, path = first["rlnImageName"].split("@")
    cut = np.asarray(MrcFrames(tmp_path / path)[int(number) - 1], np.float64)
    image = open_movie(tmp_path / first["rlnMicrographName"]).stack()[0].double().numpy()
    # RELION cuts off the digits behind a coordinate's point, which its picker leaves a little below
    # a whole number.
    y, x = int(first["rlnCoordinateY"]) - BOX // 2, int(first["rlnCoordinateX"]) - BOX // 2
    ours = image[y : y + BOX, x : x + BOX]
    assert np.corrcoef(cut.ravel(), ours.ravel())[0, 1] > 0.999
