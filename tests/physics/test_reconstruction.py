"""What is in the movies is what was put there: particles of known poses give back their structure,
with the noise that was asked for.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from fourier_reconstruction import (
    crossing,
    cut,
    frequencies,
    reconstruct,
    shell_correlation,
    shell_of,
    soft_ball,
)
from physics_checks import PERFECT, STILL, Blob
from scipy.special import j0

from dstnet.core.constants import interaction_constant_rad_per_volt_angstrom
from dstnet.core.fourier import shift_phase
from dstnet.motion.simulated_motion import MotionSettings
from dstnet.optics.ctf import OpticsSettings, contrast_transfer
from dstnet.potential import Potential, Projector, build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectedSpecies
from dstnet.structure import phantom

# --- Known poses to a map
# --------------------------------------------------------------------------------------------------

PIXEL = 2.5
# pixels: 200 Å, twice the particle, so that delocalised detail is in it and trilinear sharing is
# true
BOX = 80
RADIUS = 47.0  # of the particle in Å
SPECIMEN = SpecimenSettings(
    coverage=0.2, gap_angstrom=40.0, ice_thickness_angstrom=350.0, thickness_gradient=0.0
)
DRIFTING = MotionSettings(
    burst_angstrom=0, drift_angstrom_per_e=0.05, jitter_angstrom=1.5, local_angstrom=0
)
FRAMES, EXPOSURE = 8, 5.0
DEFOCI = (9000.0, 13000.0)  # so that the one fills the other's zeros


def movie_settings(defocus: float, **changes) -> SimulationSettings:
    values = {
        "shape": (1360, 1360),
        "pixel_size_angstrom": PIXEL,
        "frames": FRAMES,
        "exposure_e_per_a2": EXPOSURE,
        "specimen": SPECIMEN,
        "optics": OpticsSettings(defocus_angstrom=defocus),
        "motion": DRIFTING,
        "detector": PERFECT,
    }
    return SimulationSettings(**{**values, **changes})


def critical_exposure(k: np.ndarray) -> np.ndarray:
    """Grant & Grigorieff 2015, eq. 3, at 300 kV; infinite at zero frequency."""
    return 0.245 * np.maximum(k, 1e-6) ** -1.665 + 2.81


def aligned_sum(shot: MovieSimulator) -> np.ndarray:
    """The frames' counts summed after each was moved back by its true shift, as contrast."""
    shape, total = shot.settings.shape, 0.0
    for frame, shift in zip(shot.frames(), shot.truth.motion.global_shift_angstrom, strict=True):
        dy, dx = (-shift / shot.settings.pixel_size_angstrom).tolist()
        total = total + torch.fft.rfft2(frame) * shift_phase(shape, (dy, dx))
    image = torch.fft.irfft2(torch.as_tensor(total), s=shape).double().numpy()
    return image / image.mean() - 1


@dataclass(frozen=True)
class View:
    """One particle as it was taken."""

    image: np.ndarray  # its micrograph
    centre: tuple[float, float]
    transfer: np.ndarray  # on the ``rfft2`` grid of a box
    rotation: np.ndarray


def damage_of_sum(k: np.ndarray) -> np.ndarray:
    """Mean amplitude over frames, from the paper."""
    middles = EXPOSURE * (np.arange(FRAMES) + 0.5)
    return np.exp(-middles / (2 * critical_exposure(k)[..., None])).mean(-1)


@functools.cache
def potential() -> Potential:
    return build_potential(phantom(25), PIXEL)  # 82 kDa, C3, 93 Å across


@functools.cache
def views() -> tuple[View, ...]:
    """Particles of two movies, those whose box lies within the field."""
    species = ProjectedSpecies("phantom", RADIUS, Projector(potential(), 300.0))
    ky, kx = frequencies(BOX, PIXEL)
    damage = damage_of_sum(np.hypot(ky, kx))
    found = []
    for seed, defocus in enumerate(DEFOCI):
        settings = movie_settings(defocus)
        shot = MovieSimulator(settings, [species], seed)
        image = aligned_sum(shot)
        for p in shot.truth.particles:
            centre = p.y_angstrom / PIXEL, p.x_angstrom / PIXEL
            if all(
                BOX / 2 < c < n - BOX / 2 - 1 for c, n in zip(centre, settings.shape, strict=True)
            ):
                transfer = (
                    contrast_transfer(
                        (BOX, BOX), PIXEL, settings.optics, defocus - p.height_angstrom
                    )
                    .double()
                    .numpy()
                )
                found.append(View(image, centre, transfer * damage, p.rotation.double().numpy()))
    return tuple(found)


