"""Files come back as they were written, in every form that cameras and programs write."""

import bz2
import gzip
import lzma
import math
import os
import pickle
import stat
import struct
from pathlib import Path

import imagecodecs
import mrcfile
import numpy as np
import pytest
import tifffile
import torch

from dstnet.errors import BadInputError, OutputError, printable
from dstnet.io import (
    CompressedMrcFrames,
    MrcFrames,
    TiffFrames,
    atomic_path,
    ensure_writable_folder,
    open_movie,
    write_movie,
    write_mrc,
    write_tiff,
)
from dstnet.io.formats import FORMATS
from dstnet.io.packed_counts import holds_packed
from dstnet.io.star import star_holds, star_name
from dstnet.movie import Exposure, FrameStack

MRC_TYPES = ["i1", "i2", "f4", "u2", "f2"]


def numbers(shape, dtype="f4", seed=0):
    values = np.random.default_rng(seed).poisson(20.0, shape)
    return values.astype(dtype)


# --- MRC
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", MRC_TYPES)
def test_mrc_stack_round_trip(tmp_path, dtype):
    stack = numbers((3, 40, 33), dtype)
    write_mrc(tmp_path / "a.mrcs", stack, 1.234, "a test", stack=True)
    frames = MrcFrames(tmp_path / "a.mrcs")
    assert isinstance(frames, FrameStack)
    assert frames.shape == (3, 40, 33)
    for i in range(3):
        assert frames[i].dtype == stack.dtype
        np.testing.assert_array_equal(frames[i], stack[i])
    np.testing.assert_array_equal(frames[-1], stack[2])
    with pytest.raises(IndexError):
        frames[3]


@pytest.mark.parametrize("dtype", MRC_TYPES)
def test_mrcfile_agrees_with_what_is_written(tmp_path, dtype):
    stack = numbers((3, 40, 33), dtype)
    write_mrc(tmp_path / "a.mrcs", stack, 1.5, "enhanced in Å " * 10, stack=True)
    if dtype != "f2":  # mrcfile's own sums overflow in half precision
        assert mrcfile.validate(tmp_path / "a.mrcs")
    with mrcfile.open(tmp_path / "a.mrcs") as file:
        np.testing.assert_array_equal(file.data, stack)
        assert file.data.dtype == stack.dtype
        assert file.is_image_stack()
        assert file.voxel_size.tolist() == (1.5, 1.5, 1.5)
        assert file.header.origin.tolist() == (0, 0, 0)
        wide = stack.astype("f8")
        for name, value in (
            ("dmin", wide.min()),
            ("dmax", wide.max()),
            ("dmean", wide.mean()),
            ("rms", wide.std()),
        ):
            assert math.isclose(file.header[name], value, rel_tol=1e-6), name
        assert file.get_labels()[0].startswith("enhanced in ? enhanced")
        assert all(len(line) <= 80 for line in file.get_labels())


def test_mrc_statistics_far_from_zero(tmp_path):
    stack = (numbers((4, 32, 32)) + 1e6).astype("f4")
    write_mrc(tmp_path / "a.mrcs", stack, 1.0, "x", stack=True)
    with mrcfile.open(tmp_path / "a.mrcs") as file:
        assert math.isclose(file.header.rms, stack.astype("f8").std(), rel_tol=1e-6)


def test_mrc_image_and_volume(tmp_path):
    write_mrc(tmp_path / "image.mrc", torch.ones(32, 48), 2.0, "image")
    write_mrc(tmp_path / "volume.mrc", np.ones((5, 32, 48), "f4"), 2.0, "volume")
    with mrcfile.open(tmp_path / "image.mrc") as file:
        assert file.is_single_image() and file.data.shape == (32, 48)
    with mrcfile.open(tmp_path / "volume.mrc") as file:
        assert file.is_volume() and file.voxel_size.z == 2.0
    assert MrcFrames(tmp_path / "image.mrc").shape == (1, 32, 48)
    assert MrcFrames(tmp_path / "volume.mrc").shape == (5, 32, 48)


def test_mrc_writes_from_a_reader(tmp_path):
    stack = numbers((3, 32, 32), "u2")
    write_mrc(tmp_path / "a.mrcs", stack, 1.0, "x", stack=True)
    write_mrc(tmp_path / "b.mrcs", MrcFrames(tmp_path / "a.mrcs"), 1.0, "x", stack=True)
    assert (tmp_path / "a.mrcs").read_bytes() == (tmp_path / "b.mrcs").read_bytes()


