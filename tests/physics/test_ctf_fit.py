"""A contrast transfer function fitted to movies of known optics finds what was planted.

The fitter is this file's own, its aberration function from the textbook (Reimer & Kohl 2008, eq.
3.68; Rohou & Grigorieff 2015) in double precision: nothing of `dstnet.optics` but the planted
settings is used.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.constants as si
from physics_checks import Blob

from dstnet.core.randomness import stream
from dstnet.motion.simulated_motion import MotionSettings
from dstnet.optics.ctf import OpticsSettings
from dstnet.potential import Projector, build_potential
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.settings import SpecimenSettings
from dstnet.specimen.species import ProjectionBank
from dstnet.structure import phantom

PIXEL_ANGSTROM = {300: 1.0, 200: 1.4}
AMPLITUDE_CONTRAST, CS_MM = 0.07, 2.7
STILL = MotionSettings(
    burst_angstrom=0, drift_angstrom_per_e=0, jitter_angstrom=0, local_angstrom=0
)
THICK_ICE = SpecimenSettings(coverage=0.0, ice_thickness_angstrom=600, thickness_gradient=0.05)


def optics(defocus: float, **changes) -> OpticsSettings:
    values = {
        "cs_mm": CS_MM,
        "amplitude_contrast": AMPLITUDE_CONTRAST,
        "defocus_angstrom": defocus,
        "astigmatism_angstrom": 0.0,
    }
    return OpticsSettings(**{**values, **changes})


def ice_movie(planted: OpticsSettings, seed: int = 1) -> MovieSimulator:
    """Nothing but ice, which moves as waters do, at 60 e-/Å2."""
    settings = SimulationSettings(
        shape=(1024, 1024),
        pixel_size_angstrom=PIXEL_ANGSTROM[round(planted.voltage_kv)],
        frames=4,
        exposure_e_per_a2=15.0,
        specimen=THICK_ICE,
        optics=planted,
        motion=STILL,
    )
    return MovieSimulator(settings, [], seed)


def band_of(shot: MovieSimulator, tiles: slice = slice(None), low: float = 25.0) -> "Band":
    """The movie's periodogram from `low` to 2.2 pixels."""
    s = shot.settings
    spectra = tile_spectra(shot.frames(), 512)[tiles]
    return Band.of(
        spectra, s.pixel_size_angstrom, s.optics.voltage_kv, low, 2.2 * s.pixel_size_angstrom
    )


def planted_values(planted: OpticsSettings) -> np.ndarray:
    twice = 2 * math.radians(planted.astigmatism_angle_deg)
    return np.array(
        [
            planted.defocus_angstrom,
            planted.astigmatism_angstrom * math.cos(twice),
            planted.astigmatism_angstrom * math.sin(twice),
        ]
    )


# --- The periodogram
# --------------------------------------------------------------------------------------------------


def taper(n: int) -> np.ndarray:
    """A window that is 1 but for raised cosines over an eighth of the length at each end."""
    edge = n // 8
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
    return np.concatenate([rise, np.ones(n - 2 * edge), rise[::-1]])


def tile_spectra(frames, size: int) -> np.ndarray:
    """Power of each tile of `size` pixels, summed over frames, [tile, ky, kx] on the ``rfft2``
    grid, in units of shot noise.
    """
    window = taper(size)[:, None] * taper(size)[None, :]
    total, counts = 0.0, 0.0
    for frame in frames:
        image = frame.numpy().astype(np.float64)
        rows, columns = image.shape[0] // size, image.shape[1] // size
        tiles = (
            image[: rows * size, : columns * size]
            .reshape(rows, size, columns, size)
            .swapaxes(1, 2)
            .reshape(-1, size, size)
        )
        total = (
            total + np.abs(np.fft.rfft2((tiles - tiles.mean((1, 2), keepdims=True)) * window)) ** 2
        )
        counts += image.mean()
    return np.asarray(total) / (counts * (window**2).sum())


