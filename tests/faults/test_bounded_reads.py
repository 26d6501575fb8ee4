"""Whatever lies under a name that a user gives is read within bounds: regular files alone, and what
they say of their own size is checked before it is believed.
"""

import errno
import gzip
import json
import os
import resource
import shutil
import tracemalloc
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from dstnet.core.plain_yaml import read_yaml
from dstnet.core.regular_files import read_regular
from dstnet.dataset.simulated_movie import SimulatedMovie
from dstnet.errors import BadInputError, DstnetError, OutputError, SettingsError, WeightsError
from dstnet.io import CompressedMrcFrames, TiffFrames, write_mrc, write_tiff
from dstnet.io.reference import read_dark, read_defects, read_gain
from dstnet.io.star_table import read_star
from dstnet.network.weights import load_weights, read_card, released, save_weights
from dstnet.pipeline.inputs import read_inputs
from dstnet.pipeline.motion_source import read_tables
from dstnet.pipeline.records import read_records
from dstnet.potential.from_map import potential_from_map
from dstnet.simulation.settings import SimulationSettings
from dstnet.structure import read_structure

LIMIT_SECONDS = 10
READERS = {
    "list": lambda path: read_inputs([f"@{path}"]),
    "STAR": read_star,
    "motion": read_tables,
    "gain": read_gain,
    "dark": read_dark,
    "defects": read_defects,
    "settings": SimulationSettings.from_yaml,
    "card": lambda path: read_card(path.with_suffix(".safetensors")),
    "structure": read_structure,
    "map": lambda path: potential_from_map(path, 2.0),
}


pytestmark = pytest.mark.usefixtures("time_limit")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [_pipe, _device, _loop])
@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_read(tmp_path, reader, make):
    path = tmp_path / "a.json"
    make(path)
    with pytest.raises(DstnetError, match=r"a\.json"):
        READERS[reader](path)


@pytest.mark.parametrize("make", [_pipe, _device, _loop])
def test_records_that_are_no_files_are_none(tmp_path, make):
    make(tmp_path / "provenance.json")
    assert read_records(tmp_path).made_with is None
    (tmp_path / "truth").mkdir()
    make(tmp_path / "truth" / "a_settings.yaml")
    with pytest.raises(BadInputError, match=r"a_settings\.yaml"):
        SimulatedMovie.read(tmp_path, "a")


def test_size_is_checked_before_reading(tmp_path):
    path = tmp_path / "a.star"
    path.touch()
    os.truncate(path, 1 << 40)  # it takes no room
    with pytest.raises(OSError, match="larger than 16 MiB"):
        read_regular(path)
    for reader in ("list", "STAR", "motion", "settings", "defects"):
        with pytest.raises(DstnetError, match=r"a\.star"):
            READERS[reader](path)


def _repeated(first: str, following: str) -> str:
    """YAML where each of nine lines repeats the one before ten times."""
    lines = [f"a: &a {first}"]
    for before, name in zip("abcdefghi", "bcdefghij", strict=True):
        lines.append(f"{name}: &{name} " + following.format(", ".join([f"*{before}"] * 10)))
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        _repeated("[x]", "[{}]"),
        _repeated("{x: 1}", "{{<<: [{}]}}"),
        "a: &a [*a]",
        "a: " + "[" * 2000,
        "a: " + "{a: " * 60 + "}" * 60,
        "a: " + "[" * 100_000,
        "a: [" + "1," * 300_000 + "]",
        "a: [" + "[]," * 100_000 + "]",
        "seed: " + ":".join(["1"] * 200_000),
        "seed: " + "1" * 1_000_000,
        "seed: 2001-99-99",
        "seed: !!int ''",
        "seed: !!bool x",
        "seed: !!timestamp x",
    ],
)
def test_yaml_is_bounded(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        SimulationSettings.from_yaml(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 2000


def test_empty_settings_are_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.touch()
    with pytest.raises(SettingsError, match="it is empty"):
        SimulationSettings.from_yaml(path)
    path.write_text("# all as it is\n")
    assert SimulationSettings.from_yaml(path) == SimulationSettings()


def test_yaml_with_a_few_aliases_is_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: 1}\nb: *a\nc:\n  <<: *a\n  y: 2\n")
    assert read_yaml(path) == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}
    path.write_text("")
    assert read_yaml(path) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blocks", [10_000_000, 3, 4, 4]),
        ("widths", [48, 80, 112, 10**9]),
        ("widths", [1024] * 4),
        ("dense_layers", 10**8),
        ("features", 10**8),
    ],
)
def test_cards_of_absurd_networks(tmp_path, name, value):
    source = released()["dstnet-3"]
    path = tmp_path / "a.safetensors"
    shutil.copy(source, path)
    card = json.loads(source.with_suffix(".json").read_text())
    card["architecture_settings"][name] = value
    if value == [1024] * 4:
        card["architecture_settings"]["blocks"] = [64] * 4
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        load_weights(str(path))


def test_deep_card(tmp_path):
    path = tmp_path / "a.safetensors"
    path.with_suffix(".json").write_text('{"training": ' + "[" * 200_000)
    with pytest.raises(WeightsError, match=r"a\.json"):
        read_card(path)


