"""What is kept of images to look at."""

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from dstnet.core.shapes import Image
from dstnet.metrics.image import moved_truth

CROP_PX = 512  # side of what is kept of an image
STEP = 2  # pixels that are averaged: for the eye, and a quarter of the bytes


def crop_of(image: Image, total: Image) -> np.ndarray:
    """The middle of an image, averaged over `STEP` pixels, float16, in units of the plain sum's
    deviation about its mean: scaled so that it explains most of that sum, moved to where the image
    lies, which puts all methods on one scale whatever their own.
    """
    x = (image - image.mean()).double()
    y = moved_truth(image, total - total.mean()).double()
    slope = (x * y).sum() / x.square().sum().clamp(min=1e-30) / y.std().clamp(min=1e-30)
    rows, columns = (slice(max(0, (n - CROP_PX) // 2), (n + CROP_PX) // 2) for n in image.shape)
    small = avg_pool2d(slope * x[None, rows, columns], STEP)[0]
    return small.to(torch.float16).cpu().numpy()
