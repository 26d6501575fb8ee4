"""The weights in the package show more of simulated particles than the best Gaussian does, which is
told the truth.
"""

import pytest
import torch

from dstnet.alignment import align
from dstnet.core.fourier import apply_transfer, radial_frequency
from dstnet.enhancement import EnhancementSettings, make_restorer
from dstnet.metrics.image import residual_after_best_shift
from dstnet.potential import Projector, build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import phantom


@pytest.fixture(scope="module")
def shot():
    base = SimulationSettings(
        shape=(256, 256),
        pixel_size_angstrom=2.0,
        frames=7,
        exposure_e_per_a2=4.0,
        specimen=SpecimenSettings(coverage=0.3, contrast=2.0),
    )
    settings = base.model_copy(
        update={"optics": base.optics.model_copy(update={"b_factor_angstrom2": 100.0})}
    )
    atoms = phantom(seed=4242)
    projector = Projector(
        build_potential(atoms, settings.pixel_size_angstrom), settings.optics.voltage_kv
    )
    return MovieSimulator(
        settings, [ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector)], seed=5
    )


def best_gaussian(image, truth):
    k = radial_frequency((image.shape[0], image.shape[1]))
    sigmas = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    return min(
        residual_after_best_shift(
            apply_transfer(image - image.mean(), torch.exp(-2 * (torch.pi * s * k) ** 2)), truth
        )
        for s in sigmas
    )


def enhanced(movie, settings, *outputs):
    """A movie aligned by default, and what the weights make of it."""
    restorer = make_restorer(settings)
    aligned = align(movie, settings.alignment, groupings=[restorer.needs(movie).grouping])
    return aligned, restorer(aligned, outputs=("micrograph", *outputs))


def test_a_movie(shot):
    aligned, restored = enhanced(shot.movie("movie"), EnhancementSettings(), "contrast")
    assert residual_after_best_shift(restored.micrograph, shot.truth.clean) < 0.8 * best_gaussian(
        aligned.total, shot.truth.clean
    )
    contrast = restored.images["contrast"]
    assert residual_after_best_shift(contrast, -shot.truth.phase) < 0.5


def test_a_raw_frame_where_it_lies(shot):
    movie = shot.movie("movie")
    settings = EnhancementSettings(model="dstnet-window-1")
    frames = enhanced(movie, settings, "frames")[1].frames
    for t in (0, 3):  # the first has no frames before it
        truth = shot.clean_frame(t)
        around = torch.stack([movie.frame(i) for i in range(max(0, t - 2), t + 3)]).sum(0)
        assert residual_after_best_shift(frames[t], truth) < 0.85 * best_gaussian(around, truth)
