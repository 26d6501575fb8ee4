"""A frame's motion taken out.

Whole pixels are moved by indexing (the border continued by reflection, so that nothing wraps from
the opposite edge), the rest by a Fourier phase, which keeps white noise white; or, where there is
local motion, together with it by `dstnet.motion.warp`.
"""

import torch
from torch import Tensor

from dstnet.core.devices import Device
from dstnet.core.fourier import irfft2, scale_, shift_factors
from dstnet.core.shapes import Image, Shape, Trajectory
from dstnet.errors import BadInputError
from dstnet.motion import Motion
from dstnet.motion.warp import warp_local, warp_prefilter
from dstnet.movie import Movie


class MotionRemoval:
    """Takes a motion out of frames of one shape.

    Parameters
    ----------
    motion
        On the frames' device.
    shape
        (y, x) of a frame.
    pixel_size_angstrom
        Its sampling.
    device
        Where the frames lie.
    """

    def __init__(
        self,
        motion: Motion,
        shape: Shape,
        pixel_size_angstrom: float,
        device: Device,
    ) -> None:
        self._shape = shape
        seen = motion.where_seen(field_of(shape, pixel_size_angstrom))
        self._seen_px = seen.cpu() / pixel_size_angstrom
        self._prefilter = warp_prefilter(shape, device) if motion.is_local else None

    def spectrum(self, frame: Image, index: int) -> Tensor:
        """Spectrum of a frame [y, x] with the motion of frame `index` taken out."""
        in_pixels = self._seen_px[index]
        dy, dx = in_pixels[:, 5].tolist()
        down = round(dy)
        right = round(dx)
        moved = _moved_back(frame, (down, right))
        rest = (down - dy, right - dx)
        if self._prefilter is None:
            return self._shifted(moved, rest)
        # Content displaced by u is brought back by out(x) = image(x + u(x)): the field with the
        # other sign. What the kernel damps is restored after it, which the field's small gradient
        # allows: before it, every frame would need two more transforms.
        local = in_pixels[:, :5]
        warped = warp_local(moved, -local, shift_px=rest)
        spectrum = torch.fft.rfft2(warped)
        return scale_(spectrum, self._prefilter)

    def _shifted(self, image: Image, shift: tuple[float, float]) -> Tensor:
        """Spectrum of an image moved by parts of a pixel."""
        spectrum = torch.fft.rfft2(image)
        factors = shift_factors(self._shape, shift, image.device)
        for part, factor in zip(shift, factors, strict=True):
            if part:
                spectrum.mul_(factor)
        return spectrum


def undo_motion(image: Image, motion: Motion, pixel_size_angstrom: float) -> Image:
    """An image moved back as `accumulate` moves a frame, on its own device.

    Parameters
    ----------
    image
        [y, x], with content where a frame has it.
    motion
        Of that frame alone.
    pixel_size_angstrom
        Sampling of the image.
    """
    shape = (image.shape[0], image.shape[1])
    removal = MotionRemoval(motion.to(image.device), shape, pixel_size_angstrom, image.device)
    return irfft2(removal.spectrum(image, 0), shape)


def field_of(shape: Shape, pixel_size_angstrom: float) -> tuple[float, float]:
    """Distance between the centres of the outermost pixels, (y, x) in Angstrom."""
    height, width = shape
    return (height - 1) * pixel_size_angstrom, (width - 1) * pixel_size_angstrom


def checked_motion(motion: Motion | Trajectory, movie: Movie, device: Device) -> Motion:
    """A copy of the motion, or of shifts alone, on the device, if it fits the movie.

    Raises
    ------
    BadInputError
        If it is not one finite set a frame.
    """
    if isinstance(motion, Tensor):
        motion = Motion.of_shifts(motion)
    n = len(movie)
    shifts = motion.global_shift_angstrom
    local = motion.local_coefficients_angstrom
    if tuple(shifts.shape) != (n, 2) or not bool(torch.isfinite(shifts).all()):
        raise BadInputError(
            f"{movie.name}: shifts of shape {tuple(shifts.shape)} are not one finite (y, x) for"
            f" each of {n} frames"
        )
    if tuple(local.shape) != (n, 2, 5) or not bool(torch.isfinite(local).all()):
        raise BadInputError(
            f"{movie.name}: local motion of shape {tuple(local.shape)} is not finite [2, 5] for"
            f" each of {n} frames"
        )
    return motion.to(device)


def largest_displacement(motion: Motion) -> Tensor:
    """A bound on the displacement of any content in any frame, [2] in Angstrom, (y, x): no term of
    the polynomial exceeds 1.
    """
    local = motion.local_coefficients_angstrom.abs().sum(2)
    of_frames = motion.global_shift_angstrom.abs() + local
    return of_frames.amax(0)


def _moved_back(frame: Image, pixels: tuple[int, int]) -> Image:
    """The frame with content displaced by `pixels` (y, x) moved back: out(x) = frame(x + pixels),
    reflected at the borders.
    """
    for axis, shift in enumerate(pixels):
        if shift:
            frame = _moved_along(frame, axis, shift)
    return frame


def _moved_along(frame: Image, axis: int, shift: int) -> Image:
    """out(i) = frame(i + shift) along one axis."""
    size = frame.shape[axis]
    kept = max(0, size - abs(shift))
    lost = size - kept
    if shift > 0:
        start = 0
        edge = kept
    else:
        start = lost
        edge = 0
    moved = torch.empty_like(frame)
    # What is only moved is copied in one piece: picking rows or columns one by one takes several
    # times as long.
    inside = frame.narrow(axis, lost - start, kept)
    moved.narrow(axis, start, kept).copy_(inside)
    # The rest is picked by index: beyond the border, folded back.
    index = torch.arange(edge, edge + lost, device=frame.device) + shift
    index = index % (2 * size)
    index = torch.minimum(index, 2 * size - 1 - index)
    reflected = frame.index_select(axis, index)
    moved.narrow(axis, edge, lost).copy_(reflected)
    return moved
