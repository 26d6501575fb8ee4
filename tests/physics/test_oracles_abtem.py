"""abTEM, an independent multislice program, as the judge of potentials, transfer functions and
multislice images.

Its conventions against ours: arrays are ``[x, y]``; a wave is multiplied by exp(-i chi); C10 is
minus the underfocus and C12 cos 2(phi - phi12) adds to it, so C12 is minus half of (major less
minor underfocus); C21 is 3 Cs tau for a beam along tau; `angular_spread` is where a Gaussian of
angles falls to 1/e, as ours; `focal_spread` where one of foci does, sqrt(2) times our rms.
"""

import importlib
import math

import numpy as np
import pytest
import torch
from oracles import absent

from dstnet.core.constants import (
    electron_wavelength_angstrom,
    interaction_constant_rad_per_volt_angstrom,
)
from dstnet.core.fourier import resample
from dstnet.optics.ctf import OpticsSettings, contrast_transfer, wave_transfer
from dstnet.optics.multislice import multislice_intensity
from dstnet.potential import PotentialSettings, build_potential
from dstnet.structure import Atoms

pytestmark = pytest.mark.oracle

BARE = PotentialSettings(scale=1.0, ice_potential_volt=0.0, extra_b_factor=0.0)


@pytest.fixture(scope="module")
def abtem():
    """abTEM in double precision; skips aloud where it is not installed, fails instead with
    DSTNET_REQUIRE_ORACLES=1.
    """
    try:
        module = importlib.import_module("abtem")
    except ImportError as error:
        absent(
            f"abTEM cannot be imported ({error}); pip install -c constraints.txt -e"
            " '.[test,oracle]'"
        )
    with module.config.set(
        {"precision": "float64", "diagnostics.progress_bar": False, "dask.lazy": False}
    ):
        yield module


def molecule(b_factor: float) -> Atoms:
    """Six atoms without symmetry, off the voxels."""
    positions = [
        [0, 0, 0],
        [1.4, 0.3, 0.2],
        [-0.9, 1.7, -1.1],
        [2.2, -1.9, 1.3],
        [0.4, -2.6, -2.0],
        [-3, -1, 0.7],
    ]
    return Atoms(
        "six",
        np.array(positions, np.float32),
        np.array([6, 7, 8, 16, 15, 26]),
        np.full(6, b_factor, np.float32),
        np.ones(6, np.float32),
    )


def settings(**changes) -> OpticsSettings:
    """Bare coherent optics with `changes`."""
    coherent = {
        "energy_spread_ev": 0,
        "voltage_instability_ppm": 0,
        "current_instability_ppm": 0,
        "divergence_mrad": 0,
    }
    return OpticsSettings(
        **{
            **coherent,
            "b_factor_angstrom2": 0,
            "astigmatism_angstrom": 0,
            "amplitude_contrast": 0,
            **changes,
        }
    )


def their_ctf(abtem, optics: OpticsSettings):
    """abTEM's CTF of our settings; it has no amplitude contrast, phase plate or B-factor."""
    rms = optics.energy_spread_ev / (optics.voltage_kv * 1e3)
    return abtem.CTF(
        energy=optics.voltage_kv * 1e3,
        C10=-optics.defocus_angstrom,
        C12=-optics.astigmatism_angstrom / 2,
        phi12=math.radians(optics.astigmatism_angle_deg),
        C21=3e-3
        * optics.cs_mm
        * 1e7
        * math.hypot(optics.beam_tilt_x_mrad, optics.beam_tilt_y_mrad),
        phi21=math.atan2(optics.beam_tilt_y_mrad, optics.beam_tilt_x_mrad),
        C30=optics.cs_mm * 1e7,
        focal_spread=math.sqrt(2) * optics.cc_mm * 1e7 * rms,
        angular_spread=optics.divergence_mrad,
    )


@pytest.mark.parametrize("voltage", [100.0, 200.0, 300.0])
def test_wavelength_and_interaction_constant(abtem, voltage):
    wave = abtem.PlaneWave(energy=voltage * 1e3)
    assert electron_wavelength_angstrom(voltage) == pytest.approx(
        wave.wavelength, rel=1e-7
    )  # CODATA releases differ by some 1e-9
    sigma = abtem.core.energy.energy2sigma(voltage * 1e3)
    assert interaction_constant_rad_per_volt_angstrom(voltage) == pytest.approx(
        sigma, rel=2e-7
    )  # MOTT has seven digits


