"""Programs and libraries that tests compare with, and what happens where one is absent."""

import os
import shutil
from typing import NoReturn

import pytest


def absent(message: str) -> NoReturn:
    """Skip aloud; with DSTNET_REQUIRE_ORACLES=1 fail."""
    if os.environ.get("DSTNET_REQUIRE_ORACLES") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def relion(program: str) -> str:
    """Path of one of RELION's programs."""
    return shutil.which(program) or absent(
        f"{program} is not on PATH; install RELION (Debian package relion)"
    )
