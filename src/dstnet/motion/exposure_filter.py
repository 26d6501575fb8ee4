"""Radiation damage as a filter: how much of the specimen's signal is left at each frequency after
an exposure.

Two models: the critical exposures that Grant & Grigorieff (2015) measured, and a B-factor that
grows with the exposure, which Warp and RELION's tomography take. They agree at about 3 Å; coarser
detail outlives the second longer (at 10 Å and 30 e-/A^2 0.74 is left, not 0.35).
"""

import numpy as np
import torch
from torch import Tensor

# Critical exposure at 300 kV, N_e(k) = a k^b + c in e-/A^2 with k in 1/A: Grant & Grigorieff, eLife
# 4:e06980 (2015), eq. 3.
_A = 0.245
_B = -1.665
_C = 2.81

# N_e relative to 300 kV. 200 kV: Grant & Grigorieff 2015. 100 kV: published programs disagree, 0.53
# (cisTEM has 0.532) or 0.64. We take 0.53, because damage follows the inelastic cross-section,
# about 1/(v/c)^2, which gives 0.80 at 200 kV and 0.50 at 100 kV. Between the entries the factor is
# interpolated; above 300 kV it stays 1.
_VOLTAGES_KV = (0.0, 100.0, 200.0, 300.0)
_FACTORS = (0.0, 0.53, 0.8, 1.0)

# 4 A^2 per e-/A^2: Tegunov & Cramer, Nat. Methods 16, 1146 (2019), methods; before them Bharat et
# al., Structure 23, 1743 (2015).
B_FACTOR_ANGSTROM2_PER_E = 4.0


def critical_exposure(k: Tensor, voltage_kv: float) -> Tensor:
    """Exposure N_e at which the signal's power has fallen to 1/e (its amplitude to 1/sqrt(e)).

    Parameters
    ----------
    k
        Spatial frequency in 1/Angstrom, any shape, not negative.
    voltage_kv
        Acceleration voltage.

    Returns
    -------
    Tensor
        N_e in e-/A^2, of the shape of `k`; infinite at k = 0.

    References
    ----------
    Grant & Grigorieff, eLife 4:e06980 (2015), eq. 3.
    """
    # Not k.pow(_B): its last bit depends on how a tensor is divided among threads.
    power_of_k = torch.exp(_B * torch.log(k))
    at_300_kv = _A * power_of_k + _C
    factor = np.interp(voltage_kv, _VOLTAGES_KV, _FACTORS)
    return at_300_kv * float(factor)


def damage_amplitude(k: Tensor, exposure_e_per_a2: float, voltage_kv: float) -> Tensor:
    """Fraction of the signal's amplitude left after an accumulated exposure N: exp(-N / (2
    N_e(k))).

    Parameters
    ----------
    k
        Spatial frequency in 1/Angstrom, any shape, not negative.
    exposure_e_per_a2
        Accumulated exposure N in e-/A^2; for a frame, that at its middle
        (`dstnet.movie.Exposure`).
    voltage_kv
        Acceleration voltage.

    Returns
    -------
    Tensor
        Amplitude from 0 to 1, of the shape of `k`; 1 at k = 0.

    References
    ----------
    Grant & Grigorieff, eLife 4:e06980 (2015), eq. 4.
    """
    # The amplitude falls half as fast as the power.
    amplitude_critical_exposure = 2 * critical_exposure(k, voltage_kv)
    return torch.exp(-exposure_e_per_a2 / amplitude_critical_exposure)


def b_factor_amplitude(
    k: Tensor, exposure_e_per_a2: float, b_factor_angstrom2_per_e: float = B_FACTOR_ANGSTROM2_PER_E
) -> Tensor:
    """The same where damage is a growing B-factor: exp(-B N k^2 / 4).

    Parameters
    ----------
    k, exposure_e_per_a2
        As those of `damage_amplitude`; so is what it returns.
    b_factor_angstrom2_per_e
        B in A^2 per e-/A^2. The published values are for 300 kV; no dependence on the voltage is
        known of them.

    References
    ----------
    Tegunov & Cramer, Nat. Methods 16, 1146 (2019).
    """
    of_squared_frequency = -0.25 * b_factor_angstrom2_per_e * exposure_e_per_a2
    return torch.exp(k.square() * of_squared_frequency)
