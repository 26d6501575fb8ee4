"""Particles' poses and places, and the layers around them: ice, its
contamination and crystals, the support film.
"""

import math
import time
from itertools import pairwise

import gemmi
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dstnet.core.constants import interaction_constant_rad_per_volt_angstrom
from dstnet.core.fourier import radial_frequency
from dstnet.core.randomness import stream
from dstnet.errors import SettingsError
from dstnet.potential import Projector, build_potential, random_rotation
from dstnet.specimen import contamination, layers, support_film
from dstnet.specimen.contamination import draw_contamination
from dstnet.specimen.field import SpecimenField
from dstnet.specimen.ice import IceNoise, thickness_map
from dstnet.specimen.layers import draw_layers, transmitted
from dstnet.specimen.patches import add_patch, footprint
from dstnet.specimen.placement import AGGREGATE_SIZES, place
from dstnet.specimen.settings import JAMMING, SpecimenSettings
from dstnet.specimen.species import PoseSettings, ProjectedSpecies, draw_rotation, load_potential
from dstnet.specimen.white_noise import fill_white_noise
from dstnet.structure import phantom

SIGMA = interaction_constant_rad_per_volt_angstrom(300.0)


class Disc:
    """A species whose patch is nothing: places matter here."""

    def __init__(self, radius_angstrom=50.0, name="disc"):
        self.name, self.radius_angstrom = name, radius_angstrom

    def draw(self, generator):
        return random_rotation(generator), torch.zeros(4, 4)


def placed(side=4000.0, pixel=2.0, seed=0, species=None, allowed=None, thickness=None, **settings):
    generator = stream(seed, "placement")
    chosen = SpecimenSettings(**settings)
    return [
        p
        for p, _ in place(
            species or [Disc()], chosen, (side, side), pixel, generator, allowed, thickness
        )
    ]


def gaps(particles, radius=50.0):
    """Space from each particle's disc to its nearest neighbour's."""
    at = torch.tensor([(p.y_angstrom, p.x_angstrom) for p in particles])
    apart = (
        torch.cdist(at, at, compute_mode="donot_use_mm_for_euclid_dist") + torch.eye(len(at)) * 1e9
    )
    return apart.min(dim=1).values - 2 * radius


# --- Placing
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", [0.1, 0.3, 0.5])
def test_coverage_is_reached_and_no_more(coverage):
    count = len(placed(coverage=coverage, gap_angstrom=0.0))
    one = math.pi * 50**2 / 4000**2
    assert coverage <= count * one < coverage + one


@pytest.mark.parametrize("gap", [30.0, 0.0, -40.0])
def test_the_gap_is_kept_whatever_its_sign(gap):
    particles = placed(coverage=0.3, gap_angstrom=gap)
    least = float(gaps(particles).min())
    assert least >= gap - 1e-3
    assert least < gap + 5  # of some 600 particles the nearest come near to it


def test_overlap_allows_more_than_discs_without_it_could():
    assert len(placed(coverage=1.0, gap_angstrom=-70.0)) * math.pi * 50**2 >= 4000**2


def test_particles_lie_on_pixels_and_heights_fill_the_ice():
    particles = placed(coverage=0.4, ice_thickness_angstrom=300.0)
    for p in particles:
        assert p.y_angstrom % 2 == 0
        assert p.x_angstrom % 2 == 0
    heights = torch.tensor([p.height_angstrom for p in particles])
    assert heights.abs().max() <= 100
    # Uniform from -100 to 100: variance 100²/3, whose estimate from n has a relative standard error
    # of sqrt(0.8 / n).
    assert heights.var() == pytest.approx(100**2 / 3, rel=5 * math.sqrt(0.8 / len(particles)))
    assert all(
        p.height_angstrom == 0 for p in placed(ice_thickness_angstrom=60.0)
    )  # thinner than the particle


@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_so_many_particles_touch_the_surfaces(part):
    particles = placed(coverage=0.4, at_interface=part, ice_thickness_angstrom=300.0)
    at = torch.tensor([abs(p.height_angstrom) for p in particles]) > 100 - 1e-3
    n = len(particles)
    assert abs(float(at.float().mean()) - part) <= 5 * math.sqrt(part * (1 - part) / n)
    if part == 1:  # both surfaces alike
        assert abs(sum(p.height_angstrom > 0 for p in particles) / n - 0.5) < 5 * 0.5 / math.sqrt(n)


