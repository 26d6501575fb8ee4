"""Motion that differs from place to place, by maximum likelihood over overlapping patches of the
frames.

Around the shift of the whole field the motion is taken as u_t(x) = sum_jk c_jk T_j(t) B_k(x): B the
polynomial terms of `dstnet.motion.field` and a constant, T the polynomials of degree 1 to 3 in the
frame number without their mean, which RELION's model can hold. No patch is aligned on its own:
every patch and frame adds its score and its information on the same few coefficients, so that
patches with little in them weigh little, and no threshold has to be passed before they count at
all.

The windows' squares add up to one. A Fourier transform by such windows keeps scalar products (a
tight frame), so the patches' likelihoods add up to that of the field, though they overlap.

The coefficients have a Gaussian prior. Its width is what makes the data likeliest (empirical
Bayes), and the local motion is kept only if coefficients found from one half of the Fourier terms
raise the likelihood of the other half, both ways round: a field that holds too little to tell its
local motion is left with its global shifts.

References
----------
Zheng et al., Nat. Methods 14, 331 (2017), for the polynomial. MacKay, Neural Comput. 4, 415 (1992),
for the choice of a prior by evidence.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dstnet.alignment.movie_motion import MovieMotion
from dstnet.alignment.spectral_snr import ring_mean, ring_numbers, signal_and_noise
from dstnet.core.shapes import Image, Trajectory

# of the distance between patches: the part of each window that it shares with the next one
_OVERLAP = 0.25
_MIN_STEP_ANGSTROM = (
    180.0  # between patches' centres; below, a patch holds too few periods of what a frame shows
)
_MEMORY_BYTES = 400e6  # of all patches' coefficients
_FINEST_ANGSTROM = 8.0  # detail finer than that lowers the error by 4 % and doubles the work
_PRIORS_ANGSTROM = tuple(
    0.02 * 2**i for i in range(10)
)  # rms of the motion over field and frames that one coefficient stands for
_MEAN_PRIOR_ANGSTROM = 10.0  # of the constant, which corrects the global shifts: free
# Fourier terms a side of the squares that the halves are made of; neighbouring terms are not
# independent
_BLOCK = 4
# of log likelihood of the terms left out; movies without local motion reach 0.2, weak ones with it
# 2 to 5
_LEAST_GAIN = 2.0
_OUTLYING = 8.0  # times the median misfit of the patches
_CHI2_LIMIT = 40.0  # of the 6 coefficients of one patch: never by chance
_ITERATIONS = 20
_TOLERANCE_ANGSTROM = 0.01

# One over the rms over [-1, 1]^2 of x, y, x^2 - 1/3, y^2 - 1/3, x y and 1
_TERM_SCALE = torch.tensor([1 / 3, 1 / 3, 4 / 45, 4 / 45, 1 / 9, 1], dtype=torch.float64).rsqrt()


@dataclass(frozen=True)
class Patches:
    """Windows on a binned frame and the Fourier terms kept of each: a half disc without its axes.

    `corners` are the windows' first rows and columns in binned pixels; `window` is one's weights;
    `basis` [patch, 6] the polynomial terms' means over the windows, the constant last, each of rms
    1 over the field; `k` [coefficient, 2] in 1/Angstrom (y, x); `half` says in which half of the
    terms a coefficient is.
    """

    count: tuple[int, int]
    corners: tuple[tuple[int, int], ...]
    window: Image
    rows: Tensor
    columns: Tensor
    k: Tensor
    ring: Tensor
    half: Tensor
    basis: Tensor

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        pixel_angstrom: float,
        frames: int,
        wanted: int,
        highest: float,
        lowest: float,
        device: torch.device,
    ) -> "Patches | None":
        """Up to `wanted` patches a side on binned frames of `shape`, with terms of `lowest` to
        `highest` 1/Angstrom; None: too small.
        """
        count, size, corners = [], [], []
        for n in shape:
            patches = min(wanted, int(n * pixel_angstrom / _MIN_STEP_ANGSTROM - _OVERLAP))
            if patches < 3 or frames < 3:  # a quadratic needs three places
                return None
            side = min(n, 2 * math.ceil(n / (patches + _OVERLAP) * (1 + _OVERLAP) / 2))
            count.append(patches)
            size.append(side)
            corners.append([round(i * (n - side) / (patches - 1)) for i in range(patches)])
        periods = (size[0] * pixel_angstrom, size[1] * pixel_angstrom)
        room = _MEMORY_BYTES / (8 * frames * count[0] * count[1])
        highest = min(highest, math.sqrt(2 * room / (math.pi * periods[0] * periods[1])))
        reach = (int(highest * periods[0]), int(highest * periods[1]))
        y = torch.arange(-reach[0], reach[0] + 1, device=device)[:, None]
        x = torch.arange(1, reach[1] + 1, device=device)[None, :]
        radius = torch.hypot(y / periods[0], x / periods[1])
        keep = (radius <= highest) & (radius >= lowest) & (y != 0)
        y, x, radius = y.expand_as(keep)[keep], x.expand_as(keep)[keep], radius[keep]
        if len(radius) < 64:
            return None
        centre = [
            [2 * (c + (side - 1) / 2) / (n - 1) - 1 for c in cs]
            for cs, side, n in zip(corners, size, shape, strict=True)
        ]
        cy, cx = (
            a.reshape(-1)
            for a in torch.meshgrid(
                *(torch.tensor(c, dtype=torch.float64) for c in centre), indexing="ij"
            )
        )
        windows = [
            _window(side, n, patches, device)
            for side, n, patches in zip(size, shape, count, strict=True)
        ]
        wy, wx = (
            _spread(window) * (2 / (n - 1)) ** 2 for window, n in zip(windows, shape, strict=True)
        )
        basis = (
            torch.stack(
                (cx, cy, cx * cx + wx - 1 / 3, cy * cy + wy - 1 / 3, cx * cy, torch.ones_like(cx)),
                1,
            )
            * _TERM_SCALE
        )
        return cls(
            count=(count[0], count[1]),
            corners=tuple((top, left) for top in corners[0] for left in corners[1]),
            window=windows[0][:, None] * windows[1][None, :],
            rows=y % size[0],
            columns=x,
            k=torch.stack((y / periods[0], x / periods[1]), 1),
            ring=ring_numbers(radius),
            half=(
                torch.div(y, _BLOCK, rounding_mode="floor")
                + torch.div(x, _BLOCK, rounding_mode="floor")
            )
            % 2,
            basis=basis.to(device),
        )

    def coefficients(self, binned: Image) -> Tensor:
        """The kept terms of every patch of a binned frame, [patch, coefficient]: linear in the
        frame.
        """
        height, width = self.window.shape
        cut = torch.stack(
            [binned[top : top + height, left : left + width] for top, left in self.corners]
        )
        cut = (cut - cut.mean((1, 2), keepdim=True)) * self.window
        kept = int(self.columns.max()) + 1  # the other columns need not be transformed along y
        return torch.fft.fft(torch.fft.rfft(cut)[..., :kept], dim=1)[:, self.rows, self.columns]


def _window(size: int, n: int, count: int, device: torch.device) -> Tensor:
    """1 inside; at both ends the quarter of a sine, as long as neighbours overlap, so that the
    squares of neighbours add up to one.
    """
    overlap = max(1, round(size - (n - size) / (count - 1)))
    edge = torch.sin(0.5 * math.pi * (torch.arange(overlap, device=device) + 0.5) / overlap)
    window = torch.ones(size, device=device)
    window[:overlap] *= edge
    window[size - overlap :] *= edge.flip(0)
    return window


def _spread(window: Tensor) -> float:
    """Mean square distance in pixels from the window's centre, weighted as the window weights
    power.
    """
    distance = torch.arange(len(window), device=window.device) - (len(window) - 1) / 2
    return float((window.square() * distance.square()).sum() / window.square().sum())


def finest_frequency(pixel_angstrom: float, resolution_angstrom: float) -> float:
    """Highest frequency in 1/Angstrom that patches of a movie are worth looking at, memory
    permitting.
    """
    return min(1 / max(resolution_angstrom, _FINEST_ANGSTROM), 0.45 / pixel_angstrom)


def refine_by_patches(
    spectra: Tensor,
    patches: Patches,
    shifts_angstrom: Trajectory,
    acceleration_angstrom: float | None,
) -> tuple[MovieMotion, str]:
    """Local motion, and the global shifts once more, from all patches together; with a note of what
    was done.

    Parameters
    ----------
    spectra
        [frame, patch, coefficient], the kept terms of all frames; used up.
    shifts_angstrom
        Global motion, mean over frames zero.
    acceleration_angstrom
        As in the settings.
    """
    frames, basis = len(spectra), patches.basis
    courses = _courses(frames).to(basis)
    field = f"{patches.count[0]} x {patches.count[1]} patches"
    shifts = shifts_angstrom.double()
    for i in range(frames):
        spectra[i] *= _phases(patches.k, shifts_angstrom[i])
    power = _power(spectra, patches)
    scores, information = _statistics(spectra, patches, power)
    if not bool(information.any()):
        return (
            MovieMotion.of_shifts(shifts_angstrom),
            f"local motion left at zero: no signal common to the frames in {field}",
        )
    trust = torch.ones(len(basis), dtype=torch.float64, device=basis.device)
    prior = _likeliest_prior(*_normal(scores.sum(0), information.sum(0), basis, courses, trust))
    gain = 0.0
    for one in (0, 1):  # coefficients from one half of the terms, judged by the other
        known = _normal(scores[one], information[one], basis, courses, trust)
        judge = _normal(scores[1 - one], information[1 - one], basis, courses, trust)
        gain += _likelihood(*judge, _solve(*known, prior)) - _likelihood(
            *judge, _solve(*known, 0.0)
        )
    is_local = prior > 0 and gain >= _LEAST_GAIN
    local = torch.zeros(3, 10, dtype=torch.float64, device=basis.device)
    for _ in range(_ITERATIONS):
        total_score, total_information = scores.sum(0), information.sum(0)
        step = torch.zeros_like(local)
        if is_local:
            if bool(local.any()):
                trust = _trust(total_score, total_information, courses)
            score, curvature = _normal(total_score, total_information, basis, courses, trust)
            score[:, :] += local @ curvature[:10]  # the score where the coefficients are zero
            prior = _likeliest_prior(score, curvature)
            step = _solve(score, curvature, prior)[:, :10] - local
        moved = torch.einsum("fj,jka,pk->fpa", courses, step.reshape(3, 5, 2), basis[:, :5])
        at_mean = torch.einsum(
            "fpa,p->fa", total_score - torch.einsum("pab,fpb->fpa", total_information, moved), trust
        )
        shift = _shift_step(
            at_mean,
            torch.einsum("pab,p->ab", total_information, trust),
            shifts,
            acceleration_angstrom,
        )
        moved = moved + shift[:, None]
        local, shifts = local + step, shifts + shift
        for i in range(frames):
            spectra[i] *= _phases(patches.k, moved[i].float())
        if float(moved.norm(dim=-1).max()) < _TOLERANCE_ANGSTROM:
            break
        scores, information = _statistics(spectra, patches, power)
    shifts = (shifts - shifts.mean(0)).float()
    if not is_local:
        note = (
            f"local motion left at zero: {field} hold too little to tell it (log likelihood of the"
            f" terms left out {gain:+.1f})"
        )
        return MovieMotion.of_shifts(shifts), note
    courses_of_terms = torch.einsum("fj,jka->fak", courses, local.reshape(3, 5, 2))
    rms = float(courses_of_terms.square().sum(-1).mean().sqrt())
    left_out = int((trust == 0).sum())
    note = f"local motion of {rms:.2f} Å rms an axis from {field}" + (
        f", {left_out} of them left out as outliers" if left_out else ""
    )
    return MovieMotion(shifts, (courses_of_terms * _TERM_SCALE[:5].to(courses)).float()), note


def _shift_step(
    score: Tensor, information: Tensor, shifts: Tensor, acceleration: float | None
) -> Tensor:
    """Step of the global shifts [frame, 2] on the log likelihood with the prior on their second
    differences; mean zero.
    """
    n = len(shifts)
    ridge = 1e-6 * torch.eye(2, dtype=torch.float64, device=shifts.device)
    if acceleration is None:
        step = torch.linalg.solve(information + ridge, score.T).T
        return step - step.mean(0)
    second = torch.eye(n, dtype=torch.float64, device=shifts.device).diff(n=2, dim=0) / acceleration
    smooth = second.T @ second
    one = torch.eye(n, dtype=torch.float64, device=shifts.device)
    system = torch.kron(one, information + ridge) + torch.kron(
        smooth, torch.eye(2, dtype=torch.float64, device=shifts.device)
    )
    step = torch.linalg.solve(system, (score - smooth @ shifts).reshape(-1)).reshape(n, 2)
    return step - step.mean(0)


def _courses(frames: int) -> Tensor:
    """[frame, 3]: polynomials of degree 1 to 3 in the frame number, orthogonal to each other and
    the constant, of rms 1.
    """
    z = torch.linspace(-1, 1, frames, dtype=torch.float64)
    degrees = min(3, frames - 1)
    q = torch.linalg.qr(torch.stack([z**i for i in range(degrees + 1)], 1)).Q[:, 1:] * math.sqrt(
        frames
    )
    return torch.cat((q, q.new_zeros(frames, 3 - degrees)), 1)


def _phases(k: Tensor, shift: Tensor) -> Tensor:
    """exp(2 pi i k.u): what takes content displaced by u = `shift`, (y, x) or [patch, 2] in
    Angstrom, back; [coefficient] or [patch, .].
    """
    angle = 2 * math.pi * (shift @ k.T)
    return torch.polar(torch.ones((), device=angle.device), angle)


def _power(spectra: Tensor, patches: Patches) -> Tensor:
    """Mean power of a frame, [ring, patch]: no motion taken out of `spectra` changes it."""
    total = torch.zeros(spectra.shape[1:], device=spectra.device)
    for spectrum in spectra:
        total.addcmul_(spectrum.real, spectrum.real).addcmul_(spectrum.imag, spectrum.imag)
    return ring_mean(total.T, patches.ring) / len(spectra)


def _statistics(spectra: Tensor, patches: Patches, power: Tensor) -> tuple[Tensor, Tensor]:
    """Score of every frame's shift, [half, frame, patch, 2], and information on it, [half, patch,
    2, 2], in 1/Angstrom and 1/Angstrom^2.

    The spectrum of the signal is taken from all patches together, but for a factor that each patch
    has of its own. `power` is `_power`'s.
    """
    n, count, _ = spectra.shape
    total = spectra.sum(0)
    rings = patches.ring
    coherent = ring_mean(total.abs().square().T, rings)
    signal, _ = signal_and_noise(coherent.mean(1), n, power.mean(1), rings, copies=count)
    own = (coherent / n - power) / (n - 1)
    weight = (
        torch.bincount(rings, minlength=len(signal))[:, None]
        * signal[:, None]
        / power.square().clamp(min=1e-30)
    )
    amount = ((own * weight).sum(0) / (signal[:, None] * weight).sum(0).clamp(min=1e-30)).clamp(
        min=0, max=10
    )
    signal = torch.minimum(signal[:, None] * amount, 0.99 * power)
    noise = power - signal
    # A window keeps this much of the noise's power, whose neighbouring terms are no longer
    # independent: counted fully, they would be worth more than the field (see above).
    kept = float(patches.window.square().mean())
    wiener = signal / (signal + noise / (n - 1))
    weights = (kept * 2 * wiener / (noise * (n - 1)))[rings].T  # [patch, coefficient]
    expected = (kept * 2 * wiener * signal / noise)[rings].T
    k = 2 * math.pi * patches.k
    # Im(conj T X) = T.real X.imag - T.imag X.real, for all frames of a patch, both axes and both
    # halves in one product.
    turned = (
        torch.stack((-total.imag, total.real), -1) * weights[..., None]
    )  # [patch, coefficient, 2]
    half = torch.stack((patches.half == 0, patches.half == 1)).to(weights)
    directions = (half.T[:, :, None] * k[:, None, :]).reshape(-1, 4)  # [coefficient, (half, axis)]
    right = (turned[..., None] * directions[:, None, :]).reshape(count, -1, 4)
    each = torch.view_as_real(spectra).reshape(n, count, -1)
    scores = torch.stack([each[:, p] @ right[p] for p in range(count)], 1).double().reshape(
        n, count, 2, 2
    ) * (-(n - 1) / n)
    products = (half[:, :, None, None] * k[:, :, None] * k[:, None, :]).movedim(1, 0).reshape(-1, 8)
    information = (expected @ products).double().reshape(count, 2, 2, 2).movedim(1, 0)
    return scores.permute(2, 0, 1, 3), information


def _normal(
    scores: Tensor, information: Tensor, basis: Tensor, courses: Tensor, trust: Tensor
) -> tuple[Tensor, Tensor]:
    """Score [3, 12] and curvature [12, 12], the same for each course, of the coefficients: term
    slow, axis fast.
    """
    score = torch.einsum("fpa,fj,pk,p->jka", scores, courses, basis, trust).reshape(3, 12)
    curvature = len(courses) * torch.einsum(
        "pab,pk,pl,p->kalb", information, basis, basis, trust
    ).reshape(12, 12)
    return score, curvature


def _precision(prior: float, device: torch.device) -> Tensor:
    """Of the 12 coefficients of a course; a prior of zero lets only the constant move."""
    local = torch.full((10,), max(prior, 1e-6) ** -2, dtype=torch.float64)
    return torch.cat((local, torch.full((2,), _MEAN_PRIOR_ANGSTROM**-2, dtype=torch.float64))).to(
        device
    )


def _solve(score: Tensor, curvature: Tensor, prior: float) -> Tensor:
    """Likeliest coefficients [3, 12]."""
    return torch.linalg.solve(curvature + _precision(prior, score.device).diag(), score.T).T


def _likelihood(score: Tensor, curvature: Tensor, coefficients: Tensor) -> float:
    """Log likelihood of coefficients against none, to second order."""
    return float(
        (score * coefficients).sum() - 0.5 * (coefficients @ curvature * coefficients).sum()
    )


def _likeliest_prior(score: Tensor, curvature: Tensor) -> float:
    """The prior's width of the largest evidence; 0 where that is no local motion at all."""

    def evidence(prior: float) -> float:
        precision = _precision(prior, score.device)
        scale = precision.rsqrt()
        spread = (
            torch.eye(12, dtype=torch.float64, device=score.device)
            + scale[:, None] * curvature * scale[None, :]
        )
        return float(
            0.5 * (score * _solve(score, curvature, prior)).sum()
            - 1.5 * torch.linalg.slogdet(spread).logabsdet
        )

    return max((0.0, *_PRIORS_ANGSTROM), key=evidence)


def _trust(scores: Tensor, information: Tensor, courses: Tensor) -> Tensor:
    """0 for patches that contradict the fit beyond chance and far beyond what the others do, else
    1.

    The misfit of a patch is that of its own coefficients, from its score where the fit put it:
    chi^2 of 6 degrees of freedom.
    """
    own = torch.einsum("fpa,fj->pja", scores, courses)
    scale = len(courses) * information + 1e-9 * torch.eye(
        2, dtype=torch.float64, device=scores.device
    )
    misfit = torch.einsum(
        "pja,pja->p", own, torch.linalg.solve(scale[:, None], own[..., None])[..., 0]
    )
    return ((misfit < _CHI2_LIMIT) | (misfit < _OUTLYING * misfit.median())).double()