# --- The model
# --------------------------------------------------------------------------------------------------


def wavelength_angstrom(voltage_kv: float) -> float:
    """De Broglie's wavelength of a relativistic electron."""
    energy = voltage_kv * 1e3 * si.e
    return si.h / math.sqrt(2 * si.m_e * energy * (1 + energy / (2 * si.m_e * si.c**2))) * 1e10


@dataclass(frozen=True)
class Band:
    """The Fourier terms of a periodogram in a band of resolution."""

    voltage_kv: float
    ky: np.ndarray
    kx: np.ndarray
    power: np.ndarray
    weight: (
        np.ndarray
    )  # 1 / a multiple of the standard deviation of each term of `power`; the residual tells which
    inflation: float  # variance over that of independent terms: the window correlates neighbours

    @classmethod
    def of(
        cls, spectra: np.ndarray, pixel: float, voltage_kv: float, low: float, high: float
    ) -> "Band":
        """Terms between resolutions `low` and `high` in Å of the mean of `spectra`."""
        size = spectra.shape[1]
        ky, kx = np.meshgrid(
            np.fft.fftfreq(size, pixel), np.fft.rfftfreq(size, pixel), indexing="ij"
        )
        k = np.hypot(ky, kx)
        edge = 2.5 / (size * pixel)  # a thickness that varies over the field leaks along the axes
        keep = (k > 1 / low) & (k < 1 / high) & (np.abs(ky) > edge) & (np.abs(kx) > edge)
        power = spectra.mean(0)
        # A periodogram's spread is its mean, which is taken from a ring: the zeros of an astigmatic
        # CTF blur there, to no harm.
        ring = np.round(k * size * pixel).astype(int)
        mean = (np.bincount(ring[keep], power[keep]) / np.maximum(1, np.bincount(ring[keep])))[
            ring[keep]
        ]
        window = taper(size)
        # Variance of a smooth sum over a windowed periodogram: n sum w^4 / (sum w^2)^2 of that
        # without window, in each axis (Parseval).
        inflation = float(size * (window**4).sum() / (window**2).sum() ** 2) ** 2
        return cls(voltage_kv, ky[keep], kx[keep], power[keep], 1 / mean, inflation)

    def squared_transfer(
        self, defocus: float, along_x: float, along_45: float, phase_rad: float = 0.0
    ) -> np.ndarray:
        """sin² of the aberration: defocus + astigmatism (U - V) / 2 cos 2(theta - a), written as
        its two Cartesian parts.
        """
        wavelength = wavelength_angstrom(self.voltage_kv)
        k2 = self.ky**2 + self.kx**2
        local = (
            defocus
            + (along_x * (self.kx**2 - self.ky**2) + along_45 * 2 * self.kx * self.ky) / k2 / 2
        )
        chi = np.pi * wavelength * local * k2 - np.pi / 2 * CS_MM * 1e7 * wavelength**3 * k2**2
        return np.sin(chi + math.asin(AMPLITUDE_CONTRAST) + phase_rad) ** 2

    def up_to(self, resolution: float) -> "Band":
        """The part of the band coarser than `resolution` in Å."""
        keep = np.hypot(self.ky, self.kx) < 1 / resolution
        return replace(
            self,
            ky=self.ky[keep],
            kx=self.kx[keep],
            power=self.power[keep],
            weight=self.weight[keep],
        )

    def backgrounds(self) -> np.ndarray:
        """Smooth functions of frequency, [function, term]."""
        k2 = self.ky**2 + self.kx**2
        x = 2 * (k2 - k2.min()) / (k2.max() - k2.min()) - 1
        smooth = np.polynomial.chebyshev.chebvander(x, 6).T
        steep = np.exp(
            -3 * (x + 1)
        )  # what falls off fast from the lowest frequencies: particles, thickness
        return np.concatenate([smooth, steep * smooth[:2]])

    def contrast(self) -> np.ndarray:
        """The relative power that no smooth background explains: its scalar product with a pattern
        is their correlation.
        """
        return project_out(self.power * self.weight, self.backgrounds() * self.weight)

    def residual(self, parameters: np.ndarray, fixed_phase: float | None) -> np.ndarray:
        """What the best smooth background, plus the pattern times a smooth envelope, leaves of the
        power, weighted.
        """
        phase = parameters[3] if fixed_phase is None else fixed_phase
        smooth = self.backgrounds() * self.weight
        pattern = smooth * self.squared_transfer(parameters[0], parameters[1], parameters[2], phase)
        return project_out(self.power * self.weight, np.concatenate([smooth, pattern]))


