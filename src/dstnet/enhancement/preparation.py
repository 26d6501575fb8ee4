"""What a trained network is given in place of images that it knows nothing like: ice where
crystals, film or dirt are, and noise where an image's band ends before that of its grid.
"""

from dataclasses import dataclass

from dstnet.core.shapes import Image, Shape, Stack
from dstnet.enhancement.contamination import DarkRegions, dark_regions
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.movie.band import NoiseBand, noise_band

# Pixels so many times as large as the network's hold too little to be worth its time, which grows
# with the square.
MOST_FACTOR = 4.0


@dataclass(frozen=True)
class Preparation:
    """What is done to the images of one movie; nothing to most.

    Attributes
    ----------
    dark
        What is replaced by ice; None: nothing.
    band
        Where the images hold noise; None: everywhere.
    original_shape
        Of the images to be prepared.
    shape, pixel_size_angstrom
        Of the images that the network is given.
    """

    dark: DarkRegions | None
    band: NoiseBand | None
    original_shape: Shape
    shape: Shape
    pixel_size_angstrom: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        return () if self.dark is None else (self.dark.note(),)

    @property
    def free_share(self) -> float:
        """The part of the field that is as the camera had it."""
        return 1.0 if self.dark is None else 1.0 - self.dark.share

    def __call__(self, images: Stack, seed: int = 0) -> Stack:
        """Images on the grid of those that it was found in, as the network is given them.

        Parameters
        ----------
        images
            [image, y, x], in any unit.
        seed
            Of the noise they are filled with: images that agree in it would look like signal.
        """
        if self.dark is not None:
            images = self.dark.replaced(images, seed)
        if self.band is not None:
            images = self.band.whitened(images, self.shape, self.pixel_size_angstrom, seed)
        return images

    def shown(self, image: Image) -> Image:
        """An enhanced image with the band that the sum has."""
        if self.band is None:
            return image
        return self.band.filtered(image, self.pixel_size_angstrom)

    def put_back(self, image: Image, total: Image, pixel_size_angstrom: float) -> Image:
        """An enhanced image with what was replaced as the sum shows it, both on one grid and in one
        unit.
        """
        if self.dark is None:
            return image
        return self.dark.put_back(image, total, pixel_size_angstrom)


def prepare(
    total: Image,
    pixel_size_angstrom: float,
    working_pixel_angstrom: float,
    settings: EnhancementSettings,
) -> Preparation:
    """Look at a sum for what has to be done to it and to its frames.

    Parameters
    ----------
    total
        On the grid of the images to be prepared.
    pixel_size_angstrom
        Of it.
    working_pixel_angstrom
        Of the network; `pixel_size_angstrom` is about as large, or larger.
    settings
        What may be done.

    Raises
    ------
    BadInputError
        If there is no noise, or none outside what is dark.
    """
    shape = (total.shape[0], total.shape[1])
    dark = dark_regions(total, pixel_size_angstrom) if settings.replace_dark else None
    if dark is not None:
        total = dark.replaced(total[None])[0]
    factor = pixel_size_angstrom / working_pixel_angstrom
    band = None
    if settings.fill_band and factor <= MOST_FACTOR:
        band = noise_band(total, pixel_size_angstrom, working_pixel_angstrom)
    if band is None:
        return Preparation(dark, None, shape, shape, pixel_size_angstrom)
    height, width = (2 * round(n * factor / 2) for n in shape)
    pixel = 0.5 * pixel_size_angstrom * (shape[0] / height + shape[1] / width)
    return Preparation(dark, band, shape, (height, width), pixel)