def map_from(
    taken, flip: bool = False, off_centre: float = 0.0, transposed: bool = False
) -> np.ndarray:
    """The reconstruction, rightly or with a mistake in the poses."""

    def boxes():
        for v in taken:
            box = cut(v.image, (v.centre[0] + off_centre, v.centre[1] + off_centre), BOX)
            if flip:
                box = np.roll(box[::-1], 1, axis=0)  # about pixel 0
            yield box, v.transfer, v.rotation.T if transposed else v.rotation

    return reconstruct(BOX, boxes(), 1.0)


def ball() -> np.ndarray:
    return soft_ball(BOX, RADIUS / PIXEL + 1, 5)


def reference() -> np.ndarray:
    """The structure's own map in rad per voxel, in the box."""
    volume = potential().volume
    margin = BOX // 2 - len(volume) // 2
    wide = np.pad(volume, (margin, BOX - len(volume) - margin))
    return wide * interaction_constant_rad_per_volt_angstrom(300.0) * PIXEL


def ring_of(shape: tuple[int, int], pixel: float) -> np.ndarray:
    """Number of the box's shell that each term of an image's ``rfft2`` lies in."""
    ky = np.fft.fftfreq(shape[0], pixel)[:, None]
    kx = np.fft.rfftfreq(shape[1], pixel)[None, :]
    return np.rint(np.hypot(ky, kx) * BOX * PIXEL).astype(int)


def ring_mean(values: np.ndarray, ring: np.ndarray, count: int) -> np.ndarray:
    flat = ring.ravel()
    return np.bincount(flat, values.ravel(), count)[:count] / np.maximum(
        1, np.bincount(flat, minlength=count)[:count]
    )


def expected_correlation(taken) -> np.ndarray:
    """FSC of the map against its structure that exposure, ice, transfer and number of particles
    allow, shell by shell.

    n slices through the origin put n / 2k of slice area into each volume of Fourier space at radius
    k. Least squares then leave a noise of spectral density S = P 2k / (n c²), P the images' and c²
    the mean squared transfer, of which the mask lets S times its volume (of squared mask) through
    into each term. The structure's own terms are known, and FSC = sqrt(s / (1 + s)), s their power
    over noise.

    P is that of shot noise, 1 / (exposure x part transmitted), and of ice, as movies of nothing but
    ice have it. A particle's neighbours are left out: their discs lie outside the mask around it.
    """
    shells = BOX // 2 - 1
    k = np.arange(shells) / (BOX * PIXEL)
    squared = np.mean(
        [ring_mean(v.transfer**2, ring_of((BOX, BOX), PIXEL), shells) for v in taken], axis=0
    )
    shot_noise = 1 / (
        FRAMES
        * EXPOSURE
        * math.exp(-SPECIMEN.ice_thickness_angstrom / SPECIMEN.inelastic_mean_free_path_angstrom)
    )

    weighted_ice = np.zeros(shells)
    for seed, defocus in enumerate(DEFOCI):
        settings = movie_settings(
            defocus, shape=(640, 640), specimen=SPECIMEN.model_copy(update={"coverage": 0.0})
        )
        ice = MovieSimulator(settings, [], 100 + seed)
        image = np.mean([f.double().numpy() for f in ice.expected_frames()], axis=0)
        power = np.abs(np.fft.rfft2(image / image.mean() - 1)) ** 2 * PIXEL**2 / image.size
        ring = ring_of(image.shape, PIXEL)
        transfer = contrast_transfer(image.shape, PIXEL, settings.optics).double().numpy()
        ky, kx = np.fft.fftfreq(640, PIXEL)[:, None], np.fft.rfftfreq(640, PIXEL)[None, :]
        transfer = transfer * damage_of_sum(np.hypot(ky, kx))
        weighted_ice += ring_mean(power * transfer**2, ring, shells) / len(DEFOCI)

    noise = (shot_noise + weighted_ice / squared) * 2 * k / (len(taken) * squared)
    shell = shell_of(BOX)
    density = noise[np.minimum(shell, shells - 1)]
    # Masking is a convolution in Fourier space, of power with power for noise without correlation:
    # it mixes neighbouring shells.
    spread = np.abs(np.fft.fftn(ball())) ** 2
    density = np.fft.fftn(np.fft.ifftn(density) * np.fft.ifftn(spread)).real * PIXEL**3
    own = np.abs(np.fft.fftn(reference() * ball())) ** 2 * PIXEL**4  # rad² Å4

    def per_shell(values: np.ndarray) -> np.ndarray:
        return np.bincount(shell.ravel(), values.ravel())[:shells]

    ratio = per_shell(own) / per_shell(density)
    return np.sqrt(ratio / (1 + ratio))