def project_out(data: np.ndarray, functions: np.ndarray) -> np.ndarray:
    """What the best linear combination of `functions` [function, term] leaves of `data`."""
    normal = functions @ functions.T
    normal[np.diag_indices_from(normal)] *= 1 + 1e-9
    return data - np.linalg.solve(normal, functions @ data) @ functions


@dataclass(frozen=True)
class Fit:
    """What was fitted: mean defocus, the two Cartesian parts of astigmatism, the phase shift where
    it was free; and their errors.
    """

    values: np.ndarray
    errors: np.ndarray
    squares: float  # sum of squared residuals
    terms: float  # independent terms fitted

    @property
    def astigmatism(self) -> float:
        return math.hypot(self.values[1], self.values[2])

    @property
    def angle_deg(self) -> float:
        return math.degrees(math.atan2(self.values[2], self.values[1])) / 2

    def unlikelier_than(self, other: "Fit") -> float:
        """By how much chi² is larger than the other fit's to the same data."""
        return (self.squares / other.squares - 1) * other.terms


COARSE_ANGSTROM = 4.5  # resolution of the first search
STEPS = np.array(
    [100.0, 100.0, 100.0, 0.1]
)  # natural sizes of changes of the parameters: Å, and rad for the phase


def fit(band: Band, lowest: float, highest: float, phase_rad: float | None = 0.0) -> Fit:
    """Least squares, which for a free background and amplitude is the best correlation: a grid over
    defocus, then Gauss and Newton.

    `phase_rad` is the phase plate's; None fits it.
    """
    # Two Thon patterns differ by a whole ring at frequency k if their defoci differ by 1 / (lambda
    # k²): a quarter of it is near enough.
    coarse = band.up_to(COARSE_ANGSTROM)
    step = 0.25 * COARSE_ANGSTROM**2 / wavelength_angstrom(band.voltage_kv)
    phases = [()] if phase_rad is not None else [(p,) for p in np.arange(0, np.pi, np.pi / 6)]
    astigmatisms = [
        (0.0, 0.0),
        *((450 * math.cos(a), 450 * math.sin(a)) for a in np.arange(0, 2 * np.pi, np.pi / 3)),
    ]
    contrast = coarse.contrast()
    grid = sorted(
        (
            (d, *a, *p)
            for d in np.arange(lowest, highest, step)
            for a in astigmatisms
            for p in phases
        ),
        key=lambda p: (
            -contrast
            @ coarse.squared_transfer(*p[:3], phase_rad if phase_rad is not None else p[3])
        ),
    )
    # Noise makes hills beside the summit: the best of several that agree with all of the band.
    tops = [descend(coarse, np.array(start), phase_rad, 3) for start in grid[:8]]
    values = descend(
        band, min(tops, key=lambda top: (band.residual(top, phase_rad) ** 2).sum()), phase_rad, 6
    )
    left, slopes = band.residual(values, phase_rad), derivative(band, values, phase_rad)
    variance = (left**2).mean() * band.inflation
    errors = np.sqrt(np.diag(np.linalg.inv(slopes @ slopes.T)) * variance)
    return Fit(values, errors, (left**2).sum(), len(left) / band.inflation)