def test_heights_follow_the_local_thickness():
    thickness = torch.full((2000, 2000), 200.0)
    thickness[:, 1000:] = 600.0
    for p in placed(at_interface=1.0, thickness=thickness):
        assert abs(p.height_angstrom) == pytest.approx(250 if p.x_angstrom >= 2000 else 50)


@pytest.mark.parametrize("clustering", [0.0, 0.8])
def test_clustered_particles_touch(clustering):
    near = (
        gaps(placed(coverage=0.1, clustering=clustering, gap_angstrom=10.0, side=8000.0))
        <= 10 + 2 * 2.0
    )  # a pixel, and snapping to one
    # Rejected tries beside full clusters thin out the clustered ones; a free particle has a
    # neighbour so near in few of cases.
    assert (near.float().mean() > 0.6) if clustering else (near.float().mean() < 0.1)


@pytest.mark.parametrize("per_um2", [0.0, 60.0])
def test_aggregates_are_lumps_of_overlapping_particles(per_um2):
    lumps = placed(side=10000.0, coverage=0.0, aggregates_per_um2=per_um2)
    if per_um2 == 0:
        assert lumps == []
        return
    expected = per_um2 * 1.0  # 10000 Å is 1 µm
    assert (
        (expected - 5 * math.sqrt(expected)) * AGGREGATE_SIZES[0]
        < len(lumps)
        < (expected + 5 * math.sqrt(expected)) * AGGREGATE_SIZES[1]
    )
    assert gaps(lumps).max() < 0
    # Single particles keep clear of them.
    both = placed(side=10000.0, coverage=0.05, aggregates_per_um2=per_um2)
    single = both[len(lumps) :]
    assert [p.y_angstrom for p in both[: len(lumps)]] == [p.y_angstrom for p in lumps]
    assert gaps(both)[len(lumps) :].min() >= 5 - 1e-3
    assert len(single) * math.pi * 50**2 >= 0.05 * 10000**2


def test_centres_lie_where_they_may_and_cover_that():
    allowed = torch.zeros(2000, 2000, dtype=torch.bool)
    allowed[500:1500, 300:900] = True
    for extra in ({}, {"clustering": 0.5}, {"aggregates_per_um2": 100.0}, {"coverage": 0.45}):
        particles = placed(allowed=allowed, **extra)
        assert all(1000 <= p.y_angstrom < 3000 and 600 <= p.x_angstrom < 1800 for p in particles)
        assert len(particles) * math.pi * 50**2 >= 0.25 * 2000 * 1200
    assert placed(allowed=torch.zeros_like(allowed)) == []


def test_all_species_are_placed_and_seeds_decide():
    mixed = placed(species=[Disc(40.0, "small"), Disc(90.0, "large")])
    assert {p.species for p in mixed} == {"small", "large"}
    assert [p.y_angstrom for p in placed(seed=1)] == [p.y_angstrom for p in placed(seed=1)]
    assert [p.y_angstrom for p in placed(seed=1)] != [p.y_angstrom for p in placed(seed=2)]


def test_impossible_crowding_is_refused_before_anything_is_drawn():
    with pytest.raises(ValidationError, match="cannot be reached without overlap"):
        SpecimenSettings(coverage=JAMMING + 0.01)
    with pytest.raises(SettingsError, match="lower coverage"):
        SpecimenSettings.checked({"coverage": 0.9}, "recipe.yaml")

    class Untouchable(Disc):
        def draw(self, generator):
            raise AssertionError("drawn")

    with pytest.raises(SettingsError, match=r"60.* Å between particles cannot be reached"):
        placed(species=[Untouchable()], coverage=0.5, gap_angstrom=60.0)
    with pytest.raises(SettingsError, match="wide, the padded field"):
        placed(species=[Disc(), Untouchable(2100.0)])


def test_placing_ends_where_the_ice_is_full():
    """Random discs jam at 0.547; near that, placing stops by itself, and soon."""
    count = len(placed(coverage=0.547, gap_angstrom=0.0, side=3000.0))
    assert 0.48 < count * math.pi * 50**2 / 3000**2 <= 0.56  # discs reach over the free edges


def test_thousands_of_particles_take_little_time():
    start = time.process_time()
    assert len(placed(side=8600.0, coverage=0.3, species=[Disc(30.0)])) > 7000
    assert (
        time.process_time() - start < 5
    )  # measured 0.6; a search through all pairs in tensors takes 30


