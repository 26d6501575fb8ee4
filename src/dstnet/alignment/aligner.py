"""Spectra of frames aligned with each other: peaks of their correlation, then Gauss-Newton."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dstnet.alignment.band import Band
from dstnet.alignment.settings import AlignmentSettings
from dstnet.alignment.smoothness import likeliest_step
from dstnet.alignment.spectral_snr import signal_and_noise
from dstnet.core.fourier import ring_mean
from dstnet.core.shapes import Image

_SIGNIFICANT_PEAK = 6.0  # standard deviations; noise alone passes it once in 1e9 positions
_SEARCHES = 4


class Aligner:
    """The state of the estimation: spectra with the motion known so far taken out, F_t exp(2 pi i
    k.u_t).

    Parameters
    ----------
    spectra
        [frame, term]; changed.
    band
        The terms kept.
    settings
        How to estimate.

    Attributes
    ----------
    shifts
        Motion known so far, [frame, 2] in Angstrom, (y, x), mean zero.
    """

    def __init__(self, spectra: Tensor, band: Band, settings: AlignmentSettings) -> None:
        self.spectra = spectra
        self.band = band
        self.settings = settings
        self.shifts = torch.zeros(len(spectra), 2, device=spectra.device)
        self.signal_is_known = False

    def align_groups(self, size: int, radius: float, limit: float) -> None:
        """Align groups of `size` neighbouring frames, each within `radius` of where it is and
        `limit` of the mean position (Angstrom).
        """
        n = len(self.spectra)
        if size == 1:
            acceleration = self.settings.acceleration_angstrom
            self._align(self.spectra, self.shifts, radius, limit, acceleration)
            return
        count = math.ceil(n / size)
        groups = torch.arange(n).tensor_split(count)
        spectra = _group_means(self.spectra, groups)
        before = _group_means(self.shifts, groups)
        after = before.clone()
        self._align(spectra, after, radius, limit, None)
        centres = [group.float().mean() for group in groups]
        frame_numbers = torch.stack(centres).to(self.shifts)
        further = _interpolate(frame_numbers, after - before, n)
        self._move(self.spectra, self.shifts, further)

    def _align(
        self,
        spectra: Tensor,
        shifts: Tensor,
        radius: float,
        limit: float,
        acceleration: float | None,
    ) -> None:
        """Align `spectra` with each other in place, adding to `shifts` in place."""
        ring = self.band.ring
        powers = [ring_mean(spectrum.abs().square(), ring) for spectrum in spectra]
        power = torch.stack(powers).mean(0)
        step = self.band.step
        for _ in range(_SEARCHES):
            delta = self._search(spectra, shifts, power, radius, limit)
            longest = self._move(spectra, shifts, delta)
            if longest <= step:
                break
        for _ in range(self.settings.iterations):
            delta = self._newton(spectra, shifts, power, acceleration)
            length = delta.norm(dim=1, keepdim=True).clamp(min=1e-12)
            # A correlation peak is about a step wide.
            shortened = (step / length).clamp(max=1)
            longest = self._move(spectra, shifts, delta * shortened)
            if longest < self.settings.tolerance_angstrom:
                break

    def _move(self, spectra: Tensor, shifts: Tensor, delta: Tensor) -> float:
        """Take a further displacement out of `spectra`, keeping the mean at zero; returns the
        longest.
        """
        mean = (shifts + delta).mean(0)
        delta = delta - mean
        shifts += delta
        for spectrum, further in zip(spectra, delta, strict=True):
            if further.abs().max() > 0:
                spectrum *= self.band.phases(further)
        lengths = delta.norm(dim=1)
        return float(lengths.max())

    def _weights(self, total: Tensor, n: int, power: Tensor) -> tuple[Tensor, Tensor]:
        """Weights that make conj(sum of others) X a log likelihood, and what each term then adds at
        the true position.

        With R = w * mean of the others, w the Wiener filter S / (S + N / (n - 1)), the log
        likelihood of X is 2 Re(conj R X) / N.
        """
        ring = self.band.ring
        total_power = ring_mean(total.abs().square(), ring)
        signal, noise = signal_and_noise(total_power, n, power, ring)
        noise_of_others = noise / (n - 1)
        wiener = signal / (signal + noise_of_others)
        weights = 2 * wiener / (noise * (n - 1))
        expected = 2 * wiener * signal / noise
        return weights[ring], expected[ring]

    def _first_weights(self, power: Tensor) -> Tensor:
        """Weights of the first search, before the signal is known."""
        k2 = self.band.k.square().sum(1)
        fall_off = torch.exp(-0.5 * self.settings.b_factor_angstrom2 * k2)
        return fall_off / power[self.band.ring]

    def _search(
        self, spectra: Tensor, shifts: Tensor, power: Tensor, radius: float, limit: float
    ) -> Tensor:
        """Displacement of each spectrum from the sum of the others at the peak of their
        correlation, on the map's grid.
        """
        n = len(spectra)
        total = spectra.sum(0)
        is_first = not self.signal_is_known
        self.signal_is_known = True
        if is_first:
            weights = self._first_weights(power)
        else:
            weights, _ = self._weights(total, n, power)
        places = _MapPlaces(self.band, radius)
        distance2 = places.distance2()
        # Weak data stay where the coarser groups put them.
        prior = 0.5 * distance2 / (radius / 2) ** 2
        is_near = distance2 <= radius**2
        delta = torch.zeros_like(shifts)
        for i, spectrum in enumerate(spectra):
            others = (total - spectrum).conj() * weights
            score = places.correlation(others * spectrum)
            if is_first:
                variance = others.abs().square() * power[self.band.ring]
                deviation = (2 * variance.sum()).sqrt()
                score = score / deviation.clamp(min=1e-30)
            else:
                score = score - prior
            from_mean2 = places.distance2(shifts[i])
            is_allowed = is_near & (from_mean2 <= limit**2)
            score = torch.where(is_allowed, score, -math.inf)
            best = score.argmax()
            highest = score.view(-1)[best]
            # In the first search noise must not pass for a peak; and a constant map has its first
            # element as its peak.
            if is_first:
                is_peak = highest >= _SIGNIFICANT_PEAK
            else:
                is_peak = highest > score[places.centre]
            if is_peak:
                delta[i] = places.at(int(best))
        # All move at once, towards the mean of the others.
        share_of_others = (n - 1) / n
        return delta * share_of_others

    def _newton(
        self, spectra: Tensor, shifts: Tensor, power: Tensor, acceleration: float | None
    ) -> Tensor:
        """One Gauss-Newton step of all spectra on the log likelihood, with the prior on the second
        differences of the motion.

        The gradient at zero is -2 pi sum k Im(conj R X); a spectrum's own part of R is real there
        and drops out, so that the sum of all serves as the sum of the others.
        """
        n = len(spectra)
        total = spectra.sum(0)
        weights, expected = self._weights(total, n, power)
        k = 2 * math.pi * self.band.k
        # Im(conj T X) = T.real X.imag - T.imag X.real: one real matrix product for all spectra.
        rotated = torch.stack((-total.imag, total.real), 1)
        rotated = rotated * weights[:, None]
        directions = rotated[:, :, None] * k[:, None, :]
        directions = directions.reshape(-1, 2)
        parts = torch.view_as_real(spectra)
        parts = parts.reshape(n, -1)
        gradient = (-parts @ directions).double()
        share_of_others = (n - 1) / n
        gradient = gradient * share_of_others
        weighted_k = k * expected[:, None]
        curvature = (weighted_k.T @ k).double()
        unit = torch.eye(2, dtype=torch.float64, device=k.device)
        # Shifts are known to be within this of zero: no direction is without curvature.
        curvature = curvature + unit / self.settings.max_shift_angstrom**2
        step = likeliest_step(gradient, curvature, shifts, acceleration)
        return step.to(shifts)


class _MapPlaces:
    """Places of a map of correlations that are looked at: up to a radius from its centre.

    Attributes
    ----------
    y, x
        In Angstrom, [y, 1] and [1, x].
    centre
        Index of the place where nothing moves.
    """

    def __init__(self, band: Band, radius: float) -> None:
        height, width = band.grid
        field_y, field_x = band.field
        ys = _steps_within(radius, height, field_y).to(band.k.device)
        xs = _steps_within(radius, width, field_x).to(band.k.device)
        y = ys * field_y / height
        x = xs * field_x / width
        self.y = y[:, None]
        self.x = x[None, :]
        self.centre = (len(ys) // 2, len(xs) // 2)
        self._rows = ys % height
        self._columns = xs % width
        self._band = band
        periods = (band.k[:, 0] * field_y).round().long()
        self._term_rows = periods % height

    def distance2(self, moved_by: Tensor | None = None) -> Tensor:
        """Squared distance from the centre of each place, or of each one moved by a shift [2];
        [y, x] in Angstrom^2.
        """
        y = self.y
        x = self.x
        if moved_by is not None:
            y = y + moved_by[0]
            x = x + moved_by[1]
        return y.square() + x.square()

    def correlation(self, products: Tensor) -> Image:
        """The map [y, x] of the terms' products."""
        height, width = self._band.grid
        shape = (height, width // 2 + 1)
        spectrum = torch.zeros(shape, dtype=products.dtype, device=products.device)
        spectrum[self._term_rows, self._band.columns] = products
        score = torch.fft.irfft2(spectrum, s=(height, width), norm="forward")
        rows = score[self._rows]
        return rows[:, self._columns]

    def at(self, index: int) -> Tensor:
        """A place (y, x) by its flat index."""
        row, column = divmod(index, self.x.shape[1])
        return torch.stack((self.y[row, 0], self.x[0, column]))


def _steps_within(radius: float, places: int, field: float) -> Tensor:
    """Steps from the centre of one axis of a map, of `places` over `field` Angstrom, up to a radius
    in Angstrom.
    """
    reach = int(radius / field * places) + 1
    reach = min(reach, places // 2 - 1)
    return torch.arange(-reach, reach + 1)


def _group_means(values: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """Means of values [frame, ...] over groups of neighbouring frames, given by their numbers."""
    means = []
    for group in groups:
        first = int(group[0])
        end = int(group[-1]) + 1
        means.append(values[first:end].mean(0))
    return torch.stack(means)


def _interpolate(centres: Tensor, values: Tensor, n: int) -> Tensor:
    """Values [group, 2] given at frame numbers `centres`, for frames 0 .. n-1: linear between,
    constant beyond the ends.
    """
    frames = torch.arange(n, device=values.device, dtype=values.dtype)
    frames = frames.clamp(centres[0], centres[-1])
    left = torch.searchsorted(centres, frames, right=True) - 1
    left = left.clamp(0, len(centres) - 2)
    right = left + 1
    distance = centres[right] - centres[left]
    part = (frames - centres[left]) / distance
    part = part[:, None]
    of_left = values[left] * (1 - part)
    of_right = values[right] * part
    return of_left + of_right