@pytest.mark.parametrize("dtype", ["u1", "f8", "i4", "c8", "?"])
def test_mrc_refuses_types_it_would_have_to_change(tmp_path, dtype):
    with pytest.raises(BadInputError, match="convert to float32"):
        write_mrc(tmp_path / "a.mrc", np.zeros((32, 32), dtype), 1.0, "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(), (5,), (2, 2, 32, 32), (0, 32)])
def test_mrc_refuses_shapes(tmp_path, shape):
    with pytest.raises(BadInputError, match="give"):
        write_mrc(tmp_path / "a.mrc", np.zeros(shape, "f4"), 1.0, "x")


@pytest.mark.parametrize("pixel_size", [0.0, -1.0, math.nan, math.inf])
def test_mrc_refuses_pixel_sizes(tmp_path, pixel_size):
    with pytest.raises(BadInputError, match="pixel size"):
        write_mrc(tmp_path / "a.mrc", np.zeros((32, 32), "f4"), pixel_size, "x")


@pytest.mark.parametrize("dtype", ["i2", "f4", "u2", "f2"])
@pytest.mark.parametrize("stamp", [True, False])
def test_mrc_big_endian_with_and_without_stamp(tmp_path, dtype, stamp):
    stack = numbers((2, 33, 40), dtype)
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(stack.astype(stack.dtype.newbyteorder(">")))
        file.voxel_size = 1.1
    raw = bytearray((tmp_path / "a.mrc").read_bytes())
    assert raw[:4] == (40).to_bytes(4, "big")
    if not stamp:
        raw[212:216] = bytes(4)
        (tmp_path / "a.mrc").write_bytes(raw)
    movie = open_movie(tmp_path / "a.mrc")
    assert movie.pixel_size_angstrom == 1.1
    assert movie.frames[1].dtype.isnative
    np.testing.assert_array_equal(movie.frames[1], stack[1])
    np.testing.assert_array_equal(movie.frame(1).numpy(), stack[1].astype("f4"))


def edit_header(path, **fields):
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(raw[:1024], mrcfile.dtypes.HEADER_DTYPE.newbyteorder("<")).copy()
    for name, value in fields.items():
        header[name] = value
    raw[:1024] = header.tobytes()
    path.write_bytes(raw)


@pytest.mark.parametrize("width", [40, 41])
def test_mrc_4bit(tmp_path, width):
    pixels = np.random.default_rng(1).integers(0, 16, (3, 32, width), dtype="u1")
    padded = np.pad(pixels, ((0, 0), (0, 0), (0, width % 2)))
    packed = padded[..., ::2] | padded[..., 1::2] << 4
    write_mrc(tmp_path / "a.mrc", np.zeros((1, 1), "f4"), 1.0, "x")
    edit_header(tmp_path / "a.mrc", nx=width, ny=32, nz=3, mode=101)
    (tmp_path / "a.mrc").write_bytes((tmp_path / "a.mrc").read_bytes()[:1024] + packed.tobytes())
    frames = MrcFrames(tmp_path / "a.mrc")
    np.testing.assert_array_equal(np.stack([frames[i] for i in range(3)]), pixels)


def test_mrc_bytes_are_signed_unless_imod_says_otherwise(tmp_path):
    write_mrc(tmp_path / "a.mrc", np.full((32, 32), -1, "i1"), 1.0, "x")
    assert MrcFrames(tmp_path / "a.mrc")[0][0, 0] == -1
    flags = bytearray(84)
    flags[40:48] = np.array([1146047817, 0], "<i4").tobytes()
    edit_header(tmp_path / "a.mrc", extra2=bytes(flags))
    assert MrcFrames(tmp_path / "a.mrc")[0][0, 0] == 255


def test_mrc_extended_header_and_old_files(tmp_path):
    image = numbers((32, 40))
    with mrcfile.new(tmp_path / "a.mrc", image) as file:
        file.set_extended_header(np.arange(777, dtype="u1"))
    np.testing.assert_array_equal(MrcFrames(tmp_path / "a.mrc")[0], image)
    edit_header(tmp_path / "a.mrc", map=b"")
    np.testing.assert_array_equal(MrcFrames(tmp_path / "a.mrc")[0], image)


def test_mrc_origin(tmp_path):
    write_mrc(
        tmp_path / "a.mrc", np.ones((32, 40), "f2"), 1.5, "x", origin_angstrom=(3.0, -4.5, 6.0)
    )
    with mrcfile.open(tmp_path / "a.mrc") as file:
        assert file.header.origin.tolist() == (3.0, -4.5, 6.0)


def test_frames_are_the_readers_own(tmp_path):
    write_mrc(tmp_path / "a.mrcs", numbers((2, 32, 40)), 1.0, "x", stack=True)
    frames = MrcFrames(tmp_path / "a.mrcs")
    frames[0][:] = -1
    assert frames[0].min() >= 0


# --- MRC packed as a whole
# --------------------------------------------------------------------------------------------------

PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": imagecodecs.zstd_encode,
}


