"""Physical constants and what follows from them. Each carries its source; tests recompute the
derived ones.
"""

import math

ELECTRON_REST_ENERGY_KEV = 510.998950  # m0 c^2, CODATA 2018
PLANCK_TIMES_C_KEV_ANGSTROM = 12.398419843  # h c, CODATA 2018 (exact from the 2019 SI)
# h^2 / (2 pi m0 e): turns an electron scattering factor in Angstrom into a potential integral in V
# Angstrom^3. From CODATA 2018: h = 6.62607015e-34 J s, m0 = 9.1093837015e-31 kg, e =
# 1.602176634e-19 C.
MOTT_VOLT_ANGSTROM2 = 47.87765


def electron_wavelength_angstrom(voltage_kv: float) -> float:
    """Relativistic electron wavelength in Angstrom: lambda = hc / sqrt(E (E + 2 m0c^2)) (Reimer &
    Kohl 2008, eq. 2.5).
    """
    return PLANCK_TIMES_C_KEV_ANGSTROM / math.sqrt(
        voltage_kv * (voltage_kv + 2 * ELECTRON_REST_ENERGY_KEV)
    )


def interaction_constant_rad_per_volt_angstrom(voltage_kv: float) -> float:
    """Phase of the exit wave per projected potential, sigma = 2 pi m e lambda / h^2 with the
    relativistic mass, in rad/(V Angstrom).

    Kirkland, Advanced Computing in Electron Microscopy (2010), eq. 5.6. Written here as gamma *
    lambda / MOTT, which is the same thing since MOTT = h^2 / (2 pi m0 e).
    """
    gamma = 1 + voltage_kv / ELECTRON_REST_ENERGY_KEV
    return gamma * electron_wavelength_angstrom(voltage_kv) / MOTT_VOLT_ANGSTROM2
