"""What patches say of the motion: scores, information, and the coefficients that follow from them.

Coefficients are [course, (term, axis)], 3 x 12: each term of the polynomial over the field, the
constant last, follows a mixture of three courses over the frames, along y and along x.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.alignment.patches import Patches
from dstnet.alignment.spectral_snr import signal_and_noise
from dstnet.core.fourier import ring_count, ring_mean

# Standard deviations of the normal prior of a course's coefficients: rms of the motion over field
# and frames that one coefficient stands for. The likeliest of these is taken, or none.
_PRIORS_ANGSTROM = tuple(0.02 * 2**i for i in range(10))
# Stands for a prior of zero, whose precision would be infinite: no local motion.
_NO_PRIOR_ANGSTROM = 1e-6
# Of the constant term, which corrects the global shifts: so wide that it hardly restrains them.
_MEAN_PRIOR_ANGSTROM = 10.0
# Coefficients of a course: of the terms that vary over the field, and of these and the constant.
_LOCAL = 10
_ALL = 12
_MOST_AMOUNT = 10.0  # of signal in a patch, over the mean one
_MOST_SIGNAL = 0.99  # of a ring's power
_OUTLYING = 8.0  # times the median misfit of the patches
_CHI2_LIMIT = 40.0  # of the 6 coefficients of one patch: never by chance


@dataclass(frozen=True)
class Statistics:
    """What the patches of all frames say of a small further displacement.

    Attributes
    ----------
    scores
        Slope of the log likelihood with every frame's shift, [..., frame, patch, 2] in 1/Angstrom.
    information
        Minus its curvature, [..., patch, 2, 2] in 1/Angstrom^2.
    """

    scores: Tensor
    information: Tensor

    def half(self, number: int) -> "Statistics":
        """Of one half of the Fourier terms, where the first axis is that of the halves."""
        return Statistics(self.scores[number], self.information[number])

    def total(self) -> "Statistics":
        """Of both halves."""
        return Statistics(self.scores.sum(0), self.information.sum(0))


@dataclass(frozen=True)
class NormalEquations:
    """The log likelihood of coefficients, to second order.

    Attributes
    ----------
    score
        Its slope, [3, 12].
    curvature
        Minus its curvature, [12, 12], the same for each course.
    """

    score: Tensor
    curvature: Tensor

    @classmethod
    def of(
        cls, statistics: Statistics, basis: Tensor, courses: Tensor, trust: Tensor
    ) -> "NormalEquations":
        """Where the coefficients are zero.

        Parameters
        ----------
        statistics
            Of all frames and patches.
        basis
            [patch, 6].
        courses
            [frame, 3].
        trust
            Weight of each patch, [patch].
        """
        scores = statistics.scores
        information = statistics.information
        score = torch.einsum("fpa,fj,pk,p->jka", scores, courses, basis, trust)
        curvature = torch.einsum("pab,pk,pl,p->kalb", information, basis, basis, trust)
        curvature = len(courses) * curvature
        score = score.reshape(3, _ALL)
        curvature = curvature.reshape(_ALL, _ALL)
        return cls(score, curvature)

    def around(self, local: Tensor) -> "NormalEquations":
        """The same where coefficients [3, 10] were already taken out."""
        score = self.score + local @ self.curvature[:_LOCAL]
        return NormalEquations(score, self.curvature)

    def solve(self, prior: float) -> Tensor:
        """Likeliest coefficients [3, 12] under a prior of that rms in Angstrom."""
        precision = _precision(prior, self.score.device)
        system = self.curvature + precision.diag()
        return torch.linalg.solve(system, self.score.T).T

    def likelihood(self, coefficients: Tensor) -> float:
        """Log likelihood of coefficients [3, 12] against none."""
        linear = (self.score * coefficients).sum()
        curved = coefficients @ self.curvature
        quadratic = (curved * coefficients).sum()
        return float(linear - 0.5 * quadratic)

    def evidence(self, prior: float) -> float:
        """Log evidence of a prior, up to a constant."""
        device = self.score.device
        scale = _precision(prior, device).rsqrt()
        unit = torch.eye(_ALL, dtype=torch.float64, device=device)
        scaled = scale[:, None] * self.curvature * scale[None, :]
        spread = unit + scaled
        likeliest = self.solve(prior)
        fit = 0.5 * (self.score * likeliest).sum()
        log_volume = torch.linalg.slogdet(spread).logabsdet
        # Half a volume for each of the three courses
        return float(fit - 1.5 * log_volume)

    def likeliest_prior(self) -> float:
        """The prior's width of the largest evidence; 0 where that is no local motion at all."""
        return max((0.0, *_PRIORS_ANGSTROM), key=self.evidence)


def _precision(prior: float, device: torch.device) -> Tensor:
    """Of the 12 coefficients of a course; a prior of zero lets only the constant move."""
    width = max(prior, _NO_PRIOR_ANGSTROM)
    precision = torch.full((_ALL,), _MEAN_PRIOR_ANGSTROM**-2, dtype=torch.float64)
    precision[:_LOCAL] = width**-2
    return precision.to(device)


def polynomial_courses(frames: int) -> Tensor:
    """[frame, 3]: polynomials of degree 1 to 3 in the frame number, orthogonal to each other and
    the constant, of rms 1.
    """
    z = torch.linspace(-1, 1, frames, dtype=torch.float64)
    degrees = min(3, frames - 1)
    powers = [z**degree for degree in range(degrees + 1)]
    columns = torch.stack(powers, 1)
    basis = torch.linalg.qr(columns).Q
    orthogonal = basis[:, 1:] * math.sqrt(frames)
    # Of movies too short for all three, those left out are zero.
    missing = orthogonal.new_zeros(frames, 3 - degrees)
    return torch.cat((orthogonal, missing), 1)