@pytest.fixture(params=PACK)
def packed_file(tmp_path, request):
    stack = numbers((5, 200, 301), "u2")
    write_mrc(tmp_path / "a.mrcs", stack, 0.83, "x", stack=True)
    path = tmp_path / f"a.mrcs.{request.param}"
    path.write_bytes(PACK[request.param]((tmp_path / "a.mrcs").read_bytes()))
    return path, stack


def test_packed_mrc_is_read_as_any(packed_file):
    path, stack = packed_file
    movie = open_movie(path, frames=slice(1, 5))
    assert (movie.shape, movie.pixel_size_angstrom) == ((200, 301), 0.83)
    for i in (3, 0, 2):
        np.testing.assert_array_equal(movie.frames[i], stack[i + 1])
    path.unlink()  # it is unpacked once
    np.testing.assert_array_equal(movie.frames[1], stack[2])


def test_packed_under_another_name(packed_file, tmp_path):
    path, stack = packed_file
    for name in ("b.mrc", "b", "b" + path.suffix, "b.MRC" + path.suffix.upper()):
        (tmp_path / name).write_bytes(path.read_bytes())
        np.testing.assert_array_equal(open_movie(tmp_path / name).frames[4], stack[4])


def test_packed_movies_travel_to_worker_processes(packed_file):
    path, stack = packed_file
    frames = CompressedMrcFrames(path)
    np.testing.assert_array_equal(frames[4], stack[4])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames))[4], stack[4])


def test_unpacked_files_go_with_their_reader(packed_file, tmp_path, monkeypatch):
    path, _ = packed_file
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    frames = CompressedMrcFrames(path)
    frames[0]

    def ours():
        links = [os.readlink(p) for p in Path("/proc/self/fd").iterdir() if p.is_symlink()]
        return [link for link in links if link.startswith(str(tmp_path / "temporary"))]

    assert len(ours()) == 1 and not list((tmp_path / "temporary").iterdir())  # it has no name
    del frames
    assert not ours()


def test_zstd_forms(tmp_path):
    """Several frames, a frame to be skipped, stored and repeated blocks, and a file of unknown
    length, as a pipe gives it.
    """
    stack = np.zeros((3, 300, 400), "u2")
    stack[1] = np.random.default_rng(0).integers(0, 65536, stack[1].shape)
    write_mrc(tmp_path / "a.mrc", stack, 1.0, "x", stack=True)
    raw = (tmp_path / "a.mrc").read_bytes()
    stored = [raw[i : i + 100000] for i in range(0, len(raw), 100000)]
    blocks = b"".join(
        (len(b) << 3 | (i == len(stored) - 1)).to_bytes(3, "little") + b
        for i, b in enumerate(stored)
    )
    forms = [
        b"\x28\xb5\x2f\xfd" + b"\0\x40" + blocks,  # no content size, a window of 256 KiB
        imagecodecs.zstd_encode(raw[:5000])
        + b"\x50\x2a\x4d\x18\x03\0\0\0abc"
        + imagecodecs.zstd_encode(raw[5000:]),
        imagecodecs.zstd_encode(raw, level=19),
    ]
    for form in forms:
        (tmp_path / "a.mrc.zst").write_bytes(form)
        frames = CompressedMrcFrames(tmp_path / "a.mrc.zst")
        np.testing.assert_array_equal(np.stack([frames[i] for i in range(3)]), stack)


