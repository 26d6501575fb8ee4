"""Whatever lies under a name that a user gives is read within bounds: regular files alone, and what
they say of their own size is checked before it is believed.
"""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from dstnet.core.plain_yaml import read_yaml
from dstnet.core.regular_files import read_regular
from dstnet.dataset.simulated_movie import SimulatedMovie
from dstnet.errors import BadInputError, DstnetError, OutputError, SettingsError, WeightsError
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


@pytest.fixture(autouse=True)
def _time_limit():
    """Ends a test that waits for a pipe or follows aliases for ever."""

    def end(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


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
        "a: " + "[" * 100_000,
        "a: " + "{a: " * 60 + "}" * 60,
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
