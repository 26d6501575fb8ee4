"""A frame's motion taken out.

Whole pixels are moved by indexing (the border continued by reflection, so that nothing wraps from
the opposite edge), the rest by a Fourier phase, which keeps white noise white; or, where there is
local motion, together with it by `dstnet.motion.warp`.
"""

import math

import torch
from torch import Tensor

from dstnet.core.devices import Device
from dstnet.core.fourier import irfft2, scale_, shift_factors
from dstnet.core.shapes import Image, Shape, Trajectory
from dstnet.errors import BadInputError
from dstnet.motion import Motion
from dstnet.motion.warp import KERNEL_REACH, warp_local, warp_prefilter
from dstnet.motion.warp_border import MARGIN, joined_to_opposite, on_wider_field
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
        rest = (down - dy, right - dx)
        if self._prefilter is None:
            return self._shifted(_moved_back(frame, (down, right)), rest)
        warped = self._warped(frame, (down, right), -in_pixels[:, :5], rest)
        # What the kernel damps is restored after it, which the field's small gradient allows:
        # before it, every frame would need two more transforms.
        spectrum = torch.fft.rfft2(warped)
        return scale_(spectrum, self._prefilter)

    def _warped(
        self,
        frame: Image,
        pixels: tuple[int, int],
        local_px: Tensor,
        rest: tuple[float, float],
    ) -> Image:
        """A frame moved back by whole pixels, then by the rest and a local field, for
        `warp_prefilter` to come after.
        """
        # Content displaced by u is brought back by out(x) = image(x + u(x)): the field with the
        # other sign.
        wider, constant = on_wider_field(local_px, self._shape)
        largest = wider.abs().sum(1).max() + constant.abs().max()
        reach = MARGIN + KERNEL_REACH + math.ceil(float(largest) + 0.5)
        moved = _moved_back(frame, pixels, reach)
        height, width = self._shape
        dy, dx = (constant + constant.new_tensor(rest)).tolist()
        start = reach - MARGIN
        warped = warp_local(
            moved,
            wider,
            (height + 2 * MARGIN, width + 2 * MARGIN),
            (start, start),
            (dy, dx),
        )
        return joined_to_opposite(warped)

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


def _moved_back(frame: Image, pixels: tuple[int, int], margin: int = 0) -> Image:
    """The frame with content displaced by `pixels` (y, x) moved back, and `margin` more pixels on
    each side: out(x) = frame(x + pixels - margin), reflected at the borders.
    """
    for axis, shift in enumerate(pixels):
        if shift or margin:
            frame = _moved_along(frame, axis, shift - margin, frame.shape[axis] + 2 * margin)
    return frame


def _moved_along(frame: Image, axis: int, shift: int, length: int) -> Image:
    """out(i) = frame(i + shift) along one axis, for `length` pixels."""
    size = frame.shape[axis]
    start = min(max(0, -shift), length)
    end = max(start, min(length, size - shift))
    shape = list(frame.shape)
    shape[axis] = length
    moved = frame.new_empty(shape)
    # What is only moved is copied in one piece: picking rows or columns one by one takes several
    # times as long.
    if end > start:
        inside = frame.narrow(axis, start + shift, end - start)
        moved.narrow(axis, start, end - start).copy_(inside)
    # The rest is picked by index: beyond the border, folded back.
    for first, last in ((0, start), (end, length)):
        index = torch.arange(first, last, device=frame.device) + shift
        index = index % (2 * size)
        index = torch.minimum(index, 2 * size - 1 - index)
        moved.narrow(axis, first, last - first).copy_(frame.index_select(axis, index))
    return moved