# --- TIFF
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4", "f2"])
def test_tiff_round_trip(tmp_path, dtype):
    stack = numbers((3, 40, 33), dtype)
    write_tiff(tmp_path / "a.tif", stack, 1.635)
    frames = TiffFrames(tmp_path / "a.tif")
    assert isinstance(frames, FrameStack)
    assert frames.shape == (3, 40, 33)
    for i in range(3):
        assert frames[i].dtype == stack.dtype
        np.testing.assert_array_equal(frames[i], stack[i])
    with pytest.raises(IndexError):
        frames[3]
    assert open_movie(tmp_path / "a.tif").pixel_size_angstrom == 1.635
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), stack[:, ::-1])
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.pages.first.compression == tifffile.COMPRESSION.LZW and not tif.is_bigtiff


def test_tiff_writes_from_an_iterator_and_a_tensor(tmp_path):
    stack = numbers((3, 40, 33), "u1")
    write_tiff(tmp_path / "a.tif", iter(stack), None)
    write_tiff(tmp_path / "b.tif", torch.from_numpy(stack), None)
    for name in "ab":
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"{name}.tif"), stack[:, ::-1])
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff  # its length was not known


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "lzw", "predictor": 2}, {"compression": "zlib"}, {"compression": "zstd"}],
    ids=str,
)
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_tiff_forms(tmp_path, dtype, order, bigtiff, options):
    if dtype == "f4" and "predictor" in options:
        options = {**options, "predictor": 3}
    stack = numbers((4, 40, 48), dtype)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stack,
        byteorder=order,
        bigtiff=bigtiff,
        photometric="minisblack",
        rowsperstrip=7,
        **options,
    )
    frames = TiffFrames(tmp_path / "a.tif")
    np.testing.assert_array_equal(
        np.stack([frames[i] for i in range(4)]), stack[:, ::-1]
    )  # TIFF is stored from the top down


@pytest.mark.parametrize("tile", [(16, 32), (16, 16), (64, 64)])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_tiff_tiles(tmp_path, tile, compression):
    stack = numbers((3, 40, 49), "u2")  # tiles stand over on both sides
    tifffile.imwrite(
        tmp_path / "a.tif", stack, photometric="minisblack", tile=tile, compression=compression
    )
    frames = TiffFrames(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.stack([frames[i] for i in range(3)]), stack[:, ::-1])


def test_tiff_pixel_size_only_where_its_unit_is_told(tmp_path):
    stack = numbers((2, 40, 48), "u2")
    for unit, expected in (
        ("nm", 2.5),
        ("Angstrom", 0.25),
        ("\\u00C5", 0.25),
        ("micron", None),
        ("inch", None),
    ):
        tifffile.imwrite(
            tmp_path / "a.tif",
            stack,
            imagej=True,
            resolution=(4, 4),
            metadata={"unit": unit, "axes": "TYX"},
        )
        stored = TiffFrames(tmp_path / "a.tif").pixel_size_yx_angstrom
        assert stored == (None if expected is None else pytest.approx((expected, expected))), unit
    tifffile.imwrite(tmp_path / "a.tif", stack, resolution=(1e8, 1e8), resolutionunit="CENTIMETER")
    assert TiffFrames(tmp_path / "a.tif").pixel_size_yx_angstrom is None


def test_tiff_refuses_to_write(tmp_path):
    with pytest.raises(BadInputError, match="no frames"):
        write_tiff(tmp_path / "a.tif", [], 1.0)
    with pytest.raises(BadInputError, match="frame 2"):
        write_tiff(tmp_path / "a.tif", [np.zeros((32, 32), "u1"), np.zeros((32, 33), "u1")], 1.0)
    with pytest.raises(BadInputError, match="give"):
        write_tiff(tmp_path / "a.tif", np.zeros((2, 32, 32), "c8"), 1.0)
    assert not list(tmp_path.iterdir())


# --- two counts a byte


def halves_of_bytes(counts):
    """Counts [n, y, 2 x] two to a byte, the left one in the lower half."""
    return counts[:, :, 0::2] | (counts[:, :, 1::2] << 4)


