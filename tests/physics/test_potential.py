"""The potential against Peng's factors summed here, and projections against sums over the
volume.
"""

import gzip
import math
from dataclasses import replace

import gemmi
import mrcfile
import numpy as np
import pytest
import torch

from dstnet.core.constants import MOTT_VOLT_ANGSTROM2, interaction_constant_rad_per_volt_angstrom
from dstnet.core.randomness import stream
from dstnet.errors import BadInputError, SettingsError
from dstnet.io import write_mrc
from dstnet.potential import (
    MapSettings,
    Potential,
    PotentialSettings,
    Projector,
    build_potential,
    potential_from_map,
    random_rotation,
    rotation_of_angles,
)
from dstnet.structure import Atoms, phantom

BARE = PotentialSettings(scale=1.0, ice_potential_volt=0.0, extra_b_factor=0.0)


def make_atoms(positions, elements=None, b_factor=20.0):
    positions = np.array(positions, np.float32).reshape(-1, 3)
    n = len(positions)
    return Atoms(
        "made",
        positions,
        np.array([6] * n if elements is None else elements),
        np.full(n, b_factor, np.float32),
        np.ones(n, np.float32),
    )


@pytest.fixture(scope="module")
def lopsided():
    """Sixty atoms without any symmetry, off the origin."""
    rng = np.random.default_rng(1)
    return make_atoms(
        rng.normal(size=(60, 3)) * [12, 8, 5] + [6, -4, 3], rng.choice([6, 7, 8, 16], 60)
    )


def circle_limited(image):
    """Drop frequencies of and above 0.5 cycles/pixel, which a projection does not have."""
    n = len(image)
    spectrum = np.fft.rfft2(image)
    spectrum[np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)) >= 0.5] = 0
    return np.fft.irfft2(spectrum, s=(n, n))


def relative_rms(got, expected):
    return float(
        np.sqrt(np.mean((np.asarray(got) - expected) ** 2) / np.mean(np.asarray(expected) ** 2))
    )


@pytest.mark.parametrize("pixel", [0.8, 1.5, 3.0])
def test_integral_is_the_sum_of_forward_factors(lopsided, pixel):
    potential = build_potential(lopsided, pixel, BARE)
    forward = sum(sum(gemmi.Element(int(z)).c4322.a) for z in lopsided.elements)
    # gemmi leaves out each atom's tail below 1e-5 of its peak, some 1e-3 of the integral.
    assert potential.volume.sum(dtype=np.float64) * pixel**3 == pytest.approx(
        MOTT_VOLT_ANGSTROM2 * forward, rel=3e-3
    )