@pytest.mark.parametrize(
    ("parametrization", "tolerance"), [("peng", 3e-3), ("kirkland", 0.01), ("lobato", 0.02)]
)
def test_projected_potential_of_isolated_atoms(abtem, parametrization, tolerance):
    """Peng's factors are the same table, to gemmi's cut of 1e-3; the other two are fits by others,
    1 and 2 % of a spectrum's ring away.

    abTEM spreads an atom between four pixels, which takes off up to (pi k p)^2 / 2 along each axis:
    its pixels p are an eighth of ours.
    """
    import ase

    atoms, pixel = molecule(b_factor=0.0), 0.5
    volume = build_potential(atoms, pixel, BARE).volume
    n = len(volume)
    edge = n * pixel
    there = ase.Atoms(
        numbers=atoms.elements, positions=atoms.positions_angstrom + n // 2 * pixel, cell=[edge] * 3
    )
    potential = abtem.Potential(
        there,
        gpts=8 * n,
        parametrization=parametrization,
        projection="infinite",
        slice_thickness=edge,
    )
    fine = np.fft.fft2(potential.build().array.sum(0).T) / 64
    index = np.fft.fftfreq(n, 1 / n).astype(int)
    theirs, ours = fine[np.ix_(index, index)], np.fft.fft2(volume.sum(0) * pixel)
    k = np.hypot(index[:, None], index[None, :]) / edge
    for low, high in (
        (0, 0.01),
        (0.01, 0.1),
        (0.1, 0.2),
        (0.2, 0.3),
        (0.3, 0.45),
        (0.45, 0.6),
        (0.6, 0.8),
    ):
        ring = (k >= low) & (k < high)
        error = np.linalg.norm((ours - theirs)[ring]) / np.linalg.norm(theirs[ring])
        assert error < tolerance + (np.pi * high * pixel / 8) ** 2 / 2, (low, high)


@pytest.mark.parametrize("voltage", [100.0, 200.0, 300.0])
@pytest.mark.parametrize(
    "changes",
    [
        {"defocus_angstrom": 12000.0},
        {"defocus_angstrom": -5000.0, "cs_mm": 0.01},
        {"astigmatism_angstrom": 3000.0, "astigmatism_angle_deg": 65.0},
        {"beam_tilt_x_mrad": 2.0, "beam_tilt_y_mrad": -1.0},
        {"energy_spread_ev": 1.5},
        {"divergence_mrad": 0.1},
        {"divergence_mrad": 0.1, "energy_spread_ev": 1.0, "astigmatism_angstrom": 2000.0},
    ],
    ids=str,
)
def test_contrast_transfer(abtem, voltage, changes):
    """A point's wave through abTEM's lens, as a factor on its spectrum; -2 sin chi is twice the
    imaginary part, once coma is taken off.
    """
    optics = settings(**{"defocus_angstrom": 9000.0, **changes, "voltage_kv": voltage})
    shape, pixel = (72, 91), 1.3  # odd along x: a lone Nyquist column stands for both signs of k
    point = np.zeros((91, 72), complex)
    point[0, 0] = 1
    waves = abtem.Waves(point, energy=voltage * 1e3, sampling=pixel)
    theirs = torch.from_numpy(np.fft.fft2(waves.apply_ctf(their_ctf(abtem, optics)).array).T.copy())
    got = wave_transfer(shape, pixel, optics)
    wavelength = electron_wavelength_angstrom(voltage)
    k2_max = 2 * (0.5 / pixel) ** 2
    # chi reaches `turns` rad: float32 is good to some 2e-7 of that. abTEM's spatial envelope also
    # counts the slope across k, of astigmatism.
    turns = (
        math.pi
        * wavelength
        * k2_max
        * (abs(optics.defocus_angstrom) + optics.cs_mm * 1e7 * wavelength**2 * k2_max)
        + 10
    )
    across = (
        math.pi * optics.divergence_mrad * 1e-3 * optics.astigmatism_angstrom / 2
    ) ** 2 * k2_max
    torch.testing.assert_close(got, theirs.to(torch.complex64), atol=2e-7 * turns + across, rtol=0)

    without = optics.model_copy(update={"beam_tilt_x_mrad": 0.0, "beam_tilt_y_mrad": 0.0})
    even = torch.from_numpy(np.fft.fft2(waves.apply_ctf(their_ctf(abtem, without)).array).T.copy())[
        :, :46
    ]
    expected = -2 * even.imag.float()
    torch.testing.assert_close(
        contrast_transfer(shape, pixel, without), expected, atol=2 * (2e-7 * turns + across), rtol=0
    )


