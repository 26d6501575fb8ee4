"""Damaged and wrong files are told in one line that names the file; nothing else ever comes out."""

import bz2
import errno
import gzip
import io
import logging
import lzma
import os

import imagecodecs
import mrcfile
import numpy as np
import pytest
import tifffile
from eer_writer import encode, random_events, write_eer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstnet.errors import BadInputError
from dstnet.io import EerSettings, TiffFrames, open_movie, write_mrc, write_tiff

PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": imagecodecs.zstd_encode,
}
SIDES = (32, 40)
STREAMS = [encode(random_events(np.random.default_rng(i), SIDES, 0.1), SIDES) for i in range(6)]
STACK = np.random.default_rng(0).poisson(3.0, (3, 32, 40)).astype("u2")


@pytest.fixture
def mrc_file(tmp_path):
    write_mrc(tmp_path / "a.mrc", STACK, 1.2, "x", stack=True)
    return tmp_path / "a.mrc"


@pytest.fixture
def tiff_file(tmp_path):
    write_tiff(tmp_path / "a.tif", STACK, 1.2)
    return tmp_path / "a.tif"


def refused(path, match, **options):
    """Opening `path` and reading all of it ends in one good line."""
    with pytest.raises(BadInputError, match=match) as caught:
        movie = open_movie(path, **options)
        for i in range(len(movie)):
            movie.frame(i)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 500
    return message


def edit_header(path, **fields):
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(raw[:1024], mrcfile.dtypes.HEADER_DTYPE.newbyteorder("<")).copy()
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.tobytes() + raw[1024:])


def test_no_file_at_all(tmp_path):
    refused(tmp_path / "none.mrc", "does not exist")
    refused(tmp_path, "is a folder")
    (tmp_path / "link.mrc").symlink_to(tmp_path / "none.mrc")
    refused(tmp_path / "link.mrc", "does not exist")
    os.mkfifo(tmp_path / "pipe.mrc")
    refused(tmp_path / "pipe.mrc", "no regular file")


