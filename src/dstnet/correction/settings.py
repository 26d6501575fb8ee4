"""Settings of the camera's corrections."""

from typing import Literal

from pydantic import Field

from dstnet.core.settings import Settings

Flip = Literal["up-down", "left-right"]
Rotation = Literal[0, 90, 180, 270]


class CorrectionSettings(Settings):
    """How references are oriented, and what is looked for in the frames.

    The references' turns come in this order: transposed, rotated, flipped. Rows count as this
    package reads them (of a TIFF from its last stored row, as RELION does), y is the row. Rotating
    by 90 takes pixel (y, x) of a reference of `height` rows to (x, height - 1 - y):
    counter-clockwise where row 0 is drawn at the bottom, clockwise where it is drawn at the top. It
    is MotionCor's RotGain 1 and RELION's gain_rot 1; up-down is their flip 1, left-right their flip
    2.
    """

    gain_transpose: bool = Field(
        default=False, description="swap rows and columns of gain and dark"
    )
    gain_rotate: Rotation = Field(
        default=0, description="degrees that gain and dark are rotated by, see above"
    )
    gain_flip: Flip | None = Field(
        default=None,
        description="reverse the order of rows (up-down) or columns (left-right) of gain and dark",
    )
    gain_invert: bool | None = Field(
        default=None,
        description=(
            "divide by the gain; None: only EER movies with a gain that is no .gain file, as RELION"
            " does"
        ),
    )
    check_references: bool = Field(
        default=True,
        description=(
            "look on a few frames whether gain and dark lie as they are used; what is surely wrong"
            " is refused"
        ),
    )
    find_defects: bool = Field(
        default=True,
        description="find hot and dead pixels in the frames; those listed are repaired in any case",
    )
    defect_sigmas: float = Field(
        default=6.0,
        gt=3,
        description="how far from its neighbours a pixel's mean is bad; 6: one in 10^9 by chance",
    )
    max_found_fraction: float = Field(
        default=0.01,
        gt=0,
        le=0.2,
        description="if more pixels look bad, something else is wrong: none is repaired",
    )
    drop_bad_frames: bool = Field(
        default=True,
        description=(
            "leave out frames that are constant, repeated, not finite or oddly bright or dark"
        ),
    )
    frame_mean_range: tuple[float, float] = Field(
        default=(0.5, 2.0), description="mean of a good frame over that of the others"
    )