@pytest.mark.parametrize("voltage", [100.0, 300.0])
@pytest.mark.parametrize(
    "changes",
    [
        {"defocus_angstrom": 0.0},
        {
            "defocus_angstrom": 2500.0,
            "astigmatism_angstrom": 400.0,
            "energy_spread_ev": 0.8,
            "beam_tilt_x_mrad": 1.0,
        },
        {"defocus_angstrom": 2500.0, "divergence_mrad": 0.05},
    ],
    ids=str,
)
def test_multislice_image(abtem, voltage, changes):
    """The same slabs of potential through abTEM: exit wave at height 0, lens, intensity.

    abTEM gets them on a grid twice as fine, of which it keeps two thirds, so both hold every
    frequency of the image. abTEM also keeps waves past the image's Nyquist until the end, where the
    slabs have exp(-B k^2 / 4) left to scatter them back. Its spatial envelope is that of height 0
    for all slabs, which changes the exponent (pi alpha dz k)^2 by about 2 height / dz of itself,
    with k^2 about 4 / B.
    """
    optics = settings(**changes, voltage_kv=voltage)
    pixel, heights, b_factor = 1.0, (330.0, 210.0, 40.0), 120.0
    uncapped = BARE.model_copy(update={"file_b_factor_cap": b_factor})
    volume = torch.from_numpy(build_potential(molecule(b_factor), pixel, uncapped).volume)
    volts = [
        volume.sum(0) * pixel,
        volume.sum(1).roll((3, -2), (0, 1)) * pixel,
        volume.sum(2).roll((-4, 1), (0, 1)) * pixel,
    ]
    # Six molecules on top of each other in each slab, so that much is scattered twice.
    strength = 6 * interaction_constant_rad_per_volt_angstrom(voltage)
    slabs = [(height, strength * v) for height, v in zip(heights, volts, strict=True)]
    shape = (slabs[0][1].shape[0], slabs[0][1].shape[1])
    fine = (2 * shape[0], 2 * shape[1])
    sigma = abtem.core.energy.energy2sigma(voltage * 1e3)
    array = np.stack([resample(phase, fine).double().numpy().T / sigma for _, phase in slabs])
    down = [above - below for above, below in zip(heights, (*heights[1:], 0.0), strict=True)]
    potential = abtem.PotentialArray(array, slice_thickness=down, sampling=pixel / 2)
    exit_wave = abtem.PlaneWave(
        energy=voltage * 1e3, gpts=fine[::-1], sampling=pixel / 2
    ).multislice(potential)
    intensity = np.abs(exit_wave.apply_ctf(their_ctf(abtem, optics)).array.squeeze()) ** 2
    expected = resample(torch.from_numpy(intensity.T.copy()), shape) - 1

    def error(slabs) -> float:
        difference = multislice_intensity(slabs, pixel, optics) - 1 - expected
        return float(difference.square().mean().sqrt() / expected.square().mean().sqrt())

    peak = max(float(phase.max()) for _, phase in slabs)
    spatial = (
        2
        * (math.pi * optics.divergence_mrad * 1e-3) ** 2
        * optics.defocus_angstrom
        * heights[0]
        * 4
        / b_factor
    )
    assert error(slabs) < peak * math.exp(-b_factor * (0.5 / pixel) ** 2 / 4) + spatial
    # Far more than what double scattering and the order of the slabs bring.
    weak = sum(
        torch.fft.irfft2(
            torch.fft.rfft2(phase)
            * contrast_transfer(shape, pixel, optics, optics.defocus_angstrom - height),
            s=shape,
        )
        for height, phase in slabs
    )
    assert float((weak - expected).square().mean().sqrt() / expected.square().mean().sqrt()) > 0.05
    assert (
        error([(height, phase) for (height, _), (_, phase) in zip(slabs, slabs[::-1], strict=True)])
        > 0.05
    )