@pytest.mark.parametrize("rate", [0.05, 0.8, 5.0])
@pytest.mark.parametrize("suffix", [".tif", ".mrcs", ".mrcs.gz"])
def test_bytes_that_hold_two_counts_are_read_so(tmp_path, suffix, rate):
    """By their look alone: halves of counts are alike, and pixels of their own."""
    rng = np.random.default_rng(0)
    counts = np.minimum(rng.poisson(rate, (3, 200, 280)), 15).astype(np.uint8)
    pairs = halves_of_bytes(counts)
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, pairs[:, ::-1], compression="zlib", photometric="minisblack")
    else:
        with mrcfile.new(path, compression="gzip" if suffix.endswith("gz") else None) as file:
            file.set_data(pairs.view(np.int8))
            file.set_image_stack()
    movie = open_movie(path, pixel_size_angstrom=1.0)
    assert movie.shape == (200, 280)
    assert "280 pixels wide" in movie.notes[0]
    for i in range(3):
        np.testing.assert_array_equal(movie.frames[i], counts[i])
    again = pickle.loads(pickle.dumps(movie))
    np.testing.assert_array_equal(again.frames[2], counts[2])
    as_bytes = open_movie(path, pixel_size_angstrom=1.0, packed_4_bit=False)
    assert as_bytes.shape == (200, 140) and not as_bytes.notes
    np.testing.assert_array_equal(as_bytes.frames[1].view(np.uint8), pairs[1])


def bytes_of(kind, shape):
    rng = np.random.default_rng(1)
    values = {
        "few counts": lambda: rng.poisson(0.05, shape),
        "counts": lambda: rng.poisson(3, shape),
        "many counts": lambda: rng.poisson(40, shape).clip(0, 255),
        "picture": lambda: rng.normal(128, 30, shape).clip(0, 255),
        "any bits": lambda: rng.integers(0, 256, shape),
        "mask": lambda: 255 * rng.integers(0, 2, shape),
        "stretched": lambda: 17 * rng.poisson(3, shape).clip(0, 15),
        "signed": lambda: rng.normal(0, 3, shape).round().astype(np.int8).view(np.uint8),
        "nothing": lambda: np.zeros(shape),
    }
    return np.asarray(values[kind]()).astype(np.uint8)


@pytest.mark.parametrize(
    "kind",
    ["few counts", "counts", "many counts", "picture", "any bits", "mask", "stretched", "signed"],
)
def test_other_bytes_are_bytes(tmp_path, kind):
    frames = bytes_of(kind, (2, 150, 160))
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack")
    assert TiffFrames(tmp_path / "a.tif").shape == (2, 150, 160)
    assert TiffFrames(tmp_path / "a.tif", packed_4_bit=True).shape == (2, 150, 320)


@pytest.mark.parametrize(
    ("width", "height", "kind", "packed"),
    [
        (3838, 7420, "nothing", True),
        (3710, 7676, "any bits", True),
        (5760, 8184, "nothing", True),
        (4092, 11520, "nothing", True),
        (3838, 7420, "counts", False),
        (3838, 7420, "many counts", None),
        (3838, 3710, "nothing", False),
        (3710, 3838, "nothing", False),
        (5760, 4092, "nothing", False),
        (7676, 7420, "nothing", False),
    ],
)
def test_sizes_that_speak_for_two_counts_a_byte(width, height, kind, packed):
    sample = bytes_of(kind, (1 << 18,))

    def packed_if(told):
        return holds_packed(Path("a.tif"), height, width, [sample], told)

    if packed is None:
        with pytest.raises(BadInputError, match=r"a.tif.*--packed-4-bit or --no-packed-4-bit"):
            packed_if(None)
        assert packed_if(True) and not packed_if(False)
    else:
        assert packed_if(None) == packed


def test_packed_is_of_bytes_only(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((64, 64), np.uint16))
    write_mrc(tmp_path / "a.mrc", np.ones((64, 64), np.float32), 1.0, "a")
    for name in ("a.tif", "a.mrc"):
        with pytest.raises(BadInputError, match=f"{name} .*leave it out"):
            open_movie(tmp_path / name, pixel_size_angstrom=1.0, packed_4_bit=True)


def test_imods_flag_says_packed(tmp_path):
    counts = np.full((2, 64, 80), 7, np.uint8)
    write_mrc(tmp_path / "a.mrc", halves_of_bytes(counts).view(np.int8), 2.0, "a", stack=True)
    data = bytearray((tmp_path / "a.mrc").read_bytes())
    data[152:160] = struct.pack("<2i", 1146047817, 16)
    (tmp_path / "a.mrc").write_bytes(data)
    frames = MrcFrames(tmp_path / "a.mrc")
    assert frames.shape == (2, 64, 80) and frames.pixel_size_yx_angstrom == (2.0, 2.0)
    np.testing.assert_array_equal(frames[1], counts[1])


