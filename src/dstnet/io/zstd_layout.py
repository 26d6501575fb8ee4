"""Where the blocks of a zstd file lie (RFC 8878, section 3.1), so that no more of it is unpacked
than is asked for; the codec at hand unpacks a file as a whole.
"""

import mmap
from dataclasses import dataclass, field

MAGIC = b"\x28\xb5\x2f\xfd"
# The most that a block holds unpacked (section 3.1.1.2.4).
_BLOCK_BYTES = 1 << 17
_MOST_BLOCKS = 1 << 22  # of 128 KiB each 512 GiB
_START_BLOCKS = 32
# A window of 128 MiB, for frames that say none.
_WINDOW = b"\x88"


@dataclass
class ZstdLayout:
    """What a zstd file says of itself without being unpacked.

    Attributes
    ----------
    most_bytes
        That it can unpack to.
    start
        A zstd file of its first blocks alone, at most 4 MiB unpacked.
    """

    most_bytes: int = 0
    start: bytearray = field(default_factory=bytearray)


def zstd_layout(data: mmap.mmap | bytes) -> ZstdLayout:
    """The layout of a zstd file.

    Raises
    ------
    EOFError
        If it is cut off, or holds nothing.
    ValueError
        If it is no zstd file, or of absurdly many blocks.
    """
    reader = _Reader(data)
    layout = ZstdLayout()
    blocks = 0
    while reader.position < len(data):
        magic = reader.number(4)
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # a frame that holds something else
            reader.taken(reader.number(4))
            continue
        if magic != int.from_bytes(MAGIC, "little"):
            raise ValueError("no zstd frame where one should start")
        blocks = _read_frame(reader, layout, blocks)
    if not layout.most_bytes:
        raise EOFError
    return layout


class _Reader:
    """Reads bytes one after the other; EOFError where there are none left."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self.data = data
        self.position = 0

    def taken(self, length: int) -> slice:
        """Where the next `length` bytes are."""
        start = self.position
        self.position += length
        if self.position > len(self.data):
            raise EOFError
        return slice(start, self.position)

    def bytes(self, length: int) -> bytes:
        return self.data[self.taken(length)]

    def number(self, length: int) -> int:
        return int.from_bytes(self.bytes(length), "little")


def _read_frame(reader: _Reader, layout: ZstdLayout, blocks: int) -> int:
    """Read a frame behind its magic number; the number of blocks so far."""
    descriptor = reader.number(1)
    is_single = descriptor >> 5 & 1
    window = _WINDOW if is_single else reader.bytes(1)
    dictionary = reader.bytes((0, 1, 2, 4)[descriptor & 3])
    reader.taken((is_single, 2, 4, 8)[descriptor >> 6])  # the size of the whole
    if blocks < _START_BLOCKS:
        # Without the size of the whole and the checksum.
        layout.start += MAGIC + bytes([descriptor & 3]) + window + dictionary
    is_last = 0
    block_at = len(layout.start)
    while not is_last:
        head = reader.bytes(3)
        block = int.from_bytes(head, "little")
        is_last = block & 1
        kind = block >> 1 & 3
        size = block >> 3
        layout.most_bytes += size if kind < 2 else _BLOCK_BYTES
        content = reader.taken(1 if kind == 1 else size)
        if blocks < _START_BLOCKS:
            block_at = len(layout.start)
            layout.start += head + reader.data[content]
        blocks += 1
        if blocks == _START_BLOCKS:
            layout.start[block_at] |= 1  # it is the last one there
        if blocks > _MOST_BLOCKS:
            raise ValueError(f"it has more than {_MOST_BLOCKS} blocks")
    reader.taken(4 * (descriptor >> 2 & 1))
    return blocks
