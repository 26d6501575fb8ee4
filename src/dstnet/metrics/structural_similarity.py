"""Whether an image looks like a truth, window by window."""

import numpy as np
from scipy import ndimage

from dstnet.core.shapes import Image
from dstnet.metrics.image import fitted

# Of Wang et al. 2004: a Gaussian window of 11 x 11 pixels, and what keeps the ratios finite.
SIGMA_PX, REACH_PX = 1.5, 5
OF_MEANS, OF_DEVIATIONS = 0.01, 0.03


def structural_similarity(image: Image, truth: Image) -> float:
    """Mean structural similarity (Wang et al., IEEE Trans. Image Process. 13, 600 (2004)).

    Both are brought to where the truth goes from 0 to 1, the image by least squares, since its
    scale and mean are free: the range is that of the truth's values.

    Where the truth's deviation within a window is small against a 33rd of its range, as between
    particles, any flat image is similar to it: compare with what a constant image scores.

    Parameters
    ----------
    image, truth
        [y, x], of one shape, at least 11 pixels a side.

    Returns
    -------
    float
        1 for a perfect image; 0 where the truth is constant.
    """
    low = truth.min()
    spread = truth.max() - low
    if not spread > 0:
        return 0.0
    a = ((fitted(image, truth) - low) / spread).cpu().numpy().astype(np.float64)
    b = ((truth - low) / spread).cpu().numpy().astype(np.float64)
    mean_a, mean_b = _windows(a), _windows(b)
    of_a = _windows(a * a) - mean_a**2
    of_b = _windows(b * b) - mean_b**2
    shared = _windows(a * b) - mean_a * mean_b
    c1, c2 = OF_MEANS**2, OF_DEVIATIONS**2
    of_means = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    of_structure = (2 * shared + c2) / (of_a + of_b + c2)
    return float((of_means * of_structure).mean())


def _windows(image: np.ndarray) -> np.ndarray:
    """Weighted means of all windows that lie inside the image, [y, x]."""
    means = ndimage.gaussian_filter(image, SIGMA_PX, radius=REACH_PX)
    return means[REACH_PX:-REACH_PX, REACH_PX:-REACH_PX]