def independent_terms() -> np.ndarray:
    """How many complex Fourier terms of each shell are independent: half of them, over how many the
    mask joins.
    """
    mask = ball()
    joined = BOX**3 * (mask**4).sum() / (mask**2).sum() ** 2
    return np.bincount(shell_of(BOX).ravel())[: BOX // 2 - 1] / 2 / joined


def tolerance(expected: np.ndarray) -> np.ndarray:
    """Three standard errors of a shell's correlation with a map free of noise, and 0.02 for slices
    that lie by chance, not evenly.

    Of f = a / sqrt(a² + b), a the part of the map that is the structure, over n complex terms, b
    its noise: the variances of a, b / 2n, and of b, b² / n, make (1 - f²)² (2 - f²) / 4n. The
    numbers of slices through a place scatter by some 10 %, noise by half of that.
    """
    return 3 * (1 - expected**2) * np.sqrt((2 - expected**2) / (4 * independent_terms())) + 0.02


def check_map(volume: np.ndarray, expected: np.ndarray) -> float:
    """The map correlates with its structure as expected, shell by shell, and the resolution
    follows. Returns it in Å.
    """
    got = shell_correlation(volume * ball(), reference() * ball())
    finer, coarser = (crossing(expected + sign * tolerance(expected), 0.5) for sign in (1, -1))
    found = crossing(got, 0.5)
    resolution = [BOX * PIXEL / c for c in (found, crossing(expected, 0.5), coarser, finer)]
    print("FSC 0.5 at {:.2f} Å, expected {:.2f} Å ({:.2f} to {:.2f})".format(*resolution))
    off = (
        np.abs(got - expected)[3:] / tolerance(expected)[3:]
    )  # shells coarser than 50 Å are few terms
    print(f"largest deviation of FSC over its tolerance: {off.max():.2f}")
    assert coarser <= found <= finer
    assert (off < 1).all()
    return resolution[0]


@pytest.mark.slow
def test_known_poses_give_back_the_structure_to_the_resolution_that_dose_and_ice_allow():
    taken = views()
    expected = expected_correlation(taken)
    print(len(taken), "particles")
    assert len(taken) >= 500
    # The bar lies where it means something: away from the mask's shells and from Nyquist.
    assert 10 < crossing(expected, 0.5) < BOX / 2 - 5
    check_map(map_from(taken), expected)

    # Controls: what is wrong with the poses shows. First, images read from the other end
    # (mirrored), rotations transposed.
    structure = reference() * ball()
    for mistake in ({"flip": True}, {"transposed": True}):
        wrong = map_from(taken, **mistake)
        with pytest.raises(AssertionError):
            check_map(wrong, expected)
        assert BOX * PIXEL / crossing(shell_correlation(wrong * ball(), structure), 0.5) > 20, (
            mistake
        )
    # Then centres half a pixel off in y and x: of each term J0(2 pi k d) is left on average over
    # in-plane angles, d the distance.
    half = map_from(taken, off_centre=0.5)
    with pytest.raises(AssertionError):
        check_map(half, expected)
    k = np.arange(len(expected)) / (BOX * PIXEL)
    ratio = (
        np.maximum(j0(2 * np.pi * k * PIXEL * math.sqrt(0.5)), 0) ** 2
        * expected**2
        / (1 - expected**2)
    )
    left = np.sqrt(ratio / (1 + ratio))
    assert (np.abs(shell_correlation(half * ball(), structure) - left) < tolerance(left))[3:].all()
    assert (expected - left > 2 * tolerance(expected))[28:].any()
    # A whole pixel off, J0 changes sign at 2.405 / (2 pi sqrt 2 x 2.5 Å) = 1 / (9.2 Å), shell 21.7,
    # and the correlation with it.
    whole = shell_correlation(map_from(taken, off_centre=1.0) * ball(), structure)
    assert (whole[24:36] < 0).all()


# --- Damage and noise, against the movie's own truth
# -------------------------------------------------------------------------------


def half_plane(shape: tuple[int, int]) -> np.ndarray:
    """The terms of a ``rfft2`` that are no other's conjugate, and not the mean."""
    keep = np.ones((shape[0], shape[1] // 2 + 1), bool)
    keep[:, [0, -1]] = False
    return keep


def spectrum(frames: list[np.ndarray]) -> np.ndarray:
    """Of the contrast of the frames' sum."""
    image = np.sum(frames, axis=0)
    return np.fft.rfft2(image / image.mean() - 1)


DAMAGE_SPECIMEN = SpecimenSettings(coverage=0.25, thickness_gradient=0.0)


@pytest.mark.parametrize(
    ("damage", "voltage"),
    [("grant_grigorieff", 300.0), ("grant_grigorieff", 200.0), ("b_factor", 300.0)],
)
def test_halves_of_the_exposure_recover_the_critical_exposure(damage, voltage):
    """With A(N) = exp(-N / 2 N_e) the second half is exp(-D / 2 N_e) times the first, D the
    exposure of a half: exactly, for any framing.

    Amplitudes come from the cross-spectrum with the undamaged truth, and their errors from what the
    truth does not explain.
    """
    frames, exposure, pixel = 4, 6.0, 1.4
    optics = OpticsSettings(voltage_kv=voltage, defocus_angstrom=6000, b_factor_angstrom2=0)
    settings = SimulationSettings(
        shape=(720, 720),
        pixel_size_angstrom=pixel,
        frames=frames,
        exposure_e_per_a2=exposure,
        damage=damage,
        specimen=DAMAGE_SPECIMEN,
        optics=optics,
        motion=STILL,
        detector=PERFECT,
    )
    shot = MovieSimulator(settings, [Blob(sigma=0.8, peak=1.0)], 1)
    counts = [f.double().numpy() for f in shot.frames()]
    clean = np.fft.rfft2(shot.truth.clean.double().numpy())
    first, second = (spectrum(counts[i : i + frames // 2]) for i in (0, frames // 2))
    k = np.hypot(np.fft.fftfreq(720, pixel)[:, None], np.fft.rfftfreq(720, pixel)[None, :])
    relative_errors = []
    for low, high in (
        (0.05, 0.08),
        (0.08, 0.12),
        (0.12, 0.16),
        (0.16, 0.2),
        (0.2, 0.25),
        (0.25, 0.3),
    ):
        ring = (k > low) & (k < high) & half_plane((720, 720))
        weight = (np.abs(clean[ring]) ** 2).sum()
        amplitudes, errors = [], []
        for half in (first, second):
            amplitude = (half[ring] * clean[ring].conj()).real.sum() / weight
            rest = np.abs(half[ring] - amplitude * clean[ring]) ** 2
            amplitudes.append(amplitude)
            errors.append(
                math.sqrt((rest * np.abs(clean[ring]) ** 2).sum() / 2) / weight / amplitude
            )
        # The ratio of a ring is that of its signal's mean: planted, the same mean of exp(-D / 2
        # N_e) with what the first half left.
        if damage == "b_factor":
            planted = 2 / (4.0 * k[ring] ** 2)  # B = 4 Å2 per e-/Å2, Tegunov & Cramer 2019
        else:
            planted = critical_exposure(k[ring]) * (0.8 if voltage == 200 else 1.0)
        left = np.abs(clean[ring]) ** 2 * np.mean(
            [np.exp(-exposure * (t + 0.5) / (2 * planted)) for t in range(frames // 2)], axis=0
        )
        half_exposure = exposure * frames / 2
        mean_planted = (
            -half_exposure
            / 2
            / math.log((left * np.exp(-half_exposure / (2 * planted))).sum() / left.sum())
        )
        # 1 / N_e is what is measured, with a normal error.
        got, error = (
            2 / half_exposure * value
            for value in (math.log(amplitudes[0] / amplitudes[1]), math.hypot(*errors))
        )
        print(
            f"{damage} {voltage:.0f} kV, {2 / (low + high):.1f} Å: N_e {1 / got:.2f} +-"
            f" {error / got**2:.2f}, planted {mean_planted:.2f}"
        )
        assert abs(got - 1 / mean_planted) < 4 * error
        relative_errors.append(error * mean_planted)
    assert sorted(relative_errors)[2] < 0.1  # half of the rings tell N_e to better than that
    assert len(relative_errors) == 6


@pytest.mark.parametrize("ice", [0.0, 2.0])
def test_odd_and_even_frames_correlate_as_signal_and_noise_say(ice):
    """Ring correlation of the sums of odd and even frames, nothing moving, without damage.

    What they share is the particles and such ice as has not moved in between; what they do not,
    shot noise, 1 / (exposure x part transmitted) in power per Å², and the ice that has: its terms
    keep exp(-2 pi² k² msd N) after an exposure N, msd = 1.1 / 3 Å² per e-/Å² (McMullan, Vinothkumar
    & Henderson 2015). Only the ice's power in a single frame is taken from the simulator, from
    other seeds.
    """
    frames, exposure, pixel, n = 6, 4.0, 1.5, 720
    specimen = SpecimenSettings(
        coverage=0.15, ice_noise=ice, ice_thickness_angstrom=500, thickness_gradient=0.0
    )
    settings = SimulationSettings(
        shape=(n, n),
        pixel_size_angstrom=pixel,
        frames=frames,
        exposure_e_per_a2=exposure,
        damage=None,
        specimen=specimen,
        optics=OpticsSettings(defocus_angstrom=8000),
        motion=STILL,
        detector=PERFECT,
    )
    k = np.hypot(np.fft.fftfreq(n, pixel)[:, None], np.fft.rfftfreq(n, pixel)[None, :])
    rings = 24
    index = np.where(
        half_plane((n, n)) & (k < 0.5 / pixel), (k * 2 * pixel * rings).astype(int), rings
    )

    def mean(values: np.ndarray) -> np.ndarray:
        return ring_mean(values, index, rings + 1)[:rings]

    shot = MovieSimulator(settings, [Blob(sigma=1.5, peak=0.6)], 2)
    counts = [f.double().numpy() for f in shot.frames()]
    odd, even = spectrum(counts[::2]), spectrum(counts[1::2])
    got = mean(np.real(odd * even.conj())) / np.sqrt(
        mean(np.abs(odd) ** 2) * mean(np.abs(even) ** 2)
    )

    to_density = pixel**2 / n**2
    signal = mean(np.abs(np.fft.rfft2(shot.truth.clean.double().numpy())) ** 2) * to_density
    passed = math.exp(-specimen.ice_thickness_angstrom / specimen.inelastic_mean_free_path_angstrom)
    shot_noise = 2 / (frames * exposure * passed)
    empty = settings.model_copy(update={"specimen": specimen.model_copy(update={"coverage": 0.0})})
    fields = [
        next(iter(MovieSimulator(empty, [], seed).expected_frames())).double().numpy()
        for seed in range(10, 14)
    ]
    ice_power = np.mean([mean(np.abs(spectrum([f])) ** 2) for f in fields], axis=0) * to_density
    middle = (np.arange(rings) + 0.5) / (2 * pixel * rings)

    def kept(a: range, b: range) -> np.ndarray:
        """Mean correlation of the ice of the frames of `a` with that of the frames of `b`."""
        apart = np.array([abs(i - j) for i in a for j in b]) * exposure
        return np.exp(-2 * np.pi**2 * middle[:, None] ** 2 * 1.1 / 3 * apart).mean(1)

    odds, evens = range(0, frames, 2), range(1, frames, 2)
    shared = signal + ice_power * kept(odds, evens)
    own = signal + ice_power * kept(odds, odds) + shot_noise
    expected = shared / own
    terms = np.bincount(index.ravel(), minlength=rings)[:rings]
    # Five standard errors of a correlation of n complex pairs, and those of the ice's power in four
    # fields, which are half as large.
    tolerance = 5 * (1 - expected**2) / np.sqrt(2 * terms) + (
        5 / np.sqrt(4 * terms) * expected * (1 - expected) if ice else 0
    )
    off = np.abs(got - expected)[1:]
    print(
        f"ice {ice}: largest deviation {off.max():.3f}, over tolerance"
        f" {(off / tolerance[1:]).max():.2f}"
    )
    assert (off < tolerance[1:]).all()
    # Rings where particles show, and rings where they do not.
    assert expected[1:].max() > 0.5
    assert expected[1:].min() < 0.1