def test_motion_of_many_columns(tmp_path):
    path = tmp_path / "a.star"
    names = "".join(f"_rlnColumn{i}\n" for i in range(100_000))
    path.write_text(f"data_global_shift\n\nloop_\n{names}{'1 ' * 100_000}\n")
    with pytest.raises(BadInputError, match="100000 columns"):
        read_tables(path)


@pytest.mark.parametrize("written", [0, 1])
def test_weights_never_without_card_on_a_full_disk(tmp_path, monkeypatch, written):
    network, card = load_weights()
    calls = []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        save_weights(network, card, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def _repeated_bytes(count: int) -> bytes:
    """A zstd file of `count` zero bytes, four bytes for each 128 KiB."""
    blocks = -(-count >> 17) * [(1 << 20 | 1 << 1).to_bytes(3, "little") + b"\0"]
    blocks[-1] = (1 << 20 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + b"\0\x58" + b"".join(blocks)


@pytest.mark.parametrize("packed", ["zstd", "gzip"])
def test_no_more_is_unpacked_than_the_header_says(tmp_path, monkeypatch, packed):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    write_mrc(tmp_path / "a.mrc", np.ones((3, 64, 64), "u2"), 1.0, "x")
    raw = (tmp_path / "a.mrc").read_bytes()
    path = tmp_path / "a.mrc.gz"
    if packed == "zstd":
        path.write_bytes(imagecodecs.zstd_encode(raw) + _repeated_bytes(4 << 30))
        assert path.stat().st_size < 140_000
    else:
        path.write_bytes(gzip.compress(raw) + gzip.compress(bytes(1 << 24)) * 256)
    frames = CompressedMrcFrames(path)
    assert len(frames) == 3
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, limit[1]))
    try:
        with pytest.raises(BadInputError, match="where its header asks for 25600"):
            frames[0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    path.write_bytes(_repeated_bytes(4 << 30))
    with pytest.raises(BadInputError, match="no valid MRC header"):
        CompressedMrcFrames(path)


@pytest.mark.parametrize(("size", "said"), [(1 << 40, "copy it again"), (1 << 16, "are free")])
def test_what_has_no_room_is_not_unpacked(tmp_path, monkeypatch, size, said):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    write_mrc(tmp_path / "a.mrc", np.ones((3, 64, 64), "u2"), 1.0, "x")
    head = bytearray((tmp_path / "a.mrc").read_bytes()[:1024])
    head[8:12] = (size >> 13).to_bytes(4, "little")  # frames of 8 KiB
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(gzip.compress(bytes(head) + bytes(1 << 22)))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1 << 15))
    with pytest.raises(BadInputError, match=said):
        CompressedMrcFrames(path)[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mrc", "a.mrc.gz"]


def test_zstd_of_many_small_blocks(tmp_path):
    stack = np.random.default_rng(0).integers(0, 99, (2, 64, 64)).astype("u2")
    write_mrc(tmp_path / "a.mrc", stack, 1.0, "x", stack=True)
    raw = (tmp_path / "a.mrc").read_bytes()
    parts = [raw[i : i + 200] for i in range(0, len(raw), 200)]
    blocks = [(len(part) << 3).to_bytes(3, "little") + part for part in parts]
    end = b"\1\0\0"  # an empty block
    (tmp_path / "a.mrc.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"\0\x40" + b"".join(blocks) + end)
    frames = CompressedMrcFrames(tmp_path / "a.mrc.zst")
    np.testing.assert_array_equal(np.stack([frames[i] for i in range(2)]), stack)


def test_packed_structures_and_maps_are_bounded(tmp_path, monkeypatch):
    (tmp_path / "a.pdb.gz").write_bytes(gzip.compress(b"REMARK\n" * (1 << 20)))
    monkeypatch.setattr("dstnet.structure.atoms._MOST_BYTES", 1 << 20)
    with pytest.raises(BadInputError, match="holds more than 1 MiB"):
        read_structure(tmp_path / "a.pdb.gz")
    (tmp_path / "a.mrc.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    monkeypatch.setattr("dstnet.potential.from_map._MOST_BYTES", 1 << 19)
    with pytest.raises(BadInputError, match="fewer voxels"):
        potential_from_map(tmp_path / "a.mrc.gz", 2.0)


def test_tiff_of_absurdly_many_pages(tmp_path, monkeypatch):
    monkeypatch.setattr("dstnet.io.tiff_pages._MOST_PAGES", 3)
    write_tiff(tmp_path / "a.tif", np.ones((3, 32, 32), "u1"), 1.0)
    assert len(TiffFrames(tmp_path / "a.tif")) == 3
    write_tiff(tmp_path / "b.tif", np.ones((4, 32, 32), "u1"), 1.0)
    with pytest.raises(BadInputError, match="more than 3 pages"):
        TiffFrames(tmp_path / "b.tif")


def test_no_more_memory_is_taken_than_a_file_has_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 10)
    tracemalloc.start()
    try:
        assert read_regular(tmp_path / "a", 1 << 30) == b"x" * 10
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
