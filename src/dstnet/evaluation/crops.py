"""What is kept of images to look at."""

import numpy as np
import torch

from dstnet.core.shapes import Image
from dstnet.evaluation.records import CROP_PX


def middle(image: Image) -> Image:
    """The middle of an image, at most `CROP_PX` a side."""
    rows, columns = (slice(max(0, (n - CROP_PX) // 2), (n + CROP_PX) // 2) for n in image.shape)
    return image[rows, columns]


def crop_of(image: Image, total: Image) -> np.ndarray:
    """The middle of an image, float16, in units of the plain sum's deviation about its mean: scaled
    and shifted so that it explains most of that sum, which puts all methods on one scale whatever
    their own.
    """
    x = image.double()
    x = x - x.mean()
    y = (total.double() - total.double().mean()) / total.double().std()
    slope = (x * y).sum() / x.square().sum().clamp(min=1e-30)
    return (slope * middle(x)).to(torch.float16).cpu().numpy()
