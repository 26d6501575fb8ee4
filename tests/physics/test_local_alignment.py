"""Alignment of simulated movies whose motion is known: errors, weak and long movies, and local
correction that never does harm.
"""

import pytest
import torch
from rods import PIXEL, rods_shot

from dstnet.alignment import AlignmentSettings, align
from dstnet.metrics.motion import motion_error
from dstnet.motion import Motion
from dstnet.motion.simulated_motion import MotionSettings
from dstnet.potential import Projector, build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import phantom


def errors(motion: Motion, shot: MovieSimulator) -> tuple[float, float]:
    """Rms errors in pixels, of the shifts and of the local motion; see `motion_error`."""
    found = motion_error(motion, shot.truth.motion, shot.settings.pixel_size_angstrom)
    return found.global_px, found.local_px


def likeness(image, shot, border=24):
    inner = (slice(border, -border), slice(border, -border))
    return float(
        torch.corrcoef(torch.stack((image[inner].flatten(), shot.truth.clean[inner].flatten())))[
            0, 1
        ]
    )


@pytest.mark.slow
def test_errors_at_1024():
    """One electron a pixel, 20 frames; the aims are 0.06 and 0.15 px. RELION's errors on the like
    are in test_oracle_alignment.py.
    """
    shot = rods_shot((1024, 1024), 20, 1.0, MotionSettings(burst_angstrom=2.0, local_angstrom=0.8))
    of_shifts, of_field = errors(align(shot.movie(), AlignmentSettings()).motion, shot)
    assert of_shifts < 0.06
    assert of_field < 0.15


@pytest.mark.slow
def test_two_hundred_frames_of_a_fifth_of_an_electron():
    """A field of 614 Å: three patches a side."""
    shot = rods_shot(
        (512, 512),
        200,
        0.2,
        MotionSettings(burst_angstrom=2.0, local_angstrom=0.8, jitter_angstrom=0.05),
    )
    movie = shot.movie()
    aligned, without = align(movie, AlignmentSettings()), align(movie, AlignmentSettings(patches=0))
    assert aligned.motion.is_local
    of_shifts, of_field = errors(aligned.motion, shot)
    spread = float(shot.truth.motion.global_shift_angstrom.square().mean().sqrt()) / PIXEL
    assert of_shifts < 0.25 * spread
    assert of_field < 0.3
    assert likeness(aligned.total, shot) > likeness(without.total, shot)


@pytest.fixture(scope="module")
def protein() -> ProjectedSpecies:
    atoms, settings = phantom(), SimulationSettings()
    potential = build_potential(atoms, settings.pixel_size_angstrom)
    projector = Projector(potential, settings.optics.voltage_kv)
    return ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector)


@pytest.mark.slow
@pytest.mark.parametrize("local_angstrom", [0.0, 0.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_local_correction_never_lowers_the_likeness_to_the_truth(protein, seed, local_angstrom):
    """Weak protein in moving ice, 768 x 768: too little, at times, to tell the local motion; then
    it must be left alone.
    """
    motion = MotionSettings(local_angstrom=local_angstrom)
    settings = SimulationSettings(
        shape=(768, 768), specimen=SpecimenSettings(coverage=0.3), motion=motion
    )
    shot = MovieSimulator(settings, [protein], seed)
    movie = shot.movie()
    local, without = align(movie, AlignmentSettings()), align(movie, AlignmentSettings(patches=0))
    # Two sums of the same counts differ by chance in the places of 500,000 pixels where shifts
    # differ: a hundredth of the likeness.
    assert likeness(local.total, shot) > 0.99 * likeness(without.total, shot)
    assert likeness(local.total, shot) > likeness(movie.stack().sum(0), shot)
    if local_angstrom == 0:
        assert not local.motion.is_local