def test_tiff_of_four_bits(tmp_path):
    """TIFF's own form: the left pixel in the upper half, and the file says so."""
    pixels = np.random.default_rng(0).integers(0, 16, (64, 96)).astype(np.uint8)
    data = ((pixels[:, 0::2] << 4) | pixels[:, 1::2]).tobytes()
    values = {256: 96, 257: 64, 258: 4, 259: 1, 262: 1, 273: 8, 277: 1, 278: 64, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    directory = struct.pack("<H", len(values)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + data + directory)
    np.testing.assert_array_equal(TiffFrames(tmp_path / "a.tif")[0], pixels[::-1])


# --- frames behind one page


@pytest.mark.parametrize(
    "options", [{"imagej": True}, {"imagej": True, "byteorder": "<"}, {"byteorder": ">"}]
)
def test_tiff_frames_behind_one_page(tmp_path, options):
    """As ImageJ keeps stacks beyond 4 GB, and tifffile stacks that it may."""
    frames = np.random.default_rng(0).poisson(3, (7, 64, 96)).astype(np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, frames, truncate=True, **options)
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 1
    movie = open_movie(path, pixel_size_angstrom=1.0)
    assert len(movie) == 7
    for i in range(7):
        np.testing.assert_array_equal(movie.frames[i], frames[i, ::-1])
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(BadInputError, match="7 images but has 1 page"):
        TiffFrames(path)


def untold(path, frames):
    tifffile.imwrite(path, frames[0], metadata=None)
    path.write_bytes(path.read_bytes() + frames[1:].tobytes())


def without_links(path, frames):
    tifffile.imwrite(path, frames, metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        end = tif.pages[0].offset + 2 + 12 * len(tif.pages[0].tags)
    data = bytearray(path.read_bytes())
    data[end : end + 4] = bytes(4)
    path.write_bytes(data)


def below(path, frames):
    with tifffile.TiffWriter(path) as tif:
        tif.write(frames[0], subifds=len(frames) - 1)
        for frame in frames[1:]:
            tif.write(frame)


def packed_away(path, frames):
    tifffile.imwrite(
        path, frames[0], compression="zlib", description="ImageJ=1.53\nimages=7\n", metadata=None
    )


def planes(path, frames):
    options = {"photometric": "minisblack", "planarconfig": "separate", "extrasamples": [0] * 6}
    tifffile.imwrite(path, frames, **options)


def volume(path, frames):
    tifffile.imwrite(path, frames, volumetric=True, tile=(16, 16, 16))


@pytest.mark.parametrize("write", [untold, without_links, below, packed_away, planes, volume])
def test_tiff_frames_that_cannot_be_reached(tmp_path, write):
    frames = np.random.default_rng(0).poisson(3, (7, 64, 96)).astype(np.uint16)
    write(tmp_path / "a.tif", frames)
    with pytest.raises(BadInputError, match=r"a.tif.*(one page a frame|one grey image a page)"):
        TiffFrames(tmp_path / "a.tif")


def test_tiff_copies_of_less_resolution_are_no_frames(tmp_path):
    frame = np.random.default_rng(0).poisson(3, (64, 96)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(frame, subifds=1)
        tif.write(frame[::2, ::2], subfiletype=1)
    assert TiffFrames(tmp_path / "a.tif").shape == (1, 64, 96)


# --------------------------------------------------------------------------------------------------


# --- opening


@pytest.fixture
def stack_file(tmp_path):
    write_mrc(tmp_path / "a.mrcs", numbers((10, 32, 40), "u2"), 0.83, "x", stack=True)
    return tmp_path / "a.mrcs"


def test_open_movie_keeps_what_it_is_told(stack_file):
    movie = open_movie(
        stack_file, exposure_e_per_a2=1.5, pre_exposure_e_per_a2=2.0, voltage_kv=200.0
    )
    assert (len(movie), movie.shape, movie.pixel_size_angstrom, movie.name) == (
        10,
        (32, 40),
        0.83,
        str(stack_file),
    )
    assert (movie.exposure, movie.voltage_kv) == (Exposure.uniform(10, 1.5, 2.0), 200.0)
    assert open_movie(stack_file, pixel_size_angstrom=2.0).pixel_size_angstrom == 2.0


def test_frames_left_out_count_as_exposure_before(stack_file):
    whole = open_movie(stack_file)
    part = open_movie(
        stack_file, exposure_e_per_a2=1.5, pre_exposure_e_per_a2=2.0, frames=slice(3, 7)
    )
    assert len(part) == 4 and part.exposure.pre_exposure_e_per_a2 == 2.0 + 3 * 1.5
    for i in range(4):
        np.testing.assert_array_equal(part.frames[i], whole.frames[3 + i])
    with pytest.raises(IndexError):
        part.frames[4]
    assert len(open_movie(stack_file, frames=slice(None, 2))) == 2
    assert len(open_movie(stack_file, frames=slice(9, None))) == 1


@pytest.mark.parametrize(
    "chosen", [slice(0, 11), slice(4, 4), slice(-2, None), slice(0, 10, 2), slice(12, None)]
)
def test_frames_that_are_not_there(stack_file, chosen):
    with pytest.raises(BadInputError, match="has frames 1 to 10"):
        open_movie(stack_file, frames=chosen)


@pytest.mark.parametrize(
    "name", ["a.tif", "a.TIFF", "a.mrc", "a.MRCS", "a.st", "a.map", "a.bin", "a"]
)
def test_format_by_suffix_else_by_content(tmp_path, name):
    stack = numbers((2, 32, 40), "u2")
    write_mrc(tmp_path / "x.mrc", stack, 1.0, "x", stack=True)
    write_tiff(tmp_path / "x.tif", stack, 1.0)
    sources = (
        ["x.mrc", "x.tif"]
        if name in ("a.bin", "a")
        else ["x.tif" if name.lower().startswith("a.t") else "x.mrc"]
    )
    for source in sources:
        (tmp_path / name).write_bytes((tmp_path / source).read_bytes())
        np.testing.assert_array_equal(open_movie(tmp_path / name).frames[1], stack[1])


@pytest.mark.parametrize("suffix", ["mrc", "tif"])
def test_movies_travel_to_worker_processes(tmp_path, suffix):
    stack = numbers((3, 32, 40), "u2")
    write_mrc(tmp_path / "a.mrc", stack, 1.0, "x", stack=True)
    write_tiff(tmp_path / "a.tif", stack, 1.0)
    movie = pickle.loads(pickle.dumps(open_movie(tmp_path / f"a.{suffix}", frames=slice(1, 3))))
    np.testing.assert_array_equal(movie.frames[1], stack[2])


# --- outputs
# --------------------------------------------------------------------------------------------------


def test_atomic_path_replaces_at_once(tmp_path):
    target = tmp_path / "a.mrc"
    target.write_text("old")
    with atomic_path(target) as temporary:
        assert (
            temporary.parent == tmp_path
            and temporary.suffix == ".mrc"
            and temporary.name.startswith(".")
        )
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, BadInputError])
def test_atomic_path_leaves_nothing_behind(tmp_path, failure):
    target = tmp_path / "a.mrc"
    target.write_text("old")
    with pytest.raises(failure), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise failure
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.write_text("{}")
        write_mrc(tmp_path / "a.mrc", np.zeros((2, 2), np.float32), 1.0, "a")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}
    assert len(list(tmp_path.iterdir())) == 2


