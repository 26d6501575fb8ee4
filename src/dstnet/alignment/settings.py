"""Settings of motion estimation."""

from pydantic import Field, field_validator

from dstnet.core.settings import Settings


class AlignmentSettings(Settings):
    """How the motion of a movie is estimated. The defaults suit counted movies from 0.2 e-/pixel a
    frame upwards.
    """

    max_shift_angstrom: float = Field(
        default=50.0,
        gt=0,
        description="largest displacement of a frame from the movie's mean position",
    )
    resolution_angstrom: float = Field(
        default=6.0,
        gt=0,
        description="finest detail used; finer frequencies hold little signal in a frame",
    )
    lowest_resolution_angstrom: float = Field(
        default=500.0,
        gt=0,
        description=(
            "coarsest detail used; illumination and ice gradients beyond it do not move with the"
            " specimen"
        ),
    )
    max_coefficients: int = Field(
        default=131072,
        ge=256,
        description=(
            "Fourier coefficients kept of a frame, lowest frequencies first: 8 bytes each, so 1 MiB"
            " a frame"
        ),
    )
    b_factor_angstrom2: float = Field(
        default=500.0,
        ge=0,
        description=(
            "fall-off exp(-B k^2 / 2) of the weights in the first search, before the signal's"
            " spectrum is known"
        ),
    )
    acceleration_angstrom: float | None = Field(
        default=1.0,
        gt=0,
        description=(
            "expected rms second difference of the displacement from frame to frame (a smoothness"
            " prior); None: no prior"
        ),
    )
    iterations: int = Field(
        default=30, ge=1, description="most refinement steps at each grouping of frames"
    )
    tolerance_angstrom: float = Field(
        default=0.01, gt=0, description="refinement stops when no frame moves further than this"
    )
    patches: int = Field(
        default=5,
        ge=0,
        description=(
            "most patches a side for local motion; small fields get fewer, down to 3; 0: global"
            " motion alone"
        ),
    )
    pre_aligned: bool = Field(
        default=False,
        description=(
            "the frames are aligned already: none is moved, and no motion looked for unless it is"
            " given"
        ),
    )
    bin: float = Field(
        default=1.0,
        ge=1,
        description="the sums' pixel over the movie's, by Fourier cropping; any factor",
    )

    @field_validator("patches")
    @classmethod
    def _enough(cls, patches: int) -> int:
        if patches in (1, 2):
            raise ValueError("local motion needs 3 patches a side or more; 0 turns it off")
        return patches
