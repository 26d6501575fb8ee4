"""Images as the compiled loops take them, room for new ones, and their rows dealt to threads."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

SIDE = 6  # of what one tile gives, see `dstnet.network.cpu.winograd`
_BOUNDARY = 16  # numbers: 64 bytes


@dataclass(frozen=True)
class FlatImage:
    """An image that lies in memory as [y, x, channel].

    Attributes
    ----------
    numbers
        All of them, flat.
    height, width
        In pixels.
    """

    numbers: np.ndarray
    height: int
    width: int

    @classmethod
    def of(cls, image: Tensor) -> Self:
        """Of an image [channel, y, x]: no copy where its channels come last in memory already."""
        _, height, width = image.shape
        channels_last = image.permute(1, 2, 0).contiguous()
        return cls(channels_last.numpy().reshape(-1), height, width)

    @property
    def channels(self) -> int:
        """Their number."""
        return len(self.numbers) // (self.height * self.width)

    def pixels(self) -> Tensor:
        """[pixel, channel], in the same memory."""
        return torch.from_numpy(self.numbers).view(self.height * self.width, -1)


def empty_images(like: Tensor, channels: int) -> Tensor:
    """Room for images of the size of those of `like`, channels last in memory, on a boundary of 64
    bytes.

    Not `torch.empty`: for a block on such a boundary the C library looks for one a little larger,
    and so does not find that of the same size which was just freed; a tile of 1120 pixels left
    holes of 0.2 GB.
    """
    count, _, height, width = like.shape
    size = count * height * width * channels
    room = np.empty(size + _BOUNDARY, np.float32)
    start = -room.ctypes.data // room.itemsize % _BOUNDARY
    images = room[start : start + size].reshape(count, height, width, channels)
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def share_rows(work: Callable[[int, int], None], height: int) -> None:
    """Call `work` for all rows of tiles of an image of `height`, divided evenly among as many
    threads as torch has.

    Parameters
    ----------
    work
        Is given the first row of tiles, and the one after the last.
    height
        In pixels.
    """
    rows = math.ceil(height / SIDE)
    all_threads = torch.get_num_threads()
    threads = min(all_threads, rows)
    if threads == 1:
        work(0, rows)
        return
    edges = [rows * i // threads for i in range(threads + 1)]
    starts = edges[:-1]
    ends = edges[1:]

    def alone(first: int, last: int) -> None:
        # The mode holds for a thread, and may hold for the caller's: what it made is changed here.
        with torch.inference_mode():
            work(first, last)

    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(alone, starts, ends))
    finally:
        torch.set_num_threads(all_threads)  # what a thread sets is what later ones begin with