def descend(band: Band, values: np.ndarray, phase_rad: float | None, steps: int) -> np.ndarray:
    """Gauss and Newton's steps from `values`, none longer than three times the parameters' natural
    changes.
    """
    for _ in range(steps):
        left, slopes = band.residual(values, phase_rad), derivative(band, values, phase_rad)
        change = -np.linalg.solve(slopes @ slopes.T, slopes @ left)
        values = values + change * min(1.0, 3 / np.abs(change / STEPS[: len(values)]).max())
    return values


def derivative(band: Band, at: np.ndarray, phase_rad: float | None) -> np.ndarray:
    """Of the residuals by each parameter, [parameter, term]."""
    steps = np.diag(0.02 * STEPS[: len(at)])
    return np.array(
        [
            (band.residual(at + s, phase_rad) - band.residual(at - s, phase_rad)) / (2 * s.sum())
            for s in steps
        ]
    )


# --- Proofs
# --------------------------------------------------------------------------------------------------

# One in three of all combinations runs always, each value of each parameter among them.
CASES = [
    pytest.param(
        voltage, defocus, *astigmatism, marks=[] if (i + j + v) % 3 == 0 else pytest.mark.slow
    )
    for v, voltage in enumerate((300, 200))
    for i, defocus in enumerate((8000.0, 15000.0, 25000.0))
    for j, astigmatism in enumerate(((0.0, 0.0), (600.0, 30.0), (600.0, 120.0)))
]


@pytest.mark.parametrize(("voltage", "defocus", "astigmatism", "angle"), CASES)
def test_a_fit_returns_the_planted_defocus_and_astigmatism(voltage, defocus, astigmatism, angle):
    planted = optics(
        defocus, voltage_kv=voltage, astigmatism_angstrom=astigmatism, astigmatism_angle_deg=angle
    )
    got = fit(band_of(ice_movie(planted)), 3000, 35000)
    off = got.values - planted_values(planted)
    print(
        f"{voltage} kV, {defocus:.0f} Å, {astigmatism:.0f} Å at {angle:.0f}°: off by"
        f" {np.round(off, 1)} +- {np.round(got.errors, 1)} Å"
    )
    assert abs(off[0]) < 0.01 * defocus
    assert (np.abs(off) < 4 * got.errors).all()  # four standard errors: 1 in 16,000 each
    # The errors are small enough for the above to mean something: 0.1 % of the defocus, 5 % of the
    # astigmatism, 1.5 degrees.
    assert got.errors[0] < 0.001 * defocus
    assert got.errors[1:].max() < 30
    if astigmatism:
        # An angle turns by half of what its vector (cos 2a, sin 2a) does.
        error_deg = math.degrees(got.errors[1:].max() / astigmatism / 2)
        assert abs((got.angle_deg - angle + 90) % 180 - 90) < 4 * error_deg
        assert abs(got.astigmatism - astigmatism) < 4 * got.errors[1:].max()


def test_the_errors_that_a_fit_estimates_are_those_it_makes():
    """Each quarter of the field, fitted by itself, lies as far from the truth as it says: chi² of
    12 values, 3 to 30 (0.5 % each side).
    """
    planted = optics(12000.0, astigmatism_angstrom=400.0, astigmatism_angle_deg=75.0)
    spectra = tile_spectra(ice_movie(planted).frames(), 512)
    pulls = []
    for tile in range(4):
        got = fit(Band.of(spectra[tile : tile + 1], 1.0, 300, 25.0, 2.2), 9000, 15000)
        pulls.extend((got.values - planted_values(planted)) / got.errors)
    assert len(spectra) == 4
    assert 3 < np.square(pulls).sum() < 30


def test_the_fit_tells_a_wrong_wavelength():
    """Control: fitted with the wavelength of classical mechanics, 14 % too long, the defocus is off
    by far more than 1 %.
    """
    band = band_of(ice_movie(optics(15000.0)))
    classical = si.h / math.sqrt(2 * si.m_e * 300e3 * si.e) * 1e10
    low, high = 1.0, 300.0  # the voltage of a relativistic electron of that wavelength
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if wavelength_angstrom(middle) > classical else (low, middle)
    wrong = fit(replace(band, voltage_kv=low), 3000, 35000)
    assert abs(wrong.values[0] / 15000 - 1) > 0.05