def test_profile_of_one_atom_is_pengs():
    """V(r) = MOTT sum a (4 pi / (b + B))^(3/2) exp(-4 pi² r² / (b + B)), with B large enough for
    the grid to hold every frequency.
    """
    b_factor, pixel = 40.0, 0.5
    potential = build_potential(make_atoms([0, 0, 0], [8], b_factor), pixel, BARE)
    n = len(potential.volume)
    oxygen = gemmi.Element("O").c4322
    a, width = np.array(oxygen.a)[:, None], np.array(oxygen.b)[:, None] + b_factor
    r = np.arange(12) * pixel
    expected = MOTT_VOLT_ANGSTROM2 * (
        a * (4 * np.pi / width) ** 1.5 * np.exp(-4 * np.pi**2 * r**2 / width)
    ).sum(axis=0)
    for line in (
        potential.volume[n // 2, n // 2, n // 2 :],
        potential.volume[n // 2, n // 2 :, n // 2],
        potential.volume[n // 2 :, n // 2, n // 2],
    ):
        np.testing.assert_allclose(line[:12], expected, atol=2e-3 * expected[0])


@pytest.mark.parametrize("b_factor", [0.0, 30.0])
def test_coarse_potential_is_the_fine_one_cropped_up_to_nyquist(lopsided, b_factor):
    atoms = replace(lopsided, b_factors=np.full(60, b_factor, np.float32))
    coarse = build_potential(atoms, 2.0, BARE).volume
    n = len(coarse)
    k = np.fft.fftfreq(n, 2.0)
    # Peng's sum and the structure's phases, straight from the definition.
    kz, ky, kx = np.meshgrid(k, k, k, indexing="ij")
    k2 = kz**2 + ky**2 + kx**2
    expected = np.zeros((n, n, n), complex)
    for (x, y, z), element in zip(
        atoms.positions_angstrom.astype(float), atoms.elements, strict=True
    ):
        table = gemmi.Element(int(element)).c4322
        factor = sum(
            a * np.exp(-(b + b_factor) * k2 / 4) for a, b in zip(table.a, table.b, strict=True)
        )
        expected += factor * np.exp(-2j * np.pi * (kx * x + ky * y + kz * z))
    got = np.fft.fftn(np.fft.ifftshift(coarse)) * 8.0 / MOTT_VOLT_ANGSTROM2
    radius = np.sqrt(k2)
    for low, high in ((0, 0.05), (0.05, 0.1), (0.1, 0.15), (0.15, 0.2), (0.2, 0.24)):
        ring = (radius >= low) & (radius < high)
        error = np.linalg.norm((got - expected)[ring]) / np.linalg.norm(expected[ring])
        assert error < 0.01, (low, high)


def test_protein_stands_out_of_ice_by_about_two_and_a_half_volts():
    atoms = phantom(4)
    settings = PotentialSettings()
    potential = build_potential(atoms, 2.0, settings)
    displaced = (
        build_potential(atoms, 2.0, settings.model_copy(update={"ice_potential_volt": 0.0})).volume
        - potential.volume
    ) / 3.5
    # The displaced ice fills the molecule's volume by partial specific volume, and nothing far from
    # it.
    assert displaced.sum() * 8 == pytest.approx(16.8 * len(atoms), rel=0.01)
    assert displaced.min() > -0.02
    assert displaced.max() < 1.02
    mean = potential.volume[displaced > 0.5].mean()
    assert 1.5 < mean < 3.5
    corner = potential.volume[:6, :6, :6]
    assert abs(corner.mean()) < 0.01


def test_a_shell_keeps_its_solvent():
    directions = np.random.default_rng(2).normal(size=(4000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # Atoms blurred enough for the voxels to hold all their frequencies, so that nothing rings into
    # the middle.
    potential = build_potential(
        make_atoms(directions * np.linspace(30, 36, 4000)[:, None], b_factor=80.0), 1.0
    )
    n = len(potential.volume)
    inner = potential.volume[
        n // 2 - 4 : n // 2 + 4, n // 2 - 4 : n // 2 + 4, n // 2 - 4 : n // 2 + 4
    ]
    assert np.abs(inner).max() < 0.01


def test_settings_do_what_they_say(lopsided):
    plain = build_potential(lopsided, 2.0, BARE).volume
    np.testing.assert_allclose(
        build_potential(lopsided, 2.0, BARE.model_copy(update={"scale": 0.5})).volume,
        plain * 0.5,
        atol=1e-4,
    )
    flat = replace(lopsided, b_factors=np.zeros(60, np.float32))
    ignored = build_potential(
        lopsided, 2.0, BARE.model_copy(update={"file_b_factor_cap": None})
    ).volume
    np.testing.assert_array_equal(ignored, build_potential(flat, 2.0, BARE).volume)
    moved = build_potential(flat, 2.0, BARE.model_copy(update={"extra_b_factor": 20.0})).volume
    np.testing.assert_allclose(moved, plain, atol=1e-4)
    protonated = replace(lopsided, elements=np.where(np.arange(60) < 30, 1, lopsided.elements))
    without, with_them = (
        build_potential(protonated, 2.0, BARE.model_copy(update={"hydrogens": h})).volume.sum() * 8
        for h in (False, True)
    )
    assert with_them - without == pytest.approx(
        30 * MOTT_VOLT_ANGSTROM2 * sum(gemmi.Element("H").c4322.a), rel=0.01
    )


def test_occupancy_scales_an_atom_and_the_caller_keeps_its_arrays(lopsided):
    half = replace(lopsided, occupancies=np.full(60, 0.5, np.float32))
    before = half.positions_angstrom.copy()
    np.testing.assert_allclose(
        build_potential(half, 2.0, BARE).volume * 2,
        build_potential(lopsided, 2.0, BARE).volume,
        atol=1e-3,
    )
    np.testing.assert_array_equal(half.positions_angstrom, before)


def test_wrong_input_is_refused(lopsided):
    with pytest.raises(SettingsError, match="pixel size"):
        build_potential(lopsided, 0.0)
    with pytest.raises(SettingsError, match="larger pixel size"):
        build_potential(lopsided, 0.01)
    with pytest.raises(BadInputError, match="no atom that scatters"):
        build_potential(make_atoms([0, 0, 0], [1]), 1.0)
    with pytest.raises(BadInputError, match="element"):
        build_potential(make_atoms([0, 0, 0], [112]), 1.0)
    with pytest.raises(BadInputError, match="cube"):
        Projector(Potential(np.zeros((4, 4, 6), np.float32), 1.0, "flat", 2.0), 300.0)
    with pytest.raises(SettingsError):
        PotentialSettings.checked({"scale": -1.0}, "here")


def test_projection_unturned_is_the_sum_along_z(lopsided):
    potential = build_potential(lopsided, 1.5)
    expected = (
        potential.volume.sum(axis=0) * 1.5 * interaction_constant_rad_per_volt_angstrom(300.0)
    )
    got = Projector(potential, 300.0).phase(torch.eye(3))
    assert got.dtype == torch.float32
    assert relative_rms(got, circle_limited(expected)) < 0.003
    assert float(got.sum()) == pytest.approx(expected.sum(), rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_turning_the_projection_is_turning_the_atoms(lopsided, seed):
    """Positions move as r' = R r; a mirrored, transposed or half-voxel-off convention fails by tens
    of per cent.
    """
    turn = random_rotation(stream(seed, "pose"))
    soft = BARE.model_copy(
        update={"extra_b_factor": 60.0}
    )  # sharp atoms ring out of the box at Nyquist, differently in each pose
    projector = Projector(build_potential(lopsided, 1.5, soft), 300.0)
    turned = replace(
        lopsided,
        positions_angstrom=(lopsided.positions_angstrom @ turn.numpy().T).astype(np.float32),
    )
    expected = (
        build_potential(turned, 1.5, soft).volume.sum(axis=0)
        * 1.5
        * interaction_constant_rad_per_volt_angstrom(300.0)
    )
    assert relative_rms(projector.phase(turn), circle_limited(expected)) < 0.005
    assert relative_rms(projector.phase(turn.T), circle_limited(expected)) > 0.1


def test_quarter_turn_about_z_moves_x_to_y():
    projector = Projector(build_potential(make_atoms([15, 0, 0], b_factor=80.0), 1.5, BARE), 300.0)
    centre = projector.size // 2
    peak = divmod(int(projector.phase(torch.eye(3)).argmax()), projector.size)
    assert peak == (centre, centre + 10)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    peak = divmod(int(projector.phase(quarter).argmax()), projector.size)
    assert peak == (centre + 10, centre)


def test_phases_of_many_are_the_phases_of_each_and_follow_voltage(lopsided):
    potential = build_potential(lopsided, 2.0)
    turns = torch.stack([random_rotation(stream(i)) for i in range(3)])
    at_300, at_100 = Projector(potential, 300.0), Projector(potential, 100.0)
    together = at_300.phases(turns)
    for one, turn in zip(together, turns, strict=True):
        torch.testing.assert_close(one, at_300.phase(turn), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(
        at_100.phases(turns), together * (9.2440 / 6.5262), atol=1e-5, rtol=2e-4
    )


def test_random_rotations_are_uniform_rotations():
    generator = stream(0, "rotations")
    turns = torch.stack([random_rotation(generator) for _ in range(3000)])
    assert turns.dtype == torch.float32
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(3000, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(3000), atol=1e-5, rtol=0)
    # Uniform: every entry has mean 0 and variance 1/3, its square variance 4/45; five standard
    # errors.
    assert turns.mean(0).abs().max() < 5 * (1 / 3 / 3000) ** 0.5
    assert (turns.square().mean(0) - 1 / 3).abs().max() < 5 * (4 / 45 / 3000) ** 0.5
    torch.testing.assert_close(
        random_rotation(stream(7)), random_rotation(stream(7)), atol=0, rtol=0
    )


def test_b_factors_of_the_file_a_constant_or_none(lopsided):
    """The one atom of B 20 in the file: as there, at a constant 50 in its stead, and at none."""
    one = make_atoms([0, 0, 0], [8], b_factor=20.0)

    def like(b_factor, **settings):
        expected = build_potential(make_atoms([0, 0, 0], [8], b_factor), 1.0, BARE).volume
        np.testing.assert_allclose(
            build_potential(one, 1.0, BARE.model_copy(update=settings)).volume,
            expected,
            atol=2e-3 * expected.max(),
        )

    like(20.0)
    like(50.0, file_b_factor_cap=None, extra_b_factor=50.0)
    like(0.0, file_b_factor_cap=None)
    like(10.0, file_b_factor_cap=10.0)
    assert not np.allclose(
        build_potential(one, 1.0, BARE).volume,
        build_potential(one, 1.0, BARE.model_copy(update={"file_b_factor_cap": 10.0})).volume,
        atol=1e-2,
    )


def test_metals_and_nucleic_acids_scatter_by_their_own_factors():
    for element in ("P", "Fe", "Zn", "Au"):
        z = gemmi.Element(element).atomic_number
        volume = build_potential(make_atoms([0, 0, 0], [z], 40.0), 1.0, BARE).volume
        assert volume.sum() == pytest.approx(
            MOTT_VOLT_ANGSTROM2 * sum(gemmi.Element(element).c4322.a), rel=5e-3
        )
    # A nucleotide fills 56 Å3 less than its atoms would as protein: the ice displaced, at 3.5 V,
    # says so.
    strand = make_atoms(np.random.default_rng(3).normal(size=(400, 3)) * 9, [15] * 20 + [6] * 380)
    protein = replace(strand, elements=np.full(400, 6))
    ice = PotentialSettings(scale=1e-6)
    missing = (
        build_potential(strand, 1.5, ice).volume.sum()
        - build_potential(protein, 1.5, ice).volume.sum()
    )
    assert missing * 1.5**3 / 3.5 == pytest.approx(56 * 20, rel=0.03)


def test_relions_angles_turn_the_axes():
    """R = Rz(psi) Ry(tilt) Rz(rot); the structure's point along the viewing direction comes to lie
    along the beam.
    """
    rot, tilt, psi = 20.0, 65.0, -130.0
    turn = rotation_of_angles(rot, tilt, psi)
    a, b = math.radians(rot), math.radians(tilt)
    seen = torch.tensor([math.sin(b) * math.cos(a), math.sin(b) * math.sin(a), math.cos(b)])
    torch.testing.assert_close(turn @ seen, torch.tensor([0.0, 0, 1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-6, rtol=0)
    assert float(torch.linalg.det(turn)) == pytest.approx(1, abs=1e-6)
    # Psi turns the axes by +psi about the beam: a point on x gets the angle -psi.
    torch.testing.assert_close(
        rotation_of_angles(0, 0, 90) @ torch.tensor([1.0, 0, 0]),
        torch.tensor([0.0, -1, 0]),
        atol=1e-6,
        rtol=0,
    )
    torch.testing.assert_close(
        rotation_of_angles(rot, tilt, psi),
        rotation_of_angles(0, 0, psi)
        @ rotation_of_angles(0, tilt, 0)
        @ rotation_of_angles(rot, 0, 0),
    )


# --- Maps
# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def protein():
    """A phantom's potential at 2 Å, band-limited well below its Nyquist so that resampling loses
    nothing.
    """
    soft = PotentialSettings(extra_b_factor=250.0)
    return build_potential(phantom(4), 2.0, soft)


def write_map(path, volume, voxel=2.0):
    write_mrc(path, np.ascontiguousarray(volume, np.float32), voxel, "made for a test")
    return path


def middle(volume):
    """The cube of 40 voxels about the origin."""
    around = slice(len(volume) // 2 - 20, len(volume) // 2 + 20)
    return volume[around, around, around]


def fitted(volume, like):
    """Error of `volume` against `like`, both without corners, after the best scale."""
    a, b = volume.ravel().astype(float), like.ravel().astype(float)
    return relative_rms(a * (a @ b) / (a @ a), b)


def test_a_map_of_a_structure_gives_its_potential(protein, tmp_path):
    """Scale and offset of a map are arbitrary; what comes back is the potential itself, but for the
    envelope's rim.
    """
    path = write_map(tmp_path / "emd_1.mrc", protein.volume * 0.013 + 7)
    like = middle(protein.volume)
    # An envelope well around all density cuts nothing off.
    whole = middle(potential_from_map(path, 2.0, MapSettings(threshold=7 + 0.2 * 0.013)).volume)
    assert fitted(whole, like) < 0.01
    made = potential_from_map(path, 2.0)
    assert made.name == "emd_1"
    assert made.radius_angstrom == pytest.approx(protein.radius_angstrom, abs=8)
    got = middle(made.volume)
    assert fitted(got, like) < 0.1  # of its blurred rim, some
    # Flipping any axis, or swapping two, is seen.
    for wrong in (
        got[::-1],
        got[:, ::-1],
        got[:, :, ::-1],
        got.transpose(0, 2, 1),
        got.transpose(2, 1, 0),
    ):
        assert fitted(wrong, like) > 0.4
    # In volts it comes near to what the atoms gave: nothing was told but the default contrast.
    scale = float((got * like).sum() / (got * got).sum())
    assert 0.8 < scale < 1.25


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (3, 1, 2)])
def test_a_maps_axes_may_come_in_any_order(protein, tmp_path, order):
    """`order` is (mapc, mapr, maps), of the columns, rows and sections as stored."""
    expected = potential_from_map(write_map(tmp_path / "plain.map", protein.volume), 2.0)
    columns, rows, sections = order
    axis_of = {1: 2, 2: 1, 3: 0}  # of x, y, z in [z, y, x]
    path = write_map(
        tmp_path / "turned.map",
        protein.volume.transpose(axis_of[sections], axis_of[rows], axis_of[columns]),
    )
    with mrcfile.open(path, "r+") as file:
        file.header.mapc, file.header.mapr, file.header.maps = order
    np.testing.assert_allclose(potential_from_map(path, 2.0).volume, expected.volume, atol=1e-4)


def test_a_map_off_centre_in_a_box_that_is_no_cube_is_centred(protein, tmp_path):
    expected = potential_from_map(write_map(tmp_path / "plain.mrc", protein.volume), 2.0)
    moved = np.pad(protein.volume, ((9, 0), (0, 4), (0, 17)))
    got = potential_from_map(write_map(tmp_path / "moved.mrc", moved), 2.0)
    assert relative_rms(got.volume, expected.volume) < 0.02


@pytest.mark.parametrize(("pixel", "steps"), [(1.6, (5, 4)), (3.0, (2, 3))])
def test_a_map_is_resampled_to_any_pixel(lopsided, tmp_path, pixel, steps):
    """Both read the same wherever their points meet, of a map so blurred (exp(-800 k² / 4) is 0.4 %
    at 1 / 6 Å) that 3 Å hold it.
    """
    blurred = build_potential(lopsided, 2.0, BARE.model_copy(update={"extra_b_factor": 800.0}))
    path = write_map(tmp_path / "a.mrc", blurred.volume)
    # The surface of an envelope through dense parts would hold finer detail.
    loose = MapSettings(threshold=0.005 * float(blurred.volume.max()))
    same, other = potential_from_map(path, 2.0, loose), potential_from_map(path, pixel, loose)
    assert other.pixel_size_angstrom == pixel
    assert other.radius_angstrom == pytest.approx(same.radius_angstrom)
    assert other.volume.sum() * pixel**3 == pytest.approx(same.volume.sum() * 8, rel=2e-3)

    def met(volume, step):
        points = len(volume) // 2 + step * np.arange(-6, 7)
        return volume[np.ix_(points, points, points)]

    np.testing.assert_allclose(
        met(other.volume, steps[0]), met(same.volume, steps[1]), atol=0.01 * same.volume.max()
    )


def test_noise_around_a_particle_goes_and_dust_with_it(protein, tmp_path):
    clean = potential_from_map(write_map(tmp_path / "clean.mrc", protein.volume), 2.0)
    noisy = protein.volume + np.random.default_rng(0).normal(size=protein.volume.shape).astype(
        np.float32
    )
    noisy[4:7, 4:7, 4:7] += 20  # a speck of dust in a corner
    got = potential_from_map(write_map(tmp_path / "noisy.mrc", noisy), 2.0)
    assert got.radius_angstrom == pytest.approx(clean.radius_angstrom, abs=6)
    corner = got.volume[:8, :8, :8]
    assert np.abs(corner).max() < 0.02
    assert np.abs(noisy[:8, :8, 20:28]).max() > 2


def test_map_settings_do_what_they_say(protein, tmp_path):
    path = write_map(tmp_path / "a.mrc", protein.volume)
    plain = potential_from_map(path, 2.0)
    double = potential_from_map(path, 2.0, MapSettings(inner_contrast_volt=3.6))
    np.testing.assert_allclose(double.volume, 2 * plain.volume, atol=1e-3)
    # The voxel's size instead of the header's stretches the particle.
    stretched = potential_from_map(
        path, 3.0, MapSettings(voxel_size_angstrom=3.0, smoothing_angstrom=4.5)
    )
    assert stretched.radius_angstrom == pytest.approx(1.5 * plain.radius_angstrom, rel=1e-3)
    tight, loose = (potential_from_map(path, 2.0, MapSettings(threshold=t)) for t in (2.0, 0.3))
    assert tight.radius_angstrom < loose.radius_angstrom
    # A wider smoothing leaves more around the particle.
    soft = potential_from_map(path, 2.0, MapSettings(smoothing_angstrom=8.0))
    assert soft.radius_angstrom > plain.radius_angstrom
    with pytest.raises(SettingsError, match=r"nothing in .* lies above the threshold"):
        potential_from_map(path, 2.0, MapSettings(threshold=1e6))
    with pytest.raises(SettingsError, match="everything in"):
        potential_from_map(path, 2.0, MapSettings(threshold=-1e6))


def test_gzipped_maps_read_like_others(protein, tmp_path):
    path = write_map(tmp_path / "a.map", protein.volume)
    (tmp_path / "b.map.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    got = potential_from_map(tmp_path / "b.map.gz", 2.0)
    assert got.name == "b"
    np.testing.assert_array_equal(got.volume, potential_from_map(path, 2.0).volume)


def test_unusable_maps_are_refused_in_one_line(protein, tmp_path):
    volume = protein.volume[:20, :20, :20]

    def refused(path, says, pixel=2.0, settings=None, kind=BadInputError):
        with pytest.raises(kind, match=says) as caught:
            potential_from_map(path, pixel, settings)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "absent.mrc", "no such map")
    (tmp_path / "text.mrc").write_text("no map at all")
    refused(tmp_path / "text.mrc", "cannot read")
    whole = write_map(tmp_path / "whole.mrc", volume)
    (tmp_path / "cut.mrc").write_bytes(whole.read_bytes()[:9000])
    refused(tmp_path / "cut.mrc", "cannot read")
    refused(
        write_map(tmp_path / "flat.mrc", np.full((20, 20, 20), 3.0)),
        "holds no density: every voxel is 3",
    )
    refused(write_map(tmp_path / "small.mrc", volume[:8]), "at least 16")
    refused(write_map(tmp_path / "image.mrc", volume[0]), "three axes")
    holed = volume.copy()
    holed[3, 3, 3] = np.nan
    with np.errstate(invalid="ignore"):
        refused(write_map(tmp_path / "nan.mrc", holed), "not finite")
    bricks = write_map(tmp_path / "bricks.mrc", volume)
    with mrcfile.open(bricks, "r+") as file:
        file.header.cella.z *= 1.1
    refused(bricks, "must be cubes")
    nowhere = write_map(tmp_path / "nowhere.mrc", volume)
    with mrcfile.open(nowhere, "r+") as file:
        file.header.cella.x = 0
    refused(nowhere, "no voxel size")
    refused(whole, "pixel size must be above 0", pixel=0.0, kind=SettingsError)
    refused(
        write_map(tmp_path / "good.mrc", protein.volume),
        "larger pixel size",
        pixel=0.05,
        kind=SettingsError,
    )
