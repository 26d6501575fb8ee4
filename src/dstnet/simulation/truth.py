"""What the simulator knows about a movie. Nothing that enhances may import or read it."""

from dataclasses import dataclass, field

from torch import Tensor

from dstnet.core.shapes import Image, Trajectory
from dstnet.motion import Motion
from dstnet.specimen.placement import Particle


@dataclass(frozen=True)
class Truth:
    """Ground truths of one movie, on the movie's own pixel grid.

    Attributes
    ----------
    phase
        Projected protein phase in rad, no CTF, at the reference position (where the first frame
        has it).
    clean
        Protein image contrast after CTF and envelopes, undamaged, at the reference position;
        dimensionless, mean near 0, protein dark.
    label
        Which particle covers each pixel, int32: 0 none, n the n-th of `particles`; where two
        overlap, the one placed later.
    thickness_angstrom
        Thickness of the ice at each pixel.
    motion
        Motion of the specimen as a whole, and local motion: frame_t(x) = clean(x - u_t(x)).
    motion_parts_angstrom
        What the motion's global shift is the sum of, by name.
    height_drift_angstrom
        How far the whole specimen is above its mean height in each frame, [frame]: that much less
        underfocus.
    defocus_angstrom
        Underfocus of the field's middle plane, mean over frames.
    particles
        Those whose centre lies in the field.
    """

    phase: Image
    clean: Image
    label: Tensor
    thickness_angstrom: Image
    motion: Motion
    motion_parts_angstrom: dict[str, Trajectory]
    height_drift_angstrom: Tensor
    defocus_angstrom: float
    particles: tuple[Particle, ...] = field(default=())
