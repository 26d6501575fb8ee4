"""Motion that differs from place to place, by maximum likelihood over overlapping patches of the
frames.

Around the shift of the whole field the motion is taken as u_t(x) = sum_jk c_jk T_j(t) B_k(x): B the
polynomial terms of `dstnet.motion.local_field` and a constant, T the polynomials of degree 1 to 3
in the frame number without their mean, which RELION's model can hold. No patch is aligned on its
own: every patch and frame adds its score and its information on the same few coefficients, so that
patches with little in them weigh little, and no threshold has to be passed before they count at
all.

The coefficients have a Gaussian prior. Its width is what makes the data likeliest (empirical
Bayes), and the local motion is kept only if coefficients found from one half of the Fourier terms
raise the likelihood of the other half, both ways round: a field that holds too little to tell its
local motion is left with its global shifts.

References
----------
Zheng et al., Nat. Methods 14, 331 (2017), for the polynomial. MacKay, Neural Comput. 4, 415 (1992),
for the choice of a prior by evidence.
"""

import torch
from torch import Tensor

from dstnet.alignment.band import phases
from dstnet.alignment.patch_likelihood import (
    NormalEquations,
    Statistics,
    mean_power,
    polynomial_courses,
    statistics,
    trusted,
)
from dstnet.alignment.patches import TERM_SCALE, Patches
from dstnet.alignment.smoothness import likeliest_step
from dstnet.core.shapes import Trajectory
from dstnet.motion import Motion

# Of the log likelihood of the half of the terms that the coefficients were not found from; movies
# without local motion reach 0.2, weak ones with it 2 to 5.
_LEAST_GAIN = 2.0
_ITERATIONS = 20
_TOLERANCE_ANGSTROM = 0.01
_RIDGE = 1e-6


def refine_by_patches(
    spectra: Tensor,
    patches: Patches,
    shifts_angstrom: Trajectory,
    acceleration_angstrom: float | None,
) -> tuple[Motion, str]:
    """Local motion, and the global shifts once more, from all patches together; with a note of what
    was done.

    Parameters
    ----------
    spectra
        [frame, patch, term], the kept terms of all frames; used up.
    patches
        What they were taken of.
    shifts_angstrom
        Global motion, [frame, 2], mean over frames zero.
    acceleration_angstrom
        As in the settings.
    """
    field = f"{patches.count[0]} x {patches.count[1]} patches"
    for spectrum, shift in zip(spectra, shifts_angstrom, strict=True):
        spectrum *= phases(patches.k, shift)
    power = mean_power(spectra, patches)
    found = statistics(spectra, patches, power)
    if not bool(found.information.any()):
        note = f"local motion left at zero: no signal common to the frames in {field}"
        return Motion.of_shifts(shifts_angstrom), note
    fit = _LocalFit(patches, shifts_angstrom, acceleration_angstrom)
    gain = fit.try_local_motion(found)
    for _ in range(_ITERATIONS):
        moved = fit.improve(found.total())
        for spectrum, further in zip(spectra, moved, strict=True):
            spectrum *= phases(patches.k, further.float())
        if float(moved.norm(dim=-1).max()) < _TOLERANCE_ANGSTROM:
            break
        found = statistics(spectra, patches, power)
    motion = fit.motion()
    if not fit.is_local:
        note = (
            f"local motion left at zero: {field} hold too little to find it (log likelihood of the"
            f" half of the data not used {gain:+.1f})"
        )
        return motion, note
    note = f"local motion of {fit.rms_angstrom():.2f} Å rms per axis from {field}"
    left_out = int((fit.trust == 0).sum())
    if left_out:
        note += f", {left_out} of them left out as outliers"
    return motion, note


class _LocalFit:
    """The motion known so far: global shifts, and coefficients of the local motion.

    Attributes
    ----------
    shifts
        [frame, 2] in Angstrom, double precision.
    local
        Coefficients [course, (term, axis)], 3 x 10, of terms of rms 1.
    trust
        Weight of each patch, [patch].
    prior
        Rms in Angstrom that one coefficient may have.
    is_local
        Whether the patches hold enough to find local motion.
    """

    def __init__(
        self, patches: Patches, shifts_angstrom: Trajectory, acceleration_angstrom: float | None
    ) -> None:
        basis = patches.basis
        self._basis = basis
        self._courses = polynomial_courses(len(shifts_angstrom)).to(basis)
        self._acceleration = acceleration_angstrom
        self.shifts = shifts_angstrom.double()
        self.local = torch.zeros(3, 10, dtype=torch.float64, device=basis.device)
        self.trust = torch.ones(len(basis), dtype=torch.float64, device=basis.device)
        self.prior = 0.0
        self.is_local = False

    def try_local_motion(self, found: Statistics) -> float:
        """See whether there is local motion; returns the log likelihood gained of each half of the
        terms by coefficients from the other half.
        """
        self.prior = self._equations(found.total()).likeliest_prior()
        gain = 0.0
        for number in (0, 1):
            known = self._equations(found.half(number))
            judge = self._equations(found.half(1 - number))
            with_local = judge.likelihood(known.solve(self.prior))
            without = judge.likelihood(known.solve(0.0))
            gain += with_local - without
        self.is_local = self.prior > 0 and gain >= _LEAST_GAIN
        return gain

    def improve(self, total: Statistics) -> Tensor:
        """One step of all coefficients and shifts; returns how far it moves every patch, [frame,
        patch, 2] in Angstrom.
        """
        step = torch.zeros_like(self.local)
        if self.is_local:
            if bool(self.local.any()):
                self.trust = trusted(total, self._courses)
            equations = self._equations(total).around(self.local)
            self.prior = equations.likeliest_prior()
            likeliest = equations.solve(self.prior)
            step = likeliest[:, :10] - self.local
        terms = step.reshape(3, 5, 2)
        local_basis = self._basis[:, :5]
        moved = torch.einsum("fj,jka,pk->fpa", self._courses, terms, local_basis)
        shift = self._shift_step(total, moved)
        self.local = self.local + step
        self.shifts = self.shifts + shift
        return moved + shift[:, None]

    def _shift_step(self, total: Statistics, moved: Tensor) -> Tensor:
        """Step of the global shifts, [frame, 2], once patches have `moved`; mean zero."""
        taken = torch.einsum("pab,fpb->fpa", total.information, moved)
        remaining = total.scores - taken
        score = torch.einsum("fpa,p->fa", remaining, self.trust)
        information = torch.einsum("pab,p->ab", total.information, self.trust)
        unit = torch.eye(2, dtype=torch.float64, device=score.device)
        curvature = information + _RIDGE * unit
        step = likeliest_step(score, curvature, self.shifts, self._acceleration)
        return step - step.mean(0)

    def _equations(self, found: Statistics) -> NormalEquations:
        return NormalEquations.of(found, self._basis, self._courses, self.trust)

    def _local_courses(self) -> Tensor:
        """Coefficients of terms of rms 1 in every frame, [frame, axis, 5]."""
        terms = self.local.reshape(3, 5, 2)
        return torch.einsum("fj,jka->fak", self._courses, terms)

    def rms_angstrom(self) -> float:
        """Of the local motion over field, frames and axes."""
        square = self._local_courses().square().sum(-1)
        return float(square.mean().sqrt())

    def motion(self) -> Motion:
        """The motion, mean over frames zero."""
        shifts = (self.shifts - self.shifts.mean(0)).float()
        if not self.is_local:
            return Motion.of_shifts(shifts)
        courses = self._local_courses()
        scale = TERM_SCALE[:5].to(courses)
        coefficients = courses * scale
        return Motion(shifts, coefficients.float())