def mean_power(spectra: Tensor, patches: Patches) -> Tensor:
    """Mean power of a frame, [ring, patch]: no motion taken out of `spectra` [frame, patch, term]
    changes it.
    """
    total = torch.zeros(spectra.shape[1:], device=spectra.device)
    for spectrum in spectra:
        total.addcmul_(spectrum.real, spectrum.real)
        total.addcmul_(spectrum.imag, spectrum.imag)
    return _ring_means(total, patches) / len(spectra)


def _ring_means(values: Tensor, patches: Patches) -> Tensor:
    """Means [ring, patch] of values [patch, term] over the terms of each ring."""
    means = ring_mean(values, patches.ring)
    return means.T.contiguous()


def statistics(spectra: Tensor, patches: Patches, power: Tensor) -> Statistics:
    """Scores and information of spectra [frame, patch, term], for each half of the terms (first
    axis).

    `power` is `mean_power`'s.
    """
    n = len(spectra)
    total = spectra.sum(0)
    signal = _signal(total, n, patches, power)
    noise = power - signal
    # A window keeps this much of the noise's power, whose neighbouring terms are no longer
    # independent: counted fully, they would be worth more than the field (see `patches`).
    kept = float(patches.window.square().mean())
    noise_of_others = noise / (n - 1)
    wiener = signal / (signal + noise_of_others)
    twice = kept * 2 * wiener
    weights = twice / (noise * (n - 1))
    expected = twice * signal / noise
    ring = patches.ring
    weights = weights[ring].T  # [patch, term]
    expected = expected[ring].T
    half = torch.stack((patches.half == 0, patches.half == 1))
    half = half.to(weights)
    scores = _scores(spectra, total, weights, half, patches)
    information = _information(expected, half, patches)
    return Statistics(scores, information)


def _information(expected: Tensor, half: Tensor, patches: Patches) -> Tensor:
    """Information [half, patch, axis, axis] of terms that each add `expected` [patch, term] of it
    per squared phase, in the halves [half, term].
    """
    k = 2 * math.pi * patches.k
    of_y_and_x = half[:, :, None, None] * k[:, :, None] * k[:, None, :]
    products = of_y_and_x.movedim(1, 0)  # [term, half, axis, axis]
    products = products.reshape(-1, 8)
    information = (expected @ products).double()
    information = information.reshape(-1, 2, 2, 2)
    return information.movedim(1, 0)


def _scores(
    spectra: Tensor, total: Tensor, weights: Tensor, half: Tensor, patches: Patches
) -> Tensor:
    """Scores [half, frame, patch, axis] of spectra [frame, patch, term] against their sum `total`,
    each term by its weight [patch, term], in the halves [half, term].
    """
    n, count, _ = spectra.shape
    k = 2 * math.pi * patches.k
    # Im(conj T X) = T.real X.imag - T.imag X.real, for all frames of a patch, both axes and both
    # halves in one product.
    rotated = torch.stack((-total.imag, total.real), -1)
    rotated = rotated * weights[..., None]
    directions = half.T[:, :, None] * k[:, None, :]  # [term, half, axis]
    directions = directions.reshape(-1, 4)
    right = rotated[..., None] * directions[:, None, :]
    right = right.reshape(count, -1, 4)
    parts = torch.view_as_real(spectra)
    parts = parts.reshape(n, count, -1)
    of_patches = []
    for patch in range(count):
        of_patches.append(parts[:, patch] @ right[patch])
    scores = torch.stack(of_patches, 1).double()
    share_of_others = (n - 1) / n
    scores = scores.reshape(n, count, 2, 2)
    scores = scores * -share_of_others
    return scores.permute(2, 0, 1, 3)


def _signal(total: Tensor, n: int, patches: Patches, power: Tensor) -> Tensor:
    """Power of the signal, [ring, patch]: its spectrum is taken from all patches together, but for
    a factor that each patch has of its own.
    """
    ring = patches.ring
    coherent = _ring_means(total.abs().square(), patches)
    of_all = coherent.mean(1)
    mean_power = power.mean(1)
    signal, _ = signal_and_noise(of_all, n, mean_power, ring, copies=len(total))
    signal = signal[:, None]
    own = (coherent / n - power) / (n - 1)
    terms = ring_count(ring, len(signal))
    variance = power.square().clamp(min=1e-30)
    weight = terms[:, None] * signal / variance
    found = (own * weight).sum(0)
    expected = (signal * weight).sum(0)
    expected = expected.clamp(min=1e-30)
    amount = (found / expected).clamp(min=0, max=_MOST_AMOUNT)
    of_patches = signal * amount
    most = _MOST_SIGNAL * power
    return torch.minimum(of_patches, most)


def trusted(total: Statistics, courses: Tensor) -> Tensor:
    """0 for patches that contradict the fit beyond chance and far beyond what the others do, else
    1.

    The misfit of a patch is that of its own coefficients, from its score where the fit put it:
    chi^2 of 6 degrees of freedom.
    """
    own = torch.einsum("fpa,fj->pja", total.scores, courses)
    unit = torch.eye(2, dtype=torch.float64, device=own.device)
    scale = len(courses) * total.information
    scale = scale + 1e-9 * unit
    solved = torch.linalg.solve(scale[:, None], own[..., None])
    solved = solved[..., 0]
    misfit = torch.einsum("pja,pja->p", own, solved)
    is_usual = misfit < _OUTLYING * misfit.median()
    is_by_chance = misfit < _CHI2_LIMIT
    is_trusted = is_by_chance | is_usual
    return is_trusted.double()
