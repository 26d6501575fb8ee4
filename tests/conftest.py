"""What all tests share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import shape_checks

# Before anything imports the package.
shape_checks.install("dstnet")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real test data ($DSTNET_DATA, or ../shared/data beside the repository); skips
    aloud where it is absent.

    With DSTNET_REQUIRE_DATA=1 its absence is a failure.
    """
    folder = Path(
        os.environ.get("DSTNET_DATA")
        or Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    ).resolve()
    if not folder.is_dir():
        message = f"no test data at {folder}; set DSTNET_DATA"
        if os.environ.get("DSTNET_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Weights of a tiny random network, with their card."""
    from tiny import save_model

    (tmp_path / "model").mkdir()
    return save_model(tmp_path / "model")


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own folder as the working folder, from which results are named."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ends a test that waits for a pipe or follows aliases for ever, after its module's
    LIMIT_SECONDS.
    """

    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(request.module.LIMIT_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
