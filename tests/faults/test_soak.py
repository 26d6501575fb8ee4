"""A small form of the soak in `benchmarks/quality/soak.py`."""

import importlib
from pathlib import Path

import pytest

QUALITY = Path(__file__).resolve().parents[2] / "benchmarks" / "quality"


@pytest.mark.slow
@pytest.mark.timeout(900)  # seven processes, which share the processors with other tests
def test_a_bad_folder_on_a_bad_day(tmp_path, monkeypatch):
    """60 movies, one bad in each way; a worker, then the run killed."""
    monkeypatch.syspath_prepend(QUALITY)
    soak = importlib.import_module("soak")
    figures = soak.killed(tmp_path / "soak", 60, 2, 1, 1)
    wrong = [what for what, is_so in figures["checks"].items() if not is_so]
    assert not wrong, figures
    assert figures["good"] == figures["bad"] == figures["kinds"] == 30
