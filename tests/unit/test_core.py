"""Devices by name, and settings that refuse what they do not know."""

import pytest
import torch
from pydantic import Field

from dstnet.core.devices import resolve_device
from dstnet.core.settings import Settings
from dstnet.errors import SettingsError


class Example(Settings):
    size: int = Field(default=3, ge=1)
    name: str | None = None


def test_a_device_keeps_its_name_and_none_is_the_best_there_is():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device() == torch.device(best)


@pytest.mark.parametrize(
    ("build", "gpus", "name", "said"),
    [
        (None, 0, "cuda", r"built for CPUs only; install a CUDA build of torch .*--device cpu"),
        ("12.8", 0, "cuda:1", r"built for GPUs, but finds none: no driver; .*--device cpu"),
        ("12.8", 1, "cuda:7", "there is cuda:0 alone; use one of these, or --device cpu"),
        ("12.8", 4, "cuda:7", "there is cuda:0 to cuda:3; use one of these, or --device cpu"),
        ("12.8", 4, "cuda:3", "no driver; use another GPU, or --device cpu"),
    ],
)
def test_why_cuda_cannot_be_used(monkeypatch, build, gpus, name, said):
    def refuse(*_, **__):
        raise RuntimeError("no driver\nmore")

    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch, "zeros", refuse)
    with pytest.raises(SettingsError, match=f"device '{name}' cannot be used: .*{said}$"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "", "cdua", "cuda:-1", "cuda:", "CPU", "mps"])
def test_no_such_device(name):
    with pytest.raises(SettingsError, match=r"cannot be used: .*; use (--device )?cpu") as caught:
        resolve_device(name)
    assert "\n" not in str(caught.value)


def test_settings_come_back_from_their_own_yaml(tmp_path):
    settings = Example(size=7, name="a: b")
    path = tmp_path / "settings.yaml"
    path.write_text(settings.to_yaml())
    assert Example.from_yaml(path) == settings
    assert Example.from_yaml(path, size=2) == Example(size=2, name="a: b")
    path.write_text("")  # as a full disk leaves it
    with pytest.raises(SettingsError, match="it is empty"):
        Example.from_yaml(path)


def test_wrong_settings_are_named_with_what_was_given_and_what_is_allowed():
    with pytest.raises(SettingsError) as caught:
        Example.checked({"size": 0, "sise": 4}, "my.yaml")
    message = str(caught.value)
    assert message.startswith("my.yaml: size: ")
    assert "(got 0)" in message
    assert "sise: " in message
    assert message.endswith("allowed names here: size, name")


@pytest.mark.parametrize("text", ["[1, 2]", "size: [", "\0"])
def test_a_file_that_holds_no_settings(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="'name: value'"):
        Example.from_yaml(path)
    with pytest.raises(SettingsError, match="cannot read settings"):
        Example.from_yaml(tmp_path / "missing.yaml")


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Example().size = 4
