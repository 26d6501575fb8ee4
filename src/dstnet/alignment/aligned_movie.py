"""What the alignment gives: sums of a movie, and sums of groups of its frames."""

from collections.abc import Mapping
from dataclasses import dataclass

from dstnet.core.shapes import Image, Shape, Stack
from dstnet.motion import Motion
from dstnet.movie import Exposure, Movie


@dataclass(frozen=True)
class Grouping:
    """How frames are summed to groups for a method that works on few, coarser images.

    Attributes
    ----------
    working_pixel_angstrom
        Wanted sampling of the groups.
    most_groups
        Most groups; a movie of fewer frames gets one group a frame.
    """

    working_pixel_angstrom: float
    most_groups: int


@dataclass(frozen=True)
class FrameGroups:
    """Sums over contiguous, nearly equal groups of frames, aligned, on a working grid.

    Attributes
    ----------
    images
        [group, y, x]. The resampling keeps intensities: a value is counts per pixel of the *movie*,
        so the mean over a group equals that of its frames' sum.
    frame_counts
        Number of frames in each group.
    exposure
        Of each group; None where that of the frames is unknown.
    pixel_size_angstrom
        Mean over the two axes, which differ by the rounding of their sizes.
    """

    images: Stack
    frame_counts: tuple[int, ...]
    exposure: Exposure | None
    pixel_size_angstrom: float

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class AlignedMovie:
    """A movie after motion correction: its sums, and groups of its frames on working grids.

    Attributes
    ----------
    movie
        The movie itself, whose frames lie where the camera had them.
    total
        Sum of all frames, in the movie's unit (intensity per pixel of the *movie*, binned or not).
    dose_weighted
        Sum with each frequency weighted by the signal that damage has left in each frame, scaled so
        that white noise in the frames stays white, of the variance it has in `total`, and the
        lowest frequencies equal those of `total`. None where the exposure is unknown.
    even, odd
        Plain sums of every other frame, counted from 0 as RELION does: `even` has the first, the
        third and so on. None where not asked for.
    groups
        Groups of frames, as many sets as were asked for.
    motion
        The motion taken out.
    binning
        Pixel of the sums over that of the movie, as asked for.
    pixel_size_angstrom
        Sampling of the sums: mean over the two axes.
    margin_px
        Rows at top and bottom, and columns at left and right, (y, x) in pixels of the sums, that
        not all frames saw; there, frames are continued by reflection.
    notes
        What the user should know of the estimation.
    """

    movie: Movie
    total: Image
    dose_weighted: Image | None
    even: Image | None
    odd: Image | None
    groups: Mapping[Grouping, FrameGroups]
    motion: Motion
    binning: float
    pixel_size_angstrom: float
    margin_px: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """(y, x) of the sums."""
        return (self.total.shape[0], self.total.shape[1])
