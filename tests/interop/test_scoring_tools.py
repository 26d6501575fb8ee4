"""Scores of independent programs, to three digits: those that lie beside the test data."""

import importlib.util
import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from scipy import ndimage

from dstnet.metrics.halves import shell_correlation
from dstnet.metrics.image import moved_truth, residual_energy
from dstnet.metrics.picking import TOLERANCE, average_precision
from dstnet.metrics.rings import compared, correlation_area
from dstnet.picking import pick_blobs

pytestmark = pytest.mark.oracle


@pytest.fixture
def tool(data_folder):
    """Gives a program of ../shared/tools as a module, or skips aloud."""

    def load(name):
        path = data_folder.parent / "tools" / f"{name}.py"
        if not path.is_file():
            pytest.skip(f"no program at {path}")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def read(path: Path) -> np.ndarray:
    return np.squeeze(mrcfile.read(path)).astype(float)


def test_micrograph_score(tool, tmp_path):
    random = np.random.default_rng(0)
    clean = ndimage.gaussian_filter(random.standard_normal((400, 400)), 3)
    clean /= clean.std()
    image = np.roll(clean, (3, -5), (0, 1)) + 2 * random.standard_normal(clean.shape)
    np.savez(tmp_path / "truth.npz", clean=clean, meta=json.dumps({"apix": 1.06}))
    expected = tool("micrograph_score").score(image, tmp_path / "truth.npz")
    found = torch.from_numpy(image)
    moved = moved_truth(found, torch.from_numpy(clean))
    inside = (slice(48, -48), slice(48, -48))
    rings = compared(found[inside], moved[inside], 1.06)
    assert residual_energy(found[inside], moved[inside]) == pytest.approx(
        expected["residual"], abs=5e-4
    )
    assert correlation_area(rings) == pytest.approx(expected["frc_area_to_4A"], abs=5e-4)


@pytest.mark.parametrize("folder", ["ribosome", "trpv1"])
def test_picking_scores(tool, data_folder, folder):
    fields = data_folder / "real" / folder
    table = sorted(fields.glob("*_picks.csv"))[0]
    centres = np.loadtxt(table, delimiter=",", skiprows=1)[:, ::-1]
    field = table.with_name(table.name.replace("_picks.csv", ".mrc"))
    with mrcfile.open(field) as file:
        pixel = float(file.voxel_size.x)
    diameter = json.loads((fields / "set.json").read_text())["diameter_angstrom"] / pixel
    image = read(field)
    expected = tool("picking_scores").average_precision(image, centres, diameter)
    picks = pick_blobs(torch.from_numpy(image), diameter)
    searched = centres[picks.searched(centres)]
    found = average_precision(picks.centres_px, searched, TOLERANCE * diameter)
    assert found == pytest.approx(expected, abs=5e-4)


def test_apoferritin_scores(tool, data_folder):
    """Shells of what is independent; average precision of the picks of both of its pickers."""
    program = tool("apoferritin_scores")
    fields = program.fields(str(data_folder / "real" / "apoferritin"))
    _, _, frame, rest, centres = next(field for field in fields if field[-1] is not None)
    found = shell_correlation(torch.from_numpy(rest), torch.from_numpy(frame), program.APIX)
    assert found == pytest.approx(program.shells(rest, frame), abs=5e-4)

    diameter, edge = 122.0 / program.APIX, 30
    flat = rest - ndimage.gaussian_filter(rest, 60)
    flat = np.clip(flat / flat.std(), -6, 6)
    size = np.array(rest.shape)
    searched = centres[((centres > edge) & (centres < size - edge)).all(1)]
    for picker in ("blob", "ring"):
        response = program.respond(flat, picker, 122.0)
        largest = ndimage.maximum_filter(response, int(diameter / 2 * 1.4))
        peaks = np.argwhere((response == largest) & (response > 0))
        peaks = peaks[((peaks > edge) & (peaks < size - edge)).all(1)]
        peaks = peaks[np.argsort(-response[tuple(peaks.T)])]
        precision = average_precision(peaks, searched, TOLERANCE * diameter)
        assert precision == pytest.approx(program.pick_ap(rest, centres, picker), abs=5e-4)
    # Ours bins, and takes out another background.
    picks = pick_blobs(torch.from_numpy(rest), diameter)
    precision = average_precision(
        picks.centres_px, centres[picks.searched(centres)], TOLERANCE * diameter
    )
    assert precision == pytest.approx(program.pick_ap(rest, centres, "blob"), abs=0.02)
