"""What the soak (`soak.py`) is fed with: small movies, and what lies among them in a bad folder."""

import bz2
import gzip
import lzma
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from dstnet.io import write_mrc, write_tiff

FRAMES, SIDE, PIXEL_ANGSTROM = 5, 64, 2.0
FOREIGN = b"what somebody else put there"
# Good movies may be called so, and lie so.
ODD_NAMES = (
    b"caf\xe9.mrc",
    b"new\nline.mrc",
    b"escape\x1b[31m.mrc",
    b"tab\t.mrc",
    b"hash # 'quote'.mrc",
    b"<b>markup&.mrc",
    b"percent%41.mrc",
    b"data_x/_loop.mrc",
    b"..mrc",
    b"-o.mrc",
    b"[1]*.mrc",
    b"@list.mrc",
)
PACKED = {
    ".mrc.gz": gzip.compress,
    ".mrc.bz2": bz2.compress,
    ".mrc.xz": lzma.compress,
    ".mrc.zst": imagecodecs.zstd_encode,
}
_PIXEL = {"description": "unit=nm", "resolution": (5, 5), "resolutionunit": "NONE"}
OPTICS = """data_optics

loop_
_rlnOpticsGroup
_rlnOpticsGroupName
_rlnMicrographOriginalPixelSize
_rlnVoltage
1 good 2.0 300
2 bad abc 300

data_movies

loop_
_rlnMicrographMovieName
_rlnOpticsGroup
_rlnMicrographGainName
"""


@dataclass
class Inputs:
    """What is given to a run, by paths from the working folder.

    Attributes
    ----------
    good, bad
        Movies that must be made, and what must fail by name; in the order they are given in.
    kinds
        What each bad one is.
    foreign
        What others put where results belong: files with `FOREIGN`, folders.
    rows
        Lines of a STAR table that name some of them.
    """

    good: list[Path] = field(default_factory=list)
    bad: list[Path] = field(default_factory=list)
    kinds: dict[Path, str] = field(default_factory=dict)
    foreign: list[Path] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)

    def write_lists(self) -> list[str]:
        """Write a list and a table of all; the arguments that name them."""
        in_table = {Path(row.split()[0]) for row in self.rows}
        # What is bad lies all over a run.
        listed = sorted(
            {*self.good, *self.bad} - in_table, key=lambda path: (path.stem[::-1], path)
        )
        special = [path for path in listed if not path.name.isprintable()]
        lines = [os.fsencode(path) for path in listed if path not in special]
        Path("list.txt").write_bytes(b"\n".join(lines) + b"\n")
        Path("table.star").write_text(OPTICS + "\n".join(self.rows) + "\n")
        return ["table.star", "@list.txt", *(f"./{path}" for path in special)]