def test_patches_are_added_where_they_belong_and_cut_at_edges():
    canvas = torch.zeros(10, 12)
    patch = torch.arange(16.0).reshape(4, 4)
    add_patch(canvas, patch, (5, 6))
    assert torch.equal(canvas[3:7, 4:8], patch)
    assert canvas.sum() == patch.sum()
    add_patch(canvas, patch, (0, 0))
    assert torch.equal(canvas[:2, :2], patch[2:, 2:])
    add_patch(canvas, patch, (-9, 50))  # wholly outside
    assert canvas.sum() == patch.sum() + patch[2:, 2:].sum()


def test_footprint_is_what_the_particle_covers():
    r = torch.hypot(torch.arange(64)[:, None] - 32.0, torch.arange(64)[None, :] - 32.0)
    ball = 0.3 * (1 - (r / 20) ** 2).clamp(min=0).sqrt()
    covered = footprint(ball)
    assert covered.dtype == torch.bool
    assert covered[r < 18].all()
    assert not covered[r > 22].any()
    projector = Projector(build_potential(phantom(4), 3.0), 300.0)
    mask = footprint(projector.phase(torch.eye(3)))
    rr = torch.hypot(
        *torch.meshgrid(
            *(2 * [(torch.arange(projector.size) - projector.size // 2) * 3.0]), indexing="ij"
        )
    )
    assert not mask[rr > phantom(4).diameter_angstrom / 2 + 9].any()
    assert mask[rr < 0.2 * phantom(4).diameter_angstrom].float().mean() > 0.9


# --- Poses
# --------------------------------------------------------------------------------------------------


def test_uniform_poses_unless_a_view_is_preferred():
    generator, again = stream(0, "poses"), stream(0, "poses")
    assert torch.equal(draw_rotation(PoseSettings(), generator), random_rotation(again))


@pytest.mark.parametrize(
    ("spread", "rot", "tilt"), [(8.0, 30.0, 70.0), (25.0, -110.0, 140.0), (60.0, 0.0, 0.0)]
)
def test_preferred_views_spread_as_von_mises_and_fisher(spread, rot, tilt):
    settings = PoseSettings(
        preferred_spread_deg=spread, preferred_rot_deg=rot, preferred_tilt_deg=tilt
    )
    generator = stream(1, "poses")
    n = 3000
    turns = torch.stack([draw_rotation(settings, generator) for _ in range(n)])
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(n, 3, 3), atol=1e-5, rtol=0)
    a, b = math.radians(rot), math.radians(tilt)
    favoured = torch.tensor([math.sin(b) * math.cos(a), math.sin(b) * math.sin(a), math.cos(b)])
    cosine = turns[:, 2] @ favoured
    concentration = 1 / math.radians(spread) ** 2
    mean = 1 / math.tanh(concentration) - 1 / concentration
    assert abs(float(cosine.mean()) - mean) < 5 * float(cosine.std()) / math.sqrt(n)
    # The mean direction is the favoured one, and psi, the turn within the image, is uniform.
    direction = turns[:, 2].mean(0)
    assert torch.linalg.cross(direction / direction.norm(), favoured).norm() < 5 * math.radians(
        spread
    ) / math.sqrt(n)
    psi = torch.atan2(turns[:, 1, 2], -turns[:, 0, 2])
    assert torch.polar(torch.ones(n), psi).mean().abs() < 5 / math.sqrt(n)


def test_a_projected_species_draws_from_its_poses():
    potential = build_potential(phantom(4), 4.0)
    preferred = PoseSettings(preferred_spread_deg=1.0, preferred_tilt_deg=90.0)
    species = ProjectedSpecies.of(potential, 300.0, preferred)
    assert species.radius_angstrom == pytest.approx(phantom(4).diameter_angstrom / 2)
    rotation, patch = species.draw(stream(0))
    assert rotation[2, 0] > 0.99  # seen along x
    torch.testing.assert_close(patch, species.projector.phase(rotation))
    uniform = [ProjectedSpecies.of(potential, 300.0).draw(stream(i))[0][2, 0] for i in range(8)]
    assert min(uniform) < 0.9


def test_potentials_are_loaded_by_where_they_come_from(tmp_path, monkeypatch):
    made = load_potential("phantom:4", 4.0)
    assert made.name == phantom(4).name
    line = "HETATM    1 FE   HEM A   1       1.000   2.000   3.000  1.00 20.00          FE\nEND\n"
    (tmp_path / "iron.pdb").write_text(line)
    assert load_potential(tmp_path / "iron.pdb", 1.0).name == "iron"
    monkeypatch.setattr(
        "dstnet.specimen.species.fetch_structure",
        lambda entry: tmp_path / {"1abc": "iron.pdb"}[entry],
    )
    assert load_potential("pdb:1abc", 1.0).name == "iron"


# --- Thickness and loss
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", [0.0, 0.4])
def test_thickness_varies_by_the_gradient(gradient):
    settings = SpecimenSettings(ice_thickness_angstrom=400.0, thickness_gradient=gradient)
    field = SpecimenField((9, 9), 1.0, settings, SIGMA)
    slopes = []
    for seed in range(200):
        thickness = thickness_map(field, stream(seed, "thickness"))
        assert thickness.min() >= 0.2 * 400 - 1e-3
        slopes.append(float(thickness[4, 8] - thickness[4, 0]) / 2 / 400)
    if gradient == 0:
        assert slopes == [0.0] * 200
    else:  # of each axis; some are cut at 0.2
        assert np.std(slopes) == pytest.approx(gradient / math.sqrt(2), rel=5 / math.sqrt(2 * 200))


@pytest.mark.parametrize("meniscus", [0.0, 0.5])
def test_ice_thickens_towards_a_holes_edge(meniscus):
    settings = SpecimenSettings(
        thickness_gradient=0,
        ice_thickness_angstrom=300.0,
        film_thickness_angstrom=100.0,
        hole_diameter_angstrom=2000.0,
        meniscus=meniscus,
    )
    inside = torch.tensor(
        [[1000.0, 500.0, 0.0, -300.0]]
    )  # the hole's middle, half-way, its edge, on the film
    field = SpecimenField((1, 4), 1.0, settings, SIGMA)
    thickness = thickness_map(field, stream(0, "thickness"), inside)
    torch.testing.assert_close(
        thickness, 300 * (1 + meniscus * torch.tensor([[0.0, 0.25, 1.0, 1.0]]))
    )


def test_loss_is_lamberts_law_and_larger_for_slower_electrons():
    settings = SpecimenSettings(inelastic_mean_free_path_angstrom=3000.0)
    thickness = torch.tensor([[0.0, 300.0, 3000.0]])
    torch.testing.assert_close(
        transmitted(thickness, settings, 300.0), torch.exp(torch.tensor([[0.0, -0.1, -1.0]]))
    )
    # (v/c)² is 0.6030, 0.4835 and 0.3005 at 300, 200 and 100 kV.
    for voltage, squared in ((200.0, 0.4835), (100.0, 0.3005)):
        loss = -torch.log(transmitted(thickness, settings, voltage))
        torch.testing.assert_close(loss, thickness / 3000 * 0.6030 / squared, rtol=1e-3, atol=1e-6)
    film = torch.full((1, 3), layers.CARBON_MEAN_FREE_PATH_ANGSTROM)
    torch.testing.assert_close(
        transmitted(thickness, settings, 300.0, film),
        transmitted(thickness, settings, 300.0) * math.exp(-1),
    )
    other = settings.model_copy(update={"inelastic_mean_free_path_angstrom": 1500.0})
    torch.testing.assert_close(
        transmitted(thickness, other, 300.0), transmitted(thickness, settings, 300.0) ** 2
    )


# --- Ice
# --------------------------------------------------------------------------------------------------


def ice_image(size=512, pixel=1.0, seed=0, **settings):
    shape = (size, size)
    spectrum = IceNoise(shape, pixel, SpecimenSettings(**settings), stream(seed, "ice")).step(1.0)
    return torch.fft.irfft2(spectrum, s=shape)


@pytest.mark.parametrize(
    ("thickness", "noise", "rms"),
    [(300.0, 1.0, 0.05), (1200.0, 1.0, 0.1), (300.0, 2.0, 0.1), (300.0, 0.0, 0.0)],
)
def test_ice_has_the_rms_phase_stated(thickness, noise, rms):
    """N pixels of a Gaussian field with uneven power know their variance to sqrt(2 sum P² / (sum
    P)²), here 0.6 % at 512².
    """
    image = ice_image(ice_thickness_angstrom=thickness, ice_noise=noise)
    assert float(image.std()) == pytest.approx(rms, rel=0.015)
    assert abs(float(image.mean())) < 5 * 0.05 / 100 + 1e-9


@pytest.mark.parametrize("shape", [(64, 96), (63, 96), (64, 95), (63, 95)])
def test_noise_drawn_in_fourier_space_is_white_and_real(shape):
    """Of every pixel the variance is 1, and the spectrum is one that a real image can have, down to
    its self-conjugate columns.
    """
    generator = stream(0)
    spectra = torch.stack(
        [
            fill_white_noise(
                torch.empty(shape[0], shape[1] // 2 + 1, dtype=torch.complex64), shape, generator
            )
            for _ in range(200)
        ]
    )
    images = torch.fft.irfft2(spectra, s=shape)
    torch.testing.assert_close(torch.fft.rfft2(images), spectra, atol=1e-3 * shape[0], rtol=0)
    n = images.numel()
    assert float(images.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    # Power is even over the half plane, the columns that are mirrored included; a term's relative
    # spread is below 1.5.
    power = spectra.abs().square().mean(0) / (shape[0] * shape[1])
    for part in (power[:, 0], power[:, -1], power[0], power[:, 5]):
        assert float(part.mean()) == pytest.approx(
            1, abs=5 * 1.5 / math.sqrt(200 * part.numel() / 2)
        )


def test_ice_looks_gaussian_though_drawn_uniformly():
    white = fill_white_noise(torch.empty(512, 257, dtype=torch.complex64), (512, 512), stream(3))
    image = torch.fft.irfft2(white, s=(512, 512)).flatten().double()
    image = (image - image.mean()) / image.std()
    n = image.numel()
    assert float((image**3).mean()) == pytest.approx(0, abs=5 * math.sqrt(6 / n))
    assert float((image**4).mean()) == pytest.approx(3, abs=5 * math.sqrt(24 / n))


@pytest.mark.parametrize("exposure", [0.3, 1.0, 5.0])
def test_ice_forgets_itself_as_waters_diffuse(exposure):
    """Correlation between frames, ring by ring: exp(-2 pi² k² msd / 3), within 5 standard errors of
    a correlation from n terms.
    """
    shape, pixel = (256, 256), 1.0
    ice = IceNoise(shape, pixel, SpecimenSettings(), stream(2, "ice"))
    frames = [ice.step(exposure).clone() for _ in range(3)]
    k = radial_frequency(shape, pixel)
    for low, high in pairwise((0.02, 0.06, 0.1, 0.15, 0.2, 0.27, 0.35, 0.45)):
        ring = (k >= low) & (k < high)
        for later in (1, 2):
            a, b = frames[0][ring] / ice.amplitude[ring], frames[later][ring] / ice.amplitude[ring]
            got = float(
                (a.conj() * b).real.mean()
                / (a.abs().square().mean() * b.abs().square().mean()).sqrt()
            )
            expected = float(
                torch.exp(-2 * math.pi**2 * k[ring] ** 2 * 1.1 / 3 * exposure * later).mean()
            )
            assert got == pytest.approx(expected, abs=5 / math.sqrt(2 * int(ring.sum()) / 2)), (
                low,
                later,
            )
    # Its power stays.
    assert float(torch.fft.irfft2(frames[2], s=shape).std()) == pytest.approx(
        float(torch.fft.irfft2(frames[0], s=shape).std()), rel=0.05
    )


def test_a_change_of_exposure_between_frames_is_heeded():
    ice = IceNoise((64, 64), 1.0, SpecimenSettings(), stream(2, "ice"))
    first = ice.step(1.0).clone()
    still = ice.step(0.0).clone()
    torch.testing.assert_close(still, first)
    assert not torch.allclose(ice.step(1.0), first, atol=float(first.abs().mean()) / 10)


@pytest.mark.parametrize("ring", [3.7, 2.2])
def test_ice_shows_its_rings(ring):
    power = torch.fft.rfft2(ice_image(pixel=0.8)).abs().square()
    k = radial_frequency((512, 512), 0.8)
    # The form factor's fall is taken out: what is left is the structure factor.
    structure = power * (1 + (k / 0.25) ** 2) ** 2
    at, aside = (float(structure[(k - middle).abs() < 0.01].mean()) for middle in (1 / ring, 0.36))
    assert at > 1.5 * aside


def test_ice_does_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    try:
        images = []
        for count in (1, 2):
            torch.set_num_threads(count)
            ice = IceNoise((256, 256), 1.0, SpecimenSettings(), stream(0, "ice"))
            ice.step(1.0)
            images.append(ice.step(1.0))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*images)


# --- Ice contamination, crystals, film
# --------------------------------------------------------------------------------------------------


def layered(shape=(256, 256), pixel=1.0, seed=0, volts_to_rad=SIGMA, **settings):
    field = SpecimenField(shape, pixel, SpecimenSettings(**settings), volts_to_rad)
    return draw_layers(field, seed)


def test_bare_ice_has_no_static_phase():
    bare = layered()
    assert bare.hole is None
    assert bare.film_angstrom is None
    assert not bare.static_phase.any()
    assert bare.thickness_angstrom.shape == (256, 256)


def test_contamination_is_ice_on_the_surface():
    settings = {"shape": (512, 512), "pixel": 8.0, "contaminants_per_um2": 100.0}
    caps = layered(**settings).static_phase
    assert 0.02 < float((caps > 0).float().mean()) < 0.95
    assert caps.min() >= 0
    torch.testing.assert_close(layered(**settings, volts_to_rad=2 * SIGMA).static_phase, 2 * caps)


def test_contamination_covers_what_its_number_and_sizes_say():
    """Caps of log-uniform radius, 60 to 500 Å: E r² = (500² - 60²) / (2 ln(500 / 60)), their lobes
    4 % more; they overlap at random.
    """
    chosen = SpecimenSettings(contaminants_per_um2=20.0)
    field = SpecimenField((256, 256), 32.0, chosen, SIGMA)
    share = np.mean(
        [float((draw_contamination(field, stream(s)) > 0).float().mean()) for s in range(40)]
    )
    mean_square = (500**2 - 60**2) / (2 * math.log(500 / 60)) * (1 + 0.25**2 / 2 + 0.15**2 / 2)
    expected = 1 - math.exp(-20e-8 * math.pi * mean_square)
    # Some 540 caps, of which r² varies by 1.2 of its mean: 7 % standard error; a few per cent of
    # them reach out of the field.
    assert share == pytest.approx(expected, rel=5 * 0.07 + 0.05)


def test_crystals_show_the_spacings_of_ice():
    made = layered(
        shape=(1024, 1024), pixel=0.9, crystals_per_um2=6000.0, contrast=1.0
    ).static_phase
    power = torch.fft.rfft2(made).abs().square()
    k = radial_frequency((1024, 1024), 0.9)

    def density(spacing):
        return float(power[(k - 1 / spacing).abs() < 0.003].mean())

    # Fringes of a tilted crystal thin out, so rings reach a little inwards; 3.2, 2.9 and 4.6 Å
    # belong to no reflection.
    between = max(density(d) for d in (3.2, 2.9, 4.6))
    for spacing in (3.91, 3.67, 3.45, 2.67, 2.256):
        assert density(spacing) > 5 * between, spacing
    assert (
        layered(shape=(1024, 1024), pixel=2.0, crystals_per_um2=600.0).static_phase.abs().max()
        < 0.5
    )  # little that 2 Å pixels can hold
    assert not layered(crystals_per_um2=0.0).static_phase.any()


def test_ice_reflections_have_known_spacings_and_strengths():
    """Spacings of Goto et al.'s cell, multiplicities of 6/mmm, and the structure factors of two
    reflections by hand.
    """
    g, terms = contamination._ice_fourier_terms()
    spacing = 1 / g.norm(dim=1)
    assert sorted({round(float(d), 2) for d in spacing}) == [2.26, 2.68, 3.45, 3.67, 3.91]
    counts = {
        d: int(((spacing - d).abs() < 0.01).sum()) for d in (3.907, 3.673, 3.449, 2.676, 2.256)
    }
    assert list(counts.values()) == [3, 1, 6, 6, 3]  # half of 6, 2, 12, 12, 6
    strength = {
        d: {round(float(t.abs()), 3) for t in terms[(spacing - d).abs() < 0.01]} for d in counts
    }
    assert all(len(values) == 1 for values in strength.values())  # equivalent ones are alike
    # By hand: |F(100)| = 2 f, as the four oxygens have phases of +-120°; |F(002)| = 4 f cos(4 pi
    # z).
    oxygen = gemmi.Element("O").c4322
    for d, structure in ((3.907, 2.0), (3.673, 4 * math.cos(4 * math.pi * 0.06226))):
        factor = sum(a * math.exp(-b / d**2 / 4) for a, b in zip(oxygen.a, oxygen.b, strict=True))
        assert strength[d].pop() == pytest.approx(structure * factor * 47.878 / 129.46, rel=2e-3)


def film_settings(**changes):
    return {
        "film_thickness_angstrom": 120.0,
        "hole_diameter_angstrom": 6000.0,
        "thickness_gradient": 0.0,
        **changes,
    }


@pytest.mark.parametrize("seed", range(6))
def test_a_holes_edge_is_in_view_and_film_lies_outside_only(seed):
    made = layered(shape=(200, 300), pixel=8.0, seed=seed, **film_settings())
    assert made.hole is not None
    assert made.film_angstrom is not None
    assert made.hole[100, 150]
    assert 0.3 < float(made.hole.float().mean()) < 0.95
    assert not made.film_angstrom[made.hole].any()
    assert not made.static_phase[made.hole].any()
    full = made.film_angstrom == 120
    assert full.any()
    # Its mean phase is that of carbon's inner potential, 9.09 V.
    n = int(full.sum())
    structure = made.static_phase[full] / (9.09 * SIGMA * 120)
    assert float(structure.mean()) == pytest.approx(
        1, abs=5 * float(structure.std()) / math.sqrt(n) + 1e-3
    )
    assert made.thickness_angstrom[full].min() >= 350 * 1.3 - 1e-2


def test_hole_is_round_and_of_its_size():
    made = layered(
        shape=(200, 200), pixel=20.0, seed=3, **film_settings(hole_diameter_angstrom=1000.0)
    )
    assert made.hole is not None
    area = float(made.hole.sum()) * 20**2
    assert area == pytest.approx(
        math.pi * (500 - support_film.FILM_EDGE_ANGSTROM / 2) ** 2, rel=0.03
    )
    other = layered(
        shape=(200, 200), pixel=20.0, seed=4, **film_settings(hole_diameter_angstrom=1000.0)
    ).hole
    assert other is not None
    assert torch.equal(
        layered(
            shape=(200, 200), pixel=20.0, seed=4, **film_settings(hole_diameter_angstrom=1000.0)
        ).hole,
        other,
    )


@pytest.mark.parametrize("thickness", [0.0, 50.0, 200.0])
def test_a_continuous_film_has_the_noise_of_its_atoms(thickness):
    """Power at low frequency: atoms per Å² times the square of one's phase, sigma 47.878 f(0), f(0)
    = 2.51 Å for carbon.
    """
    made = layered(shape=(512, 512), film_thickness_angstrom=thickness)
    assert made.hole is None
    if thickness == 0:
        assert made.film_angstrom is None
        return
    assert (made.film_angstrom == thickness).all()
    power = torch.fft.rfft2(made.static_phase).abs().square() / 512**2  # rad² Å² at 1 Å/px
    k = radial_frequency((512, 512), 1.0)
    ring = (k > 0.005) & (k < 0.03)
    expected = 0.0877 * thickness * (SIGMA * 47.878 * 2.51) ** 2
    assert float(power[ring].mean()) == pytest.approx(
        expected, rel=0.05 + 5 / math.sqrt(int(ring.sum()))
    )
    assert float(made.static_phase.mean()) == pytest.approx(9.09 * SIGMA * thickness, rel=1e-4)


def test_hole_without_film_is_refused():
    with pytest.raises(ValidationError, match="needs a film"):
        SpecimenSettings(hole_diameter_angstrom=12000.0)


def test_a_new_layer_leaves_the_others_alone():
    """Each layer has a stream of its own."""
    plain = layered(shape=(128, 128), pixel=8.0, contaminants_per_um2=100.0)
    more = layered(
        shape=(128, 128),
        pixel=8.0,
        contaminants_per_um2=100.0,
        crystals_per_um2=200.0,
        film_thickness_angstrom=50.0,
    )
    torch.testing.assert_close(more.thickness_angstrom, plain.thickness_angstrom)
    film = layered(shape=(128, 128), pixel=8.0, film_thickness_angstrom=50.0)
    torch.testing.assert_close(
        more.static_phase - film.static_phase, plain.static_phase, atol=1e-5, rtol=0
    )
