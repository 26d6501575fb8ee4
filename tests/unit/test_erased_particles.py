"""Movies with erased particles: what differs between twins, and what methods are told of them."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dstnet.dataset import SimulatedMovie
from dstnet.dataset.record import MovieRecord
from dstnet.dataset.sources import structures_of
from dstnet.dataset.species_store import SpeciesStore
from dstnet.errors import BadInputError, SettingsError
from dstnet.evaluation.base import Made, Subject
from dstnet.evaluation.erased_particles import ErasedScores, PlacePicks, judge
from dstnet.evaluation.erased_summary import summarise
from dstnet.evaluation.twins import Twins, make_twins, share_noise, twins_of
from dstnet.motion.simulated_motion import MotionSettings
from dstnet.optics.ctf import OpticsSettings
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectedSpecies, load_potential

STILL = MotionSettings(
    burst_angstrom=0, drift_angstrom_per_e=0, jitter_angstrom=0, local_angstrom=0
)
SETTINGS = SimulationSettings(
    shape=(192, 192),
    pixel_size_angstrom=4.0,
    frames=2,
    exposure_e_per_a2=20.0,
    specimen=SpecimenSettings(coverage=0.3, contrast=2.0),
    optics=OpticsSettings(defocus_angstrom=12000),
    motion=STILL,
)
SUBJECT = Subject("synthetic", "set", Path("synthetic.tif"), "", open=lambda: None)  # pyright: ignore


@pytest.fixture(scope="module")
def species() -> ProjectedSpecies:
    return ProjectedSpecies.of(load_potential("phantom:25", 4.0), 300.0)


@pytest.fixture(scope="module")
def twins(species) -> Twins:
    return make_twins(SETTINGS, species, 3)


@dataclass(frozen=True)
class Told:
    """A method that gives what the test says of a scene."""

    name: str
    image: object
    needs_truth: bool = True

    def groupings(self, movie):
        return ()

    def describe(self):
        return {}

    def __call__(self, scene):
        return Made({"micrograph": self.image(scene)})  # pyright: ignore[reportCallIssue]


def test_twins_differ_only_where_particles_are_erased(species, twins):
    whole = MovieSimulator(SETTINGS, [species], 3)
    gone = [1]
    rest = MovieSimulator(SETTINGS, [species], 3, left_out=gone)
    particles = whole.truth.particles
    kept = [p for n, p in enumerate(particles) if n not in gone]
    places = [(p.y_angstrom, p.x_angstrom) for p in kept]
    assert [(p.y_angstrom, p.x_angstrom) for p in rest.truth.particles] == places
    # What the truths differ by is, frame by frame, all that the expected frames differ by.
    missing = whole.truth.clean - rest.truth.clean
    y, x = np.mgrid[:192, :192] * 4.0
    is_far = np.ones((192, 192), bool)
    for n in gone:
        away = np.hypot(y - particles[n].y_angstrom, x - particles[n].x_angstrom)
        is_far &= away > species.radius_angstrom + 150  # delocalisation to 8 Å at 1.2 um
    assert is_far.mean() > 0.15
    for full, part in zip(whole.expected_frames(), rest.expected_frames(), strict=True):
        difference = (full - part) / full.mean()
        assert difference.abs().max() > 0.05
        assert difference[torch.from_numpy(is_far)].abs().max() < 0.02 * difference.abs().max()
        assert np.corrcoef(difference.flatten(), missing.flatten())[0, 1] > 0.8
    # The phase, which nothing spreads, differs where the label says.
    same = whole.truth.phase == rest.truth.phase
    assert same.float().mean() > 0.8
    # The noise is common: counts differ in few pixels, and none far away.
    counts, others = whole.movie().frame(0), rest.movie().frame(0)
    assert float((counts != others)[torch.from_numpy(is_far)].float().mean()) < 0.01
    assert share_noise(twins.complete, twins.erased)
    assert not share_noise(twins.complete, MovieSimulator(SETTINGS, [species], 4).movie())


def test_the_truth_invents_nothing_and_a_prejudice_everything(twins):
    def with_all(scene):
        return 300 * (1 + twins.clean)

    def with_what_is_there(scene):
        return 300 * (1 + scene.truth.clean)

    def half_of_it(scene):
        return with_what_is_there(scene) + 150 * (twins.clean - scene.truth.clean)

    def nothing(scene):
        return torch.randn(192, 192, generator=torch.Generator().manual_seed(1))

    methods = [
        Told("truth", with_what_is_there),
        Told("prejudice", with_all),
        Told("half", half_of_it),
        Told("noise", nothing),
    ]
    scores, failures = judge(twins, SUBJECT, methods, SETTINGS)
    assert not failures
    rows = {row.method: row for row in summarise(scores)}
    assert rows["truth"].places == len(twins.centres_px) >= 3
    assert rows["truth"].invented.value == pytest.approx(0, abs=0.01)
    assert rows["truth"].told_apart.value == 1
    assert rows["truth"].picked_present.value > 0.8
    assert rows["truth"].picked_erased.value < 0.2
    assert rows["prejudice"].invented.value == pytest.approx(1, abs=0.01)
    assert rows["prejudice"].picked_erased.value == rows["prejudice"].picked_present.value
    assert rows["half"].invented.value == pytest.approx(0.5, abs=0.02)
    assert rows["half"].invented.low < 0.5 < rows["half"].invented.high + 0.02
    assert abs(rows["noise"].told_apart.value - 0.5) < 0.3
    # The sum's mean is 2 frames of 20 e-/Å2 and 16 Å2 less what ice and camera take.
    assert 0.3 < rows["truth"].amplitude.value < 1.0


def test_a_method_that_fails_is_said_and_others_go_on(twins):
    def refuse(scene):
        raise SettingsError("not today")

    methods = [Told("broken", refuse), Told("truth", lambda scene: scene.truth.clean)]
    scores, failures = judge(twins, SUBJECT, methods, SETTINGS)
    assert failures == {"broken": "not today"}
    assert {score.method for score in scores} == {"truth"}


def scored(movie: str, present, erased, picks=((), ())) -> ErasedScores:
    scores, hits = picks
    found = PlacePicks(scores, hits, 2, tuple(present), tuple(erased))
    return ErasedScores(
        movie, "m", "micrograph", "s", 100.0, 40.0, 1.0, tuple(present), tuple(erased), found
    )


def test_figures_of_a_condition_by_hand():
    one = scored("a", (1.0, 3.0), (0.0, 2.0), ((5.0, 4.0, 1.0), (True, True, False)))
    two = scored("b", (2.0, 2.0), (1.0, 1.0), ((3.0, 2.5, 2.2), (True, False, True)))
    (row,) = summarise([one, two])
    assert (row.movies, row.places) == (2, 4)
    assert row.invented.value == pytest.approx(1 / 2)
    assert row.invented.low == row.invented.high == pytest.approx(1 / 2)  # of either movie
    assert row.scatter.value == pytest.approx(math.sqrt(0.5) / 2)
    assert row.amplitude.value == 2
    # Pairs of present and erased: of 16, larger in 12, equal in 2.
    assert row.told_apart.value == pytest.approx((12 + 1) / 16)
    # Movie a is judged by b's threshold, 2.2, and b by a's, halfway between 4 and 1.
    assert row.picked_present.value == pytest.approx(1 / 4)
    assert row.picked_erased.value == 0


def test_a_movie_of_a_data_set_has_a_twin_as_long_as_it_comes_out_the_same(tmp_path, species):
    record = MovieRecord(
        name="set-3",
        seed=3,
        species=("phantom25_C3",),
        sources=("phantom:25",),
        version="1",
        settings=SETTINGS.model_dump(mode="json"),
    )
    movie = SimulatedMovie(tmp_path, record)
    movie.write(MovieSimulator(SETTINGS, [species], 3))
    store = SpeciesStore()
    found = twins_of(movie, store)
    assert found.diameter_angstrom == pytest.approx(2 * species.radius_angstrom)
    assert torch.equal(
        found.complete.frame(1), MovieSimulator(SETTINGS, [species], 3).movie().frame(1)
    )
    # The movie of another seed under its name.
    other = SimulatedMovie(tmp_path, record.model_copy(update={"seed": 4}))
    with pytest.raises(BadInputError, match="comes out otherwise now"):
        twins_of(other, store)
    several = SimulatedMovie(tmp_path, record.model_copy(update={"species": ("a", "b")}))
    with pytest.raises(BadInputError, match="has 2 structures"):
        twins_of(several, store)


def test_structures_are_found_by_name_and_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("DSTNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.pdb").write_bytes(b"abc")
    record = MovieRecord(
        name="m", seed=0, species=("a",), sources=("a.pdb sha256:ba7816bf8f01cfea",), version="1",
        settings={},
    )  # fmt: skip
    assert structures_of(record, [tmp_path]) == (str(tmp_path / "a.pdb"),)
    with pytest.raises(BadInputError, match=r"m was made of a.pdb.*--structures"):
        structures_of(record)
    (tmp_path / "a.pdb").write_bytes(b"abd")
    with pytest.raises(BadInputError, match="its bytes differ"):
        structures_of(record, [tmp_path])