def frames_of(seed: int) -> np.ndarray:
    """Counts [frame, y, x] of blobs that drift."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    places = random.uniform(10, SIDE - 10, (4, 2))
    blobs = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 40) for a, b in places)
    rates = 20 * (1 - 0.3 * np.minimum(blobs, 1))
    return np.stack([random.poisson(np.roll(rates, t, 0)) for t in range(FRAMES)]).astype(np.uint16)


def make_inputs(count: int, bad_of_each_kind: int, seed: int) -> Inputs:
    """Write `count` inputs into ``in``, of which so many of each bad kind."""
    inputs = Inputs()
    kinds = [kind for kind in KINDS for _ in range(bad_of_each_kind)]
    for number, kind in enumerate(kinds):
        name, make = KINDS[kind]
        path = Path("in", f"{kind}_{number}{name}")
        path.parent.mkdir(exist_ok=True)
        make(inputs, path, seed + number)
        inputs.bad.append(path)
        inputs.kinds[path] = kind
    for number in range(count - len(inputs.bad) - len(inputs.good)):
        path = _good_path(number)
        path.parent.mkdir(exist_ok=True)
        _write_good(path, seed + 1000 + number)
        inputs.good.append(path)
    return inputs


def _good_path(number: int) -> Path:
    if number < len(ODD_NAMES):
        return Path("in", os.fsdecode(ODD_NAMES[number]))
    suffixes = (".mrc", ".tif", ".mrcs", *PACKED)
    return Path("in", f"m{number:04d}{suffixes[number % len(suffixes)]}")


def _write_good(path: Path, seed: int) -> None:
    frames = frames_of(seed)
    if path.suffix == ".tif":
        write_tiff(path, frames, PIXEL_ANGSTROM)
        return
    packing = PACKED.get("".join(path.suffixes[-2:]))
    plain = path.with_suffix("") if packing else path
    write_mrc(plain, frames, PIXEL_ANGSTROM, "soak", stack=True)
    if packing:
        path.write_bytes(packing(plain.read_bytes()))
        plain.unlink()


def _content(suffix: str, seed: int) -> bytes:
    """The bytes of a good movie."""
    path = Path("in", f"whole{suffix}")
    _write_good(path, seed)
    content = path.read_bytes()
    path.unlink()
    return content


# The bad kinds. Each maker gets the inputs, to add others that belong to it, a path and a seed.

Maker = Callable[[Inputs, Path, int], object]


def _bytes(content: bytes) -> Maker:
    return lambda _inputs, path, _seed: path.write_bytes(content)


def _link_to(target: str) -> Maker:
    return lambda _inputs, path, _seed: path.symlink_to(target or path.name)


def _cut(_inputs: Inputs, path: Path, seed: int) -> None:
    content = _content("".join(path.suffixes), seed)
    path.write_bytes(content[: len(content) * 2 // 3])


def _patched(offset: int, layout: str, *values: object, suffix: str = ".mrc") -> Maker:
    """A good movie with other values at some place of its bytes, from its end where negative."""

    def make(_inputs: Inputs, path: Path, seed: int) -> None:
        content = bytearray(_content(suffix, seed))
        struct.pack_into(layout, content, offset % len(content), *values)
        path.write_bytes(content)

    return make


def _frames(change: Callable[[np.ndarray], np.ndarray]) -> Maker:
    return lambda _inputs, path, seed: write_mrc(
        path, change(frames_of(seed)), PIXEL_ANGSTROM, "soak", stack=True
    )


def _tiff(shape: tuple[int, ...], **options: Any) -> Maker:
    """A TIFF that another program wrote."""
    return lambda _inputs, path, _seed: tifffile.imwrite(path, np.ones(shape, np.uint8), **options)


def _mixed_sizes(_inputs: Inputs, path: Path, seed: int) -> None:
    with tifffile.TiffWriter(path) as file:
        for number, frame in enumerate(frames_of(seed)):
            file.write(frame[: SIDE - number], contiguous=False, **_PIXEL)


def _looping_pages(_inputs: Inputs, path: Path, seed: int) -> None:
    content = bytearray(_content(".tif", seed))
    with tifffile.TiffFile(_written(path, content)) as file:
        first, last = file.pages[0].offset, file.pages[-1].offset  # pyright: ignore
    entries = struct.unpack_from("<H", content, last)[0]
    struct.pack_into("<I", content, last + 2 + 12 * entries, first)
    path.write_bytes(content)


def _bad_strips(_inputs: Inputs, path: Path, seed: int) -> None:
    content = bytearray(_content(".tif", seed))
    with tifffile.TiffFile(_written(path, content)) as file:
        for page in file.pages:
            place = page.tags["StripOffsets"].valueoffset  # pyright: ignore
            struct.pack_into("<I", content, place, 0x7FFFFFF0)
    path.write_bytes(content)


def _written(path: Path, content: bytes | bytearray) -> Path:
    path.write_bytes(content)
    return path


def _zstd_bomb(_inputs: Inputs, path: Path, seed: int) -> None:
    """A header and 4 GB of zeros in 131 kB: blocks of one byte that is repeated."""
    header = _content(".mrc", seed)[:1024]
    size = 128 << 10
    zeros = ((size << 3) | 2).to_bytes(3, "little") + b"\0"
    last = ((size << 3) | 3).to_bytes(3, "little") + b"\0"
    frame = bytes.fromhex("28b52ffd0038") + zeros * 32767 + last
    path.write_bytes(imagecodecs.zstd_encode(header) + frame)


def _name_taken(inputs: Inputs, path: Path, seed: int) -> None:
    """Beside a good movie whose results have the same names."""
    other = path.with_suffix(".mrc")
    _write_good(other, seed)
    _write_good(path, seed + 1)
    inputs.good.append(other)


def _result_taken(is_folder: bool) -> Maker:
    def make(inputs: Inputs, path: Path, seed: int) -> None:
        _write_good(path, seed)
        place = Path("out/micrographs/in", f"{path.stem}_aligned.mrc")
        place.parent.mkdir(parents=True, exist_ok=True)
        if is_folder:
            place.mkdir()
            place /= "kept"
        place.write_bytes(FOREIGN)
        inputs.foreign.append(place)

    return make


def _row(group: str, gain_side: int = SIDE) -> Maker:
    def make(inputs: Inputs, path: Path, seed: int) -> None:
        _write_good(path, seed)
        gain = Path(f"gain{gain_side}.mrc")
        if not gain.exists():
            values = np.random.default_rng(1).normal(1, 0.02, (gain_side, gain_side))
            write_mrc(gain, values.astype(np.float32), PIXEL_ANGSTROM, "gain")
        inputs.rows.append(f"{path} {group} {gain}")

    return make


KINDS: dict[str, tuple[str, Maker]] = {
    "empty": (".mrc", _bytes(b"")),
    "text": (".mrc", _bytes(b"no movie\n" * 200)),
    "cut": (".mrc", _cut),
    "cut_tiff": (".tif", _cut),
    "cut_gz": (".mrc.gz", _cut),
    "damaged_xz": (".mrc.xz", _patched(-200, "<q", -1, suffix=".mrc.xz")),
    "zstd_bomb": (".mrc.zst", _zstd_bomb),
    "nan": (".mrc", _frames(lambda frames: np.full(frames.shape, np.nan, np.float32))),
    "constant": (".mrc", _frames(lambda frames: np.full_like(frames, 7))),
    "terabytes": (".mrc", _patched(0, "<iii", 65000, 65000, 65000)),
    "negative": (".mrc", _patched(0, "<iii", SIDE, -SIDE, FRAMES)),
    "complex": (".mrc", _patched(12, "<i", 4)),
    "colour": (".tif", _tiff((SIDE, SIDE, 3), photometric="rgb", **_PIXEL)),
    "no_pixel_size": (".tif", _tiff((FRAMES, SIDE, SIDE), photometric="minisblack")),
    "mixed_sizes": (".tif", _mixed_sizes),
    "looping_pages": (".tif", _looping_pages),
    "bad_strips": (".tif", _bad_strips),
    "damaged_eer": (".eer", _patched(4, "<I", 0x7FFFFFF0, suffix=".tif")),
    "pipe": (".mrc", lambda _inputs, path, _seed: os.mkfifo(path)),
    "endless": (".mrc", _link_to("/dev/zero")),
    "dangling": (".mrc", _link_to("nowhere.mrc")),
    "loop": (".mrc", _link_to("")),
    "missing": (".mrc", lambda *_: None),
    "folder": (".mrc", lambda _inputs, path, _seed: path.mkdir()),
    "odd\nname\x1b[2J": (".mrc", _bytes(b"no movie\n" * 200)),
    "name_taken": (".tif", _name_taken),
    "result_taken": (".mrc", _result_taken(is_folder=False)),
    "folder_taken": (".mrc", _result_taken(is_folder=True)),
    "pixel_size": (".mrc", _row("2")),
    "gain": (".mrc", _row("1", gain_side=SIDE * 3 // 4)),
}
