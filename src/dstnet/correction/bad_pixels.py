"""Hot and dead pixels, in the mean of frames; and what bad pixels are replaced with."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter, uniform_filter

# Of the choice of neighbours; any number, the same for ever, so that a movie gives the same bytes
# again.
SEED = 20240117

# Standard deviation of a normal distribution cut at its 1st and 99th percentile, over that of the
# complete one.
_TRIMMED = 0.9346
_RING = 3  # pixels are compared with those up to this far away: 48 neighbours
_SIDE = 2 * _RING + 1
_ROWS_AT_ONCE = 64  # so many stay in the processor's cache
_PIXELS_AT_ONCE = 20_000
_SAMPLE = 50_000
_CLIP_SIGMAS = 8.0
_NEAR = 0.6  # of the threshold, by which a bad pixel differs from four fifths of its neighbours
_STRIPE_ROWS = 64

_CHOICES = 8
_LEAST_SOURCES = 4
_RADII = (2, 4, 8, 16)
_PLACES_AT_ONCE = 2_000_000


def trimmed_mean_std(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, whatever up to 1 % of the values on either side are. Few counts
    are too coarse for medians.
    """
    low, high = np.percentile(values, (1, 99))
    is_usual = (values >= low) & (values <= high)
    usual = values[is_usual]
    mean = usual.mean(dtype=np.float64)
    deviation = usual.std(dtype=np.float64)
    return float(mean), float(deviation) / _TRIMMED


