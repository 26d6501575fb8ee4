"""What a method draws where there is nothing.

A control is a movie without particles: pure shot noise, a movie's own pixels in random order, or an
empty field, recorded or simulated. What a method makes of it is measured against what it makes of
particles.
"""

import math
from dataclasses import replace

import numpy as np

from dstnet.core.shapes import Image
from dstnet.movie import Movie

_ROUNDING = 1e-7  # of single precision, relative


def noise_only(
    movie: Movie,
    mean_counts: float,
    random: np.random.Generator,
) -> Movie:
    """A movie of nothing but shot noise, with all else as in `movie`.

    Parameters
    ----------
    movie
        Its frames are not read.
    mean_counts
        Electrons per pixel and frame.
    random
        Where the noise comes from.
    """
    shape = (len(movie), *movie.shape)
    counts = random.poisson(mean_counts, shape)
    return replace(movie, frames=counts.astype(np.float32), name="noise")


def shuffled(movie: Movie, random: np.random.Generator) -> Movie:
    """A movie whose frames hold the pixels of `movie`'s, each frame's in a random order of its own:
    the same values, without anything that belongs together. It is held in memory.

    Raises
    ------
    BadInputError
        If a frame cannot be used.
    """

    frames = []
    for index in range(len(movie)):
        frame = movie.frame(index).numpy()
        pixels = random.permutation(frame.ravel())
        frames.append(pixels.reshape(frame.shape))
    return replace(movie, frames=np.stack(frames), name="shuffled")


def relative_power(
    control: Image,
    control_sum: Image,
    particles: Image,
    particles_sum: Image,
) -> float:
    """Variance of the enhanced control over that of the enhanced particles, each in units of its
    own sum's mean, so that a field which lets less through does not count as less.

    Parameters
    ----------
    control, particles
        What a method made of the control, and of a movie with particles.
    control_sum, particles_sum
        The plain sums of both.

    Returns
    -------
    float
        0 where nothing is drawn; 1 where as much is drawn as of particles, and of a method that
        draws nothing of either.
    """
    drawn = _variance(control) / float(control_sum.mean()) ** 2
    shown = _variance(particles) / float(particles_sum.mean()) ** 2
    if shown == 0:
        return 1.0 if drawn == 0 else math.inf
    return drawn / shown


def _variance(image: Image) -> float:
    """0 where an image is constant but for rounding."""
    mean = float(image.double().mean())
    variance = float(image.double().var())
    return variance if variance > (_ROUNDING * mean) ** 2 else 0.0