def test_atomic_path_takes_the_longest_name(tmp_path):
    target = tmp_path / ("n" * 251 + ".mrc")
    write_mrc(target, np.zeros((32, 32), "f4"), 1.0, "x")
    assert target.exists()


def test_outputs_that_cannot_be_written(tmp_path):
    image = np.zeros((32, 32), "f4")
    (tmp_path / "folder.mrc").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*missing.*make its folder first"):
        write_mrc(tmp_path / "missing" / "a.mrc", image, 1.0, "x")
    with pytest.raises(OutputError, match=r"folder\.mrc"):
        write_mrc(tmp_path / "folder.mrc", image, 1.0, "x")
    with pytest.raises(OutputError, match="make its folder first"):
        write_tiff(tmp_path / "missing" / "a.tif", [image], 1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.mrc"]


def test_disk_full_is_told(tmp_path):
    with pytest.raises(OutputError, match="free some space"), atomic_path(tmp_path / "a.mrc"):
        raise OSError(28, "No space left on device")


def test_ensure_writable_folder(tmp_path):
    assert ensure_writable_folder(tmp_path / "a" / "b").is_dir()
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").write_text("x")
    for bad in ("file", "file/below"):
        with pytest.raises(OutputError, match="choose"):
            ensure_writable_folder(tmp_path / bad)
    with pytest.raises(OutputError):
        ensure_writable_folder("/proc/nothing/can/be/made/here")


# --- real files
# --------------------------------------------------------------------------------------------------


def test_real_mrc(data_folder):
    movie = open_movie(next((data_folder / "real" / "apoferritin").glob("*_frame.mrc")))
    assert (len(movie), movie.shape, movie.pixel_size_angstrom) == (1, (1200, 1240), 1.5)
    assert movie.frame(0).std() > 0


def test_real_tiff(data_folder):
    path = data_folder / "real" / "gold_growth" / "gold_growth_k2_13frames.tif"
    with pytest.raises(BadInputError, match=r"pixel size missing in .*; pass --pixel-size"):
        open_movie(path)
    movie = open_movie(path, pixel_size_angstrom=1.635)
    assert (len(movie), movie.shape) == (13, (1917, 1851))
    np.testing.assert_array_equal(movie.frames[12], tifffile.imread(path, key=12)[::-1])


def test_real_detector_files(data_folder):
    folder = data_folder / "real" / "detector"
    movie = open_movie(folder / "de_celeritas_5x256x256_raw.tif", pixel_size_angstrom=1.0)
    assert (len(movie), movie.shape) == (5, (256, 256))
    with pytest.raises(BadInputError, match="pixel size missing"):
        open_movie(folder / "de_celeritas_gain.mrc")
    np.testing.assert_array_equal(
        MrcFrames(folder / "de_celeritas_gain.mrc")[0],
        mrcfile.read(folder / "de_celeritas_gain.mrc"),
    )


@pytest.mark.parametrize("name", ["a.mrc", "a.mrcs", "a.tif", "A.TIFF"])
def test_a_movie_is_written_in_the_format_of_its_suffix(tmp_path, name):
    frames = np.random.default_rng(0).integers(0, 9, (3, 40, 48)).astype(np.uint16)
    write_movie(tmp_path / name, frames, 1.25, "counts")
    movie = open_movie(tmp_path / name)
    assert movie.pixel_size_angstrom == 1.25
    np.testing.assert_array_equal([movie.frames[i] for i in range(3)], frames)


@pytest.mark.parametrize("name", ["a.eer", "a.xyz", "a"])
def test_formats_that_cannot_be_written_are_refused(tmp_path, name):
    with pytest.raises(BadInputError, match=r"cannot be written as a movie; give one of \.mrc"):
        write_movie(tmp_path / name, np.zeros((1, 40, 48), np.uint8), 1.0, "nothing")


def test_every_format_has_its_suffixes_for_itself():
    suffixes = [suffix for row in FORMATS for suffix in row.suffixes]
    assert len(set(suffixes)) == len(suffixes)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("µ 'a' <b>", "µ 'a' <b>"),
        ("a\n\t\x1b[31m", r"a\n\t\x1b[31m"),
        ("b_1\udcb5m", r"b_1\xb5m"),
        ("\u2028\u202e\u200b", r"\u2028\u202e\u200b"),
    ],
)
def test_what_a_terminal_shows(text, shown):
    assert printable(text) == str(BadInputError(text)) == shown


def test_names_that_a_star_table_holds():
    for name in ("o/a.mrc", "µ[1]*?<b>&,;$%", "o/data_x", "o/_rln"):
        assert star_holds(name) and star_name(name) == name
    assert star_name("a b'\"#\\\n\udcb5") == "a%20b%27%22%23%5C%0A%B5"
    assert not any(map(star_holds, ("a b", "it's", 'a"b', "a#b", "a\\b", "a\tb", "a\udcb5")))


def test_an_absurd_extended_header_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.mrc"
    write_mrc(path, np.ones((2, 40, 40), np.int8), 2.0, "x", stack=True)
    raw = bytearray(path.read_bytes())
    for stated, said in ((2**31 - 1, "no valid MRC header"), (1 << 20, "is cut off")):
        raw[92:96] = stated.to_bytes(4, "little")
        path.write_bytes(raw)
        with pytest.raises(BadInputError, match=said):
            MrcFrames(path)