def test_no_permission(mrc_file, monkeypatch):
    # root, who often runs tests, may read everything; so the refusal is staged
    def forbidden(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    refused(mrc_file, "may not be read; change its permissions")


@pytest.mark.parametrize("suffix", ["mrc", "tif", "mrcs", "xyz", "eer"])
def test_no_movie_inside(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for content, match in (
        (b"", "is empty"),
        (b"data_\nloop_\n_rlnMicrographName\n" * 50, "text file"),
        ("Bewegungsmüde Größen\n".encode() * 100, "text file"),
        (b"\x1f\x8b\x08\0" + bytes(2000), "unpack"),
        (b"PK\x03\x04" + bytes(2000), "unpack it first"),
        (bytes(3000), "MRC|TIFF|EER"),
        (bytes([0, 1, 2]), "MRC|TIFF|EER|within its header"),
        (np.random.default_rng(1).bytes(5000), "MRC|TIFF|EER"),
    ):
        path.write_bytes(content)
        refused(path, match)


def test_wrong_suffix(mrc_file, tiff_file, tmp_path):
    (tmp_path / "b.tif").write_bytes(mrc_file.read_bytes())
    (tmp_path / "b.mrc").write_bytes(tiff_file.read_bytes())
    refused(tmp_path / "b.tif", "TIFF")
    refused(tmp_path / "b.mrc", "no valid MRC header")


@pytest.mark.parametrize("shape", [(31, 40), (40, 31), (3, 8, 8)])
def test_too_small(tmp_path, shape):
    write_mrc(tmp_path / "a.mrc", np.ones(shape, "f4"), 1.0, "x")
    refused(tmp_path / "a.mrc", "32 to")
    tifffile.imwrite(tmp_path / "a.tif", np.ones(shape, "u2"), photometric="minisblack")
    refused(tmp_path / "a.tif", "32 to", pixel_size_angstrom=1.0)


def test_pixel_size(mrc_file):
    for cell, match in (
        ((0, 0, 0), "pixel size missing in .*; pass --pixel-size"),
        ((-4, -4, 1), "pixel size missing"),
        ((np.nan, 40, 1), "pixel size missing"),
        ((40 * 0.01, 32 * 0.01, 1), "absurd.*--pixel-size"),
        ((40 * 101, 32 * 101, 1), "absurd.*--pixel-size"),
        ((40 * 1.0, 32 * 1.02, 1), "not square.*--pixel-size"),
    ):
        edit_header(
            mrc_file, cella=np.array(cell, "f4").view([("x", "f4"), ("y", "f4"), ("z", "f4")])
        )
        refused(mrc_file, match)
        assert open_movie(mrc_file, pixel_size_angstrom=1.1).pixel_size_angstrom == 1.1
    edit_header(mrc_file, mx=0)
    refused(mrc_file, "pixel size missing")
    refused(mrc_file, "pixel size", pixel_size_angstrom=-1.0)


@pytest.mark.parametrize("mode", [3, 4, 5, 16, 100, 1023])
def test_mrc_modes_that_are_no_images(mrc_file, mode):
    edit_header(mrc_file, mode=mode)
    refused(mrc_file, f"mode {mode} .*convert")


def test_mrc_headers(mrc_file):
    good = mrc_file.read_bytes()
    for fields, match in (
        ({"nx": -40}, "no valid MRC header"),
        ({"ny": 0}, "no valid MRC header"),
        ({"nz": 2**31 - 1}, "no valid MRC header"),
        ({"mode": -1}, "no valid MRC header"),
        ({"nsymbt": -1}, "no valid MRC header"),
        ({"nsymbt": 2**31 - 1}, "no valid MRC header"),
        ({"nz": 4}, "cut off.*3 of 4 frames complete"),
        ({"nz": 2}, "header is damaged"),
        ({"ispg": 401}, "4 dimensions"),
        ({"mapc": 2, "mapr": 1}, "axes"),
    ):
        mrc_file.write_bytes(good)
        edit_header(mrc_file, **fields)
        refused(mrc_file, match)
    flags = bytearray(84)
    flags[40:48] = np.array([1146047817, 16], "<i4").tobytes()
    mrc_file.write_bytes(good)
    edit_header(mrc_file, mode=0, extra2=bytes(flags))
    refused(mrc_file, "header is damaged")  # two counts a byte: twice the file's pixels


def test_tiff_pages_that_are_no_movie(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(STACK[0])
        tif.write(STACK[0][:, :36])
    refused(path, "frame 2 is .*alike", pixel_size_angstrom=1.0)
    with tifffile.TiffWriter(path) as tif:
        tif.write(STACK[0])
        tif.write(STACK[0].astype("u1"))
    refused(path, "frame 2 is .*alike", pixel_size_angstrom=1.0)
    tifffile.imwrite(path, np.zeros((32, 40, 3), "u1"), photometric="rgb")
    refused(path, "colour", pixel_size_angstrom=1.0)
    tifffile.imwrite(path, np.zeros((3, 32, 40), "c8"), photometric="minisblack")
    refused(path, "complex64", pixel_size_angstrom=1.0)
    # One page, and all frames behind it
    tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "TYX"}, truncate=True)
    whole = path.read_bytes()
    assert len(open_movie(path, pixel_size_angstrom=1.0)) == len(STACK)
    path.write_bytes(whole[: -STACK[0].nbytes // 2])
    refused(path, "cut off|has 1 page|bytes", pixel_size_angstrom=1.0)


def test_tiff_links_that_lead_nowhere_or_round(tiff_file):
    good = tiff_file.read_bytes()
    offsets = TiffFrames(tiff_file)._offsets
    link = offsets[1] + 2 + 12 * int.from_bytes(good[offsets[1] : offsets[1] + 2], "little")
    assert int.from_bytes(good[link : link + 4], "little") == offsets[2]
    for target in (offsets[0], offsets[1], len(good), 2**32 - 1, len(good) - 1):
        raw = bytearray(good)
        raw[link : link + 4] = target.to_bytes(4, "little")
        tiff_file.write_bytes(raw)
        refused(tiff_file, "copy it again")


def test_damaged_page_is_told_with_its_number_and_nothing_else(tmp_path, capfd, caplog):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        (start,), (count,) = tif.pages[1].dataoffsets, tif.pages[1].databytecounts
    raw = bytearray(path.read_bytes())
    raw[start + count // 2] ^= 0x55
    path.write_bytes(raw)
    movie = open_movie(path, pixel_size_angstrom=1.0)
    np.testing.assert_array_equal(movie.frames[2], STACK[2, ::-1])
    with caplog.at_level(logging.DEBUG):
        message = refused(path, "frame 2 cannot be read", pixel_size_angstrom=1.0)
    assert "frame 2" in message and not caplog.records and capfd.readouterr() == ("", "")


def test_lzw_that_ends_early_is_no_dark_frame(tiff_file):
    with tifffile.TiffFile(tiff_file) as tif:
        (start,) = tif.pages[2].dataoffsets
    raw = bytearray(tiff_file.read_bytes())
    raw[start : start + 3] = (
        b"\x80\x40\x40"  # the codes "clear" and "end of information", nine bits each
    )
    tiff_file.write_bytes(raw)
    refused(tiff_file, "frame 3 cannot be read")


@pytest.mark.parametrize("name", ["a.mrc", "a.tif"])
def test_files_that_change_after_they_were_opened(mrc_file, tiff_file, name):
    path = mrc_file.with_name(name)
    movie = open_movie(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(BadInputError, match="frame 3"):
        movie.frame(2)
    path.unlink()
    with pytest.raises(BadInputError, match="frame 1"):
        movie.frame(0)


def packed(tmp_path, suffix):
    write_mrc(tmp_path / "b.mrc", STACK, 1.2, "x", stack=True)
    (tmp_path / f"a.mrc.{suffix}").write_bytes(PACK[suffix]((tmp_path / "b.mrc").read_bytes()))
    return tmp_path / f"a.mrc.{suffix}"


@pytest.mark.parametrize("suffix", PACK)
def test_packed_files(tmp_path, suffix):
    path = packed(tmp_path, suffix)
    good = path.read_bytes()
    for cut in (10, len(good) // 2, len(good) - 10, len(good) - 1):
        path.write_bytes(good[:cut])
        refused(path, "cut off|cannot be unpacked")
    path.write_bytes(
        good[: len(good) // 2] + bytes([good[len(good) // 2] ^ 0x55]) + good[len(good) // 2 + 1 :]
    )
    if suffix != "zst":  # without a checksum, as here, damage may stay unseen
        refused(path, "cannot be unpacked|no valid MRC header")
    path.write_bytes(PACK[suffix]((tmp_path / "b.mrc").read_bytes()[:-100]))
    refused(path, "cut off: .* 2 of 3 frames complete")
    path.write_bytes(PACK[suffix]((tmp_path / "b.mrc").read_bytes() + bytes(10**6)))
    refused(path, "header is damaged")
    path.write_bytes(PACK[suffix](b"no movie " * 1000))
    refused(path, "no valid MRC header")
    path.write_bytes(PACK[suffix](b""))
    refused(path, "within its header|cut off")
    (tmp_path / f"a.tif.{suffix}").write_bytes(good)
    refused(tmp_path / f"a.tif.{suffix}", "unpack it first")


class _FullDisk(io.BytesIO):
    def write(self, _data):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("suffix", PACK)
def test_no_room_to_unpack(tmp_path, suffix, monkeypatch):
    path = packed(tmp_path, suffix)
    if suffix == "zst":
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: _FullDisk().write(b""))
    else:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: _FullDisk())
    refused(path, "cannot unpack .* No space left on device; free some space there, or set TMPDIR")


@pytest.mark.parametrize("suffix", PACK)
def test_no_folder_to_unpack_into(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    refused(packed(tmp_path, suffix), "cannot unpack .*missing.*set TMPDIR")


def test_eer_raw_frames_that_are_damaged(tmp_path):
    path = tmp_path / "a.eer"
    options = {"pixel_size_angstrom": 1.0, "eer": EerSettings(frames_per_fraction=2)}
    for stream, match in (
        (STREAMS[3][:-3], "frame 2 cannot be read: raw frame 4 is damaged"),
        (b"\0" * 4, "raw frame 4 is damaged"),
        (b"\xff" * len(STREAMS[3]), "raw frame 4 is damaged"),  # empty pixels for ever
        (STREAMS[3][:20] + b"\xff" * 400, "raw frame 4 is damaged"),  # ends behind the last pixel
    ):
        write_eer(path, [*STREAMS[:3], stream, *STREAMS[4:]], SIDES)
        movie = open_movie(path, **options)
        assert movie.frame(0).sum() > 0 and movie.frame(2).sum() > 0
        refused(path, match, **options)


def test_eer_files(tmp_path, mrc_file, tiff_file):
    path = tmp_path / "b.eer"
    for other in (mrc_file, tiff_file):
        path.write_bytes(other.read_bytes())
        refused(path, "EER")
    write_eer(path, STREAMS, SIDES)
    (tmp_path / "b.tif").write_bytes(path.read_bytes())
    refused(tmp_path / "b.tif", "EER movie; give it the suffix .eer", pixel_size_angstrom=1.0)
    write_eer(path, [*STREAMS[:2], b"", *STREAMS[3:]], SIDES)
    refused(path, "raw frame 3 lacks parts")
    for bits in ((20, 2, 2), (1, 2, 2), (7, 0, 2)):
        write_eer(path, STREAMS, SIDES, compression=65002, code_bits=bits)
        refused(path, "codes of .* bits")


def test_eer_fractions_that_cannot_be_made(tmp_path):
    path = tmp_path / "a.eer"
    write_eer(path, STREAMS, SIDES, pixel_size_m=1e-10)
    refused(path, "6 raw frames, no fraction of 7", eer=EerSettings(frames_per_fraction=7))
    by_exposure = EerSettings(exposure_per_fraction_e_per_a2=1.0)
    refused(path, "pass --dose-per-frame", eer=by_exposure)
    refused(path, "--dose-per-frame is that of a raw frame", eer=by_exposure, exposure_e_per_a2=1.0)
    refused(path, "6 raw frames, no fraction of 100", eer=by_exposure, exposure_e_per_a2=0.01)
    refused(path, "has frames 1 to 3", eer=EerSettings(frames_per_fraction=2), frames=slice(0, 4))


def test_eer_that_is_cut_off_or_changes(tmp_path):
    path = tmp_path / "a.eer"
    write_eer(path, STREAMS, SIDES, pixel_size_m=1e-10)
    good = path.read_bytes()
    movie = open_movie(path, eer=EerSettings(frames_per_fraction=3))
    path.write_bytes(good[: len(good) // 2])
    refused(path, "cut off|copy it again")
    with pytest.raises(BadInputError, match="frame 2 cannot be read: raw frame 4 is cut off"):
        movie.frame(1)
    path.unlink()
    with pytest.raises(BadInputError, match="frame 1 cannot be read"):
        movie.frame(0)


def read_whatever_is_there(path, **options):
    try:
        movie = open_movie(path, **options)
        for i in range(min(len(movie), 5)):
            movie.frame(i)
    except BadInputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return False
    return True


ANY_DAMAGE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("name", ["a.mrc", "a.tif"])
@ANY_DAMAGE
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_any_truncation_is_told(tmp_path, name, fraction):
    path = tmp_path / name
    (
        write_mrc(path, STACK, 1.2, "x", stack=True)
        if name == "a.mrc"
        else write_tiff(path, STACK, 1.2)
    )
    raw = path.read_bytes()
    path.write_bytes(raw[: int(fraction * len(raw))])
    assert not read_whatever_is_there(path)


FORMS = {
    "a.mrc": {},
    "plain.tif": {},
    "lzw.tif": {"compression": "lzw", "predictor": 2},
    "zlib.tif": {"compression": "zlib", "rowsperstrip": 5},
    "zstd.tif": {"compression": "zstd", "bigtiff": True},
    "tiled.tif": {"compression": "lzw", "tile": (16, 16)},
    "a.eer": {},
    **{f"a.mrc.{suffix}": {} for suffix in PACK},
}


@pytest.mark.parametrize("name", FORMS)
@ANY_DAMAGE
@given(
    changes=st.lists(
        st.tuples(st.one_of(st.integers(0, 300), st.integers(0, 12000)), st.integers(0, 255)),
        min_size=1,
        max_size=12,
    )
)
def test_any_garbling_is_told_or_harmless(tmp_path, name, changes):
    path = tmp_path / name
    if name == "a.mrc":
        write_mrc(path, STACK, 1.2, "x", stack=True)
    elif name == "a.eer":
        write_eer(path, STREAMS, SIDES)
    elif ".mrc." in name:
        packed(tmp_path, path.suffix[1:])
    else:
        tifffile.imwrite(path, STACK, photometric="minisblack", **FORMS[name])
    raw = bytearray(path.read_bytes())
    for position, value in changes:
        raw[position % len(raw)] = value
    path.write_bytes(raw)
    read_whatever_is_there(path, pixel_size_angstrom=1.0)