# Pixels of 1e38 make sums infinite: they are found all the same.
@np.errstate(over="ignore", invalid="ignore")
def find_bad_pixels(
    mean: np.ndarray,
    sigmas: float = 6.0,
    known: np.ndarray | None = None,
    frames: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Hot and dead pixels in the mean of frames, as two masks [y, x].

    A pixel is bad where it differs by `sigmas` deviations of the noise from the median of its 48
    neighbours, and by 0.6 of that from four fifths of them: at the edge of gold or carbon, and on
    any detail more than a pixel or two wide, more than a fifth of the neighbours are alike. The
    noise is measured in the image, grows as the root of the local mean, and has the longer tail of
    counts. So a dead pixel is found from about 25 electrons in all frames together (40, where
    values are no electron counts). Columns and rows, or parts of 64 pixels and more, are bad where
    their mean is off by half. Not found: spots of more than 3 x 3 pixels, stripes wider than 4,
    pixels stuck at the usual mean, pixels of odd sensitivity within the noise.

    Parameters
    ----------
    mean
        Mean of frames [y, x], corrected.
    sigmas
        Threshold.
    known
        Pixels known to be bad, which are not compared with and not reported again.
    frames
        How many the mean is of: tells whether values are single electrons.
    """
    hot = np.zeros(mean.shape, bool)
    dead = np.zeros(mean.shape, bool)
    if known is None:
        known = np.zeros(mean.shape, bool)
    if known.mean() > 0.5 or min(mean.shape) < _SIDE:
        return hot, dead
    sample = _sample_of_good(known)
    values = mean.reshape(-1)[sample]
    centre, spread = trimmed_mean_std(values)
    reach = _CLIP_SIGMAS * spread
    clipped = np.clip(mean, centre - reach, centre + reach, dtype=np.float32)
    clipped = _filled(clipped, known)
    lowest = float(np.percentile(values, 1))
    are_counts = centre > 0 and lowest >= 0
    if are_counts:
        hot, dead = _bad_stripes(clipped, known, spread, sigmas)
        if hot.any() or dead.any():  # or pixels beside stripes would be compared with them
            known = known | hot | dead
            clipped = _filled(clipped, known)
    compared = mean
    if known.any():
        compared = np.where(known, clipped, mean)
    padded = np.pad(compared, _RING, mode="reflect")
    padded = padded.astype(np.float32, copy=False)
    usual, _, _ = _neighbours(padded, sample)
    _, noise = trimmed_mean_std(values - usual)
    if not noise > 0:
        return hot, dead
    thresholds = _Thresholds(sigmas, noise, centre, are_counts, frames)
    local = uniform_filter(clipped, _SIDE, mode="nearest")
    candidates = _candidates(mean, local, known, thresholds)
    chunks = len(candidates) // _PIXELS_AT_ONCE + 1
    for chunk in np.array_split(candidates, chunks):
        is_hot, is_dead = _judged(mean, padded, chunk, thresholds)
        hot.reshape(-1)[chunk] = is_hot
        dead.reshape(-1)[chunk] = is_dead
    hot &= ~dead
    return hot, dead


def _judged(
    mean: np.ndarray, padded: np.ndarray, pixels: np.ndarray, thresholds: "_Thresholds"
) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels (flat indices) of the mean are hot and which are dead, by their neighbours in
    the padded image.
    """
    usual, low, high = _neighbours(padded, pixels)
    above, below = thresholds(usual)
    value = mean.reshape(-1)[pixels]
    difference = value - usual
    is_above = difference > above
    is_above_most = value - high > above * _NEAR
    is_below = difference < -below
    is_below_most = value - low < -below * _NEAR
    is_hot = is_above & is_above_most
    is_dead = is_below & is_below_most
    return is_hot, is_dead


def _sample_of_good(bad: np.ndarray) -> np.ndarray:
    """Some pixels that are not bad (flat indices), the same for ever."""
    good = np.flatnonzero(~bad)
    rng = np.random.default_rng(SEED)
    return good[rng.integers(0, good.size, _SAMPLE)]


@dataclass(frozen=True)
class _Thresholds:
    """How far above and below its surroundings a pixel is bad.

    Attributes
    ----------
    sigmas
        Threshold in standard deviations.
    noise
        Standard deviation of a pixel of the usual mean.
    centre
        The usual mean.
    are_counts
        Whether values have a zero level and no negative ones.
    frames
        How many frames the values are a mean of.
    """

    sigmas: float
    noise: float
    centre: float
    are_counts: bool
    frames: int

    def __call__(self, around: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Above and below pixels that are `around`."""
        sigmas = self.sigmas
        noise = self.noise
        if not self.are_counts:
            # No zero level, so nothing to tell the tail by; events in thin sensors have long ones.
            above = np.full_like(around, 2 * sigmas * noise)
            below = np.full_like(around, sigmas * noise)
            return above, below
        # Quantile of a Poisson distribution to the first order in its skewness (Cornish & Fisher
        # 1938): s sigma + (s^2 - 1) / 6 counts, a count being variance / mean. Up to 1/4 where each
        # electron's signal varies exponentially.
        relative = np.maximum(around / self.centre, 0.25)
        deviation = np.sqrt(relative)
        width = sigmas * noise * deviation
        count = noise**2 / self.centre
        # Else zero may be no true zero, as in scaled images.
        are_electrons = 0.7 < count * self.frames < 1.5
        relief = 0.0
        if are_electrons:
            relief = sigmas**2 / 6 * count
        # Below, no threshold that zero counts reach by chance: exp(-n) = exp(-s^2 / 2) for n counts
        # expected.
        least = sigmas**2 / 2 * count
        below = np.maximum(width - relief, least)
        above = width + sigmas**2 / 4 * count
        return above, below


def _candidates(
    mean: np.ndarray, local: np.ndarray, known: np.ndarray, thresholds: _Thresholds
) -> np.ndarray:
    """Pixels (flat indices) that are so far from their surroundings' mean that they may be bad."""
    # Thresholds grow with the local mean: most pixels stay within those of none at all, and need
    # none of their own.
    none = np.zeros(1, np.float32)
    least = thresholds(none)
    height, width = mean.shape
    parts = []
    for start in range(0, height, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        difference = mean[rows] - local[rows]
        is_outside = _is_outside(difference, least)
        places = np.flatnonzero(is_outside)
        parts.append(places + start * width)
    candidates = np.concatenate(parts)
    is_known = known.reshape(-1)[candidates]
    candidates = candidates[~is_known]
    around = local.reshape(-1)[candidates]
    difference = mean.reshape(-1)[candidates] - around
    is_outside = _is_outside(difference, thresholds(around))
    return candidates[is_outside]


def _is_outside(difference: np.ndarray, thresholds: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    above, below = thresholds
    is_above = difference > _NEAR * above
    is_below = difference < -_NEAR * below
    return is_above | is_below


def _neighbours(
    padded: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median, 1st and 4th quintile of the neighbours of pixels (flat index into the unpadded
    image).
    """
    stride = padded.shape[1]
    width = stride - 2 * _RING
    row, column = np.divmod(places, width)
    start = row * stride + column
    steps = np.arange(_SIDE)
    offsets = steps[:, None] * stride + steps
    offsets = np.delete(offsets, offsets.size // 2)  # the pixel itself
    neighbours = start[:, None] + offsets
    around = padded.reshape(-1)[neighbours]
    around = np.sort(around, axis=1)
    n = around.shape[1]
    fifth = n // 5
    median = around[:, n // 2]
    low = around[:, fifth]
    high = around[:, n - 1 - fifth]
    return median, low, high


def _bad_stripes(
    image: np.ndarray, known: np.ndarray, noise: float, sigmas: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of columns and rows that are too bright and too dark, as two masks [y, x]."""
    hot = np.zeros(image.shape, bool)
    dead = np.zeros(image.shape, bool)
    # Views with the stripes upright: a mask's view changes the mask.
    columns = (image, hot, dead, known)
    rows = (image.T, hot.T, dead.T, known.T)
    for upright, bright, dark, left_out in (columns, rows):
        is_bright, is_dark, lengths = _odd_pieces(upright, noise, sigmas)
        _add_pieces(bright, is_bright, lengths, left_out)
        _add_pieces(dark, is_dark, lengths, left_out)
    return hot, dead


def _add_pieces(
    mask: np.ndarray, pieces: np.ndarray, lengths: np.ndarray, left_out: np.ndarray
) -> None:
    """Mark the pixels of pieces [piece, x] of so many rows each, but those left out, in a mask
    [y, x].
    """
    if pieces.any():
        pixels = pieces.repeat(lengths, axis=0)
        mask |= pixels & ~left_out


def _odd_pieces(
    image: np.ndarray, noise: float, sigmas: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where columns, in pieces of about 64 rows, are too bright and too dark, [piece, x]; and the
    rows of each piece, [piece].
    """
    height = image.shape[0]
    number = max(height // _STRIPE_ROWS, 1)
    starts = np.arange(number) * _STRIPE_ROWS
    ends = np.append(starts[1:], height)
    rows = ends - starts
    totals = np.add.reduceat(image, starts, axis=0)
    means = totals / rows[:, None].astype(np.float32)
    around = median_filter(means, (1, 11), mode="reflect")
    error = noise / np.sqrt(rows)
    half = 0.5 * around
    limit = np.maximum(half, sigmas * error[:, None])
    is_off = np.abs(means - around) > limit
    is_bright = is_off & (means > around)
    is_dark = is_off & (means < around)
    return is_bright, is_dark, rows


def _filled(image: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """`image` with `holes` filled with means of pixels around them."""
    if not holes.any():
        return image
    targets, sources = replacement_table(holes)
    image = image.copy()
    flat = image.reshape(-1)
    flat[targets] = flat[sources].mean(1)
    return image


def replacement_table(bad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bad pixels [n] and good pixels [n, 8] to fill each from, as flat indices.

    A value drawn at random from a good neighbour, anew in each frame, has the right mean and the
    right noise; a mean of neighbours would leave a smooth spot, which aligns frames on the sensor.
    Neighbours are at most 2 pixels away, in wider defects 4, 8 or 16, and beyond that anywhere:
    nothing is left there to continue.
    """
    targets = np.flatnonzero(bad)
    good = np.flatnonzero(~bad)
    rng = np.random.default_rng(SEED)
    sources = rng.choice(good, (targets.size, _CHOICES))
    remaining = np.arange(targets.size)
    for radius in _RADII:
        side = 2 * radius + 1
        square = np.indices((side, side))
        offsets = square.reshape(2, -1) - radius
        places = remaining.size * side * side
        chunks = places // _PLACES_AT_ONCE + 1
        later = []
        for chunk in np.array_split(remaining, chunks):
            is_filled = _choose_sources(bad, targets, sources, chunk, offsets, rng)
            later.append(chunk[~is_filled])
        remaining = np.concatenate(later)
        if not remaining.size:
            break
    return targets, sources


def _choose_sources(
    bad: np.ndarray,
    targets: np.ndarray,
    sources: np.ndarray,
    chunk: np.ndarray,
    offsets: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Write the sources of those targets in `chunk` that have enough good pixels at `offsets`, [2,
    place] in (y, x); returns which have.
    """
    height, width = bad.shape
    row, column = np.divmod(targets[chunk, None], width)
    y = row + offsets[0]
    x = column + offsets[1]
    nearest_y = y.clip(0, height - 1)
    nearest_x = x.clip(0, width - 1)
    is_row = y == nearest_y
    is_column = x == nearest_x
    is_good = ~bad[nearest_y, nearest_x]
    is_usable = is_row & is_column & is_good
    usable = is_usable.sum(1)
    is_enough = usable >= _LEAST_SOURCES
    # The usable ones first, in random order; then as many as asked for, round and round.
    draws = rng.random(is_usable.shape)
    draws = draws + ~is_usable
    order = np.argsort(draws, axis=1)
    most = np.minimum(usable[is_enough], _CHOICES)
    turn = np.arange(_CHOICES) % most[:, None]
    pick = np.take_along_axis(order[is_enough], turn, 1)
    places = y * width + x
    filled = chunk[is_enough]
    sources[filled] = np.take_along_axis(places[is_enough], pick, 1)
    return is_enough