@pytest.mark.slow
def test_a_phase_plate_is_found_with_the_defocus():
    planted = optics(8000.0, phase_plate_deg=90.0)
    band = band_of(ice_movie(planted))
    free = fit(band, 3000, 35000, phase_rad=None)
    off = free.values - [*planted_values(planted), math.pi / 2]
    print(
        f"phase plate off by {math.degrees(off[3]):.1f} +- {math.degrees(free.errors[3]):.1f}°,"
        f" defocus by {off[0]:.1f} Å"
    )
    assert (np.abs(off) < 4 * free.errors).all()
    assert abs(off[0]) < 80
    assert free.errors[3] < math.radians(3)
    # Without it no defocus explains the pattern: chi² tells by ten standard errors.
    assert fit(band, 3000, 35000).unlikelier_than(free) > 100


def test_overfocus_does_not_fit_as_underfocus():
    """Turning the sign of the defocus turns all of chi but Cs and amplitude contrast.

    The best underfocus that stands for an overfocus is left with pi Cs lambda³ k⁴ - 2 asin A rad,
    less what another defocus takes up: 1.0 rad at 5 Å and 2.5 rad at 4 Å before that, so the ice's
    ring at 3.7 Å tells; coarser than 10 Å it is 0.1 rad and nothing does.
    """
    shot = ice_movie(optics(-15000.0))
    band = band_of(shot)
    over, under = fit(band, -35000, -3000), fit(band, 3000, 35000)
    assert abs(over.values[0] + 15000) < 4 * over.errors[0]
    assert under.unlikelier_than(over) > 100
    coarse = band.up_to(10.0)
    assert (
        abs(fit(coarse, 3000, 35000).unlikelier_than(fit(coarse, -35000, -3000))) < 9
    )  # three standard errors


@pytest.mark.parametrize("defocus", [15000.0, -15000.0])
def test_particles_are_dark_in_underfocus_and_bright_in_overfocus(defocus):
    settings = SimulationSettings(
        shape=(384, 384),
        pixel_size_angstrom=2.0,
        frames=1,
        exposure_e_per_a2=40.0,
        damage=None,
        optics=optics(defocus),
        motion=STILL,
    )
    shot = MovieSimulator(settings, [Blob(sigma=6.0, radius_angstrom=40.0)], 3)
    image = next(iter(shot.frames())).numpy()
    sites = [(round(p.y_angstrom / 2), round(p.x_angstrom / 2)) for p in shot.truth.particles]
    dark = (
        np.mean([image[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4].mean() for y, x in sites])
        - image.mean()
    )
    # MovieSimulator noise of the mean of 49 pixels at all sites.
    error = math.sqrt(image.mean() / (49 * len(sites)))
    assert len(sites) > 10
    assert dark * math.copysign(1, -defocus) > 10 * error


@pytest.mark.slow
def test_a_movie_of_default_settings_fits_within_one_per_cent():
    """Particles at their heights, moving and damaged, in thin ice at 48 e-/Å2: as real movies are
    fitted.
    """
    atoms = phantom(25)
    projector = Projector(build_potential(atoms, 1.06), 300.0)
    species = ProjectionBank.from_projector(
        atoms.name, atoms.diameter_angstrom / 2, projector, 100, stream(1, "poses")
    )
    shot = MovieSimulator(SimulationSettings(frames=12, exposure_e_per_a2=4.0), [species], 2)
    got = fit(band_of(shot), 3000, 35000)
    off = got.values - planted_values(shot.settings.optics)
    print(f"default movie: off by {np.round(off, 1)} +- {np.round(got.errors, 1)} Å")
    assert abs(off[0]) < 150
    assert (np.abs(off) < 4 * got.errors).all()
    assert got.errors[0] < 30
